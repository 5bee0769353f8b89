//! The bounds of one field: exact ones of numbers, and of strings such as fit into their room.

use std::cmp::Ordering;

use super::{Edge, walk};
use crate::decimal::Decimal;
use crate::mapping::pointer::Pointer;
use crate::typed::Typed;

/// Longest bound in bytes: there is so much room for it in every item.
pub(in crate::form) const MAX_BOUND_BYTES: usize = 100;

/// Of longer strings so much is kept; rounding the last character up may take one byte more.
const KEPT_TEXT_BYTES: usize = MAX_BOUND_BYTES - 1;

/// Longest number, in characters, that a comparison as floating point is enough for: it cannot have more digits
/// than are kept.
const PLAIN_NUMBER_BYTES: usize = 38;

/// Bounds of one field.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Bounds {
    /// No event had it.
    #[default]
    Empty,
    Numbers(Numbers),
    /// Strings, by their bytes; both included.
    Texts {
        min: String,
        max: String,
    },
    /// Nothing can be said.
    Unknown,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Numbers {
    min: Decimal,
    max: Decimal,
    /// The same rounded, for a quick look. Rounding keeps the order, so what lies strictly between these lies
    /// between the exact ones.
    rounded: (f64, f64),
}

impl Bounds {
    /// Takes an event in.
    pub(super) fn take(&mut self, event: &[u8], field: &Pointer) {
        if walk::values(event, field, &mut |json| self.value(json)).is_err() {
            *self = Self::Unknown;
        }
    }

    /// Takes in the value that a pointer leads to.
    fn value(&mut self, json: &str) {
        match json.as_bytes().first() {
            Some(b'n') => {}
            Some(b'"') if !json.contains('\\') => self.text(&json[1..json.len() - 1]),
            Some(b'"') => match serde_json::from_str::<String>(json) {
                Ok(text) => self.text(&text),
                Err(_) => *self = Self::Unknown,
            },
            Some(b'-' | b'0'..=b'9') => self.number(json),
            _ => *self = Self::Unknown,
        }
    }

    fn number(&mut self, text: &str) {
        if let Self::Numbers(known) = self
            && known.has(text)
        {
            return;
        }
        match Decimal::parse(text) {
            Ok(number) => self.join(Self::Numbers(Numbers::new(number.clone(), number))),
            Err(_) => *self = Self::Unknown,
        }
    }

    fn text(&mut self, text: &str) {
        if let Self::Texts { min, max } = self
            && (min.as_str()..=max.as_str()).contains(&text)
        {
            return;
        }
        match ceiling(text) {
            Some(max) => self.join(Self::Texts {
                min: floor(text).to_owned(),
                max,
            }),
            None => *self = Self::Unknown,
        }
    }

    /// Takes in what another part of the item has.
    pub(super) fn join(&mut self, other: Self) {
        *self = match (std::mem::take(self), other) {
            (Self::Empty, one) | (one, Self::Empty) => one,
            (Self::Numbers(one), Self::Numbers(other)) => Self::Numbers(one.with(other)),
            (
                Self::Texts { min, max },
                Self::Texts {
                    min: low,
                    max: high,
                },
            ) => Self::Texts {
                min: min.min(low),
                max: max.max(high),
            },
            _ => Self::Unknown,
        };
    }

    /// One end; `None` when no event had the field, or nothing can be said.
    pub(super) fn edge(&self, edge: Edge) -> Option<Typed> {
        match self {
            Self::Empty | Self::Unknown => None,
            Self::Numbers(Numbers { min, max, .. }) => Some(Typed::N(match edge {
                Edge::Minimum => min.clone(),
                Edge::Maximum => max.clone(),
            })),
            Self::Texts { min, max } => Some(Typed::S(match edge {
                Edge::Minimum => min.clone(),
                Edge::Maximum => max.clone(),
            })),
        }
    }
}

impl Numbers {
    fn new(min: Decimal, max: Decimal) -> Self {
        // Every number that is kept is one to the parser too, so the defaults are never met; with them nothing
        // would lie between.
        let rounded = |number: &Decimal, or: f64| number.as_str().parse().unwrap_or(or);
        let rounded = (
            rounded(&min, f64::INFINITY),
            rounded(&max, f64::NEG_INFINITY),
        );
        Self { min, max, rounded }
    }

    /// True for a number that is certainly within.
    fn has(&self, text: &str) -> bool {
        if text == self.min.as_str() || text == self.max.as_str() {
            return true;
        }
        text.len() <= PLAIN_NUMBER_BYTES
            && !text.contains(['e', 'E'])
            && text
                .parse::<f64>()
                .is_ok_and(|number| self.rounded.0 < number && number < self.rounded.1)
    }

    fn with(self, other: Self) -> Self {
        let is_lower = other.min.compare(&self.min) == Ordering::Less;
        let is_higher = other.max.compare(&self.max) == Ordering::Greater;
        Self::new(
            if is_lower { other.min } else { self.min },
            if is_higher { other.max } else { self.max },
        )
    }
}

/// A text that is at most the given one, and short.
fn floor(text: &str) -> &str {
    let mut end = text.len().min(KEPT_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A text that is at least the given one, and short: what is cut off is made up for by a higher last
/// character. `None` when there is none higher.
fn ceiling(text: &str) -> Option<String> {
    let kept = floor(text);
    if kept.len() == text.len() {
        return Some(text.to_owned());
    }
    let mut kept = kept.to_owned();
    while let Some(last) = kept.pop() {
        // Between U+D7FF and U+E000 there are no characters.
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            other => char::from_u32(u32::from(other) + 1),
        };
        if let Some(next) = next {
            kept.push(next);
            return Some(kept);
        }
    }
    None
}
