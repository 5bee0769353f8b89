//! What a model is told once, at its creation.

use super::limits::{
    SHARD_READ_BYTES_PER_SECOND, SHARD_READ_CALLS_PER_SECOND, SHARD_WRITE_BYTES_PER_SECOND,
    SHARD_WRITE_RECORDS_PER_SECOND,
};

/// Settings of a [`Kinesis`](super::Kinesis) model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelConfig {
    /// Region named in ARNs. Default `us-east-1`.
    pub region: String,
    /// Account named in ARNs and messages. Default `000000000000`.
    pub account_id: String,
    /// How long a created, changed or deleted stream stays `CREATING`, `UPDATING`
    /// or `DELETING`, in milliseconds. Default 0: at once.
    pub transition_ms: u64,
    /// Per-shard write limits. Default none.
    pub write_limits: Option<WriteLimits>,
    /// Per-shard read limits. Default none.
    pub read_limits: Option<ReadLimits>,
    /// Bytes of data and partition keys that one stream may hold. A put that would
    /// pass it is refused whole with `LimitExceededException`. Default none.
    pub max_retained_bytes_per_stream: Option<u64>,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            region: "us-east-1".to_owned(),
            account_id: "000000000000".to_owned(),
            transition_ms: 0,
            write_limits: None,
            read_limits: None,
            max_retained_bytes_per_stream: None,
        }
    }
}

/// What one shard takes in; the default is what AWS grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteLimits {
    /// Bytes of data and partition keys in any second.
    pub bytes_per_second: u64,
    /// Records in any second.
    pub records_per_second: u64,
}

impl Default for WriteLimits {
    fn default() -> Self {
        Self {
            bytes_per_second: SHARD_WRITE_BYTES_PER_SECOND,
            records_per_second: SHARD_WRITE_RECORDS_PER_SECOND,
        }
    }
}

/// What one shard gives out; the default is what AWS grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimits {
    /// Bytes of data and partition keys in any second. One answer to an idle shard
    /// may hold more, up to 10 MiB, and then blocks the shard for as long as those bytes take.
    pub bytes_per_second: u64,
    /// `GetRecords` calls in any second.
    pub calls_per_second: u64,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self {
            bytes_per_second: SHARD_READ_BYTES_PER_SECOND,
            calls_per_second: SHARD_READ_CALLS_PER_SECOND,
        }
    }
}
