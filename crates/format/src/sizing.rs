//! DynamoDB's own arithmetic: bytes of an item, write and read units of a request.
//!
//! Rules from the DynamoDB developer guide, "DynamoDB item sizes and formats" and
//! "Read and write operations" (read 2026-11-23). The number rule in the guide is
//! approximate; the exact one here (digits counted in pairs on either side of the
//! decimal point) is the one that `dynoxide-rs` 3.2 measured against the service.

/// Bytes of a number value, given as a plain decimal (no exponent).
///
/// One byte, plus one per two significant digits on each side of the point, plus one when negative.
#[must_use]
pub fn number_bytes(decimal: &str) -> usize {
    let (negative, magnitude) = match decimal.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, decimal.strip_prefix('+').unwrap_or(decimal)),
    };
    let (whole, fraction) = magnitude.split_once('.').unwrap_or((magnitude, ""));
    let mut whole = whole.trim_start_matches('0');
    let mut fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() {
        whole = whole.trim_end_matches('0');
    }
    if whole.is_empty() && !decimal_has_whole(magnitude) {
        fraction = fraction.trim_start_matches('0');
    }
    if whole.is_empty() && fraction.is_empty() {
        return 1;
    }
    whole.len().div_ceil(2) + fraction.len().div_ceil(2) + 1 + usize::from(negative)
}

/// True when the part before the point holds a digit other than 0.
fn decimal_has_whole(magnitude: &str) -> bool {
    magnitude
        .split('.')
        .next()
        .is_some_and(|whole| whole.bytes().any(|digit| digit != b'0'))
}

/// Adds up the bytes of one item: names and values, top level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ItemSize(usize);

impl ItemSize {
    /// An item without attributes.
    #[must_use]
    pub fn new() -> Self {
        Self(0)
    }

    /// Adds a string attribute.
    #[must_use]
    pub fn string(self, name: &str, value: &str) -> Self {
        Self(self.0 + name.len() + value.len())
    }

    /// Adds a binary attribute of `length` bytes.
    #[must_use]
    pub fn binary(self, name: &str, length: usize) -> Self {
        Self(self.0 + name.len() + length)
    }

    /// Adds an integer attribute.
    #[must_use]
    pub fn integer(self, name: &str, value: i64) -> Self {
        Self(self.0 + name.len() + number_bytes(&value.to_string()))
    }

    /// Bytes so far.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.0
    }

    /// Write units that putting an item of this size consumes.
    #[must_use]
    pub fn write_units(self) -> u64 {
        write_units(self.0)
    }
}

/// Write units of a standard write of `bytes`: one per KB begun, at least one.
#[must_use]
pub fn write_units(bytes: usize) -> u64 {
    (bytes.max(1) as u64).div_ceil(1_024)
}

/// Read units of one page of `bytes`: one per 4 KB begun, half of it when eventually consistent.
#[must_use]
pub fn read_units(bytes: usize, consistent: bool) -> f64 {
    let whole = (bytes.max(1) as u64).div_ceil(4_096) as f64;
    if consistent { whole } else { whole / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_cost_a_byte_per_two_digits_on_each_side() {
        for (decimal, bytes) in [
            ("0", 1),
            ("-0", 1),
            ("1", 2),
            ("12", 2),
            ("123", 3),
            ("1234567890123456789", 11),
            ("0042", 2),
            ("100", 2),
            ("1010", 3),
            ("0.0000001", 2),
            ("1.5", 3),
            ("1.200", 3),
            ("100.5", 4),
            ("0.15", 2),
            ("3.14159", 5),
            ("-42", 3),
            ("-0.15", 3),
        ] {
            assert_eq!(number_bytes(decimal), bytes, "{decimal}");
        }
    }

    #[test]
    fn units_round_up_per_item() {
        assert_eq!(write_units(0), 1);
        assert_eq!(write_units(1_024), 1);
        assert_eq!(write_units(1_025), 2);
        assert_eq!(write_units(409_600), 400);
        assert!((read_units(409_600, false) - 50.0).abs() < f64::EPSILON);
    }
}
