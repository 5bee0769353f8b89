//! `kinesis-source` as a process of its own: Fluvio's connector contract.

use std::process::ExitCode;

fn main() -> ExitCode {
    millpond_connector_host::main(millpond_kinesis_source::kind())
}
