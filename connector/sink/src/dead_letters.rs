//! The dead-letter queue: events that cannot be written, each with its reason, origin and bytes.
//!
//! Entries are durable before the ledger passes them (I6). A plan that is written again after a
//! crash makes the same entries with the same ids: a table overwrites them, a file is searched
//! for them first and only what is missing is appended.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use millpond_connector::topic::Offset;
use millpond_format::frame::FrameDecoder;
use millpond_format::header::Header;
use millpond_format::keys;
use serde::{Deserialize, Serialize};

use crate::frames::each_frame;

/// Where the bytes of an event are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// As they were produced.
    Raw(Bytes),
    /// In the frames of an envelope.
    Frames {
        /// Its header.
        header: Box<Header>,
        /// Its frames.
        frames: Bytes,
    },
}

impl Payload {
    /// The bytes, or the frames as they are when they cannot be read, with the reason.
    fn bytes(&self) -> (Vec<u8>, Option<String>) {
        match self {
            Self::Raw(bytes) => (bytes.to_vec(), None),
            Self::Frames { header, frames } => match decode(header, frames) {
                Ok(bytes) => (bytes, None),
                Err(error) => (frames.to_vec(), Some(error.to_string())),
            },
        }
    }
}

fn decode(header: &Header, frames: &[u8]) -> Result<Vec<u8>, millpond_format::error::DecodeError> {
    let mut decoder = FrameDecoder::new()?;
    let mut bytes = Vec::new();
    each_frame(&mut decoder, header, frames, |frame| {
        for event in &frame.events {
            bytes.extend_from_slice(frame.value(event));
        }
    })?;
    Ok(bytes)
}

/// An event for the dead-letter queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Names the event for ever: pipeline, topic, partition, offset, index.
    pub id: String,
    /// Topic offset of the event, or of the batch that it is in.
    pub offset: Offset,
    /// Event time in milliseconds since the Unix epoch, 0 when unknown.
    pub time_ms: i64,
    /// Why, as a stable name.
    pub reason: String,
    /// What exactly was wrong.
    pub detail: String,
    /// Its group, if it has one.
    pub group: Option<String>,
    /// Its record key, the origin.
    pub record_key: Option<Bytes>,
    /// Its bytes.
    pub payload: Payload,
}

/// One line of a dead-letter file.
#[derive(Debug, Serialize)]
struct Line<'a> {
    id: &'a str,
    time: String,
    time_ms: i64,
    reason: &'a str,
    detail: &'a str,
    origin: Option<std::borrow::Cow<'a, str>>,
    group: Option<&'a str>,
    offset: Offset,
    value_base64: String,
}

#[derive(Debug, Deserialize)]
struct LineId {
    id: String,
}

impl DeadLetter {
    /// Its bytes as they were produced, and what was wrong. Frames that cannot be read are given
    /// as they are, and the text says so.
    #[must_use]
    pub fn content(&self) -> (Vec<u8>, String) {
        let (bytes, damage) = self.payload.bytes();
        let detail = match &damage {
            Some(damage) => format!("{}; frames kept as they are: {damage}", self.detail),
            None => self.detail.clone(),
        };
        (bytes, detail)
    }

    /// One line of JSON, as in a dead-letter file.
    ///
    /// # Errors
    /// [`serde_json::Error`], which no entry is known to cause.
    pub fn line(&self) -> Result<Vec<u8>, serde_json::Error> {
        let (bytes, detail) = self.content();
        let mut line = serde_json::to_vec(&Line {
            id: &self.id,
            time: keys::time_text(self.time_ms),
            time_ms: self.time_ms,
            reason: &self.reason,
            detail: &detail,
            origin: self.record_key.as_deref().map(String::from_utf8_lossy),
            group: self.group.as_deref(),
            offset: self.offset,
            value_base64: STANDARD.encode(&bytes),
        })?;
        line.push(b'\n');
        Ok(line)
    }
}

/// A dead-letter file of JSON lines; clones write to the same file.
#[derive(Debug, Clone)]
pub struct DeadLetterFile {
    path: PathBuf,
    file: Arc<Mutex<Option<File>>>,
}

impl DeadLetterFile {
    /// A file that is opened with the first entry.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: Arc::default(),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends entries and makes them durable; blocks. With `replayed`, entries whose ids are in
    /// the file already are passed over. Answers how many were appended.
    ///
    /// # Errors
    /// What the file system says, for example that the disk is full; what was appended of the
    /// entries is taken back, so that the call can be repeated.
    pub fn append(&self, letters: &[DeadLetter], replayed: bool) -> io::Result<u64> {
        if letters.is_empty() {
            return Ok(0);
        }
        let mut slot = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match &mut *slot {
            Some(file) => file,
            None => slot.insert(open(&self.path)?),
        };
        let known = if replayed {
            known_ids(file, letters)?
        } else {
            HashSet::new()
        };
        let end = file.seek(SeekFrom::End(0))?;
        let written = write_lines(file, letters, &known);
        if written.is_err() {
            // A torn line would be taken for an entry.
            let _ = file.set_len(end);
            *slot = None;
        }
        written
    }
}

fn write_lines(file: &File, letters: &[DeadLetter], known: &HashSet<String>) -> io::Result<u64> {
    let mut appended = 0;
    let mut out = BufWriter::with_capacity(1 << 16, file);
    for letter in letters.iter().filter(|letter| !known.contains(&letter.id)) {
        out.write_all(&letter.line().map_err(io::Error::other)?)?;
        appended += 1;
    }
    out.flush()?;
    file.sync_data()?;
    Ok(appended)
}

/// Opens the file and cuts off a line that a crash left unfinished.
fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)?;
    let mut whole = 0;
    let mut line = Vec::new();
    let mut reader = BufReader::new(&mut file);
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)? as u64;
        if line.last() != Some(&b'\n') {
            break;
        }
        whole += read;
    }
    file.set_len(whole)?;
    file.sync_all()?;
    if let Some(folder) = path.parent() {
        // The name of a new file is durable with its folder only.
        File::open(if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        })?
        .sync_all()?;
    }
    Ok(file)
}

fn known_ids(file: &mut File, letters: &[DeadLetter]) -> io::Result<HashSet<String>> {
    let wanted: HashSet<&str> = letters.iter().map(|letter| letter.id.as_str()).collect();
    let mut known = HashSet::new();
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        if let Ok(found) = serde_json::from_slice::<LineId>(&line)
            && wanted.contains(found.id.as_str())
        {
            known.insert(found.id);
        }
        line.clear();
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(offset: u64, value: &[u8]) -> DeadLetter {
        DeadLetter {
            id: format!("p/t/0/{offset}/0"),
            offset,
            time_ms: 1_763_886_000_123,
            reason: "not-json".into(),
            detail: "expected value at byte 0".into(),
            group: None,
            record_key: Some(Bytes::from_static(b"mp1/s/a/1/0/1/1.0/k")),
            payload: Payload::Raw(Bytes::copy_from_slice(value)),
        }
    }

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).expect("readable");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("json"))
            .collect()
    }

    #[test]
    fn a_replay_appends_only_what_is_missing_and_a_torn_line_is_cut_off() {
        let folder = tempfile::tempdir().expect("tempdir");
        let path = folder.path().join("sub/dead.jsonl");
        let first = DeadLetterFile::new(path.clone());
        assert_eq!(
            first
                .append(&[letter(1, b"x"), letter(2, &[0xff, 0])], false)
                .expect("appends"),
            2
        );
        drop(first);
        let mut file = OpenOptions::new().append(true).open(&path).expect("opens");
        file.write_all(b"{\"id\":\"p/t/0/3/0\",\"tim")
            .expect("writes");
        drop(file);
        let second = DeadLetterFile::new(path.clone());
        let again = [letter(1, b"x"), letter(2, &[0xff, 0]), letter(3, b"")];
        assert_eq!(second.append(&again, true).expect("appends"), 1);
        let lines = lines(&path);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1]["value_base64"], "/wA=");
        assert_eq!(lines[2]["id"], "p/t/0/3/0");
        assert_eq!(lines[2]["time"], "2025-11-23T08:20:00.123Z");
        assert_eq!(lines[2]["origin"], "mp1/s/a/1/0/1/1.0/k");
    }

    #[test]
    fn a_path_that_cannot_be_opened_is_an_error() {
        let folder = tempfile::tempdir().expect("tempdir");
        let file = DeadLetterFile::new(folder.path().to_owned());
        assert!(file.append(&[letter(1, b"x")], false).is_err());
    }
}
