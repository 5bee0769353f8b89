//! Readers: one thread each, which reads, checks and transforms a little ahead of its consumer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use millpond_connector::topic::{
    Chunk, ConsumedRecord, Offset, PartitionId, PartitionReader, TopicError,
};
use millpond_format::record::Records;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::chain::{Instance, Recipe, chain_name};
use crate::config::READ_AHEAD_CHUNKS;
use crate::modules::{ResolvedModule, digest};
use crate::pool::Pool;
use crate::shared::{Life, Shared};
use crate::store::{ReadBatch, StoreError};

type Delivery = Result<Chunk, TopicError>;

/// The consumer's end of a reader.
pub(crate) struct ThreadReader {
    shared: Arc<Shared>,
    link: Arc<Link>,
    chunks: mpsc::Receiver<Delivery>,
    /// The thread delivered an error and waits to be asked again.
    failed: bool,
}

/// What consumer and thread tell each other beside the chunks.
#[derive(Default)]
struct Link {
    stop: AtomicBool,
    resume: AtomicBool,
    call: Mutex<Option<Call>>,
}

/// A SmartModule call that has not returned.
#[derive(Debug, Clone)]
struct Call {
    uses: String,
    offset: Option<Offset>,
    since: Instant,
}

impl Call {
    fn unreturned(self, limit: Duration) -> TopicError {
        TopicError::Transform {
            uses: self.uses,
            offset: self.offset,
            reason: format!(
                "it has not returned for {:.1?} (limit {limit:?}); its thread cannot be stopped and \
                 runs until the process ends",
                self.since.elapsed(),
            ),
        }
    }
}

impl Link {
    fn call(&self) -> Option<Call> {
        let call = self.call.lock().unwrap_or_else(PoisonError::into_inner);
        call.clone()
    }

    fn set_call(&self, new: Option<Call>) {
        *self.call.lock().unwrap_or_else(PoisonError::into_inner) = new;
    }

    /// The error of a call that has taken longer than it may.
    fn overdue(&self, limit: Duration) -> Option<TopicError> {
        let call = self.call().filter(|call| call.since.elapsed() >= limit)?;
        Some(call.unreturned(limit))
    }
}

/// Opens a reader; returns once its SmartModules are initialised.
pub(crate) async fn open(
    shared: Arc<Shared>,
    partition: PartitionId,
    from: Offset,
    modules: Vec<ResolvedModule>,
) -> Result<ThreadReader, TopicError> {
    let link = Arc::new(Link::default());
    let (sender, chunks) = mpsc::channel(READ_AHEAD_CHUNKS);
    let (ready_sender, ready) = oneshot::channel();
    let limit = shared.config.transform_time_limit;
    let name = chain_name(&modules);
    let mut worker = Worker {
        shared: Arc::clone(&shared),
        link: Arc::clone(&link),
        name: name.clone(),
        partition,
        position: from,
    };
    std::thread::Builder::new()
        .name(format!("topic-reader-{partition}"))
        .spawn(move || match worker.open_chain(modules) {
            Ok(chain) => {
                let _ = ready_sender.send(Ok(()));
                worker.run(chain, &sender);
            }
            Err(error) => {
                let _ = ready_sender.send(Err(error));
            }
        })
        .map_err(|error| TopicError::Storage {
            topic: shared.config.name.clone(),
            context: format!("cannot start a reader thread: {error}; check the limit on threads"),
            retryable: true,
        })?;
    let reader = ThreadReader {
        shared,
        link,
        chunks,
        failed: false,
    };
    match timeout(limit, ready).await {
        Ok(Ok(result)) => result.map(|()| reader),
        Ok(Err(_)) => Err(reader.shared.closed()),
        Err(_) => {
            let call = reader.link.call().map(|call| call.unreturned(limit));
            Err(call.unwrap_or_else(|| TopicError::Transform {
                uses: name,
                offset: None,
                reason: format!(
                    "other readers have been compiling it for {limit:?}, as long as they may, and it is \
                     not done"
                ),
            }))
        }
    }
}

#[async_trait]
impl PartitionReader for ThreadReader {
    async fn next(&mut self, wait: Duration) -> Result<Option<Chunk>, TopicError> {
        if self.failed {
            self.failed = false;
            self.link.resume.store(true, Ordering::Release);
            self.wake();
        }
        let limit = self.shared.config.transform_time_limit;
        let started = Instant::now();
        loop {
            let left = wait.saturating_sub(started.elapsed());
            let until_overdue = self
                .link
                .call()
                .map_or(limit, |call| limit.saturating_sub(call.since.elapsed()));
            match timeout(left.min(until_overdue), self.chunks.recv()).await {
                Ok(Some(Ok(chunk))) => return Ok(Some(chunk)),
                Ok(Some(Err(error))) => {
                    self.failed = true;
                    return Err(error);
                }
                Ok(None) => return Err(self.shared.closed()),
                Err(_) => {}
            }
            if let Some(overdue) = self.link.overdue(limit) {
                return Err(overdue);
            }
            if started.elapsed() >= wait {
                return Ok(None);
            }
        }
    }
}

impl ThreadReader {
    /// Wakes the thread; it checks its orders under the lock, so taking it loses no wake-up.
    fn wake(&self) {
        drop(self.shared.state());
        self.shared.news.notify_all();
    }
}

impl Drop for ThreadReader {
    fn drop(&mut self) {
        self.link.stop.store(true, Ordering::Release);
        self.wake();
    }
}

/// The thread's end of a reader.
struct Worker {
    shared: Arc<Shared>,
    link: Arc<Link>,
    /// The chain, for messages.
    name: String,
    partition: PartitionId,
    position: Offset,
}

enum Wait {
    Data,
    Stop,
    Failed(TopicError),
}

/// How a reader passes batches through its chain.
enum Chain {
    /// There is none.
    Empty,
    /// On its own instance, if the last call left one in order.
    Own(Recipe, Option<Instance>),
    /// On instances shared with other readers.
    Shared(Arc<Pool>),
}

impl Worker {
    /// Compiles the chain, or finds that another reader has: a bad module or parameter is
    /// refused here.
    fn open_chain(&self, modules: Vec<ResolvedModule>) -> Result<Chain, TopicError> {
        if modules.is_empty() {
            return Ok(Chain::Empty);
        }
        let Shared { config, engine, .. } = &*self.shared;
        let digest = modules
            .iter()
            .all(|module| module.is_pure)
            .then(|| digest(&modules));
        let recipe = || Recipe::new(engine.clone(), config.transform_memory_bytes, modules);
        let Some(digest) = digest else {
            let recipe = recipe();
            let instance = self.watched(None, || recipe.instantiate())?;
            return Ok(Chain::Own(recipe, Some(instance)));
        };
        let (limit, time_limit) = (config.shared_instances, config.transform_time_limit);
        let pool = self.shared.pools.get(digest, limit, time_limit, recipe);
        if let Some(mut place) = pool.take_to_prove(&self.link.stop) {
            self.watched(None, || place.prove())?;
        }
        Ok(Chain::Shared(pool))
    }

    fn run(&mut self, mut chain: Chain, chunks: &mpsc::Sender<Delivery>) {
        loop {
            let delivery = match self.wait_for_data() {
                Wait::Data => self.deliver(&mut chain),
                Wait::Failed(error) => Err(error),
                Wait::Stop => return,
            };
            let failed = delivery.is_err();
            if chunks.blocking_send(delivery).is_err() {
                return;
            }
            if failed && !self.wait_for_resume() {
                return;
            }
        }
    }

    fn deliver(&mut self, chain: &mut Chain) -> Delivery {
        let topic = &self.shared.config.name;
        let batch = match self.shared.store.read(self.partition, self.position) {
            Ok(batch) => batch,
            Err(error) => return Err(self.read_failure(error)),
        };
        let end = batch.end;
        let base = batch.base;
        let chunk = match chain {
            Chain::Empty => {
                let records = plain_records(batch, self.position);
                let records = records.map_err(|reason| TopicError::Damaged {
                    topic: topic.clone(),
                    partition: self.partition,
                    offset: base,
                    reason,
                })?;
                let offsets = self.position..end;
                Chunk { offsets, records }
            }
            Chain::Own(recipe, instance) => {
                let records = self.passed(batch, |batch| recipe.process(instance, batch))?;
                let offsets = base..end;
                Chunk { offsets, records }
            }
            Chain::Shared(pool) => {
                // Waiting for others is no call: it must not be taken for a stuck module.
                let place = pool.take(&self.link.stop);
                let mut place = place.ok_or_else(|| self.shared.closed())?;
                let records = self.passed(batch, |batch| place.process(batch))?;
                let offsets = base..end;
                Chunk { offsets, records }
            }
        };
        self.position = end;
        Ok(chunk)
    }

    /// A batch that retention removed meanwhile is out of range, not damaged.
    fn read_failure(&self, error: StoreError) -> TopicError {
        let bounds = self
            .shared
            .state()
            .partitions
            .get(self.partition as usize)
            .copied();
        match bounds {
            Some(bounds) if self.position < bounds.earliest => TopicError::OffsetOutOfRange {
                topic: self.shared.config.name.clone(),
                partition: self.partition,
                offset: self.position,
                earliest: bounds.earliest,
                end: bounds.end,
            },
            _ => match error {
                // What the store cannot find its way to is damage at this place.
                StoreError::Corrupt { reason, .. } => StoreError::Damaged {
                    partition: self.partition,
                    offset: self.position,
                    reason,
                }
                .into_topic(&self.shared.config.name),
                other => other.into_topic(&self.shared.config.name),
            },
        }
    }

    /// Passes a batch through the chain, counted.
    fn passed(
        &self,
        batch: ReadBatch,
        call: impl FnOnce(ReadBatch) -> Result<Vec<ConsumedRecord>, TopicError>,
    ) -> Result<Vec<ConsumedRecord>, TopicError> {
        let metrics = &self.shared.metrics;
        metrics.module_batches.add(1);
        metrics.module_input_bytes.add(batch.raw.len() as u64);
        let begun = Instant::now();
        let outcome = self.watched(Some(batch.base), || call(batch));
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        metrics.module_micros.add(micros);
        match &outcome {
            Ok(records) => {
                let bytes =
                    |r: &ConsumedRecord| r.value.len() + r.key.as_ref().map_or(0, Bytes::len);
                let bytes: usize = records.iter().map(bytes).sum();
                metrics.module_output_records.add(records.len() as u64);
                metrics.module_output_bytes.add(bytes as u64);
            }
            Err(_) => metrics.module_failures.add(1),
        }
        outcome
    }

    fn watched<T>(&self, offset: Option<Offset>, call: impl FnOnce() -> T) -> T {
        self.link.set_call(Some(Call {
            uses: self.name.clone(),
            offset,
            since: Instant::now(),
        }));
        let result = call();
        self.link.set_call(None);
        result
    }

    fn wait_for_data(&self) -> Wait {
        let mut state = self.shared.state();
        loop {
            if self.link.stop.load(Ordering::Acquire) {
                return Wait::Stop;
            }
            if state.life == Life::Closed {
                return Wait::Failed(self.shared.closed());
            }
            let Some(bounds) = state.partitions.get(self.partition as usize) else {
                return Wait::Stop;
            };
            if self.position < bounds.end {
                return Wait::Data;
            }
            state = self
                .shared
                .news
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until the consumer asks again after an error; false when it is gone.
    fn wait_for_resume(&self) -> bool {
        let mut state = self.shared.state();
        loop {
            if self.link.stop.load(Ordering::Acquire) {
                return false;
            }
            if self.link.resume.swap(false, Ordering::AcqRel) {
                return true;
            }
            state = self
                .shared
                .news
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Records of a batch from an offset on, as slices of the batch.
fn plain_records(batch: ReadBatch, from: Offset) -> Result<Vec<ConsumedRecord>, String> {
    let ReadBatch {
        base,
        base_timestamp_ms,
        end,
        raw,
    } = batch;
    let raw = Bytes::from(raw);
    let parsed = Records::new(&raw).map_err(|error| error.to_string())?;
    let mut records = Vec::with_capacity(usize::try_from(end - from).unwrap_or(0).min(raw.len()));
    let mut offset = base;
    for record in parsed {
        let record = record.map_err(|error| error.to_string())?;
        if offset >= from {
            records.push(ConsumedRecord {
                offset: Some(offset),
                key: record.key.map(|key| raw.slice_ref(key)),
                value: raw.slice_ref(record.value),
                timestamp_ms: Some(base_timestamp_ms.saturating_add(record.timestamp_delta_ms)),
            });
        }
        offset += 1;
    }
    if offset != end {
        return Err(format!(
            "it holds {} records, its header says {}",
            offset - base,
            end - base
        ));
    }
    Ok(records)
}
