//! What a pipeline's rows in a store belong to: one topic with one number of partitions.

use crate::error::SinkError;

/// The registration of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Topic that feeds it.
    pub topic: String,
    /// Partitions of that topic.
    pub partitions: u32,
    /// Fingerprint of the configuration that registered it, for those who look.
    pub fingerprint: String,
}

impl Registration {
    /// Compares with the registration that `pipeline` has in `store` already.
    ///
    /// # Errors
    /// [`SinkError::Registry`] for a pipeline of another topic or partition count.
    pub fn check(&self, found: &Self, pipeline: &str, store: &str) -> Result<(), SinkError> {
        let refuse = |what: String| {
            Err(SinkError::Registry(format!(
                "pipeline `{pipeline}` in {store} {what}; use another name under `pipeline`"
            )))
        };
        if found.topic != self.topic {
            return refuse(format!(
                "is fed from topic `{}`, not from `{}`",
                found.topic, self.topic
            ));
        }
        if found.partitions != self.partitions {
            return refuse(format!(
                "is fed from {} topic partitions, and topic `{}` has {}: events of one key would \
                 be spread over both layouts",
                found.partitions, self.topic, self.partitions
            ));
        }
        Ok(())
    }
}
