//! What a running Millpond process shows of itself: metrics for Prometheus, probes, a status
//! document, a page for people, and traces.
//!
//! The connectors count ([`millpond_connector::metrics`]) and know nothing of this crate; who runs
//! them puts them into a [`Process`] and serves it. [`families`] is the table of all metrics.

mod exposition;
pub mod families;
mod process;
mod server;
mod status;
pub mod traces;

pub use process::{
    Connector, ConnectorSnapshot, IsReady, LocalTopic, PartitionSnapshot, Phase, Process, Snapshot,
};
pub use server::Server;
pub use status::{LAYOUT, document};
