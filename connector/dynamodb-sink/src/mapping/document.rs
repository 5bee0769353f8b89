//! An event as JSON, taken apart one level at a time: numbers keep their digits, and what is not
//! asked for is only skipped.

use std::fmt;

use millpond_format::limits::MAX_ITEM_BYTES;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::pointer::{self, Pointer};

/// Most members of one object or elements of one array: each takes at least a byte of an item.
const MAX_ELEMENTS: usize = MAX_ITEM_BYTES;

/// A JSON value, its parts still text.
#[derive(Debug)]
pub enum Node<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number as it is written.
    Number(&'a str),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<&'a RawValue>),
    /// An object; of members with one name the first.
    Map(Vec<(String, &'a RawValue)>),
}

impl<'a> Node<'a> {
    /// Takes the outermost level apart.
    ///
    /// # Errors
    /// The parser's words, also for more members or elements than an item can hold.
    pub fn of(raw: &'a RawValue) -> Result<Self, serde_json::Error> {
        let text = raw.get();
        Ok(match text.as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            Some(b'"') => Self::Text(serde_json::from_str(text)?),
            Some(b'[') => Self::List(serde_json::from_str::<Elements<'a>>(text)?.0),
            Some(b'{') => Self::Map(serde_json::from_str::<Members<'a>>(text)?.0),
            _ => Self::Number(text),
        })
    }

    /// The value under a reference token of a pointer.
    fn child(&self, token: &str) -> Option<&'a RawValue> {
        match self {
            Self::Map(members) => {
                let mut members = members.iter();
                let found = members.find(|(name, _)| name == token);
                found.map(|(_, value)| *value)
            }
            Self::List(elements) => elements.get(pointer::index(token)?).copied(),
            _ => None,
        }
    }

    /// What it is, in words.
    #[must_use]
    pub fn shape(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "an array",
            Self::Map(_) => "an object",
        }
    }
}

/// An event that is JSON.
#[derive(Debug)]
pub struct Document<'a> {
    whole: &'a RawValue,
    root: Node<'a>,
}

impl<'a> Document<'a> {
    /// Reads an event.
    ///
    /// # Errors
    /// The parser's words when it is not JSON.
    pub fn parse(event: &'a [u8]) -> Result<Self, serde_json::Error> {
        let whole: &RawValue = serde_json::from_slice(event)?;
        let root = Node::of(whole)?;
        Ok(Self { whole, root })
    }

    /// The value that a pointer leads to.
    ///
    /// # Errors
    /// The parser's words, for more on one level than [`Node::of`] takes.
    pub fn find(&self, pointer: &Pointer) -> Result<Option<&'a RawValue>, serde_json::Error> {
        let Some((first, rest)) = pointer.tokens().split_first() else {
            return Ok(Some(self.whole));
        };
        let mut found = self.root.child(first);
        for token in rest {
            let Some(value) = found else { break };
            found = Node::of(value)?.child(token);
        }
        Ok(found)
    }
}

struct Elements<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Elements<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Elements<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = seq.next_element()? {
                    if elements.len() >= MAX_ELEMENTS {
                        return Err(A::Error::custom("more elements than an item can hold"));
                    }
                    elements.push(element);
                }
                Ok(Elements(elements))
            }
        }
        deserializer.deserialize_seq(Reader)
    }
}

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    if members.len() >= MAX_ELEMENTS {
                        return Err(A::Error::custom("more members than an item can hold"));
                    }
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_lead_to_values_as_they_are_written() {
        let event = br#" {"a": {"b/c": [10, 1.50e2, {"d": null}]}, "a": 2, "": "x"} "#;
        let document = Document::parse(event).expect("json");
        let find = |pointer: &str| {
            let pointer = Pointer::parse(pointer).expect("a pointer");
            let found = document.find(&pointer).expect("readable");
            found.map(|raw| raw.get().to_owned())
        };
        for (pointer, value) in [
            ("/a/b~1c/0", Some("10")),
            ("/a/b~1c/1", Some("1.50e2")),
            ("/a/b~1c/2/d", Some("null")),
            ("/", Some("\"x\"")),
            ("/a/b~1c/01", None),
            ("/a/b~1c/3", None),
            ("/a/b~1c/-", None),
            ("/a/b~1c/0/x", None),
            ("/b", None),
        ] {
            assert_eq!(find(pointer).as_deref(), value, "{pointer}");
        }
        assert!(find("").is_some_and(|whole| whole.starts_with("{\"a\"")));
    }

    #[test]
    fn what_is_no_json_is_an_error_and_depth_is_harmless() {
        for bad in [&b"nothing"[..], b"", b"{\"a\":1", b"{\"a\":\xff}", b"1 2"] {
            assert!(Document::parse(bad).is_err(), "{bad:?}");
        }
        let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
        let document = Document::parse(&deep).expect("json");
        let pointer = Pointer::parse("/0/0/0").expect("a pointer");
        assert!(document.find(&pointer).expect("readable").is_some());
    }
}
