//! The setting `plain` as it is written, and what can be wrong with it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pointer::Pointer;
use super::template::Template;
use super::{Attribute, Mapping, Source};
use crate::row::KeyNames;

/// Attribute that holds an event's place among those of its key, unless it is named.
pub const ORDER_ATTRIBUTE: &str = "millpond";

/// Longest attribute name (DynamoDB developer guide, "Naming rules and data types": 64 KB, read
/// 2026-11-23).
const MAX_NAME_BYTES: usize = 65_535;

/// One item per event, its attributes taken from the event's JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "DynamodbPlain")]
pub struct PlainSettings {
    /// Partition key of the item: text with `{/json/pointer}`, `{partition-key}` (that of Kinesis),
    /// `{time}` and `{position}` in it.
    #[schemars(required)]
    pub partition_key: Option<String>,
    /// Sort key of the item, as `partition-key`. A key that ends with `{position}` is different for
    /// each event.
    #[schemars(required)]
    pub sort_key: Option<String>,
    /// JSON pointer to the event time: RFC 3339 text, or milliseconds since 1970. Default: arrival.
    pub event_time: Option<String>,
    /// Which of several events of one key is kept; not given if a key ends with `{position}`.
    pub same_key: Option<SameKey>,
    /// Attribute of the event's time and position, by which events of one key are compared.
    /// Default: `millpond`.
    pub order_attribute: Option<String>,
    /// Attributes of the item by name.
    #[serde(default)]
    pub attributes: BTreeMap<String, AttributeSettings>,
}

/// Which of several events of one key is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "DynamodbSameKey")]
pub enum SameKey {
    /// The first one that reaches the table.
    FirstWins,
    /// The one with the latest event time; of several, the last one in the topic.
    LastWins,
}

/// An attribute of an item.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "DynamodbPlainAttribute")]
pub struct AttributeSettings {
    /// Type of the attribute. Default: `any`.
    #[serde(rename = "type")]
    pub kind: Option<Kind>,
    /// JSON pointer to its value, the empty one for the whole event. Default: the member of the
    /// event with the attribute's name.
    pub from: Option<String>,
    /// Text as that of the keys, in place of `type` and `from`.
    pub template: Option<String>,
    /// Whether an event without it is a dead letter; else the attribute is left out. Default: true.
    pub required: Option<bool>,
}

/// Type of an attribute, and what JSON it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "DynamodbAttributeType")]
pub enum Kind {
    /// By the type of the JSON value: string, number, boolean, list or map.
    Any,
    /// A string.
    String,
    /// A number, or a string that is one: all its digits are kept.
    Number,
    /// A boolean.
    Boolean,
    /// Bytes, of a string in base64.
    Binary,
    /// A list, of an array.
    List,
    /// A map, of an object.
    Map,
    /// A set, of an array of strings.
    StringSet,
    /// A set, of an array of numbers.
    NumberSet,
    /// A set, of an array of strings in base64.
    BinarySet,
    /// The event as it was produced, binary.
    Event,
}

/// Something wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Dotted path below `plain`.
    pub path: String,
    /// What is wrong.
    pub what: String,
}

impl PlainSettings {
    /// The mapping, for a table with these keys whose items have `taken` attributes besides.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn build(&self, keys: &KeyNames, taken: &[&str]) -> Result<Mapping, Vec<Mistake>> {
        let mut mistakes = Mistakes(Vec::new());
        let partition_key = mistakes.key("partition-key", self.partition_key.as_deref());
        let sort_key = mistakes.key("sort-key", self.sort_key.as_deref());
        let event_time = self.event_time.as_deref();
        let event_time = event_time.map(|text| mistakes.member("event-time", text));
        if let (Some(partition), Some(sort)) = (&partition_key, &sort_key) {
            self.check_same_key(partition.is_unique() || sort.is_unique(), &mut mistakes);
        }
        let order_attribute = self.order_attribute.as_deref().unwrap_or(ORDER_ATTRIBUTE);
        let mut names = vec![keys.partition.as_str(), keys.sort.as_str()];
        names.extend(taken);
        if self.same_key.is_some() {
            mistakes.name("order-attribute", order_attribute, &names);
            names.push(order_attribute);
        }
        if self.attributes.is_empty() {
            mistakes.say("attributes", "is missing: name at least one");
        }
        let mut attributes = Vec::new();
        for (name, settings) in &self.attributes {
            let path = format!("attributes.{name}");
            mistakes.name(&path, name, &names);
            if let Some(source) = mistakes.source(&path, name, settings) {
                attributes.push(Attribute {
                    name: name.clone(),
                    source,
                    is_required: settings.required != Some(false),
                });
            }
        }
        match (partition_key, sort_key, event_time) {
            (Some(partition_key), Some(sort_key), event_time) if mistakes.0.is_empty() => {
                Ok(Mapping {
                    partition_key,
                    sort_key,
                    event_time: event_time.flatten(),
                    same_key: self.same_key,
                    order_attribute: order_attribute.to_owned(),
                    attributes,
                    settings: self.clone(),
                })
            }
            _ => Err(mistakes.0),
        }
    }

    fn check_same_key(&self, is_unique: bool, mistakes: &mut Mistakes) {
        match (is_unique, self.same_key) {
            (false, None) => mistakes.say(
                "same-key",
                "is missing: two events may have the same key. Say `first-wins` or `last-wins`, \
                 or end a key with `{position}`",
            ),
            (true, Some(_)) => mistakes.say(
                "same-key",
                "has no effect: a key that ends with `{position}` is different for each event",
            ),
            _ => {}
        }
        if self.order_attribute.is_some() && self.same_key.is_none() {
            mistakes.say("order-attribute", "has no effect without `same-key`");
        }
    }
}

struct Mistakes(Vec<Mistake>);

impl Mistakes {
    fn say(&mut self, path: &str, what: impl Into<String>) {
        self.0.push(Mistake {
            path: path.to_owned(),
            what: what.into(),
        });
    }

    fn key(&mut self, path: &str, text: Option<&str>) -> Option<Template> {
        let Some(text) = text else {
            self.say(path, "is missing");
            return None;
        };
        self.template(path, text)
    }

    fn template(&mut self, path: &str, text: &str) -> Option<Template> {
        let parsed = Template::parse(text);
        parsed.map_err(|what| self.say(path, what)).ok()
    }

    fn pointer(&mut self, path: &str, text: &str) -> Option<Pointer> {
        let parsed = Pointer::parse(text);
        parsed.map_err(|what| self.say(path, what)).ok()
    }

    /// A pointer to a part of the event.
    fn member(&mut self, path: &str, text: &str) -> Option<Pointer> {
        if text.is_empty() {
            self.say(path, "is empty: name a field such as `/time`");
            return None;
        }
        self.pointer(path, text)
    }

    fn name(&mut self, path: &str, name: &str, taken: &[&str]) {
        if !(1..=MAX_NAME_BYTES).contains(&name.len()) {
            self.say(
                path,
                format!("is no name of an attribute: allowed are 1 to {MAX_NAME_BYTES} bytes"),
            );
        }
        if taken.contains(&name) {
            self.say(
                path,
                format!("`{name}` is a key, or an attribute that another setting names"),
            );
        }
    }

    fn source(&mut self, path: &str, name: &str, given: &AttributeSettings) -> Option<Source> {
        if let Some(template) = &given.template {
            for (setting, is_set) in [
                ("type", given.kind.is_some()),
                ("from", given.from.is_some()),
            ] {
                if is_set {
                    self.say(
                        &format!("{path}.{setting}"),
                        "has no effect beside `template`, which makes a string",
                    );
                }
            }
            let template = self.template(&format!("{path}.template"), template)?;
            return Some(Source::Template(template));
        }
        let kind = given.kind.unwrap_or(Kind::Any);
        if kind == Kind::Event {
            if given.from.is_some() {
                self.say(
                    &format!("{path}.from"),
                    "has no effect: `type: event` is the whole event",
                );
            }
            return Some(Source::Event);
        }
        let pointer = match &given.from {
            Some(from) => self.pointer(&format!("{path}.from"), from)?,
            None => Pointer::to_member(name),
        };
        Some(Source::Field(pointer, kind))
    }
}
