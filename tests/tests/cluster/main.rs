//! Everything on a real Fluvio cluster and under the real cdk.
//!
//! The programs `fluvio-run`, `fluvio` and `cdk` are looked for in `MILLPOND_FLUVIO_BIN`, else
//! where PATH has the first; without them each test announces that it is skipped, and why.

mod cdk;
mod deploy;
mod on_cluster;
mod path;
mod profiles;

/// The command line tool.
const MILLPOND: &str = env!("CARGO_BIN_EXE_millpond-under-test");

/// The connectors: type, description, binary.
const CONNECTORS: [(&str, &str, &str); 2] = [
    (
        "kinesis-source",
        include_str!("../../../connector/kinesis-source/Connector.toml"),
        env!("CARGO_BIN_EXE_millpond-kinesis-source-under-test"),
    ),
    (
        "dynamodb-sink",
        include_str!("../../../connector/dynamodb-sink/Connector.toml"),
        env!("CARGO_BIN_EXE_millpond-dynamodb-sink-under-test"),
    ),
];

/// What Fluvio programs the tests need beside its servers.
const PROGRAMS: &[&str] = &["fluvio", "cdk"];
