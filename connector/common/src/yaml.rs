//! A YAML stream as a tree in which every value knows its place in the file.
//!
//! Scalars stay as text until somebody asks for a type, so that `version: 0.10` is not a number
//! by accident. [`crate::yaml_stream`] makes the trees.

use std::fmt;

/// A place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl Span {
    /// As byte range.
    #[must_use]
    pub fn bytes(self) -> std::ops::Range<usize> {
        self.start..self.end.max(self.start)
    }
}

/// One value.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where it is written.
    pub span: Span,
    /// What it is.
    pub value: Value,
}

/// A value by its shape.
#[derive(Debug, Clone)]
pub enum Value {
    /// Text, number, boolean or nothing: see [`Scalar::resolve`].
    Scalar(Scalar),
    /// A list.
    Sequence(Vec<Node>),
    /// A map, keys in the order of the file, no key twice.
    Mapping(Vec<Entry>),
}

/// One key of a map with its value.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key is written.
    pub key_span: Span,
    /// The value.
    pub value: Node,
}

/// A scalar as it is written.
#[derive(Clone)]
pub struct Scalar {
    text: String,
    plain: bool,
    secret: bool,
}

/// A plain scalar by the rules of the YAML 1.2 core schema.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Resolved<'a> {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// Any other number.
    Float(f64),
    /// Anything else, and everything in quotes.
    Text(&'a str),
}

impl Scalar {
    /// Text as if it stood in quotes.
    #[must_use]
    pub fn quoted(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            plain: false,
            secret: false,
        }
    }

    /// As the file has it; `plain` without quotes.
    pub(crate) fn written(text: String, plain: bool) -> Self {
        Self {
            text,
            plain,
            secret: false,
        }
    }

    /// The same scalar with a secret in it: never shown, still a number if it looks like one.
    #[must_use]
    pub fn with_secret(&self, text: String) -> Self {
        Self {
            text,
            plain: self.plain,
            secret: true,
        }
    }

    /// The text as written, or with its secrets filled in.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// True when a secret was filled in.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.secret
    }

    /// What it means.
    #[must_use]
    pub fn resolve(&self) -> Resolved<'_> {
        if !self.plain {
            return Resolved::Text(&self.text);
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Resolved::Null,
            "true" | "True" | "TRUE" => Resolved::Bool(true),
            "false" | "False" | "FALSE" => Resolved::Bool(false),
            text => resolve_number(text),
        }
    }
}

fn resolve_number(text: &str) -> Resolved<'_> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Resolved::Text(text);
    }
    let radix = [("0x", 16), ("0o", 8)]
        .into_iter()
        .find_map(|(prefix, radix)| Some((digits.strip_prefix(prefix)?, radix)));
    if let Some((digits, radix)) = radix {
        return i128::from_str_radix(digits, radix).map_or(Resolved::Text(text), Resolved::Integer);
    }
    if let Ok(integer) = text.parse() {
        return Resolved::Integer(integer);
    }
    match text.parse::<f64>() {
        Ok(float) if float.is_finite() => Resolved::Float(float),
        _ => Resolved::Text(text),
    }
}

impl fmt::Debug for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.secret {
            true => f.write_str("[secret]"),
            false => self.text.fmt(f),
        }
    }
}

impl Node {
    /// The entries of a map.
    #[must_use]
    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Mapping(entries) => Some(entries),
            _ => None,
        }
    }

    /// One entry of a map.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries()?.iter().find(|entry| entry.key == key)
    }

    /// One value of a map.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The text of a scalar that is text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => match scalar.resolve() {
                Resolved::Text(text) => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    /// True for nothing, `~` and `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.resolve() == Resolved::Null)
    }

    /// The value as it may be shown: scalars only, never a secret.
    #[must_use]
    pub fn shown(&self) -> Option<String> {
        match &self.value {
            Value::Scalar(scalar) if scalar.secret => Some("(a secret)".to_owned()),
            Value::Scalar(scalar) => Some(scalar.text.clone()),
            _ => None,
        }
    }

    /// What it is, for people.
    #[must_use]
    pub fn shape(&self) -> &'static str {
        match &self.value {
            Value::Scalar(scalar) => match scalar.resolve() {
                Resolved::Null => "nothing",
                Resolved::Bool(_) => "a truth value",
                Resolved::Integer(_) | Resolved::Float(_) => "a number",
                Resolved::Text(_) => "text",
            },
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a map",
        }
    }

    /// As JSON, secrets filled in.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Scalar(scalar) => match scalar.resolve() {
                Resolved::Null => serde_json::Value::Null,
                Resolved::Bool(truth) => truth.into(),
                Resolved::Integer(integer) => {
                    match (i64::try_from(integer), u64::try_from(integer)) {
                        (Ok(small), _) => small.into(),
                        (_, Ok(large)) => large.into(),
                        _ => scalar.text.as_str().into(),
                    }
                }
                Resolved::Float(float) => float.into(),
                Resolved::Text(text) => text.into(),
            },
            Value::Sequence(items) => items.iter().map(Self::to_json).collect(),
            Value::Mapping(entries) => entries
                .iter()
                .map(|entry| (entry.key.clone(), entry.value.to_json()))
                .collect(),
        }
    }

    /// True when a secret is anywhere in it.
    #[must_use]
    pub fn has_secret(&self) -> bool {
        match &self.value {
            Value::Scalar(scalar) => scalar.secret,
            Value::Sequence(items) => items.iter().any(Self::has_secret),
            Value::Mapping(entries) => entries.iter().any(|entry| entry.value.has_secret()),
        }
    }

    /// Number of values and bytes of text.
    pub(crate) fn weight(&self) -> (usize, usize) {
        let add = |(nodes, bytes): (usize, usize), node: &Self| {
            let (more_nodes, more_bytes) = node.weight();
            (nodes + more_nodes, bytes + more_bytes)
        };
        match &self.value {
            Value::Scalar(scalar) => (1, scalar.text.len()),
            Value::Sequence(items) => items.iter().fold((1, 0), add),
            Value::Mapping(entries) => entries.iter().fold((1, 0), |sum, entry| {
                let (nodes, bytes) = add(sum, &entry.value);
                (nodes, bytes + entry.key.len())
            }),
        }
    }

    /// Number of levels.
    pub(crate) fn depth(&self) -> usize {
        let below = match &self.value {
            Value::Scalar(_) => 0,
            Value::Sequence(items) => items.iter().map(Self::depth).max().unwrap_or(0),
            Value::Mapping(entries) => {
                let depths = entries.iter().map(|entry| entry.value.depth());
                depths.max().unwrap_or(0)
            }
        };
        below + 1
    }
}
