//! Refusals, named as AWS names them.

/// The exception that AWS would name. Source: the error lists of the operations
/// in the Kinesis API reference, read 2026-11-23.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorKind {
    /// The stream, shard or token target does not exist.
    ResourceNotFound,
    /// The stream exists already, or is in no state for this operation.
    ResourceInUse,
    /// A parameter is wrong for the stream as it is.
    InvalidArgument,
    /// A parameter is wrong whatever the stream is, or the capacity mode forbids the operation.
    Validation,
    /// A quota would be passed.
    LimitExceeded,
    /// A shard was asked for more than it gives or takes in a second.
    ProvisionedThroughputExceeded,
    /// A shard iterator older than five minutes.
    ExpiredIterator,
    /// A `NextToken` older than five minutes.
    ExpiredNextToken,
}

impl ErrorKind {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ResourceNotFound => "ResourceNotFoundException",
            Self::ResourceInUse => "ResourceInUseException",
            Self::InvalidArgument => "InvalidArgumentException",
            Self::Validation => "ValidationException",
            Self::LimitExceeded => "LimitExceededException",
            Self::ProvisionedThroughputExceeded => "ProvisionedThroughputExceededException",
            Self::ExpiredIterator => "ExpiredIteratorException",
            Self::ExpiredNextToken => "ExpiredNextTokenException",
        }
    }
}

/// A refused operation. Nothing has changed in the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", kind.name())]
pub struct KinesisError {
    /// Which exception.
    pub kind: ErrorKind,
    /// What is wrong, where, with the limit and the value.
    pub message: String,
}

impl KinesisError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ResourceNotFound, message)
    }

    pub(crate) fn in_use(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ResourceInUse, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    pub(crate) fn validation(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Validation, message)
    }

    pub(crate) fn limit(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::LimitExceeded, message)
    }

    pub(crate) fn throughput(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ProvisionedThroughputExceeded, message)
    }
}
