//! From a shard's records to batches of topic partitions, and back from acknowledged
//! batches to durable positions. Pure: `now` is an argument.
//!
//! - Each event gets the next ordinal of its (shard, topic partition) chain.
//! - Each partition has one open batch, a queue of sealed ones, and at most **one** append in
//!   flight. With two, the first could fail and the second be stored: later events
//!   would then stand before earlier ones, and no repetition could mend that (I3). A failed
//!   append is offered again as it was, before anything behind it.
//! - A record that cannot be taken apart or opened is a dead letter: it goes the same way, as it was, under
//!   a key that is no origin, and has no ordinal (I10).
//! - A shard's position moves from answer to answer: an answer is durable once, for every
//!   topic partition, what was sent is durable up to where the answer ended (I5).
//!   Nothing is kept for single events.

mod appends;
mod places;
mod told;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Instant;

use millpond_connector::mutation::{self, Mutation};
use millpond_connector::topic::{Offset, PartitionId, StoredBatch};
use millpond_format::origin::{ChainLink, ORIGIN_VERSION, Origin};
use millpond_format::record::BatchBuilder;
use millpond_format::sequence::{Position, SequenceNumber};

use crate::aggregate::{Aggregate, is_aggregated};
use crate::checkpoint::{Aggregated, ChainState};
use crate::client::StreamRecord;
use crate::limits::{GROWN_BYTES, MAX_RECORDS_PER_BATCH, MAX_SHARDS_PER_BATCH};
use crate::numbering::{Decompress, Numbering};
use crate::opening::{Allowance, Opener};
use crate::shard::{HashKeyRange, ShardId};

pub use told::{Accepted, AnswerEnd, BadSequence, Batching, Durable};

/// Handle of a shard within one [`Delivery`]: its place, and how often that was given to another before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardIndex {
    slot: usize,
    generation: u64,
}

/// The state of a shard after one answer, reached once, for every topic partition, all that was sent
/// is durable up to `sends`.
#[derive(Debug)]
struct Mark {
    position: Option<Position>,
    ordinals: Vec<u64>,
    sends: Vec<u64>,
    end: AnswerEnd,
}

#[derive(Debug)]
struct Shard {
    id: ShardId,
    generation: u64,
    hash_keys: Option<HashKeyRange>,
    epoch: u64,
    next_ordinals: Vec<u64>,
    /// What was sent to each topic partition, dead letters included, which have no ordinals.
    next_sends: Vec<u64>,
    appended_sends: Vec<u64>,
    durable_sends: Vec<u64>,
    marks: VecDeque<Mark>,
    durable: Durable,
    /// Events of its first record up to here were delivered by somebody else.
    skip: Option<Position>,
}

/// One event on its way into a batch.
#[derive(Debug, Clone, Copy)]
struct Event<'a> {
    sequence: SequenceNumber<'a>,
    sub_sequence: u32,
    arrival_ms: i64,
    partition_key: &'a str,
    value: &'a [u8],
}

/// Reason in the key of a dead letter that is an aggregated record; others are those of [`NotOpened`].
const BROKEN_AGGREGATE: &str = "aggregate";

impl Event<'_> {
    /// The record key of a dead letter: it begins like an origin and is none (see `FORMAT.md`).
    fn write_letter_key(&self, stream: &str, shard: &str, reason: &str, out: &mut String) {
        let (sequence, sub, arrival) = (self.sequence, self.sub_sequence, self.arrival_ms);
        let key = self.partition_key;
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "{ORIGIN_VERSION}/{stream}/{shard}/broken/{sequence}/{sub}/{arrival}/{reason}/{key}"
        );
    }
}

/// Consecutive events of one shard in a batch.
#[derive(Debug, Clone, Copy)]
struct Run {
    shard: ShardIndex,
    next_send: u64,
}

#[derive(Debug)]
struct Sealed {
    batch: StoredBatch,
    runs: Vec<Run>,
}

#[derive(Debug, Default)]
struct Partition {
    open: BatchBuilder,
    runs: Vec<Run>,
    opened_at: Option<Instant>,
    sealed: VecDeque<Sealed>,
    in_flight: bool,
    /// Appended and not released by the topic's consumers: end offset, and how far shards are up to there.
    awaiting: VecDeque<(Offset, Vec<Run>)>,
}

/// The delivery of one stream into one topic.
#[derive(Debug)]
pub struct Delivery {
    stream: String,
    batching: Batching,
    aggregated: Aggregated,
    /// None where no payload is opened.
    opener: Option<Opener>,
    shards: Vec<Shard>,
    /// Places among them that were given up.
    free: Vec<usize>,
    partitions: Vec<Partition>,
    sealed_bytes: usize,
    open_bytes: usize,
    /// What an open batch is given room for once it has grown: all of them together no more than may be buffered.
    reserved_bytes: usize,
    key: String,
    changed: Vec<ShardIndex>,
    /// What is appended counts as durable only once the topic's consumers have released it.
    awaits_release: bool,
}

/// The topic partition of a Kinesis partition key (see `FORMAT.md`).
#[must_use]
pub fn topic_partition(partition_key: &str, partition_count: u32) -> PartitionId {
    let hash = xxhash_rust::xxh3::xxh3_64(partition_key.as_bytes());
    // The remainder is below a u32.
    (hash % u64::from(partition_count.max(1))) as PartitionId
}

impl Delivery {
    /// Delivers `stream` into `partition_count` topic partitions.
    #[must_use]
    pub fn new(
        stream: &str,
        partition_count: u32,
        batching: Batching,
        numbering: impl Into<Numbering>,
    ) -> Self {
        let numbering = numbering.into();
        Self {
            stream: stream.to_owned(),
            batching,
            aggregated: numbering.aggregated,
            opener: (numbering.decompress != Decompress::None)
                .then(|| Opener::new(numbering.decompress)),
            shards: Vec::new(),
            free: Vec::new(),
            partitions: (0..partition_count.max(1))
                .map(|_| Partition::default())
                .collect(),
            sealed_bytes: 0,
            open_bytes: 0,
            reserved_bytes: (batching.max_buffered_bytes / partition_count.max(1) as usize)
                .min(batching.batch_bytes),
            key: String::new(),
            changed: Vec::new(),
            awaits_release: false,
        }
    }

    /// Takes for durable only what the topic's consumers have released, as [`Delivery::released`] says.
    #[must_use]
    pub fn awaiting_release(self) -> Self {
        Self {
            awaits_release: true,
            ..self
        }
    }

    /// Takes up a shard; `chain` is the numbering to go on with.
    ///
    /// A numbering of another number of partitions cannot be continued: the caller begins a new one.
    /// Places of shards that [`Delivery::retain`] gave up are taken first.
    pub fn add_shard(
        &mut self,
        id: ShardId,
        position: Option<Position>,
        mut chain: ChainState,
        unread_since_ms: Option<i64>,
        hash_keys: Option<HashKeyRange>,
    ) -> ShardIndex {
        chain.next_ordinals.resize(self.partitions.len(), 0);
        let free = self.free.pop();
        let generation = free.map_or(0, |slot| self.shards[slot].generation + 1);
        let shard = Shard {
            id,
            generation,
            hash_keys,
            epoch: chain.epoch,
            next_ordinals: chain.next_ordinals.clone(),
            next_sends: vec![0; self.partitions.len()],
            appended_sends: vec![0; self.partitions.len()],
            durable_sends: vec![0; self.partitions.len()],
            marks: VecDeque::new(),
            durable: Durable {
                position,
                chain,
                unread_since_ms,
                caught_up: false,
                finished: false,
            },
            skip: None,
        };
        let slot = free.unwrap_or(self.shards.len());
        match self.shards.get_mut(slot) {
            Some(place) => *place = shard,
            None => self.shards.push(shard),
        }
        ShardIndex { slot, generation }
    }

    /// Leaves out the events of the shard's first record up to and including this position.
    pub fn skip_to(&mut self, index: ShardIndex, position: Position) {
        self.shards[index.slot].skip = Some(position);
    }

    /// The first record of a shard was read: whatever is unread arrived then or later.
    pub fn begins_at(&mut self, index: ShardIndex, arrival_ms: Option<i64>) {
        let since_ms = &mut self.shards[index.slot].durable.unread_since_ms;
        *since_ms = arrival_ms.max(*since_ms);
    }

    /// True when everything taken in of the shard is in the topic.
    #[must_use]
    pub fn is_settled(&self, index: ShardIndex) -> bool {
        let shard = &self.shards[index.slot];
        shard.appended_sends == shard.next_sends
    }

    /// Takes in one answer of a shard, in order.
    ///
    /// The position moves over whole records only, so a replay takes an aggregated record apart
    /// from its first event on, and numbers its events as before.
    ///
    /// # Errors
    /// [`BadSequence`]; records before the bad one are taken in, and the position stays before the answer.
    pub fn accept(
        &mut self,
        index: ShardIndex,
        records: &[StreamRecord],
        end: AnswerEnd,
        now: Instant,
    ) -> Result<Accepted, BadSequence> {
        let mut accepted = Accepted::default();
        let mut arrival_ms = 0;
        let mut position = None;
        for record in records {
            arrival_ms = record.arrival_ms.unwrap_or(arrival_ms);
            let Some(sequence) = SequenceNumber::parse(&record.sequence) else {
                return Err(BadSequence {
                    shard: self.shards[index.slot].id.clone(),
                    sequence: record.sequence.clone(),
                });
            };
            let last = self.take_in(index, record, sequence, arrival_ms, now, &mut accepted);
            position = Some((sequence, last));
            self.shards[index.slot].skip = None;
        }
        let position = position.map(|(sequence, last)| Position::new(sequence, last));
        self.mark(index, position, end);
        Ok(accepted)
    }

    /// Takes in one record; answers the sub-sequence number of its last event.
    fn take_in(
        &mut self,
        index: ShardIndex,
        record: &StreamRecord,
        sequence: SequenceNumber<'_>,
        arrival_ms: i64,
        now: Instant,
        accepted: &mut Accepted,
    ) -> u32 {
        let data = record.data.as_ref();
        let mut event = Event {
            sequence,
            sub_sequence: 0,
            arrival_ms,
            partition_key: &record.partition_key,
            value: data,
        };
        let mut allowance = Allowance::default();
        if self.aggregated == Aggregated::Off || !is_aggregated(data) {
            self.take_event(index, event, now, &mut allowance, accepted);
            return 0;
        }
        let aggregate = match Aggregate::parse(data) {
            Ok(aggregate) => aggregate,
            Err(error) => {
                accepted.broken.push((record.sequence.clone(), error));
                self.send(index, event, Some(BROKEN_AGGREGATE), now);
                return 0;
            }
        };
        let range = match self.aggregated {
            Aggregated::Auto => self.shards[index.slot].hash_keys,
            Aggregated::KeepStray | Aggregated::Off => None,
        };
        for user in aggregate.events() {
            event.sub_sequence = user.sub_sequence;
            if !user.belongs_to(range) {
                accepted.stray += 1;
                continue;
            }
            let event = Event {
                partition_key: user.partition_key,
                value: user.data,
                ..event
            };
            self.take_event(index, event, now, &mut allowance, accepted);
        }
        event.sub_sequence
    }

    /// Opens an event where that is wanted, and sends it.
    fn take_event(
        &mut self,
        index: ShardIndex,
        event: Event<'_>,
        now: Instant,
        allowance: &mut Allowance,
        accepted: &mut Accepted,
    ) {
        let skip = self.shards[index.slot].skip.as_ref();
        let is_new = skip.is_none_or(|skip| {
            let order = skip.cmp_to(event.sequence, event.sub_sequence);
            order.is_lt()
        });
        let Some(mut opener) = self.opener.take() else {
            if is_new {
                self.take_opened(index, event, now, accepted);
            }
            return;
        };
        // What is left of its allowance depends on the events before it, skipped ones too.
        match opener.open(event.value, allowance) {
            _ if !is_new => {}
            Ok(value) => self.take_opened(index, Event { value, ..event }, now, accepted),
            Err(error) => {
                self.send(index, event, Some(error.name()), now);
                let sequence = event.sequence.as_str().to_owned();
                accepted.unopened.push((sequence, error));
            }
        }
        self.opener = Some(opener);
    }

    fn take_opened(
        &mut self,
        index: ShardIndex,
        event: Event<'_>,
        now: Instant,
        accepted: &mut Accepted,
    ) {
        accepted.events += 1;
        accepted.bytes += event.value.len() as u64;
        self.send(index, event, None, now);
    }

    /// Puts an event into the batch of its topic partition, or a dead letter with its reason.
    fn send(&mut self, index: ShardIndex, event: Event<'_>, broken: Option<&str>, now: Instant) {
        let partition_count = self.partitions.len() as u32;
        let shard = &mut self.shards[index.slot];
        let routed_by = match mutation::is(Mutation::RoutedByShard) {
            true => shard.id.as_str(),
            false => event.partition_key,
        };
        let partition_id = topic_partition(routed_by, partition_count) as usize;
        self.key.clear();
        match broken {
            None => {
                let ordinal = shard.next_ordinals[partition_id];
                shard.next_ordinals[partition_id] = ordinal + 1;
                Origin {
                    stream: &self.stream,
                    shard: shard.id.as_str(),
                    sequence: event.sequence,
                    sub_sequence: event.sub_sequence,
                    arrival_ms: event.arrival_ms,
                    chain: ChainLink {
                        epoch: shard.epoch,
                        ordinal,
                    },
                    partition_key: event.partition_key,
                }
                .write_to(&mut self.key);
            }
            Some(reason) => {
                event.write_letter_key(&self.stream, shard.id.as_str(), reason, &mut self.key)
            }
        }
        shard.next_sends[partition_id] += 1;
        let run = Run {
            shard: index,
            next_send: shard.next_sends[partition_id],
        };

        let value = event.value;
        let room = self.batching.batch_bytes;
        let partition = &mut self.partitions[partition_id];
        let before = partition.open.raw_len();
        let full = before + self.key.len() + value.len() > room
            || partition.open.record_count() >= MAX_RECORDS_PER_BATCH
            || partition.runs.len() >= MAX_SHARDS_PER_BATCH;
        if full {
            self.seal(partition_id);
        }
        let partition = &mut self.partitions[partition_id];
        let before = partition.open.raw_len();
        if before >= GROWN_BYTES {
            partition.open.reserve(self.reserved_bytes);
        }
        partition
            .open
            .push(Some(self.key.as_bytes()), value, event.arrival_ms);
        partition.opened_at.get_or_insert(now);
        match partition.runs.last_mut() {
            Some(last) if last.shard == index => *last = run,
            _ => partition.runs.push(run),
        }
        self.open_bytes += partition.open.raw_len() - before;
        if partition.open.raw_len() >= room {
            self.seal(partition_id);
        }
    }

    /// Shards whose durable state moved since the last call.
    pub fn take_changed(&mut self) -> Vec<ShardIndex> {
        std::mem::take(&mut self.changed)
    }

    /// What of the shard is durable.
    #[must_use]
    pub fn durable(&self, index: ShardIndex) -> &Durable {
        &self.shards[index.slot].durable
    }

    /// The shard behind a handle.
    #[must_use]
    pub fn shard_id(&self, index: ShardIndex) -> &ShardId {
        &self.shards[index.slot].id
    }

    /// Bytes in open and sealed batches, those in flight included.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.sealed_bytes + self.open_bytes
    }

    /// True while no more should be taken in.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.buffered_bytes() >= self.batching.max_buffered_bytes
    }

    /// True when everything taken in is durable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let done = |p: &Partition| p.sealed.is_empty() && p.open.record_count() == 0;
        self.partitions.iter().all(done)
    }
}

#[cfg(test)]
mod release_tests;
#[cfg(test)]
#[path = "delivery_tests.rs"]
mod tests;
