//! The source's checkpoint: replaced as a whole, old or new after a crash.

use std::sync::Arc;

use async_trait::async_trait;
use millpond_kinesis_source::checkpoint::{
    CheckpointError, CheckpointStore, Progress, StreamCheckpoint,
};

use crate::process::Process;
use crate::scenario::Fault;
use crate::world::lock;

/// The checkpoint as one process keeps it.
pub struct FakeCheckpoints(pub Arc<Process>);

/// How far back a checkpoint may lie that a source starts with, in saves.
const MOST_SAVES: u64 = 12;

/// True when an earlier checkpoint knows the numbering of every shard that the later one knows: another one, by a clock that
/// may be behind, is no matter of this fault.
fn has_numberings(earlier: &StreamCheckpoint, later: &StreamCheckpoint) -> bool {
    let epoch = |progress: &Progress| match progress {
        Progress::NotBegun | Progress::Finished => None,
        Progress::Begun { chain, .. } | Progress::Delivered { chain, .. } => Some(chain.epoch),
    };
    later.shards.iter().all(|(shard, now)| {
        let was = earlier.shards.get(shard).map(|shard| &shard.progress);
        match &now.progress {
            Progress::NotBegun => true,
            Progress::Finished => was.is_some_and(|was| *was != Progress::NotBegun),
            now => was.and_then(epoch) == epoch(now),
        }
    })
}

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
        let world = &self.0.world;
        if self.0.fault(Fault::Rewound) {
            let mut earlier = lock(&world.checkpoints_before);
            for _ in 0..world.dice.between("saves back", 1, MOST_SAVES) {
                let mut last = lock(&world.checkpoint);
                let fits = |earlier: &StreamCheckpoint| {
                    last.as_ref()
                        .is_some_and(|last| has_numberings(earlier, last))
                };
                if earlier.back().is_some_and(fits) {
                    *last = earlier.pop_back();
                }
            }
        }
        let found = lock(&world.checkpoint).clone();
        Ok(found.filter(|checkpoint| checkpoint.stream == stream))
    }

    async fn save(&self, checkpoint: &StreamCheckpoint) -> Result<(), CheckpointError> {
        let world = &self.0.world;
        self.0.step().await;
        if world.disk_is_full(&self.0.name) {
            return Err(failed("write", "no space left on device"));
        }
        let before = lock(&world.checkpoint).replace(checkpoint.clone());
        {
            let mut earlier = lock(&world.checkpoints_before);
            earlier.extend(before);
            while earlier.len() > MOST_SAVES as usize {
                earlier.pop_front();
            }
        }
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
