//! An object store as the sink uses it: a small trait, S3 and a folder, and a fake with the same rules.

pub mod classify;
pub mod connect;
pub mod credentials;
pub mod directory;
pub mod memory;
pub mod store;
pub mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use millpond_sink::claim::{Claim, StaleWrites};

pub use classify::Verdict;

use crate::limits::MAX_STATE_BYTES;

/// Tells one content of an object from another: a strong entity tag, or a hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(pub String);

/// An object that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What is in it.
    pub bytes: Bytes,
    /// Its version.
    pub version: Version,
}

/// Which names are wanted of a list.
pub type Wanted<'a> = dyn Fn(&str) -> bool + Send + Sync + 'a;

/// A failed call: what was said and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiFailure {
    /// What to do.
    pub verdict: Verdict,
    /// The failure in words.
    pub message: String,
}

impl ApiFailure {
    /// The ledger was not looked at for too long: nothing was sent.
    #[must_use]
    pub fn unsent() -> Self {
        Self {
            verdict: Verdict::Unsent,
            message: Stale.to_string(),
        }
    }
}

/// A request that was stopped before it was sent.
#[derive(Debug, thiserror::Error)]
#[error("not sent: it is too long ago that the ledger was looked at")]
pub struct Stale;

impl std::fmt::Display for ApiFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// An object that is too large to be one of the small ones that are read.
fn check_size(bytes: u64) -> Result<(), ApiFailure> {
    if bytes <= MAX_STATE_BYTES {
        return Ok(());
    }
    Err(ApiFailure {
        verdict: Verdict::Fatal("it is not Millpond's: remove it, or use another `pipeline`"),
        message: format!("{bytes} bytes, over the limit of {MAX_STATE_BYTES}"),
    })
}

/// One bucket or folder. What is read is never older than the last write that was answered.
#[async_trait]
pub trait ObjectApi: Send + Sync {
    /// Names it in messages, for example "bucket `lake`".
    fn name(&self) -> &str;

    /// Reads a small object; `None` when there is none.
    async fn get(&self, name: &str) -> Result<Option<Found>, ApiFailure>;

    /// Puts an object, in place of one that may be there.
    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), ApiFailure>;

    /// The same under a claim: nothing is put when it is not fresh once the request is ready to be sent, which is after
    /// its signature where it has one ([`Verdict::Unsent`]).
    async fn put_under(
        &self,
        name: &str,
        bytes: Bytes,
        claim: &Arc<Claim>,
    ) -> Result<(), ApiFailure>;

    /// When what a stale process put under a claim has an end.
    fn stale_writes(&self) -> StaleWrites;

    /// Names of the objects below a folder that are wanted, and of nothing else.
    async fn list(&self, folder: &str, is_wanted: &Wanted<'_>) -> Result<Vec<String>, ApiFailure>;

    /// Removes an object, if it is there.
    async fn delete(&self, name: &str) -> Result<(), ApiFailure>;

    /// Puts an object where none is, in one step; `None` when one is there.
    async fn create(&self, name: &str, bytes: Bytes) -> Result<Option<Version>, ApiFailure>;

    /// Puts an object in place of exactly the version `seen`, in one step; `None` when another
    /// or none is there.
    async fn replace(
        &self,
        name: &str,
        bytes: Bytes,
        seen: &Version,
    ) -> Result<Option<Version>, ApiFailure>;
}
