//! The data directory: one process at a time, and where each part keeps its files.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// A data directory that this process holds until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Locked; the lock goes with the process, however it ends.
    _lock: File,
}

impl DataDir {
    /// Creates the directory when it is missing, and takes its lock. Blocks on the disk.
    ///
    /// # Errors
    /// When it cannot be created or written, or another process holds it.
    pub fn open(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path)
            .with_context(|| format!("cannot create the data directory `{}`", path.display()))?;
        let lock_path = path.join("lock");
        let lock = File::options()
            .create(true)
            .append(true)
            .open(&lock_path)
            .with_context(|| format!("cannot open `{}`", lock_path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "data directory `{}` is in use by another millpond process; end that one, or give another data directory",
                path.display()
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error)
                    .with_context(|| format!("cannot lock `{}`", lock_path.display()));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Directory of a topic.
    #[must_use]
    pub fn topic(&self, name: &str) -> PathBuf {
        Self::topic_in(&self.path, name)
    }

    /// Directory of a topic in a data directory that this process does not hold.
    #[must_use]
    pub fn topic_in(path: &Path, name: &str) -> PathBuf {
        path.join("topics").join(name)
    }

    /// Directory of a connector's own state, created when missing.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn connector(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join("connectors").join(name);
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot create `{}`", path.display()))?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder_at_a_time() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("data");
        let held = DataDir::open(&path).expect("first");
        let refused = DataDir::open(&path).expect_err("second").to_string();
        assert!(
            refused.contains("in use by another millpond process"),
            "{refused}"
        );
        drop(held);
        let again = DataDir::open(&path).expect("after the first");
        assert!(again.connector("sink").expect("created").is_dir());
    }
}
