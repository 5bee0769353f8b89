//! The truth about every event, and the invariants, checked whenever something becomes durable.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use millpond_connector::topic::{Offset, PartitionId, StoredBatch};
use millpond_dynamodb_sink::row::Row;
use millpond_format::gap::ChainGap;
use millpond_format::keys::topic_partition;
use millpond_format::origin::Origin;
use millpond_format::record::Records;
use millpond_kinesis_source::checkpoint::{Progress, StreamCheckpoint};
use millpond_sink::gaps::OnGap;

use crate::items::Items;
use crate::scenario::Scenario;
use crate::world::Violation;

/// What a configuration makes of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is in the table, in this group.
    Grouped(String),
    /// It is a dead letter, for this reason.
    Rejected(&'static str),
    /// A SmartModule removes it.
    Removed,
}

/// An event that the stream has accepted.
#[derive(Debug, Clone)]
pub struct Event {
    /// Kinesis partition key.
    pub key: String,
    /// What is to become of it with each configuration.
    pub fates: [Fate; 2],
    /// Its bytes.
    pub value: Bytes,
    /// Shard that took it.
    pub shard: String,
    /// Durable in the topic.
    pub durable: bool,
    /// It was released while the topic had it: a checkpoint may be behind it for good.
    pub settled: bool,
}

/// A shard as the stream lists it.
#[derive(Debug, Clone)]
pub struct ShardTruth {
    /// Its id.
    pub id: String,
    /// The shards that it was made from.
    pub parents: Vec<String>,
    /// It takes no more records.
    pub closed: bool,
}

/// Place of an event in the chain of shard and topic partition.
pub type Link = (PartitionId, String, u64, u64);

/// What is known, and what was seen.
pub struct Oracle {
    /// Events in the order in which they were put.
    pub events: Vec<Event>,
    /// Events by shard, sequence number and sub-sequence number.
    placed: HashMap<(String, String, u32), usize>,
    /// Events of each shard, in order.
    shard_events: BTreeMap<String, Vec<usize>>,
    /// Last event of each record, as an index into its shard's events.
    record_ends: HashMap<(String, String), usize>,
    shards: BTreeMap<String, ShardTruth>,
    /// Events of each topic partition by offset.
    pub log: Vec<Vec<usize>>,
    /// The same of topics that are lost, the first one first.
    lost_logs: Vec<Vec<Vec<usize>>>,
    /// The links of the same.
    log_links: Vec<Vec<Link>>,
    /// Everything before this offset is not stored any more, and was not released when it went.
    lost: BTreeMap<PartitionId, Offset>,
    /// The event that each link names.
    pub links: HashMap<Link, usize>,
    partitions: u32,
    /// What the sink does about data that is gone.
    pub on_gap: OnGap,
    /// A SmartModule removes records, with one configuration at least.
    pub filters_ever: bool,
    /// What the table shows.
    pub items: Items,
}

/// A broken rule.
///
/// # Errors
/// Always.
pub fn broken<T>(rule: &'static str, what: String) -> Result<T, Violation> {
    Err(Violation { rule, what })
}

impl Oracle {
    /// Nothing has happened.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        Self {
            events: Vec::new(),
            placed: HashMap::new(),
            shard_events: BTreeMap::new(),
            record_ends: HashMap::new(),
            shards: BTreeMap::new(),
            log: vec![Vec::new(); scenario.partitions as usize],
            lost_logs: Vec::new(),
            log_links: vec![Vec::new(); scenario.partitions as usize],
            lost: BTreeMap::new(),
            links: HashMap::new(),
            partitions: scenario.partitions,
            on_gap: scenario.on_gap,
            filters_ever: scenario.configs.iter().any(|config| config.filter),
            items: Items::new(),
        }
    }

    /// The shards that there are.
    pub fn shards_are(&mut self, shards: Vec<ShardTruth>) {
        for shard in shards {
            self.shards.insert(shard.id.clone(), shard);
        }
    }

    /// Ids of the open shards, in order.
    #[must_use]
    pub fn open_shards(&self) -> Vec<String> {
        let open = self.shards.values().filter(|shard| !shard.closed);
        open.map(|shard| shard.id.clone()).collect()
    }

    /// The stream has accepted these events as one record.
    pub fn accepted(&mut self, sequence: &str, events: Vec<Event>) {
        for (sub_sequence, event) in events.into_iter().enumerate() {
            let index = self.events.len();
            let of_shard = self.shard_events.entry(event.shard.clone()).or_default();
            of_shard.push(index);
            let record = (event.shard.clone(), sequence.to_owned());
            self.record_ends.insert(record, of_shard.len() - 1);
            let place = (
                event.shard.clone(),
                sequence.to_owned(),
                sub_sequence as u32,
            );
            self.placed.insert(place, index);
            self.events.push(event);
        }
    }

    /// The event of an origin.
    ///
    /// # Errors
    /// When the stream never held it.
    pub fn event_of(&self, origin: &Origin<'_>) -> Result<usize, Violation> {
        let place = (
            origin.shard.to_owned(),
            origin.sequence.to_string(),
            origin.sub_sequence,
        );
        match self.placed.get(&place) {
            Some(index) => Ok(*index),
            None => broken(
                "I12",
                format!("there is no event with the origin {origin:?}"),
            ),
        }
    }

    /// A batch is durable in the topic.
    ///
    /// # Errors
    /// What it breaks.
    pub fn appended(
        &mut self,
        partition: PartitionId,
        base: Offset,
        batch: &StoredBatch,
    ) -> Result<(), Violation> {
        let records = match Records::new(&batch.raw) {
            Ok(records) => records,
            Err(error) => return broken("I12", format!("a batch that cannot be read: {error}")),
        };
        for (delta, record) in records.enumerate() {
            let offset = base + delta as u64;
            let record = match record {
                Ok(record) => record,
                Err(error) => return broken("I12", format!("offset {offset}: {error}")),
            };
            let origin = match Origin::parse(record.key.unwrap_or_default()) {
                Ok(origin) => origin,
                Err(error) => return broken("I12", format!("offset {offset}: {error}")),
            };
            let index = self.event_of(&origin)?;
            let event = &self.events[index];
            if event.value != record.value || event.key != origin.partition_key {
                return broken(
                    "I12",
                    format!("event {index} was changed on its way to the topic"),
                );
            }
            let expected = topic_partition(&event.key, self.partitions);
            if expected != partition {
                return broken(
                    "I3",
                    format!(
                        "event {index} is in topic partition {partition}, its key belongs to {expected}"
                    ),
                );
            }
            let link = (
                partition,
                origin.shard.to_owned(),
                origin.chain.epoch,
                origin.chain.ordinal,
            );
            if let Some(other) = self.links.insert(link.clone(), index)
                && other != index
            {
                return broken(
                    "I2",
                    format!("events {other} and {index} have one link: {origin:?}"),
                );
            }
            if !event.durable {
                self.first_time(index)?;
            }
            self.log[partition as usize].push(index);
            self.log_links[partition as usize].push(link);
        }
        Ok(())
    }

    /// An event has become durable: what had to come before it?
    fn first_time(&mut self, index: usize) -> Result<(), Violation> {
        let event = &self.events[index];
        let earlier = self.events[..index].iter();
        if let Some(skipped) = earlier
            .enumerate()
            .find(|(_, other)| other.key == event.key && !other.durable)
            .map(|(skipped, _)| skipped)
        {
            return broken(
                "I3",
                format!("event {index} overtook event {skipped} of its key"),
            );
        }
        let parents = self.shards.get(&event.shard).map(|shard| &shard.parents);
        for parent in parents.into_iter().flatten() {
            if let Some(left) = self.first_missing(parent, usize::MAX) {
                return broken(
                    "I4",
                    format!(
                        "event {index} of shard {} before event {left} of its parent {parent}",
                        event.shard
                    ),
                );
            }
        }
        self.events[index].durable = true;
        Ok(())
    }

    /// The first of a shard's first `count` events that is not durable.
    fn first_missing(&self, shard: &str, count: usize) -> Option<usize> {
        let events = self.shard_events.get(shard)?;
        let mut events = events.iter().take(count).copied();
        events.find(|index| !self.events[*index].durable)
    }

    /// A checkpoint is durable.
    ///
    /// # Errors
    /// When it passes an event that is not (I5).
    pub fn checkpointed(&self, checkpoint: &StreamCheckpoint) -> Result<(), Violation> {
        for (shard, entry) in &checkpoint.shards {
            let shard = shard.as_str();
            let count = match &entry.progress {
                Progress::NotBegun | Progress::Begun { .. } => 0,
                Progress::Delivered { sequence, .. } => {
                    let record = (shard.to_owned(), sequence.clone());
                    match self.record_ends.get(&record) {
                        Some(end) => end + 1,
                        None => {
                            return broken("I5", format!("shard {shard} has no record {sequence}"));
                        }
                    }
                }
                Progress::Finished => {
                    let truth = self.shards.get(shard);
                    if truth.is_none_or(|shard| !shard.closed) {
                        return broken(
                            "I5",
                            format!("shard {shard} is checkpointed as finished and is open"),
                        );
                    }
                    usize::MAX
                }
            };
            if let Some(missing) = self.first_missing(shard, count) {
                return broken(
                    "I5",
                    format!("the checkpoint of shard {shard} passed event {missing}"),
                );
            }
        }
        Ok(())
    }

    /// The topic is lost, with what was released of each of its partitions and what was not.
    pub fn topic_lost(&mut self, released: &[Offset]) {
        for (log, released) in self.log.iter().zip(released) {
            for index in log.iter().take(*released as usize) {
                self.events[*index].settled = true;
            }
        }
        for event in &mut self.events {
            event.durable = event.settled;
        }
        let partitions = self.partitions as usize;
        self.log_links = vec![Vec::new(); partitions];
        let lost = std::mem::replace(&mut self.log, vec![Vec::new(); partitions]);
        self.lost_logs.push(lost);
    }

    /// Events of a topic partition by offset, of the topic with this identity.
    #[must_use]
    pub fn log_of(&self, identity: &str, partition: PartitionId) -> &[usize] {
        let generation = identity.parse().unwrap_or(0);
        let log = self.lost_logs.get(generation).unwrap_or(&self.log);
        &log[partition as usize]
    }

    /// True for the identity of the topic that is there now, and for none.
    #[must_use]
    pub fn is_current(&self, identity: &str) -> bool {
        identity.is_empty() || identity.parse() == Ok(self.lost_logs.len())
    }

    /// A row is deleted from the table.
    ///
    /// # Errors
    /// What it breaks.
    pub fn row_removed(&mut self, row: &Row) -> Result<(), Violation> {
        self.items.row_removed(row)
    }

    /// The topic holds nothing before `earliest` any more, released or not.
    pub fn lost(&mut self, partition: PartitionId, earliest: Offset) {
        self.lost.insert(partition, earliest);
    }

    /// First offset that was not lost.
    #[must_use]
    pub fn lost_to(&self, partition: PartitionId) -> Offset {
        self.lost.get(&partition).copied().unwrap_or(0)
    }

    /// How many of the ordinals that a gap names stood at offsets of which something is true.
    #[must_use]
    pub fn ordinals_at(
        &self,
        partition: PartitionId,
        gap: &ChainGap,
        is_wanted: impl Fn(Offset) -> bool,
    ) -> u64 {
        let log = self.log_links[partition as usize].iter().enumerate();
        let named = log.filter(|(offset, (_, shard, epoch, ordinal))| {
            *shard == gap.shard
                && *epoch == gap.epoch
                && (gap.first..=gap.last).contains(ordinal)
                && is_wanted(*offset as Offset)
        });
        let ordinals: BTreeSet<u64> = named.map(|(_, (.., ordinal))| *ordinal).collect();
        ordinals.len() as u64
    }

    /// The topic partition that an event belongs to.
    #[must_use]
    pub fn partition_of(&self, index: usize) -> PartitionId {
        topic_partition(&self.events[index].key, self.partitions)
    }

    /// Offsets at which an event stands.
    pub fn offsets_of(&self, index: usize) -> impl Iterator<Item = (PartitionId, Offset)> {
        let partition = self.partition_of(index);
        let log = self.log[partition as usize].iter().enumerate();
        log.filter(move |(_, other)| **other == index)
            .map(move |(offset, _)| (partition, offset as Offset))
    }

    /// Topic partitions that cannot go on: the ledger stands before what was lost, and nobody may pass it.
    #[must_use]
    pub fn is_stuck(&self, partition: PartitionId) -> bool {
        self.on_gap == OnGap::Halt
            && self
                .items
                .ledger(partition)
                .is_some_and(|row| row.committed < self.lost_to(partition))
    }

    /// A row is put into the table.
    ///
    /// # Errors
    /// What it breaks.
    pub fn row_put(&mut self, old: Option<&Row>, new: &Row) -> Result<(), Violation> {
        let mut items = std::mem::take(&mut self.items);
        let seen = items.row_put(self, old, new);
        self.items = items;
        seen
    }

    /// A row is put into the table of dead letters.
    ///
    /// # Errors
    /// What it breaks.
    pub fn letter_put(&mut self, old: Option<&Row>, new: &Row) -> Result<(), Violation> {
        let mut items = std::mem::take(&mut self.items);
        let seen = items.letter_put(self, old, new);
        self.items = items;
        seen
    }

    /// True when every event is durable in the topic.
    #[must_use]
    pub fn all_durable(&self) -> bool {
        self.events.iter().all(|event| event.durable)
    }

    /// True when the ledger stands at the end of every topic partition, and no plan is open.
    #[must_use]
    pub fn all_committed(&self) -> bool {
        (0..self.partitions)
            .all(|partition| self.is_stuck(partition) || self.items.is_committed(self, partition))
    }

    /// At the end: every event once, in its place, as it was put.
    ///
    /// # Errors
    /// The first that is not.
    pub fn complete(&self) -> Result<(), Violation> {
        self.items.complete(self)
    }
}
