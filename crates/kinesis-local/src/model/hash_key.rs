//! The 128-bit space that shards divide among themselves.

use std::{fmt, str::FromStr};

use md5::{Digest, Md5};

/// A point in the hash space: the MD5 of a partition key as a big-endian
/// number, or an explicit one. Source: API reference, `PutRecord`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashKey(pub u128);

impl HashKey {
    /// The lowest point.
    pub const MIN: Self = Self(0);
    /// The highest point, 2^128 - 1.
    pub const MAX: Self = Self(u128::MAX);

    /// Where records with this partition key go.
    #[must_use]
    pub fn of_partition_key(partition_key: &str) -> Self {
        Self(u128::from_be_bytes(
            Md5::digest(partition_key.as_bytes()).into(),
        ))
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Text that is not a hash key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hash key is a decimal number from 0 to 2^128 - 1 without leading zeros")]
pub struct ParseHashKeyError;

impl FromStr for HashKey {
    type Err = ParseHashKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let canonical = text == "0" || !text.starts_with('0');
        if !canonical || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ParseHashKeyError);
        }
        text.parse().map(Self).map_err(|_| ParseHashKeyError)
    }
}

/// A shard's part of the hash space, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKeyRange {
    /// The lowest hash key of the shard.
    pub start: HashKey,
    /// The highest hash key of the shard.
    pub end: HashKey,
}

impl HashKeyRange {
    /// Whether the range holds this hash key.
    #[must_use]
    pub fn contains(&self, hash_key: HashKey) -> bool {
        self.start <= hash_key && hash_key <= self.end
    }

    /// The whole space in `parts` equal ranges; the last takes the remainder.
    pub(crate) fn uniform(parts: u32) -> Vec<Self> {
        let parts = u128::from(parts.max(1));
        // 2^128 / parts, without the 129th bit.
        let step = (u128::MAX - (parts - 1)) / parts;
        let start = |part: u128| part * step + part;
        (0..parts)
            .map(|part| Self {
                start: HashKey(start(part)),
                end: if part + 1 == parts {
                    HashKey::MAX
                } else {
                    HashKey(start(part + 1) - 1)
                },
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_key_hashes_to_its_md5() {
        // MD5("") and MD5("abc") from RFC 1321, appendix A.5.
        assert_eq!(
            HashKey::of_partition_key("").0,
            0xd41d8cd98f00b204e9800998ecf8427e
        );
        assert_eq!(
            HashKey::of_partition_key("abc").0,
            0x900150983cd24fb0d6963f7d28e17f72
        );
    }

    #[test]
    fn uniform_ranges_cover_the_space_without_gap() {
        for parts in [1, 2, 3, 4, 5, 7, 16, 100, 1_000] {
            let ranges = HashKeyRange::uniform(parts);
            assert_eq!(ranges.len(), parts as usize);
            assert_eq!(ranges[0].start, HashKey::MIN);
            assert_eq!(ranges.last().unwrap().end, HashKey::MAX);
            assert!(
                ranges
                    .windows(2)
                    .all(|pair| pair[0].end.0 + 1 == pair[1].start.0)
            );
        }
        assert_eq!(HashKeyRange::uniform(2)[1].start.0, 1 << 127);
    }

    #[test]
    fn only_canonical_decimal_numbers_are_hash_keys() {
        for good in ["0", "1", "340282366920938463463374607431768211455"] {
            assert_eq!(good.parse::<HashKey>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "00",
            "01",
            "-1",
            "+1",
            "1a",
            "340282366920938463463374607431768211456",
        ] {
            assert_eq!(bad.parse::<HashKey>(), Err(ParseHashKeyError), "{bad}");
        }
    }
}
