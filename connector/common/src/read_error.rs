//! Why a value of the file was refused by serde, in the words of a configuration file.

use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::de::{self, Expected, Unexpected};

use crate::de::join;
use crate::problem::{Problem, quoted};
use crate::yaml::{Node, Span};

/// Identity of a node within one tree: its address.
pub(crate) type NodeId = usize;

pub(crate) fn id(node: &Node) -> NodeId {
    std::ptr::from_ref(node) as NodeId
}

/// Boxed, because errors travel through every level of a file.
#[derive(Debug)]
pub(crate) struct ReadError(Box<Refusal>);

/// Why a value was refused, and which.
#[derive(Debug, Default)]
pub(crate) struct Refusal {
    what: String,
    pub(crate) allowed: Option<String>,
    pub(crate) help: Option<String>,
    /// Path below the value that was read.
    path: String,
    /// The refused value, once known.
    pub(crate) at: Option<NodeId>,
    pub(crate) place: Option<(Span, Option<String>)>,
    secret: bool,
    /// A setting is missing; these words quote no value.
    lacks: bool,
}

impl ReadError {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(Box::new(Refusal {
            what: what.into(),
            ..Refusal::default()
        }))
    }

    /// A missing setting is shown at the key of the map that lacks it.
    pub(crate) fn lacking_at(&mut self, key_span: Span) {
        if self.lacks && self.place.is_none() {
            self.place = Some((key_span, None));
        }
    }

    /// The innermost value that knows its place wins.
    pub(crate) fn locate(mut self, node: &Node, step: &str) -> Self {
        self.path = join(step, &self.path);
        if self.place.is_none() {
            self.place = Some((node.span, node.shown()));
            self.secret = node.has_secret();
        }
        self.at.get_or_insert(id(node));
        self
    }

    /// The problem of a value at `path`.
    pub(crate) fn into_problem(self, root: &Node, path: &str) -> Problem {
        let refusal = *self.0;
        let (span, given) = refusal.place.unwrap_or_else(|| (root.span, root.shown()));
        let secret = refusal.secret || (refusal.at.is_none() && root.has_secret());
        if secret && !refusal.lacks {
            // The words of a refusal may quote the value.
            return Problem::error("refuses the value of the secret")
                .at(join(path, &refusal.path), span);
        }
        let mut problem = Problem::error(refusal.what).at(join(path, &refusal.path), span);
        problem.given = given;
        problem.allowed = refusal.allowed;
        problem.help = refusal.help;
        problem
    }
}

impl Deref for ReadError {
    type Target = Refusal;

    fn deref(&self) -> &Refusal {
        &self.0
    }
}

impl DerefMut for ReadError {
    fn deref_mut(&mut self) -> &mut Refusal {
        &mut self.0
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
        error.lacks = true;
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
