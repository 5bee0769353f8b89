//! From an event to one item of its own: keys from templates, typed attributes from JSON fields.
//! Pure: the same event at the same place in the topic gives the same item.

pub mod convert;
pub mod document;
pub mod pointer;
pub mod settings;
pub mod template;

use millpond_format::keys;
use millpond_format::limits::MAX_TIME_MS;
use serde_json::value::RawValue;

use crate::decimal::Decimal;
use crate::row::{Key, Row, Value};
use crate::typed::Typed;
use convert::{ConvertError, convert};
use document::{Document, Node};
use pointer::Pointer;
use settings::{Kind, PlainSettings, SameKey};
use template::{Part, Template};

/// Longest partition key and sort key in bytes (DynamoDB developer guide, "Quotas", read
/// 2026-11-23).
const MAX_KEY_BYTES: [usize; 2] = [2_048, 1_024];

/// How partition keys begin that are Millpond's own.
const OWN_KEYS: &str = "millpond:";

/// A mapping that cannot be wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    pub(crate) partition_key: Template,
    pub(crate) sort_key: Template,
    pub(crate) event_time: Option<Pointer>,
    pub(crate) same_key: Option<SameKey>,
    pub(crate) order_attribute: String,
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) settings: PlainSettings,
}

/// An attribute of every item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attribute {
    pub(crate) name: String,
    pub(crate) source: Source,
    pub(crate) is_required: bool,
}

/// Where an attribute comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Event,
    Template(Template),
    Field(Pointer, Kind),
}

/// An event and where it came from.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// Its bytes.
    pub value: &'a bytes::Bytes,
    /// Its Kinesis partition key.
    pub partition_key: &'a str,
    /// When it arrived, ms.
    pub arrival_ms: i64,
    /// Its topic partition.
    pub partition: u32,
    /// Its topic offset.
    pub offset: u64,
}

/// What an event becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedItem {
    /// The item.
    pub row: Row,
    /// Event time, ms.
    pub time_ms: i64,
    /// Its place among the events of its key, where that matters.
    pub order: Option<String>,
}

/// Why an event becomes no item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// A stable name.
    pub reason: &'static str,
    /// What exactly is wrong.
    pub detail: String,
}

fn refuse(reason: &'static str, detail: impl Into<String>) -> Refusal {
    Refusal {
        reason,
        detail: detail.into(),
    }
}

/// An event while it is looked at.
struct Reading<'a> {
    event: Incoming<'a>,
    document: Option<Document<'a>>,
    time_ms: i64,
}

impl Mapping {
    /// Which of several events of one key is kept; `None`: there are no two.
    #[must_use]
    pub fn same_key(&self) -> Option<SameKey> {
        self.same_key
    }

    /// True when the key of an event says where in the topic it is: in another topic it has another one.
    #[must_use]
    pub fn names_positions(&self) -> bool {
        let names = |template: &Template| template.parts().contains(&Part::Position);
        names(&self.partition_key) || names(&self.sort_key)
    }

    /// Attribute by which events of one key are compared.
    #[must_use]
    pub fn order_attribute(&self) -> &str {
        &self.order_attribute
    }

    /// The settings that it was built from.
    #[must_use]
    pub fn settings(&self) -> &PlainSettings {
        &self.settings
    }

    /// The item of an event.
    ///
    /// # Errors
    /// [`Refusal`] for an event that does not give one: it is for the dead-letter queue.
    pub fn item(&self, event: Incoming<'_>) -> Result<MappedItem, Refusal> {
        let document = if self.reads_json() {
            let parsed = Document::parse(event.value);
            Some(parsed.map_err(|error| refuse("not-json", error.to_string()))?)
        } else {
            None
        };
        let mut reading = Reading {
            event,
            document,
            time_ms: event.arrival_ms.clamp(0, MAX_TIME_MS),
        };
        if let Some(pointer) = &self.event_time {
            reading.time_ms = reading.event_time(pointer)?;
        }
        let pk = reading.key(&self.partition_key, "partition key", MAX_KEY_BYTES[0])?;
        let sk = reading.key(&self.sort_key, "sort key", MAX_KEY_BYTES[1])?;
        if pk.starts_with(OWN_KEYS) {
            let detail = format!("partition key begins with `{OWN_KEYS}`, as rows of Millpond do");
            return Err(refuse("key-invalid", detail));
        }
        let mut row = Row::new(Key { pk, sk });
        for attribute in &self.attributes {
            if let Some(value) = reading.attribute(attribute)? {
                row = row.with(&attribute.name, Value::Typed(value));
            }
        }
        let order = self
            .same_key
            .map(|_| template::order(reading.time_ms, event.partition, event.offset));
        if let Some(order) = &order {
            row = row.with(&self.order_attribute, Value::S(order.clone()));
        }
        Ok(MappedItem {
            row,
            time_ms: reading.time_ms,
            order,
        })
    }

    fn reads_json(&self) -> bool {
        let has_field = |template: &Template| {
            let mut parts = template.parts().iter();
            parts.any(|part| matches!(part, Part::Field(_)))
        };
        self.event_time.is_some()
            || has_field(&self.partition_key)
            || has_field(&self.sort_key)
            || self
                .attributes
                .iter()
                .any(|attribute| match &attribute.source {
                    Source::Event => false,
                    Source::Template(template) => has_field(template),
                    Source::Field(..) => true,
                })
    }
}

impl<'a> Reading<'a> {
    fn find(&self, pointer: &Pointer) -> Result<Option<&'a RawValue>, Refusal> {
        let Some(document) = &self.document else {
            return Ok(None);
        };
        let found = document.find(pointer);
        found.map_err(|error| refuse("too-large", format!("`{pointer}`: {error}")))
    }

    fn event_time(&self, pointer: &Pointer) -> Result<i64, Refusal> {
        let node = self.find(pointer)?.map(Node::of).transpose();
        let time = match node {
            Ok(None | Some(Node::Null)) => {
                let detail = format!("the event has no time at `{pointer}`");
                return Err(refuse("event-time-missing", detail));
            }
            Ok(Some(Node::Text(text))) => keys::parse_time(&text),
            Ok(Some(Node::Number(text))) => milliseconds(text),
            _ => None,
        };
        time.ok_or_else(|| {
            let detail = format!(
                "`{pointer}` is neither RFC 3339 text nor milliseconds since 1970, up to the year 9999"
            );
            refuse("event-time-invalid", detail)
        })
    }

    fn key(&self, template: &Template, what: &str, limit: usize) -> Result<String, Refusal> {
        let key = self.text(template, what)?.ok_or_else(|| {
            let detail = format!("the event lacks a field of the {what}");
            refuse("key-missing", detail)
        })?;
        if key.len() > limit {
            let detail = format!("{what} of {} bytes, allowed are {limit}", key.len());
            return Err(refuse("key-too-long", detail));
        }
        Ok(key)
    }

    /// The text of a template; `None` when a field of it is missing.
    fn text(&self, template: &Template, what: &str) -> Result<Option<String>, Refusal> {
        let mut out = String::new();
        for part in template.parts() {
            let before = out.len();
            match part {
                Part::Text(text) => out.push_str(text),
                Part::PartitionKey => out.push_str(self.event.partition_key),
                Part::Time => out.push_str(&keys::time_text(self.time_ms)),
                Part::Position => {
                    out.push_str(&template::position(self.event.partition, self.event.offset));
                }
                Part::Field(pointer) => {
                    let Some(raw) = self.find(pointer)? else {
                        return Ok(None);
                    };
                    let invalid = |why: String| {
                        refuse("key-invalid", format!("`{pointer}` of the {what} {why}"))
                    };
                    let node = Node::of(raw).map_err(|error| invalid(error.to_string()))?;
                    match node {
                        Node::Null => return Ok(None),
                        Node::Text(text) => out.push_str(&text),
                        Node::Bool(is) => out.push_str(if is { "true" } else { "false" }),
                        Node::Number(text) => {
                            let number = Decimal::parse(text);
                            let number = number.map_err(|error| invalid(error.to_string()))?;
                            out.push_str(number.as_str());
                        }
                        Node::List(_) | Node::Map(_) => {
                            return Err(invalid(format!("is {}", node.shape())));
                        }
                    }
                }
            }
            // Two events that differ in where a text is empty would have one key.
            if out.len() == before {
                return Err(refuse(
                    "key-empty",
                    format!("a part of the {what} is empty"),
                ));
            }
        }
        Ok(Some(out))
    }

    fn attribute(&self, attribute: &Attribute) -> Result<Option<Typed>, Refusal> {
        let name = &attribute.name;
        let value = match &attribute.source {
            Source::Event => Some(Typed::B(self.event.value.clone())),
            Source::Template(template) => {
                let text = self.text(template, &format!("attribute `{name}`"));
                let text = text.map_err(|refusal| match refusal.reason {
                    "key-empty" | "key-invalid" => refuse("field-invalid", refusal.detail),
                    _ => refusal,
                })?;
                text.map(Typed::S)
            }
            Source::Field(pointer, kind) => match self.find(pointer)? {
                None => None,
                Some(raw) => convert(raw, *kind).map_err(|error| match error {
                    ConvertError::Invalid(what) => {
                        refuse("field-invalid", format!("`{pointer}` {what}"))
                    }
                    ConvertError::TooLarge => refuse(
                        "too-large",
                        format!("`{pointer}` alone is larger than an item"),
                    ),
                })?,
            },
        };
        if value.is_none() && attribute.is_required {
            let detail = match &attribute.source {
                Source::Field(pointer, _) => format!("the event has nothing at `{pointer}`"),
                _ => format!("the event lacks a field of attribute `{name}`"),
            };
            return Err(refuse("field-missing", detail));
        }
        Ok(value)
    }
}

/// Milliseconds as a plain JSON number; a fraction is cut off.
fn milliseconds(number: &str) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_plain = fraction.bytes().all(|byte| byte.is_ascii_digit()) && !whole.starts_with('-');
    let millis: i64 = whole.parse().ok()?;
    (is_plain && (0..=MAX_TIME_MS).contains(&millis)).then_some(millis)
}

#[cfg(test)]
mod tests;
