//! A folder of this machine as a bucket: what was answered is on disk.
//!
//! `object_store` does not replace a file under a condition. That is done here: under an exclusive
//! lock of the file's folder, which the system gives up when its holder dies, in one piece that
//! goes on to its end even if the caller is gone, so that a process between comparison and
//! rename cannot be overtaken.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{Error, ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions};
use xxhash_rust::xxh3::xxh3_128;

use super::classify::{classify_io, failure};
use super::{ApiFailure, Found, ObjectApi, Verdict, Version, store};

/// A folder.
pub struct Directory {
    files: LocalFileSystem,
    name: String,
}

impl Directory {
    /// Opens a folder, and makes it if it is missing.
    ///
    /// # Errors
    /// When it cannot be made or opened.
    pub fn open(path: &Path) -> Result<Self, ApiFailure> {
        fs::create_dir_all(path).map_err(|error| io_failure(&error))?;
        let files = LocalFileSystem::new_with_prefix(path).map_err(|error| failure(&error))?;
        Ok(Self {
            files: files.with_fsync(true),
            name: format!("folder `{}`", path.display()),
        })
    }

    fn file(&self, name: &str) -> Result<PathBuf, ApiFailure> {
        let file = ObjectPath::parse(name).map_err(Error::from);
        let file = file.and_then(|path| self.files.path_to_filesystem(&path));
        file.map_err(|error| failure(&error))
    }
}

fn version(bytes: &[u8]) -> Version {
    Version(format!("{:032x}", xxh3_128(bytes)))
}

fn io_failure(error: &io::Error) -> ApiFailure {
    ApiFailure {
        verdict: classify_io(error.kind()),
        message: error.to_string(),
    }
}

#[async_trait]
impl ObjectApi for Directory {
    fn name(&self) -> &str {
        &self.name
    }

    async fn get(&self, name: &str) -> Result<Option<Found>, ApiFailure> {
        let found = store::read(&self.files, name).await?;
        Ok(found.map(|(bytes, _)| Found {
            version: version(&bytes),
            bytes,
        }))
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), ApiFailure> {
        let path = ObjectPath::parse(name).map_err(|error| failure(&error.into()))?;
        let put = self.files.put(&path, bytes.into()).await;
        put.map(drop).map_err(|error| failure(&error))
    }

    async fn create(&self, name: &str, bytes: Bytes) -> Result<Option<Version>, ApiFailure> {
        let path = ObjectPath::parse(name).map_err(|error| failure(&error.into()))?;
        let made = version(&bytes);
        let options = PutOptions::from(PutMode::Create);
        match self.files.put_opts(&path, bytes.into(), options).await {
            Ok(_) => Ok(Some(made)),
            Err(Error::AlreadyExists { .. }) => Ok(None),
            Err(error) => Err(failure(&error)),
        }
    }

    async fn replace(
        &self,
        name: &str,
        bytes: Bytes,
        seen: &Version,
    ) -> Result<Option<Version>, ApiFailure> {
        let (file, seen) = (self.file(name)?, seen.clone());
        let task = tokio::task::spawn_blocking(move || replace(&file, &bytes, &seen));
        match task.await {
            Ok(Ok(replaced)) => Ok(replaced),
            Ok(Err(error)) => Err(io_failure(&error)),
            Err(error) => Err(ApiFailure {
                verdict: Verdict::Transient,
                message: error.to_string(),
            }),
        }
    }
}

/// Replaces the file if it is the version `seen`; blocks while another process does.
fn replace(file: &Path, bytes: &[u8], seen: &Version) -> io::Result<Option<Version>> {
    let Some(folder) = file.parent() else {
        return Ok(None);
    };
    let folder = match File::open(folder) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    folder.lock()?;
    match fs::read(file) {
        Ok(found) if version(&found) == *seen => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    // The suffix by which `object_store` knows its own temporary files, and passes over them.
    let mut temporary = file.as_os_str().to_owned();
    temporary.push("#0");
    let written = File::create(&temporary).and_then(|mut out| {
        out.write_all(bytes)?;
        out.sync_all()
    });
    written.and_then(|()| fs::rename(&temporary, file))?;
    folder.sync_all()?;
    Ok(Some(version(bytes)))
}
