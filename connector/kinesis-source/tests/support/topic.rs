//! A topic in memory whose appends can be slow, refused, or held.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use millpond_connector::topic::{
    Offset, OffsetBounds, PartitionId, PartitionReader, StoredBatch, Topic, TopicError, Transform,
};
use millpond_format::origin::Origin;
use millpond_format::record::Records;

/// True for the key of a record that the source could not take apart or open.
pub fn is_letter(key: &str) -> bool {
    key.split('/').nth(3) == Some("broken")
}

#[derive(Default)]
pub struct MemoryTopic {
    partitions: u32,
    /// Appends in the order in which they became durable.
    stored: Mutex<Vec<(PartitionId, StoredBatch)>>,
    /// The next appends that fail, each in its turn: stored all the same (odd) or not (even).
    pub failures: AtomicU32,
    /// The next append fails for good.
    pub broken: AtomicBool,
    /// No append is answered while set.
    pub held: AtomicBool,
    /// Longest time an append takes, in ms; spread over the appends.
    pub delay_ms: AtomicU64,
    appends: AtomicU64,
    pub largest_in_flight: AtomicU32,
    in_flight: Mutex<Vec<u32>>,
    /// Held for so long that it is looked at seldom whether it still is.
    pub held_for_hours: AtomicBool,
    /// What consumers have released, by partition.
    pub released: Mutex<BTreeMap<PartitionId, Offset>>,
}

impl MemoryTopic {
    pub fn new(partitions: u32) -> Self {
        Self {
            partitions,
            in_flight: Mutex::new(vec![0; partitions as usize]),
            ..Self::default()
        }
    }

    /// Every record: place in the topic's history, partition, key, value.
    pub fn records(&self) -> Vec<(usize, PartitionId, String, Vec<u8>)> {
        let stored = self.stored.lock().expect("not poisoned");
        let mut records = Vec::new();
        for (partition, batch) in stored.iter() {
            let mut count = 0;
            for record in Records::new(&batch.raw).expect("a batch") {
                let record = record.expect("a record");
                let key = String::from_utf8(record.key.expect("a key").to_vec()).expect("text");
                records.push((records.len(), *partition, key, record.value.to_vec()));
                count += 1;
            }
            assert_eq!(count, batch.record_count);
        }
        records
    }

    /// Dead letters: reason and value, in order.
    pub fn letters(&self) -> Vec<(String, Vec<u8>)> {
        let records = self.records().into_iter();
        let letters = records.filter(|(_, _, key, _)| is_letter(key));
        letters
            .map(|(_, _, key, value)| {
                assert!(Origin::parse(key.as_bytes()).is_err(), "{key}");
                let reason = key.split('/').nth(7).expect("a reason").to_owned();
                (reason, value)
            })
            .collect()
    }

    /// Every stored batch of a partition, in order.
    pub fn batches(&self, partition: PartitionId) -> Vec<StoredBatch> {
        let stored = self.stored.lock().expect("not poisoned");
        let of = stored.iter().filter(|(other, _)| *other == partition);
        of.map(|(_, batch)| batch.clone()).collect()
    }

    /// Forgets everything, as a broker does that lost its disk: offsets begin at 0 again.
    pub fn empty(&self) {
        self.stored.lock().expect("not poisoned").clear();
    }

    pub fn len(&self) -> usize {
        let stored = self.stored.lock().expect("not poisoned");
        stored
            .iter()
            .map(|(_, batch)| batch.record_count as usize)
            .sum()
    }

    fn store(&self, partition: PartitionId, batch: StoredBatch) -> Range<Offset> {
        let mut stored = self.stored.lock().expect("not poisoned");
        let base: u64 = stored
            .iter()
            .filter(|(other, _)| *other == partition)
            .map(|(_, batch)| u64::from(batch.record_count))
            .sum();
        let end = base + u64::from(batch.record_count);
        stored.push((partition, batch));
        base..end
    }

    pub fn end(&self, partition: PartitionId) -> Offset {
        let batches = self.batches(partition).into_iter();
        batches.map(|batch| u64::from(batch.record_count)).sum()
    }

    /// A consumer has everything that is stored now.
    pub fn release_all(&self) {
        let ends = (0..self.partitions).map(|id| (id, self.end(id)));
        *self.released.lock().expect("not poisoned") = ends.collect();
    }

    fn failed(&self, retryable: bool) -> TopicError {
        TopicError::Storage {
            topic: "events".to_owned(),
            context: "no space left on device".to_owned(),
            retryable,
        }
    }

    fn count(&self, partition: PartitionId, change: i32) {
        let mut in_flight = self.in_flight.lock().expect("not poisoned");
        let count = &mut in_flight[partition as usize];
        *count = count.saturating_add_signed(change);
        self.largest_in_flight.fetch_max(*count, Ordering::Relaxed);
    }
}

#[async_trait]
impl Topic for MemoryTopic {
    fn name(&self) -> &str {
        "events"
    }

    fn partition_count(&self) -> u32 {
        self.partitions
    }

    async fn append(
        &self,
        partition: PartitionId,
        batch: StoredBatch,
    ) -> Result<Range<Offset>, TopicError> {
        self.count(partition, 1);
        let turn = self.appends.fetch_add(1, Ordering::Relaxed);
        let delay = self.delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(turn * 7_919 % delay)).await;
        }
        while self.held.load(Ordering::Relaxed) {
            let coarse = self.held_for_hours.load(Ordering::Relaxed);
            let wait = if coarse { 10_000 } else { 10 };
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        self.count(partition, -1);
        if self.broken.load(Ordering::Relaxed) {
            return Err(self.failed(false));
        }
        let left = self
            .failures
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            });
        match left {
            Ok(left) if left % 2 == 1 => {
                self.store(partition, batch);
                Err(self.failed(true))
            }
            Ok(_) => Err(self.failed(true)),
            Err(_) => Ok(self.store(partition, batch)),
        }
    }

    async fn reader(
        &self,
        partition: PartitionId,
        _: Offset,
        _: &[Transform],
    ) -> Result<Box<dyn PartitionReader>, TopicError> {
        Err(TopicError::UnknownPartition {
            topic: "events".to_owned(),
            partition,
        })
    }

    async fn bounds(&self, partition: PartitionId) -> Result<OffsetBounds, TopicError> {
        Ok(OffsetBounds {
            earliest: 0,
            end: self.end(partition),
        })
    }

    async fn released(&self) -> Result<Vec<Option<Offset>>, TopicError> {
        let released = self.released.lock().expect("not poisoned");
        let partitions = 0..self.partitions;
        Ok(partitions.map(|id| released.get(&id).copied()).collect())
    }

    async fn release(&self, _: PartitionId, _: &str, _: Offset) -> Result<(), TopicError> {
        Ok(())
    }
}
