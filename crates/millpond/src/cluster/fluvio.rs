//! The real cluster, through Fluvio's own client.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use ::fluvio::config::ConfigFile;
use ::fluvio::metadata::partition::PartitionSpec;
use ::fluvio::metadata::smartmodule::{SmartModuleSpec, SmartModuleWasm};
use ::fluvio::metadata::topic::{
    CleanupPolicy, CompressionAlgorithm, ReplicaSpec, SegmentBasedPolicy, TopicReplicaParam,
    TopicSpec, TopicStorageConfig,
};
use ::fluvio::{Fluvio, FluvioAdmin, FluvioClusterConfig};
use anyhow::{Context as _, Result, anyhow, bail};
use async_trait::async_trait;
use flate2::Compression as Gzip;
use millpond_connector::meta::Compression;

use super::api::{ClusterApi, Committed, PartitionFacts};
use super::pipeline::WantedTopic;
use super::plan::TopicFacts;
use crate::cli::ClusterArgs;

/// Connecting may take this long; the client itself sets no limit.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Any one request may take this long.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// Largest SmartModule that is unpacked to compare it.
const MAX_MODULE_BYTES: u64 = 64 << 20;

/// Environment by which a connector finds a cluster by its address.
pub const ENDPOINT_VARIABLE: &str = "MILLPOND_FLUVIO_ENDPOINT";

/// Environment by which a connector finds a cluster by a profile.
pub const PROFILE_VARIABLE: &str = "MILLPOND_FLUVIO_PROFILE";

/// Environment by which a connector finds the directory of its own data.
pub const DATA_DIR_VARIABLE: &str = "MILLPOND_DATA_DIR";

/// Name of a SmartModule on a cluster: lower case letters, digits and `-` are what it takes.
#[must_use]
pub fn smartmodule_name(uses: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    uses.chars().map(plain).collect()
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

/// A cluster that answers.
pub struct FluvioCluster {
    client: Fluvio,
    admin: FluvioAdmin,
}

/// Connects to the cluster that the arguments name.
///
/// # Errors
/// When no profile says where it is, or it does not answer, or speaks another version.
pub async fn connect(args: &ClusterArgs) -> Result<Box<dyn ClusterApi>> {
    let (config, place) = settings(args)?;
    let connected = tokio::time::timeout(CONNECT_LIMIT, Fluvio::connect_with_config(&config)).await;
    let client = match connected {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => {
            // The client's own words leave out where; its errors are chains of them.
            bail!(
                "cannot reach the Fluvio cluster at {place}: {error:#}; check that its SC runs there and is of \
                 a version that Fluvio's client 0.50 knows, or name another with `--cluster HOST:PORT` or `--profile`"
            );
        }
        Err(_) => bail!(
            "the Fluvio cluster at {place} does not answer within {} s; check that its SC runs there, \
             or name another with `--cluster HOST:PORT` or `--profile`",
            CONNECT_LIMIT.as_secs()
        ),
    };
    let admin = limited("connect", async { Ok(client.admin().await) }).await?;
    Ok(Box::new(FluvioCluster { client, admin }))
}

fn settings(args: &ClusterArgs) -> Result<(FluvioClusterConfig, String)> {
    if let Some(endpoint) = &args.cluster {
        return Ok((FluvioClusterConfig::new(endpoint), format!("`{endpoint}`")));
    }
    let file = ConfigFile::load(None).map_err(|error| {
        anyhow!(
            "no Fluvio configuration (`FLV_PROFILE_PATH`, else `~/.fluvio/config`): {error}; \
             name the cluster with `--cluster HOST:PORT`, or add a profile with `fluvio profile add`"
        )
    })?;
    let config = file.config();
    let (cluster, name) = match &args.profile {
        Some(name) => (config.cluster_with_profile(name), name.as_str()),
        None => (
            config.current_cluster().ok(),
            config.current_profile_name().unwrap_or("(no current one)"),
        ),
    };
    let cluster = cluster.with_context(|| {
        format!("Fluvio's configuration has no profile `{name}`; `fluvio profile list` shows those it has")
    })?;
    let place = format!("`{}` (profile `{name}`)", cluster.endpoint);
    Ok((cluster.clone(), place))
}

async fn limited<T>(what: &str, request: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(REQUEST_LIMIT, request).await {
        Ok(answer) => answer.with_context(|| format!("the cluster refused to {what}")),
        Err(_) => bail!(
            "the cluster did not {what} within {} s",
            REQUEST_LIMIT.as_secs()
        ),
    }
}

#[async_trait]
impl ClusterApi for FluvioCluster {
    async fn topic(&self, name: &str) -> Result<Option<TopicFacts>> {
        let topics = limited("list its topics", self.admin.all::<TopicSpec>()).await?;
        let found = topics.into_iter().find(|topic| topic.name == name);
        Ok(found.map(|topic| topic_facts(&topic.spec)))
    }

    async fn create_topic(&self, topic: &WantedTopic) -> Result<()> {
        let spec = topic_spec(topic)?;
        let name = topic.settings.name.clone();
        limited("create the topic", self.admin.create(name, false, spec)).await
    }

    async fn module_is(&self, name: &str, wasm: &[u8]) -> Result<Option<bool>> {
        let request = self.admin.all::<SmartModuleSpec>();
        let modules = limited("list its SmartModules", request).await?;
        let found = modules.into_iter().find(|module| module.name == name);
        Ok(found.map(|module| {
            let mut bytes = Vec::new();
            let payload = &module.spec.wasm.payload;
            let unpacked = flate2::read::GzDecoder::new(payload.as_ref())
                .take(MAX_MODULE_BYTES)
                .read_to_end(&mut bytes);
            unpacked.is_ok() && bytes == wasm
        }))
    }

    async fn upload_module(&self, name: &str, wasm: &[u8]) -> Result<()> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), Gzip::default());
        packed.write_all(wasm)?;
        let spec = SmartModuleSpec {
            wasm: SmartModuleWasm::from_compressed_gzip(packed.finish()?),
            ..SmartModuleSpec::default()
        };
        let request = self.admin.create(name.to_owned(), false, spec);
        limited("take the SmartModule", request).await
    }

    async fn partitions(&self, topic: &str) -> Result<Vec<PartitionFacts>> {
        let request = self.admin.all::<PartitionSpec>();
        let partitions = limited("list its partitions", request).await?;
        let of_topic = partitions.into_iter().filter_map(|partition| {
            let (of, id) = partition.name.rsplit_once('-')?;
            let status = &partition.status;
            (of == topic).then_some(PartitionFacts {
                id: id.parse().ok()?,
                first: Some(status.base_offset),
                // -1: the SPU has not said anything yet, as of a topic just created.
                end: status.leader.hw.max(0),
            })
        });
        Ok(of_topic.collect())
    }

    async fn committed(&self) -> Result<Vec<Committed>> {
        let request = self.client.consumer_offsets();
        let offsets = limited("list consumer offsets", request).await?;
        let known = offsets.into_iter();
        Ok(known
            .map(|offset| Committed {
                topic: offset.topic,
                partition: offset.partition,
                consumer: offset.consumer_id,
                offset: offset.offset,
            })
            .collect())
    }
}

fn topic_facts(spec: &TopicSpec) -> TopicFacts {
    let storage = spec.get_storage();
    TopicFacts {
        partitions: spec.replicas().partitions(),
        retention: spec
            .get_clean_policy()
            .map(|CleanupPolicy::Segment(policy)| {
                Duration::from_secs(policy.time_in_seconds.into())
            }),
        segment_bytes: storage.and_then(|storage| storage.segment_size.map(u64::from)),
        compression: Some(match spec.get_compression_type() {
            CompressionAlgorithm::None => Compression::None,
            CompressionAlgorithm::Gzip => Compression::Gzip,
            CompressionAlgorithm::Snappy => Compression::Snappy,
            CompressionAlgorithm::Lz4 => Compression::Lz4,
            CompressionAlgorithm::Zstd => Compression::Zstd,
            CompressionAlgorithm::Any => Compression::Any,
        }),
    }
}

fn topic_spec(topic: &WantedTopic) -> Result<TopicSpec> {
    let settings = &topic.settings;
    let partitions = settings.partitions.unwrap_or(1);
    let replicas = ReplicaSpec::Computed(TopicReplicaParam::new(partitions, 1, false));
    let mut spec = TopicSpec::from(replicas);
    if let Some(time) = settings.retention_time {
        let time_in_seconds = u32::try_from(time.as_secs()).context("the retention is too long")?;
        spec.set_cleanup_policy(CleanupPolicy::Segment(SegmentBasedPolicy {
            time_in_seconds,
        }));
    }
    if settings.segment_bytes.is_some() || settings.max_partition_bytes.is_some() {
        let segment_size = settings.segment_bytes.map(u32::try_from).transpose();
        spec.set_storage(TopicStorageConfig {
            segment_size: segment_size.context("the segment size is above 4 GiB")?,
            max_partition_size: settings.max_partition_bytes,
        });
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_connector::meta::TopicSettings;

    #[test]
    fn names_are_what_a_cluster_takes() {
        assert_eq!(
            smartmodule_name("millpond/pack@0.1.0"),
            "millpond-pack-0-1-0"
        );
    }

    #[test]
    fn a_topic_is_read_as_it_is_created() {
        let settings = TopicSettings {
            partitions: Some(4),
            retention_time: Some(Duration::from_secs(3600)),
            segment_bytes: Some(1 << 20),
            ..TopicSettings::named("events".to_owned())
        };
        let facts = topic_facts(
            &topic_spec(&WantedTopic {
                settings,
                compression: None,
            })
            .expect("a spec"),
        );
        assert_eq!(
            facts,
            TopicFacts {
                partitions: 4,
                retention: Some(Duration::from_secs(3600)),
                segment_bytes: Some(1 << 20),
                compression: Some(Compression::Any),
            }
        );
    }

    #[test]
    fn connectors_are_told_where() {
        let args = ClusterArgs {
            profile: None,
            cluster: Some("h:1".to_owned()),
        };
        let told = environment(&args, Path::new("/d"));
        assert_eq!(
            told,
            [
                (ENDPOINT_VARIABLE.to_owned(), "h:1".to_owned()),
                (DATA_DIR_VARIABLE.to_owned(), "/d/data".to_owned()),
            ]
        );
    }
}
