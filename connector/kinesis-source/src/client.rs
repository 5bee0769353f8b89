//! The stream service as this source uses it: four calls.

use std::fmt;

use async_trait::async_trait;
use aws_smithy_types::Blob;

use crate::classify::Failure;
use crate::shard::{ShardId, ShardInfo};

/// Which stream is read, and where: said in every message about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamTarget {
    /// Stream name.
    pub stream: String,
    /// AWS region.
    pub region: String,
    /// URL spoken to, when it is not the region's own.
    pub endpoint: Option<String>,
}

impl fmt::Display for StreamTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream `{}` in region `{}`", self.stream, self.region)?;
        match &self.endpoint {
            Some(endpoint) => write!(f, " at endpoint `{endpoint}`"),
            None => Ok(()),
        }
    }
}

/// Whether the stream can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamState {
    /// It can be read.
    Readable,
    /// It is being created.
    Creating,
    /// It is being deleted.
    Deleting,
}

/// What `DescribeStreamSummary` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSummary {
    /// Whether it can be read.
    pub state: StreamState,
    /// When it was created, milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// How long it keeps records, milliseconds.
    pub retention_ms: i64,
    /// The service's own clock, milliseconds since the Unix epoch and never ahead of it;
    /// `None` when the answer did not say.
    pub server_time_ms: Option<i64>,
}

/// Which shards a listing is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardScope {
    /// Every shard that still has records.
    All,
    /// The shards that were open at this time or later, milliseconds since the Unix epoch.
    OpenSince(i64),
}

/// One page of `ListShards`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardPage {
    /// The shards.
    pub shards: Vec<ShardInfo>,
    /// Asks for the next page; `None` after the last one.
    pub next: Option<String>,
}

/// Where in a shard to read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadFrom {
    /// The oldest record kept.
    TrimHorizon,
    /// The first record that arrived at this time or later, milliseconds since the Unix epoch.
    Timestamp(i64),
    /// This record.
    At(String),
    /// The record that follows this one.
    After(String),
}

/// A position that `GetRecords` reads from; valid for five minutes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardIterator(pub String);

/// One record of a shard.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamRecord {
    /// Sequence number.
    pub sequence: String,
    /// Partition key; empty when the producer gave none.
    pub partition_key: String,
    /// Approximate arrival, milliseconds since the Unix epoch.
    pub arrival_ms: Option<i64>,
    /// The event.
    pub data: Blob,
}

/// What follows an answer of `GetRecords`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Continuation {
    /// More records may come: read on from here.
    Next(ShardIterator),
    /// The shard is closed and read to its end; these were made from it.
    End(Vec<ShardInfo>),
}

/// One answer of `GetRecords`.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadAnswer {
    /// Records, in order.
    pub records: Vec<StreamRecord>,
    /// Age of the next record at the time of the answer; 0 when the newest was read.
    pub millis_behind_latest: i64,
    /// What follows.
    pub continuation: Continuation,
}

/// The calls. Each may be dropped before it is answered: none changes anything.
///
/// None retries by itself: that happens in one place, the `retry` module.
#[async_trait]
pub trait StreamApi: Send + Sync {
    /// Which stream these calls are about.
    fn target(&self) -> &StreamTarget;

    /// `DescribeStreamSummary`.
    async fn describe(&self) -> Result<StreamSummary, Failure>;

    /// `ListShards`: the first page of a scope, or the page that `next` asks for.
    async fn list_shards(
        &self,
        scope: ShardScope,
        next: Option<String>,
    ) -> Result<ShardPage, Failure>;

    /// `GetShardIterator`.
    async fn shard_iterator(
        &self,
        shard: &ShardId,
        from: &ReadFrom,
    ) -> Result<ShardIterator, Failure>;

    /// `GetRecords`, at most `limit` records.
    async fn read(&self, iterator: &ShardIterator, limit: u32) -> Result<ReadAnswer, Failure>;
}
