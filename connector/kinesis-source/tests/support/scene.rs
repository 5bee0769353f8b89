//! Several sources, one stream, one topic.
#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;
use std::time::Duration;

use millpond_kinesis_local::model::{ModelConfig, ShardId};
use millpond_kinesis_source::config::SourceConfig;
use millpond_kinesis_source::memory_table::MemoryTable;
use millpond_leases::WorkerId;
use tokio::time::{Instant, sleep};

use crate::sources::{Instance, delivered, held, through_the_sink};
use crate::support::stream::ModelStream;
use crate::support::topic::MemoryTopic;
use crate::support::{check, until};

/// A stream, its table, and the topic that all of them write.
pub struct Scene {
    pub stream: Arc<ModelStream>,
    pub topic: Arc<MemoryTopic>,
    pub table: MemoryTable,
    pub config: SourceConfig,
}

fn small_batches() -> SourceConfig {
    let mut config = SourceConfig::default();
    config.batching.batch_bytes = 2_000;
    config
}

impl Scene {
    pub fn new(shards: u32, partitions: u32) -> Self {
        Self {
            stream: ModelStream::new(shards, ModelConfig::default()),
            topic: Arc::new(MemoryTopic::new(partitions)),
            table: MemoryTable::new(WorkerId::new("nobody")),
            config: small_batches(),
        }
    }

    pub fn start(&self, id: &str) -> Instance {
        Instance::start(id, &self.stream, self.config, &self.table, &self.topic)
    }

    pub fn put(&self) -> usize {
        let put = self.stream.put.lock().expect("not poisoned");
        put.values().map(Vec::len).sum()
    }

    pub async fn all_delivered(&self) {
        let deadline = Instant::now() + Duration::from_secs(300);
        while delivered(&self.topic) < self.put() {
            assert!(Instant::now() < deadline, "not everything is delivered");
            sleep(Duration::from_millis(200)).await;
        }
    }

    pub async fn holds(&self, instance: &Instance, count: usize) {
        until("the leases are shared", || {
            held(&self.table, &instance.id) == count
        })
        .await;
    }

    /// Checks everything; answers how many repetitions the topic holds.
    pub fn verify(&self) -> usize {
        let put = self.stream.put.lock().expect("not poisoned");
        let repeated = check(&self.topic, &put, &self.stream.parents());
        drop(put);
        assert_eq!(through_the_sink(&self.topic), self.put());
        repeated
    }

    /// How often a lease changed hands, all together.
    pub fn changes_of_hands(&self) -> u64 {
        let (_, leases) = self.table.snapshot();
        leases.values().map(|row| row.epoch).sum()
    }

    pub fn split(&self, shard: u32, at: u128) {
        self.stream
            .with_model(|model, now| {
                model.split_shard(now, "events", ShardId::new(shard), &at.to_string())
            })
            .expect("split");
    }
}
