//! The open file.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use redb::{Database, StorageBackend as _};

use crate::backend::{DiskHook, HookedFile};
use crate::error::{Failure, Fault, FileError};

enum Handle {
    Open(Database),
    /// Not opened yet, or an operation failed under it; the next one opens the file again.
    Shut,
    Closed,
}

/// One file of the store. It is opened by the first operation, and locked from then on until it is closed or dropped.
pub struct StoreFile {
    path: PathBuf,
    cache_bytes: usize,
    hook: Option<DiskHook>,
    handle: RwLock<Handle>,
}

impl StoreFile {
    /// The file at `path`, with this much memory to keep its pages in.
    #[must_use]
    pub fn new(path: PathBuf, cache_bytes: usize, hook: Option<DiskHook>) -> Self {
        Self {
            path,
            cache_bytes,
            hook,
            handle: RwLock::new(Handle::Shut),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the file, with what `fill` writes into it, durably. It is made under another name first: a process that
    /// dies meanwhile leaves no half of a store behind, and what is left under that name is begun anew.
    ///
    /// # Errors
    /// [`Failure`]; there is no file then, or the whole of it.
    pub fn create<E>(
        &self,
        fill: impl FnOnce(&Database) -> Result<(), Fault<E>>,
    ) -> Result<(), Failure<E>> {
        let unfinished = self.path.with_extension("new");
        let db = self.open_file(&unfinished, true).map_err(Failure::File)?;
        match catch_unwind(AssertUnwindSafe(|| fill(&db))) {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => return Err(fault.at(&self.path)),
            Err(panic) => return Err(Fault::Corrupt(panic_text(&*panic)).at(&self.path)),
        }
        std::fs::rename(&unfinished, &self.path)
            .and_then(|()| sync_parent(&self.path))
            .map_err(|error| Failure::File(FileError::of(&self.path, &error)))?;
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        *handle = Handle::Open(db);
        Ok(())
    }

    /// Works with the database; what it commits is on disk when this returns `Ok`.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn run<T, E>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, Fault<E>>,
    ) -> Result<T, Failure<E>> {
        let handle = self.ready().map_err(Failure::File)?;
        let db = match &*handle {
            Handle::Open(db) => db,
            Handle::Shut | Handle::Closed => return Err(Failure::File(FileError::Closed)),
        };
        let fault = match catch_unwind(AssertUnwindSafe(|| work(db))) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(fault)) => fault,
            Err(panic) => Fault::Corrupt(panic_text(&*panic)),
        };
        let failed_db: *const Database = db;
        drop(handle);
        if matches!(fault, Fault::Redb(_) | Fault::Corrupt(_)) {
            self.shut(failed_db);
        }
        Err(fault.at(&self.path))
    }

    /// Gives free space inside the file back to the file system; readers wait meanwhile.
    ///
    /// # Errors
    /// [`FileError`]; what the file holds is as it was.
    pub fn compact(&self) -> Result<(), FileError> {
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        let Handle::Open(db) = &mut *handle else {
            return Ok(());
        };
        let fault = match catch_unwind(AssertUnwindSafe(|| db.compact())) {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => Fault::Redb(error.into()),
            Err(panic) => Fault::Corrupt(panic_text(&*panic)),
        };
        *handle = Handle::Shut;
        Err(file_error(fault, &self.path))
    }

    /// Closes the file and lets go of its lock, whoever still holds the value.
    pub fn close(&self) {
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        // The library may do its last writes, and may panic on a damaged file.
        let old = std::mem::replace(&mut *handle, Handle::Closed);
        let _ = catch_unwind(AssertUnwindSafe(move || drop(old)));
    }

    /// The open database, opened again when an earlier operation broke it.
    fn ready(&self) -> Result<RwLockReadGuard<'_, Handle>, FileError> {
        loop {
            let handle = self.handle.read().unwrap_or_else(PoisonError::into_inner);
            match &*handle {
                Handle::Open(_) => return Ok(handle),
                Handle::Closed => return Err(FileError::Closed),
                Handle::Shut => drop(handle),
            }
            let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
            if matches!(*handle, Handle::Shut) {
                *handle = Handle::Open(self.open_file(&self.path, false)?);
            }
        }
    }

    fn shut(&self, failed: *const Database) {
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have opened it again already: leave that one alone.
        if matches!(&*handle, Handle::Open(db) if std::ptr::eq(db, failed)) {
            let old = std::mem::replace(&mut *handle, Handle::Shut);
            let _ = catch_unwind(AssertUnwindSafe(move || drop(old)));
        }
    }

    fn open_file(&self, path: &Path, empty: bool) -> Result<Database, FileError> {
        type Never = std::convert::Infallible;
        let opened = catch_unwind(AssertUnwindSafe(|| -> Result<Database, Fault<Never>> {
            let file = HookedFile::open(path, self.hook.clone())
                .map_err(|error| Fault::Redb(redb::Error::Io(error)))?;
            if empty {
                file.set_len(0)
                    .map_err(|error| Fault::Redb(redb::Error::Io(error)))?;
            }
            let mut builder = redb::Builder::new();
            builder.set_cache_size(self.cache_bytes);
            Ok(builder.create_with_backend(file)?)
        }));
        let opened = opened.unwrap_or_else(|panic| Err(Fault::Corrupt(panic_text(&*panic))));
        opened.map_err(|fault| file_error(fault, &self.path))
    }
}

fn file_error(fault: Fault<std::convert::Infallible>, path: &Path) -> FileError {
    match fault.at(path) {
        Failure::File(error) => error,
        Failure::Other(never) => match never {},
    }
}

/// Makes a rename durable.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::File::open(parent)?.sync_all()
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    format!(
        "the store gave up with `{}`",
        text.unwrap_or("unknown panic")
    )
}
