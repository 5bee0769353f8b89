//! The part of a session that ties leases to progress: a shard that does not move here may move elsewhere.
//!
//! While data waits, two things can stand still: the stream, which is asked and does not answer, or the topic, which was
//! given a batch and does not acknowledge it. What is read meanwhile is no progress. Either way the lease goes back
//! after [`STALL_PATIENCE`], as after a death: the checkpoint stands where it is durable, the next owner sends what is
//! behind it again under the same origins, and what is acknowledged here later moves nothing any more, since
//! its shard is no longer active (I5, I11). A shard that waits to be handed over is let go in the same way.
//!
//! A topic that is full or slow for everybody must not make leases wander:
//! - nothing is given up while there is nobody else;
//! - who gave something up takes nothing for [`STALL_REST`], nor before its topic answers;
//! - a shard that comes back where it was given up moved nowhere: the patience with it doubles.

use std::collections::BTreeMap;
use std::time::Duration;

use millpond_connector::topic::PartitionId;
use tokio::time::Instant;

use super::sharing::Shared;
use super::{Active, Session};
use crate::checkpoint::Progress;
use crate::limits::{STALL_DOUBLINGS, STALL_LOOK, STALL_PATIENCE, STALL_REST};
use crate::shard::ShardId;

/// A shard that was given up here.
struct GivenUp {
    at: Option<Progress>,
    /// In a row, without it having moved anywhere.
    times: u32,
}

/// What stands still, and what was learnt from it.
pub(super) struct Stalls {
    /// Batches that the topic was given and did not acknowledge, and since when.
    offered: BTreeMap<PartitionId, Instant>,
    given_up: BTreeMap<ShardId, GivenUp>,
    rests_until: Option<Instant>,
    /// With a thousand shards a look at each of them costs more than most of what a session does: it is taken once in
    /// a while.
    next_look: Instant,
}

impl Stalls {
    pub(super) fn new() -> Self {
        Self {
            offered: BTreeMap::new(),
            given_up: BTreeMap::new(),
            rests_until: None,
            next_look: Instant::now(),
        }
    }

    /// The topic is given a batch, or the same one again.
    pub(super) fn offered(&mut self, partition: PartitionId, now: Instant) {
        self.offered.entry(partition).or_insert(now);
    }

    /// The topic acknowledged it.
    pub(super) fn answered(&mut self, partition: PartitionId) {
        self.offered.remove(&partition);
    }

    /// Since when the topic owes an answer.
    fn silent_since(&self) -> Option<Instant> {
        self.offered.values().min().copied()
    }

    /// How long the shard may stand still that is begun at `at`.
    pub(super) fn patience(&self, id: &ShardId, at: Option<&Progress>) -> Duration {
        let before = self.given_up.get(id);
        let before = before.filter(|before| before.at.as_ref() == at);
        STALL_PATIENCE * before.map_or(1, |before| 1 << before.times.min(STALL_DOUBLINGS))
    }

    fn give_up(&mut self, id: &ShardId, at: Option<&Progress>, now: Instant) {
        let before = self.given_up.get(id);
        let before = before.filter(|before| before.at.as_ref() == at);
        let given_up = GivenUp {
            at: at.cloned(),
            times: before.map_or(1, |before| before.times.saturating_add(1)),
        };
        self.given_up.insert(id.clone(), given_up);
        self.rests_until = Some(now + STALL_REST);
    }

    /// True while nothing is to be taken here.
    pub(super) fn is_resting(&self, now: Instant, has_others: bool) -> bool {
        let silent = self.silent_since();
        has_others
            && (self.rests_until.is_some_and(|until| now < until)
                || silent.is_some_and(|since| now >= since + STALL_PATIENCE))
    }
}

impl Session {
    /// When the shard will be given up, should nothing move.
    fn stalls_at(&self, shared: &Shared, id: &ShardId, active: &Active) -> Option<Instant> {
        // Read to its end, it may wait for the topic's consumers: another owner could do no more.
        let is_read = shared.is_ready(id) && !self.endings.named.contains_key(&active.index);
        let silent = self.stalls.silent_since();
        let silent = silent.filter(|_| !self.delivery.is_settled(active.index));
        let at = active
            .progress
            .stalls_at(is_read, silent.map(Instant::into_std));
        at.map(Instant::from_std)
    }

    /// When the shard will be let go that is to be handed over since then. While the topic takes batches it is
    /// waited for.
    fn let_go_at(&self, id: &ShardId, since: Instant) -> Option<Instant> {
        let active = self.active.get(id);
        let is_settled = active.is_none_or(|active| self.delivery.is_settled(active.index));
        let standstill = match is_settled {
            true => Some(since),
            false => self.stalls.silent_since(),
        };
        standstill.map(|from| from.max(since) + STALL_PATIENCE)
    }

    /// The shards that do not move here, each with the time since when that is too long.
    fn standstills<'a>(
        &'a self,
        shared: &'a Shared,
    ) -> impl Iterator<Item = (&'a ShardId, Instant)> {
        let has_others = shared.has_others();
        let read = self
            .active
            .iter()
            .filter(move |(id, _)| has_others && shared.is_ready(id));
        let read = read.filter_map(|(id, active)| Some((id, self.stalls_at(shared, id, active)?)));
        let leaving = shared.leaving();
        read.chain(leaving.filter_map(|(id, since)| Some((id, self.let_go_at(id, since)?))))
    }

    /// A lease is tied to progress: a shard that does not move here may move elsewhere.
    pub(super) fn give_up_stalled(&mut self, now: Instant) {
        let Some(shared) = &self.shared else {
            return;
        };
        if now < self.stalls.next_look {
            return;
        }
        self.stalls.next_look = now + STALL_LOOK;
        let stalled: Vec<ShardId> = self
            .standstills(shared)
            .filter(|(_, at)| now >= *at)
            .map(|(id, _)| id.clone())
            .collect();
        for id in stalled {
            tracing::warn!(
                shard = %id,
                rest_seconds = STALL_REST.as_secs(),
                "shard does not move here, it is given up to others"
            );
            self.stalls.give_up(&id, self.roster.progress(&id), now);
            if let Some(shared) = &mut self.shared {
                shared.hand_over(&id);
            }
            self.let_go(&id);
        }
    }

    /// When stalled shards are looked for.
    pub(super) fn next_stall(&self) -> Option<Instant> {
        self.shared.as_ref().map(|_| self.stalls.next_look)
    }
}
