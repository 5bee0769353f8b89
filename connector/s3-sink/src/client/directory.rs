//! A folder of this machine as a bucket: what was answered is on disk.
//!
//! `object_store` does not replace a file under a condition. That is done here: under an exclusive
//! lock of the file's folder, which the system gives up when its holder dies, in one piece that
//! goes on to its end even if the caller is gone, so that a process between comparison and
//! rename cannot be overtaken.
//!
//! Nothing that a paused process was about to write here has an end. So whoever writes under a claim holds a shared lock of
//! the whole folder from the look at the claim to the rename, and a list takes it exclusively once: what was begun
//! before is there then, or will not be.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use millpond_sink::claim::{Claim, StaleWrites};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{Error, ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions};
use xxhash_rust::xxh3::xxh3_128;

use super::classify::{classify_io, failure};
use super::{ApiFailure, Found, ObjectApi, Verdict, Version, Wanted, store};

/// Temporary files beside one.
const MAX_TEMPORARY: u32 = 1_000;

/// A folder.
pub struct Directory {
    files: LocalFileSystem,
    root: PathBuf,
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
            root: path.to_owned(),
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

    async fn put_under(
        &self,
        name: &str,
        bytes: Bytes,
        claim: &Arc<Claim>,
    ) -> Result<(), ApiFailure> {
        let (root, file, claim) = (self.root.clone(), self.file(name)?, claim.clone());
        match blocking(move || put_under(&root, &file, &bytes, &claim)).await? {
            true => Ok(()),
            false => Err(ApiFailure::unsent()),
        }
    }

    fn stale_writes(&self) -> StaleWrites {
        StaleWrites::LOCAL
    }

    async fn list(&self, folder: &str, is_wanted: &Wanted<'_>) -> Result<Vec<String>, ApiFailure> {
        let root = self.root.clone();
        blocking(move || File::open(root)?.lock()).await?;
        store::list(&self.files, folder, is_wanted).await
    }

    async fn delete(&self, name: &str) -> Result<(), ApiFailure> {
        store::delete(&self.files, name).await
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
        blocking(move || replace(&file, &bytes, &seen)).await
    }
}

/// Goes on to its end even if the caller is gone.
async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ApiFailure> {
    match tokio::task::spawn_blocking(act).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(io_failure(&error)),
        Err(error) => Err(ApiFailure {
            verdict: Verdict::Transient,
            message: error.to_string(),
        }),
    }
}

/// Puts the file if the claim is fresh under the lock of the whole folder; false if it is not.
fn put_under(root: &Path, file: &Path, bytes: &[u8], claim: &Claim) -> io::Result<bool> {
    let all = File::open(root)?;
    all.lock_shared()?;
    if !claim.is_fresh() {
        return Ok(false);
    }
    let Some(folder) = file.parent() else {
        return Ok(false);
    };
    fs::create_dir_all(folder)?;
    let (temporary, out) = beside(file)?;
    write(out, bytes, &temporary, file)?;
    File::open(folder)?.sync_all()?;
    Ok(true)
}

/// A name beside a file. `object_store` knows such a suffix for its own temporary files, and passes over them.
fn suffixed(file: &Path, number: u32) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(format!("#{number}"));
    name.into()
}

/// A new file beside one that another process may be writing, too.
fn beside(file: &Path) -> io::Result<(PathBuf, File)> {
    let mut number = 1;
    loop {
        let temporary = suffixed(file, number);
        match File::create_new(&temporary) {
            // Somebody else's, or left behind by a crash.
            Err(error)
                if error.kind() == io::ErrorKind::AlreadyExists && number < MAX_TEMPORARY =>
            {
                number += 1;
            }
            made => return Ok((temporary, made?)),
        }
    }
}

/// Writes a file beside its place, and puts it there.
fn write(mut out: File, bytes: &[u8], temporary: &Path, file: &Path) -> io::Result<()> {
    out.write_all(bytes)?;
    out.sync_all()?;
    fs::rename(temporary, file)
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
    let temporary = suffixed(file, 0);
    write(File::create(&temporary)?, bytes, &temporary, file)?;
    folder.sync_all()?;
    Ok(Some(version(bytes)))
}
