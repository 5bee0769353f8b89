//! Calls of DynamoDB: what a failed one means. One table, for every row that leases touch.

use std::error::Error;
use std::fmt::Debug;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use millpond_connector::aws::{FailureKind, describe, failure_kind};

use super::{Outcome, StoreError};

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    code: Option<String>,
    kind: FailureKind,
    message: String,
}

impl<E, R> From<SdkError<E, R>> for CallError
where
    E: Error + ProvideErrorMetadata + 'static,
    R: Debug + 'static,
{
    fn from(error: SdkError<E, R>) -> Self {
        let service = error.as_service_error();
        Self {
            code: service
                .and_then(|service| service.code())
                .map(str::to_owned),
            kind: failure_kind(&error),
            message: describe(&error),
        }
    }
}

impl From<CallError> for StoreError {
    fn from(error: CallError) -> Self {
        if error.is_transient() {
            Self::Transient(error.message)
        } else {
            Self::Fatal(error.message)
        }
    }
}

impl CallError {
    /// A call that failed on this side of the wire.
    #[must_use]
    pub fn new(kind: FailureKind, message: String) -> Self {
        Self {
            code: None,
            kind,
            message,
        }
    }

    /// True when a later try can succeed without a change by anyone.
    ///
    /// DynamoDB developer guide, "Error handling with DynamoDB" (`Programming.Errors.html`, read
    /// 2026-11-23): the errors named here are those that it cannot. Expired credentials may be
    /// renewed meanwhile.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self.kind {
            FailureKind::Unreachable | FailureKind::Timeout | FailureKind::Answer => true,
            FailureKind::Credentials | FailureKind::Request => false,
            FailureKind::Service => !matches!(
                self.code.as_deref().unwrap_or_default(),
                "ResourceNotFoundException"
                    | "ValidationException"
                    | "AccessDeniedException"
                    | "UnrecognizedClientException"
                    | "InvalidSignatureException"
                    | "IncompleteSignature"
                    | "IncompleteSignatureException"
                    | "MissingAuthenticationToken"
                    | "MissingAuthenticationTokenException"
            ),
        }
    }

    /// True for an error of the service with this code.
    #[must_use]
    pub fn has_code(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }
}

/// Whether a conditional write applied.
///
/// # Errors
/// [`CallError`] for everything but a condition that does not hold.
pub fn applied<T, E, R>(answer: Result<T, SdkError<E, R>>) -> Result<Outcome, CallError>
where
    E: Error + ProvideErrorMetadata + 'static,
    R: Debug + 'static,
{
    match answer.map_err(CallError::from) {
        Ok(_) => Ok(Outcome::Applied),
        Err(error) if error.has_code("ConditionalCheckFailedException") => Ok(Outcome::Refused),
        Err(error) => Err(error),
    }
}
