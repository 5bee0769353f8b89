//! The Kinesis source: reads every shard of a stream, by polling or by enhanced fan-out, into a topic, each
//! event untouched, in the order of its shard, with its origin as the record's key.
//!
//! Two ways in: [`kind`] for a registry (section `kinesis` of `Connector.yaml`), and
//! [`source::KinesisSource::new`] with a client, a config and a checkpoint store.
//!
//! The parts, from the inside out. Pure, with `now` as an argument:
//! [`lineage`] (parents before children), [`pacing`] (when and how much to read),
//! [`aggregate`] (records that hold many events), [`opening`] (compressed payloads), [`delivery`] (batches, chains, durable positions), [`roster`] (lineage and checkpoint in step),
//! [`classify`] (what a failed call means). Adapters: [`client`] is the stream service as used here,
//! [`fan_out`] the calls of enhanced fan-out, [`sdk`] and [`sdk_fan_out`] the AWS SDK behind them, [`checkpoint`] is what is remembered, kept by [`checkpoint_store`].
//! Around them: one reader task for each shard, which has a feed (asked for, or pushed), and one session task that owns all decisions.
//!
//! [`shard_table`] puts leases beside the checkpoints, so that many sources share the shards:
//! [`dynamo_table`] in DynamoDB, with the rows of the Kinesis Client Library ([`kcl_row`]).

pub mod admin;
pub mod aggregate;
pub mod checkpoint;
mod checkpoint_file;
pub mod checkpoint_memory;
pub mod checkpoint_store;
pub mod classify;
pub mod client;
pub mod clock;
pub mod config;
mod consumer;
pub mod delivery;
mod dynamo_call;
pub mod dynamo_table;
pub mod error;
mod expression;
pub mod fan_out;
mod feed;
pub mod kcl_row;
mod kind;
pub mod limits;
pub mod lineage;
mod listing;
pub mod loss;
pub mod memory_table;
pub mod numbering;
pub mod opening;
pub mod operations;
pub mod pacing;
mod polling;
mod progress;
mod reader;
pub mod retention;
pub mod retention_guard;
mod retry;
pub mod roster;
pub mod sdk;
pub mod sdk_admin;
pub mod sdk_fan_out;
mod session;
pub mod shard;
pub mod shard_figures;
pub mod shard_scaling;
pub mod shard_table;
pub mod source;
mod subscribing;
mod subscription_watch;
pub mod watch_config;

pub use kind::{KinesisKind, kind};
pub use reader::WallClock;
pub use session::sharing::Worker;
pub use source::KinesisSource;
