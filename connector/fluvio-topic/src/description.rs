//! What a cluster says of what it holds.

use std::time::Duration;

use millpond_connector::meta::Compression;
use millpond_connector::topic::{Offset, PartitionId};

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Number of partitions.
    pub partitions: u32,
    /// Copies of each partition; `None` for one whose copies were placed by hand.
    pub replication: Option<u32>,
    /// Age at which segments are removed.
    pub retention: Duration,
    /// Size of a segment in bytes, where the topic says it.
    pub segment_bytes: Option<u64>,
    /// Largest size of a partition in bytes, where the topic says it.
    pub max_partition_bytes: Option<u64>,
    /// The compression that producers must use; `None`: any.
    pub compression: Option<Compression>,
}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionDescription {
    /// Index from 0.
    pub id: PartitionId,
    /// Id of the SPU that leads it.
    pub leader: i32,
    /// First offset that can be read.
    pub base_offset: Offset,
    /// One past the last committed offset.
    pub high_watermark: Offset,
    /// One past the last offset stored by the leader.
    pub log_end: Offset,
    /// True when the leader serves it.
    pub online: bool,
}

/// A SmartModule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmartModuleDescription {
    /// Name it is kept under.
    pub name: String,
    /// SHA-256 of its WebAssembly in hex, as [`crate::digest`] gives it.
    pub digest: String,
}

/// How far a consumer says it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerOffset {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: PartitionId,
    /// Name of the consumer, `meta.name` of the sink.
    pub consumer: String,
    /// The offset that it will read next.
    pub offset: Offset,
}
