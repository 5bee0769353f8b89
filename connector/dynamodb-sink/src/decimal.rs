//! Numbers as DynamoDB keeps them: exact decimals within its precision and range.
//!
//! DynamoDB developer guide, "Naming rules and data types" (read 2026-11-23): up to 38 digits,
//! magnitudes from 1E-130 to 9.9999999999999999999999999999999999999E+125.

use std::cmp::Ordering;
use std::fmt;

/// Most significant digits.
const MAX_DIGITS: usize = 38;

/// Highest and lowest power of ten of the first digit.
const EXPONENTS: std::ops::RangeInclusive<i64> = -130..=125;

/// A number in its one plain form: no exponent, no needless zeros, no `-0`. Equal numbers are
/// equal texts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal(String);

/// Why a text is no number that DynamoDB keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// Not written as JSON writes numbers.
    #[error("is no number")]
    NotANumber,
    /// More digits than it keeps.
    #[error("has more than {MAX_DIGITS} digits")]
    TooPrecise,
    /// Beyond its range.
    #[error("is beyond the range of numbers, 1E-130 to 9.99E+125")]
    OutOfRange,
}

impl Decimal {
    /// Reads a number as JSON writes it.
    ///
    /// # Errors
    /// [`DecimalError`]; nothing is rounded.
    pub fn parse(text: &str) -> Result<Self, DecimalError> {
        let (is_negative, magnitude) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match magnitude.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (magnitude, None),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (mantissa, None),
        };
        let exponent_digits = exponent.map(|text| text.strip_prefix(['+', '-']).unwrap_or(text));
        let is_number = is_digits(whole)
            && (whole == "0" || !whole.starts_with('0'))
            && fraction.is_none_or(is_digits)
            && exponent_digits.is_none_or(is_digits);
        if !is_number {
            return Err(DecimalError::NotANumber);
        }
        let all = format!("{whole}{}", fraction.unwrap_or_default());
        let digits = all.trim_start_matches('0');
        let leading = all.len() - digits.len();
        let digits = digits.trim_end_matches('0');
        if digits.is_empty() {
            return Ok(Self("0".to_owned()));
        }
        if digits.len() > MAX_DIGITS {
            return Err(DecimalError::TooPrecise);
        }
        let exponent: i64 = match exponent {
            Some(text) => text.parse().map_err(|_| DecimalError::OutOfRange)?,
            None => 0,
        };
        // Digits before the point; 0 or less: so many zeros follow it.
        let point = i64::try_from(whole.len() - leading.min(whole.len()))
            .ok()
            .and_then(|point| {
                let zeros = i64::try_from(leading.saturating_sub(whole.len())).ok()?;
                point.checked_sub(zeros)?.checked_add(exponent)
            })
            .filter(|point| EXPONENTS.contains(&(point - 1)))
            .ok_or(DecimalError::OutOfRange)?;
        Ok(Self(plain(is_negative, digits, point)))
    }

    /// Which one is larger; the derived order is that of the texts.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        let [one, other] = [&self.0, &other.0].map(|text| {
            let magnitude = text.strip_prefix('-');
            let is_negative = magnitude.is_some();
            let magnitude = magnitude.unwrap_or(text);
            let (whole, fraction) = magnitude.split_once('.').unwrap_or((magnitude, ""));
            (is_negative, (whole.len(), whole, fraction))
        });
        match (one.0, other.0) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => one.1.cmp(&other.1),
            (true, true) => other.1.cmp(&one.1),
        }
    }

    /// The number, in digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<i64> for Decimal {
    fn from(number: i64) -> Self {
        Self(number.to_string())
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Digits with the point after the first `point` of them.
fn plain(is_negative: bool, digits: &str, point: i64) -> String {
    let mut text = String::from(if is_negative { "-" } else { "" });
    match usize::try_from(point) {
        Ok(point) if point >= digits.len() => {
            text.push_str(digits);
            text.extend(std::iter::repeat_n('0', point - digits.len()));
        }
        Ok(point) if point > 0 => {
            text.push_str(&digits[..point]);
            text.push('.');
            text.push_str(&digits[point..]);
        }
        _ => {
            text.push_str("0.");
            let zeros = usize::try_from(-point).unwrap_or_default();
            text.extend(std::iter::repeat_n('0', zeros));
            text.push_str(digits);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_form() {
        for (text, plain) in [
            ("0", "0"),
            ("-0", "0"),
            ("0.000e99999999999999999999", "0"),
            ("12", "12"),
            ("-12.50", "-12.5"),
            ("1e3", "1000"),
            ("1.25E+1", "12.5"),
            ("1250e-3", "1.25"),
            ("0.00120", "0.0012"),
            ("0.0012e4", "12"),
            ("100e-2", "1"),
            ("9007199254740993", "9007199254740993"),
            (
                "0.10000000000000000000000000000000000001",
                "0.10000000000000000000000000000000000001",
            ),
        ] {
            assert_eq!(
                Decimal::parse(text).map(|d| d.0),
                Ok(plain.to_owned()),
                "{text}"
            );
        }
        assert_eq!(Decimal::parse("1e125").expect("largest").0.len(), 126);
        assert_eq!(Decimal::parse("1e-130").expect("smallest").0.len(), 132);
    }

    #[test]
    fn numbers_are_in_order() {
        let numbers = [
            "-1e125", "-100", "-12.5", "-12.25", "-9", "-0.5", "-0.05", "0", "1e-130", "0.45",
            "0.5", "1", "1.0001", "9", "10", "10.5", "1e38",
        ];
        let numbers = numbers.map(|text| Decimal::parse(text).expect("a number"));
        for (place, one) in numbers.iter().enumerate() {
            for (other_place, other) in numbers.iter().enumerate() {
                assert_eq!(one.compare(other), place.cmp(&other_place), "{one} {other}");
            }
        }
    }

    #[test]
    fn what_cannot_be_kept_exactly_is_refused() {
        use DecimalError::{NotANumber, OutOfRange, TooPrecise};
        for (text, error) in [
            ("", NotANumber),
            ("-", NotANumber),
            ("01", NotANumber),
            ("1.", NotANumber),
            (".5", NotANumber),
            ("1e", NotANumber),
            ("1e+-2", NotANumber),
            ("+1", NotANumber),
            ("NaN", NotANumber),
            (" 1", NotANumber),
            ("123456789012345678901234567890123456789", TooPrecise),
            ("1e126", OutOfRange),
            ("1e-131", OutOfRange),
            ("1e99999999999999999999", OutOfRange),
            ("1e9223372036854775807", OutOfRange),
        ] {
            assert_eq!(Decimal::parse(text), Err(error), "{text}");
        }
    }
}
