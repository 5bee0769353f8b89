//! Everything of a sink that does not depend on where it writes.
//!
//! Pure modules decide ([`contiguity`], [`dedup`], [`recorded`], [`ledger`], [`marks`]); [`partition`] is the loop
//! over one topic partition, [`reading`] what it reads, [`flush`] the steps of one plan, [`sink`] runs all partitions, or with
//! [`sharing`] those that other sinks of the pipeline do not run; [`holdings`] decides there. What a
//! place to write to must be able to do is in [`store`], what a writer must know before it writes in [`claim`]; a new sink is an implementation of it.

mod buffer;
pub mod claim;
pub mod configuration;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod contiguity;
pub mod dead_letters;
pub mod dedup;
pub mod error;
pub mod fingerprint;
pub mod flush;
mod frames;
pub mod gaps;
pub mod holdings;
mod late;
pub mod ledger;
pub mod letter_queue;
pub mod letter_topic;
pub mod letters;
pub mod limits;
mod next_step;
pub mod origins;
pub mod partition;
mod pieces;
pub mod placement;
pub mod reading;
pub mod recorded;
pub mod registration;
pub mod retry;
pub mod settings;
pub mod sharing;
pub mod sink;
mod standing;
pub mod store;
pub mod stored;
pub mod tenure;

pub use millpond_format::marks;
