//! The S3 sink: events as objects by group and hour, each event once.
//!
//! What does not depend on objects is `millpond-sink`. Here, pure modules decide ([`names`],
//! [`mod@plan`], [`router`], [`encode`], [`mod@client::classify`]), [`client`] talks to the service,
//! [`writer`] is the one place that retries, and [`store`] puts them together.

pub mod client;
pub mod config;
pub mod encode;
pub mod error;
pub mod events;
pub mod limits;
mod lists;
pub mod location;
pub mod names;
pub mod plan;
pub mod plan_writer;
pub mod router;
pub mod store;
pub mod writer;

/// The connector kind `s3-sink`, for the registry.
#[must_use]
pub fn kind() -> config::S3Sink {
    config::S3Sink
}
