//! Everything of a sink that does not depend on where it writes.
//!
//! Pure modules decide ([`contiguity`], [`dedup`], [`ledger`], [`marks`]); [`partition`] is the loop
//! over one topic partition, [`flush`] the steps of one plan, [`sink`] runs all partitions. What a
//! place to write to must be able to do is in [`store`]; a new sink is an implementation of it.

pub mod configuration;
pub mod contiguity;
pub mod dead_letters;
pub mod dedup;
pub mod error;
pub mod fingerprint;
pub mod flush;
pub mod gaps;
pub mod ledger;
pub mod letter_queue;
pub mod limits;
pub mod origins;
pub mod partition;
pub mod placement;
pub mod registration;
pub mod sink;
pub mod store;

pub use millpond_format::marks;
