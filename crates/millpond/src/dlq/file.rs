//! Dead letters in a file of JSON lines. What was put back is noted in a second file, `<file>.replayed`.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{Entry, State};
use crate::time::{now_ms, text_ms};

/// A line of the dead-letter file, as a sink writes it.
#[derive(Deserialize)]
struct Line {
    id: String,
    time_ms: i64,
    reason: String,
    detail: String,
    origin: Option<String>,
    group: Option<String>,
    value_base64: String,
}

/// A line of the notes; of several with one id the last one counts.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    id: String,
    state: State,
    at: String,
}

/// Dead letters of a file.
pub struct FileLetters {
    path: PathBuf,
    lines: BufReader<File>,
    number: u64,
    seen: HashSet<String>,
    states: HashMap<String, State>,
    /// Open, and locked, once something was noted.
    notes: Option<File>,
}

impl FileLetters {
    /// Opens a file.
    ///
    /// # Errors
    /// When it, or the notes beside it, cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let named = || format!("`{}`", path.display());
        let lines = BufReader::new(File::open(path).with_context(named)?);
        Ok(Self {
            states: read_notes(&notes_path(path))?,
            path: path.to_owned(),
            lines,
            number: 0,
            seen: HashSet::new(),
            notes: None,
        })
    }

    /// The next entry.
    ///
    /// # Errors
    /// For a line that no sink wrote.
    pub fn read(&mut self) -> Result<Option<Entry>> {
        let mut text = Vec::new();
        loop {
            text.clear();
            self.number += 1;
            let named = || format!("`{}` line {}", self.path.display(), self.number);
            self.lines
                .read_until(b'\n', &mut text)
                .with_context(named)?;
            // A last line without its end is being written.
            if text.pop() != Some(b'\n') {
                return Ok(None);
            }
            let mut entry =
                entry_of_line(&text).with_context(|| format!("{} is no dead letter", named()))?;
            if !self.seen.insert(entry.id.clone()) {
                continue;
            }
            entry.state = self.states.get(&entry.id).copied().unwrap_or_default();
            return Ok(Some(entry));
        }
    }

    /// Notes a state, durably.
    ///
    /// # Errors
    /// When another process is putting entries of this file back, or it cannot be written.
    pub fn note(&mut self, id: &str, state: State) -> Result<()> {
        let path = notes_path(&self.path);
        let named = || format!("`{}`", path.display());
        let notes = match &mut self.notes {
            Some(notes) => notes,
            None => {
                let file = OpenOptions::new().append(true).create(true).open(&path);
                let file = file.with_context(named)?;
                match file.try_lock() {
                    Ok(()) => {}
                    Err(TryLockError::WouldBlock) => {
                        bail!(
                            "`{}` is in use: another replay is under way",
                            path.display()
                        )
                    }
                    Err(TryLockError::Error(error)) => return Err(error).with_context(named),
                }
                // Somebody may have noted something between our first look and the lock.
                if read_notes(&path)? != self.states {
                    bail!("`{}` has changed: begin again", path.display());
                }
                self.notes.insert(file)
            }
        };
        let note = Note {
            id: id.to_owned(),
            state,
            at: text_ms(now_ms()),
        };
        let mut line = serde_json::to_vec(&note)?;
        line.push(b'\n');
        notes.write_all(&line).with_context(named)?;
        notes.sync_data().with_context(named)?;
        self.states.insert(id.to_owned(), state);
        Ok(())
    }
}

/// The dead letter of a line, nothing noted on it.
pub(super) fn entry_of_line(text: &[u8]) -> Result<Entry> {
    let line: Line = serde_json::from_slice(text)?;
    Ok(Entry {
        id: line.id,
        time_ms: line.time_ms,
        reason: line.reason,
        detail: line.detail,
        origin: line.origin,
        group: line.group,
        value: STANDARD.decode(&line.value_base64)?,
        state: State::New,
    })
}

fn notes_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".replayed");
    PathBuf::from(name)
}

fn read_notes(path: &Path) -> Result<HashMap<String, State>> {
    let named = || format!("`{}`", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(error) => return Err(error).with_context(named),
    };
    let mut states = HashMap::new();
    for line in BufReader::new(file).split(b'\n') {
        let line = line.with_context(named)?;
        // One that a crash left unfinished was not acted upon: the event is sent after it.
        if let Ok(note) = serde_json::from_slice::<Note>(&line) {
            states.insert(note.id, note.state);
        }
    }
    Ok(states)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(offset: u32) -> String {
        format!(
            "{{\"id\":\"p/t/0/{offset}/0\",\"time\":\"\",\"time_ms\":5,\"reason\":\"not-json\",\"detail\":\"d\",\
             \"origin\":null,\"group\":null,\"offset\":{offset},\"value_base64\":\"/wA=\"}}\n"
        )
    }

    fn states(path: &Path) -> Vec<State> {
        let mut letters = FileLetters::open(path).expect("opens");
        let next = || letters.read().expect("readable");
        std::iter::from_fn(next).map(|entry| entry.state).collect()
    }

    #[test]
    fn each_id_once_with_what_was_noted_last() {
        let folder = tempfile::tempdir().expect("tempdir");
        let path = folder.path().join("dead.jsonl");
        let text = format!("{}{}{}{}", line(1), line(2), line(1), &line(3)[..20]);
        std::fs::write(&path, text).expect("writes");
        let mut letters = FileLetters::open(&path).expect("opens");
        let first = letters.read().expect("readable").expect("an entry");
        assert_eq!(
            (first.id.as_str(), &*first.value),
            ("p/t/0/1/0", &[0xff, 0][..])
        );
        letters.note(&first.id, State::Begun).expect("notes");
        assert_eq!(states(&path), [State::Begun, State::New]);
        letters.note(&first.id, State::Replayed).expect("notes");
        assert_eq!(states(&path), [State::Replayed, State::New]);
        let mut rival = FileLetters::open(&path).expect("opens");
        let refused = rival.note("p/t/0/2/0", State::Begun).expect_err("locked");
        assert!(refused.to_string().contains("another replay"), "{refused}");
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let folder = tempfile::tempdir().expect("tempdir");
        let path = folder.path().join("dead.jsonl");
        std::fs::write(&path, format!("{}{{}}\n", line(1))).expect("writes");
        let mut letters = FileLetters::open(&path).expect("opens");
        assert!(letters.read().expect("readable").is_some());
        let error = letters.read().expect_err("no letter").to_string();
        assert!(error.contains("line 2 is no dead letter"), "{error}");
    }
}
