//! What the store holds.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// An id as text.
            #[must_use]
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// Its text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// What is leased: a topic partition, a shard.
    LeaseId
);
id!(
    /// Who leases: stable over restarts of one instance, unique among those that live.
    WorkerId
);

/// The row of a worker: it changes at every beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Beat {
    /// Another random number for every process that starts with this id.
    pub session: u64,
    /// Raised by every beat of that process.
    pub count: u64,
}

/// The row of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// Raised whenever somebody takes the lease.
    pub epoch: u64,
    /// Who holds it; nobody after a release.
    pub owner: Option<WorkerId>,
    /// Who asked the owner to hand it over.
    pub wanted_by: Option<WorkerId>,
}

/// All rows of one pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Workers that have ever beaten and were not forgotten.
    pub workers: BTreeMap<WorkerId, Beat>,
    /// Leases that were ever taken.
    pub leases: BTreeMap<LeaseId, LeaseRow>,
    /// How long a worker may be silent before it counts as dead, where that is not the lease duration: one of
    /// another program, which beats in its own time.
    pub silences: BTreeMap<WorkerId, Duration>,
    /// How much work each lease is, in any unit, where that was measured. Without any, each counts the same.
    pub loads: BTreeMap<LeaseId, u64>,
}

/// One conditional write: it applies only while the row is as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Write a worker's row, or remove it.
    Worker {
        /// Whose.
        id: WorkerId,
        /// As it was seen; `None` for absent.
        seen: Option<Beat>,
        /// As it will be; `None` removes it.
        new: Option<Beat>,
    },
    /// Write a lease's row.
    Lease {
        /// Which.
        id: LeaseId,
        /// As it was seen; `None` for absent.
        seen: Option<LeaseRow>,
        /// As it will be.
        new: LeaseRow,
    },
}
