//! Attributes that every item of a group has besides those of the layout.

use std::collections::{BTreeMap, BTreeSet};

use millpond_connector::problem::Problems;
use millpond_connector::section::Section;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MAX_NAME_BYTES;
use super::zone::{Edge, MAX_BOUND_BYTES, Zones};
use crate::mapping::pointer::Pointer;
use crate::row::{Value, names};

/// Most of them.
const MAX_EXTRAS: usize = 16;

/// Longest constant in bytes.
const MAX_CONSTANT_BYTES: usize = 1_024;

/// Longest part of a group that becomes an attribute, in bytes: there is so much room in any item.
const MAX_PART_BYTES: usize = 255;

/// What separates the parts of a group, unless it is said.
const SEPARATOR: &str = "/";

/// An attribute of every item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extra {
    /// Its name.
    pub name: String,
    /// Its value.
    pub source: Source,
}

/// Where its value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Always the same.
    Constant(String),
    /// A part of the group.
    GroupPart {
        /// Which one, from 0.
        index: usize,
        /// What separates the parts.
        separator: String,
    },
    /// One end of what a JSON field lies between in the events of the item.
    Bound {
        /// The field.
        field: Pointer,
        /// Which end.
        edge: Edge,
    },
}

/// An attribute as it is written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "DynamodbExtraAttribute")]
pub(crate) enum RawExtra {
    /// This text.
    Constant(String),
    /// This part of the group, counted from 0; left out where the group has fewer, and where
    /// it is empty or above 255 bytes.
    GroupPart(usize),
    /// The lowest value of the field that this JSON pointer leads to, over the item's events: a number or a string. Left
    /// out where there is none, and where the values are not all of one of these types.
    Minimum(String),
    /// The highest one.
    Maximum(String),
}

impl Extra {
    /// The value in an item of a group whose events have these bounds.
    #[must_use]
    pub fn value(&self, group: &str, zones: &Zones) -> Option<Value> {
        match &self.source {
            Source::Bound { field, edge } => zones.edge(field, *edge).map(Value::Typed),
            _ => self.text(group).map(|text| Value::S(text.to_owned())),
        }
    }

    /// The value for a group, where that alone decides it.
    fn text<'a>(&'a self, group: &'a str) -> Option<&'a str> {
        match &self.source {
            Source::Constant(text) => Some(text),
            Source::GroupPart { index, separator } => {
                let part = group.split(separator.as_str()).nth(*index);
                part.filter(|part| (1..=MAX_PART_BYTES).contains(&part.len()))
            }
            Source::Bound { .. } => None,
        }
    }

    /// Bytes in an item of any group, at most.
    #[must_use]
    pub fn most_bytes(&self) -> usize {
        match self.source {
            Source::Constant(_) | Source::Bound { .. } => self.bytes(""),
            Source::GroupPart { .. } => self.name.len() + MAX_PART_BYTES,
        }
    }

    /// Bytes in an item of a group, at most; the name alone where it has no value.
    #[must_use]
    pub fn bytes(&self, group: &str) -> usize {
        self.name.len()
            + match self.source {
                Source::Bound { .. } => MAX_BOUND_BYTES,
                _ => self.text(group).map_or(0, str::len),
            }
    }
}

/// Checks the settings `attributes` and `group-separator`; `taken` are names of keys and others.
pub(super) fn extras(
    section: &Section<'_>,
    problems: &mut Problems,
    raw: BTreeMap<String, RawExtra>,
    separator: Option<String>,
    taken: &[&str],
) -> Vec<Extra> {
    if raw.len() > MAX_EXTRAS {
        problems.push(
            section
                .problem("attributes", format!("are {}", raw.len()))
                .allowed(format!("at most {MAX_EXTRAS}")),
        );
    }
    let is_used = raw
        .values()
        .any(|extra| matches!(extra, RawExtra::GroupPart(_)));
    if separator.is_some() && !is_used {
        problems.push(section.problem(
            "group-separator",
            "has no effect: no attribute is a `group-part`",
        ));
    }
    let separator = separator.unwrap_or_else(|| SEPARATOR.to_owned());
    if separator.is_empty() {
        problems.push(section.problem("group-separator", "is empty"));
    }
    let mut parts = BTreeSet::new();
    let mut extras = Vec::new();
    for (name, raw) in raw {
        let path = format!("attributes.{name}");
        let mut say = |what: &str, allowed: String| {
            problems.push(section.problem(&path, what).allowed(allowed));
        };
        if !(1..=MAX_NAME_BYTES).contains(&name.len()) {
            say(
                "is no name of an attribute",
                format!("1 to {MAX_NAME_BYTES} bytes"),
            );
        }
        if taken.contains(&name.as_str()) || names::ALL.contains(&name.as_str()) {
            let others = names::ALL.join("`, `");
            say(
                "is the name of a key, of `ttl-attribute`, or of an attribute that Millpond writes",
                format!("any but these and `{others}`"),
            );
        }
        let source = match raw {
            RawExtra::Constant(text) => {
                if text.len() > MAX_CONSTANT_BYTES {
                    say("is too long", format!("at most {MAX_CONSTANT_BYTES} bytes"));
                }
                Ok(Source::Constant(text))
            }
            RawExtra::GroupPart(index) => {
                if !parts.insert(index) {
                    say(
                        "is the same as another attribute",
                        "each part once".to_owned(),
                    );
                }
                Ok(Source::GroupPart {
                    index,
                    separator: separator.clone(),
                })
            }
            RawExtra::Minimum(field) => bound(&field, Edge::Minimum),
            RawExtra::Maximum(field) => bound(&field, Edge::Maximum),
        };
        match source {
            Ok(source) => extras.push(Extra { name, source }),
            Err(what) => say(what, "a JSON pointer such as `/price`".to_owned()),
        }
    }
    extras
}

fn bound(field: &str, edge: Edge) -> Result<Source, &'static str> {
    if field.is_empty() {
        return Err("names no field");
    }
    let field = Pointer::parse(field)?;
    Ok(Source::Bound { field, edge })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_gives_its_parts() {
        let part = |index, separator: &str, group: &'static str| {
            let extra = Extra {
                name: "x".into(),
                source: Source::GroupPart {
                    index,
                    separator: separator.into(),
                },
            };
            extra.text(group).map(str::to_owned)
        };
        assert_eq!(part(0, "/", "tenant/job/7").as_deref(), Some("tenant"));
        assert_eq!(part(2, "/", "tenant/job/7").as_deref(), Some("7"));
        assert_eq!(part(3, "/", "tenant/job/7"), None);
        assert_eq!(part(1, "::", "a::b").as_deref(), Some("b"));
        assert_eq!(part(1, "/", "a//b"), None);
        let long: &'static str = Box::leak("x".repeat(256).into_boxed_str());
        assert_eq!(part(0, "/", long), None);
        assert!(part(0, "/", &long[1..]).is_some());
        assert_eq!(part(0, "/", "job").as_deref(), Some("job"));
    }
}
