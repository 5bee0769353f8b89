//! A topic as one sink sees it: whatever the sink calls itself, it releases under its own
//! `meta.name`, which the topic knew before the first record was stored.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use millpond_connector::topic::{
    Offset, OffsetBounds, PartitionId, PartitionReader, StoredBatch, Topic, TopicError, Transform,
};

/// A topic on behalf of one consumer.
pub struct ConsumerTopic {
    /// The topic.
    pub topic: Arc<dyn Topic>,
    /// Name that the consumer is registered under.
    pub consumer: String,
}

#[async_trait]
impl Topic for ConsumerTopic {
    fn name(&self) -> &str {
        self.topic.name()
    }

    fn partition_count(&self) -> u32 {
        self.topic.partition_count()
    }

    async fn append(
        &self,
        partition: PartitionId,
        batch: StoredBatch,
    ) -> Result<Range<Offset>, TopicError> {
        self.topic.append(partition, batch).await
    }

    async fn reader(
        &self,
        partition: PartitionId,
        from: Offset,
        transforms: &[Transform],
    ) -> Result<Box<dyn PartitionReader>, TopicError> {
        self.topic.reader(partition, from, transforms).await
    }

    async fn bounds(&self, partition: PartitionId) -> Result<OffsetBounds, TopicError> {
        self.topic.bounds(partition).await
    }

    async fn release(
        &self,
        partition: PartitionId,
        _consumer: &str,
        offset: Offset,
    ) -> Result<(), TopicError> {
        self.topic.release(partition, &self.consumer, offset).await
    }
}
