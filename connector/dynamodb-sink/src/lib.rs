//! The DynamoDB sink: few large items, at a pace that the table takes, each event once.
//!
//! What does not depend on DynamoDB is `millpond-sink`. Here, pure modules decide ([`mod@plan`], [`mapping`], [`mod@pacing`],
//! [`batch`], [`resting`], [`mod@client::classify`]), [`client`] talks to the service, [`writer`] is the one
//! place that retries and paces, and [`store`] puts them together.

pub mod batch;
pub mod budget;
pub mod chain;
pub mod client;
pub mod config;
pub mod decimal;
pub mod error;
pub mod form;
pub mod ledger_row;
pub mod letter_rows;
pub mod limits;
pub mod mapped;
pub mod mapping;
mod pace_settings;
pub mod pacing;
pub mod plan;
pub mod plan_writer;
pub mod resting;
pub mod row;
mod sharing;
pub mod spread;
pub mod store;
pub mod table;
pub mod typed;
mod undo;
pub mod writer;

/// The connector kind `dynamodb-sink`, for the registry.
#[must_use]
pub fn kind() -> config::DynamodbSink {
    config::DynamodbSink
}
