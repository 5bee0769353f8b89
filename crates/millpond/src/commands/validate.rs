//! `millpond validate`: all problems of a file at once, without touching the network.

use anyhow::Result;
use millpond_connector::registry::Direction;
use millpond_connector::secret::SecretStore;

use crate::cli::ValidateArgs;
use crate::commands::{print, print_problems};
use crate::connectors::validate_path;
use crate::exit::Exit;

/// Runs `millpond validate`.
///
/// # Errors
/// When the file, or that of the secrets, cannot be read at all.
pub fn run(args: &ValidateArgs) -> Result<Exit> {
    let secrets = SecretStore::open(args.secrets.as_deref())?;
    let validation = validate_path(&args.config, &secrets)?;
    print_problems(&validation.problems);
    let Some(pipeline) = validation.pipeline else {
        return Ok(Exit::Configuration);
    };
    let count = |direction| {
        let connectors = pipeline.connectors.iter();
        connectors
            .filter(|connector| connector.document.direction() == direction)
            .count()
    };
    print(&format!(
        "{}: valid, sources: {}, sinks: {}, topics: {}",
        args.config.display(),
        count(Direction::Source),
        count(Direction::Sink),
        pipeline.topics.len()
    ))?;
    Ok(Exit::Success)
}
