//! The folder of an unfinished export and what it says of itself.

use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::cli::ExportFormat;

/// Version of `state.json`.
const VERSION: u32 = 1;

/// What is exported: an unfinished export goes on only for the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Of {
    /// Table.
    pub table: String,
    /// Pipeline that wrote it.
    pub pipeline: String,
    /// Group; absent for all.
    pub group: Option<String>,
    /// Earliest event time.
    pub from_ms: Option<i64>,
    /// Event time to stop before.
    pub to_ms: Option<i64>,
    /// Format.
    pub format: ExportFormat,
}

/// Where reading goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Last group, by name, that is written to its end.
    pub done: Option<String>,
    /// Group that is being written, and its page token.
    pub within: Option<(String, String)>,
}

/// What is written for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    version: u32,
    of: Of,
    /// Where reading goes on.
    pub cursor: Cursor,
    /// Bytes of the lines.
    pub bytes: u64,
    /// Files of columns.
    pub parts: u64,
    /// Events.
    pub events: u64,
    /// Bytes of the events.
    pub event_bytes: u64,
    /// Everything is written: the file only has to be put into its place.
    pub is_whole: bool,
}

/// The folder, locked.
#[derive(Debug)]
pub struct Work {
    folder: PathBuf,
    file: PathBuf,
    lock: File,
}

impl Work {
    /// Opens or makes the folder of a file, and reads how far it is.
    ///
    /// # Errors
    /// When the file exists, another process works on it, or what is there is of another export.
    pub fn open(file: &Path, of: Of) -> Result<(Self, State)> {
        let mut name = file
            .file_name()
            .context("the output has no name")?
            .to_owned();
        name.push(".partial");
        let folder = file.with_file_name(name);
        let begun = folder.join("state.json");
        ensure!(
            !file.exists() || begun.exists(),
            "`{}` exists already; remove it or name another",
            file.display()
        );
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
        let lock = File::create(folder.join("lock")).context("cannot make the lock")?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("another process works in `{}`", folder.display())
            }
            Err(TryLockError::Error(error)) => return Err(error).context("cannot lock"),
        }
        let work = Self {
            folder,
            file: file.to_owned(),
            lock,
        };
        let state = match std::fs::read(&begun) {
            Ok(bytes) => work.check(&bytes, &of)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => State {
                version: VERSION,
                of,
                cursor: Cursor::default(),
                bytes: 0,
                parts: 0,
                events: 0,
                event_bytes: 0,
                is_whole: false,
            },
            Err(error) => return Err(error).context(format!("cannot read `{}`", begun.display())),
        };
        Ok((work, state))
    }

    fn check(&self, bytes: &[u8], of: &Of) -> Result<State> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let anew = format!("remove `{}` to begin anew", self.folder.display());
        let version: Version = serde_json::from_slice(bytes)
            .with_context(|| format!("`state.json` cannot be read; {anew}"))?;
        ensure!(
            version.version == VERSION,
            "the unfinished export is of another version of Millpond; {anew}"
        );
        let state: State = serde_json::from_slice(bytes)
            .with_context(|| format!("`state.json` cannot be read; {anew}"))?;
        ensure!(
            state.of == *of,
            "the unfinished export is of other data: {}; give the same, or {anew}",
            serde_json::to_string(&state.of)?
        );
        Ok(state)
    }

    /// A file of the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes a state durable. What it counts must be.
    ///
    /// # Errors
    /// When it cannot be written; the one before holds.
    pub fn save(&self, state: &State) -> Result<()> {
        let (new, place) = (self.path("state.json.new"), self.path("state.json"));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec(state)?)?;
            file.sync_all()?;
            std::fs::rename(&new, &place)?;
            File::open(&self.folder)?.sync_all()
        };
        write().with_context(|| format!("cannot write `{}`", place.display()))
    }

    /// Puts the finished file of this name into its place and removes the folder.
    ///
    /// # Errors
    /// When it cannot be moved; the same command does it again.
    pub fn publish(self, name: &str) -> Result<()> {
        let (whole, file) = (self.path(name), &self.file);
        if whole.exists() {
            // A link and not a rename: what another program put there meanwhile is not replaced.
            std::fs::hard_link(&whole, file)
                .or_else(|error| match error.kind() {
                    std::io::ErrorKind::AlreadyExists if is_same(&whole, file) => Ok(()),
                    std::io::ErrorKind::AlreadyExists => Err(error),
                    _ => std::fs::rename(&whole, file),
                })
                .with_context(|| format!("cannot put `{}` into its place", file.display()))?;
        }
        ensure!(file.exists(), "`{}` is gone", whole.display());
        let parent = file
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))
            .and_then(|folder| folder.sync_all())
            .context("cannot synchronise the folder of the output")?;
        // The state last: while it is there, the same command knows that the file is whole.
        let remove = || -> std::io::Result<()> {
            for entry in std::fs::read_dir(&self.folder)? {
                let path = entry?.path();
                if !path.ends_with("state.json") {
                    std::fs::remove_file(path)?;
                }
            }
            std::fs::remove_dir_all(&self.folder)
        };
        remove().with_context(|| format!("cannot remove `{}`", self.folder.display()))?;
        drop(self.lock);
        Ok(())
    }
}

/// True when both names are of one file.
fn is_same(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let id = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino()));
    matches!((id(one), id(other)), (Ok(one), Ok(other)) if one == other)
}
