//! A chain of SmartModules under Fluvio's engine, called as an SPU calls it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use fluvio_smartengine::{
    SmartEngine, SmartModuleChainBuilder, SmartModuleChainInstance, SmartModuleConfig,
};
use fluvio_smartmodule::dataplane::smartmodule::{
    SmartModuleExtraParams, SmartModuleInitRuntimeError, SmartModuleInput, SmartModuleOutput,
    SmartModuleTransformRuntimeError,
};
use millpond_connector::topic::{ConsumedRecord, Offset, TopicError};

use crate::modules::ResolvedModule;
use crate::store::ReadBatch;

/// Protocol version that an SPU of Fluvio 0.50.1 passes to SmartModules.
const SPU_VERSION: i16 = 25;

/// An engine instance of a whole chain.
pub(crate) type Instance = SmartModuleChainInstance;

/// What instances of a chain are made of.
pub(crate) struct Recipe {
    engine: SmartEngine,
    memory_bytes: usize,
    modules: Vec<ResolvedModule>,
}

impl Recipe {
    /// A chain of these modules, each with so much memory at most.
    pub(crate) fn new(
        engine: SmartEngine,
        memory_bytes: usize,
        modules: Vec<ResolvedModule>,
    ) -> Self {
        Self {
            engine,
            memory_bytes,
            modules,
        }
    }

    /// Passes one stored batch through the chain, on a new instance if there is none.
    ///
    /// After a failure there is none left: the memory of a module that trapped cannot be
    /// trusted.
    pub(crate) fn process(
        &self,
        place: &mut Option<Instance>,
        batch: ReadBatch,
    ) -> Result<Vec<ConsumedRecord>, TopicError> {
        let base = batch.base;
        let failed_in = |uses, reason| TopicError::Transform {
            uses,
            offset: Some(base),
            reason,
        };
        let failed = |reason| failed_in(self.name(), reason);
        let mut instance = match place.take() {
            Some(instance) => instance,
            None => self.instantiate()?,
        };
        let Ok(base_offset) = i64::try_from(base) else {
            return Err(failed(format!("offset {base} is over the engine's limit")));
        };
        let input = SmartModuleInput::new(batch.raw, base_offset, batch.base_timestamp_ms);
        let again = (self.modules.len() > 1).then(|| input.clone());
        let output = match call(&mut instance, input) {
            Ok(output) => output,
            // The engine does not say which module it was: it is found on new instances.
            Err(reason) => {
                let found = again.and_then(|input| self.culprit(&input));
                let (uses, reason) = found.unwrap_or_else(|| (self.name(), reason));
                return Err(failed_in(uses, reason));
            }
        };
        *place = Some(instance);
        let records = output.successes.into_iter().map(|record| ConsumedRecord {
            offset: None,
            key: record.key.as_deref().cloned(),
            value: Bytes::clone(&record.value),
            timestamp_ms: None,
        });
        Ok(records.collect())
    }

    /// The module that fails on a batch when the chain up to it is called anew, and its words;
    /// `None` when the failure does not come again.
    fn culprit(&self, input: &SmartModuleInput) -> Option<(String, String)> {
        self.modules.iter().enumerate().find_map(|(index, module)| {
            let mut instance = self.instantiate_part(&self.modules[..=index]).ok()?;
            let reason = call(&mut instance, input.clone()).err()?;
            Some((module.uses.clone(), reason))
        })
    }

    /// The chain, for messages.
    pub(crate) fn name(&self) -> String {
        chain_name(&self.modules)
    }

    /// Compiles the modules and runs their `init`.
    pub(crate) fn instantiate(&self) -> Result<Instance, TopicError> {
        let whole = self.instantiate_part(&self.modules);
        whole.map_err(|reason| {
            // The engine does not say which module it was: try them one by one.
            let culprit = self.modules.iter().find_map(|module| {
                let reason = self.instantiate_part(std::slice::from_ref(module)).err()?;
                Some((module.uses.clone(), reason))
            });
            let (uses, reason) = culprit.unwrap_or_else(|| (self.name(), reason));
            TopicError::Transform {
                uses,
                offset: None,
                reason,
            }
        })
    }

    fn instantiate_part(&self, modules: &[ResolvedModule]) -> Result<Instance, String> {
        let mut builder = SmartModuleChainBuilder::default();
        builder.set_store_memory_limit(self.memory_bytes);
        for module in modules {
            let config = SmartModuleConfig::builder()
                .smartmodule_names([module.uses.clone()])
                .params(SmartModuleExtraParams::from(module.params.clone()))
                .version(SPU_VERSION)
                .build()
                .map_err(|error| error.to_string())?;
            builder.add_smart_module(config, module.wasm.to_vec());
        }
        let built = catch_unwind(AssertUnwindSafe(|| builder.initialize(&self.engine)));
        match built {
            Ok(Ok(instance)) => Ok(instance),
            Ok(Err(error)) => Err(engine_text(&error)),
            Err(_) => Err("the engine gave up on it".into()),
        }
    }
}

/// Passes a batch through an instance; afterwards a failed one is not to be used again.
fn call(instance: &mut Instance, input: SmartModuleInput) -> Result<SmartModuleOutput, String> {
    match catch_unwind(AssertUnwindSafe(|| instance.process(input))) {
        Ok(Ok(output)) => match &output.error {
            None => Ok(output),
            Some(error) => Err(runtime_text(error)),
        },
        Ok(Err(error)) => Err(engine_text(&error)),
        Err(_) => Err("the engine gave up on its output".into()),
    }
}

/// The modules of a chain, for messages.
pub(crate) fn chain_name(modules: &[ResolvedModule]) -> String {
    let names: Vec<_> = modules.iter().map(|m| m.uses.as_str()).collect();
    names.join(" | ")
}

/// The module's own words without the engine's decoration, or the whole chain of causes.
fn engine_text(error: &anyhow::Error) -> String {
    if let Some(init) = error.downcast_ref::<SmartModuleInitRuntimeError>() {
        return init.hint.trim().to_owned();
    }
    format!("{error:#}").trim().to_owned()
}

fn runtime_text(error: &SmartModuleTransformRuntimeError) -> String {
    let hint = error.hint.trim();
    let offset: Result<Offset, _> = error.offset.try_into();
    match offset {
        Ok(offset) if offset > 0 => format!("{hint} (record at offset {offset})"),
        _ => hint.to_owned(),
    }
}
