//! Counts events by shard, numbering and topic partition. Pure.
//!
//! A header says of a source only its span of ordinals and how many are here: events of other
//! groups lie within. But over all groups of a topic partition every ordinal must be there once.
//! So sums decide: as many events as ordinals, no more and no less. Where frames are decoded
//! every single ordinal is known; its hashes are added up, and the sum must be that of the range.
//! Order does not matter to a sum, so nothing need be kept but one number a shard.

use std::collections::BTreeMap;

use millpond_format::header::{Header, Kind};
use millpond_format::origin::Origin;
use millpond_format::sequence::Position;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::finding::ShardKey;

/// Hash of an ordinal; sums of it tell sets of ordinals apart.
pub(super) fn ordinal_hash(ordinal: u64) -> u64 {
    xxh3_64(&ordinal.to_le_bytes())
}

/// What is known of the events of one shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events in the table.
    pub events: u64,
    /// Events among the dead letters.
    pub dead_letters: u64,
    /// Lowest ordinal of them.
    pub first: u64,
    /// Highest ordinal.
    pub last: u64,
    /// Position that goes with the lowest.
    pub first_position: Option<Position>,
    /// Position that goes with the highest.
    pub last_position: Option<Position>,
    /// Sum of the hashes of all ordinals; of decoded events only.
    pub(super) ordinals: u64,
    /// Events whose single ordinals and values are not known, though frames are decoded.
    pub(super) opaque: u64,
    /// Events compared with the stream, and the sum of the hashes of their values.
    pub(super) compared: u64,
    pub(super) values: u128,
}

/// Events of one shard within one numbering.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span<'a> {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) first_position: Option<&'a Position>,
    pub(crate) last_position: Option<&'a Position>,
}

impl Tally {
    fn widen(&mut self, span: Span<'_>) {
        let is_new = self.events + self.dead_letters == 0 && self.first_position.is_none();
        if is_new || span.first < self.first {
            self.first = span.first;
            self.first_position = span.first_position.cloned();
        }
        if is_new || span.last > self.last {
            self.last = span.last;
            self.last_position = span.last_position.cloned();
        }
    }

    fn merge(&mut self, other: &Self) {
        self.widen(Span {
            first: other.first,
            last: other.last,
            first_position: other.first_position.as_ref(),
            last_position: other.last_position.as_ref(),
        });
        self.events += other.events;
        self.dead_letters += other.dead_letters;
        self.ordinals = self.ordinals.wrapping_add(other.ordinals);
        self.opaque += other.opaque;
        self.compared += other.compared;
        self.values = self.values.wrapping_add(other.values);
    }
}

/// From which ordinal on the values of a shard are compared with the stream.
pub(crate) type Thresholds = BTreeMap<ShardKey, u64>;

/// Counts of all shards, or of those of one chain.
#[derive(Debug, Default)]
pub(crate) struct Census {
    pub(crate) shards: BTreeMap<ShardKey, Tally>,
    /// Events that no numbering covers: of other producers than a source of Millpond.
    pub(crate) unnumbered: u64,
}

impl Census {
    pub(crate) fn merge(&mut self, other: Self) {
        for (key, tally) in other.shards {
            match self.shards.get_mut(&key) {
                Some(known) => known.merge(&tally),
                None => {
                    self.shards.insert(key, tally);
                }
            }
        }
        self.unnumbered += other.unnumbered;
    }

    fn tally(&mut self, key: ShardKey) -> &mut Tally {
        self.shards.entry(key).or_default()
    }

    /// Counts what a header says; `is_letter` for a refused item.
    pub(crate) fn header(&mut self, topic_partition: u32, header: &Header, is_letter: bool) {
        for source in &header.sources {
            let count = match header.kind {
                Kind::Events => source.count,
                Kind::Part(part) => u64::from(part.is_last()),
                Kind::Reject(_) => 1,
            };
            if source.stream.is_empty() {
                self.unnumbered += count;
                continue;
            }
            let tally = self.tally(ShardKey {
                topic_partition,
                stream: source.stream.as_str().into(),
                shard: source.shard.as_str().into(),
                epoch: source.epoch,
            });
            tally.widen(Span {
                first: source.first_ordinal,
                last: source.last_ordinal,
                first_position: Some(&source.first),
                last_position: Some(&source.last),
            });
            if is_letter {
                tally.dead_letters += count;
                tally.opaque += count;
            } else {
                tally.events += count;
            }
        }
    }

    /// Takes note that frames of an item could not be decoded.
    pub(crate) fn undecoded(&mut self, topic_partition: u32, header: &Header) {
        for source in &header.sources {
            let tally = self.tally(ShardKey {
                topic_partition,
                stream: source.stream.as_str().into(),
                shard: source.shard.as_str().into(),
                epoch: source.epoch,
            });
            tally.opaque += source.count;
        }
    }

    /// Takes one decoded event of an item that [`Census::header`] has counted.
    pub(crate) fn decoded(
        &mut self,
        key: &ShardKey,
        ordinal: u64,
        value_hash: u128,
        thresholds: &Thresholds,
    ) {
        let tally = self.tally(key.clone());
        tally.ordinals = tally.ordinals.wrapping_add(ordinal_hash(ordinal));
        if thresholds.get(key).is_some_and(|from| ordinal >= *from) {
            tally.compared += 1;
            tally.values = tally.values.wrapping_add(value_hash);
        }
    }

    /// Counts an event by its origin.
    pub(crate) fn origin(
        &mut self,
        topic_partition: u32,
        origin: &Origin<'_>,
        is_letter: bool,
        value: Option<&[u8]>,
        thresholds: &Thresholds,
    ) {
        if origin.chain.epoch == 0 && origin.shard.starts_with("partition-") {
            // A record of another producer: the topic itself counts these.
            self.unnumbered += 1;
            return;
        }
        let key = ShardKey {
            topic_partition,
            stream: origin.stream.into(),
            shard: origin.shard.into(),
            epoch: origin.chain.epoch,
        };
        let position = Position::new(origin.sequence, origin.sub_sequence);
        let ordinal = origin.chain.ordinal;
        let tally = self.tally(key.clone());
        tally.widen(Span {
            first: ordinal,
            last: ordinal,
            first_position: Some(&position),
            last_position: Some(&position),
        });
        if is_letter {
            tally.dead_letters += 1;
        } else {
            tally.events += 1;
        }
        match value {
            Some(value) => self.decoded(&key, ordinal, xxh3_128(value), thresholds),
            None => {
                let tally = self.tally(key);
                tally.ordinals = tally.ordinals.wrapping_add(ordinal_hash(ordinal));
            }
        }
    }
}
