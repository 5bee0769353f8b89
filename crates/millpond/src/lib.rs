//! The `millpond` command line tool, as a library so that tests can use its parts.

pub mod aggregator;
pub mod baseline;
pub mod child;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod connectors;
pub mod consumer_topic;
pub mod cost;
pub mod cpu;
pub mod data_dir;
pub mod dlq;
pub mod emit_log;
pub mod exit;
pub mod export;
pub mod logging;
pub mod progress;
pub mod put_records;
pub mod read_back;
pub mod report;
pub mod runtime;
pub mod signals;
pub mod stand_ins;
pub mod stream_census;
pub mod time;
pub mod verify;
pub mod workload;
pub mod yaml_override;

use anyhow::Result;

use crate::cli::Command;
use crate::exit::Exit;

/// Runs one command.
///
/// # Errors
/// What the user must be told; the process then ends with [`Exit::Failure`].
pub async fn run(command: Command) -> Result<Exit> {
    // `run` sets its own log up, which knows the secrets of its file.
    if !matches!(command, Command::Run(_)) {
        logging::init();
    }
    match command {
        Command::Demo(args) => commands::demo::run(args).await,
        Command::Run(args) => commands::run::run(args).await,
        Command::Deploy(args) => commands::deploy::run(args).await,
        Command::Status(args) => commands::status::run(args).await,
        Command::Down(args) => commands::down::run(args).await,
        Command::Local(args) => commands::local::run(args).await,
        Command::Emit(args) => commands::emit::run(args).await,
        Command::Validate(args) => commands::validate::run(&args),
        Command::Read(args) => commands::read::run(args).await,
        Command::Tail(args) => commands::tail::run(args).await,
        Command::Export(args) => commands::export::run(args).await,
        Command::Groups(args) => commands::groups::run(args).await,
        Command::Inspect(args) => commands::inspect::run(args).await,
        Command::Verify(args) => commands::verify::run(args).await,
        Command::Dlq(args) => commands::dlq::run(args).await,
        Command::Schema => commands::schema::run(),
    }
}
