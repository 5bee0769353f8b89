//! What callers, the writer and the readers of one topic share.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use fluvio_smartengine::SmartEngine;
use millpond_connector::metrics::TopicMetrics;
use millpond_connector::topic::{Offset, PartitionId, StoredBatch, TopicError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::config::TopicConfig;
use crate::pool::Pools;
use crate::store::{Consumers, PartitionState, Store};

/// An append that waits for the writer.
pub(crate) struct QueuedAppend {
    pub(crate) partition: PartitionId,
    pub(crate) batch: StoredBatch,
    pub(crate) reply: oneshot::Sender<Result<std::ops::Range<Offset>, TopicError>>,
    /// Room in the queue, given back when the append is answered.
    pub(crate) _room: OwnedSemaphorePermit,
}

/// Whether the topic takes work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Open,
    /// What is queued is finished, nothing more is taken.
    Closing,
    Closed,
}

/// State that changes under the lock.
pub(crate) struct State {
    pub(crate) life: Life,
    pub(crate) partitions: Vec<PartitionState>,
    pub(crate) consumers: Consumers,
    /// Consumers whose row in the store is older than `consumers`.
    pub(crate) dirty_consumers: Vec<String>,
    pub(crate) forgotten_consumers: Vec<String>,
    pub(crate) queue: VecDeque<QueuedAppend>,
    /// Commits that failed so far: an append called before one and stored after it would
    /// come before what its caller has to send again.
    pub(crate) failed_commits: u64,
    /// Released batches may be waiting to be removed.
    pub(crate) removal_due: bool,
}

impl State {
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.partitions.iter().map(|p| p.bytes).sum()
    }

    /// Offset of a partition below which every registered consumer is done; with no
    /// consumer nothing is.
    pub(crate) fn released(&self, partition: PartitionId) -> Offset {
        let index = partition as usize;
        let released = self.consumers.values().filter_map(|c| c.get(index));
        let earliest = self.partitions.get(index).map_or(0, |p| p.earliest);
        released.min().copied().unwrap_or(earliest)
    }

    pub(crate) fn mark_dirty(&mut self, consumer: &str) {
        if !self.dirty_consumers.iter().any(|name| name == consumer) {
            self.dirty_consumers.push(consumer.to_owned());
        }
        self.removal_due = true;
    }
}

/// One open topic.
pub(crate) struct Shared {
    pub(crate) config: TopicConfig,
    pub(crate) identity: Option<String>,
    pub(crate) store: Store,
    pub(crate) engine: SmartEngine,
    pub(crate) metrics: Arc<TopicMetrics>,
    pub(crate) pools: Pools,
    pub(crate) queue_room: Arc<Semaphore>,
    state: Mutex<State>,
    /// The writer has something to do.
    pub(crate) work: Condvar,
    /// Readers have something to read, or an order to stop.
    pub(crate) news: Condvar,
}

impl Shared {
    pub(crate) fn new(
        config: TopicConfig,
        identity: Option<String>,
        store: Store,
        state: State,
        room: usize,
    ) -> Self {
        Self {
            config,
            identity,
            store,
            engine: SmartEngine::new(),
            metrics: Arc::default(),
            pools: Pools::default(),
            queue_room: Arc::new(Semaphore::new(room)),
            state: Mutex::new(state),
            work: Condvar::new(),
            news: Condvar::new(),
        }
    }

    /// The state; what a panicking thread left behind is whole, since changes are assignments.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn closed(&self) -> TopicError {
        TopicError::Closed(self.config.name.clone())
    }
}
