//! The sink against fakes and against a DynamoDB stand-in on the wire.

mod answers;
mod bounds;
mod changes;
mod checker;
mod config;
mod crash;
mod dedup;
mod gaps;
mod harness;
mod holes;
mod plan;
mod resting;
mod rules;
mod start;
mod topic;
mod wire;
mod workload;
mod writer;
