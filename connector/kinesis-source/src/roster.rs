//! The shards of the stream with what is known of each: lineage and checkpoint, kept in step.
//!
//! Pure. Whatever changes here is in the next writes; what must be durable before
//! something happens is said at the method. Where the shards are shared, only what is written of a
//! shard under a lease counts: of the others this holds what was seen last.

mod rows;

use std::collections::{BTreeMap, BTreeSet};

use millpond_connector::mutation::{self, Mutation};
use millpond_format::sequence::{Position, SequenceNumber};

use crate::checkpoint::{ChainState, PinnedStart, Progress, ShardCheckpoint, StreamCheckpoint};
use crate::client::{ReadFrom, ShardScope};
use crate::delivery::Durable;
use crate::limits::READ_THROUGH_GRANULARITY_MS;
use crate::lineage::{Lineage, ListingTicket, Stage};
use crate::loss::Lost;
use crate::numbering::Numbering;
use crate::shard::{HashKeyRange, ShardId, ShardInfo};
use crate::shard_figures::ShardFigures;

/// How to begin with a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeginOrder {
    /// Where to read from.
    pub from: ReadFrom,
    /// Nothing was read before: the first record must be remembered before it is sent.
    pub unpinned: bool,
    /// Last delivered position.
    pub position: Option<Position>,
    /// Numbering to go on with.
    pub chain: ChainState,
    /// Every unread record arrived at this time or later, milliseconds since the Unix epoch.
    pub unread_since_ms: Option<i64>,
    /// The hash keys whose records the shard takes, where that is known.
    pub hash_keys: Option<HashKeyRange>,
    /// Events of the first record up to here were delivered by somebody else.
    pub skip: Option<Position>,
}

/// All shards of one stream.
#[derive(Debug)]
pub struct Roster {
    checkpoint: StreamCheckpoint,
    lineage: Lineage,
    hash_keys: BTreeMap<ShardId, HashKeyRange>,
    /// Where shards begin that do not begin with the stream.
    starts: BTreeMap<ShardId, PinnedStart>,
    children: BTreeMap<ShardId, Vec<ShardId>>,
    bytes_per_second: BTreeMap<ShardId, u64>,
    figures: BTreeMap<ShardId, ShardFigures>,
    partition_count: usize,
    entered: BTreeSet<ShardId>,
    changed: BTreeSet<ShardId>,
    forgotten: BTreeSet<ShardId>,
    unseen: BTreeSet<ShardId>,
    dirty: bool,
}

impl Roster {
    /// Begins with nothing read of a stream.
    #[must_use]
    pub fn fresh(
        stream: &str,
        stream_created_ms: i64,
        start: PinnedStart,
        numbering: impl Into<Numbering>,
        partition_count: u32,
    ) -> Self {
        let aggregated = numbering.into();
        let checkpoint = StreamCheckpoint {
            stream: stream.to_owned(),
            stream_created_ms,
            start,
            aggregated,
            shards: BTreeMap::new(),
        };
        Self::resume(checkpoint, aggregated, partition_count, 0)
    }

    /// Goes on from a checkpoint.
    ///
    /// Chains of another number of topic partitions, or by other rules of numbering,
    /// cannot be continued: what was sent after the checkpoint may have been numbered otherwise. They
    /// begin anew, with an epoch of `now_ms` or just after the old one. The roster must be saved before
    /// anything is sent under it.
    #[must_use]
    pub fn resume(
        mut checkpoint: StreamCheckpoint,
        numbering: impl Into<Numbering>,
        partition_count: u32,
        now_ms: i64,
    ) -> Self {
        let aggregated = numbering.into();
        let partition_count = partition_count as usize;
        let numbered_otherwise = checkpoint.aggregated != aggregated;
        checkpoint.aggregated = aggregated;
        let mut lineage = Lineage::default();
        let mut changed = BTreeSet::new();
        for (id, shard) in &mut checkpoint.shards {
            lineage.resume(shard.info(id), shard.is_finished());
            if let Progress::Begun { chain, .. } | Progress::Delivered { chain, .. } =
                &mut shard.progress
                && (numbered_otherwise || chain.next_ordinals.len() != partition_count)
            {
                *chain = new_chain(now_ms, chain.epoch + 1, partition_count);
                changed.insert(id.clone());
            }
        }
        Self {
            checkpoint,
            lineage,
            hash_keys: BTreeMap::new(),
            starts: BTreeMap::new(),
            children: BTreeMap::new(),
            bytes_per_second: BTreeMap::new(),
            figures: BTreeMap::new(),
            partition_count,
            entered: BTreeSet::new(),
            changed,
            forgotten: BTreeSet::new(),
            unseen: BTreeSet::new(),
            dirty: true,
        }
    }

    /// Another process was the first to say where the stream begins. Nothing may be begun yet.
    pub fn set_start(&mut self, start: PinnedStart) {
        self.checkpoint.start = start;
    }

    /// What a save must hold.
    #[must_use]
    pub fn checkpoint(&self) -> &StreamCheckpoint {
        &self.checkpoint
    }

    /// True when something worth a save changed since the last call of [`Roster::take_writes`].
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// True while the shard has a change that was not taken by [`Roster::take_writes`].
    #[must_use]
    pub fn is_changed(&self, id: &ShardId) -> bool {
        self.changed.contains(id) || self.entered.contains(id)
    }

    /// Which shards to list: those that can hold an event from the pinned start on.
    #[must_use]
    pub fn scope(&self) -> ShardScope {
        match self.checkpoint.start {
            PinnedStart::TrimHorizon => ShardScope::All,
            PinnedStart::Timestamp { ms } => ShardScope::OpenSince(ms),
        }
    }

    /// See [`Lineage::begin_listing`].
    pub fn begin_listing(&mut self) -> ListingTicket {
        self.lineage.begin_listing()
    }

    /// Takes in a whole listing. Answers the shards that were expected and have expired
    /// unread.
    pub fn listed(
        &mut self,
        ticket: ListingTicket,
        shards: &[ShardInfo],
        pages: usize,
    ) -> Vec<ShardId> {
        let outcome = self.lineage.listed(ticket, shards, pages);
        self.learn(shards);
        for id in &outcome.added {
            self.enter(id);
        }
        self.doubt_children_of(&outcome.unseen);
        self.unseen.extend(outcome.unseen);
        for id in &outcome.forgotten {
            self.checkpoint.shards.remove(id);
            self.hash_keys.remove(id);
            self.starts.remove(id);
            self.children.remove(id);
            self.bytes_per_second.remove(id);
            self.figures.remove(id);
            self.forgotten.insert(id.clone());
            self.dirty = true;
        }
        outcome.vanished
    }

    /// Shards that were closed and removed before anybody heard of them, since the last call.
    pub fn take_unseen(&mut self) -> Vec<ShardId> {
        std::mem::take(&mut self.unseen).into_iter().collect()
    }

    /// Shards that are not read to their end.
    #[must_use]
    pub fn unfinished(&self) -> u32 {
        let shards = self.lineage.shards();
        let count = shards
            .filter(|(_, stage)| *stage != Stage::Finished)
            .count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// The hash keys whose records the shard takes, where that is known.
    #[must_use]
    pub fn hash_keys(&self, id: &ShardId) -> Option<HashKeyRange> {
        self.hash_keys.get(id).copied()
    }

    /// Goes on behind a loss, under a new numbering. Must be saved before anything is sent under it.
    pub fn renumber(&mut self, id: &ShardId, lost: &Lost, now_ms: i64) -> ChainState {
        let entry = self.checkpoint.shards.get_mut(id);
        let before = entry.as_ref().and_then(|entry| entry.progress.chain());
        let epoch = before.map_or(0, |chain| chain.epoch + 1);
        let new = new_chain(now_ms, epoch, self.partition_count);
        let Some(entry) = entry else {
            return new;
        };
        entry.progress = match (&lost.first, &entry.progress) {
            (Some(first), _) => Progress::Begun {
                first: first.sequence.clone(),
                chain: new.clone(),
            },
            (
                None,
                Progress::Delivered {
                    sequence,
                    sub_sequence,
                    ..
                },
            ) => Progress::Delivered {
                sequence: sequence.clone(),
                sub_sequence: *sub_sequence,
                partial: false,
                chain: new.clone(),
            },
            // What was to be sent again from its first record on is lost with it.
            (None, Progress::NotBegun | Progress::Begun { .. } | Progress::Finished) => {
                Progress::NotBegun
            }
        };
        entry.unread_since_ms = entry.unread_since_ms.max(lost.unread_since_ms);
        self.touch(id);
        new
    }

    fn learn(&mut self, shards: &[ShardInfo]) {
        for shard in shards {
            if let Some(range) = shard.hash_keys {
                self.hash_keys.insert(shard.id.clone(), range);
            }
        }
    }

    /// Of shards that come after one that nobody heard of, events may have expired as well: nothing is known of
    /// them since the oldest that is known of any.
    fn doubt_children_of(&mut self, unseen: &BTreeSet<ShardId>) {
        let unfinished = |entry: &&ShardCheckpoint| !entry.is_finished();
        let known = self.checkpoint.shards.values().filter(unfinished);
        let since_ms = known.filter_map(|entry| entry.unread_since_ms).min();
        for entry in self.checkpoint.shards.values_mut() {
            let follows = entry.parents.iter().any(|parent| unseen.contains(parent));
            if follows && entry.progress == Progress::NotBegun {
                entry.unread_since_ms = entry.unread_since_ms.or(since_ms);
            }
        }
    }

    fn enter(&mut self, id: &ShardId) {
        let parents = self.lineage.parents(id).to_vec();
        let unread_since_ms = match self.checkpoint.start {
            // A child's records are younger than those of its parents, which say how old.
            _ if self.is_child(&parents) => None,
            PinnedStart::Timestamp { ms } => Some(ms),
            PinnedStart::TrimHorizon => None,
        };
        let entry = ShardCheckpoint::not_begun(parents, unread_since_ms);
        self.checkpoint.shards.insert(id.clone(), entry);
        self.entered.insert(id.clone());
        self.dirty = true;
    }

    fn is_child(&self, parents: &[ShardId]) -> bool {
        let known = |id| self.lineage.stage(id).is_some();
        parents.iter().any(known)
    }

    /// Shards that may begin now.
    #[must_use]
    pub fn startable(&self) -> Vec<ShardId> {
        self.lineage.startable()
    }

    /// See [`Lineage::needs_listing`].
    #[must_use]
    pub fn needs_listing(&self) -> bool {
        self.lineage.needs_listing()
    }

    /// Begins a shard that may start.
    pub fn begin(&mut self, id: &ShardId, now_ms: i64) -> BeginOrder {
        let parents = self.lineage.parents(id).to_vec();
        let is_child = self.is_child(&parents);
        // Where shards are shared, parents may have ended elsewhere after the child was entered.
        let ends = parents.iter().filter_map(|parent| {
            let parent = self.checkpoint.shards.get(parent)?;
            parent.unread_since_ms
        });
        let parents_since_ms = ends.min();
        self.lineage.start(id);
        let entry = self
            .checkpoint
            .shards
            .entry(id.clone())
            .or_insert_with(|| ShardCheckpoint::not_begun(parents, None));
        if entry.progress == Progress::NotBegun {
            entry.unread_since_ms = match (entry.unread_since_ms, parents_since_ms) {
                (Some(known), Some(parent)) => Some(known.min(parent)),
                (known, parent) => known.or(parent),
            };
        }
        let order = BeginOrder {
            from: ReadFrom::TrimHorizon,
            unpinned: false,
            position: None,
            chain: match entry.progress.chain() {
                Some(chain) if mutation::is(Mutation::OrdinalsForgotten) => {
                    new_chain(0, chain.epoch, self.partition_count)
                }
                Some(chain) => chain.clone(),
                None => new_chain(now_ms, 0, self.partition_count),
            },
            unread_since_ms: entry.unread_since_ms,
            hash_keys: self.hash_keys.get(id).copied(),
            skip: None,
        };
        match &entry.progress {
            Progress::Begun { first, .. } => BeginOrder {
                from: ReadFrom::At(first.clone()),
                ..order
            },
            Progress::Delivered {
                sequence,
                sub_sequence,
                partial,
                ..
            } => {
                let position = SequenceNumber::parse(sequence)
                    .map(|sequence| Position::new(sequence, *sub_sequence));
                BeginOrder {
                    from: if *partial || mutation::is(Mutation::PositionOneOff) {
                        ReadFrom::At(sequence.clone())
                    } else {
                        ReadFrom::After(sequence.clone())
                    },
                    skip: position.clone().filter(|_| *partial),
                    position,
                    ..order
                }
            }
            Progress::NotBegun | Progress::Finished => BeginOrder {
                from: match (self.starts.get(id), self.checkpoint.start) {
                    (Some(PinnedStart::Timestamp { ms }), _) => ReadFrom::Timestamp(*ms),
                    (None, PinnedStart::Timestamp { ms }) if !is_child => ReadFrom::Timestamp(ms),
                    _ => ReadFrom::TrimHorizon,
                },
                unpinned: true,
                ..order
            },
        }
    }

    /// The first record of a shard was read. Must be saved before the record is sent.
    pub fn first_read(
        &mut self,
        id: &ShardId,
        sequence: String,
        arrival_ms: Option<i64>,
        chain: ChainState,
    ) {
        if let Some(entry) = self.checkpoint.shards.get_mut(id) {
            entry.progress = Progress::Begun {
                first: sequence,
                chain,
            };
            entry.unread_since_ms = entry.unread_since_ms.max(arrival_ms);
            self.touch(id);
        }
    }

    /// Takes in what became durable of a shard that goes on.
    pub fn delivered(&mut self, id: &ShardId, durable: &Durable) {
        let mut is_changed = self.changed.contains(id);
        let Some(entry) = self.checkpoint.shards.get_mut(id) else {
            return;
        };
        if let Some(position) = &durable.position {
            let progress = match Progress::delivered(position, durable.chain.clone()) {
                // Nothing was read since it was taken over in the middle of a record.
                progress if progress.is_at(&entry.progress) => entry.progress.clone(),
                progress => progress,
            };
            is_changed |= entry.progress != progress;
            entry.progress = progress;
        }
        let known = entry.unread_since_ms.unwrap_or(0);
        let moved = durable.unread_since_ms.unwrap_or(0).saturating_sub(known);
        // Small steps wait: an idle stream would else write a checkpoint every second.
        if moved >= READ_THROUGH_GRANULARITY_MS || (is_changed && moved > 0) {
            entry.unread_since_ms = durable.unread_since_ms;
            is_changed = true;
        }
        if is_changed {
            self.touch(id);
        }
    }

    /// Everything of a shard is durable, and these were made from it.
    ///
    /// Child and finished parent reach the checkpoint together, so that a child cannot
    /// be forgotten between them.
    pub fn finished(&mut self, id: &ShardId, children: &[ShardInfo], durable: &Durable) {
        for child in self.lineage.children(children) {
            self.enter(&child);
        }
        self.learn(children);
        self.lineage.finish(id);
        let names = children.iter().map(|child| child.id.clone());
        self.children.insert(id.clone(), names.collect());
        self.touch(id);
        let Some(entry) = self.checkpoint.shards.get_mut(id) else {
            return;
        };
        entry.progress = Progress::Finished;
        entry.unread_since_ms = durable.unread_since_ms.max(entry.unread_since_ms);
        let since_ms = entry.unread_since_ms;
        for (child_id, child) in &mut self.checkpoint.shards {
            if child.progress == Progress::NotBegun && child.parents.contains(id) {
                self.changed.insert(child_id.clone());
                child.unread_since_ms = match (child.unread_since_ms, since_ms) {
                    (Some(known), Some(parent)) => Some(known.min(parent)),
                    (known, parent) => known.or(parent),
                };
            }
        }
    }

    /// Shards known, and how far each is.
    pub fn shards(&self) -> impl Iterator<Item = (&ShardId, Stage)> {
        self.lineage.shards()
    }
}

fn new_chain(now_ms: i64, at_least: u64, partition_count: usize) -> ChainState {
    ChainState {
        epoch: u64::try_from(now_ms).unwrap_or(0).max(at_least),
        next_ordinals: vec![0; partition_count],
    }
}

#[cfg(test)]
#[path = "roster_tests.rs"]
mod tests;
