//! What a `Connector.yaml` wants of a cluster.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use millpond_connector::manifest::{ManifestFile, Pipeline, Scope};
use millpond_connector::meta::{Compression, TopicSettings};
use millpond_connector::registry::Direction;
use millpond_connector::secret::SecretStore;
use millpond_connector_host::BuiltIn;

use super::split::split;
use crate::connectors::{self, registry};

/// A valid file, for a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterPipeline {
    /// Topics, each once.
    pub topics: Vec<WantedTopic>,
    /// Built-in SmartModules, each once.
    pub modules: Vec<WantedModule>,
    /// Connectors in the order of the file.
    pub connectors: Vec<WantedConnector>,
}

/// A topic that must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedTopic {
    /// What the file says of it.
    pub settings: TopicSettings,
    /// How its sources compress; a topic may forbid it.
    pub compression: Option<Compression>,
}

/// A SmartModule that must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedModule {
    /// What the file calls it.
    pub uses: String,
    /// Its name on the cluster.
    pub name: String,
    /// What it is.
    pub wasm: &'static [u8],
    /// Connectors whose records go through it.
    pub used_by: Vec<String>,
}

/// A connector that must run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedConnector {
    /// Its name.
    pub name: String,
    /// Its type, such as `kinesis-source`.
    pub type_name: String,
    /// Source or sink.
    pub direction: Direction,
    /// Topic that it works on.
    pub topic: String,
    /// Its document, unchanged.
    pub text: String,
}

impl ClusterPipeline {
    /// Takes a valid file apart.
    ///
    /// # Errors
    /// When something in it cannot work on a cluster.
    pub fn new(
        path: &Path,
        text: &str,
        pipeline: &Pipeline,
        secrets: &SecretStore,
    ) -> Result<Self> {
        let mut wanted = Self {
            topics: Vec::new(),
            modules: Vec::new(),
            connectors: Vec::new(),
        };
        for settings in &pipeline.topics {
            let sources = pipeline.connectors.iter().filter(|connector| {
                let document = &connector.document;
                document.direction() == Direction::Source
                    && document.meta.topic.name == settings.name
            });
            wanted.topics.push(WantedTopic {
                settings: settings.clone(),
                compression: sources
                    .filter_map(|source| source.document.meta.producer.compression)
                    .next(),
            });
        }
        let parts = split(text);
        ensure!(
            parts.len() == pipeline.connectors.len(),
            "`{}` holds {} documents but {} connectors",
            path.display(),
            parts.len(),
            pipeline.connectors.len()
        );
        for (connector, part) in pipeline.connectors.iter().zip(parts) {
            let document = &connector.document;
            let meta = &document.meta;
            check_part(&meta.name, &part.text, &document.base_dir, secrets)?;
            for transform in &document.transforms {
                wanted.need_module(&meta.name, &transform.uses, &part.text)?;
            }
            wanted.connectors.push(WantedConnector {
                name: meta.name.clone(),
                type_name: meta.type_name.clone(),
                direction: document.direction(),
                topic: meta.topic.name.clone(),
                text: part.text,
            });
        }
        Ok(wanted)
    }

    /// Reads and checks a file; `None` when it has errors, which were shown.
    ///
    /// # Errors
    /// When it cannot be read, or cannot work on a cluster.
    pub fn load(path: &Path, secrets: &SecretStore) -> Result<Option<Self>> {
        let bytes =
            std::fs::read(path).with_context(|| format!("`{}` cannot be read", path.display()))?;
        let base_dir = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        let name = path.display().to_string();
        let file = ManifestFile::from_bytes(name, bytes.clone(), base_dir);
        let validation = connectors::validate(&file, secrets);
        crate::commands::print_problems(&validation.problems);
        let Some(pipeline) = validation.pipeline else {
            return Ok(None);
        };
        // Validation has refused anything but UTF-8.
        let text = String::from_utf8(bytes).context("the file is not text in UTF-8")?;
        Self::new(path, &text, &pipeline, secrets).map(Some)
    }

    fn need_module(&mut self, connector: &str, uses: &str, text: &str) -> Result<()> {
        let Some(wasm) = built_in(uses) else {
            // A path. The connector reads its document from another folder than this file's.
            ensure!(
                Path::new(uses).is_absolute() && text.contains(uses),
                "connector `{connector}`: `transforms` uses `{uses}` by a relative path, which means another file once \
                 the document is split off; write the whole path"
            );
            return Ok(());
        };
        match self.modules.iter_mut().find(|known| known.uses == uses) {
            Some(known) => known.used_by.push(connector.to_owned()),
            None => self.modules.push(WantedModule {
                uses: uses.to_owned(),
                name: super::fluvio::smartmodule_name(uses),
                wasm,
                used_by: vec![connector.to_owned()],
            }),
        }
        Ok(())
    }
}

fn built_in(uses: &str) -> Option<&'static [u8]> {
    (uses == millpond_pack::NAME).then_some(millpond_pack::WASM)
}

/// What was split off is read as the connector's binary will read it.
fn check_part(name: &str, text: &str, base_dir: &Path, secrets: &SecretStore) -> Result<()> {
    let file = ManifestFile::from_bytes(name, text.as_bytes(), base_dir);
    let validation = registry().validate(&file, secrets, &BuiltIn, Scope::Connector);
    let names: Vec<String> = validation
        .pipeline
        .into_iter()
        .flat_map(|pipeline| pipeline.connectors)
        .map(|connector| connector.document.meta.name)
        .collect();
    if names != [name] {
        bail!("the document of connector `{name}` cannot be split off: it reads as {names:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::CONNECTOR_YAML;

    fn load(text: &str) -> Result<ClusterPipeline> {
        let secrets = SecretStore::from_environment();
        let file = ManifestFile::from_bytes("Connector.yaml", text.as_bytes(), "");
        let pipeline = connectors::validate(&file, &secrets)
            .pipeline
            .context("not valid")?;
        ClusterPipeline::new(Path::new("Connector.yaml"), text, &pipeline, &secrets)
    }

    #[test]
    fn the_root_file_comes_apart() {
        let wanted = load(CONNECTOR_YAML).expect("valid");
        let texts: Vec<&str> = wanted
            .connectors
            .iter()
            .map(|connector| connector.text.as_str())
            .collect();
        assert_eq!(texts.concat(), CONNECTOR_YAML);
        assert_eq!(wanted.topics.len(), 1);
        assert_eq!(wanted.topics[0].settings.partitions, Some(4));
        assert_eq!(wanted.modules.len(), 1);
        assert_eq!(wanted.modules[0].used_by, ["events-sink"]);
    }
}
