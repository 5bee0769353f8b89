//! A connector's own section of the file: read with serde, checked by hand, all problems at once.

use std::fmt::Display;
use std::ops::RangeInclusive;

use serde::Deserialize;

use crate::de;
use crate::problem::{Problem, Problems};
use crate::yaml::{Node, Span};

/// A map of settings in the file, with its path.
#[derive(Debug, Clone)]
pub struct Section<'a> {
    node: &'a Node,
    key_span: Span,
    path: String,
}

impl<'a> Section<'a> {
    /// The settings under a key; `path` is the dotted path of that key.
    #[must_use]
    pub fn new(node: &'a Node, key_span: Span, path: impl Into<String>) -> Self {
        Self {
            node,
            key_span,
            path: path.into(),
        }
    }

    /// Dotted path of the section.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The settings as written.
    #[must_use]
    pub fn node(&self) -> &'a Node {
        self.node
    }

    /// Reads the section into its raw form.
    ///
    /// Every value of the wrong type, every unknown key and every unknown choice becomes a
    /// problem at its place. Refused values are left out, so a raw form whose fields are all
    /// `Option`, `Vec` or `#[serde(default)]` is always answered; `None` means that something
    /// without a default was missing or refused.
    ///
    /// Do not use `#[serde(flatten)]` or untagged enums: they lose names and places. A choice
    /// such as `trim-horizon | {at-timestamp: TIME}` is an ordinary enum with one newtype variant.
    pub fn read<T: Deserialize<'a>>(&self, problems: &mut Problems) -> Option<T> {
        let mut found = Vec::new();
        let raw = de::read(self.node, &self.path, &mut found);
        for mut problem in found {
            // A missing setting belongs to the section's key.
            if problem.path == self.path && self.node.entries().is_some() {
                problem.span = Some(self.key_span);
            }
            problems.push(problem);
        }
        raw
    }

    /// The value at a dotted path below this section (`start.at-timestamp`).
    #[must_use]
    pub fn value(&self, path: &str) -> Option<&'a Node> {
        path.split('.')
            .try_fold(self.node, |node, key| node.get(key))
    }

    /// True when the file gives the setting at this dotted path.
    #[must_use]
    pub fn is_set(&self, path: &str) -> bool {
        self.value(path).is_some_and(|node| !node.is_null())
    }

    /// An error at a dotted path below this section, with the value that is given there.
    ///
    /// Where the file gives no such setting it points at the nearest key above.
    #[must_use]
    pub fn problem(&self, path: &str, what: impl Into<String>) -> Problem {
        let full = de::join(&self.path, path);
        match self.value(path).filter(|_| !path.is_empty()) {
            Some(node) => Problem::error(what).at_value(full, node),
            None => Problem::error(what).at(full, self.span_above(path)),
        }
    }

    fn span_above(&self, path: &str) -> Span {
        let mut span = self.key_span;
        let mut node = self.node;
        for key in path.split('.') {
            let Some(entry) = node.entry(key) else {
                break;
            };
            span = entry.key_span;
            node = &entry.value;
        }
        span
    }

    /// Says that a setting is missing, unless it was given and refused before.
    pub fn require<T>(&self, problems: &mut Problems, path: &str, value: Option<T>) -> Option<T> {
        if value.is_none() && !self.is_set(path) {
            problems.push(
                self.problem(path, "is missing")
                    .help(format!("add `{path}` under `{}`", self.path)),
            );
        }
        value
    }

    /// Checks a range; the limits are shown as the type shows itself.
    pub fn in_range<T: PartialOrd + Display>(
        &self,
        problems: &mut Problems,
        path: &str,
        value: T,
        range: RangeInclusive<T>,
    ) -> Option<T> {
        if range.contains(&value) {
            return Some(value);
        }
        let mut problem = self.problem(path, "is out of range").allowed(format!(
            "{} to {}",
            range.start(),
            range.end()
        ));
        if problem.given.is_none() {
            problem.given = Some(value.to_string());
        }
        problems.push(problem);
        None
    }
}
