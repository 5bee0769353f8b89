//! The topic: a log in memory, with what is durable and what is not yet apart.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use millpond_connector::topic::{
    Offset, OffsetBounds, PartitionId, PartitionReader, StoredBatch, Topic, TopicError, Transform,
};
use tokio::sync::Notify;

use crate::process::Process;
use crate::scenario::Fault;
use crate::topic_reader::FakeReader;
use crate::world::{NAME, World, lock};

/// A batch of the log.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Offset of its first record.
    pub base: Offset,
    /// Its records.
    pub batch: StoredBatch,
}

impl Batch {
    /// One past its last offset.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.base + u64::from(self.batch.record_count)
    }
}

/// One partition of the log.
#[derive(Default)]
pub struct Partition {
    /// Batches that are still there; those beyond `durable` are lost if the power goes.
    pub batches: Vec<Batch>,
    durable: usize,
    /// Who appended the last batch.
    writer: Option<Arc<Process>>,
    earliest: Offset,
    released: BTreeMap<String, Offset>,
}

impl Partition {
    /// What can be read.
    #[must_use]
    pub fn durable(&self) -> &[Batch] {
        &self.batches[..self.durable]
    }

    fn end(&self) -> Offset {
        self.durable().last().map_or(self.earliest, Batch::end)
    }

    /// First and last offset that can be read.
    #[must_use]
    pub fn bounds(&self) -> OffsetBounds {
        OffsetBounds {
            earliest: self.earliest,
            end: self.end(),
        }
    }

    fn push(&mut self, batch: StoredBatch) -> Range<Offset> {
        let base = self.batches.last().map_or(self.earliest, Batch::end);
        let batch = Batch { base, batch };
        let offsets = base..batch.end();
        self.batches.push(batch);
        offsets
    }

    /// Loses a batch or two that nobody has released; answers where it begins then, if there were any.
    fn lose(&mut self, count: usize) -> Option<Offset> {
        let released = self.released.values().min().copied()?;
        let kept = self
            .durable()
            .partition_point(|batch| batch.end() <= released);
        let gone = (kept + count).min(self.durable);
        if gone == kept {
            return None;
        }
        self.earliest = self.batches[gone - 1].end();
        self.batches.drain(..gone);
        self.durable -= gone;
        Some(self.earliest)
    }

    /// Nothing is stored any more; answers how far every consumer had released it.
    fn lose_all(&mut self) -> Offset {
        let released = self.released.values().min().copied().unwrap_or(0);
        *self = Self::default();
        released
    }

    /// Removes whole batches that every consumer has released.
    fn trim(&mut self) {
        let Some(released) = self.released.values().min().copied() else {
            return;
        };
        let gone = self
            .durable()
            .partition_point(|batch| batch.end() <= released);
        if let Some(last) = self.batches[..gone].last() {
            self.earliest = last.end();
        }
        self.batches.drain(..gone);
        self.durable -= gone;
    }
}

/// The log of all partitions.
pub struct Log {
    partitions: Vec<Mutex<Partition>>,
    /// One append at a time on each partition, in the order in which they were called.
    turns: Vec<tokio::sync::Mutex<()>>,
    /// Told when something became durable.
    pub news: Notify,
}

impl Log {
    /// An empty log.
    #[must_use]
    pub fn new(partitions: u32) -> Self {
        Self {
            partitions: (0..partitions).map(|_| Mutex::default()).collect(),
            turns: (0..partitions)
                .map(|_| tokio::sync::Mutex::default())
                .collect(),
            news: Notify::new(),
        }
    }

    /// Loses everything; answers for each partition how far it had been released.
    pub fn lose(&self) -> Vec<Offset> {
        let partitions = self.partitions.iter();
        partitions.map(|state| lock(state).lose_all()).collect()
    }

    /// A partition.
    #[must_use]
    pub fn partition(&self, partition: PartitionId) -> Option<&Mutex<Partition>> {
        self.partitions.get(partition as usize)
    }

    /// Makes the next `count` batches of a partition durable.
    fn flush(&self, world: &World, partition: PartitionId, count: usize) {
        let Some(state) = self.partition(partition) else {
            return;
        };
        let mut state = lock(state);
        let until = state.durable.saturating_add(count).min(state.batches.len());
        while state.durable < until {
            let Batch { base, batch } = &state.batches[state.durable];
            world.note(format!(
                "topic {partition}: {} records at {base} are durable",
                batch.record_count
            ));
            if world.scenario.checks_events {
                let seen = lock(&world.oracle).appended(partition, *base, batch);
                world.judge(seen);
            }
            state.durable += 1;
        }
        self.news.notify_waiters();
    }

    /// A process that appends is gone: some of what was not flushed is there, the rest is not.
    pub fn writer_died(&self, world: &World) {
        for (number, partition) in self.partitions.iter().enumerate() {
            let waiting = {
                let state = lock(partition);
                match &state.writer {
                    // Another one will have it durable in a moment, with all that lies before it.
                    Some(writer) if !writer.is_dead() => 0,
                    _ => state.batches.len() - state.durable,
                }
            };
            if waiting == 0 {
                continue;
            }
            let kept = world.dice.below("survives", waiting as u64 + 1) as usize;
            self.flush(world, number as PartitionId, kept);
            let mut state = lock(partition);
            let durable = state.durable;
            world.note(format!(
                "topic {number}: {} batches were not flushed and are gone",
                state.batches.len() - durable
            ));
            state.batches.truncate(durable);
        }
    }
}

/// The topic as one process uses it.
pub struct FakeTopic {
    process: Arc<Process>,
    /// The log that was there when it was opened.
    generation: u64,
    identity: String,
    appending: Vec<AtomicU64>,
    /// Bytes that were acknowledged to the process.
    pub acknowledged: Arc<AtomicU64>,
}

impl FakeTopic {
    /// The topic for a process.
    #[must_use]
    pub fn new(process: Arc<Process>) -> Self {
        let count = process.world.scenario.partitions;
        let generation = process.world.generation.load(Ordering::Relaxed);
        Self {
            generation,
            identity: generation.to_string(),
            process,
            appending: (0..count).map(|_| AtomicU64::new(0)).collect(),
            acknowledged: Arc::default(),
        }
    }

    fn known(&self, partition: PartitionId) -> Result<&Mutex<Partition>, TopicError> {
        let unknown = || TopicError::UnknownPartition {
            topic: NAME.to_owned(),
            partition,
        };
        let world = &self.process.world;
        if world.generation.load(Ordering::Relaxed) != self.generation {
            return Err(TopicError::Closed(NAME.to_owned()));
        }
        world.log.partition(partition).ok_or_else(unknown)
    }
}

/// A failure that may pass.
pub(crate) fn storage(context: &str) -> TopicError {
    TopicError::Storage {
        topic: NAME.to_owned(),
        context: context.to_owned(),
        retryable: true,
    }
}

pub(crate) fn out_of_range(
    partition: PartitionId,
    offset: Offset,
    bounds: OffsetBounds,
) -> TopicError {
    TopicError::OffsetOutOfRange {
        topic: NAME.to_owned(),
        partition,
        offset,
        earliest: bounds.earliest,
        end: bounds.end,
    }
}

/// Counts down when an append ends, however it does.
struct Under<'a>(&'a AtomicU64);

impl Drop for Under<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Topic for FakeTopic {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> Option<&str> {
        let is_told = self.process.world.scenario.loses_topic;
        is_told.then_some(self.identity.as_str())
    }

    fn partition_count(&self) -> u32 {
        self.process.world.scenario.partitions
    }

    async fn append(
        &self,
        partition: PartitionId,
        batch: StoredBatch,
    ) -> Result<Range<Offset>, TopicError> {
        let state = self.known(partition)?;
        let world = &self.process.world;
        let appending = &self.appending[partition as usize];
        let _under = Under(appending);
        if appending.fetch_add(1, Ordering::Relaxed) > 0 && world.scenario.checks_events {
            // With two, the first could fail and the second be stored.
            world.violate(
                "I9",
                format!("two appends to topic partition {partition} at a time"),
            );
        }
        let bytes = batch.raw.len() as u64;
        let _turn = world.log.turns[partition as usize].lock().await;
        self.process.step().await;
        if world.disk_is_full(&self.process.name) {
            return Err(storage("no space left on device"));
        }
        self.known(partition)?;
        let offsets = {
            let mut state = lock(state);
            state.writer = Some(self.process.clone());
            state.push(batch)
        };
        self.process.step().await;
        self.known(partition)?;
        world.log.flush(world, partition, usize::MAX);
        self.process.step().await;
        if self.process.fault(Fault::LostAnswer) {
            return Err(storage("no answer"));
        }
        self.acknowledged.fetch_add(bytes, Ordering::Relaxed);
        Ok(offsets)
    }

    async fn reader(
        &self,
        partition: PartitionId,
        from: Offset,
        transforms: &[Transform],
    ) -> Result<Box<dyn PartitionReader>, TopicError> {
        let state = self.known(partition)?;
        self.process.step().await;
        if self.process.fault(Fault::TopicRead) {
            return Err(storage("cannot be read"));
        }
        let bounds = lock(state).bounds();
        self.known(partition)?;
        if from < bounds.earliest || from > bounds.end {
            return Err(out_of_range(partition, from, bounds));
        }
        let reader = FakeReader::new(self.process.clone(), partition, from, transforms)?;
        Ok(Box::new(reader))
    }

    async fn bounds(&self, partition: PartitionId) -> Result<OffsetBounds, TopicError> {
        let state = self.known(partition)?;
        self.process.step().await;
        if self.process.fault(Fault::TopicRead) {
            return Err(storage("cannot be read"));
        }
        self.known(partition)?;
        Ok(lock(state).bounds())
    }

    async fn released(&self) -> Result<Vec<Option<Offset>>, TopicError> {
        self.process.step().await;
        let partitions = 0..self.partition_count();
        let released = |partition| {
            let state = lock(self.known(partition)?);
            Ok(state.released.values().min().copied())
        };
        partitions.map(released).collect()
    }

    async fn release(
        &self,
        partition: PartitionId,
        consumer: &str,
        offset: Offset,
    ) -> Result<(), TopicError> {
        let state = self.known(partition)?;
        self.process.step().await;
        self.known(partition)?;
        let mut state = lock(state);
        let bounds = state.bounds();
        if offset > bounds.end {
            return Err(out_of_range(partition, offset, bounds));
        }
        let released = state.released.entry(consumer.to_owned()).or_insert(0);
        *released = offset.max(*released);
        if self.process.fault(Fault::Trimmed) {
            state.trim();
        }
        let world = &self.process.world;
        let is_more = state.end() > offset.max(bounds.earliest);
        if is_more && self.process.fault(Fault::Lost) {
            let count = world.dice.between("batches lost", 1, 2) as usize;
            if let Some(earliest) = state.lose(count) {
                world.note(format!(
                    "topic {partition}: everything before {earliest} is gone"
                ));
                lock(&world.oracle).lost(partition, earliest);
            }
        }
        Ok(())
    }
}
