//! What one source needs: a stream on the clock of the timers, a topic, a store.

use std::sync::Arc;

use millpond_kinesis_local::model::ModelConfig;
use millpond_kinesis_source::KinesisSource;
use millpond_kinesis_source::checkpoint::CheckpointStore;
use millpond_kinesis_source::checkpoint_memory::MemoryCheckpoints;
use millpond_kinesis_source::config::SourceConfig;

use super::check;
use super::stream::ModelStream;
use super::topic::MemoryTopic;

pub struct World {
    pub stream: Arc<ModelStream>,
    pub topic: Arc<MemoryTopic>,
    pub store: Arc<dyn CheckpointStore>,
}

impl World {
    pub fn new(shards: u32, topic_partitions: u32) -> Self {
        Self {
            stream: ModelStream::new(shards, ModelConfig::default()),
            topic: Arc::new(MemoryTopic::new(topic_partitions)),
            store: Arc::new(MemoryCheckpoints::default()),
        }
    }

    /// A source that is still to be run.
    pub fn source(&self, config: SourceConfig) -> KinesisSource {
        let source = KinesisSource::new(self.stream.clone(), config, self.store.clone());
        source.with_clock(self.stream.clock())
    }

    /// See [`check`].
    pub fn verify(&self) -> usize {
        let put = self.stream.put.lock().expect("not poisoned");
        check(&self.topic, &put, &self.stream.parents())
    }
}
