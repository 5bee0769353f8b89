//! Sequence numbers: 56 decimal digits that only ever grow.

use std::{fmt, str::FromStr};

use super::ShardId;

/// The position of a record in its shard.
///
/// Consumers must treat it as opaque and ordered, as they must with AWS. Inside,
/// in the order of significance: a generation that is larger in a child than in
/// its parents, the shard, the ordinal in the shard, and noise that keeps
/// neighbours from differing by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber {
    pub(crate) generation: u64,
    pub(crate) shard: ShardId,
    pub(crate) ordinal: u64,
    pub(crate) noise: u32,
}

/// Digits of a sequence number.
pub(crate) const DIGITS: usize = 56;
const PREFIX: &str = "49";
const GENERATION_DIGITS: usize = 15;
const SHARD_DIGITS: usize = 10;
const ORDINAL_DIGITS: usize = 20;
const NOISE_DIGITS: usize = 9;
pub(crate) const NOISE_LIMIT: u64 = 1_000_000_000;

impl SequenceNumber {
    /// The number as it stands on the wire, without an allocation.
    #[must_use]
    pub fn to_digits(self) -> [u8; DIGITS] {
        let mut digits = [b'0'; DIGITS];
        let mut end = DIGITS;
        let mut put = |mut value: u64, width: usize| {
            let start = end - width;
            for digit in digits[start..end].iter_mut().rev() {
                *digit = b'0' + (value % 10) as u8;
                value /= 10;
            }
            end = start;
        };
        put(u64::from(self.noise), NOISE_DIGITS);
        put(self.ordinal, ORDINAL_DIGITS);
        put(u64::from(self.shard.index()), SHARD_DIGITS);
        put(self.generation, GENERATION_DIGITS);
        digits[..PREFIX.len()].copy_from_slice(PREFIX.as_bytes());
        digits
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{PREFIX}{:0GENERATION_DIGITS$}{:0SHARD_DIGITS$}{:0ORDINAL_DIGITS$}{:0NOISE_DIGITS$}",
            self.generation,
            self.shard.index(),
            self.ordinal,
            self.noise
        )
    }
}

/// Text that is no sequence number of this model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sequence number is one of the 56-digit numbers that a put returned")]
pub struct ParseSequenceNumberError;

impl FromStr for SequenceNumber {
    type Err = ParseSequenceNumberError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix(PREFIX).ok_or(ParseSequenceNumberError)?;
        if text.len() != DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ParseSequenceNumberError);
        }
        let (generation, rest) = digits.split_at(GENERATION_DIGITS);
        let (shard, rest) = rest.split_at(SHARD_DIGITS);
        let (ordinal, noise) = rest.split_at(ORDINAL_DIGITS);
        let number = |text: &str| text.parse::<u64>().map_err(|_| ParseSequenceNumberError);
        Ok(Self {
            generation: number(generation)?,
            shard: u32::try_from(number(shard)?)
                .map(ShardId::new)
                .map_err(|_| ParseSequenceNumberError)?,
            ordinal: number(ordinal)?,
            noise: u32::try_from(number(noise)?).map_err(|_| ParseSequenceNumberError)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_number() -> impl Strategy<Value = SequenceNumber> {
        (
            0..10u64.pow(15),
            any::<u32>(),
            any::<u64>(),
            0..NOISE_LIMIT as u32,
        )
            .prop_map(|(generation, shard, ordinal, noise)| SequenceNumber {
                generation,
                shard: ShardId::new(shard),
                ordinal,
                noise,
            })
    }

    proptest! {
        #[test]
        fn text_and_number_agree(number in any_number(), other in any_number()) {
            let text = number.to_string();
            prop_assert_eq!(text.len(), DIGITS);
            prop_assert_eq!(text.as_bytes(), &number.to_digits()[..]);
            prop_assert_eq!(text.parse::<SequenceNumber>(), Ok(number));
            prop_assert_eq!(text.cmp(&other.to_string()), number.cmp(&other));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,60}") {
            let _ = text.parse::<SequenceNumber>();
        }
    }

    #[test]
    fn foreign_numbers_are_refused() {
        for text in [
            "",
            "0",
            "49",
            &"9".repeat(56),
            &"49".repeat(28)[..55],
            &format!("49{}", "9".repeat(54)),
        ] {
            assert_eq!(
                text.parse::<SequenceNumber>(),
                Err(ParseSequenceNumberError),
                "{text}"
            );
        }
    }
}
