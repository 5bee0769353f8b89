//! `s3-sink` as a process of its own: Fluvio's connector contract.

use std::process::ExitCode;

fn main() -> ExitCode {
    millpond_connector_host::main(millpond_s3_sink::config::S3Sink)
}
