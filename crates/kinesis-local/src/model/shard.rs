//! One shard: its place in the lineage, and its records.

use std::{collections::VecDeque, fmt, str::FromStr};

use super::{
    HashKeyRange, ModelConfig, Record, SequenceNumber,
    record::Clip,
    sequence_number::NOISE_LIMIT,
    throughput::{ReadMeter, WriteMeter},
};

/// The id of a shard, written `shardId-000000000042`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(u32);

impl ShardId {
    /// The shard with this number; shards are numbered from 0 in the order of their creation.
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// The number of the shard.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shardId-{:012}", self.0)
    }
}

/// Text that is no shard id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no shard id: expected `shardId-` and 12 digits")]
pub struct ParseShardIdError(String);

impl FromStr for ShardId {
    type Err = ParseShardIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("shardId-").filter(|digits| {
            digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_digit())
        });
        digits
            .and_then(|digits| digits.parse().ok())
            .map(Self)
            .ok_or_else(|| ParseShardIdError(Clip(text).to_string()))
    }
}

/// The shards that a shard continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parents {
    None,
    Split(ShardId),
    Merge { parent: ShardId, adjacent: ShardId },
}

impl Parents {
    pub(crate) fn ids(self) -> impl Iterator<Item = ShardId> {
        let (first, second) = match self {
            Self::None => (None, None),
            Self::Split(parent) => (Some(parent), None),
            Self::Merge { parent, adjacent } => (Some(parent), Some(adjacent)),
        };
        first.into_iter().chain(second)
    }
}

/// The first ordinal of a record; 0 stands for the start of the shard.
const FIRST_ORDINAL: u64 = 1;

#[derive(Debug, Clone)]
pub(crate) struct Shard<P> {
    pub(crate) id: ShardId,
    pub(crate) parents: Parents,
    pub(crate) children: Vec<ShardId>,
    pub(crate) range: HashKeyRange,
    /// Creation time, made larger than that of the parents: the head of every sequence number.
    pub(crate) generation: u64,
    pub(crate) closed_ms: Option<u64>,
    pub(crate) write_meter: Option<WriteMeter>,
    pub(crate) read_meter: Option<ReadMeter>,
    seed: u64,
    records: VecDeque<Record<P>>,
    /// Ordinal of the oldest record still kept, or of the next one.
    first_ordinal: u64,
}

impl<P> Shard<P> {
    pub(crate) fn new(
        id: ShardId,
        parents: Parents,
        range: HashKeyRange,
        generation: u64,
        seed: u64,
        config: &ModelConfig,
    ) -> Self {
        Self {
            id,
            parents,
            children: Vec::new(),
            range,
            generation,
            closed_ms: None,
            write_meter: config.write_limits.map(WriteMeter::new),
            read_meter: config.read_limits.map(ReadMeter::new),
            seed,
            records: VecDeque::new(),
            first_ordinal: FIRST_ORDINAL,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.closed_ms.is_none()
    }

    /// Ordinal of the next record: one past the newest.
    pub(crate) fn next_ordinal(&self) -> u64 {
        self.first_ordinal + self.records.len() as u64
    }

    pub(crate) fn starting_sequence_number(&self) -> SequenceNumber {
        SequenceNumber {
            generation: self.generation,
            shard: self.id,
            ordinal: 0,
            noise: 0,
        }
    }

    /// Where a closed shard ends, beyond its last record.
    pub(crate) fn ending_sequence_number(&self) -> Option<SequenceNumber> {
        self.closed_ms
            .map(|_| self.sequence_number(self.next_ordinal()))
    }

    /// Where a reader stands that goes on with this ordinal: what follows this number is new to it.
    pub(crate) fn sequence_number_before(&self, ordinal: u64) -> SequenceNumber {
        match ordinal.max(self.first_ordinal) - 1 {
            0 => self.starting_sequence_number(),
            ordinal => self.sequence_number(ordinal),
        }
    }

    fn sequence_number(&self, ordinal: u64) -> SequenceNumber {
        let noise = (mix(self.seed ^ mix(ordinal)) % NOISE_LIMIT) as u32;
        SequenceNumber {
            generation: self.generation,
            shard: self.id,
            ordinal,
            noise,
        }
    }

    pub(crate) fn push(&mut self, now_ms: u64, size_bytes: usize, payload: P) -> SequenceNumber {
        let sequence_number = self.sequence_number(self.next_ordinal());
        self.records.push_back(Record {
            sequence_number,
            arrival_ms: now_ms,
            size_bytes,
            payload,
        });
        sequence_number
    }

    /// Records from this ordinal on, or from the oldest kept one if that is later.
    pub(crate) fn records_from(&self, ordinal: u64) -> impl Iterator<Item = &Record<P>> {
        let skip = ordinal
            .saturating_sub(self.first_ordinal)
            .min(self.records.len() as u64);
        self.records.range(skip as usize..)
    }

    /// The ordinal to go on from after so many records from `ordinal`.
    pub(crate) fn ordinal_after(&self, ordinal: u64, records: usize) -> u64 {
        ordinal.clamp(self.first_ordinal, self.next_ordinal()) + records as u64
    }

    /// Ordinal of the first record that arrived at this time or later.
    pub(crate) fn ordinal_at_time(&self, at_ms: u64) -> u64 {
        self.first_ordinal
            + self
                .records
                .partition_point(|record| record.arrival_ms < at_ms) as u64
    }

    /// Ordinal of the first record at (or after, if not `inclusive`) this sequence
    /// number; `None` if the number is not of this shard or not yet given out.
    pub(crate) fn ordinal_at_sequence_number(
        &self,
        number: SequenceNumber,
        inclusive: bool,
    ) -> Option<u64> {
        let given_out = match self.ending_sequence_number() {
            Some(ending) => number <= ending,
            None => number.ordinal < self.next_ordinal(),
        };
        if (number.generation, number.shard) != (self.generation, self.id) || !given_out {
            return None;
        }
        if number.ordinal < FIRST_ORDINAL {
            return Some(FIRST_ORDINAL);
        }
        let actual = self.sequence_number(number.ordinal);
        let covers = if inclusive {
            actual >= number
        } else {
            actual > number
        };
        Some(if covers {
            number.ordinal
        } else {
            number.ordinal + 1
        })
    }

    /// Removes what arrived at or before this time; returns the bytes removed.
    pub(crate) fn trim(&mut self, until_ms: u64) -> u64 {
        let mut bytes = 0;
        while let Some(record) = self
            .records
            .pop_front_if(|record| record.arrival_ms <= until_ms)
        {
            self.first_ordinal += 1;
            bytes += record.size_bytes as u64;
        }
        // A trimmed backlog gives its memory back.
        if self.records.len() < self.records.capacity() / 8 {
            self.records.shrink_to(self.records.len() * 2);
        }
        bytes
    }

    pub(crate) fn oldest_arrival_ms(&self) -> Option<u64> {
        self.records.front().map(|record| record.arrival_ms)
    }
}

/// Spreads a number over all bits (the finaliser of SplitMix64).
pub(crate) const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
