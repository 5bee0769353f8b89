//! How long a topic partition is ours: what tells its loop to end, and how.

use millpond_leases::{LeaseHandle, LeaseId};
use tokio_util::sync::CancellationToken;

/// The time that this process has a topic partition.
#[derive(Debug, Clone)]
pub struct Tenure {
    /// Cancelled to drain: everything up to the topic's end as of then is committed.
    pub drain: CancellationToken,
    /// Cancelled to hand over: the plan that is being written is committed, no other is begun.
    pub hand_over: CancellationToken,
    /// Cancelled to stop at once, whatever is in flight.
    pub stop: CancellationToken,
    lease: Option<(LeaseHandle, LeaseId, u64)>,
}

impl Tenure {
    /// Nobody else wants it.
    #[must_use]
    pub fn until(drain: CancellationToken) -> Self {
        Self {
            drain,
            hand_over: CancellationToken::new(),
            stop: CancellationToken::new(),
            lease: None,
        }
    }

    /// As long as one holding of a lease lasts.
    #[must_use]
    pub fn leased(
        drain: CancellationToken,
        handle: LeaseHandle,
        lease: LeaseId,
        epoch: u64,
    ) -> Self {
        Self {
            lease: Some((handle, lease, epoch)),
            ..Self::until(drain)
        }
    }

    /// True while it is ours by our own clock. It may be lost the moment after: what is written
    /// then is stopped by the ledger (I11), and this only spares the attempt.
    #[must_use]
    pub fn holds(&self) -> bool {
        let Some((handle, lease, epoch)) = &self.lease else {
            return true;
        };
        handle.holds(lease, *epoch)
    }
}
