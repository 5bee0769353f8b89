//! What there is: asked of the cluster, of cdk and of the data directory, nothing changed.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::api::ClusterApi;
use super::cdk::Listed;
use super::pipeline::ClusterPipeline;
use super::plan::Actual;
use super::process;

/// File of a connector's document.
#[must_use]
pub fn document_file(dir: &Path, connector: &str) -> PathBuf {
    dir.join(format!("{connector}.yaml"))
}

/// File of a connector type's package.
#[must_use]
pub fn package_file(dir: &Path, type_name: &str) -> PathBuf {
    dir.join(format!("{type_name}.ipkg"))
}

/// Processes that run a connector's document.
#[must_use]
pub fn processes(dir: &Path, connector: &str) -> Vec<u32> {
    process::of_config(&document_file(dir, connector))
}

/// Asks for all that a plan needs; what cannot be asked (`None`) counts as absent.
///
/// # Errors
/// When the cluster does not answer.
pub async fn observe(
    wanted: &ClusterPipeline,
    cluster: Option<&dyn ClusterApi>,
    listed: &[Listed],
    dir: &Path,
) -> Result<Actual> {
    let mut actual = Actual::default();
    if let Some(cluster) = cluster {
        for topic in &wanted.topics {
            let name = &topic.settings.name;
            if let Some(facts) = cluster.topic(name).await? {
                actual.topics.insert(name.clone(), facts);
            }
        }
        for module in &wanted.modules {
            if let Some(same) = cluster.module_is(&module.name, module.wasm).await? {
                actual.modules.insert(module.name.clone(), same);
            }
        }
    }
    for connector in &wanted.connectors {
        let name = &connector.name;
        let known = listed.iter().find(|listed| listed.name == *name);
        let runs = known.is_some_and(|known| known.running);
        // Also one that cdk has lost: a second one under the same name would fight it.
        let stray = !processes(dir, name).is_empty();
        if runs || stray || known.is_some() {
            actual.connectors.insert(name.clone(), runs || stray);
        }
        if let Ok(text) = std::fs::read_to_string(document_file(dir, name)) {
            actual.documents.insert(name.clone(), text);
        }
    }
    Ok(actual)
}
