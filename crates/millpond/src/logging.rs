//! Logs of the process: to stderr, filtered by `RUST_LOG`.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

/// Without `RUST_LOG`: what degrades or fails. The DynamoDB stand-in warns of every answer that
/// is an error, also of those that a client asked for.
const DEFAULT_FILTER: &str = "warn,dynoxide=error";

/// Installs the log; a second call changes nothing.
pub fn init() {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .try_init();
}
