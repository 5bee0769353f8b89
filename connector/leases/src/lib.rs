//! Leases: which of several processes works on which part of a stream.
//!
//! A part is a topic partition for the sink and a shard for the source; here it is a [`LeaseId`].
//! [`Coordinator`] is a pure state machine: it is shown what the store holds ([`View`]) and told
//! what the local clock says, and answers what to write and what to stop. It holds no I/O, no
//! clock and no randomness. [`LeaseStore`] is where the rows are: [`MemoryStore`] for tests,
//! `DynamoStore` (feature `dynamodb`) for the service. `LeaseDriver` (feature `driver`) runs the one
//! against the other and tells its user what was taken, is to be handed over, or was lost.
//!
//! # The rows
//! One row per worker, which it rewrites at every beat, and one row per lease, which is written
//! only when the lease changes hands. A beat therefore costs one write unit whether the worker
//! holds one lease or a thousand:
//!
//! | default timings | per worker |
//! |---|---|
//! | beat each 1.5 s, 1 write unit (row below 1 KB) | at most 3,000 write units per hour (beats come up to a fifth early) |
//! | view of the rows each 1.5 s, strongly consistent, about 150 bytes per row | 1 read unit for up to 25 rows; 38 for 1,000 leases (91,000 to 114,000 per hour) |
//! | a lease changes hands | 1 write unit to take; 3 when asked for and handed over |
//!
//! A beat per lease row would cost 2,400,000 write units per hour for 1,000 leases.
//!
//! # How a dead worker is noticed
//! No clock but one's own is trusted: a worker counts as dead when its row has not changed for
//! [`Settings::lease_duration`] as observed here. A worker itself counts its leases as lost when
//! the last beat that the store confirmed *began* more than three quarters of that ago: two clocks
//! may run a quarter apart in rate before two workers believe at the same time. Beats come at
//! least each quarter of it, so two may fail in a row. With the default of 6 s, the leases of a
//! killed worker are taken over 6 to 9 s after its last beat. Shorter would make a slow answer of
//! the service cost a move; longer lets events wait. A wrong verdict loses nothing, see below.
//!
//! # What is even
//! Nobody has more than one lease more than another. Where the store says how much work each lease is
//! ([`View::loads`]), the work is even instead, as far as whole leases and a tenth's tolerance allow.
//!
//! # What leases do not give (I11)
//! A process can be paused after it looked at its lease and before its write arrives. No lease
//! protects from that, only the place written to can: every change of hands raises
//! [`Held::epoch`], and what is written under a lease must be refused below the highest epoch
//! that was claimed there. The source's shard checkpoints do so with the lease's epoch itself. The
//! sink's ledger row has an epoch of its own, which every process raises that claims the topic
//! partition, whatever the lease says; its writes apply only to the row that was last seen. What the
//! sink writes to its store before that is the same for every owner, so repeating it changes nothing.
//!
//! # Restarts
//! A worker whose id is stable (kept in its data directory, which it holds locked) takes what its
//! own earlier session held at once, with a higher epoch; nobody waits for an expiry. A second
//! live process with the same id is noticed by its session number: the older one stops.

mod balance;
mod coordinator;
#[cfg(feature = "driver")]
mod driver;
mod load;
mod row;
mod settings;
mod store;
#[cfg(feature = "driver")]
mod worker;

pub use coordinator::{Coordinator, Decision, DropReason, Event, Held};
#[cfg(feature = "driver")]
pub use driver::{LeaseDriver, LeaseEvent, LeaseEvents, LeaseHandle};
pub use row::{Beat, Change, LeaseId, LeaseRow, View, WorkerId};
pub use settings::{Settings, SettingsError};
#[cfg(feature = "dynamodb")]
pub use store::call::{CallError, applied};
#[cfg(feature = "dynamodb")]
pub use store::dynamodb::DynamoStore;
pub use store::memory::MemoryStore;
pub use store::{LeaseStore, Outcome, StoreError};
#[cfg(feature = "driver")]
pub use worker::{WorkerIdError, worker_id};
