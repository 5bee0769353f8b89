//! Finding the cluster and the topic.
//!
//! `cdk` starts a process and does not look after it, Kubernetes does. So a cluster that is away is
//! tried again with backoff for a limited time, which outlasts its restart, and then the process
//! ends with what was wrong: under Kubernetes it is started again, under `cdk` its log says why.
//! What waiting cannot mend ends it at once.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use millpond_connector::backoff::{Backoff, BackoffPolicy};
use millpond_connector::document::ConnectorDocument;
use millpond_fluvio_topic::{Cluster, ClusterError, ClusterSettings, FluvioTopic, TopicOptions};
use tokio::time::sleep;

use crate::environment::Environment;

const BACKOFF: BackoffPolicy =
    BackoffPolicy::endless(Duration::from_millis(100), Duration::from_secs(5));

/// Opens the document's topic, waiting for the cluster up to the environment's limit.
pub(crate) async fn open_topic(
    document: &ConnectorDocument,
    environment: &Environment,
) -> Result<FluvioTopic> {
    let settings = environment.cluster();
    let limit = environment.connect_limit()?;
    let begun = Instant::now();
    let mut backoff = Backoff::new(BACKOFF);
    loop {
        let error = match attempt(&settings, document).await {
            Ok(topic) => return Ok(topic),
            Err(error) => error,
        };
        let wait = backoff.next_wait(rand::random()).unwrap_or_default();
        if !error.is_transient() {
            return Err(error.into());
        }
        if begun.elapsed() + wait >= limit {
            return Err(error).with_context(|| {
                format!(
                    "gave up after {:.1} s and {} tries",
                    begun.elapsed().as_secs_f64(),
                    backoff.attempts()
                )
            });
        }
        // The first, then ever rarer: a cluster that is away for a minute fills no log.
        if backoff.attempts().is_power_of_two() {
            tracing::warn!(%error, tries = backoff.attempts(), "the cluster is not there yet");
        }
        sleep(wait).await;
    }
}

async fn attempt(
    settings: &ClusterSettings,
    document: &ConnectorDocument,
) -> Result<FluvioTopic, ClusterError> {
    let cluster = Cluster::connect(settings).await?;
    let topic = &document.meta.topic.name;
    let opened = cluster.open_topic(topic, options(document)).await?;
    tracing::info!(cluster = cluster.endpoint(), topic, "connected");
    Ok(opened)
}

fn options(document: &ConnectorDocument) -> TopicOptions {
    let meta = &document.meta;
    let mut options = TopicOptions {
        compression: meta.producer.compression,
        ..TopicOptions::default()
    };
    if let Some(bytes) = meta.consumer.max_bytes {
        options.max_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    }
    options
}
