//! The SmartModule that packs: one stored batch in, few large envelopes out.
//!
//! The packer is a pure function of a batch and its [`Params`]: the same batch gives the
//! same bytes, natively and as WebAssembly, however often it is repeated. Nothing is carried
//! from one batch to the next, so that it may run anywhere, be retried and be replayed.
//!
//! [`WASM`] is the module as an engine loads it, built from this crate by `build.sh`.

mod batch;
mod draft;
mod packer;
mod params;
mod pointer;
mod route;
mod skim;

#[cfg(target_arch = "wasm32")]
mod abi;
#[cfg(any(target_arch = "wasm32", test))]
mod wire;

pub use packer::{PackError, PackedRecord, Packer};
pub use params::{
    EventTime, GroupBy, MAX_LEVEL, MIN_LEVEL, OnMissingGroup, OnMissingOrigin, PARAMETERS,
    ParamProblem, Params, ParamsError,
};
pub use pointer::{Pointer, PointerError};

/// Name under which `transforms` of a `Connector.yaml` refers to this SmartModule.
pub const NAME: &str = "millpond/pack@0.1.0";

/// The SmartModule as WebAssembly (`wasm32-unknown-unknown`), as `build.sh` last built it.
#[cfg(not(target_arch = "wasm32"))]
pub const WASM: &[u8] = include_bytes!("../pack.wasm");
