//! Topics as the SC keeps them: what they are, making and deleting them.

use std::time::Duration;

use fluvio_controlplane_metadata::topic::{
    CleanupPolicy, CompressionAlgorithm, ReplicaSpec, SegmentBasedPolicy, TopicSpec,
    TopicStorageConfig,
};
use fluvio_sc_schema::objects::DeleteRequest;
use millpond_connector::meta::{Compression, DEFAULT_PARTITIONS, TopicSettings};

use crate::cluster::Cluster;
use crate::description::TopicDescription;
use crate::error::ClusterError;
use crate::limits::SEGMENT;

impl Cluster {
    /// A topic, if it is there.
    ///
    /// # Errors
    /// When the SC cannot be reached or refuses.
    pub async fn topic_description(
        &self,
        name: &str,
    ) -> Result<Option<TopicDescription>, ClusterError> {
        let found = self.list::<TopicSpec>(name, true).await?;
        let Some(topic) = found.into_iter().find(|topic| topic.name == name) else {
            return Ok(None);
        };
        let storage = topic.spec.get_storage();
        Ok(Some(TopicDescription {
            name: topic.name,
            partitions: topic.spec.partitions(),
            replication: topic.spec.replication_factor(),
            retention: Duration::from_secs(topic.spec.retention_secs().into()),
            segment_bytes: storage.and_then(|s| s.segment_size).map(u64::from),
            max_partition_bytes: storage.and_then(|s| s.max_partition_size),
            compression: from_algorithm(topic.spec.get_compression_type()),
        }))
    }

    /// Creates a topic; what the settings leave open is Fluvio's default, but for the number of
    /// partitions, which is [`DEFAULT_PARTITIONS`], and the size of a segment, which is
    /// 128 MiB.
    ///
    /// # Errors
    /// When it exists, when a setting is refused, when it says what Millpond makes no topic with, or
    /// when the SC cannot be reached.
    pub async fn create_topic(&self, settings: &TopicSettings) -> Result<(), ClusterError> {
        let what = format!("create topic `{}`", settings.name);
        if let Some(setting) = settings.not_made.first() {
            return Err(ClusterError::Refused {
                what,
                reason: format!("Millpond makes no topic with `{setting}`"),
            });
        }
        // An SC asked for more waits for SPUs, and gives no answer meanwhile.
        let spus = self.spus().await?.len();
        let copies = settings.replication.unwrap_or(1);
        if copies as usize > spus {
            return Err(ClusterError::Refused {
                what,
                reason: format!("it is to have {copies} copies, and SPUs there are {spus}"),
            });
        }
        let replicas = ReplicaSpec::new_computed(
            settings.partitions.unwrap_or(DEFAULT_PARTITIONS),
            copies,
            settings.ignore_rack_assignment,
        );
        let mut spec = TopicSpec::from(replicas);
        if let Some(age) = settings.retention_time {
            spec.set_cleanup_policy(CleanupPolicy::Segment(SegmentBasedPolicy {
                time_in_seconds: u32::try_from(age.as_secs()).unwrap_or(u32::MAX),
            }));
        }
        let segment_size = u32::try_from(segment_bytes(settings));
        spec.set_storage(TopicStorageConfig {
            segment_size: Some(segment_size.map_err(|_| ClusterError::Refused {
                what: what.clone(),
                reason: format!("a segment holds at most {} bytes", u32::MAX),
            })?),
            max_partition_size: settings.max_partition_bytes,
        });
        spec.set_compression_type(to_algorithm(settings.compression));
        self.create(&settings.name, spec, what).await
    }

    /// Deletes a topic with all that it holds.
    ///
    /// # Errors
    /// When it is not there or the SC cannot be reached.
    pub async fn delete_topic(&self, name: &str) -> Result<(), ClusterError> {
        let request = DeleteRequest::<TopicSpec>::new(name.to_owned());
        self.delete(request, format!("delete topic `{name}`")).await
    }
}

/// Size of the segments of a topic that is made with these settings.
#[must_use]
pub fn segment_bytes(settings: &TopicSettings) -> u64 {
    // A segment larger than its partition is refused.
    let largest = settings.max_partition_bytes.unwrap_or(u64::MAX);
    settings.segment_bytes.unwrap_or(SEGMENT.min(largest))
}

fn to_algorithm(compression: Option<Compression>) -> CompressionAlgorithm {
    match compression {
        None | Some(Compression::Any) => CompressionAlgorithm::Any,
        Some(Compression::None) => CompressionAlgorithm::None,
        Some(Compression::Gzip) => CompressionAlgorithm::Gzip,
        Some(Compression::Snappy) => CompressionAlgorithm::Snappy,
        Some(Compression::Lz4) => CompressionAlgorithm::Lz4,
        Some(Compression::Zstd) => CompressionAlgorithm::Zstd,
    }
}

fn from_algorithm(algorithm: &CompressionAlgorithm) -> Option<Compression> {
    Some(match algorithm {
        CompressionAlgorithm::None => Compression::None,
        CompressionAlgorithm::Gzip => Compression::Gzip,
        CompressionAlgorithm::Snappy => Compression::Snappy,
        CompressionAlgorithm::Lz4 => Compression::Lz4,
        CompressionAlgorithm::Zstd => Compression::Zstd,
        CompressionAlgorithm::Any => return None,
    })
}
