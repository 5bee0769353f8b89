//! A topic that takes batches and forgets them.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use millpond_connector::topic::{
    Offset, OffsetBounds, PartitionId, PartitionReader, StoredBatch, Topic, TopicError, Transform,
};

/// Takes everything and keeps nothing but how much it was.
#[derive(Default)]
pub struct Discard([AtomicU64; 4]);

#[async_trait]
impl Topic for Discard {
    fn name(&self) -> &str {
        "events"
    }

    fn partition_count(&self) -> u32 {
        4
    }

    async fn append(
        &self,
        partition: PartitionId,
        batch: StoredBatch,
    ) -> Result<Range<Offset>, TopicError> {
        let count = u64::from(batch.record_count);
        let base = self.0[partition as usize].fetch_add(count, Ordering::Relaxed);
        Ok(base..base + count)
    }

    async fn reader(
        &self,
        partition: PartitionId,
        _: Offset,
        _: &[Transform],
    ) -> Result<Box<dyn PartitionReader>, TopicError> {
        Err(TopicError::UnknownPartition {
            topic: "events".to_owned(),
            partition,
        })
    }

    async fn bounds(&self, _: PartitionId) -> Result<OffsetBounds, TopicError> {
        Ok(OffsetBounds {
            earliest: 0,
            end: 0,
        })
    }

    async fn release(&self, _: PartitionId, _: &str, _: Offset) -> Result<(), TopicError> {
        Ok(())
    }
}
