//! Serde over the tree of a file: every error knows the place it belongs to.
//!
//! Used through [`crate::section::Section::read`], which reads again without the values that were
//! refused, so that one pass of the user sees all of them.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{
    self, DeserializeSeed, Deserializer as _, EnumAccess, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};

use crate::problem::{Problem, known_names, quoted};
use crate::yaml::{Entry, Node, Resolved, Scalar, Value};

/// Identity of a node within one tree: its address.
type NodeId = usize;

fn id(node: &Node) -> NodeId {
    std::ptr::from_ref(node) as NodeId
}

/// Reads a value; what was refused goes to `problems`.
///
/// `None` only when the value as a whole was refused.
pub(crate) fn read<'a, T: Deserialize<'a>>(
    node: &'a Node,
    path: &str,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let reading = Reading {
        refused: RefCell::new(HashSet::new()),
        unknown: RefCell::new(Vec::new()),
    };
    let outcome = loop {
        let error = match T::deserialize(NodeReader {
            node,
            reading: &reading,
        }) {
            Ok(value) => break Some(value),
            Err(error) => error,
        };
        let at = error.at;
        problems.push(error.into_problem(node, path));
        // Each round refuses one value more: the loop ends after as many rounds as there are values.
        match at {
            Some(at) if reading.refused.borrow_mut().insert(at) => {
                reading.unknown.borrow_mut().clear();
            }
            _ => break None,
        }
    };
    for mut problem in reading.unknown.into_inner() {
        problem.path = join(path, &problem.path);
        problems.push(problem);
    }
    outcome
}

/// `a` and `b` as `a.b`; either may be empty.
pub(crate) fn join(parent: &str, child: &str) -> String {
    match (parent, child) {
        ("", child) => child.to_owned(),
        (parent, "") => parent.to_owned(),
        (parent, child) if child.starts_with('[') => format!("{parent}{child}"),
        (parent, child) => format!("{parent}.{child}"),
    }
}

struct Reading {
    refused: RefCell<HashSet<NodeId>>,
    unknown: RefCell<Vec<Problem>>,
}

impl Reading {
    /// Reads what lies one step deeper: paths of unknown keys found there begin with the step.
    fn below<T>(&self, step: &str, read: impl FnOnce() -> T) -> T {
        let before = self.unknown.borrow().len();
        let outcome = read();
        for problem in self.unknown.borrow_mut().iter_mut().skip(before) {
            problem.path = join(step, &problem.path);
        }
        outcome
    }
}

/// Why a value was refused, and which.
#[derive(Debug)]
pub(crate) struct ReadError {
    what: String,
    allowed: Option<String>,
    help: Option<String>,
    /// Path below the value that was read.
    path: String,
    /// The refused value, once known.
    at: Option<NodeId>,
    place: Option<(crate::yaml::Span, Option<String>)>,
    secret: bool,
    /// The words cannot quote a value.
    quotes_nothing: bool,
}

impl ReadError {
    fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            allowed: None,
            help: None,
            path: String::new(),
            at: None,
            place: None,
            secret: false,
            quotes_nothing: false,
        }
    }

    /// The innermost value that knows its place wins.
    fn locate(mut self, node: &Node, step: &str) -> Self {
        self.path = join(step, &self.path);
        if self.place.is_none() {
            self.place = Some((node.span, node.shown()));
            self.secret = node.has_secret();
        }
        self.at.get_or_insert(id(node));
        self
    }

    fn into_problem(self, root: &Node, path: &str) -> Problem {
        let (span, given) = self.place.unwrap_or_else(|| (root.span, root.shown()));
        let secret = self.secret || (self.at.is_none() && root.has_secret());
        if secret && !self.quotes_nothing {
            // The words of a refusal may quote the value.
            return Problem::error("refuses the value of the secret")
                .at(join(path, &self.path), span);
        }
        let mut problem = Problem::error(self.what).at(join(path, &self.path), span);
        problem.given = given;
        problem.allowed = self.allowed;
        problem.help = self.help;
        problem
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(given: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = readable(&expected.to_string());
        let mut error = Self::new(format!("is {}, not {expected}", shape(&given)));
        if expected == "text"
            && matches!(
                given,
                Unexpected::Bool(_)
                    | Unexpected::Signed(_)
                    | Unexpected::Unsigned(_)
                    | Unexpected::Float(_)
            )
        {
            error.help = Some("put it in quotes".to_owned());
        }
        error
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let mut error = Self::new("is out of range");
        error.allowed = Some(readable(&expected.to_string()));
        error
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let mut error = Self::new("is not a known value");
        error.allowed = Some(quoted(expected));
        error.help = crate::problem::nearest(variant, expected.iter().copied())
            .map(|nearest| format!("did you mean `{nearest}`?"));
        error
    }

    fn missing_field(field: &'static str) -> Self {
        let mut error = Self::new(format!("lacks `{field}`"));
        error.quotes_nothing = true;
        error
    }
}

fn shape(given: &Unexpected<'_>) -> &'static str {
    match given {
        Unexpected::Bool(_) => "a truth value",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a whole number",
        Unexpected::Float(_) => "a number with a fraction",
        Unexpected::Str(_) | Unexpected::Char(_) => "text",
        Unexpected::Unit | Unexpected::Option => "nothing",
        Unexpected::Seq => "a list",
        Unexpected::Map => "a map",
        _ => "something else",
    }
}

/// Serde's names of types in the words of a configuration file.
fn readable(expected: &str) -> String {
    match expected {
        "a string" | "string" | "a borrowed string" => "text".to_owned(),
        "a boolean" => "`true` or `false`".to_owned(),
        "a sequence" => "a list".to_owned(),
        "unit" => "nothing".to_owned(),
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "u64" | "usize" => "a whole number from 0".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        other if other.starts_with("struct ") => "a map of settings".to_owned(),
        other if other.starts_with("enum ") => "one of the known values".to_owned(),
        other => other.to_owned(),
    }
}

#[derive(Clone, Copy)]
struct NodeReader<'a, 'r> {
    node: &'a Node,
    reading: &'r Reading,
}

impl<'a, 'r> NodeReader<'a, 'r> {
    fn scalar(&self) -> Option<&'a Scalar> {
        match &self.node.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    fn map(
        &self,
        entries: &'a [Entry],
        fields: Option<&'static [&'static str]>,
    ) -> Entries<'a, 'r> {
        Entries {
            rest: entries.iter(),
            value: None,
            fields,
            reading: self.reading,
        }
    }
}

impl<'de> de::Deserializer<'de> for NodeReader<'de, '_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Scalar(scalar) => match scalar.resolve() {
                Resolved::Null => visitor.visit_unit(),
                Resolved::Bool(truth) => visitor.visit_bool(truth),
                Resolved::Integer(integer) => {
                    match (u64::try_from(integer), i64::try_from(integer)) {
                        (Ok(positive), _) => visitor.visit_u64(positive),
                        (_, Ok(negative)) => visitor.visit_i64(negative),
                        _ => Err(ReadError::new("is too large a number")),
                    }
                }
                Resolved::Float(float) => visitor.visit_f64(float),
                Resolved::Text(text) => visitor.visit_borrowed_str(text),
            },
            Value::Sequence(items) => visitor.visit_seq(Items {
                rest: items.iter().enumerate(),
                reading: self.reading,
            }),
            Value::Mapping(entries) => visitor.visit_map(self.map(entries, None)),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.scalar() {
            // A secret is text, whatever it looks like.
            Some(scalar) if scalar.is_secret() => visitor.visit_borrowed_str(scalar.text()),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.scalar() {
            Some(scalar)
                if matches!(
                    scalar.resolve(),
                    Resolved::Text("yes" | "no" | "on" | "off")
                ) =>
            {
                let mut error = ReadError::new("is text, not `true` or `false`");
                error.help = Some("YAML 1.2 knows only `true` and `false`".to_owned());
                Err(error)
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.node.is_null() {
            true => visitor.visit_none(),
            false => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Mapping(entries) => visitor.visit_map(self.map(entries, Some(fields))),
            // A section without settings: `kinesis:`
            _ if self.node.is_null() => visitor.visit_map(self.map(&[], Some(fields))),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let choice = match &self.node.value {
            Value::Scalar(scalar) => Some((scalar.text(), None)),
            Value::Mapping(entries) => match entries.as_slice() {
                [entry] => Some((entry.key.as_str(), Some(&entry.value))),
                _ => None,
            },
            Value::Sequence(_) => None,
        };
        let Some((name, content)) = choice else {
            let mut error = ReadError::new(format!("is {}, not one choice", self.node.shape()));
            error.allowed = Some(quoted(variants));
            return Err(error);
        };
        // A refused content refuses the choice, or a second round would say less well what the
        // first one said.
        visitor
            .visit_enum(Choice {
                name,
                content,
                reading: self.reading,
            })
            .map_err(|mut error| {
                error.at = None;
                error
            })
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf
        unit unit_struct seq tuple tuple_struct map identifier
    }
}

struct Items<'a, 'r> {
    rest: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
    reading: &'r Reading,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ReadError> {
        let refused = self.reading.refused.borrow();
        let Some((index, node)) = self.rest.find(|(_, node)| !refused.contains(&id(node))) else {
            return Ok(None);
        };
        drop(refused);
        let step = format!("[{index}]");
        let reader = NodeReader {
            node,
            reading: self.reading,
        };
        self.reading
            .below(&step, || seed.deserialize(reader))
            .map(Some)
            .map_err(|error| error.locate(node, &step))
    }
}

struct Entries<'a, 'r> {
    rest: std::slice::Iter<'a, Entry>,
    value: Option<&'a Entry>,
    /// The known keys, where they are known.
    fields: Option<&'static [&'static str]>,
    reading: &'r Reading,
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ReadError> {
        for entry in self.rest.by_ref() {
            if self.reading.refused.borrow().contains(&id(&entry.value)) {
                continue;
            }
            if let Some(fields) = self.fields
                && !fields.contains(&entry.key.as_str())
            {
                let problem =
                    unknown_key(&entry.key, fields).at(entry.key.as_str(), entry.key_span);
                self.reading.unknown.borrow_mut().push(problem);
                continue;
            }
            self.value = Some(entry);
            return seed
                .deserialize(entry.key.as_str().into_deserializer())
                .map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let Some(entry) = self.value.take() else {
            return Err(ReadError::new("is a value without a key"));
        };
        self.reading.below(&entry.key, || {
            let reader = NodeReader {
                node: &entry.value,
                reading: self.reading,
            };
            seed.deserialize(reader).map_err(|mut error| {
                // A missing setting is shown at the key of the map that lacks it.
                if error.place.is_none() && entry.value.entries().is_some() {
                    error.place = Some((entry.key_span, None));
                }
                error.locate(&entry.value, &entry.key)
            })
        })
    }
}

/// An unknown key among known ones.
pub(crate) fn unknown_key(key: &str, known: &[&str]) -> Problem {
    Problem::error("is not a known setting").help(known_names(key, known))
}

struct Choice<'a, 'r> {
    name: &'a str,
    content: Option<&'a Node>,
    reading: &'r Reading,
}

impl<'de, 'r> EnumAccess<'de> for Choice<'de, 'r> {
    type Error = ReadError;
    type Variant = ChoiceContent<'de, 'r>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self::Variant), ReadError> {
        let name: de::value::StrDeserializer<'_, ReadError> = self.name.into_deserializer();
        let variant = seed.deserialize(name)?;
        let content = ChoiceContent {
            name: self.name,
            content: self.content,
            reading: self.reading,
        };
        Ok((variant, content))
    }
}

struct ChoiceContent<'a, 'r> {
    name: &'a str,
    content: Option<&'a Node>,
    reading: &'r Reading,
}

impl<'a, 'r> ChoiceContent<'a, 'r> {
    fn reader(&self) -> Result<(&'a Node, NodeReader<'a, 'r>), ReadError> {
        let Some(node) = self.content else {
            let mut error = ReadError::new(format!("needs a value with `{}`", self.name));
            error.help = Some(format!("write `{}: VALUE` one level deeper", self.name));
            return Err(error);
        };
        let reading = self.reading;
        Ok((node, NodeReader { node, reading }))
    }
}

impl<'de> VariantAccess<'de> for ChoiceContent<'de, '_> {
    type Error = ReadError;

    fn unit_variant(self) -> Result<(), ReadError> {
        match self.content {
            Some(node) if !node.is_null() => Err(ReadError::new(format!(
                "takes no value with `{}`",
                self.name
            ))),
            _ => Ok(()),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, ReadError> {
        let (node, reader) = self.reader()?;
        self.reading
            .below(self.name, || seed.deserialize(reader))
            .map_err(|error| error.locate(node, self.name))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, ReadError> {
        let (node, reader) = self.reader()?;
        self.reading
            .below(self.name, || reader.deserialize_any(visitor))
            .map_err(|error| error.locate(node, self.name))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let (node, reader) = self.reader()?;
        self.reading
            .below(self.name, || {
                reader.deserialize_struct("choice", fields, visitor)
            })
            .map_err(|error| error.locate(node, self.name))
    }
}
