//! What a writer knows of its right to write, and when what it sent has an end.
//!
//! A ledger row refuses the steps of a process that lost it (I11), but items are written without a condition. As
//! long as their plan can be made again that does no harm: a stale writer puts the bytes that are there. A plan that
//! is *taken back*, because its topic is lost, can be brought back by one. So items are sent by a writer that has
//! looked lately ([`Claim`]), and a plan is taken back when nothing that was sent before can arrive ([`StaleWrites`]).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use millpond_connector::mutation::{self, Mutation};
use millpond_connector::topic::PartitionId;
use millpond_connector::wall;
use tokio::time::Instant;

use crate::ledger::{LedgerError, LedgerRow};
use crate::store::{Store, StoreError};

/// For so long a writer goes by what it last knew of its ledger row. A plan is written in less, unless the store
/// throttles; then it costs a read of the row each time.
pub const LOOK_AGAIN: Duration = Duration::from_secs(20);

/// When what a writer sent that has lost its topic partition has an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaleWrites {
    /// For so long it goes by what it last knew. All sinks of a pipeline must have the same.
    pub look_again: Duration,
    /// What was sent arrives within this time or not at all.
    pub arrives_within: Duration,
}

impl StaleWrites {
    /// For a service that takes no request whose signature is older than this, nor one that is from further in the
    /// future: by a clock that is so much ahead, it is taken for as long again.
    #[must_use]
    pub const fn signed(life: Duration) -> Self {
        Self {
            look_again: LOOK_AGAIN,
            arrives_within: life.saturating_mul(2),
        }
    }

    /// For a server on this machine, which nothing is on its way to for long.
    pub const LOCAL: Self = Self {
        look_again: LOOK_AGAIN,
        arrives_within: Duration::from_secs(5),
    };

    /// So long after a ledger row got a higher epoch nothing arrives any more of whoever had it before.
    #[must_use]
    pub const fn end(self) -> Duration {
        self.look_again.saturating_add(self.arrives_within)
    }
}

/// Whose a ledger row is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its epoch.
    pub epoch: u64,
    /// The process that raised it.
    pub owner: String,
}

impl From<&LedgerRow> for Holder {
    fn from(row: &LedgerRow) -> Self {
        Self {
            epoch: row.epoch,
            owner: row.owner.clone(),
        }
    }
}

/// A time by both clocks: the monotonic one stands still while a machine sleeps, the other one can be set.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    steady: Instant,
    wall: SystemTime,
}

impl Moment {
    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        Self {
            steady: Instant::now(),
            wall: wall::now(),
        }
    }

    /// How long ago it was, by the clock that shows more.
    fn elapsed(self) -> Duration {
        let by_wall = wall::now().duration_since(self.wall);
        self.steady.elapsed().max(by_wall.unwrap_or_default())
    }
}

/// A topic partition that was taken, and when that was last known to be so.
pub struct Claim {
    store: Arc<dyn Store>,
    partition: PartitionId,
    holder: Holder,
    look_again: Duration,
    known: Mutex<Known>,
}

struct Known {
    /// Before the call was sent whose answer said that the row is ours.
    at: Moment,
    lost: Option<LedgerError>,
}

impl Claim {
    /// A claim by `row`, which was seen in the store by a call that was begun at `at`.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        partition: PartitionId,
        row: &LedgerRow,
        at: Moment,
    ) -> Arc<Self> {
        Arc::new(Self {
            look_again: store.stale_writes().look_again,
            store,
            partition,
            holder: row.into(),
            known: Mutex::new(Known { at, lost: None }),
        })
    }

    /// True while a request may be sent by what is known. To be asked *after* the request is signed: a process can be
    /// paused between any two steps, and from its signature on a request has an end.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        if mutation::is(Mutation::LookSkipped) {
            return true;
        }
        let known = self.known();
        known.lost.is_none() && known.at.elapsed() <= self.look_again
    }

    /// Looks at the ledger row if that is due. False when it is another's: nothing is to be sent any more.
    ///
    /// # Errors
    /// [`StoreError`] when the row cannot be read.
    pub async fn stands(&self) -> Result<bool, StoreError> {
        if self.is_fresh() {
            return Ok(true);
        }
        if self.known().lost.is_some() {
            return Ok(false);
        }
        let at = Moment::now();
        let found = self.store.holder(self.partition).await?;
        let mut known = self.known();
        if found.as_ref() == Some(&self.holder) {
            known.at = at;
        } else {
            known.lost = Some(match found {
                None => LedgerError::Changed,
                Some(found) => LedgerError::Fenced {
                    ours: self.holder.epoch,
                    theirs: found.epoch,
                    owner: found.owner,
                },
            });
        }
        Ok(known.lost.is_none())
    }

    /// Why it does not stand any more, once that was seen.
    #[must_use]
    pub fn lost(&self) -> Option<LedgerError> {
        self.known().lost.clone()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim")
            .field("partition", &self.partition)
            .field("holder", &self.holder)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "claim_tests.rs"]
mod tests;
