//! The topic on a Fluvio cluster.
//!
//! What is spoken, and no more, in the versions of Fluvio 0.50:
//!
//! | to | request | for |
//! |---|---|---|
//! | both | `ApiVersions` | is it a server that speaks what is needed? |
//! | SC | object list | topics, partitions, SPUs, SmartModules |
//! | SC | object create, delete | topics and SmartModules |
//! | SPU | `Produce` | one stored batch, its answer awaited |
//! | SPU | `StreamFetch`, `UpdateOffsets` | one stream for each partition, acknowledged answer by answer |
//! | SPU | `FetchOffsets` | first and last offsets of a partition |
//! | SPU | `UpdateConsumerOffset`, `FetchConsumerOffsets` | what a sink has committed, for others to see |
//!
//! The ready-made consumer and producer of the `fluvio` crate are not used: the consumer takes a
//! batch that was cut short for a whole one, the producer shows a refused batch to nobody who does
//! not ask for it. What an answer means, and what the SPU does not say, is in `answer.rs`; what is
//! done about it in `stream.rs`.

mod answer;
mod cluster;
mod connection;
mod description;
mod error;
mod limits;
mod producer;
mod reader;
mod record_set;
mod release;
mod retry;
mod settings;
mod smart_module;
mod stream;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
mod topic;
mod topics;

pub use cluster::Cluster;
pub use description::{
    ConsumerOffset, PartitionDescription, SmartModuleDescription, TopicDescription,
};
pub use error::ClusterError;
pub use settings::ClusterSettings;
pub use smart_module::{digest, smartmodule_name};
pub use topic::{FluvioTopic, ModuleSource, TopicOptions};
pub use topics::segment_bytes;
