//! Which SmartModules there are, and what they take: given by the binary, not known here.

use crate::problem::Problems;
use crate::section::Section;
use crate::topic::Transform;

/// The built-in SmartModules of one binary.
pub trait SmartModuleCatalog: Send + Sync {
    /// What `uses` may name besides a path to a `.wasm` file, such as `millpond/pack@0.1.0`.
    fn known(&self) -> Vec<String>;

    /// Checks the parameters of a built-in SmartModule, which is one of [`Self::known`].
    ///
    /// `step` is the step in the file: `step.problem("with.level", "…")` points at a parameter.
    fn check(&self, transform: &Transform, step: &Section<'_>, problems: &mut Problems);

    /// True when what the SmartModule of this name, or file, makes are envelopes: none of these can
    /// follow another one, since it would find no event in them.
    fn packs(&self, _uses: &str) -> bool {
        false
    }
}

/// A catalog that knows names and takes any parameters.
#[derive(Debug, Clone, Default)]
pub struct NamesOnly(pub Vec<String>);

impl SmartModuleCatalog for NamesOnly {
    fn known(&self) -> Vec<String> {
        self.0.clone()
    }

    fn check(&self, _: &Transform, _: &Section<'_>, _: &mut Problems) {}
}
