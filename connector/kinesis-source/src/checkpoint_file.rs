//! Checkpoint files of earlier versions: one JSON file for each stream. They are read once, and what
//! they say goes into the store ([`crate::checkpoint_store`]).
//!
//! `{"format": "millpond-kinesis-checkpoint", "version": 1, "crc32c": n, "checkpoint": {..}}`:
//! the checksum is taken over the text of `checkpoint` as it stands in the file.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::checkpoint::{CheckpointError, StreamCheckpoint};
use crate::limits::MAX_CHECKPOINT_BYTES;

const FORMAT: &str = "millpond-kinesis-checkpoint";
const VERSION: u32 = 1;

#[derive(Deserialize)]
struct Header<'a> {
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

/// The file of a stream in `dir`.
pub(crate) fn path(dir: &Path, stream: &str) -> PathBuf {
    dir.join(format!("{stream}.kinesis-checkpoint.json"))
}

/// Puts the file out of the way, durably: what it says is in the store.
pub(crate) fn set_aside(path: &Path) -> Result<(), CheckpointError> {
    let aside = path.with_extension("json.moved");
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::rename(path, aside)
        .and_then(|()| File::open(dir)?.sync_all())
        .map_err(io_error("set aside", path))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let place = path.display().to_string();
    move |source| CheckpointError::Io {
        action,
        place,
        source,
    }
}

/// What the file says; `None` where there is none.
pub(crate) fn load(path: &Path, stream: &str) -> Result<Option<StreamCheckpoint>, CheckpointError> {
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

#[cfg(test)]
#[path = "checkpoint_file_tests.rs"]
pub(crate) mod tests;
