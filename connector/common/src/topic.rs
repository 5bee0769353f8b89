//! The topic between source and sink: an ordered, durable, partitioned log.
//!
//! Two implementations are in view: the embedded log of `millpond run` and a
//! Fluvio cluster. The traits here are what both must give; a connector sees
//! nothing else. Offsets are absolute and never reused.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Index of one partition of a topic, from 0.
pub type PartitionId = u32;

/// Absolute position of a record in one partition, from 0.
pub type Offset = u64;

/// Records in Fluvio's raw encoding, ready to be stored as one batch.
///
/// Built by `millpond_format::record::BatchBuilder`; `raw` starts with the
/// record count as a big-endian `i32`.
#[derive(Debug, Clone)]
pub struct StoredBatch {
    /// Encoded records, count first.
    pub raw: Bytes,
    /// Number of records, at least 1.
    pub record_count: u32,
    /// Milliseconds since the Unix epoch that the record timestamps are relative to.
    pub base_timestamp_ms: i64,
}

/// One record as a consumer sees it, after the transforms.
#[derive(Debug, Clone)]
pub struct ConsumedRecord {
    /// Offset of the stored record; `None` when a transform made this record,
    /// which then says itself where it came from.
    pub offset: Option<Offset>,
    /// Record key, if any.
    pub key: Option<Bytes>,
    /// Record value.
    pub value: Bytes,
    /// Time of the stored record, milliseconds since the Unix epoch; `None` when a transform
    /// made this record.
    pub timestamp_ms: Option<i64>,
}

/// What one or more whole stored batches became.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// Stored offsets covered: first inclusive, end exclusive.
    pub offsets: Range<Offset>,
    /// Records in order; may be fewer or more than the offsets covered.
    pub records: Vec<ConsumedRecord>,
}

/// First offset still stored, and the offset that the next record will get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetBounds {
    /// First offset that can still be read.
    pub earliest: Offset,
    /// One past the last durable record.
    pub end: Offset,
}

/// One step of a consumer's transform chain, as written under `transforms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transform {
    /// SmartModule: a name (`millpond/pack@0.1.0`) or a path to a `.wasm` file.
    pub uses: String,
    /// Parameters; maps and sequences are rendered as JSON text.
    #[serde(default)]
    pub with: std::collections::BTreeMap<String, String>,
}

/// Why a topic operation failed.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// The partition does not exist.
    #[error("topic `{topic}` has no partition {partition}")]
    UnknownPartition {
        /// Topic name.
        topic: String,
        /// Partition asked for.
        partition: PartitionId,
    },
    /// The offset was removed by retention or lies past the end.
    #[error(
        "offset {offset} of topic `{topic}` partition {partition} is not stored: \
         it holds {earliest} to {end}"
    )]
    OffsetOutOfRange {
        /// Topic name.
        topic: String,
        /// Partition asked for.
        partition: PartitionId,
        /// Offset asked for.
        offset: Offset,
        /// First stored offset.
        earliest: Offset,
        /// One past the last stored offset.
        end: Offset,
    },
    /// A stored batch failed its checks.
    #[error("topic `{topic}` partition {partition}: batch at offset {offset} is damaged: {reason}")]
    Damaged {
        /// Topic name.
        topic: String,
        /// Partition.
        partition: PartitionId,
        /// First offset of the batch.
        offset: Offset,
        /// The failed check.
        reason: String,
    },
    /// A transform could not be loaded or failed on a batch.
    #[error("transform `{uses}` failed{}: {reason}", .offset.map(|o| format!(" on the batch at offset {o}")).unwrap_or_default())]
    Transform {
        /// The SmartModule as configured.
        uses: String,
        /// First offset of the batch, when one was being processed.
        offset: Option<Offset>,
        /// What the SmartModule or the engine said.
        reason: String,
    },
    /// The store failed, for example because the disk is full.
    #[error("topic `{topic}`: {context}")]
    Storage {
        /// Topic name.
        topic: String,
        /// What was being done, where, and what to do about it.
        context: String,
        /// True when waiting can help (disk full, file locked).
        retryable: bool,
    },
    /// The topic is shutting down.
    #[error("topic `{0}` is closed")]
    Closed(String),
}

/// A partitioned durable log.
#[async_trait]
pub trait Topic: Send + Sync {
    /// Topic name.
    fn name(&self) -> &str;

    /// Number of partitions; fixed while the topic is open.
    fn partition_count(&self) -> u32;

    /// What tells this log from another one of the same name that was made before or after it; `None` where
    /// nothing does.
    fn identity(&self) -> Option<&str> {
        None
    }

    /// True when other processes can consume it at the same time.
    fn is_shared(&self) -> bool {
        false
    }

    /// Opens another topic of the same place, for what is not this topic's own: dead letters.
    ///
    /// # Errors
    /// [`TopicError::Storage`] when there is none of this name, or it cannot be had here.
    async fn other(&self, name: &str) -> Result<Arc<dyn Topic>, TopicError> {
        Err(TopicError::Storage {
            topic: name.to_owned(),
            context: format!("cannot be opened beside topic `{}`", self.name()),
            retryable: false,
        })
    }

    /// Appends one batch to one partition and answers its offsets once it is durable.
    ///
    /// Waits while the topic is full (backpressure). Appends to one partition
    /// are stored in the order in which they were called.
    async fn append(
        &self,
        partition: PartitionId,
        batch: StoredBatch,
    ) -> Result<Range<Offset>, TopicError>;

    /// Opens a reader on one partition, starting at an absolute offset.
    async fn reader(
        &self,
        partition: PartitionId,
        from: Offset,
        transforms: &[Transform],
    ) -> Result<Box<dyn PartitionReader>, TopicError>;

    /// Offsets that are stored now.
    async fn bounds(&self, partition: PartitionId) -> Result<OffsetBounds, TopicError>;

    /// A consumer has everything below `offset` in safety: retention may remove it
    /// once every registered consumer has said so.
    async fn release(
        &self,
        partition: PartitionId,
        consumer: &str,
        offset: Offset,
    ) -> Result<(), TopicError>;

    /// For each partition the offset below which every consumer has everything in safety: the lowest that
    /// was said by [`Topic::release`] under any name. `None` where nobody said so yet.
    async fn released(&self) -> Result<Vec<Option<Offset>>, TopicError> {
        Ok(vec![None; self.partition_count() as usize])
    }
}

/// Reads one partition in order.
#[async_trait]
pub trait PartitionReader: Send {
    /// Next whole stored batches, transformed; waits up to `wait` for data.
    ///
    /// `None`: nothing new in that time. Cancel safe: dropping the future loses nothing.
    async fn next(&mut self, wait: Duration) -> Result<Option<Chunk>, TopicError>;
}
