//! One file of the embedded store: commits that are on disk when they return, and checked reads.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use millpond_connector::topic::{Offset, PartitionId, StoredBatch, TopicError};
use millpond_store_file::redb::Database;
use millpond_store_file::{DiskHook, Failure, FileError, StoreFile};

use crate::config::{ENDS_FILE, STORE_FILE};
use crate::ends::Ends;
use crate::layout::TopicRow;
use crate::tables::{self, Broken, Fault};

/// Why the store could not do something.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum StoreError {
    #[error(transparent)]
    File(FileError),
    #[error(
        "`{}` is damaged or no topic: {reason}; move the file away to start an empty topic, and \
         reset the source's checkpoint so that it reads the stream again",
        .path.display()
    )]
    Corrupt { path: PathBuf, reason: String },
    #[error("`{}` {reason}", .path.display())]
    Mismatch { path: PathBuf, reason: String },
    #[error("batch at offset {offset} of partition {partition} is damaged: {reason}")]
    Damaged {
        partition: PartitionId,
        offset: Offset,
        reason: String,
    },
}

impl From<FileError> for StoreError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Corrupt { path, reason } => Self::Corrupt { path, reason },
            other => Self::File(other),
        }
    }
}

impl StoreError {
    pub(crate) fn into_topic(self, topic: &str) -> TopicError {
        let topic = topic.to_owned();
        match self {
            Self::Damaged {
                partition,
                offset,
                reason,
            } => TopicError::Damaged {
                topic,
                partition,
                offset,
                reason,
            },
            Self::File(FileError::Closed) => TopicError::Closed(topic),
            other => TopicError::Storage {
                topic,
                retryable: matches!(
                    other,
                    Self::File(FileError::Full { .. } | FileError::Locked { .. })
                ),
                context: other.to_string(),
            },
        }
    }
}

/// A batch on its way into the store.
#[derive(Debug, Clone)]
pub(crate) struct PlacedBatch {
    pub(crate) partition: PartitionId,
    pub(crate) base: Offset,
    pub(crate) appended_ms: i64,
    pub(crate) batch: StoredBatch,
}

/// A stored batch, checked.
#[derive(Debug)]
pub(crate) struct ReadBatch {
    pub(crate) base: Offset,
    pub(crate) end: Offset,
    pub(crate) base_timestamp_ms: i64,
    pub(crate) raw: Vec<u8>,
}

/// A batch that could be removed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RemovableBatch {
    pub(crate) base: Offset,
    pub(crate) end: Offset,
    pub(crate) raw_len: u64,
    pub(crate) appended_ms: i64,
}

/// Where one partition begins and ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PartitionState {
    pub(crate) earliest: Offset,
    pub(crate) end: Offset,
    /// Raw bytes stored.
    pub(crate) bytes: u64,
}

/// Released offsets, one per partition, by consumer.
pub(crate) type Consumers = BTreeMap<String, Vec<Offset>>;

/// What the store holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoreState {
    /// What tells this store from another one that is made in its place; one made by an earlier version has none.
    pub(crate) identity: Option<String>,
    pub(crate) partitions: Vec<PartitionState>,
    pub(crate) consumers: Consumers,
}

/// One atomic change.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(crate) appends: Vec<PlacedBatch>,
    pub(crate) removals: Vec<(PartitionId, RemovableBatch)>,
    /// New bounds of every partition that the change touches.
    pub(crate) partitions: Vec<(PartitionId, PartitionState)>,
    /// Consumers whose offsets changed.
    pub(crate) consumers: Consumers,
    /// Consumers to forget.
    pub(crate) forgotten: Vec<String>,
    /// Save the allocator with the commit, so that the file opens at once after a crash.
    pub(crate) quick_repair: bool,
}

impl Change {
    /// True when there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.appends.is_empty()
            && self.removals.is_empty()
            && self.partitions.is_empty()
            && self.consumers.is_empty()
            && self.forgotten.is_empty()
    }
}

/// The open store file.
pub(crate) struct Store {
    file: StoreFile,
}

impl Store {
    /// Opens or creates the store in `dir` for a topic of this name and partition count.
    pub(crate) fn open(
        dir: &Path,
        topic: &TopicRow,
        cache_bytes: usize,
        hook: Option<DiskHook>,
    ) -> Result<(Self, StoreState, Ends), StoreError> {
        let path = dir.join(STORE_FILE);
        let ends_path = dir.join(ENDS_FILE);
        std::fs::create_dir_all(dir).map_err(|error| FileError::of(&path, &error))?;
        let is_new = !path.exists();
        let store = Self {
            file: StoreFile::new(path, cache_bytes, hook),
        };
        if is_new {
            // What an earlier store had acknowledged says nothing of a new one.
            match std::fs::remove_file(&ends_path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(FileError::of(&ends_path, &error).into());
                }
                _ => {}
            }
            let created = store.file.create(|db| tables::create_tables(db, topic));
            created.map_err(|failure| store.failed(failure))?;
        }
        // Also checks that an existing store is that of this topic.
        store.run(|db| tables::create_tables(db, topic))?;
        let state = store.load(topic.partition_count)?;
        let (ends, acknowledged) = Ends::open(ends_path.clone(), topic.partition_count)
            .map_err(|error| FileError::of(&ends_path, &error))?;
        let acknowledged = acknowledged.iter().flatten();
        for (partition, (found, acknowledged)) in
            (0..).zip(state.partitions.iter().zip(acknowledged))
        {
            if found.end < *acknowledged {
                return Err(StoreError::Damaged {
                    partition,
                    offset: found.end,
                    reason: format!(
                        "`{}` ends here, and appends up to offset {acknowledged} were acknowledged: its last \
                         commits are damaged, or it is an older copy; restore it, or move the topic's \
                         directory away and reset the source's checkpoint so that it reads the stream again",
                        store.path().display()
                    ),
                });
            }
        }
        Ok((store, state, ends))
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Applies a change; it is on disk when this returns `Ok`.
    pub(crate) fn commit(&self, change: &Change) -> Result<(), StoreError> {
        self.run(|db| tables::commit(db, change))
    }

    /// Reads the batch that holds `offset`, and checks it.
    pub(crate) fn read(
        &self,
        partition: PartitionId,
        offset: Offset,
    ) -> Result<ReadBatch, StoreError> {
        self.run(|db| tables::read(db, partition, offset))
    }

    /// First batches of a partition that end at or before `to`, at most `max_bytes` of them.
    pub(crate) fn removable(
        &self,
        partition: PartitionId,
        state: PartitionState,
        to: Offset,
        max_bytes: u64,
    ) -> Result<Vec<RemovableBatch>, StoreError> {
        self.run(|db| tables::removable(db, partition, state, to, max_bytes))
    }

    /// Reads what the store holds, for example after a failed commit.
    pub(crate) fn load(&self, partition_count: u32) -> Result<StoreState, StoreError> {
        self.run(|db| tables::load(db, partition_count))
    }

    /// Size of the file in bytes.
    pub(crate) fn file_bytes(&self) -> u64 {
        std::fs::metadata(self.path()).map_or(0, |file| file.len())
    }

    /// Gives free space inside the file back to the file system; readers wait meanwhile.
    pub(crate) fn compact(&self) -> Result<(), StoreError> {
        Ok(self.file.compact()?)
    }

    /// Closes the file and lets go of its lock, whoever still holds the store.
    pub(crate) fn close(&self) {
        self.file.close();
    }

    fn run<T>(&self, work: impl FnOnce(&Database) -> Result<T, Fault>) -> Result<T, StoreError> {
        self.file.run(work).map_err(|failure| self.failed(failure))
    }

    fn failed(&self, failure: Failure<Broken>) -> StoreError {
        match failure {
            Failure::File(error) => error.into(),
            Failure::Other(Broken::Batch(partition, offset, reason)) => StoreError::Damaged {
                partition,
                offset,
                reason,
            },
            Failure::Other(Broken::Promise(reason)) => StoreError::Mismatch {
                path: self.path().to_owned(),
                reason,
            },
        }
    }
}
