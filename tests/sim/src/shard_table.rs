//! Leases and checkpoints of shards that several sources share.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use millpond_kinesis_source::checkpoint::{
    Aggregated, CheckpointError, PinnedStart, Progress, StreamCheckpoint,
};
use millpond_kinesis_source::memory_table::MemoryTable;
use millpond_kinesis_source::shard::ShardId;
use millpond_kinesis_source::shard_table::{
    Found, ShardRow, ShardTable, ShardWrite, Sharing, StreamHead, WriteIf,
};
use millpond_leases::{LeaseId, WorkerId};
use tokio::time::sleep;

use crate::checkpoints::failed;
use crate::leases::FakeLeases;
use crate::oracle::broken;
use crate::process::Process;
use crate::scenario::Fault;
use crate::world::{NAME, Violation, World, lock};

/// The table as one source uses it.
pub struct FakeShardTable {
    process: Arc<Process>,
    me: WorkerId,
    table: MemoryTable,
}

impl FakeShardTable {
    /// The table of the world, for `me`.
    #[must_use]
    pub fn new(process: Arc<Process>, me: WorkerId) -> Self {
        Self {
            table: process.world.shard_table.of(me.clone()),
            process,
            me,
        }
    }

    async fn there(&self) -> Result<(), CheckpointError> {
        self.process.step().await;
        match self.process.fault(Fault::Throttle) || self.process.fault(Fault::Unreachable) {
            true => Err(failed("reach", "no answer")),
            false => Ok(()),
        }
    }

    async fn back<T>(&self, answer: T) -> Result<T, CheckpointError> {
        self.process.step().await;
        match self.process.fault(Fault::LostAnswer) {
            true => Err(failed("reach", "no answer")),
            false => Ok(answer),
        }
    }
}

/// A save on its way to the table, whoever still waits for it.
struct Save {
    world: Arc<World>,
    me: WorkerId,
    table: MemoryTable,
    writes: Vec<ShardWrite>,
    /// It comes after its process was told that it failed: a newer one may have come before it. What is read
    /// again then has the same numbers, so that is no harm.
    is_late: bool,
}

impl Save {
    async fn arrive(self) -> Result<Vec<ShardId>, CheckpointError> {
        let before = self.table.load(NAME).await?;
        let refused = self.table.save(&self.writes).await?;
        let world = &self.world;
        world.judge(self.check(&refused, &before));
        let rows = self.table.snapshot().0.into_iter();
        let checkpoint = StreamCheckpoint {
            stream: NAME.to_owned(),
            stream_created_ms: 0,
            start: PinnedStart::TrimHorizon,
            aggregated: Aggregated::Off.into(),
            shards: rows.map(|(id, row)| (id, row.checkpoint)).collect(),
        };
        let seen = lock(&world.oracle).checkpointed(&checkpoint);
        world.judge(seen);
        world.note(format!(
            "{}: {} rows of shards are saved, {} refused, late: {}",
            self.me,
            self.writes.len(),
            refused.len(),
            self.is_late
        ));
        Ok(refused)
    }

    /// Writes that took effect were allowed to, and took nothing back.
    fn check(&self, refused: &[ShardId], before: &Found) -> Result<(), Violation> {
        let (_, leases) = self.table.snapshot();
        let made = self
            .writes
            .iter()
            .filter(|write| !refused.contains(&write.shard));
        for write in made {
            let WriteIf::Held { epoch } = write.condition else {
                continue;
            };
            let shard = &write.shard;
            let lease = leases.get(&LeaseId::new(shard.as_str()));
            if lease.is_none_or(|row| row.epoch != epoch || row.owner.as_ref() != Some(&self.me)) {
                return broken(
                    "I11",
                    format!(
                        "{} saved shard {shard} under epoch {epoch} of {lease:?}",
                        self.me
                    ),
                );
            }
            let old = before.shards.get(shard).map(|row| &row.checkpoint.progress);
            let goes_back = |old| order(old, &write.row.checkpoint.progress) == Ordering::Greater;
            if !self.is_late && old.is_some_and(goes_back) {
                return broken("I5", format!("the checkpoint of shard {shard} went back"));
            }
        }
        Ok(())
    }
}

fn order(old: &Progress, new: &Progress) -> Ordering {
    let rank = |progress: &Progress| match progress {
        Progress::NotBegun => (0, 0, String::new(), 0),
        Progress::Begun { .. } => (1, 0, String::new(), 0),
        Progress::Delivered {
            sequence,
            sub_sequence,
            ..
        } => (2, sequence.len(), sequence.clone(), *sub_sequence),
        Progress::Finished => (3, 0, String::new(), 0),
    };
    rank(old).cmp(&rank(new))
}

#[async_trait]
impl ShardTable for FakeShardTable {
    async fn load(&self, stream: &str) -> Result<Found, CheckpointError> {
        self.there().await?;
        let found = self.table.load(stream).await?;
        self.back(found).await
    }

    async fn begin(&self, head: StreamHead) -> Result<StreamHead, CheckpointError> {
        self.there().await?;
        let head = self.table.begin(head).await?;
        self.back(head).await
    }

    async fn save(&self, writes: &[ShardWrite]) -> Result<Vec<ShardId>, CheckpointError> {
        self.there().await?;
        let world = &self.process.world;
        // Rows that must be new come first; of the rest any part may be made.
        let (new, mut made): (Vec<ShardWrite>, Vec<ShardWrite>) = writes
            .iter()
            .cloned()
            .partition(|write| write.condition == WriteIf::Absent);
        let is_cut = self.process.fault(Fault::Unprocessed);
        if is_cut {
            made.truncate(world.dice.below("rows written", made.len() as u64 + 1) as usize);
        }
        made.splice(0..0, new);
        let is_late = self.process.fault(Fault::LateEffect);
        let save = Save {
            world: world.clone(),
            me: self.me.clone(),
            table: self.table.clone(),
            writes: made,
            is_late,
        };
        if is_late {
            let ms = world.dice.between("save after", 50, 20_000);
            tokio::spawn(async move {
                sleep(Duration::from_millis(ms)).await;
                // Nobody waits for the answer.
                let _ = save.arrive().await;
            });
            return Err(failed("reach", "no answer"));
        }
        let refused = save.arrive().await?;
        if is_cut {
            return Err(failed("reach", "no answer"));
        }
        self.back(refused).await
    }

    async fn claim(
        &self,
        shard: &ShardId,
        epoch: u64,
    ) -> Result<Option<ShardRow>, CheckpointError> {
        self.there().await?;
        let row = self.table.claim(shard, epoch).await?;
        self.back(row).await
    }

    fn sharing(&self) -> Option<Sharing> {
        let sharing = self.table.sharing()?;
        let leases = FakeLeases::new(self.process.clone(), self.me.clone(), sharing.leases);
        Some(Sharing {
            leases: Arc::new(leases),
            rows: sharing.rows,
        })
    }
}
