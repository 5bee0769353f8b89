//! What a connector is: a source fills a topic, a sink empties one.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::topic::Topic;

/// What a running connector is given.
#[derive(Clone)]
pub struct ConnectorContext {
    /// `meta.name` of the connector.
    pub name: String,
    /// The topic it fills or empties.
    pub topic: Arc<dyn Topic>,
    /// Directory for the connector's own durable state.
    pub data_dir: PathBuf,
    /// Cancelled when the connector must drain: finish what is in flight, commit, return.
    pub drain: CancellationToken,
    /// Counters shared with whoever shows them.
    pub metrics: Arc<Metrics>,
}

/// Fills a topic from outside.
#[async_trait]
pub trait Source: Send {
    /// Runs until drained or failed. `Ok` after a drain means that all that was read is durable
    /// in the topic and checkpointed.
    async fn run(self: Box<Self>, context: ConnectorContext) -> anyhow::Result<()>;
}

/// Empties a topic to outside.
#[async_trait]
pub trait Sink: Send {
    /// Runs until drained or failed. Once `context.drain` is cancelled it still consumes
    /// up to the topic's end as of that moment. `Ok` means that all of it is committed, or left
    /// to other sinks with which it shares the topic.
    async fn run(self: Box<Self>, context: ConnectorContext) -> anyhow::Result<()>;
}
