//! A YAML stream as a tree in which every value knows its place in the file.
//!
//! `saphyr-parser` (maintained, MIT or Apache-2.0, no dependencies to speak of) gives events with
//! positions; the tree is built here, because the ready-made trees resolve aliases without a
//! limit and let a repeated key win in silence. Scalars stay as text until somebody asks for a
//! type, so that `version: 0.10` is not a number by accident.

use std::collections::HashMap;
use std::fmt;

use saphyr_parser::{Event, Parser, ScalarStyle};

use crate::problem::Problem;

/// Largest file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// Most values in one file, repeated anchors counted each time: the end of alias bombs.
const MAX_NODES: usize = 50_000;

/// Most bytes of text in one file, repeated anchors counted each time.
const MAX_TEXT_BYTES: usize = 4 << 20;

/// Deepest nesting.
const MAX_DEPTH: usize = 32;

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
    fn weight(&self) -> (usize, usize) {
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

    fn depth(&self) -> usize {
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

/// What a stream was read as.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    /// The documents that could be read; empty ones are left out.
    pub documents: Vec<Node>,
    /// What was wrong.
    pub problems: Vec<Problem>,
}

/// Reads a YAML stream of at most [`MAX_FILE_BYTES`]; never fails as a whole.
#[must_use]
pub fn parse(source: &str) -> Stream {
    let mut builder = Builder::new(source);
    if source.len() > MAX_FILE_BYTES {
        builder.stream.problems.push(
            Problem::error("the file is too large")
                .given(format!("{} bytes", source.len()))
                .allowed(format!("up to {MAX_FILE_BYTES} bytes")),
        );
        return builder.stream;
    }
    let mut parser = Parser::new_from_str(source);
    while let Some(event) = parser.next_event() {
        let outcome = match event {
            Ok((Event::StreamEnd, _)) => break,
            Ok((event, span)) => {
                let span = builder.places.span(&span);
                builder.event(event, span)
            }
            Err(error) => {
                let mark = *error.marker();
                let span = builder.places.span(&saphyr_parser::Span::new(mark, mark));
                Err(Problem::error(format!("is not YAML: {}", error.info())).at("", span))
            }
        };
        if let Err(problem) = outcome {
            builder.stream.problems.push(problem);
            break;
        }
    }
    builder.stream
}

/// Turns the parser's character positions into byte positions.
struct Places {
    /// Byte of each character; empty when every character is one byte.
    bytes: Vec<usize>,
    len: usize,
}

impl Places {
    fn new(source: &str) -> Self {
        let bytes = match source.is_ascii() || source.len() > MAX_FILE_BYTES {
            true => Vec::new(),
            false => source.char_indices().map(|(byte, _)| byte).collect(),
        };
        Self {
            bytes,
            len: source.len(),
        }
    }

    fn byte(&self, character: usize) -> usize {
        match self.bytes.is_empty() {
            true => character.min(self.len),
            false => self.bytes.get(character).copied().unwrap_or(self.len),
        }
    }

    fn span(&self, span: &saphyr_parser::Span) -> Span {
        Span {
            start: self.byte(span.start.index()),
            end: self.byte(span.end.index()),
            line: u32::try_from(span.start.line().max(1)).unwrap_or(u32::MAX),
            column: u32::try_from(span.start.col() + 1).unwrap_or(u32::MAX),
        }
    }
}

/// A list or map that is not finished.
struct Open {
    span: Span,
    anchor: usize,
    kind: OpenKind,
}

enum OpenKind {
    Sequence(Vec<Node>),
    Mapping {
        entries: Vec<Entry>,
        known: HashMap<String, Span>,
        key: Option<(String, Span)>,
    },
}

struct Builder {
    places: Places,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    text_bytes: usize,
    stream: Stream,
}

impl Builder {
    fn new(source: &str) -> Self {
        Self {
            places: Places::new(source),
            open: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            text_bytes: 0,
            stream: Stream::default(),
        }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        match event {
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let mut plain = style == ScalarStyle::Plain;
                if let Some(tag) = tag {
                    if !(tag.is_yaml_core_schema() && tag.suffix == "str") {
                        self.refuse_tag(span);
                    }
                    plain = false;
                }
                let scalar = Scalar {
                    text: text.into_owned(),
                    plain,
                    secret: false,
                };
                let weight = (1, scalar.text.len());
                count(&mut self.nodes, &mut self.text_bytes, weight, span)?;
                let value = Value::Scalar(scalar);
                self.finished(Node { span, value }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(span, anchor, tag.is_some(), OpenKind::Sequence(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                let kind = OpenKind::Mapping {
                    entries: Vec::new(),
                    known: HashMap::new(),
                    key: None,
                };
                self.open(span, anchor, tag.is_some(), kind)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(
                        Problem::error("an alias stands inside its own anchor").at("", span)
                    );
                };
                if self.open.len() + node.depth() > MAX_DEPTH {
                    return Err(too_deep(span));
                }
                // Counted before it is copied.
                let (nodes, bytes) = node.weight();
                count(&mut self.nodes, &mut self.text_bytes, (nodes, bytes), span)?;
                let value = node.value.clone();
                self.finished(Node { span, value }, 0)
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn refuse_tag(&mut self, span: Span) {
        self.stream.problems.push(
            Problem::error("a YAML tag other than `!!str` has no meaning here")
                .at("", span)
                .help("leave the tag out"),
        );
    }

    fn open(
        &mut self,
        span: Span,
        anchor: usize,
        tag: bool,
        kind: OpenKind,
    ) -> Result<(), Problem> {
        if tag {
            self.refuse_tag(span);
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(span));
        }
        count(&mut self.nodes, &mut self.text_bytes, (1, 0), span)?;
        self.open.push(Open { span, anchor, kind });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Problem> {
        let Some(Open { span, anchor, kind }) = self.open.pop() else {
            return Ok(());
        };
        let value = match kind {
            OpenKind::Sequence(items) => Value::Sequence(items),
            OpenKind::Mapping { entries, .. } => Value::Mapping(entries),
        };
        self.finished(Node { span, value }, anchor)
    }

    /// A value is complete: it goes into what is open, as key or as value.
    fn finished(&mut self, node: Node, anchor: usize) -> Result<(), Problem> {
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.kind) {
            None if !node.is_null() => self.stream.documents.push(node),
            None => {}
            Some(OpenKind::Sequence(items)) => items.push(node),
            Some(OpenKind::Mapping {
                entries,
                known,
                key,
            }) => match key.take() {
                None => match &node.value {
                    Value::Scalar(scalar) => *key = Some((scalar.text.clone(), node.span)),
                    _ => return Err(Problem::error("a key must be text").at("", node.span)),
                },
                Some((name, key_span)) => {
                    if let Some(first) = known.get(&name) {
                        self.stream.problems.push(
                            Problem::error(format!(
                                "key `{name}` is given twice, first in line {}",
                                first.line
                            ))
                            .at("", key_span)
                            .help("remove one of the two"),
                        );
                        return Ok(());
                    }
                    known.insert(name.clone(), key_span);
                    entries.push(Entry {
                        key: name,
                        key_span,
                        value: node,
                    });
                }
            },
        }
        Ok(())
    }
}

/// Adds to what the file holds so far.
fn count(
    nodes: &mut usize,
    text_bytes: &mut usize,
    (more_nodes, more_bytes): (usize, usize),
    span: Span,
) -> Result<(), Problem> {
    *nodes += more_nodes;
    *text_bytes += more_bytes;
    if *nodes <= MAX_NODES && *text_bytes <= MAX_TEXT_BYTES {
        return Ok(());
    }
    let allowed = format!(
        "up to {MAX_NODES} values and {MAX_TEXT_BYTES} bytes of text, aliases counted each time"
    );
    Err(Problem::error("the file holds too much")
        .at("", span)
        .allowed(allowed))
}

fn too_deep(span: Span) -> Problem {
    Problem::error("is nested too deeply")
        .at("", span)
        .allowed(format!("up to {MAX_DEPTH} levels"))
}
