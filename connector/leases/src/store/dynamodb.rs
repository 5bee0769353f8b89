//! Rows in a table of DynamoDB, beside the ledger's: one partition key value for all rows of a
//! pipeline's stream, so that one strongly consistent `Query` is the view, and pipelines that
//! share a table do not meet.

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;

use super::call::{CallError, applied};
use super::{LeaseStore, Outcome, StoreError};
use crate::row::{Beat, Change, LeaseId, LeaseRow, View, WorkerId};

const LEASE: &str = "lease/";
const WORKER: &str = "worker/";
const SESSION: &str = "session";
const COUNT: &str = "beat";
const EPOCH: &str = "epoch";
const OWNER: &str = "owner";
const WANTED_BY: &str = "wanted_by";

/// Rows in a table. Clones share them.
#[derive(Debug, Clone)]
pub struct DynamoStore {
    client: Client,
    table: String,
    partition_key: String,
    sort_key: String,
    pk: String,
}

type Attributes = HashMap<String, AttributeValue>;

impl DynamoStore {
    /// Attribute names of the rows; a key of the table must not take one of them.
    pub const ATTRIBUTES: [&'static str; 5] = [SESSION, COUNT, EPOCH, OWNER, WANTED_BY];

    /// Rows of `pipeline`'s leases on `stream`, in a table whose string keys have these names.
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(
        client: Client,
        table: &str,
        partition_key: &str,
        sort_key: &str,
        pipeline: &str,
        stream: &str,
    ) -> Self {
        Self {
            client,
            table: table.to_owned(),
            partition_key: partition_key.to_owned(),
            sort_key: sort_key.to_owned(),
            pk: format!("millpond:leases/{pipeline}/{stream}"),
        }
    }

    fn key(&self, sk: String) -> Attributes {
        HashMap::from([
            (
                self.partition_key.clone(),
                AttributeValue::S(self.pk.clone()),
            ),
            (self.sort_key.clone(), AttributeValue::S(sk)),
        ])
    }

    /// Reads one item into the view; rows that are neither a worker's nor a lease's are left out.
    fn read(&self, item: &Attributes, view: &mut View) -> Result<(), StoreError> {
        let Some(sk) = text(item, &self.sort_key) else {
            return Ok(());
        };
        let number = |name: &'static str| {
            let value = item.get(name).and_then(|value| value.as_n().ok());
            let number = value.and_then(|value| value.parse().ok());
            number.ok_or_else(|| StoreError::Row {
                row: sk.to_owned(),
                what: name,
            })
        };
        if let Some(id) = sk.strip_prefix(WORKER) {
            let beat = Beat {
                session: number(SESSION)?,
                count: number(COUNT)?,
            };
            view.workers.insert(WorkerId::new(id), beat);
        } else if let Some(id) = sk.strip_prefix(LEASE) {
            let row = LeaseRow {
                epoch: number(EPOCH)?,
                owner: text(item, OWNER).map(WorkerId::new),
                wanted_by: text(item, WANTED_BY).map(WorkerId::new),
            };
            view.leases.insert(LeaseId::new(id), row);
        }
        Ok(())
    }
}

fn text<'a>(item: &'a Attributes, name: &str) -> Option<&'a str> {
    let value = item.get(name)?.as_s().ok()?;
    Some(value)
}

fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn beat_attributes(beat: &Beat) -> Vec<(&'static str, Option<AttributeValue>)> {
    vec![
        (SESSION, Some(number(beat.session))),
        (COUNT, Some(number(beat.count))),
    ]
}

fn lease_attributes(row: &LeaseRow) -> Vec<(&'static str, Option<AttributeValue>)> {
    let id = |id: &Option<WorkerId>| {
        let text = id.as_ref().map(|id| id.as_str().to_owned());
        text.map(AttributeValue::S)
    };
    vec![
        (EPOCH, Some(number(row.epoch))),
        (OWNER, id(&row.owner)),
        (WANTED_BY, id(&row.wanted_by)),
    ]
}

/// A condition with the names and values that it uses.
struct Condition {
    expression: String,
    names: HashMap<String, String>,
    values: Option<Attributes>,
}

/// The row is as it was seen: these attributes are so, or there is no row.
fn unchanged(
    seen: Option<Vec<(&'static str, Option<AttributeValue>)>>,
    partition_key: &str,
) -> Condition {
    let Some(seen) = seen else {
        return Condition {
            expression: "attribute_not_exists(#k)".to_owned(),
            names: HashMap::from([("#k".to_owned(), partition_key.to_owned())]),
            values: None,
        };
    };
    let mut parts = Vec::new();
    let mut names = HashMap::new();
    let mut values = HashMap::new();
    for (name, value) in seen {
        names.insert(format!("#{name}"), name.to_owned());
        match value {
            Some(value) => {
                parts.push(format!("#{name} = :{name}"));
                values.insert(format!(":{name}"), value);
            }
            None => parts.push(format!("attribute_not_exists(#{name})")),
        }
    }
    Condition {
        expression: parts.join(" AND "),
        names,
        values: Some(values),
    }
}

#[async_trait]
impl LeaseStore for DynamoStore {
    async fn view(&self) -> Result<View, StoreError> {
        let mut view = View::default();
        let mut from = None;
        loop {
            let answer = self
                .client
                .query()
                .table_name(&self.table)
                .key_condition_expression("#pk = :pk")
                .expression_attribute_names("#pk", &self.partition_key)
                .expression_attribute_values(":pk", AttributeValue::S(self.pk.clone()))
                .consistent_read(true)
                .set_exclusive_start_key(from)
                .send()
                .await
                .map_err(CallError::from)?;
            for item in answer.items() {
                self.read(item, &mut view)?;
            }
            from = answer.last_evaluated_key;
            if from.is_none() {
                return Ok(view);
            }
        }
    }

    async fn change(&self, change: &Change) -> Result<Outcome, StoreError> {
        let (sk, seen, new) = match change {
            Change::Worker { id, seen, new } => (
                format!("{WORKER}{id}"),
                seen.as_ref().map(beat_attributes),
                new.as_ref().map(beat_attributes),
            ),
            Change::Lease { id, seen, new } => (
                format!("{LEASE}{id}"),
                seen.as_ref().map(lease_attributes),
                Some(lease_attributes(new)),
            ),
        };
        let condition = unchanged(seen, &self.partition_key);
        let key = self.key(sk);
        if let Some(new) = new {
            let mut item = key;
            for (name, value) in new {
                if let Some(value) = value {
                    item.insert(name.to_owned(), value);
                }
            }
            let call = self.client.put_item().table_name(&self.table);
            let call = call
                .set_item(Some(item))
                .condition_expression(condition.expression)
                .set_expression_attribute_names(Some(condition.names))
                .set_expression_attribute_values(condition.values);
            Ok(applied(call.send().await)?)
        } else {
            let call = self.client.delete_item().table_name(&self.table);
            let call = call
                .set_key(Some(key))
                .condition_expression(condition.expression)
                .set_expression_attribute_names(Some(condition.names))
                .set_expression_attribute_values(condition.values);
            Ok(applied(call.send().await)?)
        }
    }
}
