//! A reader of the topic, with the traps of the platform: batches skipped, tails cut off, records
//! given again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use millpond_connector::topic::{
    Chunk, ConsumedRecord, Offset, PartitionId, PartitionReader, TopicError, Transform,
};
use millpond_format::record::{BatchBuilder, RecordError, Records};
use millpond_pack::{Packer, Params};

use crate::process::Process;
use crate::scenario::{Fault, is_removed};
use crate::topic::{Batch, out_of_range, storage};
use crate::world::lock;

/// A SmartModule that removes some of the events.
pub const FILTER: &str = "simulation/filter@0.1.0";

/// Most batches in one chunk.
const MAX_BATCHES: u64 = 3;

/// Reads one partition.
pub struct FakeReader {
    process: Arc<Process>,
    /// The log that it reads.
    generation: u64,
    partition: PartitionId,
    next: Offset,
    transforms: Vec<Transform>,
    packer: Option<Packer>,
    /// Made, and not handed on: what was read survives a `next` that is dropped.
    ready: VecDeque<Chunk>,
}

impl FakeReader {
    /// A reader that starts at `from`.
    ///
    /// # Errors
    /// [`TopicError::Transform`] for any module but the packer.
    pub fn new(
        process: Arc<Process>,
        partition: PartitionId,
        from: Offset,
        transforms: &[Transform],
    ) -> Result<Self, TopicError> {
        let mut reader = Self {
            generation: process.world.generation.load(Ordering::Relaxed),
            process,
            partition,
            next: from,
            transforms: transforms.to_vec(),
            packer: None,
            ready: VecDeque::new(),
        };
        reader.packer = reader.instance()?;
        if reader.process.fault(Fault::Redelivered) {
            reader.go_back();
        }
        Ok(reader)
    }

    /// A new instance of the SmartModule.
    fn instance(&self) -> Result<Option<Packer>, TopicError> {
        let Some(step) = self.transforms.iter().find(|step| step.uses != FILTER) else {
            return Ok(None);
        };
        let failed = |reason: String| TopicError::Transform {
            uses: step.uses.clone(),
            offset: None,
            reason,
        };
        if step.uses != millpond_pack::NAME {
            return Err(failed("no such module".to_owned()));
        }
        let params = Params::from_map(&step.with).map_err(|error| failed(error.to_string()))?;
        let packer = Packer::new(params).map_err(|error| failed(error.to_string()))?;
        Ok(Some(packer))
    }

    fn hides(&self, fault: Fault) -> bool {
        let process = &self.process;
        process.world.hides(fault, self.partition, &process.name)
    }

    fn filters(&self) -> bool {
        self.transforms.iter().any(|step| step.uses == FILTER)
    }

    fn is_of_a_lost_log(&self) -> bool {
        self.process.world.generation.load(Ordering::Relaxed) != self.generation
    }

    /// Begins with an earlier batch.
    fn go_back(&mut self) {
        let Some(state) = self.process.world.log.partition(self.partition) else {
            return;
        };
        let state = lock(state);
        let batches = state.durable();
        let at = batches.partition_point(|batch| batch.base < self.next);
        let dice = &self.process.world.dice;
        let furthest = if dice.chance("far back", 250) {
            at.max(1)
        } else {
            4
        };
        let back = dice.between("back", 1, furthest as u64) as usize;
        if let Some(batch) = batches.get(at.saturating_sub(back)) {
            self.next = batch.base.min(self.next);
        }
    }

    /// The batches to give next, and what is wrong with them.
    fn take(&mut self) -> Result<Vec<Batch>, TopicError> {
        let world = &self.process.world;
        if self.is_of_a_lost_log() {
            return Err(TopicError::Closed(crate::world::NAME.to_owned()));
        }
        let Some(state) = world.log.partition(self.partition) else {
            return Ok(Vec::new());
        };
        let state = lock(state);
        let bounds = state.bounds();
        if self.next < bounds.earliest {
            return Err(out_of_range(self.partition, self.next, bounds));
        }
        let batches = state.durable();
        let mut at = batches.partition_point(|batch| batch.end() <= self.next);
        let left = batches.len() - at;
        if left > 1 && self.hides(Fault::BatchSkipped) {
            at += world.dice.between("skipped", 1, left as u64 - 1) as usize;
        } else if left > 1 && self.hides(Fault::JumpToEnd) {
            at = batches.len() - 1;
        }
        let count = world.dice.between("batches of a chunk", 1, MAX_BATCHES) as usize;
        Ok(batches[at..].iter().take(count).cloned().collect())
    }

    fn chunk(&mut self, batches: &[Batch]) -> Result<Option<Chunk>, TopicError> {
        let (Some(first), Some(last)) = (batches.first(), batches.last()) else {
            return Ok(None);
        };
        let mut offsets = first.base..last.end();
        let mut records = Vec::new();
        for batch in batches {
            self.records(batch, &mut records)?;
        }
        if self.transforms.is_empty() && offsets.contains(&self.next) {
            records.retain(|record| record.offset >= Some(self.next));
            offsets.start = self.next;
        }
        if self.hides(Fault::TailCut) {
            let cut = self.process.world.dice.between("cut", 1, 3) as usize;
            records.truncate(records.len().saturating_sub(cut));
        }
        self.next = offsets.end;
        Ok(Some(Chunk { offsets, records }))
    }

    fn records(&mut self, batch: &Batch, out: &mut Vec<ConsumedRecord>) -> Result<(), TopicError> {
        let damaged = |reason: String| TopicError::Damaged {
            topic: crate::world::NAME.to_owned(),
            partition: self.partition,
            offset: batch.base,
            reason,
        };
        let stored = &batch.batch;
        if self.packer.is_some() && self.process.fault(Fault::ModuleRebuilt) {
            self.packer = self.instance()?;
        }
        let left = match self.filters() {
            true => filtered(&stored.raw, stored.base_timestamp_ms)
                .map_err(|error| damaged(error.to_string()))?,
            false => stored.raw.clone(),
        };
        let is_emptied = Records::new(&left).is_ok_and(|records| records.count() == 0);
        if is_emptied {
            return Ok(());
        }
        if let Some(packer) = &mut self.packer {
            let packed = packer.pack(&left, batch.base, stored.base_timestamp_ms);
            let packed = packed.map_err(|error| damaged(error.to_string()))?;
            out.extend(packed.into_iter().map(|record| ConsumedRecord {
                offset: None,
                key: Some(record.key.into()),
                value: record.value.into(),
                timestamp_ms: None,
            }));
            return Ok(());
        }
        let is_bare = self.filters();
        let records = Records::new(&left).map_err(|error| damaged(error.to_string()))?;
        for (delta, record) in records.enumerate() {
            let record = record.map_err(|error| damaged(error.to_string()))?;
            out.push(ConsumedRecord {
                offset: (!is_bare).then_some(batch.base + delta as u64),
                key: record.key.map(Bytes::copy_from_slice),
                value: Bytes::copy_from_slice(record.value),
                timestamp_ms: (!is_bare)
                    .then_some(stored.base_timestamp_ms + record.timestamp_delta_ms),
            });
        }
        Ok(())
    }
}

/// What the filter leaves of a batch.
fn filtered(raw: &Bytes, base_timestamp_ms: i64) -> Result<Bytes, RecordError> {
    let mut left = BatchBuilder::new();
    for record in Records::new(raw)? {
        let record = record?;
        if !is_removed(record.value) {
            let time = base_timestamp_ms + record.timestamp_delta_ms;
            left.push(record.key, record.value, time);
        }
    }
    Ok(left.finish().into())
}

#[async_trait]
impl PartitionReader for FakeReader {
    async fn next(&mut self, wait: Duration) -> Result<Option<Chunk>, TopicError> {
        let world = self.process.world.clone();
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            if self.ready.is_empty() {
                let news = world.log.news.notified();
                if self.is_of_a_lost_log() {
                    // A process that stands still does not know, and it takes a moment to find out.
                    self.process.step().await;
                    let ms = world.dice.between("finds out after", 0, 1_500);
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                }
                let batches = self.take()?;
                if batches.is_empty() {
                    if tokio::time::timeout_at(deadline, news).await.is_err() {
                        return Ok(None);
                    }
                    continue;
                }
                if self.process.fault(Fault::TopicRead) {
                    return Err(storage("cannot be read"));
                }
                let chunk = self.chunk(&batches)?;
                self.ready.extend(chunk);
            }
            self.process.step().await;
            if let Some(chunk) = self.ready.pop_front() {
                world.note(format!(
                    "{} gets {:?} of topic {}, {} records",
                    self.process.name,
                    chunk.offsets,
                    self.partition,
                    chunk.records.len()
                ));
                return Ok(Some(chunk));
            }
        }
    }
}
