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

    /// Looks for a pipeline that this one may be under a new name: every event would be in the
    /// store a second time. `beside` are those that the operator wants to have beside it.
    ///
    /// # Errors
    /// [`SinkError::Registry`] names the pipeline of the same topic.
    pub fn check_new(
        &self,
        known: &[(String, Self)],
        beside: &[String],
        pipeline: &str,
        store: &str,
    ) -> Result<(), SinkError> {
        if known.iter().any(|(name, _)| name == pipeline) {
            return Ok(());
        }
        let same = known
            .iter()
            .find(|(name, other)| other.topic == self.topic && !beside.contains(name));
        let Some((other, _)) = same else {
            return Ok(());
        };
        Err(SinkError::Registry(format!(
            "pipeline `{pipeline}` is new in {store}, which holds pipeline `{other}` of the same \
             topic `{}`: every event would be written a second time. If `{other}` was renamed, \
             set `pipeline: {other}`; if both are wanted, set `beside: [{other}]`",
            self.topic
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(topic: &str) -> Registration {
        Registration {
            topic: topic.into(),
            partitions: 4,
            fingerprint: "f".into(),
        }
    }

    #[test]
    fn a_new_name_for_a_topic_that_has_a_pipeline_must_be_meant() {
        let known = [("a".to_owned(), of("t")), ("b".to_owned(), of("u"))];
        let check = |topic: &str, pipeline: &str, beside: &[&str]| {
            let beside: Vec<String> = beside.iter().map(|name| (*name).to_owned()).collect();
            of(topic).check_new(&known, &beside, pipeline, "table `x`")
        };
        for (topic, pipeline, beside) in [
            ("t", "a", &[][..]),
            ("v", "c", &[]),
            ("t", "c", &["a"]),
            ("t", "c", &["b", "a"]),
        ] {
            assert!(check(topic, pipeline, beside).is_ok(), "{topic} {pipeline}");
        }
        let error = check("t", "c", &["b"]).expect_err("refused").to_string();
        for part in [
            "`c` is new",
            "pipeline `a`",
            "`pipeline: a`",
            "`beside: [a]`",
        ] {
            assert!(error.contains(part), "{error}");
        }
        assert!(of("t").check_new(&[], &[], "c", "table `x`").is_ok());
    }
}
