//! `millpond schema`: the JSON Schema of `Connector.yaml`.

use anyhow::Result;

use crate::commands::print;
use crate::connectors::registry;
use crate::exit::Exit;

/// Runs `millpond schema`.
///
/// # Errors
/// When stdout cannot be written.
pub fn run() -> Result<Exit> {
    print(registry().schema_text().trim_end())?;
    Ok(Exit::Success)
}
