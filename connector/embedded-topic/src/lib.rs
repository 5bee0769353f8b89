//! The embedded topic: a durable, partitioned log in one file, and the
//! SmartModule engine that a Fluvio SPU runs, in this process.
//!
//! - `store`: batches, offsets and consumers in one redb file; every commit is on disk
//!   when it returns. Chosen over fjall 3 by measuring queues of 1 MiB batches: see
//!   `BENCHMARKS.md` at the root.
//! - `writer`: one thread that commits appends of all partitions together and removes
//!   what every consumer has released.
//! - `reader`: one thread per reader that reads, checks and transforms ahead of its consumer.
//! - `modules`, `chain`: SmartModules by name or path, and one engine instance per reader.

mod backend;
mod chain;
mod config;
#[cfg(any(feature = "conformance", test))]
pub mod conformance;
#[cfg(test)]
mod disk_tests;
mod layout;
mod modules;
mod reader;
mod shared;
mod store;
mod tables;
mod topic;
mod writer;

pub use config::{Retention, TopicConfig};
pub use modules::SmartModules;
pub use topic::EmbeddedTopic;
