//! Checkpoints in the embedded store: one file in the connector's data directory, a row for each shard.
//!
//! | table | key | row (sealed) |
//! |---|---|---|
//! | `meta` | `layout` | version of these tables, four bytes big endian |
//! | `streams` | stream | what is remembered of it as a whole, JSON |
//! | `shards` | stream, shard | how far the shard is delivered, JSON |
//!
//! A save is one transaction and writes the rows that changed. The file is not the topic's: it is the same beside a
//! cluster, where there is no topic on this machine, and it outlives a lost topic (`checkpoint-after: table`). A
//! checkpoint is written after the topic has acknowledged what it passes (I5), so the two need no common transaction.
//!
//! A file whose last commit is damaged opens at the one before: the checkpoint is older then, and what it repeats
//! has the same origins.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use millpond_store_file::redb::{Database, ReadableDatabase, TableDefinition, TableError};
use millpond_store_file::{DiskHook, Failure, Fault, FileError, StoreFile, seal, unseal};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{
    CheckpointError, CheckpointStore, PinnedStart, ShardCheckpoint, StreamCheckpoint,
};
use crate::checkpoint_file;
use crate::numbering::Numbering;
use crate::shard::ShardId;

/// Name of the file.
pub const STORE_FILE: &str = "checkpoints.redb";

/// Pages kept in memory: rows are read once and then only written.
const CACHE_BYTES: usize = 1 << 20;

const LAYOUT_VERSION: u32 = 1;
const LAYOUT_KEY: &str = "layout";
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const STREAMS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("streams");
const SHARDS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("shards");

/// Keeps checkpoints in a directory of this machine.
#[derive(Clone)]
pub struct StoredCheckpoints {
    store: Arc<Store>,
}

struct Store {
    dir: PathBuf,
    file: StoreFile,
    /// What the file holds for certain; `None`: it has to be read.
    durable: Mutex<Option<StreamCheckpoint>>,
}

/// What is remembered of a stream as a whole.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    stream_created_ms: i64,
    start: PinnedStart,
    aggregated: Numbering,
}

/// What is wrong that is no fault of the file.
#[derive(Debug)]
enum Broken {
    TooNew(u32),
    Encoding(serde_json::Error),
}

impl StoredCheckpoints {
    /// Keeps checkpoints in `dir`, which is created when the first one is saved.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self::on(dir.into(), None)
    }

    fn on(dir: PathBuf, hook: Option<DiskHook>) -> Self {
        let file = StoreFile::new(dir.join(STORE_FILE), CACHE_BYTES, hook);
        let durable = Mutex::new(None);
        Self {
            store: Arc::new(Store { dir, file, durable }),
        }
    }
}

#[async_trait]
impl CheckpointStore for StoredCheckpoints {
    async fn load(&self, stream: &str) -> Result<Option<StreamCheckpoint>, CheckpointError> {
        let (store, stream) = (Arc::clone(&self.store), stream.to_owned());
        blocking("read", move || store.load(&stream)).await
    }

    async fn save(&self, checkpoint: &StreamCheckpoint) -> Result<(), CheckpointError> {
        let (store, checkpoint) = (Arc::clone(&self.store), checkpoint.clone());
        blocking("write", move || store.save(checkpoint)).await
    }
}

async fn blocking<T: Send + 'static>(
    action: &'static str,
    work: impl FnOnce() -> Result<T, CheckpointError> + Send + 'static,
) -> Result<T, CheckpointError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(CheckpointError::Io {
            action,
            place: STORE_FILE.to_owned(),
            source: std::io::Error::other(error),
        })
    })
}

impl Store {
    fn load(&self, stream: &str) -> Result<Option<StreamCheckpoint>, CheckpointError> {
        let mut found = self.read(stream)?;
        let earlier = checkpoint_file::path(&self.dir, stream);
        if let Some(moved) = checkpoint_file::load(&earlier, stream)? {
            if found.is_none() {
                self.save(moved.clone())?;
                found = Some(moved);
            }
            // The store is never behind a file that is in it already.
            checkpoint_file::set_aside(&earlier)?;
            tracing::info!(
                file = %earlier.display(),
                store = %self.file.path().display(),
                "the checkpoint file of an earlier version is in the store now"
            );
        }
        *self.durable() = found.clone();
        Ok(found)
    }

    fn read(&self, stream: &str) -> Result<Option<StreamCheckpoint>, CheckpointError> {
        if !self.file.path().exists() {
            return Ok(None);
        }
        self.file
            .run(|db| read(db, stream))
            .map_err(|failure| self.failed("read", failure))
    }

    fn save(&self, checkpoint: StreamCheckpoint) -> Result<(), CheckpointError> {
        let mut durable = self.durable();
        // Until the commit is known to be there, nothing is.
        let before = durable
            .take()
            .filter(|before| before.stream == checkpoint.stream);
        let written = match self.file.path().exists() {
            true => self.file.run(|db| {
                let before = match before {
                    Some(before) => Some(before),
                    None => read(db, &checkpoint.stream)?,
                };
                write(db, before.as_ref(), &checkpoint)
            }),
            false => {
                std::fs::create_dir_all(&self.dir).map_err(|error| CheckpointError::Store {
                    action: "write",
                    source: FileError::of(&self.dir, &error),
                })?;
                self.file.create(|db| {
                    begin(db)?;
                    write(db, None, &checkpoint)
                })
            }
        };
        written.map_err(|failure| self.failed("write", failure))?;
        *durable = Some(checkpoint);
        Ok(())
    }

    fn durable(&self) -> MutexGuard<'_, Option<StreamCheckpoint>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, action: &'static str, failure: Failure<Broken>) -> CheckpointError {
        let place = self.file.path().display().to_string();
        match failure {
            Failure::File(FileError::Corrupt { reason, .. }) => {
                CheckpointError::Damaged { place, reason }
            }
            Failure::File(source) => CheckpointError::Store { action, source },
            Failure::Other(Broken::TooNew(version)) => CheckpointError::TooNew {
                place,
                version,
                known: LAYOUT_VERSION,
            },
            Failure::Other(Broken::Encoding(error)) => CheckpointError::Io {
                action,
                place,
                source: error.into(),
            },
        }
    }
}

/// Makes the tables.
fn begin(db: &Database) -> Result<(), Fault<Broken>> {
    let tx = db.begin_write()?;
    tx.open_table(STREAMS)?;
    tx.open_table(SHARDS)?;
    let layout = seal(LAYOUT_VERSION.to_be_bytes().to_vec(), LAYOUT_KEY.as_bytes());
    tx.open_table(META)?.insert(LAYOUT_KEY, layout.as_slice())?;
    tx.commit()?;
    Ok(())
}

fn read(db: &Database, stream: &str) -> Result<Option<StreamCheckpoint>, Fault<Broken>> {
    let tx = db.begin_read()?;
    let meta = match tx.open_table(META) {
        Err(TableError::TableDoesNotExist(_)) => {
            return Err(Fault::Corrupt("it holds no checkpoints".to_owned()));
        }
        other => other?,
    };
    check_layout(meta.get(LAYOUT_KEY)?.as_ref().map(|row| row.value()))?;
    let streams = tx.open_table(STREAMS)?;
    let Some(row) = streams.get(stream)? else {
        return Ok(None);
    };
    let head: Head = decode(row.value(), stream)?;
    let mut checkpoint = StreamCheckpoint {
        stream: stream.to_owned(),
        stream_created_ms: head.stream_created_ms,
        start: head.start,
        aggregated: head.aggregated,
        shards: Default::default(),
    };
    let shards = tx.open_table(SHARDS)?;
    for row in shards.range((stream, "")..)? {
        let (key, row) = row?;
        let (of, shard) = key.value();
        if of != stream {
            break;
        }
        let found = decode(row.value(), &shard_key(stream, shard))?;
        checkpoint.shards.insert(ShardId::from(shard), found);
    }
    checkpoint.check().map_err(Fault::Corrupt)?;
    Ok(Some(checkpoint))
}

fn check_layout(row: Option<&[u8]>) -> Result<(), Fault<Broken>> {
    let version = row
        .and_then(|row| unseal(row, LAYOUT_KEY.as_bytes()))
        .and_then(|version| version.try_into().ok())
        .map(u32::from_be_bytes);
    match version {
        Some(LAYOUT_VERSION) => Ok(()),
        Some(newer) if newer > LAYOUT_VERSION => Err(Fault::Other(Broken::TooNew(newer))),
        _ => Err(Fault::Corrupt(format!(
            "row `{LAYOUT_KEY}` fails its checks"
        ))),
    }
}

/// Writes what is another than `before`, together.
fn write(
    db: &Database,
    before: Option<&StreamCheckpoint>,
    now: &StreamCheckpoint,
) -> Result<(), Fault<Broken>> {
    if before == Some(now) {
        return Ok(());
    }
    let stream = now.stream.as_str();
    let tx = db.begin_write()?;
    if before.map(head) != Some(head(now)) {
        let row = encode(&head(now), stream)?;
        tx.open_table(STREAMS)?.insert(stream, row.as_slice())?;
    }
    {
        let mut shards = tx.open_table(SHARDS)?;
        let changes = changes(before, now);
        for (id, shard) in changes.written {
            let row = encode(shard, &shard_key(stream, id.as_str()))?;
            shards.insert((stream, id.as_str()), row.as_slice())?;
        }
        for id in changes.removed {
            shards.remove((stream, id.as_str()))?;
        }
    }
    tx.commit()?;
    Ok(())
}

fn head(checkpoint: &StreamCheckpoint) -> Head {
    Head {
        stream_created_ms: checkpoint.stream_created_ms,
        start: checkpoint.start,
        aggregated: checkpoint.aggregated,
    }
}

/// The rows of shards that a save touches.
#[derive(Debug, PartialEq, Eq)]
struct Changes<'a> {
    written: Vec<(&'a ShardId, &'a ShardCheckpoint)>,
    removed: Vec<&'a ShardId>,
}

fn changes<'a>(before: Option<&'a StreamCheckpoint>, now: &'a StreamCheckpoint) -> Changes<'a> {
    let was = |id: &ShardId| before.and_then(|before| before.shards.get(id));
    let known = before.into_iter().flat_map(|before| before.shards.keys());
    Changes {
        written: now
            .shards
            .iter()
            .filter(|(id, shard)| was(id) != Some(shard))
            .collect(),
        removed: known.filter(|id| !now.shards.contains_key(*id)).collect(),
    }
}

/// What the seal of a shard's row covers: no name of a stream holds the byte between the two.
fn shard_key(stream: &str, shard: &str) -> String {
    format!("{stream}\0{shard}")
}

fn encode(row: &impl Serialize, key: &str) -> Result<Vec<u8>, Fault<Broken>> {
    let row = serde_json::to_vec(row).map_err(|error| Fault::Other(Broken::Encoding(error)))?;
    Ok(seal(row, key.as_bytes()))
}

fn decode<T: DeserializeOwned>(row: &[u8], key: &str) -> Result<T, Fault<Broken>> {
    let name = || key.replace('\0', "/");
    let Some(row) = unseal(row, key.as_bytes()) else {
        return Err(Fault::Corrupt(format!(
            "the row of `{}` fails its checksum",
            name()
        )));
    };
    serde_json::from_slice(row)
        .map_err(|error| Fault::Corrupt(format!("the row of `{}`: {error}", name())))
}

#[cfg(test)]
#[path = "checkpoint_store_tests.rs"]
pub(crate) mod tests;
