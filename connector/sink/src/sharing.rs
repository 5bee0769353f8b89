//! Runs those topic partitions that this sink leases, beside other sinks of the same pipeline.
//!
//! One task reads the lease driver's events and the ends of the loops, has [`Holdings`] decide, and
//! acts. Where it can fail:
//! - The process dies: its leases expire, others take them; the ledger's open plan is written again.
//! - The process stalls: others take its leases. It may wake before its own clock tells it so; its
//!   next step on the ledger is refused (I11), that loop ends as *fenced*, the others go on.
//! - The place of the leases does not answer: the leases expire here before they do elsewhere, loops
//!   stop at once, and begin again when it answers.
//! - A loop does not finish in time for a hand-over: it is stopped, and its plan left to the next owner.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use millpond_connector::topic::PartitionId;
use millpond_leases::{
    LeaseDriver, LeaseEvent, LeaseEvents, LeaseHandle, LeaseId, LeaseStore, Settings, StoreError,
    WorkerId, worker_id,
};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::error::SinkError;
use crate::flush::Shared;
use crate::holdings::{Act, Ending, Event, Holdings};
use crate::limits::{HAND_OVER_LIMIT, LEAVE_LIMIT, SHARED_DRAIN};
use crate::partition;
use crate::tenure::Tenure;

/// Whether sinks of one pipeline share its topic partitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Share {
    /// They do when other processes can consume the topic, the store has a place for leases, and
    /// nobody has divided the partitions by hand.
    #[default]
    Auto,
    /// They do.
    Always,
    /// This one runs all partitions that it is configured for.
    Never,
}

/// How topic partitions are shared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sharing {
    /// Whether they are.
    pub share: Share,
    /// Timings of the leases, the same for all sinks of a pipeline.
    pub timings: Settings,
}

/// Id of the lease of a topic partition: its number in five digits, as in the ledger.
#[must_use]
pub fn lease_id(partition: PartitionId) -> LeaseId {
    LeaseId::new(format!("{partition:05}"))
}

fn partition_of(lease: &LeaseId) -> Option<PartitionId> {
    lease.as_str().parse().ok()
}

/// The id under which the sink with this data directory leases.
///
/// # Errors
/// [`SinkError::Leases`] when it can be neither read nor made.
pub async fn worker(data_dir: &Path) -> Result<WorkerId, SinkError> {
    let data_dir = data_dir.to_owned();
    let made = tokio::task::spawn_blocking(move || worker_id(&data_dir)).await;
    match made {
        Ok(Ok(worker)) => Ok(worker),
        Ok(Err(error)) => Err(SinkError::Leases(error.to_string())),
        Err(error) => Err(SinkError::Leases(error.to_string())),
    }
}

type Ended = (PartitionId, u64, Result<(), SinkError>);

/// The partitions of one sink, and what they run on.
struct Sharer {
    shared: Arc<Shared>,
    drain: CancellationToken,
    handle: LeaseHandle,
    holdings: Holdings,
    tenures: BTreeMap<PartitionId, Tenure>,
    loops: JoinSet<Ended>,
    /// What the place of the leases said for good; forgotten when it works again.
    refusal: Option<StoreError>,
}

/// Runs what the leases give of `partitions` until `drain` is cancelled and all that is held then
/// is drained, which takes [`SHARED_DRAIN`] at most, or handed over. Answers why partitions were
/// halted at the end.
///
/// # Errors
/// [`SinkError`] of whatever cannot be mended by going on with the other partitions; all leases
/// are given back all the same.
pub async fn run(
    shared: Arc<Shared>,
    leases: Arc<dyn LeaseStore>,
    worker: WorkerId,
    timings: Settings,
    partitions: &[PartitionId],
    drain: CancellationToken,
) -> Result<Vec<String>, SinkError> {
    let wanted = partitions.iter().copied().map(lease_id).collect();
    info!(%worker, lease_duration = ?timings.lease_duration(), "shares topic partitions");
    let (handle, mut events) = LeaseDriver::start(leases, worker, timings, wanted);
    let mut sharer = Sharer {
        shared,
        drain,
        handle,
        holdings: Holdings::default(),
        tenures: BTreeMap::new(),
        loops: JoinSet::new(),
        refusal: None,
    };
    sharer.tell_store();
    let ended = sharer.drive(&mut events).await;
    sharer.leave(events).await;
    ended?;
    let failures = sharer.holdings.failures().into_iter();
    Ok(failures.map(str::to_owned).collect())
}

impl Sharer {
    async fn drive(&mut self, events: &mut LeaseEvents) -> Result<(), SinkError> {
        let drain = self.drain.clone();
        let mut is_draining = false;
        let mut leave_at: Option<Instant> = None;
        while !(is_draining && self.holdings.is_empty()) {
            let leave = async {
                match leave_at {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                // In this order, so that a run can be repeated.
                biased;
                event = events.next() => self.hear(event)?,
                Some(ended) = self.loops.join_next(), if !self.loops.is_empty() => {
                    self.ended(ended)?;
                }
                () = drain.cancelled(), if !is_draining => {
                    is_draining = true;
                    leave_at = Some(Instant::now() + SHARED_DRAIN);
                    self.act(Event::Drain);
                }
                () = leave => {
                    leave_at = None;
                    info!(
                        seconds = SHARED_DRAIN.as_secs(),
                        partitions = self.holdings.len(),
                        "drained for so long; what is left is for other sinks, or for the next start"
                    );
                    self.act(Event::Leave);
                }
            }
            let held = self.holdings.len() as u64;
            let gauge = &self.shared.metrics.partitions_held;
            gauge.store(held, Ordering::Relaxed);
            if let Some(refusal) = &self.refusal
                && self.holdings.is_empty()
            {
                return Err(SinkError::Leases(refusal.to_string()));
            }
        }
        Ok(())
    }

    fn hear(&mut self, event: Option<LeaseEvent>) -> Result<(), SinkError> {
        let event = match event {
            Some(LeaseEvent::Taken { lease, epoch }) => {
                self.refusal = None;
                self.shared.metrics.leases_taken.add(1);
                partition_of(&lease).map(|partition| Event::Taken(partition, epoch))
            }
            Some(LeaseEvent::HandOver { lease, epoch }) => {
                partition_of(&lease).map(|partition| Event::Wanted(partition, epoch))
            }
            Some(LeaseEvent::Lost {
                lease,
                epoch,
                reason,
            }) => {
                warn!(%lease, ?reason, "lease is lost, its topic partition stops here");
                self.shared.metrics.leases_lost.add(1);
                partition_of(&lease).map(|partition| Event::Lost(partition, epoch))
            }
            Some(LeaseEvent::StoreFailed(StoreError::Transient(reason))) => {
                warn!(
                    reason,
                    "the place of the leases does not answer, trying again"
                );
                None
            }
            Some(LeaseEvent::StoreFailed(refusal)) => {
                error!(error = %refusal, "the place of the leases refuses");
                self.refusal = Some(refusal);
                None
            }
            Some(LeaseEvent::Replaced) | None => {
                return Err(SinkError::Leases(
                    "another live process has the same worker id: its data directory is a copy of this \
                     one's; give each sink a data directory of its own"
                        .to_owned(),
                ));
            }
        };
        if let Some(event) = event {
            self.act(event);
        }
        Ok(())
    }

    fn ended(&mut self, ended: Result<Ended, JoinError>) -> Result<(), SinkError> {
        let (partition, epoch, result) =
            ended.map_err(|error| SinkError::Task(error.to_string()))?;
        self.tenures.remove(&partition);
        let ending = match result {
            Ok(()) => Ending::Told,
            Err(failure) if failure.is_fenced() => {
                warn!(partition, reason = %failure, "topic partition stops here");
                Ending::Fenced
            }
            Err(failure) if failure.is_of_the_records() => {
                error!(partition, error = %failure, "topic partition halts");
                let why = failure.to_string();
                self.shared.metrics.halted(partition, why.clone());
                Ending::Halted(why)
            }
            Err(failure) => return Err(failure),
        };
        self.act(Event::Ended(partition, epoch, ending));
        Ok(())
    }

    fn act(&mut self, event: Event) {
        let acts = self.holdings.on(event);
        self.tell_store();
        for act in acts {
            match act {
                Act::Start(partition, epoch) => self.start(partition, epoch),
                Act::Finish(partition) => {
                    if let Some(tenure) = self.tenures.get(&partition) {
                        tenure.hand_over.cancel();
                    }
                }
                Act::Stop(partition) => {
                    if let Some(tenure) = self.tenures.get(&partition) {
                        tenure.stop.cancel();
                    }
                }
                Act::GiveBack(partition, epoch) => {
                    self.shared.metrics.leases_handed_over.add(1);
                    self.handle.handed_over(&lease_id(partition), epoch);
                }
                Act::Want(partitions) => {
                    let leases: BTreeSet<LeaseId> = partitions.into_iter().map(lease_id).collect();
                    self.handle.set_wanted(leases);
                }
            }
        }
    }

    /// Before anything is given back or begun.
    fn tell_store(&self) {
        let all = self.shared.topic.partition_count() as usize;
        self.shared.store.hold(self.holdings.len(), all);
    }

    fn start(&mut self, partition: PartitionId, epoch: u64) {
        let tenure = Tenure::leased(
            self.drain.clone(),
            self.handle.clone(),
            lease_id(partition),
            epoch,
        );
        self.tenures.insert(partition, tenure.clone());
        let shared = self.shared.clone();
        self.loops
            .spawn(async move { (partition, epoch, leased(shared, partition, tenure).await) });
    }

    /// Ends loops that still run and gives back what is still held, within [`LEAVE_LIMIT`].
    async fn leave(&mut self, mut events: LeaseEvents) {
        self.loops.shutdown().await;
        for (partition, epoch) in self.holdings.all() {
            self.handle.handed_over(&lease_id(partition), epoch);
        }
        let leaving = timeout(LEAVE_LIMIT, self.handle.leave());
        tokio::pin!(leaving);
        loop {
            tokio::select! {
                biased;
                left = &mut leaving => {
                    if left.is_err() {
                        warn!("leases could not be given back, others take them once they expire");
                    }
                    return;
                }
                // Taken before the driver heard of the end.
                Some(event) = events.next() => {
                    if let LeaseEvent::Taken { lease, epoch } | LeaseEvent::HandOver { lease, epoch } = event {
                        self.handle.handed_over(&lease, epoch);
                    }
                }
            }
        }
    }
}

/// The loop of one holding, which ends at the latest [`HAND_OVER_LIMIT`] after it was told to.
async fn leased(
    shared: Arc<Shared>,
    partition: PartitionId,
    tenure: Tenure,
) -> Result<(), SinkError> {
    let overdue = async {
        tenure.hand_over.cancelled().await;
        sleep(HAND_OVER_LIMIT).await;
    };
    tokio::select! {
        biased;
        () = tenure.stop.cancelled() => Ok(()),
        ended = partition::run_for(shared, partition, tenure.clone()) => ended,
        () = overdue => {
            warn!(partition, "is not finished in time, its plan is left to the next owner");
            Ok(())
        }
    }
}
