//! Looking for bytes and reading decimals eight bytes at a time.
//!
//! The keys and members that are read here are short, and under an engine that meters its
//! modules every turn of a loop is paid for: words of eight bytes, without a call, are the
//! form that is quick both there and natively.

/// The byte in each byte of a word.
const fn each(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// Highest bit of each byte.
const HIGH: u64 = each(0x80);

/// High bits that mark where `word` has `byte`; the lowest mark is right, others may not be.
#[inline(always)]
const fn equal(word: u64, byte: u8) -> u64 {
    let differing = word ^ each(byte);
    differing.wrapping_sub(each(1)) & !differing & HIGH
}

/// Bytes before the first one that `stops` marks. A byte of 0 after the end is looked at, too.
#[inline(always)]
fn run(bytes: &[u8], stops: impl Fn(u64) -> u64) -> Option<usize> {
    let at = |index: usize, marks: u64| 8 * index + marks.trailing_zeros() as usize / 8;
    let (words, rest) = bytes.as_chunks();
    for (index, word) in words.iter().enumerate() {
        let marks = stops(u64::from_le_bytes(*word));
        if marks != 0 {
            return Some(at(index, marks));
        }
    }
    let shift = |word, byte: &u8| word << 8 | u64::from(*byte);
    let marks = stops(rest.iter().rev().fold(0, shift));
    (marks != 0)
        .then(|| at(words.len(), marks))
        .filter(|at| *at < bytes.len())
}

/// Index of the first byte that is `wanted`.
#[inline]
#[must_use]
pub fn position(bytes: &[u8], wanted: u8) -> Option<usize> {
    run(bytes, |word| equal(word, wanted))
}

/// Index of the first byte that cannot stand for itself in a JSON string of ASCII text.
#[inline]
#[must_use]
pub fn json_special(bytes: &[u8]) -> Option<usize> {
    run(bytes, |word| {
        // The same reservation as for `equal`: only the lowest mark counts.
        let control = word.wrapping_sub(each(0x20)) & !word & HIGH;
        control | equal(word, b'"') | equal(word, b'\\') | word & HIGH
    })
}

/// High bits that mark exactly the bytes of `word` that are not ASCII digits.
#[inline(always)]
const fn no_digits(word: u64) -> u64 {
    let value = word ^ each(b'0');
    ((value & !HIGH).wrapping_add(each(0x76)) | value) & HIGH
}

/// The ASCII digits that `bytes` begins with.
#[inline]
#[must_use]
pub fn leading_digits(bytes: &[u8]) -> &[u8] {
    &bytes[..run(bytes, no_digits).unwrap_or(bytes.len())]
}

/// Digits of which any number is below 2^64.
pub const SAFE_DIGITS: usize = 19;

/// The number that at most [`SAFE_DIGITS`] ASCII digits stand for, leading zeros allowed;
/// `None` for any other byte or more of them, 0 for none.
#[inline]
#[must_use]
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.len() > SAFE_DIGITS {
        return None;
    }
    let (words, rest) = digits.as_chunks();
    let mut value = 0u64;
    for word in words {
        let word = u64::from_le_bytes(*word);
        if no_digits(word) != 0 {
            return None;
        }
        // Neighbours are joined to numbers of two, four and eight digits.
        let pairs = (word & each(0x0f)).wrapping_mul(10 << 8 | 1) >> 8 & 0x00ff_00ff_00ff_00ff;
        let fours = pairs.wrapping_mul(100 << 16 | 1) >> 16 & 0x0000_ffff_0000_ffff;
        let eight = fours.wrapping_mul(10_000 << 32 | 1) >> 32;
        value = value * 100_000_000 + eight;
    }
    for byte in rest {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every byte value at every place of texts that end before, at and after a word.
    #[test]
    fn every_byte_is_seen_at_every_place_as_one_by_one() {
        let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20 | 0x80..);
        for length in 0..20 {
            for place in 0..length {
                for byte in 0..=255 {
                    for (fill, next) in [(b'7', b'7'), (b'0', b'/'), (b'9', b'"'), (b'a', 0x80)] {
                        let mut text = vec![fill; length];
                        text[place] = byte;
                        if let Some(after) = text.get_mut(place + 1) {
                            *after = next;
                        }
                        let slow = text.iter().position(|byte| *byte == b'/');
                        assert_eq!(position(&text, b'/'), slow, "{text:?}");
                        assert_eq!(
                            json_special(&text),
                            text.iter().position(special),
                            "{text:?}"
                        );
                        let slow = text.iter().take_while(|byte| byte.is_ascii_digit());
                        assert_eq!(leading_digits(&text).len(), slow.count(), "{text:?}");
                    }
                }
            }
            let zeros = vec![0; length];
            assert_eq!(position(&zeros, b'/'), None);
            assert_eq!(position(&zeros, 0), (length > 0).then_some(0));
        }
    }

    #[test]
    fn decimals_are_what_the_standard_parser_reads() {
        let mut number = 7u64;
        for _ in 0..5_000 {
            number = number
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            for shift in [1, 20, 40, 60] {
                let text = (number >> shift).to_string();
                assert_eq!(decimal(text.as_bytes()), Some(number >> shift));
                for byte in [b'/', b':', b'-', 0, 0xff] {
                    let mut bad = text.clone().into_bytes();
                    let place = number as usize % bad.len();
                    bad[place] = byte;
                    assert_eq!(decimal(&bad), None, "{bad:?}");
                }
            }
        }
        assert_eq!(decimal(b""), Some(0));
        assert_eq!(decimal(b"0000000000000000017"), Some(17));
        assert_eq!(decimal(&[b'9'; 19]), Some(9_999_999_999_999_999_999));
        assert_eq!(decimal(&[b'0'; 20]), None);
    }
}
