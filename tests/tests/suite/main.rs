//! Whole processes against the local stand-ins, and the cluster path against a scripted cluster:
//! everything that needs no Fluvio. One program, because each links all of Millpond.

mod bad_input;
mod composition;
mod deploy;
mod main_job;
mod profiles;
mod scripted_cluster;
mod sharing;

/// The command line tool.
const MILLPOND: &str = env!("CARGO_BIN_EXE_millpond-under-test");

/// The binaries that are run as processes of their own.
const BUILT: millpond_tests::on_cluster::Binaries = millpond_tests::binaries!();
