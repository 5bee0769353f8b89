//! The embedded topic: a durable, partitioned log in one file, and the
//! SmartModule engine that a Fluvio SPU runs, in this process.
//!
//! - `store`, `tables`, `layout`: batches, offsets and consumers in one redb file
//!   (`millpond-store-file`). redb 4.6 was chosen over fjall 3.1 by measuring a
//!   queue of 1 MiB batches in durable groups of four, 4 GiB through a backlog of 512 MiB,
//!   one run on two cores: 743 against 262 MB/s, 0.56 against 1.09 CPU seconds per GB, 1.02
//!   against 2.01 bytes written per byte, 23 against 147 MB of memory, and a file as large
//!   as the backlog against one and a half times that. Without fjall's key-value
//!   separation, or with redb's values not cut to its pages, both are far worse.
//! - `ends`: what was acknowledged, beside the store: a store that opens without it is damaged.
//! - `writer`: one thread that commits appends of all partitions together and removes
//!   what every consumer has released.
//! - `reader`: one thread per reader that reads, checks and transforms ahead of its consumer.
//! - `modules`, `chain`: SmartModules by name or path, and one engine instance per reader;
//!   `pool`: the few instances that the readers of a chain of pure modules share.

mod chain;
mod config;
#[cfg(any(feature = "conformance", test))]
pub mod conformance;
#[cfg(test)]
mod disk_tests;
mod ends;
mod layout;
mod modules;
mod pool;
mod reader;
mod shared;
mod store;
mod tables;
mod topic;
mod writer;

pub use config::{Retention, TopicConfig};
pub use modules::SmartModules;
pub use topic::EmbeddedTopic;
