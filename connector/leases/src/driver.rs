//! Runs a [`Coordinator`] against a [`LeaseStore`].
//!
//! One task; its states:
//!
//! | state | ends with |
//! |---|---|
//! | *step*: send what waits (releases), read the view, decide, send the changes | the answers, or a call that failed or took longer than [`Settings::beat`] |
//! | *rest*: up to [`Settings::pause`], shorter after a failure, none after a lease was changed | its time, or a word from the handle |
//! | *over* | left, replaced by another process with the same id, or all handles dropped |
//!
//! Where it can fail:
//! - A call hangs: leases end at [`Coordinator::valid_until`] all the same, in the middle of the
//!   call; the call is given up after a beat's time, and a change that it carried may still come
//!   to pass: the next view tells.
//! - The task itself gets no time (a paused process): [`LeaseHandle::holds`] looks at the clock
//!   and not at the task. After a pause between that look and a write, only epochs help (I11).
//! - Handles dropped without [`LeaseHandle::leave`]: the rows stay, and others take the leases
//!   once they expire, as after a crash.
//!
//! What the handle says is heard between calls and never between a view and the decision on it:
//! a decision is made on rows that were read after all earlier changes were answered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use millpond_connector::random;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until, timeout};

use crate::coordinator::{Coordinator, Decision, DropReason, Event};
use crate::row::{Change, LeaseId, WorkerId};
use crate::settings::Settings;
use crate::store::{LeaseStore, Outcome, StoreError};

/// Changes of leases on their way at the same time: whoever starts with a thousand waits for a few dozen round trips.
const CHANGES_AT_ONCE: usize = 16;

/// What happened to a lease. `epoch` tells one holding of a lease from the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseEvent {
    /// Ours: begin.
    Taken {
        /// Which.
        lease: LeaseId,
        /// Of this holding; higher than every earlier one's, whoever's that was.
        epoch: u64,
    },
    /// Still ours, but somebody else is to have it: finish what is in flight, then say
    /// [`LeaseHandle::handed_over`].
    HandOver {
        /// Which.
        lease: LeaseId,
        /// Of the holding.
        epoch: u64,
    },
    /// No longer ours: stop at once, nothing is to be handed over.
    Lost {
        /// Which.
        lease: LeaseId,
        /// Of the holding that ended.
        epoch: u64,
        /// Why.
        reason: DropReason,
    },
    /// The store did not answer as it should. Said once until it answers again; nobody needs
    /// to act, the leases are lost in time if it lasts. [`StoreError::Transient`] is for a warning,
    /// the other errors need a human.
    StoreFailed(StoreError),
    /// The last event: another process with our id is live, and this one holds nothing any more.
    Replaced,
}

/// The events of one driver, in their order.
#[derive(Debug)]
pub struct LeaseEvents(UnboundedReceiver<LeaseEvent>);

impl LeaseEvents {
    /// The next event; `None` once the driver is over. Cancel safe.
    pub async fn next(&mut self) -> Option<LeaseEvent> {
        self.0.recv().await
    }
}

enum Command {
    Wanted(BTreeSet<LeaseId>),
    HandedOver(LeaseId, u64),
    Leave,
}

/// What is held, for those who ask without waiting for the task.
#[derive(Debug, Default)]
struct Holdings {
    epochs: BTreeMap<LeaseId, u64>,
    valid_until: Option<Instant>,
    others: usize,
}

type Shared = Arc<Mutex<Holdings>>;

fn lock(shared: &Shared) -> MutexGuard<'_, Holdings> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Speaks to a running driver, which stops when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct LeaseHandle {
    // A driver that is over hears nothing: what could be said is moot then.
    commands: UnboundedSender<Command>,
    shared: Shared,
}

impl LeaseHandle {
    /// True while this holding of the lease is ours by the clock, whatever the driver is doing.
    #[must_use]
    pub fn holds(&self, lease: &LeaseId, epoch: u64) -> bool {
        let holdings = lock(&self.shared);
        holdings.epochs.get(lease) == Some(&epoch)
            && holdings
                .valid_until
                .is_some_and(|until| Instant::now() < until)
    }

    /// True when the latest view showed another live worker, who could take what is given up.
    #[must_use]
    pub fn has_others(&self) -> bool {
        lock(&self.shared).others > 0
    }

    /// Replaces the leases that there are. Held ones that are not among them are to be handed over.
    pub fn set_wanted(&self, leases: BTreeSet<LeaseId>) {
        let _ = self.commands.send(Command::Wanted(leases));
    }

    /// Nothing is in flight under this holding any more, and nothing will be: others may have the
    /// lease. It is not ours from this call on. Nothing happens if it was lost meanwhile.
    pub fn handed_over(&self, lease: &LeaseId, epoch: u64) {
        let mut holdings = lock(&self.shared);
        if holdings.epochs.get(lease) == Some(&epoch) {
            holdings.epochs.remove(lease);
        }
        drop(holdings);
        let _ = self
            .commands
            .send(Command::HandedOver(lease.clone(), epoch));
    }

    /// Gives everything back: [`LeaseEvent::HandOver`] comes for every lease, and this answers
    /// when all are handed over and the store knows. Bound it by a time: a store that does not
    /// answer, or a lease that is never handed over, keeps it waiting.
    pub async fn leave(&self) {
        let _ = self.commands.send(Command::Leave);
        self.commands.closed().await;
    }
}

/// One worker that runs.
pub struct LeaseDriver {
    store: Arc<dyn LeaseStore>,
    settings: Settings,
    coordinator: Coordinator,
    wanted: BTreeSet<LeaseId>,
    queue: VecDeque<Change>,
    started: Instant,
    commands: UnboundedReceiver<Command>,
    events: UnboundedSender<LeaseEvent>,
    shared: Shared,
    epochs: BTreeMap<LeaseId, u64>,
    failures: u32,
}

/// What the driver does after a step.
enum Rest {
    None,
    Pause,
    Retry,
}

impl LeaseDriver {
    /// Starts a worker on the current tokio runtime. Of processes that live at the same time, each
    /// must have another `worker` (see [`crate::worker_id`]).
    ///
    /// When no other live worker is known to the store, the first leases are taken after two
    /// round trips to it.
    #[must_use]
    pub fn start(
        store: Arc<dyn LeaseStore>,
        worker: WorkerId,
        settings: Settings,
        wanted: BTreeSet<LeaseId>,
    ) -> (LeaseHandle, LeaseEvents) {
        let (to_driver, commands) = unbounded_channel();
        let (events, from_driver) = unbounded_channel();
        let shared = Shared::default();
        let driver = Self {
            store,
            settings,
            coordinator: Coordinator::new(worker, settings, random::number()),
            wanted,
            queue: VecDeque::new(),
            started: Instant::now(),
            commands,
            events,
            shared: shared.clone(),
            epochs: BTreeMap::new(),
            failures: 0,
        };
        tokio::spawn(driver.run());
        let handle = LeaseHandle {
            commands: to_driver,
            shared,
        };
        (handle, LeaseEvents(from_driver))
    }

    async fn run(mut self) {
        let mut has_left = false;
        while self.hear_all(&mut has_left) {
            let rest = match self.step().await {
                Ok(rest) => rest,
                Err(error) => {
                    self.failed(error);
                    Rest::Retry
                }
            };
            if self.coordinator.is_over() {
                if !has_left {
                    self.tell(LeaseEvent::Replaced);
                }
                break;
            }
            if !self.rest(rest, &mut has_left).await {
                break;
            }
        }
        lock(&self.shared).epochs.clear();
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn tell(&self, event: LeaseEvent) {
        // Nobody needs to listen.
        let _ = self.events.send(event);
    }

    /// Takes in what was said meanwhile; false once nobody is left to say anything.
    fn hear_all(&mut self, has_left: &mut bool) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.hear(command, has_left),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn hear(&mut self, command: Command, has_left: &mut bool) {
        match command {
            Command::Wanted(leases) => self.wanted = leases,
            Command::HandedOver(lease, epoch) => {
                if self.epochs.get(&lease) == Some(&epoch) {
                    self.epochs.remove(&lease);
                    let release = self.coordinator.hand_over(&lease);
                    self.queue.extend(release);
                }
            }
            Command::Leave => {
                *has_left = true;
                self.coordinator.leave();
            }
        }
    }

    async fn step(&mut self) -> Result<Rest, StoreError> {
        self.send_all().await?;
        let was_live = self.coordinator.is_live(self.now());
        let read = self.now();
        let store = self.store.clone();
        let view = self.call(async move { store.view().await }).await?;
        let decisions = self
            .coordinator
            .decide(read, self.now(), &view, &self.wanted);
        for decision in decisions {
            match decision {
                Decision::Change(change) => self.queue.push_back(change),
                Decision::HandOver(lease) => {
                    if let Some(epoch) = self.epochs.get(&lease).copied() {
                        self.tell(LeaseEvent::HandOver { lease, epoch });
                    }
                }
                Decision::Drop(lease, reason) => self.lost(lease, reason),
            }
        }
        self.publish();
        let changed_a_lease = self.send_all().await?;
        self.failures = 0;
        let is_live = self.coordinator.is_live(self.now());
        Ok(match (was_live, is_live) {
            (false, true) => Rest::None,
            _ if changed_a_lease => Rest::None,
            // Somebody else wrote our row just now: a predecessor's last beat.
            (_, false) => Rest::Retry,
            (true, true) => Rest::Pause,
        })
    }

    fn is_abandoned(&self) -> bool {
        self.commands.is_closed() && self.commands.is_empty()
    }

    /// Sends what waits, changes of leases several at once; answers whether one was among it. After a failure the
    /// rest is forgotten: the next view says what is still to be done.
    async fn send_all(&mut self) -> Result<bool, StoreError> {
        let mut has_lease = false;
        while !self.queue.is_empty() && !self.is_abandoned() {
            let batch = self.next_batch();
            has_lease |= matches!(batch.first(), Some(Change::Lease { .. }));
            let started = self.now();
            let limit = self.settings.beat();
            let answers = batch.iter().map(|change| {
                let store = self.store.clone();
                async move { within(limit, store.change(change)).await }
            });
            let answers = self.while_expiring(join_all(answers)).await;
            let now = self.now();
            let mut failure = None;
            for (change, answer) in batch.iter().zip(answers) {
                match answer {
                    Ok(outcome) => self.answered(change, outcome, started, now),
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
            self.publish();
            if let Some(error) = failure {
                self.queue.clear();
                return Err(error);
            }
        }
        Ok(has_lease)
    }

    /// What may be sent together: a beat alone, since what follows it rests on its answer, and leases in their order,
    /// each once.
    fn next_batch(&mut self) -> Vec<Change> {
        let mut batch: Vec<Change> = Vec::new();
        while let Some(next) = self.queue.front() {
            let is_new = |id: &LeaseId| {
                let other =
                    |change: &Change| !matches!(change, Change::Lease { id: of, .. } if of == id);
                batch.iter().all(other)
            };
            let fits = match next {
                Change::Worker { .. } => batch.is_empty(),
                Change::Lease { id, .. } => batch.len() < CHANGES_AT_ONCE && is_new(id),
            };
            if !fits {
                break;
            }
            let is_last = matches!(next, Change::Worker { .. });
            batch.extend(self.queue.pop_front());
            if is_last {
                break;
            }
        }
        batch
    }

    fn answered(&mut self, change: &Change, outcome: Outcome, started: Duration, now: Duration) {
        for event in self.coordinator.answered(change, outcome, started, now) {
            match event {
                Event::Taken(lease, epoch) => {
                    self.epochs.insert(lease.clone(), epoch);
                    // Those who hear of it must find it held.
                    lock(&self.shared).epochs.insert(lease.clone(), epoch);
                    self.publish();
                    self.tell(LeaseEvent::Taken { lease, epoch });
                }
                Event::Drop(lease, reason) => self.lost(lease, reason),
            }
        }
    }

    /// Awaits an answer for a beat's time, and lets leases expire meanwhile.
    async fn call<T>(
        &mut self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let limit = self.settings.beat();
        self.while_expiring(within(limit, call)).await
    }

    /// Awaits something that has a bound, and lets leases expire meanwhile.
    async fn while_expiring<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                () = until(self.expiry()) => self.expire(),
                answer = &mut work => return answer,
            }
        }
    }

    /// False once nobody is left to say anything.
    async fn rest(&mut self, rest: Rest, has_left: &mut bool) -> bool {
        let pause = match rest {
            Rest::None => return true,
            Rest::Pause => self.settings.pause(random::number() as u32),
            // A failed beat is repeated soon, while there is something to lose: a table that
            // throttles most of the writes takes one of many.
            Rest::Retry if self.coordinator.is_live(self.now()) => self.settings.beat() / 8,
            Rest::Retry => self.settings.beat() / (1 << 3u32.saturating_sub(self.failures)),
        };
        let end = Instant::now() + pause;
        loop {
            tokio::select! {
                biased;
                () = until(self.expiry()) => self.expire(),
                command = self.commands.recv() => {
                    let Some(command) = command else {
                        return false;
                    };
                    self.hear(command, has_left);
                    // While the store fails, many words must not become many calls.
                    if self.failures == 0 {
                        return true;
                    }
                }
                () = sleep_until(end) => return true,
            }
        }
    }

    fn expiry(&self) -> Option<Instant> {
        let until = self.coordinator.valid_until()?;
        Some(self.started + until)
    }

    fn expire(&mut self) {
        for (lease, reason) in self.coordinator.expire(self.now()) {
            self.lost(lease, reason);
        }
        self.publish();
    }

    fn lost(&mut self, lease: LeaseId, reason: DropReason) {
        if let Some(epoch) = self.epochs.remove(&lease) {
            lock(&self.shared).epochs.remove(&lease);
            self.tell(LeaseEvent::Lost {
                lease,
                epoch,
                reason,
            });
        }
    }

    /// What was handed over by word but not heard yet stays not held: only a new epoch enters.
    fn publish(&self) {
        let mut holdings = lock(&self.shared);
        holdings.valid_until = self.expiry();
        holdings.others = self.coordinator.others();
        holdings
            .epochs
            .retain(|lease, epoch| self.epochs.get(lease) == Some(epoch));
    }

    fn failed(&mut self, error: StoreError) {
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 {
            self.tell(LeaseEvent::StoreFailed(error));
        }
    }
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let late = || StoreError::Transient(format!("no answer within {limit:?}"));
    timeout(limit, call).await.unwrap_or_else(|_| Err(late()))
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
