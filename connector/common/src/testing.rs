//! Help for the tests of connectors.

use crate::catalog::NamesOnly;
use crate::manifest::{ManifestFile, Scope};
use crate::problem::Problems;
use crate::registry::{ConnectorKind, Registry, ValidConnector};
use crate::secret::SecretStore;

/// Checks one section of a connector, given as the YAML below its key, as a file would be.
///
/// Line 1 of the text is line [`FIRST_LINE`] of the file, and each line is indented by two.
pub fn validate_section(
    kind: impl ConnectorKind + 'static,
    section: &str,
) -> (Problems, Option<Box<dyn ValidConnector>>) {
    let mut text = format!(
        "apiVersion: 0.1.0\nmeta: {{name: tested, type: {}, topic: events, version: 0.1.0}}\n{}:\n",
        kind.type_name(),
        kind.section_name(),
    );
    for line in section.lines() {
        text.push_str(&format!("  {line}\n"));
    }
    let file = ManifestFile::from_bytes("Connector.yaml", text, "");
    let secrets = SecretStore::from_environment();
    let registry = Registry::new().with(kind);
    let checked = registry.validate(&file, &secrets, &NamesOnly::default(), Scope::Connector);
    let connector = checked.pipeline.and_then(|pipeline| {
        let mut connectors = pipeline.connectors.into_iter();
        connectors.next().map(|connector| connector.config)
    });
    (checked.problems, connector)
}

/// Line of the file that the first line of a tested section is.
pub const FIRST_LINE: u32 = 4;
