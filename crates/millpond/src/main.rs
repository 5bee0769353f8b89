//! The `millpond` command: parses, runs, says what went wrong.

use std::process::ExitCode;

use clap::Parser as _;
use millpond::cli::{Cli, Command};
use millpond::commands::{is_broken_pipe, local, say};
use millpond::exit::Exit;
use millpond_connector::aws::chain;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, Command::Demo(_)) {
        // The demo speaks to its stand-ins only, whatever account the environment names.
        // SAFETY: no other thread runs yet.
        unsafe {
            std::env::set_var("AWS_ACCESS_KEY_ID", local::CREDENTIAL);
            std::env::set_var("AWS_SECRET_ACCESS_KEY", local::CREDENTIAL);
            std::env::remove_var("AWS_SESSION_TOKEN");
            std::env::remove_var("AWS_PROFILE");
        }
    }
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
            say(&format!("error: {}", chain(error.as_ref())));
            Exit::of(&error).into()
        }
    }
}
