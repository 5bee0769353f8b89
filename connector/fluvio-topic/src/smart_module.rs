//! Names and identity of SmartModules on a cluster.

use fluvio_smartmodule::dataplane::smartmodule::SmartModuleExtraParams;
use fluvio_spu_schema::server::smartmodule::{
    SmartModuleInvocation, SmartModuleInvocationWasm, SmartModuleKind,
};
use millpond_connector::topic::Transform;
use sha2::{Digest as _, Sha256};

use crate::error::ClusterError;
use crate::topic::ModuleSource;

/// The name under which what `uses` names is kept on a cluster.
///
/// Names there are made of `a-z 0-9 -` ([`fluvio sm create`]): `millpond/pack@0.1.0` is kept as
/// `millpond-pack-0-1-0`, so that versions stand side by side.
///
/// [`fluvio sm create`]: https://www.fluvio.io/docs/latest/fluvio/cli/fluvio/smartmodule
#[must_use]
pub fn smartmodule_name(uses: &str) -> String {
    let mapped: String = uses
        .chars()
        .map(|c| match c {
            'a'..='z' | '0'..='9' => c,
            'A'..='Z' => c.to_ascii_lowercase(),
            _ => '-',
        })
        .collect();
    mapped.trim_matches('-').to_owned()
}

/// SHA-256 of a WebAssembly module in hex.
#[must_use]
pub fn digest(wasm: &[u8]) -> String {
    Sha256::digest(wasm)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// True when `uses` is a file to be sent along rather than a module that the cluster keeps.
pub(crate) fn is_file(uses: &str) -> bool {
    uses.ends_with(".wasm")
}

/// What a stream request says of one step.
pub(crate) fn invocation(
    transform: &Transform,
    source: Option<&ModuleSource>,
) -> Result<SmartModuleInvocation, ClusterError> {
    let refused = |reason: std::io::Error| ClusterError::Refused {
        what: format!("use SmartModule `{}`", transform.uses),
        reason: reason.to_string(),
    };
    let mut name = smartmodule_name(&transform.uses);
    let wasm = match source {
        Some(ModuleSource::Wasm(bytes)) => {
            SmartModuleInvocationWasm::adhoc_from_bytes(bytes).map_err(refused)?
        }
        Some(ModuleSource::Named(other)) => {
            name.clone_from(other);
            SmartModuleInvocationWasm::Predefined(name.clone())
        }
        None if is_file(&transform.uses) => {
            let bytes = std::fs::read(&transform.uses).map_err(refused)?;
            SmartModuleInvocationWasm::adhoc_from_bytes(&bytes).map_err(refused)?
        }
        None => SmartModuleInvocationWasm::Predefined(name.clone()),
    };
    let mut params = SmartModuleExtraParams::default();
    for (key, value) in &transform.with {
        params.insert(key.clone(), value.clone());
    }
    Ok(SmartModuleInvocation {
        wasm,
        // The server looks at what the module exports.
        kind: SmartModuleKind::Generic(Default::default()),
        params,
        name: Some(name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_clusters_rule() {
        assert_eq!(
            smartmodule_name("millpond/pack@0.1.0"),
            "millpond-pack-0-1-0"
        );
        assert_eq!(smartmodule_name("Keep_Field"), "keep-field");
    }

    #[test]
    fn a_digest_is_that_of_the_bytes() {
        assert_eq!(
            digest(b""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
