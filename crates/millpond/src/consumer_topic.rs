//! A topic as one sink sees it: whatever the sink calls itself, it releases under its own
//! `meta.name`, which the topic knew before the first record was stored.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// Partitions that it has opened a reader on.
    pub opened: OpenedPartitions,
    /// Topics for dead letters.
    pub others: Vec<Arc<dyn Topic>>,
}

/// Partitions of a topic that a consumer has opened a reader on, transforms included.
#[derive(Debug, Clone, Default)]
pub struct OpenedPartitions(Arc<Mutex<BTreeSet<PartitionId>>>);

impl OpenedPartitions {
    /// True when each partition of these was opened at least once.
    #[must_use]
    pub fn has_all(&self, mut partitions: impl Iterator<Item = PartitionId>) -> bool {
        let opened = self.lock();
        partitions.all(|partition| opened.contains(&partition))
    }

    fn add(&self, partition: PartitionId) {
        self.lock().insert(partition);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<PartitionId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Topic for ConsumerTopic {
    fn name(&self) -> &str {
        self.topic.name()
    }

    fn partition_count(&self) -> u32 {
        self.topic.partition_count()
    }

    fn identity(&self) -> Option<&str> {
        self.topic.identity()
    }

    fn is_shared(&self) -> bool {
        self.topic.is_shared()
    }

    async fn other(&self, name: &str) -> Result<Arc<dyn Topic>, TopicError> {
        let mut others = self.others.iter();
        let found = others.find(|topic| topic.name() == name).cloned();
        found.ok_or_else(|| TopicError::Storage {
            topic: name.to_owned(),
            context: "is no topic for dead letters of this file".to_owned(),
            retryable: false,
        })
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
        let reader = self.topic.reader(partition, from, transforms).await?;
        self.opened.add(partition);
        Ok(reader)
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

    async fn released(&self) -> Result<Vec<Option<Offset>>, TopicError> {
        self.topic.released().await
    }
}

#[cfg(test)]
mod tests {
    use millpond_embedded_topic::{EmbeddedTopic, TopicConfig};

    use super::*;
    use crate::connectors::smart_modules;

    #[tokio::test]
    async fn a_partition_counts_as_opened_once_its_transforms_are_good() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = TopicConfig::new(dir.path(), "events", 2);
        config.modules = smart_modules();
        let opened = OpenedPartitions::default();
        let topic = ConsumerTopic {
            topic: Arc::new(EmbeddedTopic::open(config).expect("opens")),
            consumer: "sink".into(),
            opened: opened.clone(),
            others: Vec::new(),
        };
        let unknown = Transform {
            uses: "millpond/none@0.1.0".into(),
            with: std::collections::BTreeMap::new(),
        };
        assert!(topic.reader(0, 0, &[unknown]).await.is_err());
        assert!(!opened.has_all([0].into_iter()));
        topic.reader(0, 0, &[]).await.expect("opens");
        assert!(opened.has_all([0].into_iter()));
        assert!(!opened.has_all([0, 1].into_iter()));
        topic.reader(1, 0, &[]).await.expect("opens");
        assert!(opened.has_all([0, 1].into_iter()));
    }
}
