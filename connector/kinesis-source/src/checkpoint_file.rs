//! Checkpoints as one small file for each stream, replaced atomically.
//!
//! `{"format": "millpond-kinesis-checkpoint", "version": 1, "crc32c": n, "checkpoint": {..}}`:
//! the checksum is taken over the text of `checkpoint` as it stands in the file.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::checkpoint::{CheckpointError, CheckpointStore, StreamCheckpoint};
use crate::limits::MAX_CHECKPOINT_BYTES;

const FORMAT: &str = "millpond-kinesis-checkpoint";
const VERSION: u32 = 1;

/// Keeps checkpoints in a directory.
#[derive(Debug, Clone)]
pub struct FileCheckpoints {
    dir: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Header<'a> {
    format: String,
    version: u32,
    #[serde(default)]
    crc32c: u32,
    #[serde(borrow)]
    checkpoint: &'a RawValue,
}

#[derive(Deserialize)]
struct Identity {
    format: String,
    version: u32,
}

impl FileCheckpoints {
    /// Keeps checkpoints in `dir`, which is created when the first one is saved.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The file of a stream.
    #[must_use]
    pub fn path(&self, stream: &str) -> PathBuf {
        self.dir.join(format!("{stream}.kinesis-checkpoint.json"))
    }
}

#[async_trait]
impl CheckpointStore for FileCheckpoints {
    async fn load(&self, stream: &str) -> Result<Option<StreamCheckpoint>, CheckpointError> {
        let path = self.path(stream);
        let stream = stream.to_owned();
        blocking(path.clone(), "read", move || load(&path, &stream)).await
    }

    async fn save(&self, checkpoint: &StreamCheckpoint) -> Result<(), CheckpointError> {
        let path = self.path(&checkpoint.stream);
        let text = encode(checkpoint).map_err(|source| io_error("write", &path)(source.into()))?;
        blocking(path.clone(), "write", move || {
            replace(&path, text.as_bytes()).map_err(io_error("write", &path))
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    path: PathBuf,
    action: &'static str,
    work: impl FnOnce() -> Result<T, CheckpointError> + Send + 'static,
) -> Result<T, CheckpointError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io_error(action, &path)(io::Error::other(error))))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let place = path.display().to_string();
    move |source| CheckpointError::Io {
        action,
        place,
        source,
    }
}

fn encode(checkpoint: &StreamCheckpoint) -> Result<String, serde_json::Error> {
    let body = serde_json::value::to_raw_value(checkpoint)?;
    serde_json::to_string(&Header {
        format: FORMAT.to_owned(),
        version: VERSION,
        crc32c: crc32c::crc32c(body.get().as_bytes()),
        checkpoint: &body,
    })
}

fn load(path: &Path, stream: &str) -> Result<Option<StreamCheckpoint>, CheckpointError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("open", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_CHECKPOINT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(io_error("read", path))?;
    let checkpoint = decode(&bytes, &path.display().to_string())?;
    if checkpoint.stream != stream {
        return Err(CheckpointError::OtherStream {
            place: path.display().to_string(),
            found: checkpoint.stream,
            wanted: stream.to_owned(),
        });
    }
    Ok(Some(checkpoint))
}

fn decode(bytes: &[u8], place: &str) -> Result<StreamCheckpoint, CheckpointError> {
    let foreign = |reason: String| CheckpointError::Foreign {
        place: place.to_owned(),
        reason,
    };
    let damaged = |reason: String| CheckpointError::Damaged {
        place: place.to_owned(),
        reason,
    };
    if bytes.len() as u64 > MAX_CHECKPOINT_BYTES {
        return Err(foreign(format!("larger than {MAX_CHECKPOINT_BYTES} bytes")));
    }
    if bytes.is_empty() {
        return Err(damaged("the file is empty".to_owned()));
    }
    // Our own files begin with the format: a cut or changed one still does.
    let ours = bytes.starts_with(format!("{{\"format\":\"{FORMAT}\"").as_bytes());
    let identity: Identity = serde_json::from_slice(bytes).map_err(|error| {
        let reason = error.to_string();
        if ours {
            damaged(reason)
        } else {
            foreign(reason)
        }
    })?;
    if identity.format != FORMAT {
        return Err(foreign(format!("its format is `{}`", identity.format)));
    }
    if identity.version == 0 {
        return Err(damaged("it has version 0, which never was".to_owned()));
    }
    if identity.version > VERSION {
        return Err(CheckpointError::TooNew {
            place: place.to_owned(),
            version: identity.version,
            known: VERSION,
        });
    }
    let header: Header<'_> =
        serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    let body = header.checkpoint.get();
    let found = crc32c::crc32c(body.as_bytes());
    if found != header.crc32c {
        return Err(damaged(format!(
            "its checksum is {found}, and {} was written",
            header.crc32c
        )));
    }
    let checkpoint: StreamCheckpoint =
        serde_json::from_str(body).map_err(|error| damaged(error.to_string()))?;
    checkpoint.check().map_err(damaged)?;
    Ok(checkpoint)
}

/// Writes beside the file, makes that durable, and only then puts it in the file's place.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let temporary = path.with_extension("json.new");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
#[path = "checkpoint_file_tests.rs"]
mod tests;
