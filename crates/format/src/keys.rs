//! Keys of everything that Millpond writes into a table, and the hashes behind them.

use jiff::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

use crate::limits;

/// Partition key of the registry of pipelines; the sort key is the pipeline name.
pub const PIPELINES_PK: &str = "millpond:pipelines";

/// Buckets that a pipeline's directory of groups is spread over.
pub const DIRECTORY_BUCKETS: u64 = 16;

/// Bytes of a sort key's time.
const TIME_BYTES: usize = 24;

/// Topic partition of a Kinesis partition key, so that events which must keep their
/// order stay together through reshards.
#[must_use]
pub fn topic_partition(kinesis_partition_key: &str, partition_count: u32) -> u32 {
    (xxh3_64(kinesis_partition_key.as_bytes()) % u64::from(partition_count.max(1))) as u32
}

/// True for a name that may be used as a pipeline's: `[A-Za-z0-9._-]{1,64}`.
#[must_use]
pub fn is_pipeline_name(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=limits::MAX_PIPELINE_BYTES).contains(&name.len()) && name.bytes().all(known)
}

/// Partition key of a chain of items, or of the first of its write shards:
/// `<pipeline>/<group>#<topic partition>`.
#[must_use]
pub fn chain_pk(pipeline: &str, group: &str, partition: u32) -> String {
    shard_pk(pipeline, group, partition, 0)
}

/// Partition key of a write shard of a chain: the chain's own for shard 0, with `.<write shard>` behind
/// it for the others.
#[must_use]
pub fn shard_pk(pipeline: &str, group: &str, partition: u32, write_shard: u32) -> String {
    format!("{pipeline}/{}", directory_sk(group, partition, write_shard))
}

/// What a partition key of items says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainKey<'a> {
    /// Pipeline name.
    pub pipeline: &'a str,
    /// Group.
    pub group: &'a str,
    /// Topic partition.
    pub partition: u32,
    /// Write shard of the chain.
    pub write_shard: u32,
}

/// Reads the partition key of items; `None` for anything else.
#[must_use]
pub fn parse_chain_pk(pk: &str) -> Option<ChainKey<'_>> {
    let (pipeline, rest) = pk.split_once('/')?;
    let (group, partition, write_shard) = parse_directory_sk(rest)?;
    let known = is_pipeline_name(pipeline) && !group.is_empty();
    known.then_some(ChainKey {
        pipeline,
        group,
        partition,
        write_shard,
    })
}

/// Partition key of the directory bucket that lists a group's chains.
#[must_use]
pub fn directory_pk(pipeline: &str, group: &str) -> String {
    directory_bucket_pk(pipeline, xxh3_64(group.as_bytes()) % DIRECTORY_BUCKETS)
}

/// Partition key of one directory bucket, `bucket` below [`DIRECTORY_BUCKETS`].
#[must_use]
pub fn directory_bucket_pk(pipeline: &str, bucket: u64) -> String {
    format!("millpond:groups/{pipeline}/{bucket:02x}")
}

/// Sort key of the directory row of a chain's write shard: `<group>#<topic partition>`, and `.<write shard>`
/// behind it for all but the first.
#[must_use]
pub fn directory_sk(group: &str, partition: u32, write_shard: u32) -> String {
    match write_shard {
        0 => format!("{group}#{partition}"),
        shard => format!("{group}#{partition}.{shard}"),
    }
}

/// Group, topic partition and write shard of a directory row's sort key.
#[must_use]
pub fn parse_directory_sk(sk: &str) -> Option<(&str, u32, u32)> {
    let (group, place) = sk.rsplit_once('#')?;
    let (partition, write_shard) = match place.split_once('.') {
        None => (place, 0),
        Some((partition, shard)) => (partition, canonical(shard).filter(|shard| *shard > 0)?),
    };
    Some((group, canonical(partition)?, write_shard))
}

/// A decimal as it is written: without sign and leading zeros.
fn canonical(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Partition key of the ledger of one pipeline on one topic.
#[must_use]
pub fn ledger_pk(pipeline: &str, topic: &str) -> String {
    format!("millpond:ledger/{pipeline}/{topic}")
}

/// Partition key of the gaps of one pipeline on one topic.
#[must_use]
pub fn gaps_pk(pipeline: &str, topic: &str) -> String {
    format!("millpond:gaps/{pipeline}/{topic}")
}

/// Sort key of a gap: topic partition, first offset of the plan that passed over it, index.
#[must_use]
pub fn gap_sk(partition: u32, from: u64, index: usize) -> String {
    format!("{partition:05}/{from:019}/{index:05}")
}

/// Topic partition of a gap's sort key.
#[must_use]
pub fn parse_gap_sk(sk: &str) -> Option<u32> {
    sk.split_once('/')?.0.parse().ok()
}

/// Partition key of the configurations that a pipeline was run with; the sort key is the
/// fingerprint.
#[must_use]
pub fn configurations_pk(pipeline: &str) -> String {
    format!("millpond:configurations/{pipeline}")
}

/// Partition key of the snapshots of marks of one pipeline on one topic.
#[must_use]
pub fn marks_pk(pipeline: &str, topic: &str) -> String {
    format!("millpond:marks/{pipeline}/{topic}")
}

/// Sort key of a row of a snapshot: topic partition, fencing epoch and place of its writer, index.
#[must_use]
pub fn marks_sk(partition: u32, epoch: u64, place: u8, row: usize) -> String {
    format!("{partition:05}/{epoch:019}/{place}/{row:03}")
}

/// Partition key of a pipeline's dead letters.
#[must_use]
pub fn dead_letters_pk(pipeline: &str) -> String {
    format!("millpond:dead-letters/{pipeline}")
}

/// Sort key of a topic partition's ledger row.
#[must_use]
pub fn ledger_sk(partition: u32) -> String {
    format!("{partition:05}")
}

/// Sort key of an item: sort time, first topic offset, index of its first envelope
/// within the stored batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SortKey {
    /// Latest event time of the chain up to and including this item, in milliseconds.
    pub sort_time_ms: i64,
    /// First topic offset of the item.
    pub base_offset: u64,
    /// Index of the item's first envelope among those of its stored batch.
    pub envelope_index: u32,
}

impl SortKey {
    /// Text whose byte order is the order of the keys.
    #[must_use]
    pub fn to_text(self) -> String {
        format!(
            "{}/{:019}/{:05}",
            time_text(self.sort_time_ms),
            self.base_offset,
            self.envelope_index
        )
    }

    /// Reads a sort key; `None` for anything that Millpond did not write.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (time, rest) = text.split_at_checked(TIME_BYTES)?;
        let (offset, index) = rest.strip_prefix('/')?.split_once('/')?;
        let key = Self {
            sort_time_ms: parse_time(time)?,
            base_offset: offset.parse().ok()?,
            envelope_index: index.parse().ok()?,
        };
        (key.to_text() == text).then_some(key)
    }
}

/// A time as it starts a sort key: RFC 3339, UTC, milliseconds, always 24 bytes.
///
/// Times outside 0 to [`limits::MAX_TIME_MS`] are clamped to it.
#[must_use]
pub fn time_text(time_ms: i64) -> String {
    let time = Timestamp::from_millisecond(time_ms.clamp(0, limits::MAX_TIME_MS))
        .unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{time:.3}")
}

/// Reads RFC 3339 text as milliseconds since the Unix epoch, rounded down; `None` outside
/// 0 to [`limits::MAX_TIME_MS`].
#[must_use]
pub fn parse_time(text: &str) -> Option<i64> {
    let time: Timestamp = text.parse().ok()?;
    let millis = time.as_nanosecond().div_euclid(1_000_000);
    let millis = i64::try_from(millis).ok()?;
    (0..=limits::MAX_TIME_MS)
        .contains(&millis)
        .then_some(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sort_keys_order_as_text() {
        let key = |sort_time_ms, base_offset, envelope_index| SortKey {
            sort_time_ms,
            base_offset,
            envelope_index,
        };
        let keys = [
            key(0, 0, 0),
            key(999, u64::from(u32::MAX), 99_999),
            key(1_000, 0, 1),
            key(1_763_886_000_123, 9, 10),
            key(1_763_886_000_123, 10, 2),
            key(limits::MAX_TIME_MS, i64::MAX as u64, 0),
        ];
        for pair in keys.windows(2) {
            assert!(
                pair[0].to_text() < pair[1].to_text(),
                "{} {}",
                pair[0].to_text(),
                pair[1].to_text()
            );
        }
        for key in keys {
            assert_eq!(SortKey::parse(&key.to_text()), Some(key));
        }
        assert_eq!(
            key(1_763_886_000_123, 42, 3).to_text(),
            "2025-11-23T08:20:00.123Z/0000000000000000042/00003"
        );
        assert_eq!(SortKey::parse("2025-11-23T08:20:00.123Z/42/3"), None);
    }

    #[test]
    fn chain_keys_take_any_group() {
        for group in ["job-17", "a/b#c#9", "#", "/", "ü", "g#1.2"] {
            for write_shard in [0, 1, 63] {
                let key = ChainKey {
                    pipeline: "pipe",
                    group,
                    partition: 12,
                    write_shard,
                };
                let pk = shard_pk("pipe", group, 12, write_shard);
                assert_eq!(parse_chain_pk(&pk), Some(key));
                let sk = directory_sk(group, 12, write_shard);
                assert_eq!(parse_directory_sk(&sk), Some((group, 12, write_shard)));
            }
            assert_eq!(chain_pk("p", group, 3), format!("p/{group}#3"));
        }
        for bad in [
            "millpond:ledger/p/t",
            "p/g#1.0",
            "p/g#1.02",
            "p/g#01",
            "p/g#1.2.3",
            "p/g#+1",
        ] {
            assert_eq!(parse_chain_pk(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_time_before_1970_or_of_another_form_is_refused() {
        assert_eq!(parse_time("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(
            parse_time("2025-11-23T09:20:00.1239+01:00"),
            Some(1_763_886_000_123)
        );
        for bad in ["1969-12-31T23:59:59Z", "2025-11-23", "yesterday", ""] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }
}
