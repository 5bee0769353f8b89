//! The embedded topic itself: opening, appending, releasing, closing.

use std::ops::Range;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use millpond_connector::metrics::TopicMetrics;
use millpond_connector::topic::{
    Offset, OffsetBounds, PartitionId, PartitionReader, StoredBatch, Topic, TopicError, Transform,
};
use tokio::sync::{Mutex, oneshot};

use crate::config::{MAX_BATCH_BYTES, QUEUE_BYTES, TopicConfig};
use crate::layout::{LAYOUT_VERSION, TopicRow};
use crate::reader;
use crate::shared::{Life, QueuedAppend, Shared, State};
use crate::store::{PartitionState, Store};
use crate::writer;
use millpond_store_file::DiskHook;

/// A durable topic in one file of this machine.
///
/// An append is answered once it is on disk. Dropping the topic finishes what is queued and
/// closes the file, as [`EmbeddedTopic::close`] does; it then waits for the disk.
///
/// A failed append fails every append that was called before its answer, of any partition:
/// what a caller sends again is never stored behind what it sent later.
pub struct EmbeddedTopic {
    shared: Arc<Shared>,
    /// Held from an append's turn to its place in the queue: first come, first stored.
    turns: Vec<Mutex<()>>,
    writer: StdMutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for EmbeddedTopic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedTopic")
            .field("name", &self.shared.config.name)
            .field("file", &self.shared.store.path())
            .finish_non_exhaustive()
    }
}

impl EmbeddedTopic {
    /// Opens the topic in its directory, or creates it. Blocks on the disk.
    ///
    /// # Errors
    /// [`TopicError::Storage`] that names the file and what to do: it is open elsewhere, is
    /// damaged, holds another topic or another number of partitions, or the disk fails.
    /// [`TopicError::Damaged`] when acknowledged batches at the end of a partition are gone.
    pub fn open(config: TopicConfig) -> Result<Self, TopicError> {
        Self::open_on(config, None)
    }

    pub(crate) fn open_on(config: TopicConfig, hook: Option<DiskHook>) -> Result<Self, TopicError> {
        let refuse = |context: String, retryable| TopicError::Storage {
            topic: config.name.clone(),
            context,
            retryable,
        };
        if config.partition_count == 0 {
            return Err(refuse(
                "a topic needs at least 1 partition, not 0".into(),
                false,
            ));
        }
        let topic = TopicRow {
            layout_version: LAYOUT_VERSION,
            partition_count: config.partition_count,
            name: config.name.clone(),
        };
        let (store, stored, ends) = Store::open(&config.dir, &topic, config.cache_bytes, hook)
            .map_err(|error| error.into_topic(&config.name))?;
        let state = State {
            life: Life::Open,
            partitions: stored.partitions,
            consumers: stored.consumers,
            dirty_consumers: Vec::new(),
            forgotten_consumers: Vec::new(),
            queue: std::collections::VecDeque::new(),
            failed_commits: 0,
            removal_due: true,
        };
        let turns = (0..config.partition_count)
            .map(|_| Mutex::new(()))
            .collect();
        let shared = Arc::new(Shared::new(
            config,
            stored.identity,
            store,
            state,
            QUEUE_BYTES as usize,
        ));
        let for_writer = Arc::clone(&shared);
        let writer = std::thread::Builder::new()
            .name("topic-writer".into())
            .spawn(move || writer::run(&for_writer, ends))
            .map_err(|error| TopicError::Storage {
                topic: shared.config.name.clone(),
                context: format!("cannot start the writer thread: {error}"),
                retryable: true,
            })?;
        Ok(Self {
            shared,
            turns,
            writer: StdMutex::new(Some(writer)),
        })
    }

    /// SHA-256, in hex, of a transform chain: module bytes and parameters.
    ///
    /// # Errors
    /// [`TopicError::Transform`] when a module is not found or is no SmartModule.
    pub fn chain_digest(&self, transforms: &[Transform]) -> Result<String, TopicError> {
        self.shared.config.modules.chain_digest(transforms)
    }

    /// How often a chain of pure SmartModules was compiled so far for readers to share.
    #[must_use]
    pub fn shared_instances_built(&self) -> u64 {
        self.shared.pools.built()
    }

    /// Makes a consumer known, so that retention keeps everything it has not released.
    ///
    /// A consumer that was never heard of starts with nothing released. Known consumers
    /// keep their place. It is on disk before anything is removed.
    ///
    /// # Errors
    /// [`TopicError::Closed`].
    pub fn register_consumer(&self, consumer: &str) -> Result<(), TopicError> {
        let mut state = self.open_state()?;
        self.known_consumer(&mut state, consumer);
        drop(state);
        self.shared.work.notify_one();
        Ok(())
    }

    /// Forgets a consumer: retention waits for it no longer.
    ///
    /// # Errors
    /// [`TopicError::Closed`].
    pub fn forget_consumer(&self, consumer: &str) -> Result<(), TopicError> {
        let mut state = self.open_state()?;
        if state.consumers.remove(consumer).is_some() {
            state.dirty_consumers.retain(|name| name != consumer);
            state.forgotten_consumers.push(consumer.to_owned());
            state.removal_due = true;
        }
        drop(state);
        self.shared.work.notify_one();
        Ok(())
    }

    /// Registered consumers with the offset released on a partition.
    #[must_use]
    pub fn consumers(&self, partition: PartitionId) -> Vec<(String, Offset)> {
        let state = self.shared.state();
        let consumers = state.consumers.iter();
        consumers
            .filter_map(|(name, released)| Some((name.clone(), *released.get(partition as usize)?)))
            .collect()
    }

    /// What the topic counts.
    #[must_use]
    pub fn metrics(&self) -> Arc<TopicMetrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// Raw bytes of the batches stored, over all partitions.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.shared.state().stored_bytes()
    }

    /// Finishes what is queued, writes the releases and closes the file. Blocks on the disk.
    ///
    /// Appends that wait for room, and everything after, get [`TopicError::Closed`].
    pub fn close(&self) {
        {
            let mut state = self.shared.state();
            if state.life == Life::Open {
                state.life = Life::Closing;
            }
        }
        self.shared.work.notify_one();
        self.shared.queue_room.close();
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!(topic = self.shared.config.name, "the writer panicked");
        }
    }

    fn open_state(&self) -> Result<std::sync::MutexGuard<'_, State>, TopicError> {
        let state = self.shared.state();
        if state.life == Life::Open {
            Ok(state)
        } else {
            Err(self.shared.closed())
        }
    }

    fn known_consumer<'a>(&self, state: &'a mut State, consumer: &str) -> &'a mut Vec<Offset> {
        if !state.consumers.contains_key(consumer) {
            state.forgotten_consumers.retain(|name| name != consumer);
            state.mark_dirty(consumer);
        }
        let count = self.shared.config.partition_count as usize;
        let known = state.consumers.entry(consumer.to_owned());
        known.or_insert_with(|| vec![0; count])
    }

    fn bounds_in(
        &self,
        state: &State,
        partition: PartitionId,
    ) -> Result<PartitionState, TopicError> {
        let bounds = state.partitions.get(partition as usize).copied();
        bounds.ok_or_else(|| TopicError::UnknownPartition {
            topic: self.shared.config.name.clone(),
            partition,
        })
    }

    fn out_of_range(
        &self,
        partition: PartitionId,
        offset: Offset,
        bounds: PartitionState,
    ) -> TopicError {
        TopicError::OffsetOutOfRange {
            topic: self.shared.config.name.clone(),
            partition,
            offset,
            earliest: bounds.earliest,
            end: bounds.end,
        }
    }

    fn check_batch(&self, batch: &StoredBatch) -> Result<(), TopicError> {
        let declared = batch
            .raw
            .first_chunk()
            .map(|count| u32::from_be_bytes(*count));
        let reason = if batch.raw.len() > MAX_BATCH_BYTES {
            format!(
                "a batch of {} bytes is over the limit of {MAX_BATCH_BYTES}; lower \
                 `producer.batch-size`",
                batch.raw.len()
            )
        } else if batch.record_count == 0 || declared != Some(batch.record_count) {
            format!(
                "a batch that holds {} records says {declared:?}",
                batch.record_count
            )
        } else {
            return Ok(());
        };
        Err(TopicError::Storage {
            topic: self.shared.config.name.clone(),
            context: reason,
            retryable: false,
        })
    }
}

impl Drop for EmbeddedTopic {
    fn drop(&mut self) {
        self.close();
    }
}

#[async_trait]
impl Topic for EmbeddedTopic {
    fn name(&self) -> &str {
        &self.shared.config.name
    }

    fn partition_count(&self) -> u32 {
        self.shared.config.partition_count
    }

    fn identity(&self) -> Option<&str> {
        self.shared.identity.as_deref()
    }

    /// Not to be cancelled lightly: a batch whose caller went away may still be stored.
    async fn append(
        &self,
        partition: PartitionId,
        batch: StoredBatch,
    ) -> Result<Range<Offset>, TopicError> {
        let failed_commits = {
            let state = self.shared.state();
            self.bounds_in(&state, partition)?;
            state.failed_commits
        };
        self.check_batch(&batch)?;
        let closed = || self.shared.closed();
        let answer = {
            let turn = self.turns.get(partition as usize).ok_or_else(closed)?;
            let _turn = turn.lock().await;
            let bytes = u32::try_from(batch.raw.len()).unwrap_or(QUEUE_BYTES);
            let room = Arc::clone(&self.shared.queue_room)
                .acquire_many_owned(bytes.clamp(1, QUEUE_BYTES))
                .await
                .map_err(|_| closed())?;
            let (reply, answer) = oneshot::channel();
            let mut state = self.open_state()?;
            if state.failed_commits != failed_commits {
                return Err(TopicError::Storage {
                    topic: self.shared.config.name.clone(),
                    context: "an append before this one failed, so this one was not stored \
                              either; send both again, in order"
                        .into(),
                    retryable: true,
                });
            }
            state.queue.push_back(QueuedAppend {
                partition,
                batch,
                reply,
                _room: room,
            });
            answer
        };
        self.shared.work.notify_one();
        answer.await.map_err(|_| closed())?
    }

    /// Starts with the batch that holds `from`. Without transforms its records before `from`
    /// are left out; with transforms the whole batch is passed, and the first chunk's
    /// `offsets` start before `from`.
    async fn reader(
        &self,
        partition: PartitionId,
        from: Offset,
        transforms: &[Transform],
    ) -> Result<Box<dyn PartitionReader>, TopicError> {
        let bounds = {
            let state = self.open_state()?;
            self.bounds_in(&state, partition)?
        };
        if from < bounds.earliest || from > bounds.end {
            return Err(self.out_of_range(partition, from, bounds));
        }
        let modules = self.shared.config.modules.resolve(transforms)?;
        let reader = reader::open(Arc::clone(&self.shared), partition, from, modules).await?;
        Ok(Box::new(reader))
    }

    async fn bounds(&self, partition: PartitionId) -> Result<OffsetBounds, TopicError> {
        let bounds = self.bounds_in(&self.shared.state(), partition)?;
        Ok(OffsetBounds {
            earliest: bounds.earliest,
            end: bounds.end,
        })
    }

    /// Registers the consumer when it is new. Written with the next commit, a tenth of a
    /// second later at most: a release that a crash undoes only keeps data longer.
    async fn release(
        &self,
        partition: PartitionId,
        consumer: &str,
        offset: Offset,
    ) -> Result<(), TopicError> {
        let mut state = self.open_state()?;
        let bounds = self.bounds_in(&state, partition)?;
        if offset > bounds.end {
            return Err(self.out_of_range(partition, offset, bounds));
        }
        let known = self.known_consumer(&mut state, consumer);
        if let Some(released) = known.get_mut(partition as usize)
            && *released < offset
        {
            *released = offset;
            state.mark_dirty(consumer);
        }
        drop(state);
        self.shared.work.notify_one();
        Ok(())
    }

    async fn released(&self) -> Result<Vec<Option<Offset>>, TopicError> {
        let state = self.open_state()?;
        let of = |partition: usize| {
            let consumers = state.consumers.values();
            consumers
                .filter_map(|released| released.get(partition))
                .min()
                .copied()
        };
        let partitions = 0..self.shared.config.partition_count as usize;
        Ok(partitions.map(of).collect())
    }
}
