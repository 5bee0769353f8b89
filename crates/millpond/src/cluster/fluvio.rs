//! The real cluster.

use std::path::Path;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use millpond_fluvio_topic::{Cluster, ClusterSettings, TopicDescription, digest};

pub use millpond_fluvio_topic::{segment_bytes, smartmodule_name};

use super::api::{ClusterApi, Committed, PartitionFacts};
use super::pipeline::WantedTopic;
use super::plan::TopicFacts;
use crate::cli::ClusterArgs;

/// Environment by which a connector finds a cluster by its address.
pub const ENDPOINT_VARIABLE: &str = "MILLPOND_FLUVIO_ENDPOINT";

/// Environment by which a connector finds a cluster by a profile.
pub const PROFILE_VARIABLE: &str = "MILLPOND_FLUVIO_PROFILE";

/// Environment by which a connector finds the directory of its own data.
pub const DATA_DIR_VARIABLE: &str = "MILLPOND_DATA_DIR";

/// Environment that says where a connector's metrics socket is.
pub const METRICS_VARIABLE: &str = "FLUVIO_METRIC_CONNECTOR";

/// Longest path of a Unix socket (`sockaddr_un` of Linux: 108 with its end).
const MAX_SOCKET_PATH: usize = 107;

/// What one connector is told beside that: a metrics socket of its own, for the contract's default is
/// one for all. Where the path would be too long the connector finds a place itself.
#[must_use]
pub fn own_environment(dir: &Path, connector: &str) -> Option<(String, String)> {
    let path = dir.join(format!("{connector}.sock")).display().to_string();
    (path.len() <= MAX_SOCKET_PATH).then(|| (METRICS_VARIABLE.to_owned(), path))
}

/// Environment by which connectors find the same cluster as this command, and their data.
#[must_use]
pub fn environment(args: &ClusterArgs, dir: &Path) -> Vec<(String, String)> {
    let named = [
        (ENDPOINT_VARIABLE, args.cluster.clone()),
        (PROFILE_VARIABLE, args.profile.clone()),
        (
            DATA_DIR_VARIABLE,
            Some(dir.join("data").display().to_string()),
        ),
    ];
    let set = named.into_iter();
    set.filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

/// Connects to the cluster that the arguments name.
///
/// # Errors
/// When no profile says where it is, or it does not answer, or speaks another version.
pub async fn connect(args: &ClusterArgs) -> Result<Box<dyn ClusterApi>> {
    Ok(Box::new(FluvioCluster(connect_cluster(args).await?)))
}

/// The same, for its topics.
///
/// # Errors
/// As [`connect`].
pub async fn connect_cluster(args: &ClusterArgs) -> Result<Cluster> {
    let settings = ClusterSettings {
        profile: args.profile.clone(),
        endpoint: args.cluster.clone(),
    };
    Cluster::connect(&settings).await.with_context(|| {
        let place = match (&args.cluster, &args.profile) {
            (Some(endpoint), _) => format!("at `{endpoint}`"),
            (None, Some(profile)) => format!("of profile `{profile}`"),
            (None, None) => "of Fluvio's current profile".to_owned(),
        };
        format!("cannot use the cluster {place}; start it, or name another with `--cluster HOST:PORT` or `--profile`")
    })
}

struct FluvioCluster(Cluster);

#[async_trait]
impl ClusterApi for FluvioCluster {
    async fn topic(&self, name: &str) -> Result<Option<TopicFacts>> {
        Ok(self.0.topic_description(name).await?.map(topic_facts))
    }

    async fn create_topic(&self, topic: &WantedTopic) -> Result<()> {
        Ok(self.0.create_topic(&topic.settings).await?)
    }

    async fn module_is(&self, name: &str, wasm: &[u8]) -> Result<Option<bool>> {
        let found = self.0.smartmodule(name).await?;
        Ok(found.map(|module| module.digest == digest(wasm)))
    }

    async fn upload_module(&self, name: &str, wasm: &[u8]) -> Result<()> {
        Ok(self.0.upload_smartmodule(name, wasm).await?)
    }

    async fn partitions(&self, topic: &str) -> Result<Vec<PartitionFacts>> {
        let partitions = self.0.partitions(topic).await?.into_iter();
        Ok(partitions
            .map(|partition| PartitionFacts {
                id: partition.id,
                first: Some(partition.base_offset),
                end: partition.high_watermark,
            })
            .collect())
    }

    async fn committed(&self) -> Result<Vec<Committed>> {
        let offsets = self.0.consumer_offsets().await?.into_iter();
        Ok(offsets
            .map(|offset| Committed {
                topic: offset.topic,
                partition: offset.partition,
                consumer: offset.consumer,
                offset: offset.offset,
            })
            .collect())
    }
}

fn topic_facts(topic: TopicDescription) -> TopicFacts {
    TopicFacts {
        partitions: topic.partitions,
        replication: topic.replication,
        retention: Some(topic.retention),
        segment_bytes: topic.segment_bytes,
        compression: topic.compression,
    }
}
