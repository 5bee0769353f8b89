//! Kinesis sequence numbers: opaque, but ordered within a shard.

use std::cmp::Ordering;
use std::fmt;

/// Longest sequence number: 129 digits by the API's own pattern
/// (`0|([1-9]\d{0,128})`, Kinesis API reference, `GetShardIterator`, read 2026-11-23).
pub const MAX_SEQUENCE_DIGITS: usize = 129;

/// A sequence number as a canonical decimal numeral; ordered by value.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SequenceNumber<'a>(&'a str);

impl<'a> SequenceNumber<'a> {
    /// Checks that `text` is a canonical decimal numeral of at most 129 digits.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let digits = text.as_bytes();
        let canonical = match digits {
            [] => false,
            [b'0'] => true,
            // Without an early end, so that the compiler may take many digits at once.
            [first, ..] => {
                *first != b'0'
                    && digits
                        .iter()
                        .fold(true, |good, d| good & d.is_ascii_digit())
            }
        };
        (canonical && digits.len() <= MAX_SEQUENCE_DIGITS).then_some(Self(text))
    }

    /// The numeral.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

impl Ord for SequenceNumber<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        // Canonical numerals: the longer one is the larger one.
        (self.0.len(), self.0).cmp(&(other.0.len(), other.0))
    }
}

impl PartialOrd for SequenceNumber<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for SequenceNumber<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Display for SequenceNumber<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Position of an event within a shard: sequence number, then the index within
/// an aggregated record (0 for a plain one).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Position {
    /// Canonical decimal numeral.
    pub sequence: Box<str>,
    /// Index within an aggregated record.
    pub sub_sequence: u32,
}

impl Position {
    /// Position of a sequence number and sub-sequence number.
    #[must_use]
    pub fn new(sequence: SequenceNumber<'_>, sub_sequence: u32) -> Self {
        Self {
            sequence: sequence.as_str().into(),
            sub_sequence,
        }
    }

    /// Compares without owning the other side.
    #[must_use]
    pub fn cmp_to(&self, sequence: SequenceNumber<'_>, sub_sequence: u32) -> Ordering {
        SequenceNumber(&self.sequence)
            .cmp(&sequence)
            .then(self.sub_sequence.cmp(&sub_sequence))
    }
}

impl Ord for Position {
    fn cmp(&self, other: &Self) -> Ordering {
        self.cmp_to(SequenceNumber(&other.sequence), other.sub_sequence)
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_by_value() {
        let numbers = [
            "0",
            "9",
            "10",
            "99",
            "100",
            "49590338271490256608559692538361571095921575989136588898",
        ];
        for pair in numbers.windows(2) {
            assert!(SequenceNumber::parse(pair[0]) < SequenceNumber::parse(pair[1]));
        }
    }

    #[test]
    fn only_canonical_numerals_pass() {
        for bad in ["", "01", "-1", "1a", " 1", &"1".repeat(130)] {
            assert_eq!(SequenceNumber::parse(bad), None, "{bad}");
        }
        assert!(SequenceNumber::parse(&"1".repeat(129)).is_some());
    }
}
