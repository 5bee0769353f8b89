//! The stable id of a worker.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use millpond_connector::random;

use crate::row::WorkerId;

const FILE: &str = "worker-id";
/// A random number of 128 bits in hexadecimal digits.
const DIGITS: usize = 32;

/// Why a worker has no id.
#[derive(Debug, thiserror::Error)]
pub enum WorkerIdError {
    /// Reading or writing failed.
    #[error("cannot read or write the worker id `{path}`: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else.
    #[error(
        "`{path}` holds no worker id ({DIGITS} hexadecimal digits and a line end): remove it, and a \
         new one is made; leases that this worker held are then taken after they expire"
    )]
    NoId {
        /// The file.
        path: PathBuf,
    },
}

/// The id of the worker whose data directory this is, made at the first call and kept in the file
/// `worker-id`. The caller holds the lock of the directory: two live processes must not have one id.
///
/// # Errors
/// [`WorkerIdError`].
pub fn worker_id(data_dir: &Path) -> Result<WorkerId, WorkerIdError> {
    let path = data_dir.join(FILE);
    let io = |source| WorkerIdError::Io {
        path: path.clone(),
        source,
    };
    match File::open(&path) {
        Ok(file) => {
            let mut text = Vec::new();
            let limit = DIGITS as u64 + 2;
            file.take(limit).read_to_end(&mut text).map_err(io)?;
            read(&text).ok_or(WorkerIdError::NoId { path })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = format!("{:016x}{:016x}", random::number(), random::number());
            create(data_dir, &path, &id).map_err(io)?;
            Ok(WorkerId::new(id))
        }
        Err(error) => Err(io(error)),
    }
}

fn read(text: &[u8]) -> Option<WorkerId> {
    let id = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
    let digits = id.bytes().all(|byte| byte.is_ascii_hexdigit());
    (id.len() == DIGITS && digits).then(|| WorkerId::new(id))
}

/// Writes beside the file, makes that durable, and only then puts it in the file's place.
fn create(dir: &Path, path: &Path, id: &str) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(id.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_made_once_and_kept() {
        let dir = tempfile::tempdir().expect("directory");
        let data = dir.path().join("data");
        let id = worker_id(&data).expect("made");
        assert_eq!(id.as_str().len(), DIGITS);
        assert_eq!(worker_id(&data).expect("kept"), id);
        let names = fs::read_dir(&data).expect("directory");
        assert_eq!(names.count(), 1, "nothing is left behind");

        let other = worker_id(&dir.path().join("other")).expect("made");
        assert_ne!(other, id);
        // A copy of the directory is the same worker.
        fs::copy(data.join(FILE), dir.path().join(FILE)).expect("copied");
        assert_eq!(worker_id(dir.path()).expect("read"), id);
    }

    #[test]
    fn a_crash_before_the_rename_leaves_nothing_that_is_read() {
        let dir = tempfile::tempdir().expect("directory");
        fs::write(dir.path().join("worker-id.new"), "dead").expect("written");
        let id = worker_id(dir.path()).expect("made");
        assert_eq!(worker_id(dir.path()).expect("kept"), id);
    }

    #[test]
    fn what_is_no_id_is_refused() {
        let dir = tempfile::tempdir().expect("directory");
        let good = format!("{}\n", "a".repeat(DIGITS));
        for text in [
            String::new(),
            "a".repeat(DIGITS),
            format!("{}\n", "a".repeat(DIGITS - 1)),
            format!("{good}\n"),
            format!("{}\n", "g".repeat(DIGITS)),
            "é".repeat(20),
        ] {
            fs::write(dir.path().join(FILE), &text).expect("written");
            let result = worker_id(dir.path());
            assert!(
                matches!(result, Err(WorkerIdError::NoId { .. })),
                "{text:?}"
            );
        }
        fs::write(dir.path().join(FILE), good).expect("written");
        worker_id(dir.path()).expect("a good one");
    }
}
