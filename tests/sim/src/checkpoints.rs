//! The source's checkpoint: replaced as a whole, old or new after a crash.

use std::sync::Arc;

use async_trait::async_trait;
use millpond_kinesis_source::checkpoint::{CheckpointError, CheckpointStore, StreamCheckpoint};

use crate::process::Process;
use crate::scenario::Fault;
use crate::world::lock;

/// The checkpoint as one process keeps it.
pub struct FakeCheckpoints(pub Arc<Process>);

/// An error that says so.
pub(crate) fn failed(action: &'static str, why: &str) -> CheckpointError {
    CheckpointError::Io {
        action,
        place: "checkpoint".to_owned(),
        source: std::io::Error::other(why.to_owned()),
    }
}

#[async_trait]
impl CheckpointStore for FakeCheckpoints {
    async fn load(&self, stream: &str) -> Result<Option<StreamCheckpoint>, CheckpointError> {
        self.0.step().await;
        let found = lock(&self.0.world.checkpoint).clone();
        Ok(found.filter(|checkpoint| checkpoint.stream == stream))
    }

    async fn save(&self, checkpoint: &StreamCheckpoint) -> Result<(), CheckpointError> {
        let world = &self.0.world;
        self.0.step().await;
        if world.disk_is_full(&self.0.name) {
            return Err(failed("write", "no space left on device"));
        }
        *lock(&world.checkpoint) = Some(checkpoint.clone());
        if world.scenario.checks_events {
            let seen = lock(&world.oracle).checkpointed(checkpoint);
            world.judge(seen);
        }
        world.note(format!("{} saves its checkpoint", self.0.name));
        self.0.step().await;
        match self.0.fault(Fault::LostAnswer) {
            true => Err(failed("sync", "no answer")),
            false => Ok(()),
        }
    }
}
