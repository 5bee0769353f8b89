//! The SmartModules whose parameters a connector can check without running them.

use millpond_connector::catalog::SmartModuleCatalog;
use millpond_connector::problem::Problems;
use millpond_connector::section::Section;
use millpond_connector::topic::Transform;

/// The packer: its code is linked natively, so no WebAssembly engine is needed to check its parameters.
#[derive(Debug, Clone, Copy)]
pub struct BuiltIn;

impl SmartModuleCatalog for BuiltIn {
    fn known(&self) -> Vec<String> {
        vec![millpond_pack::NAME.to_owned()]
    }

    fn packs(&self, uses: &str) -> bool {
        let file = uses.rsplit(['/', '\\']).next().unwrap_or_default();
        uses == millpond_pack::NAME || file == "pack.wasm"
    }

    fn check(&self, transform: &Transform, step: &Section<'_>, problems: &mut Problems) {
        if transform.uses != millpond_pack::NAME {
            return;
        }
        if let Err(error) = millpond_pack::Params::from_map(&transform.with) {
            for problem in error.problems {
                let path = format!("with.{}", problem.parameter);
                problems.push(step.problem(&path, problem.message));
            }
        }
    }
}
