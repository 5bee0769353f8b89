//! Zone maps: between which bounds a field lies in the events of an item, so that who looks for values of it can
//! pass over items.
//!
//! Bounds are never wrong: an item has them only when every one of its events is JSON, and the field is a number
//! wherever it is, or a string wherever it is. An event without the field, or with null, cannot match and
//! counts for nothing. Whatever else is met leaves the item without bounds, and so may hold anything.

mod bounds;
mod walk;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::mapping::pointer::Pointer;
use crate::typed::Typed;
use bounds::Bounds;

pub(super) use bounds::MAX_BOUND_BYTES;

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
        self.bounds[index].edge(edge)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decimal::Decimal;

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
        let (_, max) =
            bounds("/a", &[&format!(r#"{{"a":"{}"}}"#, "\u{d7ff}".repeat(90))]).expect("bounds");
        assert_eq!(max.len(), 99);
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
