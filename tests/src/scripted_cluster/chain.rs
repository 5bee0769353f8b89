//! SmartModules of a stream: the engine of the SPU, and how it calls it.
//!
//! One call for each stored batch, from the batch that holds the position to the end of the log; the
//! outputs make one batch, numbered on from the first stored batch that gave any. An output that would
//! take it past `max_bytes` ends it.

use fluvio_protocol::Encoder as _;
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::link::smartmodule::SmartModuleTransformRuntimeError;
use fluvio_protocol::record::{Batch, MemoryRecords, RawRecords};
use fluvio_smartengine::{
    SmartEngine, SmartModuleChainBuilder, SmartModuleChainInstance, SmartModuleConfig,
};
use fluvio_smartmodule::dataplane::smartmodule::SmartModuleInput;
use fluvio_spu_schema::server::smartmodule::{SmartModuleInvocation, SmartModuleInvocationWasm};

use super::state::State;

/// The instance of one stream.
pub(super) struct Chain(SmartModuleChainInstance);

/// One batch of outputs.
pub(super) struct Output {
    /// Without records when there were none, or none that fitted.
    pub(super) batch: Batch<MemoryRecords>,
    /// What a module said of a record.
    pub(super) error: Option<SmartModuleTransformRuntimeError>,
}

impl Chain {
    /// Resolves and starts the modules; `None` when there are none.
    pub(super) fn build(
        state: &State,
        invocations: Vec<SmartModuleInvocation>,
        version: i16,
    ) -> Result<Option<Self>, ErrorCode> {
        if invocations.is_empty() {
            return Ok(None);
        }
        let mut builder = SmartModuleChainBuilder::default();
        for invocation in invocations {
            let invalid = |error: String| ErrorCode::SmartModuleInvalid { error, name: None };
            let wasm = match invocation.wasm {
                SmartModuleInvocationWasm::Predefined(name) => {
                    let module = state
                        .module(&name)
                        .ok_or_else(|| ErrorCode::SmartModuleNotFound { name })?;
                    SmartModuleInvocationWasm::AdHoc(module.wasm.payload.into())
                }
                adhoc => adhoc,
            };
            let wasm = wasm
                .into_raw()
                .map_err(|error| invalid(error.to_string()))?;
            let config = SmartModuleConfig::builder()
                .smartmodule_names([invocation.name.unwrap_or_default()])
                .params(invocation.params)
                .version(version)
                .build()
                .map_err(|error| invalid(error.to_string()))?;
            builder.add_smart_module(config, wasm);
        }
        builder
            .initialize(&SmartEngine::new())
            .map(|instance| Some(Self(instance)))
            .map_err(|error| ErrorCode::SmartModuleChainInitError(error.to_string()))
    }

    /// Runs stored batches through the modules.
    pub(super) fn process(
        &mut self,
        stored: &[Batch<RawRecords>],
        max_bytes: usize,
    ) -> anyhow::Result<Output> {
        let mut batch = Batch::<MemoryRecords>::default();
        batch.base_offset = -1;
        batch.set_offset_delta(-1);
        let mut total_bytes = 0;
        for input in stored {
            let compression = input.get_compression()?;
            let raw = &input.records().0;
            let raw = compression.uncompress(raw)?.unwrap_or_else(|| raw.to_vec());
            let base_offset = input.base_offset;
            let call = SmartModuleInput::new(raw, base_offset, input.get_base_timestamp());
            let output = self.0.process(call)?;
            let mut records = output.successes;
            if !records.is_empty() {
                if batch.base_offset == -1 {
                    batch.header.set_compression(compression);
                    batch.base_offset = base_offset;
                }
                let relative = batch.base_offset - base_offset;
                for record in &mut records {
                    record.add_base_offset(relative);
                }
                let bytes = records.write_size(0);
                if total_bytes + bytes > max_bytes {
                    let error = output.error;
                    return Ok(Output { batch, error });
                }
                total_bytes += bytes;
                batch.mut_records().append(&mut records);
            }
            if batch.base_offset != -1 {
                batch.add_to_offset_delta(input.last_offset_delta() + 1);
            }
            if output.error.is_some() {
                let error = output.error;
                return Ok(Output { batch, error });
            }
        }
        Ok(Output { batch, error: None })
    }
}
