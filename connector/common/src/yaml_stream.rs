//! A YAML stream is read into trees, within limits.
//!
//! `saphyr-parser` (maintained, MIT or Apache-2.0, no dependencies to speak of) gives events with
//! positions; the tree is built here, because the ready-made trees resolve aliases without a
//! limit and let a repeated key win in silence.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

use crate::problem::Problem;
use crate::yaml::{Entry, Node, Scalar, Span, Value};

/// Largest file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// Most values in one file, repeated anchors counted each time: the end of alias bombs.
const MAX_NODES: usize = 50_000;

/// Most bytes of text in one file, repeated anchors counted each time.
const MAX_TEXT_BYTES: usize = 4 << 20;

/// Deepest nesting.
const MAX_DEPTH: usize = 32;

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
                Err(Box::new(
                    Problem::error(format!("is not YAML: {}", error.info())).at("", span),
                ))
            }
        };
        if let Err(problem) = outcome {
            builder.stream.problems.push(*problem);
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

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Box<Problem>> {
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
                let scalar = Scalar::written(text.into_owned(), plain);
                let weight = (1, scalar.text().len());
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
                    return Err(refuse("an alias stands inside its own anchor", span));
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
    ) -> Result<(), Box<Problem>> {
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

    fn close(&mut self) -> Result<(), Box<Problem>> {
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
    fn finished(&mut self, node: Node, anchor: usize) -> Result<(), Box<Problem>> {
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
                    Value::Scalar(scalar) => *key = Some((scalar.text().to_owned(), node.span)),
                    _ => return Err(refuse("a key must be text", node.span)),
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
) -> Result<(), Box<Problem>> {
    *nodes += more_nodes;
    *text_bytes += more_bytes;
    if *nodes <= MAX_NODES && *text_bytes <= MAX_TEXT_BYTES {
        return Ok(());
    }
    let mut problem = refuse("the file holds too much", span);
    problem.allowed = Some(format!(
        "up to {MAX_NODES} values and {MAX_TEXT_BYTES} bytes of text, aliases counted each time"
    ));
    Err(problem)
}

fn refuse(what: &str, span: Span) -> Box<Problem> {
    Box::new(Problem::error(what).at("", span))
}

fn too_deep(span: Span) -> Box<Problem> {
    let mut problem = refuse("is nested too deeply", span);
    problem.allowed = Some(format!("up to {MAX_DEPTH} levels"));
    problem
}
