//! Leases and checkpoints of a stream's shards, together: one trait, whoever keeps them.
//!
//! [`Alone`] is for one process that reads every shard: the embedded store beneath
//! ([`crate::checkpoint_store`]), no leases.
//! [`crate::dynamo_table::DynamoTable`] is a table in DynamoDB, shared by many processes and
//! laid out as the Kinesis Client Library's. [`crate::memory_table::MemoryTable`] is the same
//! in memory, for tests and simulation.
//!
//! What makes sharing safe is here in two promises. A write under a lease is refused once anybody took
//! the lease since (I11). And what [`ShardTable::claim`] answers under a lease holds
//! every write that was ever accepted before: nobody below that lease can add to it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use millpond_leases::LeaseStore;
use tokio::sync::watch;

use crate::checkpoint::{
    CheckpointError, CheckpointStore, PinnedStart, ShardCheckpoint, StreamCheckpoint,
};
use crate::numbering::Numbering;
use crate::shard::{HashKeyRange, ShardId};
use crate::shard_figures::ShardFigures;

/// What is remembered of the stream as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamHead {
    /// Stream name.
    pub stream: String,
    /// When the stream was created, milliseconds since the Unix epoch.
    pub stream_created_ms: i64,
    /// Where reading began.
    pub start: PinnedStart,
}

/// What is remembered of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardRow {
    /// How far it is delivered.
    pub checkpoint: ShardCheckpoint,
    /// By which rules its events were numbered.
    pub aggregated: Numbering,
    /// Where to begin in it, where that is not where the stream begins.
    pub start: Option<PinnedStart>,
    /// The hash keys whose records it takes.
    pub hash_keys: Option<HashKeyRange>,
    /// The shards made from it, once it is delivered to its end.
    pub children: Vec<ShardId>,
    /// Bytes a second that it gave, as measured last; 0 when nobody measured.
    pub bytes_per_second: u64,
    /// What it carries, as its reader measured it last.
    pub figures: Option<ShardFigures>,
    /// It stands where another program left it, which does not number events: what it will
    /// mean here must be saved before anything is sent.
    pub is_foreign: bool,
}

/// All rows of a stream.
pub type Rows = BTreeMap<ShardId, ShardRow>;

/// Everything that is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The stream; `None` when reading never began.
    pub head: Option<StreamHead>,
    /// Its shards. They may be there before the head: another program's.
    pub shards: Rows,
}

/// Which rows a write may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteIf {
    /// There is none yet. That there is one is no error: somebody else was first.
    Absent,
    /// The lease is still the one with this epoch.
    Held {
        /// Of the lease under which the row is written.
        epoch: u64,
    },
    /// The shard is finished; the row is removed.
    Finished,
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardWrite {
    /// Which shard.
    pub shard: ShardId,
    /// When it applies.
    pub condition: WriteIf,
    /// What the row is afterwards.
    pub row: ShardRow,
}

/// What a process needs to take part in sharing.
#[derive(Clone)]
pub struct Sharing {
    /// The leases; lease ids are shard ids.
    pub leases: Arc<dyn LeaseStore>,
    /// The rows as they stood at the latest view of the leases.
    pub rows: watch::Receiver<Arc<Rows>>,
}

/// Keeps leases and checkpoints of one stream's shards.
#[async_trait]
pub trait ShardTable: Send + Sync {
    /// What is remembered of a stream.
    ///
    /// # Errors
    /// [`CheckpointError`]; it cannot be read, or is about something else.
    async fn load(&self, stream: &str) -> Result<Found, CheckpointError>;

    /// Remembers where reading begins, unless somebody did before; answers what holds. It is
    /// durable with the next [`ShardTable::save`].
    ///
    /// # Errors
    /// [`CheckpointError`]; the call may be repeated.
    async fn begin(&self, head: StreamHead) -> Result<StreamHead, CheckpointError>;

    /// Makes the writes: first those of rows that must be new, so that a shard's children are known
    /// before it is finished. Answers the shards whose lease is another's now; their rows did not
    /// change. Once it answers `Ok` the rest survives a power cut.
    ///
    /// # Errors
    /// [`CheckpointError`]; any part of the writes may be made, and all may be repeated.
    async fn save(&self, writes: &[ShardWrite]) -> Result<Vec<ShardId>, CheckpointError>;

    /// The row of a shard under a lease that was just taken; `None` when the lease is another's
    /// by now.
    ///
    /// # Errors
    /// [`CheckpointError`]; the call may be repeated.
    async fn claim(&self, shard: &ShardId, epoch: u64)
    -> Result<Option<ShardRow>, CheckpointError>;

    /// How the shards are shared; `None` where this process has all of them.
    fn sharing(&self) -> Option<Sharing>;
}

/// The whole stream for one process, over a store of its checkpoint.
pub struct Alone {
    store: Arc<dyn CheckpointStore>,
    checkpoint: Mutex<Option<StreamCheckpoint>>,
}

impl Alone {
    /// Keeps everything in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn CheckpointStore>) -> Self {
        Self {
            store,
            checkpoint: Mutex::new(None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<StreamCheckpoint>> {
        self.checkpoint
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn row(checkpoint: &ShardCheckpoint, aggregated: Numbering) -> ShardRow {
    ShardRow {
        checkpoint: checkpoint.clone(),
        aggregated,
        start: None,
        hash_keys: None,
        children: Vec::new(),
        bytes_per_second: 0,
        figures: None,
        is_foreign: false,
    }
}

#[async_trait]
impl ShardTable for Alone {
    async fn load(&self, stream: &str) -> Result<Found, CheckpointError> {
        let Some(found) = self.store.load(stream).await? else {
            return Ok(Found::default());
        };
        let shards = found.shards.iter();
        let answer = Found {
            head: Some(StreamHead {
                stream: found.stream.clone(),
                stream_created_ms: found.stream_created_ms,
                start: found.start,
            }),
            shards: shards
                .map(|(id, shard)| (id.clone(), row(shard, found.aggregated)))
                .collect(),
        };
        *self.lock() = Some(found);
        Ok(answer)
    }

    async fn begin(&self, head: StreamHead) -> Result<StreamHead, CheckpointError> {
        let mut checkpoint = self.lock();
        let holds = checkpoint.get_or_insert_with(|| StreamCheckpoint {
            stream: head.stream,
            stream_created_ms: head.stream_created_ms,
            start: head.start,
            aggregated: Numbering::default(),
            shards: BTreeMap::new(),
        });
        Ok(StreamHead {
            stream: holds.stream.clone(),
            stream_created_ms: holds.stream_created_ms,
            start: holds.start,
        })
    }

    async fn save(&self, writes: &[ShardWrite]) -> Result<Vec<ShardId>, CheckpointError> {
        let changed = {
            let checkpoint = self.lock();
            let Some(checkpoint) = checkpoint.as_ref() else {
                return Ok(Vec::new());
            };
            apply(checkpoint.clone(), writes)
        };
        self.store.save(&changed).await?;
        *self.lock() = Some(changed);
        Ok(Vec::new())
    }

    async fn claim(&self, shard: &ShardId, _: u64) -> Result<Option<ShardRow>, CheckpointError> {
        let checkpoint = self.lock();
        let found = checkpoint.as_ref().and_then(|checkpoint| {
            let shard = checkpoint.shards.get(shard)?;
            Some(row(shard, checkpoint.aggregated))
        });
        Ok(found)
    }

    fn sharing(&self) -> Option<Sharing> {
        None
    }
}

fn apply(mut checkpoint: StreamCheckpoint, writes: &[ShardWrite]) -> StreamCheckpoint {
    for write in writes {
        let shards = &mut checkpoint.shards;
        match write.condition {
            WriteIf::Absent => {
                shards
                    .entry(write.shard.clone())
                    .or_insert_with(|| write.row.checkpoint.clone());
            }
            WriteIf::Held { .. } => {
                shards.insert(write.shard.clone(), write.row.checkpoint.clone());
            }
            WriteIf::Finished => {
                let finished = |shard: &ShardCheckpoint| shard.is_finished();
                if shards.get(&write.shard).is_some_and(finished) {
                    shards.remove(&write.shard);
                }
            }
        }
        // One choice holds for the whole stream here: a source that makes another one numbers
        // every shard anew in the same save.
        checkpoint.aggregated = write.row.aggregated;
    }
    checkpoint
}
