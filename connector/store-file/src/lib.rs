//! One file of the embedded store (redb), for whoever keeps something on this machine: topics and checkpoints.
//!
//! What redb leaves open is settled here once:
//! - A file is made under another name first, so that a process that dies meanwhile leaves no half of one.
//! - redb panics on some damaged files: that is an error here, and so is everything else that can be wrong.
//! - An operation that failed breaks the database that it ran under; the next one opens the file again.
//! - redb does not check its pages when it reads them: rows carry a CRC-32C ([`seal`], [`unseal`]).
//!
//! A commit is on disk when it returns.

mod backend;
mod error;
mod file;
mod sealed;

pub use backend::{DiskHook, FileOperation};
pub use error::{Failure, Fault, FileError};
pub use file::StoreFile;
pub use redb;
pub use sealed::{seal, unseal};
