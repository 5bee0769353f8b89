//! What this binary can run: its connectors and its SmartModules.

use std::path::Path;

use anyhow::Result;
use bytes::Bytes;
use millpond_connector::manifest::{ManifestFile, Scope, Validation};
use millpond_connector::registry::Registry;
use millpond_connector::secret::SecretStore;
use millpond_connector_host::BuiltIn;
use millpond_embedded_topic::SmartModules;

/// The root `Connector.yaml`: what `demo` runs from anywhere.
pub const CONNECTOR_YAML: &str = include_str!("../../../Connector.yaml");

/// The connectors; one more is one more line.
#[must_use]
pub fn registry() -> Registry {
    Registry::new()
        .with(millpond_kinesis_source::kind())
        .with(millpond_dynamodb_sink::config::DynamodbSink)
        .with(millpond_s3_sink::kind())
}

/// The SmartModules that `uses` can name. The packer keeps nothing between calls, so the
/// readers of a topic share its instances.
#[must_use]
pub fn smart_modules() -> SmartModules {
    let pack = Bytes::from_static(millpond_pack::WASM);
    SmartModules::new().with_pure_builtin(millpond_pack::NAME, pack)
}

/// Checks a file as one whole pipeline, without touching the network.
#[must_use]
pub fn validate(file: &ManifestFile, secrets: &SecretStore) -> Validation {
    registry().validate(file, secrets, &BuiltIn, Scope::Pipeline)
}

/// Reads and checks a file.
///
/// # Errors
/// When the file or the secrets cannot be read at all.
pub fn validate_path(path: &Path, secrets: &SecretStore) -> Result<Validation> {
    Ok(validate(&ManifestFile::read(path)?, secrets))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validate_text(text: &str) -> Validation {
        let file = ManifestFile::from_bytes("Connector.yaml", text.as_bytes(), "");
        validate(&file, &SecretStore::from_environment())
    }

    #[test]
    fn the_root_file_is_valid() {
        let validation = validate_text(CONNECTOR_YAML);
        assert!(validation.problems.is_empty(), "{}", validation.problems);
        let pipeline = validation.pipeline.expect("a pipeline");
        assert_eq!(pipeline.connectors.len(), 2);
        assert_eq!(pipeline.topics.len(), 1);
    }

    #[test]
    fn parameters_of_the_packer_are_checked() {
        let wrong = CONNECTOR_YAML.replace("group-by: /job_id", "group-bye: /job_id");
        assert_ne!(wrong, CONNECTOR_YAML);
        let text = validate_text(&wrong).problems.plain();
        assert!(
            text.contains("group-bye") && text.contains("`group-by`"),
            "{text}"
        );
    }

    /// The schema is committed for editors; this is the diff that keeps it true.
    #[test]
    fn the_committed_schema_is_that_of_this_build() {
        let committed = include_str!("../../../schema/connector.schema.json");
        assert_eq!(
            registry().schema_text(),
            committed,
            "run `cargo run -- schema > schema/connector.schema.json`"
        );
    }
}
