//! SmartModules by name or path, and what can be told about them without running them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use bytes::Bytes;
use millpond_connector::topic::{TopicError, Transform};
use sha2::{Digest, Sha256};
use wasmparser::{ExternalKind, Parser, Payload, TypeRef};

/// Entry points that the engine knows; it takes the first that a module exports.
const ENTRY_POINTS: [&str; 5] = ["filter", "map", "filter_map", "array_map", "aggregate"];
const HOST_FUNCTION: &str = "copy_records";
const WASM_MAGIC: &[u8] = b"\0asm";

/// The SmartModules that `transforms[].uses` can name.
///
/// A `uses` that ends in `.wasm` is a path; anything else must be a built-in name.
#[derive(Debug, Clone, Default)]
pub struct SmartModules {
    builtins: BTreeMap<String, Module>,
    base_dir: PathBuf,
}

#[derive(Debug, Clone)]
struct Module {
    wasm: Bytes,
    is_pure: bool,
}

/// One step of a chain, ready for the engine.
#[derive(Debug, Clone)]
pub(crate) struct ResolvedModule {
    pub(crate) uses: String,
    pub(crate) wasm: Bytes,
    pub(crate) params: BTreeMap<String, String>,
    /// It keeps nothing from one batch to the next.
    pub(crate) is_pure: bool,
}

impl SmartModules {
    /// No built-in SmartModules; paths are taken relative to the working directory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a built-in SmartModule, which may keep state between batches: every reader has
    /// an instance of its own, as on an SPU.
    #[must_use]
    pub fn with_builtin(self, name: impl Into<String>, wasm: impl Into<Bytes>) -> Self {
        self.with(name.into(), wasm.into(), false)
    }

    /// Adds a built-in SmartModule that is known to keep nothing between batches: what it
    /// makes of one depends on the batch and the parameters alone. Readers of chains of
    /// such modules share instances. A module from a file is never taken for pure.
    #[must_use]
    pub fn with_pure_builtin(self, name: impl Into<String>, wasm: impl Into<Bytes>) -> Self {
        self.with(name.into(), wasm.into(), true)
    }

    fn with(mut self, name: String, wasm: Bytes, is_pure: bool) -> Self {
        self.builtins.insert(name, Module { wasm, is_pure });
        self
    }

    /// Takes relative paths as relative to this directory, for example that of `Connector.yaml`.
    #[must_use]
    pub fn with_base_dir(mut self, base_dir: impl Into<PathBuf>) -> Self {
        self.base_dir = base_dir.into();
        self
    }

    /// Names of the built-in SmartModules, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.builtins.keys().map(String::as_str)
    }

    /// Checks that every module of a chain is found and is a SmartModule, without running it.
    ///
    /// # Errors
    /// [`TopicError::Transform`] that names the module and its defect.
    pub fn check(&self, transforms: &[Transform]) -> Result<(), TopicError> {
        self.resolve(transforms).map(|_| ())
    }

    /// SHA-256, in hex, of a chain: every module's bytes and parameters, in order.
    ///
    /// Two chains with one digest give the same records for the same stored batch.
    ///
    /// # Errors
    /// [`TopicError::Transform`] when a module is not found or is no SmartModule.
    pub fn chain_digest(&self, transforms: &[Transform]) -> Result<String, TopicError> {
        self.resolve(transforms).map(|modules| digest(&modules))
    }

    pub(crate) fn resolve(
        &self,
        transforms: &[Transform],
    ) -> Result<Vec<ResolvedModule>, TopicError> {
        transforms
            .iter()
            .map(|transform| {
                let uses = &transform.uses;
                let module = self.load(uses).and_then(|module| {
                    check_module(&module.wasm)?;
                    Ok(module)
                });
                let Module { wasm, is_pure } = module.map_err(|reason| TopicError::Transform {
                    uses: uses.clone(),
                    offset: None,
                    reason,
                })?;
                Ok(ResolvedModule {
                    uses: uses.clone(),
                    wasm,
                    params: transform.with.clone(),
                    is_pure,
                })
            })
            .collect()
    }

    fn load(&self, uses: &str) -> Result<Module, String> {
        if let Some(builtin) = self.builtins.get(uses) {
            return Ok(builtin.clone());
        }
        if uses.ends_with(".wasm") {
            let path = self.base_dir.join(uses);
            return std::fs::read(&path)
                .map(|wasm| Module {
                    wasm: wasm.into(),
                    is_pure: false,
                })
                .map_err(|error| format!("cannot read `{}`: {error}", path.display()));
        }
        let known: Vec<_> = self.names().map(|name| format!("`{name}`")).collect();
        let known = if known.is_empty() {
            "there are none built in".to_owned()
        } else {
            format!("built in: {}", known.join(", "))
        };
        Err(format!(
            "no SmartModule of this name; {known}; a path must end in `.wasm`"
        ))
    }
}

/// SHA-256, in hex, of every module's bytes and parameters, in order.
pub(crate) fn digest(modules: &[ResolvedModule]) -> String {
    let mut digest = Sha256::new();
    let mut field = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_be_bytes());
        digest.update(bytes);
    };
    for module in modules {
        field(&module.wasm);
        field(&(module.params.len() as u64).to_be_bytes());
        for (name, value) in &module.params {
            field(name.as_bytes());
            field(value.as_bytes());
        }
    }
    let mut hex = String::with_capacity(64);
    for byte in digest.finalize() {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// Tells what keeps these bytes from being a SmartModule. The engine would say so too, but
/// some of it only at the first batch, and in its own terms.
fn check_module(wasm: &[u8]) -> Result<(), String> {
    if !wasm.starts_with(WASM_MAGIC) {
        return Err("not a WebAssembly module: it does not start with `\\0asm`".into());
    }
    let mut surface = Surface::default();
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.map_err(|error| format!("corrupt WebAssembly: {error}"))?;
        surface
            .add(&payload)
            .map_err(|error| format!("corrupt WebAssembly: {error}"))?;
    }
    if !surface.whole {
        return Err("corrupt WebAssembly: it ends too early".into());
    }
    surface.check()
}

#[derive(Default)]
struct Surface {
    whole: bool,
    memory: bool,
    alloc: bool,
    entry_point: bool,
    copy_records: bool,
    foreign_imports: Vec<String>,
}

impl Surface {
    fn add(&mut self, payload: &Payload<'_>) -> wasmparser::Result<()> {
        match payload {
            Payload::ImportSection(imports) => {
                for import in imports.clone() {
                    let import = import?;
                    let function = matches!(import.ty, TypeRef::Func(_));
                    if function && import.name == HOST_FUNCTION {
                        self.copy_records = true;
                    } else if !(function && import.module == "wasi_snapshot_preview1") {
                        let name = format!("`{}.{}`", import.module, import.name);
                        self.foreign_imports.push(name);
                    }
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports.clone() {
                    let export = export?;
                    let function = export.kind == ExternalKind::Func;
                    self.memory |= export.kind == ExternalKind::Memory && export.name == "memory";
                    self.alloc |= function && export.name == "alloc";
                    self.entry_point |= function && ENTRY_POINTS.contains(&export.name);
                }
            }
            Payload::End(_) => self.whole = true,
            _ => {}
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let mut defects = Vec::new();
        if !self.entry_point {
            defects.push(format!(
                "exports none of the functions `{}`",
                ENTRY_POINTS.join("`, `")
            ));
        }
        if !self.memory {
            defects.push("exports no memory `memory`".into());
        }
        if !self.alloc {
            defects.push("exports no function `alloc`".into());
        }
        if !self.copy_records {
            defects.push(format!("imports no function `{HOST_FUNCTION}`"));
        }
        if !self.foreign_imports.is_empty() {
            defects.push(format!(
                "imports what the engine does not offer: {}",
                self.foreign_imports.join(", ")
            ));
        }
        if defects.is_empty() {
            return Ok(());
        }
        Err(format!("not a SmartModule: it {}", defects.join("; it ")))
    }
}
