//! The configuration that decides the bytes of plans, kept in the store under its fingerprint.
//!
//! A plan that was begun must be finished with the bytes that it would have had (I2). After a
//! restart with something changed the open plan's configuration is fetched by its fingerprint and
//! used once more: for that plan, and for nothing after it. It is the right one if
//! and only if it has that fingerprint still, with the SmartModules as they are now.

use millpond_connector::topic::{PartitionId, Transform};
use serde::{Deserialize, Serialize};

use crate::error::SinkError;
use crate::fingerprint::{Ingredients, fingerprint, module_digests};
use crate::flush::Shared;
use crate::store::PlanWriter;

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The transform chain as configured.
    pub transforms: Vec<Transform>,
    /// Settings of the store that decide names or bytes of what it writes.
    pub store: Vec<String>,
}

impl Configuration {
    /// As JSON.
    ///
    /// # Errors
    /// [`serde_json::Error`], which no configuration is known to cause.
    pub fn text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

/// What finishes an open plan.
pub type Finisher = (Shared, Box<dyn PlanWriter>);

/// What is needed to finish a plan that was begun with the configuration `recorded`; else why
/// that cannot be done.
///
/// # Errors
/// [`SinkError`] when the store does not answer.
pub async fn recorded(
    shared: &Shared,
    partition: PartitionId,
    recorded: &str,
) -> Result<Result<Finisher, &'static str>, SinkError> {
    let text = shared.store.configuration(recorded).await;
    let text = text.map_err(|error| SinkError::of_store(partition, error))?;
    let Some(text) = text else {
        return Ok(Err("it was not recorded"));
    };
    let Ok(kept) = serde_json::from_str::<Configuration>(&text) else {
        return Ok(Err("this version of Millpond cannot read it"));
    };
    let now = fingerprint(Ingredients {
        pipeline: &shared.pipeline,
        store: &kept.store,
        transforms: &kept.transforms,
        digests: &module_digests(&kept.transforms),
    });
    if now != recorded {
        return Ok(Err(
            "its SmartModule file is another one now, or this version of Millpond plans otherwise",
        ));
    }
    let Some(writer) = shared.store.writer_as(partition, &kept.store) else {
        return Ok(Err("the store cannot be used as it was then"));
    };
    let shared = Shared {
        transforms: kept.transforms,
        fingerprint: recorded.to_owned(),
        ..shared.clone()
    };
    Ok(Ok((shared, writer)))
}
