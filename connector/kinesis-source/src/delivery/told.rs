//! What a delivery is told, and what it tells.

use std::time::Duration;

use millpond_format::sequence::Position;

use crate::aggregate::BrokenAggregate;
use crate::checkpoint::ChainState;
use crate::opening::NotOpened;
use crate::shard::ShardId;

/// How batches are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// A batch is sealed before it would exceed this many bytes; a larger event has its own.
    pub batch_bytes: usize,
    /// A batch is sealed when its first event has waited this long.
    pub linger: Duration,
    /// Above this many bytes in open and sealed batches nothing more should be taken in.
    pub max_buffered_bytes: usize,
}

/// A record that cannot be given an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "shard `{shard}` answered a record with the sequence number `{sequence}`, which is no decimal number"
)]
pub struct BadSequence {
    /// The shard.
    pub shard: ShardId,
    /// What stood in place of a sequence number.
    pub sequence: String,
}

/// What was made of an answer's records.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Events taken in.
    pub events: u64,
    /// Bytes of those events.
    pub bytes: u64,
    /// Events of aggregated records that belong to another shard, which were dropped.
    pub stray: u64,
    /// Records that begin like aggregated ones and are none, taken in as dead letters: sequence
    /// number and why.
    pub broken: Vec<(String, BrokenAggregate)>,
    /// The same for payloads that cannot be opened.
    pub unopened: Vec<(String, NotOpened)>,
}

/// What an answer says beyond its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerEnd {
    /// Every record not yet read arrived at this time or later (milliseconds since the Unix epoch).
    pub unread_since_ms: Option<i64>,
    /// What was in the shard when the source started was read.
    pub caught_up: bool,
    /// The shard has no more records, ever.
    pub closed: bool,
}

/// What of a shard is durable in the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Durable {
    /// Last durable event with everything before it; `None` while that is none.
    pub position: Option<Position>,
    /// The numbering at that position.
    pub chain: ChainState,
    /// See [`AnswerEnd::unread_since_ms`].
    pub unread_since_ms: Option<i64>,
    /// What was in the shard when the source started was read, and all of that is durable.
    pub caught_up: bool,
    /// The shard is delivered to its end.
    pub finished: bool,
}
