//! Why the file could not do something.

use std::io;
use std::path::{Path, PathBuf};

/// Why the file could not do something.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FileError {
    /// The file system has no room.
    #[error(
        "no room to write `{}`: {reason}; free space in that file system (what waits goes on by itself) \
         or move the data directory to a larger one",
        .path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        reason: String,
    },
    /// The file system failed otherwise.
    #[error("cannot read or write `{}`: {reason}; check the disk and the file's permissions", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        reason: String,
    },
    /// Somebody else has the file open.
    #[error(
        "`{}` is in use by another process; stop that one first, or use another data directory",
        .path.display()
    )]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// What is in the file is not what was written, or it never was a store.
    #[error("`{}` is damaged or no store: {reason}", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The check that failed.
        reason: String,
    },
    /// It was closed before.
    #[error("closed")]
    Closed,
}

/// What goes wrong inside a transaction, before the path is known.
#[derive(Debug)]
pub enum Fault<E> {
    /// The store failed.
    Redb(redb::Error),
    /// What it holds fails a check.
    Corrupt(String),
    /// What its user makes of it; the database goes on.
    Other(E),
}

impl<E, F: Into<redb::Error>> From<F> for Fault<E> {
    fn from(error: F) -> Self {
        Self::Redb(error.into())
    }
}

/// Why an operation on the file failed.
#[derive(Debug)]
pub enum Failure<E> {
    /// The file did.
    File(FileError),
    /// What its user makes of it.
    Other(E),
}

impl<E> Fault<E> {
    /// The fault, of the file at `path`.
    pub(crate) fn at(self, path: &Path) -> Failure<E> {
        let to_owned = || path.to_owned();
        Failure::File(match self {
            Self::Other(other) => return Failure::Other(other),
            Self::Corrupt(reason) => FileError::Corrupt {
                path: to_owned(),
                reason,
            },
            Self::Redb(redb::Error::Io(error)) => FileError::of(path, &error),
            Self::Redb(redb::Error::DatabaseAlreadyOpen) => FileError::Locked { path: to_owned() },
            Self::Redb(redb::Error::DatabaseClosed) => FileError::Closed,
            Self::Redb(error @ redb::Error::PreviousIo) => FileError::Io {
                path: to_owned(),
                reason: error.to_string(),
            },
            Self::Redb(error) => FileError::Corrupt {
                path: to_owned(),
                reason: error.to_string(),
            },
        })
    }
}

impl FileError {
    /// An error of the file system about `path`.
    #[must_use]
    pub fn of(path: &Path, error: &io::Error) -> Self {
        let path = path.to_owned();
        let reason = error.to_string();
        match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::Full { path, reason },
            // What redb says of a file that is not its own, or too short to be.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Self::Corrupt { path, reason }
            }
            _ => Self::Io { path, reason },
        }
    }
}
