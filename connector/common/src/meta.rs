//! `meta` of a connector document, and `transforms`: what every connector shares.

use std::time::Duration;

/// Default of `meta.producer.linger`.
pub const DEFAULT_LINGER: Duration = Duration::from_millis(250);

/// Default of `meta.producer.batch-size`, bytes.
pub const DEFAULT_BATCH_BYTES: u64 = 1 << 20;

/// Who a connector is and which topic it works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Name of the connector, unique in the file: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub name: String,
    /// Type name, such as `kinesis-source`.
    pub type_name: String,
    /// The topic it fills or empties.
    pub topic: TopicSettings,
    /// Version of the connector package; only a cluster uses it.
    pub version: Option<String>,
    /// How a source makes batches.
    pub producer: ProducerSettings,
    /// How a sink reads.
    pub consumer: ConsumerSettings,
    /// Names of the secrets that may be filled in.
    pub secrets: Vec<String>,
}

/// The topic, by name (`0.0.0`, `0.1.0`) or by configuration (`0.2.0`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSettings {
    /// Topic name: 1 to 63 of `a-z 0-9 -`, Fluvio's rule.
    pub name: String,
    /// Number of partitions, where the file says it.
    pub partitions: Option<u32>,
    /// Oldest age kept, where the file says it.
    pub retention_time: Option<Duration>,
    /// Largest size of one partition in bytes, where the file says it.
    pub max_partition_bytes: Option<u64>,
    /// Size of a segment in bytes, where the file says it; only a cluster uses it.
    pub segment_bytes: Option<u64>,
}

/// How batches are compressed in a Fluvio topic; the embedded topic ignores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// Gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// `meta.producer`: how a source makes batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerSettings {
    /// A batch waits this long for more records.
    pub linger: Duration,
    /// A batch is closed once it holds this many bytes.
    pub batch_bytes: u64,
    /// Compression of batches in a cluster.
    pub compression: Option<Compression>,
}

impl Default for ProducerSettings {
    fn default() -> Self {
        Self {
            linger: DEFAULT_LINGER,
            batch_bytes: DEFAULT_BATCH_BYTES,
            compression: None,
        }
    }
}

/// Which partitions a sink reads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PartitionChoice {
    /// All of the topic.
    #[default]
    All,
    /// These.
    Some(Vec<u32>),
}

/// `meta.consumer`: how a sink reads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConsumerSettings {
    /// Which partitions it reads.
    pub partitions: PartitionChoice,
    /// Largest answer in bytes; only a cluster uses it.
    pub max_bytes: Option<u64>,
    /// Consumer id; only a cluster uses it.
    pub id: Option<String>,
}
