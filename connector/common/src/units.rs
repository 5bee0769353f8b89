//! Values with units as people write them: durations, byte sizes, moments.
//!
//! Each is read from text with its unit and shown in the same way, so that a problem can say
//! the limit and the value given in the words of the file.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A length of time, written as a whole number and a unit: `500ms`, `5s`, `2m`, `1h`, `90d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(pub Duration);

/// Units of a duration in milliseconds, largest first.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl HumanDuration {
    /// From milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// From seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The duration.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

/// Text that is not a value with a unit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(String);

/// Splits `12 MB` into its number and its unit.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number = digits.replace('_', "").parse().ok()?;
    Some((number, unit.trim()))
}

/// Splits `.5 MB` into its digits (at most 9) and its unit.
fn split_fraction(text: &str) -> Option<(&str, &str)> {
    let digits = text.strip_prefix('.')?;
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    let (digits, unit) = digits.split_at(end);
    (1..=9)
        .contains(&digits.len())
        .then_some((digits, unit.trim()))
}

impl FromStr for HumanDuration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refused =
            || UnitError("is no duration: a whole number and `ms`, `s`, `m`, `h` or `d`".into());
        let (number, unit) = split_number(text).ok_or_else(refused)?;
        if unit.is_empty() {
            return Err(UnitError("has no unit: `ms`, `s`, `m`, `h` or `d`".into()));
        }
        let (_, millis) = DURATION_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(refused)?;
        let millis = number
            .checked_mul(*millis)
            .ok_or_else(|| UnitError("is too long a duration to count".into()))?;
        Ok(Self(Duration::from_millis(millis)))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let (unit, size) = DURATION_UNITS
            .iter()
            .map(|(unit, size)| (*unit, u128::from(*size)))
            .find(|(_, size)| millis >= *size && millis.is_multiple_of(*size))
            .unwrap_or(("ms", 1));
        write!(f, "{}{unit}", millis / size)
    }
}

/// A number of bytes, written as a number or with a unit: `409600`, `400 KiB`, `1 MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// Units of a byte size.
const BYTE_UNITS: [(&str, u64); 7] = [
    ("B", 1),
    ("KB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];

impl ByteSize {
    /// The number of bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refused = || {
            UnitError(
                "is no byte size: a whole number, alone or with `B`, `KB`, `KiB`, `MB`, `MiB`, `GB` or `GiB`"
                    .into(),
            )
        };
        let (number, rest) = split_number(text).ok_or_else(refused)?;
        let (fraction, unit) = match rest.starts_with('.') {
            true => split_fraction(rest).ok_or_else(refused)?,
            false => ("", rest),
        };
        let (_, size) = BYTE_UNITS
            .iter()
            .find(|(name, _)| unit.is_empty() || name.eq_ignore_ascii_case(unit))
            .ok_or_else(refused)?;
        // At most 9 digits of at most a GiB: the product fits.
        let digits: u64 = fraction.parse().unwrap_or(0);
        let scale = 10_u64.pow(u32::try_from(fraction.len()).unwrap_or(0));
        let part = digits * size / scale;
        number
            .checked_mul(*size)
            .and_then(|whole| whole.checked_add(part))
            .map(Self)
            .ok_or_else(|| UnitError("is too large a byte size to count".into()))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match units
            .iter()
            .find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size))
        {
            Some((unit, size)) => write!(f, "{} {unit}", self.0 / size),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A moment, written as RFC 3339 (`2026-01-31T12:00:00Z`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub jiff::Timestamp);

impl Moment {
    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        self.0.as_millisecond()
    }
}

impl FromStr for Moment {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        text.trim().parse().map(Self).map_err(|_| {
            UnitError("is no moment in RFC 3339, with a time zone: `2026-01-31T12:00:00Z`".into())
        })
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Text forms share one visitor: text is parsed, a bare number goes through `from_number`.
struct UnitVisitor<T> {
    expected: &'static str,
    from_number: fn(u64) -> Result<T, UnitError>,
}

impl<T: FromStr<Err = UnitError>> Visitor<'_> for UnitVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        (self.from_number)(number).map_err(E::custom)
    }
}

macro_rules! unit {
    ($type:ident, $expected:literal, $from_number:expr, $schema:tt) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(UnitVisitor {
                    expected: $expected,
                    from_number: $from_number,
                })
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

unit!(
    HumanDuration,
    "a duration such as `500ms`, `5s`, `2m`, `1h` or `90d`",
    |_| Err(UnitError("has no unit: `ms`, `s`, `m`, `h` or `d`".into())),
    { "type": "string", "pattern": "^ *[0-9_]+ *(ms|s|m|h|d) *$" }
);
unit!(
    ByteSize,
    "a byte size such as `409600`, `400 KiB` or `1 MB`",
    |bytes| Ok(ByteSize(bytes)),
    { "oneOf": [
        { "type": "integer", "minimum": 0 },
        { "type": "string", "pattern": "^ *[0-9_]+([.][0-9]{1,9})? *(([KkMmGg][Ii]?)?[Bb])? *$" }
    ] }
);
unit!(
    Moment,
    "a moment in RFC 3339, with a time zone: `2026-01-31T12:00:00Z`",
    |_| Err(UnitError(
        "is no moment in RFC 3339, with a time zone: `2026-01-31T12:00:00Z`".into()
    )),
    { "type": "string", "format": "date-time" }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("500ms", 500),
            ("5s", 5_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("90d", 7_776_000_000),
            (" 1_000 ms ", 1_000),
        ] {
            let parsed: HumanDuration = text.parse().expect(text);
            assert_eq!(parsed, HumanDuration::from_millis(millis), "{text}");
            let shown = parsed.to_string();
            assert_eq!(shown.parse(), Ok(parsed), "{shown}");
        }
        for text in [
            "",
            "5",
            "s",
            "5 parsecs",
            "-5s",
            "1.5s",
            "99999999999999999d",
        ] {
            assert!(text.parse::<HumanDuration>().is_err(), "{text}");
        }
        assert_eq!(HumanDuration::from_secs(120).to_string(), "2m");
        assert_eq!(HumanDuration::from_millis(1500).to_string(), "1500ms");
        assert_eq!(HumanDuration::from_millis(0).to_string(), "0ms");
    }

    #[test]
    fn byte_sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("409600", 409_600),
            ("1 MB", 1_000_000),
            ("1MiB", 1_048_576),
            ("400 kib", 409_600),
            ("7B", 7),
            ("44.0 MB", 44_000_000),
            ("1.5 KiB", 1_536),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in [
            "",
            "MB",
            "1 MX",
            "-1",
            "1. MB",
            "1.5.5 MB",
            "99999999999999 GB",
        ] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        assert_eq!(ByteSize(409_600).to_string(), "400 KiB");
        assert_eq!(ByteSize(1_000_000).to_string(), "1000000");
    }

    #[test]
    fn moments() {
        let moment: Moment = "2026-01-31T12:00:00Z".parse().expect("a moment");
        assert_eq!(moment.as_millis(), 1_769_860_800_000);
        assert!("2026-01-31".parse::<Moment>().is_err());
        assert!("yesterday".parse::<Moment>().is_err());
    }
}
