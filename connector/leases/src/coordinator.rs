//! What one worker does next.
//!
//! One step of the driver, which has the store and the clock: read the view, [`Coordinator::decide`],
//! carry the decisions out in their order, tell each answer by [`Coordinator::answered`]. The next
//! step begins after [`Settings::pause`], or at once when a lease was changed or the worker has
//! just become live. Before anything is done under a lease, [`Coordinator::held`] is asked.

mod taking;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::row::{Beat, Change, LeaseId, LeaseRow, View, WorkerId};
use crate::settings::Settings;
use crate::store::Outcome;

/// Changes of leases in one step, so that the next beat is not late for them.
const CHANGES_PER_STEP: usize = 256;
/// A dead worker's row is removed after so many lease durations.
const FORGET_AFTER: u32 = 20;

/// A lease that this worker holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Raised by every change of hands: claim with it, and refuse what is below it.
    pub epoch: u64,
    /// Somebody else is to have it: finish what is in flight, then say [`Coordinator::hand_over`].
    pub is_leaving: bool,
    row: LeaseRow,
}

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Write this, then tell the answer.
    Change(Change),
    /// Finish what is in flight under this lease, then say [`Coordinator::hand_over`].
    HandOver(LeaseId),
    /// Stop at once: the lease is no longer ours.
    Drop(LeaseId, DropReason),
}

/// Why a lease is no longer ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DropReason {
    /// No beat was confirmed for too long; others may think us dead.
    Expired,
    /// Somebody took it.
    Taken(Option<WorkerId>),
    /// Another process with our id is live; this one is over.
    Replaced,
}

/// What an answer brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The lease is ours: begin, with this epoch.
    Taken(LeaseId, u64),
    /// As [`Decision::Drop`].
    Drop(LeaseId, DropReason),
}

/// When a worker's row was last seen to change.
#[derive(Debug, Clone, Copy)]
struct Sighting {
    beat: Option<Beat>,
    since: Duration,
    /// How long it may be silent.
    silence: Duration,
}

/// The state of one worker. Times are durations since any fixed start of the local monotonic clock.
#[derive(Debug)]
pub struct Coordinator {
    me: WorkerId,
    settings: Settings,
    nonce: u64,
    beats: u64,
    session: Option<u64>,
    valid_until: Option<Duration>,
    held: BTreeMap<LeaseId, Held>,
    seen: BTreeMap<WorkerId, Sighting>,
    /// Since when leases are seen without a live owner.
    free: BTreeMap<LeaseId, Duration>,
    /// Other live workers in the latest view.
    others: usize,
    is_leaving: bool,
    is_over: bool,
}

impl Coordinator {
    /// A worker that has not begun. `nonce` is a fresh random number for every process: were a
    /// session ever to be repeated, a row removed and written anew could look unchanged.
    #[must_use]
    pub fn new(me: WorkerId, settings: Settings, nonce: u64) -> Self {
        Self {
            me,
            settings,
            nonce,
            beats: 0,
            session: None,
            valid_until: None,
            held: BTreeMap::new(),
            seen: BTreeMap::new(),
            free: BTreeMap::new(),
            others: 0,
            is_leaving: false,
            is_over: false,
        }
    }

    /// The lease, if it is ours at this moment.
    #[must_use]
    pub fn held(&self, lease: &LeaseId, now: Duration) -> Option<&Held> {
        self.held.get(lease).filter(|_| self.is_live(now))
    }

    /// All leases that are ours at this moment.
    pub fn all_held(&self, now: Duration) -> impl Iterator<Item = (&LeaseId, &Held)> {
        let is_live = self.is_live(now);
        self.held.iter().filter(move |_| is_live)
    }

    /// Until when our leases are ours without another confirmed beat.
    #[must_use]
    pub fn valid_until(&self) -> Option<Duration> {
        self.valid_until
    }

    /// True while our last confirmed beat is young enough.
    #[must_use]
    pub fn is_live(&self, now: Duration) -> bool {
        self.valid_until.is_some_and(|until| now < until)
    }

    /// True once everything is given back, or another process took our id: no step is needed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// How many other workers lived in the latest view that was decided on.
    #[must_use]
    pub fn others(&self) -> usize {
        self.others
    }

    /// From now on, everything is handed over and nothing taken; then the worker's row goes.
    pub fn leave(&mut self) {
        self.is_leaving = true;
    }

    /// What is lost by the passing of time. To be called when [`Coordinator::valid_until`] comes;
    /// the other calls do it first.
    pub fn expire(&mut self, now: Duration) -> Vec<(LeaseId, DropReason)> {
        if self.is_live(now) {
            return Vec::new();
        }
        self.valid_until = None;
        self.drop_all(&DropReason::Expired)
    }

    fn drop_all(&mut self, reason: &DropReason) -> Vec<(LeaseId, DropReason)> {
        let held = std::mem::take(&mut self.held);
        held.into_keys()
            .map(|lease| (lease, reason.clone()))
            .collect()
    }

    /// The release of a lease under which nothing is in flight any more. From this call on it is
    /// not ours, whatever becomes of the change.
    pub fn hand_over(&mut self, lease: &LeaseId) -> Option<Change> {
        let held = self.held.remove(lease)?;
        Some(release(lease, &held.row))
    }

    /// What to do, given rows that were read after all earlier changes were answered, and the
    /// leases that there are. `read` is when that reading began: a row is known to be unchanged
    /// until then and no longer, however much later this is called.
    pub fn decide(
        &mut self,
        read: Duration,
        now: Duration,
        view: &View,
        leases: &BTreeSet<LeaseId>,
    ) -> Vec<Decision> {
        if self.is_over {
            return Vec::new();
        }
        let mut drops = self.expire(now);
        self.observe(now, view);
        drops.extend(self.check_session(view));
        drops.extend(self.check_held(view));
        let mut decisions: Vec<Decision> = drops
            .into_iter()
            .map(|(lease, reason)| Decision::Drop(lease, reason))
            .collect();
        if self.is_over {
            return decisions;
        }
        let live = self.live(read, view);
        self.others = live.iter().filter(|worker| ***worker != self.me).count();
        let is_last = self.is_leaving && self.held.is_empty() && !self.owns_any(view);
        let beat = self.beat(view, is_last);
        decisions.push(Decision::Change(beat));
        // Before the first confirmed beat others do not know us; they must before we own anything.
        if self.is_live(now) && !is_last {
            self.mark_leaving(view, leases, &live, &mut decisions);
            let mut changes = self.settle_own(view, leases, &live);
            if !self.is_leaving {
                self.note_free(read, view, leases);
                changes.extend(self.take_and_ask(read, view, leases, &live));
                changes.extend(self.forget(read, view));
            }
            changes.truncate(CHANGES_PER_STEP);
            decisions.extend(changes.into_iter().map(Decision::Change));
        }
        decisions
    }

    /// What the answer to a change means. `started` is when the change was sent. A change without
    /// an answer needs no call: the next view tells.
    pub fn answered(
        &mut self,
        change: &Change,
        outcome: Outcome,
        started: Duration,
        now: Duration,
    ) -> Vec<Event> {
        let drops = self.expire(now);
        let mut events: Vec<Event> = drops
            .into_iter()
            .map(|(lease, reason)| Event::Drop(lease, reason))
            .collect();
        if outcome == Outcome::Refused {
            return events;
        }
        match change {
            Change::Worker { id, new, .. } if *id == self.me => match new {
                Some(beat) => {
                    self.session = Some(beat.session);
                    let until = started + self.settings.validity();
                    self.valid_until = (now < until).then_some(until);
                }
                None => self.is_over = true,
            },
            Change::Lease { id, new, .. }
                if new.owner.as_ref() == Some(&self.me) && self.is_live(now) =>
            {
                let held = Held {
                    epoch: new.epoch,
                    is_leaving: false,
                    row: new.clone(),
                };
                self.held.insert(id.clone(), held);
                events.push(Event::Taken(id.clone(), new.epoch));
            }
            Change::Worker { .. } | Change::Lease { .. } => {}
        }
        events
    }

    /// Notes which worker rows changed. Owners without a row are observed too: their row may be
    /// about to come.
    fn observe(&mut self, now: Duration, view: &View) {
        let owners = view.leases.values().filter_map(|row| row.owner.as_ref());
        let known: BTreeSet<&WorkerId> = view.workers.keys().chain(owners).collect();
        self.seen.retain(|worker, _| known.contains(worker));
        for worker in known {
            let beat = view.workers.get(worker).copied();
            let silence = view.silences.get(worker).copied();
            let before = self.seen.get(worker);
            let before = before.filter(|sighting| sighting.beat == beat);
            let sighting = Sighting {
                beat,
                since: before.map_or(now, |sighting| sighting.since),
                silence: silence.unwrap_or(self.settings.lease_duration()),
            };
            self.seen.insert(worker.clone(), sighting);
        }
    }

    /// Notices that our row is another process's, or gone.
    fn check_session(&mut self, view: &View) -> Vec<(LeaseId, DropReason)> {
        let Some(session) = self.session else {
            return Vec::new();
        };
        match view.workers.get(&self.me) {
            Some(beat) if beat.session == session => Vec::new(),
            Some(_) => {
                self.is_over = true;
                self.valid_until = None;
                self.drop_all(&DropReason::Replaced)
            }
            None => {
                self.session = None;
                self.valid_until = None;
                self.drop_all(&DropReason::Expired)
            }
        }
    }

    /// Drops what the rows say is not ours, and remembers the rows of the rest.
    fn check_held(&mut self, view: &View) -> Vec<(LeaseId, DropReason)> {
        let mut lost = Vec::new();
        let me = &self.me;
        self.held.retain(|lease, held| {
            let row = view.leases.get(lease);
            if let Some(row) = row
                && row.owner.as_ref() == Some(me)
                && row.epoch == held.epoch
            {
                held.row = row.clone();
                return true;
            }
            let by = row.and_then(|row| row.owner.clone());
            lost.push((lease.clone(), DropReason::Taken(by)));
            false
        });
        lost
    }

    fn beat(&mut self, view: &View, is_last: bool) -> Change {
        let seen = view.workers.get(&self.me).copied();
        let new = Beat {
            session: self.nonce,
            count: self.beats,
        };
        self.beats += 1;
        Change::Worker {
            id: self.me.clone(),
            seen,
            new: (!is_last).then_some(new),
        }
    }

    fn owns_any(&self, view: &View) -> bool {
        let mut rows = view.leases.values();
        rows.any(|row| row.owner.as_ref() == Some(&self.me))
    }

    fn live<'v>(&self, read: Duration, view: &'v View) -> BTreeSet<&'v WorkerId> {
        view.workers
            .keys()
            .filter(|worker| **worker == self.me || !self.is_dead(worker, read))
            .collect()
    }

    /// True when somebody else who lives waits for this row.
    fn is_wanted(&self, row: &LeaseRow, live: &BTreeSet<&WorkerId>) -> bool {
        let wanted = row.wanted_by.as_ref();
        wanted.is_some_and(|worker| *worker != self.me && live.contains(worker))
    }

    fn mark_leaving(
        &mut self,
        view: &View,
        leases: &BTreeSet<LeaseId>,
        live: &BTreeSet<&WorkerId>,
        decisions: &mut Vec<Decision>,
    ) {
        let wanted: BTreeSet<LeaseId> = view
            .leases
            .iter()
            .filter(|(lease, row)| !leases.contains(*lease) || self.is_wanted(row, live))
            .map(|(lease, _)| lease.clone())
            .collect();
        for (lease, held) in &mut self.held {
            if !held.is_leaving && (self.is_leaving || wanted.contains(lease)) {
                held.is_leaving = true;
                decisions.push(Decision::HandOver(lease.clone()));
            }
        }
    }

    /// Rows that name us although we do not hold them: of an earlier session, or of a change whose
    /// answer was lost. They are taken with a new epoch, or released if somebody waits.
    fn settle_own(
        &self,
        view: &View,
        leases: &BTreeSet<LeaseId>,
        live: &BTreeSet<&WorkerId>,
    ) -> Vec<Change> {
        let rows = view.leases.iter();
        rows.filter(|(lease, row)| {
            row.owner.as_ref() == Some(&self.me) && !self.held.contains_key(*lease)
        })
        .map(|(lease, row)| {
            if self.is_leaving || !leases.contains(lease) || self.is_wanted(row, live) {
                release(lease, row)
            } else {
                self.take(lease, Some(row))
            }
        })
        .collect()
    }

    fn note_free(&mut self, read: Duration, view: &View, leases: &BTreeSet<LeaseId>) {
        let is_free = |lease: &LeaseId| {
            let row = view.leases.get(lease);
            let owner = row.and_then(|row| row.owner.as_ref());
            owner.is_none_or(|owner| self.is_dead(owner, read))
        };
        let free: BTreeSet<LeaseId> = leases.iter().filter(|id| is_free(id)).cloned().collect();
        self.free.retain(|lease, _| free.contains(lease));
        for lease in free {
            self.free.entry(lease).or_insert(read);
        }
    }

    /// True for a worker whose row did not change, or was missing, for long enough.
    fn is_dead(&self, worker: &WorkerId, read: Duration) -> bool {
        let sighting = self.seen.get(worker);
        sighting.is_some_and(|seen| read >= seen.since + seen.silence)
    }

    /// Removes rows of workers that are long dead and own nothing.
    fn forget(&self, read: Duration, view: &View) -> Vec<Change> {
        let long = self.settings.lease_duration() * FORGET_AFTER;
        let named: BTreeSet<&WorkerId> = view
            .leases
            .values()
            .filter_map(|row| row.owner.as_ref())
            .collect();
        let rows = view.workers.iter();
        rows.filter(|(id, _)| **id != self.me && !named.contains(id))
            .filter(|(id, _)| {
                let seen = self.seen.get(id);
                seen.is_some_and(|seen| read >= seen.since + long)
            })
            .map(|(id, beat)| Change::Worker {
                id: id.clone(),
                seen: Some(*beat),
                new: None,
            })
            .collect()
    }
}

fn release(lease: &LeaseId, row: &LeaseRow) -> Change {
    Change::Lease {
        id: lease.clone(),
        seen: Some(row.clone()),
        new: LeaseRow {
            owner: None,
            ..row.clone()
        },
    }
}
