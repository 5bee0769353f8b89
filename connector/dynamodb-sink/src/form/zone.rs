//! Zone maps: between which bounds a field lies in the events of an item, so that who looks for values of it can
//! pass over items.
//!
//! Bounds are never wrong: an item has them only when every one of its events is JSON, and the field is a number
//! wherever it is, or a string wherever it is. An event without the field, or with null, cannot match and
//! counts for nothing. Whatever else is met leaves the item without bounds, and so may hold anything.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::decimal::Decimal;
use crate::mapping::pointer::Pointer;
use crate::typed::Typed;

/// Longest bound in bytes: there is so much room for it in every item.
pub(super) const MAX_BOUND_BYTES: usize = 100;

/// Of longer strings so much is kept; rounding the last character up may take one byte more.
const KEPT_TEXT_BYTES: usize = MAX_BOUND_BYTES - 1;

/// Longest number, in characters, that a comparison as floating point is enough for: it cannot have more digits
/// than are kept.
const PLAIN_NUMBER_BYTES: usize = 38;

/// Which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Edge {
    /// The lowest.
    Minimum,
    /// The highest.
    Maximum,
}

/// Bounds of the fields of one item, or of a part of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Zones {
    fields: Arc<[Pointer]>,
    bounds: Vec<Bounds>,
}

/// Bounds of one field.
#[derive(Debug, Clone, Default, PartialEq)]
enum Bounds {
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
struct Numbers {
    min: Decimal,
    max: Decimal,
    /// The same rounded, for a quick look. Rounding keeps the order, so what lies strictly between these lies
    /// between the exact ones.
    rounded: (f64, f64),
}

impl Zones {
    /// Bounds of these fields, of no event yet.
    #[must_use]
    pub fn new(fields: Arc<[Pointer]>) -> Self {
        let bounds = vec![Bounds::Empty; fields.len()];
        Self { fields, bounds }
    }

    /// True when no field was asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Takes an event in.
    pub fn take(&mut self, event: &[u8]) {
        for (field, bounds) in self.fields.iter().zip(&mut self.bounds) {
            if *bounds != Bounds::Unknown {
                bounds.take(event, field);
            }
        }
    }

    /// Takes in something of which nothing is known.
    pub fn give_up(&mut self) {
        self.bounds.fill(Bounds::Unknown);
    }

    /// Takes in what another part of the item has, of the same fields.
    pub fn join(&mut self, other: Self) {
        for (bounds, other) in self.bounds.iter_mut().zip(other.bounds) {
            bounds.join(other);
        }
    }

    /// One end of a field's bounds; `None` when no event had the field, or nothing can be said.
    #[must_use]
    pub fn edge(&self, field: &Pointer, edge: Edge) -> Option<Typed> {
        let index = self.fields.iter().position(|known| known == field)?;
        match &self.bounds[index] {
            Bounds::Empty | Bounds::Unknown => None,
            Bounds::Numbers(Numbers { min, max, .. }) => Some(Typed::N(match edge {
                Edge::Minimum => min.clone(),
                Edge::Maximum => max.clone(),
            })),
            Bounds::Texts { min, max } => Some(Typed::S(match edge {
                Edge::Minimum => min.clone(),
                Edge::Maximum => max.clone(),
            })),
        }
    }
}

impl Bounds {
    fn take(&mut self, event: &[u8], field: &Pointer) {
        let mut json = serde_json::Deserializer::from_slice(event);
        let walk = Walk {
            tokens: field.tokens(),
            bounds: self,
        };
        if walk
            .deserialize(&mut json)
            .and_then(|()| json.end())
            .is_err()
        {
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

    fn join(&mut self, other: Self) {
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

/// Walks along the rest of a pointer. Of members with one name every one counts: who reads the event may take
/// any of them.
struct Walk<'a> {
    tokens: &'a [String],
    bounds: &'a mut Bounds,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if !self.tokens.is_empty() {
            return deserializer.deserialize_any(self);
        }
        let raw = <&RawValue>::deserialize(deserializer)?;
        self.bounds.value(raw.get());
        Ok(())
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((name, tokens)) = self.tokens.split_first() else {
            return Ok(());
        };
        while let Some(is_it) = map.next_key_seed(Is(name))? {
            if is_it {
                let bounds = &mut *self.bounds;
                map.next_value_seed(Walk { tokens, bounds })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((token, tokens)) = self.tokens.split_first() else {
            return Ok(());
        };
        let is_index = token == "0" || !token.starts_with(['0', '+']);
        let index: Option<usize> = token.parse().ok().filter(|_| is_index);
        for at in 0.. {
            let bounds = &mut *self.bounds;
            let goes_on = match index == Some(at) {
                true => seq.next_element_seed(Walk { tokens, bounds })?.is_some(),
                false => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    // The pointer leads on from here, and nothing is there.
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Whether the name of a member is this one.
struct Is<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pointer(text: &str) -> Pointer {
        Pointer::parse(text).expect("a pointer")
    }

    fn zones_of(field: &str, events: &[&str]) -> Zones {
        let mut zones = Zones::new([pointer(field)].into());
        for event in events {
            zones.take(event.as_bytes());
        }
        zones
    }

    /// Both bounds as text.
    fn bounds(field: &str, events: &[&str]) -> Option<(String, String)> {
        let zones = zones_of(field, events);
        let text = |edge| match zones.edge(&pointer(field), edge)? {
            Typed::S(text) => Some(text),
            Typed::N(number) => Some(number.to_string()),
            other => panic!("{other:?}"),
        };
        Some((text(Edge::Minimum)?, text(Edge::Maximum)?))
    }

    #[test]
    fn bounds_of_numbers_are_exact() {
        let some = |min: &str, max: &str| Some((min.to_owned(), max.to_owned()));
        for (events, expected) in [
            (
                &[r#"{"a":{"b":[0,7]}}"#, r#"{"a":{"b":[0,-3.5]}}"#][..],
                some("-3.5", "7"),
            ),
            // Nearer to each other than floating point tells.
            (
                &[
                    r#"{"a":{"b":[0,9007199254740993]}}"#,
                    r#"{"a":{"b":[0,9007199254740992]}}"#,
                    r#"{"a":{"b":[0,9007199254740994]}}"#,
                ],
                some("9007199254740992", "9007199254740994"),
            ),
            (
                &[r#"{"a":{"b":[0,1e3]}}"#, r#"{"a":{"b":[0,0.5e-2]}}"#],
                some("0.005", "1000"),
            ),
            // Absent, null, of another shape further up: nothing that could match.
            (
                &[
                    "{}",
                    r#"{"a":{"b":[1]}}"#,
                    r#"{"a":{"b":[0,null]}}"#,
                    r#"{"a":"b"}"#,
                    "7",
                    "[]",
                ],
                None,
            ),
            (&["{}", r#"{"a":{"b":[0,2]}}"#], some("2", "2")),
            // Any of several with one name may be what a reader takes.
            (&[r#"{"a":{"b":[0,1]},"a":{"b":[0,5]}}"#], some("1", "5")),
        ] {
            assert_eq!(bounds("/a/b/1", events), expected, "{events:?}");
        }
    }

    #[test]
    fn what_could_match_in_another_way_leaves_no_bounds() {
        let number = r#"{"a":1}"#;
        for other in [
            r#"{"a":"1"}"#,
            r#"{"a":true}"#,
            r#"{"a":[2]}"#,
            r#"{"a":{}}"#,
            "no JSON",
            "",
            r#"{"a":2} {"a":3}"#,
            r#"{"a":123456789012345678901234567890123456789}"#,
            r#"{"a":1e126}"#,
            r#"{"a":"\ud800"}"#,
        ] {
            for events in [[number, other], [other, number]] {
                assert_eq!(bounds("/a", &events), None, "{events:?}");
            }
        }
        let mut zones = zones_of("/a", &[number]);
        zones.give_up();
        zones.take(number.as_bytes());
        assert_eq!(zones.edge(&pointer("/a"), Edge::Minimum), None);
    }

    #[test]
    fn long_strings_are_cut_outwards() {
        let long = "ü".repeat(200);
        let event = format!(r#"{{"a":"{long}"}}"#);
        let (min, max) = bounds("/a", &[&event, r#"{"a":"b\u0041"}"#]).expect("bounds");
        assert_eq!(min, "bA");
        assert_eq!(max.len(), 98);
        assert!(max > long && max.ends_with('ý'), "{max}");
        let highest = format!(r#"{{"a":"{}"}}"#, "\u{10ffff}".repeat(100));
        assert_eq!(bounds("/a", &[&highest]), None);
        assert_eq!(
            ceiling(&"\u{d7ff}".repeat(90)).map(|text| text.len()),
            Some(99)
        );
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        use serde_json::json;
        prop_oneof![
            8 => any::<i32>().prop_map(|n| json!(n)),
            4 => (-1_000i32..1_000, 1i32..50).prop_map(|(a, b)| json!(f64::from(a) / f64::from(b))),
            4 => "[a-cü]{0,300}".prop_map(|text| json!(text)),
            1 => Just(json!(null)),
            1 => Just(json!([1])),
        ]
    }

    proptest! {
        /// The rule of a zone map: whatever is in an item lies within its bounds, however it was put together.
        #[test]
        fn no_value_lies_outside(values in prop::collection::vec(value(), 1..30), cut in 0usize..30) {
            let field = pointer("/a");
            let of = |values: &[serde_json::Value]| {
                let mut zones = Zones::new([field.clone()].into());
                for value in values {
                    zones.take(serde_json::json!({"x": 1, "a": value}).to_string().as_bytes());
                }
                zones
            };
            let cut = cut.min(values.len());
            let mut joined = of(&values[..cut]);
            joined.join(of(&values[cut..]));
            for zones in [of(&values), joined] {
                let (min, max) = (zones.edge(&field, Edge::Minimum), zones.edge(&field, Edge::Maximum));
                let is_numbers = values.iter().all(|v| v.is_number() || v.is_null());
                let is_texts = values.iter().all(|v| v.is_string() || v.is_null());
                match (min, max) {
                    (None, None) => prop_assert!(!is_numbers && !is_texts || values.iter().all(|v| v.is_null())),
                    (Some(Typed::N(min)), Some(Typed::N(max))) => {
                        prop_assert!(is_numbers);
                        for number in values.iter().filter(|v| v.is_number()) {
                            let number = Decimal::parse(&number.to_string()).expect("kept");
                            prop_assert!(min.compare(&number).is_le() && max.compare(&number).is_ge());
                        }
                    }
                    (Some(Typed::S(min)), Some(Typed::S(max))) => {
                        prop_assert!(is_texts && max.len() <= MAX_BOUND_BYTES);
                        for text in values.iter().filter_map(|v| v.as_str()) {
                            prop_assert!(min.as_str() <= text && text <= max.as_str());
                        }
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }
    }
}
