//! Which shards there are, and which may be read now: parents before children (I4).
//!
//! Pure. A child may start once each of its parents was delivered to the end, or is known
//! to have left the stream: neither tracked here nor in a listing that was begun after
//! the child was heard of.

use std::collections::{BTreeMap, BTreeSet};

use millpond_connector::mutation::{self, Mutation};

use crate::shard::{ShardId, ShardInfo};

/// How far a shard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Not started: a parent may still have events.
    Waiting,
    /// Being read.
    Reading,
    /// Delivered to its end, durably.
    Finished,
}

#[derive(Debug, Clone)]
struct Entry {
    parents: Vec<ShardId>,
    stage: Stage,
    /// Number of listings begun when the shard was heard of.
    heard_in: u64,
    /// Set by a listing begun after that: what is unknown among the parents is gone for good.
    parents_settled: bool,
    /// Known from a checkpoint or the first listing: parents that are gone were read, or are older than
    /// where reading began.
    is_given: bool,
}

/// Handed out when a listing begins; what it can tell depends on that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListingTicket(u64);

/// What a whole listing changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListingOutcome {
    /// Shards heard of for the first time.
    pub added: Vec<ShardId>,
    /// Shards that were known before the listing began, are not finished, and are not listed:
    /// expired before they were read to the end.
    pub vanished: Vec<ShardId>,
    /// Finished shards that have expired and were forgotten.
    pub forgotten: Vec<ShardId>,
    /// Parents of shards that are new since the stream was first listed, which nobody ever heard of and
    /// which are gone: closed and removed before they were read.
    pub unseen: BTreeSet<ShardId>,
}

/// The shards of one stream.
#[derive(Debug, Clone, Default)]
pub struct Lineage {
    shards: BTreeMap<ShardId, Entry>,
    /// Those in [`Stage::Waiting`]: what is asked at every turn of a session looks at these alone.
    waiting: BTreeSet<ShardId>,
    listings: u64,
    /// It is known where reading began: what comes up from now on is new.
    has_begun: bool,
}

impl Lineage {
    /// Takes up a shard from a checkpoint. `finished`: it was delivered to its end.
    pub fn resume(&mut self, shard: ShardInfo, finished: bool) {
        self.recall(&shard);
        if finished {
            self.set_stage(&shard.id, Stage::Finished);
        }
    }

    /// Takes up a shard that somebody has a row of.
    pub fn recall(&mut self, shard: &ShardInfo) {
        self.has_begun = true;
        if self.hear_of(shard)
            && let Some(entry) = self.shards.get_mut(&shard.id)
        {
            entry.is_given = true;
        }
    }

    /// Called before the first page of a listing is asked for.
    pub fn begin_listing(&mut self) -> ListingTicket {
        self.listings += 1;
        ListingTicket(self.listings)
    }

    /// Takes in a whole listing, every page of it.
    ///
    /// Pages are asked for one after the other, so a listing of several pages is no
    /// picture of one moment: a parent made meanwhile may be missing from it. It then settles
    /// nothing about the shards that it was the first to name.
    pub fn listed(
        &mut self,
        ticket: ListingTicket,
        shards: &[ShardInfo],
        pages: usize,
    ) -> ListingOutcome {
        let listed: BTreeSet<&ShardId> = shards.iter().map(|shard| &shard.id).collect();
        let mut outcome = ListingOutcome::default();
        for shard in shards {
            if self.hear_of(shard) {
                outcome.added.push(shard.id.clone());
            }
        }
        for (id, entry) in &mut self.shards {
            let heard_before = entry.heard_in < ticket.0;
            if heard_before || (pages <= 1 && listed.contains(id)) {
                if !entry.parents_settled && !entry.is_given {
                    outcome.unseen.extend(entry.parents.iter().cloned());
                }
                entry.parents_settled = true;
            }
            if heard_before && !listed.contains(id) {
                match entry.stage {
                    Stage::Finished => outcome.forgotten.push(id.clone()),
                    Stage::Waiting | Stage::Reading => outcome.vanished.push(id.clone()),
                }
            }
        }
        let is_known = |id: &ShardId| self.shards.contains_key(id) || listed.contains(id);
        outcome.unseen.retain(|id| !is_known(id));
        for id in &outcome.forgotten {
            self.shards.remove(id);
            self.waiting.remove(id);
        }
        self.has_begun = true;
        outcome
    }

    /// Takes in the children that a shard's last answer named; answers those not known before.
    pub fn children(&mut self, children: &[ShardInfo]) -> Vec<ShardId> {
        children
            .iter()
            .filter(|child| self.hear_of(child))
            .map(|child| child.id.clone())
            .collect()
    }

    fn hear_of(&mut self, shard: &ShardInfo) -> bool {
        let known = self.shards.contains_key(&shard.id);
        if !known {
            self.waiting.insert(shard.id.clone());
            self.shards.insert(
                shard.id.clone(),
                Entry {
                    parents: shard.parents.clone(),
                    stage: Stage::Waiting,
                    heard_in: self.listings,
                    parents_settled: false,
                    is_given: !self.has_begun,
                },
            );
        }
        !known
    }

    /// The shards that may start now, in the order of their ids.
    #[must_use]
    pub fn startable(&self) -> Vec<ShardId> {
        self.waiting_shards()
            .filter(|(_, entry)| self.may_be_read(entry))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// The shards that may be read now, begun or not, in the order of their ids.
    pub fn readable(&self) -> impl Iterator<Item = (&ShardId, Stage)> {
        self.shards
            .iter()
            .filter(|(_, entry)| entry.stage != Stage::Finished)
            .filter(|(_, entry)| self.may_be_read(entry))
            .map(|(id, entry)| (id, entry.stage))
    }

    fn waiting_shards(&self) -> impl Iterator<Item = (&ShardId, &Entry)> {
        let entry = |id| Some((id, self.shards.get(id)?));
        self.waiting.iter().filter_map(entry)
    }

    fn may_be_read(&self, entry: &Entry) -> bool {
        let mut parents = entry.parents.iter();
        parents.all(|id| self.is_behind_us(id, entry))
    }

    fn is_behind_us(&self, parent: &ShardId, child: &Entry) -> bool {
        match self.shards.get(parent) {
            _ if mutation::is(Mutation::ChildBeforeParent) => true,
            Some(parent) => parent.stage == Stage::Finished,
            None => child.parents_settled,
        }
    }

    /// True when a shard waits for a parent that nobody has described yet.
    #[must_use]
    pub fn needs_listing(&self) -> bool {
        self.waiting_shards().any(|(_, entry)| {
            !entry.parents_settled && entry.parents.iter().any(|id| !self.shards.contains_key(id))
        })
    }

    /// The shard is being read from now on.
    pub fn start(&mut self, shard: &ShardId) {
        self.set_stage(shard, Stage::Reading);
    }

    /// The shard is not read here any more, and not read to its end.
    pub fn stop(&mut self, shard: &ShardId) {
        if self.stage(shard) == Some(Stage::Reading) {
            self.set_stage(shard, Stage::Waiting);
        }
    }

    /// Every event of the shard is durable in the topic, and it has no more.
    pub fn finish(&mut self, shard: &ShardId) {
        self.set_stage(shard, Stage::Finished);
    }

    fn set_stage(&mut self, shard: &ShardId, stage: Stage) {
        let Some(entry) = self.shards.get_mut(shard) else {
            return;
        };
        entry.stage = stage;
        match stage {
            Stage::Waiting => self.waiting.insert(shard.clone()),
            Stage::Reading | Stage::Finished => self.waiting.remove(shard),
        };
    }

    /// How far the shard is; `None` when it is not known (or not any more).
    #[must_use]
    pub fn stage(&self, shard: &ShardId) -> Option<Stage> {
        self.shards.get(shard).map(|entry| entry.stage)
    }

    /// The parents of a known shard.
    #[must_use]
    pub fn parents(&self, shard: &ShardId) -> &[ShardId] {
        self.shards
            .get(shard)
            .map_or(&[], |entry| entry.parents.as_slice())
    }

    /// Shards known now.
    pub fn shards(&self) -> impl Iterator<Item = (&ShardId, Stage)> {
        self.shards.iter().map(|(id, entry)| (id, entry.stage))
    }
}

#[cfg(test)]
#[path = "lineage_tests.rs"]
mod tests;
