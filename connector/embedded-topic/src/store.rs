//! One redb file: commits that are on disk when they return, and checked reads.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use millpond_connector::topic::{Offset, PartitionId, StoredBatch, TopicError};
use redb::{Database, StorageBackend as _};

use crate::backend::{DiskHook, HookedFile};
use crate::config::{ENDS_FILE, STORE_FILE};
use crate::ends::Ends;
use crate::layout::TopicRow;
use crate::tables::{self, Fault};

/// Why the store could not do something.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum StoreError {
    #[error(
        "no room to write `{}`: {reason}; free space in that file system (appends go on by \
         themselves) or move the data directory to a larger one",
        .path.display()
    )]
    Full { path: PathBuf, reason: String },
    #[error("cannot read or write `{}`: {reason}; check the disk and the file's permissions", .path.display())]
    Io { path: PathBuf, reason: String },
    #[error(
        "`{}` is in use by another process; stop that one first, or use another data directory",
        .path.display()
    )]
    Locked { path: PathBuf },
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
    #[error("closed")]
    Closed,
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
            Self::Closed => TopicError::Closed(topic),
            other => TopicError::Storage {
                topic,
                retryable: matches!(other, Self::Full { .. } | Self::Locked { .. }),
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

enum Handle {
    Open(Database),
    /// An operation failed under it; the next one opens the file again.
    Broken,
    Closed,
}

/// The open store file.
pub(crate) struct Store {
    path: PathBuf,
    cache_bytes: usize,
    hook: Option<DiskHook>,
    handle: RwLock<Handle>,
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
        std::fs::create_dir_all(dir).map_err(|error| io_error(&path, &error))?;
        let store = Self {
            path,
            cache_bytes,
            hook,
            handle: RwLock::new(Handle::Broken),
        };
        if !store.path.exists() {
            // What an earlier store had acknowledged says nothing of a new one.
            match std::fs::remove_file(&ends_path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error(&ends_path, &error));
                }
                _ => {}
            }
            store.create(topic)?;
        }
        // Also checks that an existing store is that of this topic.
        store.run(|db| tables::create_tables(db, topic))?;
        let state = store.load(topic.partition_count)?;
        let (ends, acknowledged) = Ends::open(ends_path.clone(), topic.partition_count)
            .map_err(|error| io_error(&ends_path, &error))?;
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
                        store.path.display()
                    ),
                });
            }
        }
        Ok((store, state, ends))
    }

    /// Makes the file under another name first: a process that dies meanwhile leaves no half
    /// of a store behind, and what is left under that name is begun anew.
    fn create(&self, topic: &TopicRow) -> Result<(), StoreError> {
        let unfinished = self.path.with_extension("new");
        let db = self.open_file(&unfinished, true)?;
        let created = catch_unwind(AssertUnwindSafe(|| tables::create_tables(&db, topic)));
        match created {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => return Err(self.fault(fault)),
            Err(panic) => return Err(self.fault(Fault::Corrupt(panic_text(&*panic)))),
        }
        std::fs::rename(&unfinished, &self.path)
            .and_then(|()| sync_parent(&self.path))
            .map_err(|error| io_error(&self.path, &error))?;
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        *handle = Handle::Open(db);
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
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
        std::fs::metadata(&self.path).map_or(0, |file| file.len())
    }

    /// Gives free space inside the file back to the file system; readers wait meanwhile.
    pub(crate) fn compact(&self) -> Result<(), StoreError> {
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        let Handle::Open(db) = &mut *handle else {
            return Ok(());
        };
        let result = catch_unwind(AssertUnwindSafe(|| db.compact()));
        let failure = match result {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => self.fault(Fault::Redb(error.into())),
            Err(panic) => self.fault(Fault::Corrupt(panic_text(&*panic))),
        };
        *handle = Handle::Broken;
        Err(failure)
    }

    /// Closes the file and lets go of its lock, whoever still holds the store.
    pub(crate) fn close(&self) {
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        // The library may do its last writes, and may panic on a damaged file.
        let old = std::mem::replace(&mut *handle, Handle::Closed);
        let _ = catch_unwind(AssertUnwindSafe(move || drop(old)));
    }

    fn run<T>(&self, work: impl FnOnce(&Database) -> Result<T, Fault>) -> Result<T, StoreError> {
        let handle = self.ready()?;
        let db = match &*handle {
            Handle::Open(db) => db,
            Handle::Broken | Handle::Closed => return Err(StoreError::Closed),
        };
        let fault = match catch_unwind(AssertUnwindSafe(|| work(db))) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(fault)) => fault,
            Err(panic) => Fault::Corrupt(panic_text(&*panic)),
        };
        let failed_db: *const Database = db;
        drop(handle);
        if matches!(fault, Fault::Redb(_) | Fault::Corrupt(_)) {
            self.set_broken(failed_db);
        }
        Err(self.fault(fault))
    }

    /// The open database, opened again when an earlier operation broke it.
    fn ready(&self) -> Result<RwLockReadGuard<'_, Handle>, StoreError> {
        loop {
            let handle = self.handle.read().unwrap_or_else(PoisonError::into_inner);
            match &*handle {
                Handle::Open(_) => return Ok(handle),
                Handle::Closed => return Err(StoreError::Closed),
                Handle::Broken => drop(handle),
            }
            let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
            if matches!(*handle, Handle::Broken) {
                *handle = Handle::Open(self.open_file(&self.path, false)?);
            }
        }
    }

    fn set_broken(&self, failed: *const Database) {
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have opened it again already: leave that one alone.
        if matches!(&*handle, Handle::Open(db) if std::ptr::eq(db, failed)) {
            let old = std::mem::replace(&mut *handle, Handle::Broken);
            let _ = catch_unwind(AssertUnwindSafe(move || drop(old)));
        }
    }

    fn open_file(&self, path: &Path, empty: bool) -> Result<Database, StoreError> {
        let opened = catch_unwind(AssertUnwindSafe(|| -> Result<Database, Fault> {
            let file = HookedFile::open(path, self.hook.clone())
                .map_err(|error| Fault::Redb(redb::Error::Io(error)))?;
            if empty {
                file.set_len(0)
                    .map_err(|error| Fault::Redb(redb::Error::Io(error)))?;
            }
            let mut builder = redb::Builder::new();
            builder.set_cache_size(self.cache_bytes);
            Ok(builder.create_with_backend(file)?)
        }));
        match opened {
            Ok(opened) => opened.map_err(|fault| self.fault(fault)),
            Err(panic) => Err(self.fault(Fault::Corrupt(panic_text(&*panic)))),
        }
    }

    fn fault(&self, fault: Fault) -> StoreError {
        let path = self.path.clone();
        match fault {
            Fault::Damaged(partition, offset, reason) => StoreError::Damaged {
                partition,
                offset,
                reason,
            },
            Fault::Corrupt(reason) => StoreError::Corrupt { path, reason },
            Fault::Mismatch(reason) => StoreError::Mismatch { path, reason },
            Fault::Redb(redb::Error::Io(error)) => io_error(&path, &error),
            Fault::Redb(redb::Error::DatabaseAlreadyOpen) => StoreError::Locked { path },
            Fault::Redb(redb::Error::DatabaseClosed) => StoreError::Closed,
            Fault::Redb(error @ redb::Error::PreviousIo) => StoreError::Io {
                path,
                reason: error.to_string(),
            },
            Fault::Redb(error) => StoreError::Corrupt {
                path,
                reason: error.to_string(),
            },
        }
    }
}

/// Makes a rename durable.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::File::open(parent)?.sync_all()
}

fn io_error(path: &Path, error: &io::Error) -> StoreError {
    let path = path.to_owned();
    let reason = error.to_string();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StoreError::Full { path, reason }
        }
        // What redb says of a file that is not its own, or too short to be.
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            StoreError::Corrupt { path, reason }
        }
        _ => StoreError::Io { path, reason },
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    format!(
        "the store gave up with `{}`",
        text.unwrap_or("unknown panic")
    )
}
