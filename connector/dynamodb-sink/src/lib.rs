//! The DynamoDB sink: few large items, at a pace that the table takes, each event once.
//!
//! Pure modules decide ([`contiguity`], [`dedup`], [`plan`], [`ledger`], [`pacing`], [`batch`],
//! [`mod@client::classify`]), [`client`] talks to the service, [`writer`] is the one place that
//! retries and paces, and [`partition`] is the loop over one topic partition.

pub mod batch;
pub mod chain;
pub mod client;
pub mod config;
pub mod contiguity;
pub mod dead_letters;
pub mod dedup;
pub mod error;
pub mod fingerprint;
pub mod flush;
pub mod ledger;
pub mod letter_queue;
pub mod limits;
pub mod marks;
pub mod origins;
pub mod pacing;
pub mod partition;
pub mod plan;
pub mod row;
pub mod sink;
pub mod table;
pub mod writer;

/// The connector kind `dynamodb-sink`, for the registry.
#[must_use]
pub fn kind() -> config::DynamodbSink {
    config::DynamodbSink
}
