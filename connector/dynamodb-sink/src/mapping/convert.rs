//! From JSON to typed values. Nothing is guessed: what is of another type is refused.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use millpond_format::limits::MAX_ITEM_BYTES;
use serde_json::value::RawValue;

use super::document::Node;
use super::settings::Kind;
use crate::decimal::Decimal;
use crate::typed::Typed;

/// Most lists and maps within each other (DynamoDB developer guide, "Quotas": 32 levels, the
/// attribute itself being one; read 2026-11-23).
const MAX_DEPTH: usize = 31;

/// Why a value cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConvertError {
    /// It is of another type, or cannot be kept exactly; in words that follow its name.
    Invalid(String),
    /// It alone is larger than an item.
    TooLarge,
}

impl ConvertError {
    fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid(what.into())
    }
}

/// The value as `kind` wants it; `None` for what is as good as missing: `null` where a type is named,
/// and an array without elements where that is to be a set.
///
/// # Errors
/// [`ConvertError`].
pub fn convert(raw: &RawValue, kind: Kind) -> Result<Option<Typed>, ConvertError> {
    let mut room = MAX_ITEM_BYTES;
    let node = read(raw)?;
    let typed = match (kind, node) {
        (_, Node::Null) => return Ok(None),
        (Kind::Any, node) => any(node, MAX_DEPTH, &mut room)?,
        (Kind::String, Node::Text(text)) => Typed::S(text),
        (Kind::Number, Node::Number(text)) => Typed::N(decimal(text)?),
        (Kind::Number, Node::Text(text)) => Typed::N(decimal(&text)?),
        (Kind::Boolean, Node::Bool(is)) => Typed::Bool(is),
        (Kind::Binary, Node::Text(text)) => Typed::B(binary(&text)?),
        (Kind::List, node @ Node::List(_)) | (Kind::Map, node @ Node::Map(_)) => {
            any(node, MAX_DEPTH, &mut room)?
        }
        (Kind::StringSet, Node::List(list)) => {
            let set = set(&list, |node| match node {
                Node::Text(text) => Ok(text),
                other => Err(another("a string", &other)),
            });
            return Ok(set?.map(Typed::Ss));
        }
        (Kind::NumberSet, Node::List(list)) => {
            let set = set(&list, |node| match node {
                Node::Number(text) => decimal(text),
                Node::Text(text) => decimal(&text),
                other => Err(another("a number", &other)),
            });
            return Ok(set?.map(Typed::Ns));
        }
        (Kind::BinarySet, Node::List(list)) => {
            let set = set(&list, |node| match node {
                Node::Text(text) => binary(&text),
                other => Err(another("a string in base64", &other)),
            });
            return Ok(set?.map(Typed::Bs));
        }
        (kind, node) => return Err(another(wanted(kind), &node)),
    };
    Ok(Some(typed))
}

fn wanted(kind: Kind) -> &'static str {
    match kind {
        Kind::Any | Kind::Event => "any value",
        Kind::String => "a string",
        Kind::Number => "a number",
        Kind::Boolean => "a boolean",
        Kind::Binary => "a string in base64",
        Kind::Map => "an object",
        Kind::List | Kind::StringSet | Kind::NumberSet | Kind::BinarySet => "an array",
    }
}

fn another(wanted: &str, found: &Node<'_>) -> ConvertError {
    ConvertError::Invalid(format!("is {}, not {wanted}", found.shape()))
}

fn read(raw: &RawValue) -> Result<Node<'_>, ConvertError> {
    Node::of(raw).map_err(|error| ConvertError::Invalid(format!("cannot be read: {error}")))
}

fn decimal(text: &str) -> Result<Decimal, ConvertError> {
    Decimal::parse(text).map_err(|error| ConvertError::Invalid(error.to_string()))
}

fn binary(text: &str) -> Result<Bytes, ConvertError> {
    let decoded = STANDARD.decode(text);
    let decoded = decoded.map_err(|error| ConvertError::Invalid(format!("is no base64: {error}")));
    Ok(decoded?.into())
}

fn set<'a, T: Ord>(
    list: &[&'a RawValue],
    element: impl Fn(Node<'a>) -> Result<T, ConvertError>,
) -> Result<Option<BTreeSet<T>>, ConvertError> {
    let elements = list.iter().map(|raw| element(read(raw)?));
    let set: BTreeSet<T> = elements
        .collect::<Result<_, _>>()
        .map_err(|error| match error {
            ConvertError::Invalid(what) => {
                ConvertError::Invalid(format!("has an element that {what}"))
            }
            too_large => too_large,
        })?;
    Ok((!set.is_empty()).then_some(set))
}

/// A value by its JSON type; `room` bytes may be used.
fn any(node: Node<'_>, depth: usize, room: &mut usize) -> Result<Typed, ConvertError> {
    let below = depth.checked_sub(1);
    let too_deep = || ConvertError::invalid(format!("nests deeper than {MAX_DEPTH} levels"));
    let typed = match node {
        Node::Null => Typed::Null,
        Node::Bool(is) => Typed::Bool(is),
        Node::Number(text) => Typed::N(decimal(text)?),
        Node::Text(text) => Typed::S(text),
        Node::List(list) => {
            let below = below.ok_or_else(too_deep)?;
            let mut elements = Vec::new();
            for raw in list {
                elements.push(any(read(raw)?, below, room)?);
            }
            take(room, elements.len())?;
            return Ok(Typed::L(elements));
        }
        Node::Map(members) => {
            let below = below.ok_or_else(too_deep)?;
            let mut map = BTreeMap::new();
            for (name, raw) in members {
                // Of members with one name the first counts.
                if map.contains_key(&name) {
                    continue;
                }
                let value = any(read(raw)?, below, room)?;
                take(room, name.len() + 1)?;
                map.insert(name, value);
            }
            return Ok(Typed::M(map));
        }
    };
    take(room, typed.bytes())?;
    Ok(typed)
}

fn take(room: &mut usize, bytes: usize) -> Result<(), ConvertError> {
    *room = room.checked_sub(bytes).ok_or(ConvertError::TooLarge)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str, kind: Kind) -> Result<Option<Typed>, ConvertError> {
        let raw: &RawValue = serde_json::from_str(json).expect("json");
        convert(raw, kind)
    }

    #[test]
    fn each_type_is_made_of_its_own_json() {
        let n = |text: &str| Decimal::parse(text).expect("a number");
        let bytes = Bytes::from_static(b"\x00\xff");
        for (json, kind, typed) in [
            ("\"a\\u00e9\"", Kind::String, Typed::S("aé".into())),
            ("1.50", Kind::Number, Typed::N(n("1.5"))),
            ("\"0.1\"", Kind::Number, Typed::N(n("0.1"))),
            ("true", Kind::Boolean, Typed::Bool(true)),
            ("\"AP8=\"", Kind::Binary, Typed::B(bytes.clone())),
            (
                "[1,null]",
                Kind::List,
                Typed::L(vec![Typed::N(n("1")), Typed::Null]),
            ),
            (
                "{\"a\":1,\"a\":2}",
                Kind::Map,
                Typed::M([("a".into(), Typed::N(n("1")))].into()),
            ),
            (
                "[\"b\",\"a\",\"b\"]",
                Kind::StringSet,
                Typed::Ss(["a".into(), "b".into()].into()),
            ),
            (
                "[1,1.0,\"2\"]",
                Kind::NumberSet,
                Typed::Ns([n("1"), n("2")].into()),
            ),
            ("[\"AP8=\"]", Kind::BinarySet, Typed::Bs([bytes].into())),
            ("[[]]", Kind::Any, Typed::L(vec![Typed::L(vec![])])),
            ("\"\"", Kind::Any, Typed::S(String::new())),
        ] {
            assert_eq!(of(json, kind), Ok(Some(typed)), "{json}");
        }
        for (json, kind) in [
            ("null", Kind::Any),
            ("null", Kind::Number),
            ("[]", Kind::StringSet),
        ] {
            assert_eq!(of(json, kind), Ok(None), "{json}");
        }
    }

    #[test]
    fn another_type_is_refused_in_words() {
        let deep = format!("{}{}", "[".repeat(32), "]".repeat(32));
        for (json, kind, said) in [
            ("1", Kind::String, "is a number, not a string"),
            ("\"x\"", Kind::Number, "is no number"),
            ("1e400", Kind::Number, "beyond the range"),
            ("\"true\"", Kind::Boolean, "not a boolean"),
            ("\"!\"", Kind::Binary, "no base64"),
            ("{}", Kind::List, "is an object, not an array"),
            ("[]", Kind::Map, "not an object"),
            (
                "[\"a\",1]",
                Kind::StringSet,
                "has an element that is a number",
            ),
            ("[null]", Kind::NumberSet, "has an element that is null"),
            (&deep, Kind::Any, "nests deeper"),
        ] {
            let Err(ConvertError::Invalid(what)) = of(json, kind) else {
                panic!("{json} is taken");
            };
            assert!(what.contains(said), "{json}: {what}");
        }
        let long = format!("[{}0]", "0,".repeat(409_599));
        assert_eq!(of(&long, Kind::Any), Err(ConvertError::TooLarge));
    }
}
