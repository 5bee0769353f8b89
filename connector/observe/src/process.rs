//! The running process as others see it: what it is doing, and the connectors and topics in it.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use millpond_connector::metrics::{Metrics, MetricsCopy, PartitionStanding, TopicMetrics};
use millpond_connector::registry::Direction;
use millpond_connector::stream_clock::StreamClock;
use millpond_connector::topic::{OffsetBounds, PartitionId, Topic};
use tokio::time::timeout;

/// A topic that does not say within this time what it holds is shown without it.
const BOUNDS_LIMIT: Duration = Duration::from_secs(1);

/// What the process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Looking for what it works with: a cluster, topics, a stream, a table.
    Connecting,
    /// At work.
    Running,
    /// Told to end, finishing what is in flight.
    Draining,
}

impl Phase {
    const ALL: [Self; 3] = [Self::Connecting, Self::Running, Self::Draining];

    /// As it is shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Running => "running",
            Self::Draining => "draining",
        }
    }
}

/// Tells whether a connector is at its work; must be quick.
pub type IsReady = Box<dyn Fn() -> bool + Send + Sync>;

/// One connector of the process.
pub struct Connector {
    /// `meta.name`.
    pub name: String,
    /// `meta.type`.
    pub type_name: String,
    /// Source or sink.
    pub direction: Direction,
    /// What it counts.
    pub metrics: Arc<Metrics>,
    /// The topic that it fills or empties.
    pub topic: Arc<dyn Topic>,
    /// Whether it is at its work.
    pub is_ready: IsReady,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A topic that lives in the process.
#[derive(Debug, Clone)]
pub struct LocalTopic {
    /// Its name.
    pub name: String,
    /// What it counts.
    pub metrics: Arc<TopicMetrics>,
}

/// What a process shows of itself.
#[derive(Debug)]
pub struct Process {
    version: &'static str,
    started: SystemTime,
    phase: AtomicU8,
    parts: Mutex<Parts>,
}

#[derive(Debug, Default, Clone)]
struct Parts {
    connectors: Vec<Arc<Connector>>,
    topics: Vec<LocalTopic>,
}

impl Process {
    /// A process that begins now, with no connectors yet.
    #[must_use]
    pub fn new(version: &'static str) -> Self {
        Self {
            version,
            started: SystemTime::now(),
            phase: AtomicU8::new(Phase::Connecting as u8),
            parts: Mutex::default(),
        }
    }

    /// A connector is in the process from now on.
    pub fn add_connector(&self, connector: Connector) {
        self.parts().connectors.push(Arc::new(connector));
    }

    /// A topic is in the process from now on.
    pub fn add_topic(&self, topic: LocalTopic) {
        self.parts().topics.push(topic);
    }

    /// The process goes on to `phase`.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// What it is doing.
    #[must_use]
    pub fn phase(&self) -> Phase {
        let now = self.phase.load(Ordering::Acquire);
        let mut all = Phase::ALL.into_iter();
        all.find(|phase| *phase as u8 == now)
            .unwrap_or(Phase::Connecting)
    }

    /// Why the process is not ready; `None` when it is: it is running, and each of its connectors
    /// is at its work.
    #[must_use]
    pub fn not_ready(&self) -> Option<String> {
        let phase = self.phase();
        if phase != Phase::Running {
            return Some(phase.name().to_owned());
        }
        let connectors = self.parts().connectors.clone();
        let waiting = connectors.iter().find(|connector| !(connector.is_ready)());
        waiting.map(|connector| match connector.direction {
            Direction::Source => format!("`{}` has not found its shards yet", connector.name),
            Direction::Sink => format!("`{}` has not opened its partitions yet", connector.name),
        })
    }

    /// Everything at this moment.
    pub async fn snapshot(&self) -> Snapshot {
        let Parts { connectors, topics } = self.parts().clone();
        let connectors = connectors.iter().map(|connector| seen(connector));
        Snapshot {
            version: self.version,
            phase: self.phase(),
            not_ready: self.not_ready(),
            started: self.started,
            now: SystemTime::now(),
            connectors: join_all(connectors).await,
            topics,
        }
    }

    /// Nothing panics between two changes.
    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// Version of the program.
    pub version: &'static str,
    /// What it is doing.
    pub phase: Phase,
    /// Why it is not ready.
    pub not_ready: Option<String>,
    /// When it began.
    pub started: SystemTime,
    /// When this was.
    pub now: SystemTime,
    /// Its connectors.
    pub connectors: Vec<ConnectorSnapshot>,
    /// Topics in the process.
    pub topics: Vec<LocalTopic>,
}

impl Snapshot {
    /// Seconds from a time in milliseconds since the Unix epoch until now, at least 0.
    #[must_use]
    pub fn seconds_since(&self, unix_ms: i64) -> f64 {
        let now = self.now.duration_since(UNIX_EPOCH).unwrap_or_default();
        (now.as_secs_f64() - unix_ms as f64 / 1_000.0).max(0.0)
    }
}

/// A connector at one moment.
#[derive(Debug)]
pub struct ConnectorSnapshot {
    /// `meta.name`.
    pub name: String,
    /// `meta.type`.
    pub type_name: String,
    /// Source or sink.
    pub direction: Direction,
    /// Name of its topic.
    pub topic: String,
    /// Its numbers.
    pub counted: MetricsCopy,
    /// The clocks on data loss of a source, once they were read.
    pub clock: Option<Arc<StreamClock>>,
    /// The topic partitions that a sink works on.
    pub partitions: Vec<PartitionSnapshot>,
}

/// One topic partition of a sink at one moment.
#[derive(Debug)]
pub struct PartitionSnapshot {
    /// Which.
    pub partition: PartitionId,
    /// Where the sink stands.
    pub standing: PartitionStanding,
    /// What the topic holds, if it said so in time.
    pub bounds: Option<OffsetBounds>,
}

impl PartitionSnapshot {
    /// Records that are in the topic and not in the store.
    #[must_use]
    pub fn queued(&self) -> Option<u64> {
        let bounds = self.bounds?;
        Some(bounds.end.saturating_sub(self.standing.written))
    }
}

async fn seen(connector: &Connector) -> ConnectorSnapshot {
    let partitions = connector.metrics.partitions.all();
    let partitions = partitions.into_iter().map(async |(partition, standing)| {
        let asked = timeout(BOUNDS_LIMIT, connector.topic.bounds(partition)).await;
        PartitionSnapshot {
            partition,
            standing,
            bounds: asked.ok().and_then(Result::ok),
        }
    });
    ConnectorSnapshot {
        name: connector.name.clone(),
        type_name: connector.type_name.clone(),
        direction: connector.direction,
        topic: connector.topic.name().to_owned(),
        clock: connector.metrics.stream_clock(),
        partitions: join_all(partitions).await,
        // After what had to be waited for.
        counted: connector.metrics.copy(),
    }
}
