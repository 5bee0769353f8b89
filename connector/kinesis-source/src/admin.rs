//! What a source may change of its stream, when it is told to: retention and number of shards.

use async_trait::async_trait;

use crate::classify::Failure;
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
