//! The part of a session that shares the shards with other processes.
//!
//! What a shard goes through here:
//!
//! ```text
//! leasable ──► Claiming ──► Ready, read ──► Leaving: reader stopped, what was read becomes durable
//!    ▲  taken            row read,            and is checkpointed under the lease
//!    │                   saved if new                │ handed over
//!    └───────────────────────────────────────────────┘
//! ```
//!
//! From each of them the lease can be lost, or be given up for want of progress ([`super::stalls`]): the reader stops, and no write of the shard follows.
//! Batches that hold its events may still reach the topic. They carry the positions and ordinals that
//! the next owner gives the same events, and are dropped as repeated by whoever reads the topic.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use millpond_connector::metrics::Metrics;
use millpond_leases::{
    DropReason, LeaseDriver, LeaseEvent, LeaseEvents, LeaseHandle, LeaseId, Settings, StoreError,
    WorkerId,
};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};

use super::{Done, LOCAL, Session};
use crate::checkpoint::CheckpointError;
use crate::error::SourceError;
use crate::limits::{CLAIMS_AT_ONCE, LEAVE_LIMIT};
use crate::shard::ShardId;
use crate::shard_table::{Rows, ShardRow, Sharing, WriteIf};

/// Who takes part in sharing, and how.
#[derive(Debug, Clone)]
pub struct Worker {
    /// This process.
    pub id: WorkerId,
    /// Timings of the leases.
    pub settings: Settings,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Claiming,
    Ready,
    Leaving { since: Instant },
}

#[derive(Debug, Clone, Copy)]
struct Holding {
    epoch: u64,
    state: State,
}

/// Leases of this process.
pub(crate) struct Shared {
    handle: LeaseHandle,
    events: LeaseEvents,
    rows: watch::Receiver<Arc<Rows>>,
    held: BTreeMap<ShardId, Holding>,
    wanted: BTreeSet<ShardId>,
    /// Room for rows to be read.
    claims: Arc<Semaphore>,
    is_over: bool,
    metrics: Arc<Metrics>,
}

/// What is heard of the leases.
pub(crate) enum News {
    Lease(LeaseEvent),
    Rows,
}

fn lease_id(shard: &ShardId) -> LeaseId {
    LeaseId::new(shard.as_str())
}

fn shard_id(lease: &LeaseId) -> ShardId {
    lease.as_str().into()
}

impl Shared {
    /// Starts to take part; nothing is wanted yet.
    pub(crate) fn start(sharing: Sharing, worker: &Worker, metrics: Arc<Metrics>) -> Self {
        let (handle, events) = LeaseDriver::start(
            sharing.leases,
            worker.id.clone(),
            worker.settings,
            BTreeSet::new(),
        );
        Self {
            handle,
            events,
            rows: sharing.rows,
            held: BTreeMap::new(),
            wanted: BTreeSet::new(),
            claims: Arc::new(Semaphore::new(CLAIMS_AT_ONCE)),
            is_over: false,
            metrics,
        }
    }

    /// The lease under which a shard may be written.
    pub(crate) fn epoch(&self, id: &ShardId) -> Option<u64> {
        let holding = self.held.get(id)?;
        (holding.state != State::Claiming).then_some(holding.epoch)
    }

    /// True for a shard that may be read here.
    pub(crate) fn is_ready(&self, id: &ShardId) -> bool {
        let holding = self.held.get(id);
        holding.is_some_and(|holding| holding.state == State::Ready)
    }

    /// True when there is somebody who could take what is given up here.
    pub(super) fn has_others(&self) -> bool {
        self.handle.has_others()
    }

    /// The shards that are to be handed over, and since when.
    pub(super) fn leaving(&self) -> impl Iterator<Item = (&ShardId, Instant)> {
        self.held
            .iter()
            .filter_map(|(id, holding)| match holding.state {
                State::Leaving { since } => Some((id, since)),
                State::Claiming | State::Ready => None,
            })
    }

    async fn next(&mut self) -> News {
        tokio::select! {
            // In this order, so that a run can be repeated.
            biased;
            event = self.events.next(), if !self.is_over => match event {
                Some(event) => News::Lease(event),
                None => {
                    self.is_over = true;
                    News::Rows
                }
            },
            changed = self.rows.changed() => match changed {
                Ok(()) => News::Rows,
                Err(_) => pending().await,
            },
        }
    }

    pub(super) fn hand_over(&mut self, id: &ShardId) {
        if let Some(holding) = self.held.remove(id) {
            self.metrics.leases_handed_over.add(1);
            self.handle.handed_over(&lease_id(id), holding.epoch);
        }
    }

    /// Gives everything back. Nothing is in flight any more.
    pub(crate) async fn leave(mut self) {
        for (id, holding) in std::mem::take(&mut self.held) {
            self.metrics.leases_handed_over.add(1);
            self.handle.handed_over(&lease_id(&id), holding.epoch);
        }
        let handle = self.handle.clone();
        let answer_late_ones = async {
            while let Some(event) = self.events.next().await {
                if let LeaseEvent::Taken { lease, epoch } | LeaseEvent::HandOver { lease, epoch } =
                    event
                {
                    self.handle.handed_over(&lease, epoch);
                }
            }
        };
        let left = async {
            tokio::join!(handle.leave(), answer_late_ones);
        };
        if timeout(LEAVE_LIMIT, left).await.is_err() {
            tracing::warn!("leases could not be given back in time, they will expire");
        }
    }
}

/// The next that is heard; never, where nothing is shared.
pub(crate) async fn next(shared: &mut Option<Shared>) -> News {
    match shared {
        Some(shared) => shared.next().await,
        None => pending().await,
    }
}

impl Session {
    pub(super) fn hear(&mut self, news: News) {
        match news {
            News::Rows => self.observe(),
            News::Lease(LeaseEvent::Taken { lease, epoch }) => {
                self.parts.metrics.leases_taken.add(1);
                self.taken(shard_id(&lease), epoch);
            }
            News::Lease(LeaseEvent::HandOver { lease, epoch }) => {
                self.begin_leaving(&shard_id(&lease), epoch);
            }
            News::Lease(LeaseEvent::Lost {
                lease,
                epoch,
                reason,
            }) => {
                let id = shard_id(&lease);
                if self.holds(&id, epoch) {
                    self.parts.metrics.leases_lost.add(1);
                    match &reason {
                        DropReason::Taken(by) => tracing::warn!(
                            shard = %id, epoch, by = by.as_ref().map(WorkerId::as_str),
                            "lease lost: another worker took it"
                        ),
                        DropReason::Expired => {
                            tracing::warn!(shard = %id, epoch, "lease lost: it could not be renewed in time");
                        }
                        DropReason::Replaced => {}
                    }
                    self.let_go(&id);
                }
            }
            News::Lease(LeaseEvent::StoreFailed(error @ StoreError::Transient(_))) => {
                tracing::warn!(%error, "leases cannot be renewed now");
            }
            News::Lease(LeaseEvent::StoreFailed(error)) => {
                tracing::error!(%error, "leases cannot be renewed before somebody changes something");
            }
            News::Lease(LeaseEvent::Replaced) => self.fail(SourceError::Replaced),
        }
    }

    fn holds(&self, id: &ShardId, epoch: u64) -> bool {
        let held = self.shared.as_ref().and_then(|shared| shared.held.get(id));
        held.is_some_and(|holding| holding.epoch == epoch)
    }

    fn observe(&mut self) {
        let Some(shared) = &mut self.shared else {
            return;
        };
        let rows = shared.rows.borrow_and_update().clone();
        self.roster
            .observe(&rows, |id| shared.held.contains_key(id));
        self.recount = true;
    }

    /// Tells which shards may be leased, when that changed.
    pub(super) fn refresh_wanted(&mut self) {
        let saving = self.saving.as_deref().unwrap_or_default();
        let Some(shared) = &mut self.shared else {
            return;
        };
        let mut leasable = self.roster.leasable();
        // Rows that are only being written now may not be there yet.
        for write in saving {
            if write.condition == WriteIf::Absent {
                leasable.remove(&write.shard);
            }
        }
        if self.stalls.is_resting(Instant::now(), shared.has_others()) {
            // What keeps one shard from moving may keep others: nothing is taken meanwhile.
            leasable.retain(|id| shared.held.contains_key(id));
        }
        if shared.wanted != leasable {
            let leases = leasable.iter().map(lease_id);
            shared.handle.set_wanted(leases.collect());
            shared.wanted = leasable;
        }
    }

    fn taken(&mut self, id: ShardId, epoch: u64) {
        let Some(shared) = &mut self.shared else {
            return;
        };
        // A holding before it ended without a word: its reader must not go on.
        if shared.held.contains_key(&id) {
            self.let_go(&id);
        }
        let Some(shared) = &mut self.shared else {
            return;
        };
        let state = State::Claiming;
        shared.held.insert(id.clone(), Holding { epoch, state });
        if self.drain_until.is_some() {
            shared.hand_over(&id);
            return;
        }
        self.claim(id, epoch, Duration::ZERO);
    }

    fn claim(&mut self, id: ShardId, epoch: u64, wait: Duration) {
        let Some(room) = self.shared.as_ref().map(|shared| shared.claims.clone()) else {
            return;
        };
        let table = self.parts.table.clone();
        self.tasks.spawn(async move {
            tokio::time::sleep(wait).await;
            // Never closed, so there is always a permit to come.
            let _permit = room.acquire().await;
            let row = table.claim(&id, epoch).await;
            Done::Claimed(id, epoch, row)
        });
    }

    pub(super) fn claimed(
        &mut self,
        id: ShardId,
        epoch: u64,
        row: Result<Option<ShardRow>, CheckpointError>,
    ) {
        if !self.holds(&id, epoch) {
            return;
        }
        let now_ms = (self.parts.clock)();
        let Some(shared) = &mut self.shared else {
            return;
        };
        match row {
            Ok(Some(row)) => {
                let is_new = self.roster.adopt(&id, row, now_ms);
                self.urgent |= is_new;
                if let Some(holding) = shared.held.get_mut(&id)
                    && holding.state == State::Claiming
                {
                    holding.state = State::Ready;
                }
                tracing::info!(shard = %id, epoch, "lease taken");
            }
            Ok(None) => shared.hand_over(&id),
            Err(error) => {
                let wait = LOCAL.first;
                tracing::warn!(shard = %id, epoch, %error, "the shard's row cannot be read, it will be repeated");
                self.claim(id, epoch, wait);
            }
        }
        self.recount = true;
    }

    fn begin_leaving(&mut self, id: &ShardId, epoch: u64) {
        if !self.holds(id, epoch) {
            return;
        }
        let Some(shared) = &mut self.shared else {
            return;
        };
        if let Some(holding) = shared.held.get_mut(id) {
            if holding.state == State::Claiming {
                shared.hand_over(id);
                return;
            }
            let since = Instant::now();
            holding.state = State::Leaving { since };
        }
        if let Some(active) = self.active.get(id) {
            active.reader.abort();
            // What waits for company would make the next owner wait.
            self.delivery.seal_all();
        }
        self.urgent = true;
    }

    /// Hands over what is durable and checkpointed.
    pub(super) fn finish_leaving(&mut self) {
        let Some(shared) = &mut self.shared else {
            return;
        };
        let saving = self.saving.as_deref().unwrap_or_default();
        let done: Vec<ShardId> = shared
            .leaving()
            .filter(|(id, _)| {
                let active = self.active.get(*id);
                active.is_none_or(|active| self.delivery.is_settled(active.index))
            })
            .filter(|(id, _)| !self.roster.is_changed(id))
            .filter(|(id, _)| saving.iter().all(|write| write.shard != **id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in done {
            if let Some(shared) = &mut self.shared {
                shared.hand_over(&id);
            }
            tracing::info!(shard = %id, "lease handed over");
            self.forget(&id);
        }
    }

    /// The shard is not ours any more, as of now.
    pub(super) fn let_go(&mut self, id: &ShardId) {
        if let Some(shared) = &mut self.shared {
            shared.held.remove(id);
        }
        if self.active.contains_key(id) {
            // Should the shard come back here, its events are numbered from the checkpoint again: they
            // must not share a batch with those that are still on their way.
            self.delivery.seal_all();
        }
        self.forget(id);
    }

    pub(super) fn forget(&mut self, id: &ShardId) {
        if let Some(active) = self.active.remove(id) {
            active.reader.abort();
            self.endings.forget(active.index);
        }
        self.losses.forget(id);
        self.watch.forget(id);
        self.pins.retain(|(pinned, _)| pinned != id);
        self.caught_up.remove(id);
        self.roster.let_go(id);
        self.recount = true;
    }

    /// A write was refused: whoever has the lease now, it is not this process.
    pub(super) fn refused(&mut self, id: &ShardId, epoch: u64) {
        if !self.holds(id, epoch) {
            return;
        }
        tracing::warn!(shard = %id, epoch, "checkpoint refused: the lease is another worker's");
        if let Some(shared) = &mut self.shared {
            shared.hand_over(id);
        }
        self.let_go(id);
    }
}
