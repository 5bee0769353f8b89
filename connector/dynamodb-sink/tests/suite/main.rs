//! The sink against fakes and against a DynamoDB stand-in on the wire.

mod another_topic;
mod answers;
mod bounds;
mod capacity;
mod changes;
mod checker;
mod config;
mod crash;
mod cuts;
mod dedup;
mod dictionaries;
mod gaps;
mod harness;
mod holes;
mod instances;
mod late;
mod mapped;
mod mapped_wire;
mod plan;
mod resting;
mod rules;
mod shards;
mod sharing;
mod stale_writer;
mod start;
mod tapped;
mod wire;
mod writer;

use millpond_sink::conformance::{topic, workload};
