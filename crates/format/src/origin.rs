//! The origin of an event: where in the stream it was read, carried as the
//! topic's record key.
//!
//! `mp1/<stream>/<shard>/<sequence>/<sub>/<arrival ms>/<epoch>.<ordinal>/<partition key>`

use crate::decimal;
use crate::scan;
use crate::sequence::SequenceNumber;

/// First path segment of every origin key of this version.
pub const ORIGIN_VERSION: &str = "mp1";

/// Longest stream name (Kinesis API reference, `CreateStream`, read 2026-11-23).
pub const MAX_STREAM_NAME_BYTES: usize = 128;

/// Longest shard id (Kinesis API reference, `Shard`, read 2026-11-23).
pub const MAX_SHARD_ID_BYTES: usize = 128;

/// Place of an event in the chain of its shard and topic partition.
///
/// `epoch` names one numbering (milliseconds since the Unix epoch when it was
/// begun); `ordinal` counts the events that the shard sent to the topic partition
/// within it, from 0. A replay repeats the ordinals, so that a lost event leaves
/// a hole that can be proven and a repeated one is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainLink {
    /// Numbering that the ordinal belongs to.
    pub epoch: u64,
    /// Place in it, from 0.
    pub ordinal: u64,
}

/// Where an event was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Stream name.
    pub stream: &'a str,
    /// Shard id.
    pub shard: &'a str,
    /// Sequence number of the record in its shard.
    pub sequence: SequenceNumber<'a>,
    /// Index within an aggregated record; 0 for a plain one.
    pub sub_sequence: u32,
    /// Approximate arrival time, milliseconds since the Unix epoch.
    pub arrival_ms: i64,
    /// Place in the chain of shard and topic partition.
    pub chain: ChainLink,
    /// Kinesis partition key.
    pub partition_key: &'a str,
}

/// Why a record key is not an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// The key is not UTF-8 text.
    #[error("record key is not UTF-8 text")]
    NotText,
    /// The key does not start with a known version.
    #[error("record key does not start with `{ORIGIN_VERSION}/`")]
    UnknownVersion,
    /// A part is missing.
    #[error("origin key ends before its {0}")]
    Truncated(&'static str),
    /// A part does not have its form.
    #[error("origin key has a malformed {0}")]
    Malformed(&'static str),
}

impl<'a> Origin<'a> {
    /// Writes the key text to `out`.
    pub fn write_to(&self, out: &mut String) {
        out.reserve(self.stream.len() + self.shard.len() + self.partition_key.len() + 210);
        out.push_str(ORIGIN_VERSION);
        for part in [self.stream, self.shard, self.sequence.as_str()] {
            out.push('/');
            out.push_str(part);
        }
        out.push('/');
        decimal::push(out, self.sub_sequence.into());
        out.push('/');
        decimal::push_signed(out, self.arrival_ms);
        out.push('/');
        decimal::push(out, self.chain.epoch);
        out.push('.');
        decimal::push(out, self.chain.ordinal);
        out.push('/');
        out.push_str(self.partition_key);
    }

    /// Reads a record key.
    ///
    /// # Errors
    /// Any key that [`Origin::write_to`] would not write is an error that names the first bad part.
    pub fn parse(key: &'a [u8]) -> Result<Self, OriginError> {
        let text = std::str::from_utf8(key).map_err(|_| OriginError::NotText)?;
        let (version, rest) = cut(text, b'/').ok_or(OriginError::UnknownVersion)?;
        if version != ORIGIN_VERSION {
            return Err(OriginError::UnknownVersion);
        }
        let truncated = OriginError::Truncated;
        let (stream, rest) = cut(rest, b'/').ok_or(truncated("shard"))?;
        let (shard, rest) = cut(rest, b'/').ok_or(truncated("sequence number"))?;
        let (sequence, rest) = cut(rest, b'/').ok_or(truncated("sub-sequence number"))?;
        let (sub_sequence, rest) = cut(rest, b'/').ok_or(truncated("arrival time"))?;
        let (arrival, rest) = cut(rest, b'/').ok_or(truncated("chain link"))?;
        let (chain, partition_key) = cut(rest, b'/').ok_or(truncated("partition key"))?;
        named(stream, MAX_STREAM_NAME_BYTES, "stream")?;
        named(shard, MAX_SHARD_ID_BYTES, "shard")?;
        let (epoch, ordinal) = cut(chain, b'.').ok_or(OriginError::Malformed("chain link"))?;
        Ok(Self {
            stream,
            shard,
            sequence: SequenceNumber::parse(sequence)
                .ok_or(OriginError::Malformed("sequence number"))?,
            sub_sequence: decimal(sub_sequence)
                .and_then(|number| number.try_into().ok())
                .ok_or(OriginError::Malformed("sub-sequence number"))?,
            arrival_ms: signed_decimal(arrival).ok_or(OriginError::Malformed("arrival time"))?,
            chain: ChainLink {
                epoch: decimal(epoch).ok_or(OriginError::Malformed("chain link"))?,
                ordinal: decimal(ordinal).ok_or(OriginError::Malformed("chain link"))?,
            },
            partition_key,
        })
    }
}

/// What stands before and after the first `separator`, which is ASCII.
#[inline(always)]
fn cut(text: &str, separator: u8) -> Option<(&str, &str)> {
    let at = scan::position(text.as_bytes(), separator)?;
    Some((&text[..at], &text[at + 1..]))
}

fn named(text: &str, limit: usize, name: &'static str) -> Result<(), OriginError> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.is_empty()
        || text.len() > limit
        || !text.bytes().fold(true, |good, byte| good & known(byte))
    {
        return Err(OriginError::Malformed(name));
    }
    Ok(())
}

/// Canonical decimals only, so that one origin has one text.
#[inline(always)]
fn decimal(text: &str) -> Option<u64> {
    let digits = text.as_bytes();
    let is_canonical = !digits.is_empty() && (digits[0] != b'0' || digits.len() == 1);
    if !is_canonical || digits.len() > scan::SAFE_DIGITS + 1 {
        return None;
    }
    let (safe, last) = digits.split_at(digits.len().min(scan::SAFE_DIGITS));
    let value = scan::decimal(safe)?;
    if last.is_empty() {
        return Some(value);
    }
    value.checked_mul(10)?.checked_add(scan::decimal(last)?)
}

#[inline]
fn signed_decimal(text: &str) -> Option<i64> {
    match text.strip_prefix('-') {
        Some(magnitude) => decimal(magnitude)
            .filter(|magnitude| *magnitude > 0)
            .and_then(|magnitude| 0i64.checked_sub_unsigned(magnitude)),
        None => decimal(text)?.try_into().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "mp1/events/shardId-000000000003/49590338271490256608559692538361571095921575989136588898/0/1763886000123/1763885999000.42/job-17/w3";

    #[test]
    fn text_and_value_agree() {
        let origin = Origin::parse(KEY.as_bytes()).expect("valid");
        assert_eq!(origin.partition_key, "job-17/w3");
        assert_eq!(
            origin.chain,
            ChainLink {
                epoch: 1_763_885_999_000,
                ordinal: 42
            }
        );
        let mut text = String::new();
        origin.write_to(&mut text);
        assert_eq!(text, KEY);
    }

    #[test]
    fn every_cut_before_the_partition_key_is_an_error() {
        let end = KEY.len() - "job-17/w3".len();
        for cut in 0..end {
            assert!(Origin::parse(&KEY.as_bytes()[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn numbers_have_one_text_and_their_whole_range() {
        assert_eq!(decimal("0"), Some(0));
        assert_eq!(decimal("18446744073709551615"), Some(u64::MAX));
        for bad in [
            "",
            "00",
            "01",
            "+1",
            "-1",
            "1a",
            "18446744073709551616",
            "99999999999999999999",
            "100000000000000000000",
        ] {
            assert_eq!(decimal(bad), None, "{bad}");
        }
        assert_eq!(signed_decimal("-9223372036854775808"), Some(i64::MIN));
        assert_eq!(signed_decimal("9223372036854775807"), Some(i64::MAX));
        for bad in [
            "-",
            "-0",
            "--1",
            "9223372036854775808",
            "-9223372036854775809",
        ] {
            assert_eq!(signed_decimal(bad), None, "{bad}");
        }
    }

    #[test]
    fn each_malformed_part_is_named() {
        for (from, to, error) in [
            ("mp1", "mp2", OriginError::UnknownVersion),
            ("/events/", "/ev ents/", OriginError::Malformed("stream")),
            (
                "/shardId-000000000003/",
                "//",
                OriginError::Malformed("shard"),
            ),
            ("/4959", "/04959", OriginError::Malformed("sequence number")),
            (
                "/0/1763886000123",
                "/-1/1763886000123",
                OriginError::Malformed("sub-sequence number"),
            ),
            (
                "1763886000123",
                "+1763886000123",
                OriginError::Malformed("arrival time"),
            ),
            (
                "1763886000123",
                "-0",
                OriginError::Malformed("arrival time"),
            ),
            (".42/", "/", OriginError::Malformed("chain link")),
            (".42/", ".042/", OriginError::Malformed("chain link")),
        ] {
            let key = KEY.replacen(from, to, 1);
            assert_eq!(Origin::parse(key.as_bytes()), Err(error), "{key}");
        }
        assert_eq!(Origin::parse(&[0xff]), Err(OriginError::NotText));
    }
}
