//! The `millpond` command: parses, runs, says what went wrong.

use std::process::ExitCode;

use clap::Parser as _;
use millpond::cli::Cli;
use millpond::commands::{is_broken_pipe, say};
use millpond::exit::Exit;

fn main() -> ExitCode {
    let cli = Cli::parse();
    millpond::logging::init();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("error: cannot start the runtime: {error}"));
            return Exit::Failure.into();
        }
    };
    let ended = runtime.block_on(millpond::run(cli.command));
    // Blocking work that was abandoned (a signal, an error) must not hold the process up.
    runtime.shutdown_background();
    match ended {
        Ok(exit) => exit.into(),
        Err(error) if is_broken_pipe(&error) => Exit::Success.into(),
        Err(error) => {
            say(&format!("error: {error:#}"));
            Exit::Failure.into()
        }
    }
}
