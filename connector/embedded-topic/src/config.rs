//! How an embedded topic is set up, and the limits it keeps.

use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use crate::modules::SmartModules;

/// Name of the file that holds a topic, inside its directory.
pub(crate) const STORE_FILE: &str = "topic.redb";

/// Name of the file that says how far appends were acknowledged, beside it.
pub(crate) const ENDS_FILE: &str = "topic.ends";

/// Largest raw batch accepted, in bytes: what a Fluvio producer may send (0.50.1).
pub(crate) const MAX_BATCH_BYTES: usize = 32 << 20;

/// Bytes of appends that may wait for the writer before callers wait instead.
pub(crate) const QUEUE_BYTES: u32 = 16 << 20;

/// Bytes that one commit takes from the queue: enough to share one sync over all
/// partitions, small enough that a waiting caller is not held for long.
pub(crate) const GROUP_BYTES: u64 = 8 << 20;

/// Bytes that one commit removes at most, so that removal never delays appends much.
pub(crate) const REMOVE_BYTES: u64 = 32 << 20;

/// How long a release may wait for an append to share its commit with.
pub(crate) const RELEASE_DELAY: Duration = Duration::from_millis(100);

/// How often the age of stored batches is looked at when nothing else happens.
pub(crate) const AGE_CHECK: Duration = Duration::from_secs(1);

/// Transformed chunks that wait for their consumer; one more is in the making.
pub(crate) const READ_AHEAD_CHUNKS: usize = 1;

/// What a topic keeps.
///
/// What a registered consumer has not released is never removed, and nothing is removed
/// while no consumer is registered: a sink that has yet to start must find everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Bytes of stored batches (all partitions, raw) at which appends wait for room.
    /// Default 8 GiB.
    pub max_bytes: u64,
    /// How long a released batch is kept for other readers. `None`, the default: it is
    /// removed as soon as every consumer has released it. Room for an append comes first:
    /// a released batch goes early when the topic is full.
    pub max_age: Option<Duration>,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            max_bytes: 8 << 30,
            max_age: None,
        }
    }
}

/// Settings of an [`crate::EmbeddedTopic`].
#[derive(Debug, Clone)]
pub struct TopicConfig {
    /// The topic's own directory; created when missing. Holds the store, and a small file beside it
    /// that says how far appends were acknowledged.
    pub dir: PathBuf,
    /// Topic name, recorded in the directory.
    pub name: String,
    /// Number of partitions, recorded in the directory; at least 1.
    pub partition_count: u32,
    /// What is kept, and for how long.
    pub retention: Retention,
    /// SmartModules that `transforms` can name.
    pub modules: SmartModules,
    /// Bytes of memory for the store's page cache. Default 16 MiB.
    pub cache_bytes: usize,
    /// Stored bytes from which commits save the store's allocator (redb's quick repair).
    /// Default 512 MiB.
    ///
    /// Below it a file that was not closed is read whole when it is opened again: 1.3 s for
    /// 512 MB that are not in the page cache, 7.2 s for 4 GB. Above it opening takes
    /// milliseconds, but every commit syncs twice and writes a map of the whole file: 430
    /// instead of 740 MB/s, and at 6 GB stored a third more bytes written (all measured on
    /// two cores with 4 MiB commits).
    pub quick_repair_bytes: u64,
    /// Instances of a chain of pure SmartModules that its readers share; at least 1.
    /// Default: one for each core that this process may use.
    pub shared_instances: usize,
    /// Bytes of memory that each SmartModule of an instance may use. Default 256 MiB.
    pub transform_memory_bytes: usize,
    /// How long one SmartModule call may take before the reader gives up. Default 60 s.
    ///
    /// The engine cannot stop a call: the thread that runs it is left behind, so a
    /// module that never returns costs a core until the process ends. Readers that share
    /// its chain wait so long at most for the instance it held, then another takes its place.
    pub transform_time_limit: Duration,
}

impl TopicConfig {
    /// A topic with default limits.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, name: impl Into<String>, partition_count: u32) -> Self {
        Self {
            dir: dir.into(),
            name: name.into(),
            partition_count,
            retention: Retention::default(),
            modules: SmartModules::new(),
            cache_bytes: 16 << 20,
            quick_repair_bytes: 512 << 20,
            shared_instances: std::thread::available_parallelism().map_or(1, NonZero::get),
            transform_memory_bytes: 256 << 20,
            transform_time_limit: Duration::from_secs(60),
        }
    }
}
