//! Checkpoints that last as long as the process: for simulation and tests.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use crate::checkpoint::{CheckpointError, CheckpointStore, StreamCheckpoint};

/// Keeps checkpoints in memory, with the promises of the embedded store but for its durability.
#[derive(Debug, Default)]
pub struct MemoryCheckpoints {
    streams: Mutex<BTreeMap<String, StreamCheckpoint>>,
}

#[async_trait]
impl CheckpointStore for MemoryCheckpoints {
    async fn load(&self, stream: &str) -> Result<Option<StreamCheckpoint>, CheckpointError> {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(streams.get(stream).cloned())
    }

    async fn save(&self, checkpoint: &StreamCheckpoint) -> Result<(), CheckpointError> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.insert(checkpoint.stream.clone(), checkpoint.clone());
        Ok(())
    }
}
