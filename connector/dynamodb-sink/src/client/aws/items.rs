//! Rows as the service has them, and back.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;

use super::AwsTable;
use crate::row::{Key, Row, Value};
use crate::typed::Typed;

pub(super) type Attributes = HashMap<String, AttributeValue>;

impl AwsTable {
    pub(super) fn key_attributes(&self, key: &Key) -> Attributes {
        HashMap::from([
            (
                self.keys.partition.clone(),
                AttributeValue::S(key.pk.clone()),
            ),
            (self.keys.sort.clone(), AttributeValue::S(key.sk.clone())),
        ])
    }

    pub(super) fn to_item(&self, row: &Row) -> Attributes {
        let mut item = self.key_attributes(&row.key);
        for (name, value) in &row.attributes {
            let value = match value {
                Value::S(text) => AttributeValue::S(text.clone()),
                Value::N(number) => AttributeValue::N(number.to_string()),
                Value::B(pieces) => AttributeValue::B(Blob::new(pieces.concat())),
                Value::Typed(typed) => attribute(typed),
            };
            item.insert(name.clone(), value);
        }
        item
    }

    /// Attributes of other types than Millpond writes are left out.
    pub(super) fn to_row(&self, item: Attributes) -> Option<Row> {
        let mut key = Key {
            pk: String::new(),
            sk: String::new(),
        };
        let mut attributes = BTreeMap::new();
        for (name, value) in item {
            match value {
                AttributeValue::S(text) if name == self.keys.partition => key.pk = text,
                AttributeValue::S(text) if name == self.keys.sort => key.sk = text,
                AttributeValue::S(text) => {
                    attributes.insert(name, Value::S(text));
                }
                AttributeValue::N(number) => {
                    if let Ok(number) = number.parse() {
                        attributes.insert(name, Value::N(number));
                    }
                }
                AttributeValue::B(blob) => {
                    attributes.insert(name, Value::B(blob.into_inner().into()));
                }
                _ => {}
            }
        }
        (!key.pk.is_empty()).then_some(Row { key, attributes })
    }
}

/// The value as the service takes it.
fn attribute(typed: &Typed) -> AttributeValue {
    match typed {
        Typed::S(text) => AttributeValue::S(text.clone()),
        Typed::N(number) => AttributeValue::N(number.to_string()),
        Typed::B(bytes) => AttributeValue::B(Blob::new(bytes.to_vec())),
        Typed::Bool(is) => AttributeValue::Bool(*is),
        Typed::Null => AttributeValue::Null(true),
        Typed::L(list) => AttributeValue::L(list.iter().map(attribute).collect()),
        Typed::M(map) => {
            let entries = map.iter();
            AttributeValue::M(
                entries
                    .map(|(name, v)| (name.clone(), attribute(v)))
                    .collect(),
            )
        }
        Typed::Ss(set) => AttributeValue::Ss(set.iter().cloned().collect()),
        Typed::Ns(set) => AttributeValue::Ns(set.iter().map(ToString::to_string).collect()),
        Typed::Bs(set) => {
            let blobs = set.iter().map(|bytes| Blob::new(bytes.to_vec()));
            AttributeValue::Bs(blobs.collect())
        }
    }
}
