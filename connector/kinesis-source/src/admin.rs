//! What a source may change of its stream, when it is told to: retention and number of shards.

use async_trait::async_trait;

use crate::classify::{Failure, Fatal, Operation, Verdict, classify};
use crate::retention_guard::GuardAction;

/// What `DescribeStreamSummary` says of a stream that is administered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamShape {
    /// How long it keeps records, hours.
    pub retention_hours: u32,
    /// Shards that take records.
    pub open_shards: u32,
    /// Its shards are for its owner to count; those of an on-demand stream are not.
    pub is_provisioned: bool,
    /// No change is under way.
    pub is_active: bool,
}

/// The calls that change a stream. None is repeated at once: the next look at the stream tells what became of it.
#[async_trait]
pub trait StreamAdmin: Send + Sync {
    /// `DescribeStreamSummary`.
    async fn shape(&self) -> Result<StreamShape, Failure>;

    /// `IncreaseStreamRetentionPeriod` or `DecreaseStreamRetentionPeriod`.
    async fn change_retention(&self, action: GuardAction) -> Result<(), Failure>;

    /// `UpdateShardCount`, uniform scaling.
    async fn change_shard_count(&self, count: u32) -> Result<(), Failure>;
}

/// True for a refusal of `UpdateShardCount` that will be the same a minute later: the calls of the day are used up
/// (`LimitExceededException`, Kinesis API reference, `UpdateShardCount`, read 2026-11-26), or it is not allowed. After
/// a call that was throttled, came while the stream changed, or got no answer, the next look at the stream decides.
#[must_use]
pub fn is_refused_for_long(failure: &Failure) -> bool {
    let is_used_up = failure.code.as_deref() == Some("LimitExceededException");
    let verdict = classify(Operation::Describe, failure);
    is_used_up || matches!(verdict, Verdict::Fatal(why) if why != Fatal::Credentials)
}
