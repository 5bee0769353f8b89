//! `dynamodb-sink` as a process of its own: Fluvio's connector contract.

use std::process::ExitCode;

fn main() -> ExitCode {
    millpond_connector_host::main(millpond_dynamodb_sink::config::DynamodbSink)
}
