//! The cluster as `deploy` and `status` use it.

use anyhow::Result;
use async_trait::async_trait;
use serde::Serialize;

use super::pipeline::WantedTopic;
use super::plan::TopicFacts;

/// A Fluvio cluster. The real one: [`super::fluvio::connect`].
#[async_trait]
pub trait ClusterApi: Send + Sync {
    /// A topic, if it exists.
    ///
    /// # Errors
    /// When the cluster does not answer.
    async fn topic(&self, name: &str) -> Result<Option<TopicFacts>>;

    /// Creates a topic.
    ///
    /// # Errors
    /// When the cluster refuses.
    async fn create_topic(&self, topic: &WantedTopic) -> Result<()>;

    /// Whether a SmartModule of this name holds just these bytes; `None` without one.
    ///
    /// # Errors
    /// When the cluster does not answer.
    async fn module_is(&self, name: &str, wasm: &[u8]) -> Result<Option<bool>>;

    /// Creates or replaces a SmartModule.
    ///
    /// # Errors
    /// When the cluster refuses.
    async fn upload_module(&self, name: &str, wasm: &[u8]) -> Result<()>;

    /// Partitions of a topic.
    ///
    /// # Errors
    /// When the cluster does not answer.
    async fn partitions(&self, topic: &str) -> Result<Vec<PartitionFacts>>;

    /// What consumers have committed, all topics.
    ///
    /// # Errors
    /// When the cluster does not answer.
    async fn committed(&self) -> Result<Vec<Committed>>;
}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionFacts {
    /// Its number.
    pub id: u32,
    /// First offset that is stored.
    pub first: Option<u64>,
    /// One past the last offset that consumers may read.
    pub end: u64,
}

/// How far a consumer has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// Consumer.
    pub consumer: String,
    /// Next offset that it needs.
    pub offset: u64,
}
