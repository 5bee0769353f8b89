//! The `millpond` command line tool, as a library so that tests can use its parts.

pub mod baseline;
pub mod child;
pub mod cli;
pub mod commands;
pub mod cost;
pub mod emit_log;
pub mod exit;
pub mod logging;
pub mod progress;
pub mod put_records;
pub mod report;
pub mod signals;
pub mod time;
pub mod verify;
pub mod workload;

use anyhow::Result;

use crate::cli::Command;
use crate::exit::Exit;

/// Runs one command.
///
/// # Errors
/// What the user must be told; the process then ends with [`Exit::Failure`].
pub async fn run(command: Command) -> Result<Exit> {
    match command {
        Command::Local(args) => commands::local::run(args).await,
        Command::Emit(args) => commands::emit::run(args).await,
        Command::Read(args) => commands::read::run(args).await,
        Command::Groups(args) => commands::groups::run(args).await,
        Command::Inspect(args) => commands::inspect::run(args).await,
        _ => anyhow::bail!("not built yet"),
    }
}
