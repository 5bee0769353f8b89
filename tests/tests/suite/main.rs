//! Whole processes against the local stand-ins, and the cluster path against a scripted cluster:
//! everything that needs no Fluvio. One program, because each links all of Millpond.

mod access;
mod bad_input;
mod commands;
mod composition;
mod deploy;
mod disk;
mod dlq;
mod examples;
mod fire;
mod kill;
mod lost_topic;
mod main_job;
mod packed_forms;
mod profiles;
mod reader_memory;
mod readers;
mod reading;
mod s3_server;
mod scripted_cluster;
mod shared_table;
mod sharing;
mod sharing_sources;
mod status;
mod stream_gaps;
mod verify;

/// The command line tool.
const MILLPOND: &str = env!("CARGO_BIN_EXE_millpond-under-test");

/// All that cargo built.
const BUILT: millpond_tests::on_cluster::Binaries = millpond_tests::binaries!();
