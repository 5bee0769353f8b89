//! Serde over the tree of a file: every error knows the place it belongs to.
//!
//! Used through [`crate::section::Section::read`], which reads again without the values that were
//! refused, so that one pass of the user sees all of them.

use std::cell::RefCell;
use std::collections::HashSet;

use serde::Deserialize;
use serde::de::{
    self, DeserializeSeed, Deserializer as _, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use crate::problem::{Problem, known_names, quoted};
use crate::read_error::{NodeId, ReadError, id};
use crate::yaml::{Entry, Node, Resolved, Scalar, Value};

/// Values refused in one reading before it gives up: each of them costs a round.
const MAX_REFUSED: usize = 100;

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
        // Each round refuses one value more.
        let mut refused = reading.refused.borrow_mut();
        match at {
            Some(at) if refused.len() < MAX_REFUSED && refused.insert(at) => {
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
                [entry] => Some((entry.key.as_str(), Some(entry))),
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
                error.lacking_at(entry.key_span);
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
    content: Option<&'a Entry>,
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
        let variant = seed.deserialize(name).map_err(|mut error| {
            if let Some(entry) = self.content {
                error.place = Some((entry.key_span, Some(entry.key.clone())));
            }
            error
        })?;
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
    content: Option<&'a Entry>,
    reading: &'r Reading,
}

impl<'a, 'r> ChoiceContent<'a, 'r> {
    /// Reads the value that belongs to the choice.
    fn read<T>(
        &self,
        read: impl FnOnce(NodeReader<'a, 'r>) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let Some(entry) = self.content else {
            let mut error = ReadError::new(format!("needs a value with `{}`", self.name));
            error.help = Some(format!("write `{}: VALUE` one level deeper", self.name));
            return Err(error);
        };
        let reader = NodeReader {
            node: &entry.value,
            reading: self.reading,
        };
        self.reading
            .below(self.name, || read(reader))
            .map_err(|mut error| {
                error.lacking_at(entry.key_span);
                error.locate(&entry.value, self.name)
            })
    }
}

impl<'de> VariantAccess<'de> for ChoiceContent<'de, '_> {
    type Error = ReadError;

    fn unit_variant(self) -> Result<(), ReadError> {
        match self.content {
            Some(entry) if !entry.value.is_null() => Err(ReadError::new(format!(
                "takes no value with `{}`",
                self.name
            ))),
            _ => Ok(()),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, ReadError> {
        self.read(|reader| seed.deserialize(reader))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, ReadError> {
        self.read(|reader| reader.deserialize_any(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.read(|reader| reader.deserialize_struct("choice", fields, visitor))
    }
}
