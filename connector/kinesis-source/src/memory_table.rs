//! Leases and checkpoints in memory, shared by the sources of one process: for simulation and tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use millpond_connector::mutation::{self, Mutation};
use millpond_leases::{
    Change, LeaseId, LeaseRow, LeaseStore, MemoryStore, Outcome, StoreError, View, WorkerId,
};
use tokio::sync::watch;

use crate::checkpoint::CheckpointError;
use crate::shard::ShardId;
use crate::shard_table::{
    Found, Rows, ShardRow, ShardTable, ShardWrite, Sharing, StreamHead, WriteIf,
};

#[derive(Debug, Default)]
struct Content {
    head: Option<StreamHead>,
    rows: Rows,
}

/// The table as one worker sees it; [`MemoryTable::of`] gives the others.
#[derive(Debug, Clone)]
pub struct MemoryTable {
    me: WorkerId,
    content: Arc<Mutex<Content>>,
    leases: MemoryStore,
    rows: Arc<watch::Sender<Arc<Rows>>>,
}

impl MemoryTable {
    /// An empty table.
    #[must_use]
    pub fn new(me: WorkerId) -> Self {
        Self {
            me,
            content: Arc::default(),
            leases: MemoryStore::default(),
            rows: Arc::new(watch::Sender::new(Arc::default())),
        }
    }

    /// The same table as another worker sees it.
    #[must_use]
    pub fn of(&self, worker: WorkerId) -> Self {
        Self {
            me: worker,
            rows: Arc::new(watch::Sender::new(Arc::default())),
            ..self.clone()
        }
    }

    /// All rows.
    #[must_use]
    pub fn snapshot(&self) -> (Rows, BTreeMap<LeaseId, LeaseRow>) {
        (self.lock().rows.clone(), self.leases.snapshot().leases)
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self, shard: &ShardId, epoch: u64) -> bool {
        let view = self.leases.snapshot();
        let lease = view.leases.get(&LeaseId::new(shard.as_str()));
        lease.is_some_and(|lease| lease.epoch == epoch && lease.owner.as_ref() == Some(&self.me))
    }
}

#[async_trait]
impl ShardTable for MemoryTable {
    async fn load(&self, _: &str) -> Result<Found, CheckpointError> {
        let content = self.lock();
        Ok(Found {
            head: content.head.clone(),
            shards: content.rows.clone(),
        })
    }

    async fn begin(&self, head: StreamHead) -> Result<StreamHead, CheckpointError> {
        Ok(self.lock().head.get_or_insert(head).clone())
    }

    async fn save(&self, writes: &[ShardWrite]) -> Result<Vec<ShardId>, CheckpointError> {
        let mut content = self.lock();
        let mut refused = Vec::new();
        let is_new = |write: &&ShardWrite| write.condition == WriteIf::Absent;
        let new = writes.iter().filter(is_new);
        for write in new.chain(writes.iter().filter(|write| !is_new(write))) {
            let rows = &mut content.rows;
            match write.condition {
                WriteIf::Absent => {
                    let row = || write.row.clone();
                    rows.entry(write.shard.clone()).or_insert_with(row);
                }
                WriteIf::Held { epoch }
                    if self.holds(&write.shard, epoch)
                        || mutation::is(Mutation::ShardFenceSkipped) =>
                {
                    rows.insert(write.shard.clone(), write.row.clone());
                }
                WriteIf::Held { .. } => refused.push(write.shard.clone()),
                WriteIf::Finished => {
                    let finished = |row: &ShardRow| row.checkpoint.is_finished();
                    if rows.get(&write.shard).is_some_and(finished) {
                        rows.remove(&write.shard);
                    }
                }
            }
        }
        Ok(refused)
    }

    async fn claim(
        &self,
        shard: &ShardId,
        epoch: u64,
    ) -> Result<Option<ShardRow>, CheckpointError> {
        let content = self.lock();
        let row = content.rows.get(shard).cloned();
        Ok(row.filter(|_| self.holds(shard, epoch)))
    }

    fn sharing(&self) -> Option<Sharing> {
        Some(Sharing {
            leases: Arc::new(self.clone()),
            rows: self.rows.subscribe(),
        })
    }
}

#[async_trait]
impl LeaseStore for MemoryTable {
    async fn view(&self) -> Result<View, StoreError> {
        let mut view = self.leases.snapshot();
        let rows = self.lock().rows.clone();
        let measured = rows.iter().filter(|(_, row)| row.bytes_per_second > 0);
        view.loads = measured
            .map(|(id, row)| (LeaseId::new(id.as_str()), row.bytes_per_second))
            .collect();
        self.rows.send_replace(Arc::new(rows));
        Ok(view)
    }

    async fn change(&self, change: &Change) -> Result<Outcome, StoreError> {
        if let Change::Lease { id, seen: None, .. } = change
            && !self.lock().rows.contains_key(id.as_str())
        {
            return Ok(Outcome::Refused);
        }
        Ok(self.leases.apply(change))
    }
}
