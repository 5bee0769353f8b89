//! The sink against a bucket in memory, a folder, and an S3 server on the wire that nobody here wrote.

mod config;
mod harness;
mod lost_topic;
mod objects;
mod parquet;
mod reader;
mod rules;
mod start;
mod store;
mod wire;
