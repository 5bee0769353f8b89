//! A topic in memory, with the packer as its transform.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use millpond_connector::topic::{
    Chunk, ConsumedRecord, Offset, OffsetBounds, PartitionId, PartitionReader, StoredBatch, Topic,
    TopicError, Transform,
};
use millpond_format::record::BatchBuilder;
use millpond_pack::{Packer, Params};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Name of the topic.
pub const NAME: &str = "events";

/// A record: key and value.
pub type KeyValue = (String, Vec<u8>);

#[derive(Clone)]
struct Batch {
    base: Offset,
    raw: Vec<u8>,
    records: Vec<KeyValue>,
}

/// What is stored, and what goes wrong.
#[derive(Default)]
pub struct State {
    batches: Vec<Batch>,
    end: Offset,
    earliest: Offset,
    /// Offsets that were released, in order.
    pub released: Vec<Offset>,
    /// Records of these numbers (counted over all reads) are left out of the answer.
    pub hide: BTreeSet<u64>,
    read: u64,
    /// A reader begins so many batches before the one that it was told to begin with.
    pub early: usize,
    /// Bytes of the values that were handed out.
    pub read_bytes: usize,
    seed: u64,
}

/// One partition, number 0.
#[derive(Clone)]
pub struct MemoryTopic {
    /// What is stored.
    pub state: Arc<Mutex<State>>,
    /// Longest random wait before an answer.
    pub lag: Duration,
    /// Tells it from one that was made anew.
    pub identity: Option<String>,
}

impl MemoryTopic {
    /// An empty topic; the seed decides where its answers are cut.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            seed,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            lag: Duration::ZERO,
            identity: None,
        }
    }

    /// Appends one stored batch.
    ///
    /// # Panics
    /// After another panic.
    pub fn push(&self, records: &[KeyValue]) {
        let mut state = self.state.lock().expect("lock");
        let mut builder = BatchBuilder::new();
        for (index, (key, value)) in records.iter().enumerate() {
            builder.push(
                Some(key.as_bytes()),
                value,
                1_763_886_000_000 + index as i64,
            );
        }
        let base = state.end;
        state.end += records.len() as u64;
        state.batches.push(Batch {
            base,
            raw: builder.finish(),
            records: records.to_vec(),
        });
    }

    /// The same records in batches of so many of these, as a source may send them again.
    ///
    /// # Panics
    /// After another panic.
    #[must_use]
    pub fn in_larger_batches(&self, of: usize) -> Self {
        let state = self.state.lock().expect("lock");
        let again = Self {
            identity: self.identity.clone(),
            ..Self::new(state.seed)
        };
        for batches in state.batches.chunks(of) {
            let records = batches.iter().flat_map(|batch| batch.records.clone());
            again.push(&records.collect::<Vec<_>>());
        }
        again
    }

    /// One past the last record.
    pub fn end(&self) -> i64 {
        self.state.lock().expect("lock").end as i64
    }

    /// Makes the topic anew, with nothing in it.
    ///
    /// # Panics
    /// After another panic.
    pub fn lose(&self) {
        let mut state = self.state.lock().expect("lock");
        state.batches.clear();
        (state.earliest, state.end) = (0, 0);
    }

    /// Makes the topic begin (and end) later, as retention or a new topic would.
    ///
    /// # Panics
    /// After another panic.
    pub fn cut(&self, earliest: Offset) {
        let mut state = self.state.lock().expect("lock");
        state.earliest = earliest;
        state.end = state.end.max(earliest);
    }
}

struct Reader {
    topic: MemoryTopic,
    next: Offset,
    packer: Option<Packer>,
    /// Records whose value contains this are removed before the packer.
    without: Option<String>,
    random: SmallRng,
}

#[async_trait]
impl PartitionReader for Reader {
    async fn next(&mut self, wait: Duration) -> Result<Option<Chunk>, TopicError> {
        tokio::task::yield_now().await;
        if !self.topic.lag.is_zero() {
            let most = self.topic.lag.as_millis() as u64;
            tokio::time::sleep(Duration::from_millis(self.random.random_range(0..=most))).await;
        }
        let batches = {
            let state = self.topic.state.lock().expect("lock");
            if self.next > state.end {
                return Err(TopicError::OffsetOutOfRange {
                    topic: NAME.to_owned(),
                    partition: 0,
                    offset: self.next,
                    earliest: state.earliest,
                    end: state.end,
                });
            }
            let at = state
                .batches
                .partition_point(|batch| batch.base < self.next);
            let count = self.random.random_range(1..4);
            state
                .batches
                .iter()
                .skip(at)
                .take(count)
                .cloned()
                .collect::<Vec<_>>()
        };
        let (Some(first), Some(last)) = (batches.first(), batches.last()) else {
            tokio::time::sleep(wait).await;
            return Ok(None);
        };
        let offsets: Range<Offset> = first.base..last.base + last.records.len() as u64;
        let mut records = Vec::new();
        for batch in &batches {
            self.records_of(batch, &mut records);
        }
        let mut state = self.topic.state.lock().expect("lock");
        let State {
            hide,
            read,
            read_bytes,
            ..
        } = &mut *state;
        *read_bytes += records
            .iter()
            .map(|record| record.value.len())
            .sum::<usize>();
        records.retain(|_| {
            *read += 1;
            !hide.contains(read)
        });
        self.next = offsets.end;
        Ok(Some(Chunk { offsets, records }))
    }
}

impl Reader {
    fn records_of(&mut self, batch: &Batch, out: &mut Vec<ConsumedRecord>) {
        match &mut self.packer {
            None => out.extend(
                batch
                    .records
                    .iter()
                    .enumerate()
                    .map(|(index, (key, value))| ConsumedRecord {
                        offset: Some(batch.base + index as u64),
                        key: Some(Bytes::from(key.clone())),
                        value: Bytes::from(value.clone()),
                        timestamp_ms: Some(1_763_886_000_000 + index as i64),
                    }),
            ),
            Some(packer) => {
                let mut raw = batch.raw.clone();
                if let Some(without) = &self.without {
                    let mut builder = BatchBuilder::new();
                    for (index, (key, value)) in batch.records.iter().enumerate() {
                        if !String::from_utf8_lossy(value).contains(without) {
                            let time = 1_763_886_000_000 + index as i64;
                            builder.push(Some(key.as_bytes()), value, time);
                        }
                    }
                    raw = builder.finish();
                }
                let packed = packer.pack(&raw, batch.base, 1_763_886_000_000);
                out.extend(
                    packed
                        .expect("packs")
                        .into_iter()
                        .map(|record| ConsumedRecord {
                            offset: None,
                            key: Some(record.key.into()),
                            value: record.value.into(),
                            timestamp_ms: None,
                        }),
                );
            }
        }
    }
}

#[async_trait]
impl Topic for MemoryTopic {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> Option<&str> {
        self.identity.as_deref()
    }

    fn partition_count(&self) -> u32 {
        1
    }

    async fn append(&self, _: PartitionId, _: StoredBatch) -> Result<Range<Offset>, TopicError> {
        Err(TopicError::Closed("events".into()))
    }

    async fn reader(
        &self,
        partition: PartitionId,
        from: Offset,
        transforms: &[Transform],
    ) -> Result<Box<dyn PartitionReader>, TopicError> {
        tokio::task::yield_now().await;
        let (seed, earliest, end, next) = {
            let state = self.state.lock().expect("lock");
            // The batch that the offset lies in comes whole.
            let ends = |batch: &Batch| batch.base + batch.records.len() as u64;
            let at = state.batches.partition_point(|batch| ends(batch) <= from);
            let early = state.batches.get(at.saturating_sub(state.early));
            let next = early.map_or(from, |batch| batch.base.min(from));
            (state.seed, state.earliest, state.end, next)
        };
        if from < earliest || from > end {
            return Err(TopicError::OffsetOutOfRange {
                topic: "events".into(),
                partition,
                offset: from,
                earliest,
                end,
            });
        }
        let packer = transforms.last().map(|transform| {
            let params = Params::from_map(&transform.with).expect("parameters");
            Packer::new(params).expect("zstd")
        });
        let without = match transforms {
            [filter, _] => filter.with.get("without").cloned(),
            _ => None,
        };
        Ok(Box::new(Reader {
            topic: self.clone(),
            next,
            packer,
            without,
            random: SmallRng::seed_from_u64(seed ^ from),
        }))
    }

    async fn bounds(&self, _: PartitionId) -> Result<OffsetBounds, TopicError> {
        tokio::task::yield_now().await;
        let state = self.state.lock().expect("lock");
        Ok(OffsetBounds {
            earliest: state.earliest,
            end: state.end,
        })
    }

    async fn release(&self, _: PartitionId, _: &str, offset: Offset) -> Result<(), TopicError> {
        tokio::task::yield_now().await;
        self.state.lock().expect("lock").released.push(offset);
        Ok(())
    }
}
