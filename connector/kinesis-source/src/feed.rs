//! Where the records of one shard come from: asked for, or pushed.

use async_trait::async_trait;

use crate::client::{ReadFrom, StreamRecord};
use crate::error::SourceError;
use crate::shard::ShardInfo;

/// What came of a shard at once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FeedAnswer {
    /// Records, in order.
    pub(crate) records: Vec<StreamRecord>,
    /// The newest record was in this answer or before it, at some time after `since_ms`.
    pub(crate) caught_up: bool,
    /// Before the answer was made, milliseconds since the Unix epoch.
    pub(crate) since_ms: i64,
    /// How far behind the newest record its end is, as the service says it.
    pub(crate) millis_behind_latest: i64,
    /// The shard is closed and read to its end; these were made from it.
    pub(crate) end: Option<Vec<ShardInfo>>,
}

/// Records of one shard, from a position on: one answer at a time, so that whoever does not
/// take the next one holds the shard back (I9).
///
/// Calls may be dropped before they are answered. Waits and repetitions of failed calls happen
/// within; an error ends the source.
#[async_trait]
pub(crate) trait ShardFeed: Send {
    /// False before the first `open`, and after the position was lost: it must be opened again.
    fn is_open(&self) -> bool;

    /// Begins at a position: that of the last answer that was handed on.
    async fn open(&mut self, from: &ReadFrom) -> Result<(), SourceError>;

    /// The next answer; `None` when it must be opened again.
    async fn next(&mut self) -> Result<Option<FeedAnswer>, SourceError>;

    /// Asks the service whether this record, or one before it, can still be read now. Changes nothing about what
    /// the next answer is.
    async fn is_kept(&mut self, position: &str) -> Result<bool, SourceError>;
}
