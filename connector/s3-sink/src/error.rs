//! Why the objects cannot be used as they are.

use millpond_sink::store::StoreError;

/// A call that failed for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{store}: {operation} of `{name}` failed: {message}{}", .help.map(|help| format!("; {help}")).unwrap_or_default())]
pub struct CallError {
    /// Bucket or folder.
    pub store: String,
    /// Operation as S3 calls it.
    pub operation: &'static str,
    /// Object.
    pub name: String,
    /// The failure in words.
    pub message: String,
    /// What to do about it.
    pub help: Option<&'static str>,
}

/// Why the store, or what is in it, does not allow to go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum S3Error {
    /// A call was refused for good.
    #[error(transparent)]
    Call(#[from] CallError),
    /// An object is not Millpond's, or not this version's.
    #[error("object `{name}` of {store}: {what}")]
    State {
        /// Bucket or folder.
        store: String,
        /// Object.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// Conditional writes have no effect there.
    #[error(
        "{store} ignores `{header}` on writes: without it two processes could both believe that a \
         topic partition is theirs. Use a store that honours conditional writes, as Amazon S3 does"
    )]
    Unconditional {
        /// Bucket or folder.
        store: String,
        /// The header that was ignored.
        header: &'static str,
    },
    /// A task that put an object broke off.
    #[error("a task that put an object broke off: {0}")]
    Broken(String),
    /// An object could not be made.
    #[error("cannot make an object of group `{group}`: {what}")]
    Encode {
        /// Its group.
        group: String,
        /// What the encoder said.
        what: String,
    },
}

impl From<S3Error> for StoreError {
    fn from(error: S3Error) -> Self {
        Self::Refused(Box::new(error))
    }
}
