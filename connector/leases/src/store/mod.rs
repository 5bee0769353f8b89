//! Where the rows are.

#[cfg(feature = "dynamodb")]
pub(crate) mod call;
#[cfg(feature = "dynamodb")]
pub(crate) mod dynamodb;
pub(crate) mod memory;

use async_trait::async_trait;

use crate::row::{Change, View};

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The row is as the change wanted it.
    Applied,
    /// The row was not as it had been seen; nothing changed.
    Refused,
}

/// Why the store did not answer. After a failed [`LeaseStore::change`] the change may have taken
/// effect all the same; the next view tells, and [`crate::Coordinator`] needs no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Throttled, unreachable, or no answer in time: try at the next beat.
    #[error("lease store: {0}")]
    Transient(String),
    /// No try can succeed before somebody changes something.
    #[error("lease store: {0}")]
    Fatal(String),
    /// A row is none of this version.
    #[error("lease row `{row}` is none that this version writes: {what}")]
    Row {
        /// Its sort key.
        row: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Rows of the leases of one pipeline.
#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// All rows; each is no older than the start of the call.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn view(&self) -> Result<View, StoreError>;

    /// Makes one change if the row is as it was seen.
    ///
    /// # Errors
    /// [`StoreError`]; the change may have taken effect.
    async fn change(&self, change: &Change) -> Result<Outcome, StoreError>;
}
