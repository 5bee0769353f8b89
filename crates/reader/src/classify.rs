//! One table that says what a failed DynamoDB call means.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use millpond_connector::aws::{FailureKind, describe, failure_kind};

/// What to do about a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Too fast: wait and try again.
    Throttled,
    /// Passing: wait and try again.
    Passing,
    /// The table is not there.
    NoSuchTable,
    /// Credentials are missing or wrong.
    Credentials,
    /// Credentials do not suffice.
    AccessDenied,
    /// The request itself is at fault.
    Refused,
}

impl Verdict {
    /// True when another attempt may help.
    pub(crate) fn is_retried(self) -> bool {
        matches!(self, Self::Throttled | Self::Passing)
    }
}

/// Error codes of DynamoDB that a read can meet
/// (DynamoDB developer guide, "Error handling with DynamoDB", and API reference, "Common
/// errors", read 2026-11-23). A code that is not listed is judged by its HTTP status.
const CODES: [(&str, Verdict); 18] = [
    ("ProvisionedThroughputExceededException", Verdict::Throttled),
    ("ThrottlingException", Verdict::Throttled),
    ("Throttling", Verdict::Throttled),
    ("RequestLimitExceeded", Verdict::Throttled),
    ("LimitExceededException", Verdict::Throttled),
    ("InternalServerError", Verdict::Passing),
    ("InternalFailure", Verdict::Passing),
    ("ServiceUnavailable", Verdict::Passing),
    ("ResourceNotFoundException", Verdict::NoSuchTable),
    ("UnrecognizedClientException", Verdict::Credentials),
    ("InvalidSignatureException", Verdict::Credentials),
    ("IncompleteSignatureException", Verdict::Credentials),
    ("MissingAuthenticationTokenException", Verdict::Credentials),
    ("InvalidClientTokenId", Verdict::Credentials),
    ("ExpiredTokenException", Verdict::Credentials),
    ("AccessDeniedException", Verdict::AccessDenied),
    ("NotAuthorized", Verdict::AccessDenied),
    ("ValidationException", Verdict::Refused),
];

/// Verdict on an error answer, by its code, else by its HTTP status.
pub(crate) fn by_code(code: Option<&str>, status: u16) -> Verdict {
    let listed = CODES.iter().find(|(known, _)| Some(*known) == code);
    match listed {
        Some((_, verdict)) => *verdict,
        None if status >= 500 || status == 429 => Verdict::Passing,
        // The service always gives a code: without one, the answer was cut on its way.
        None if code.is_none() && matches!(status, 200..=299 | 400) => Verdict::Passing,
        None => Verdict::Refused,
    }
}

/// Verdict on a failed call, with what was said.
pub(crate) fn classify<E>(error: &SdkError<E, HttpResponse>) -> (Verdict, String)
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    let message = describe(error);
    let verdict = match failure_kind(error) {
        FailureKind::Service => {
            let code = error.as_service_error().and_then(|e| e.code());
            let status = error.raw_response().map_or(0, |raw| raw.status().as_u16());
            by_code(code, status)
        }
        FailureKind::Credentials => Verdict::Credentials,
        FailureKind::Request if is_unsigned(&message) => Verdict::Credentials,
        FailureKind::Request => Verdict::Refused,
        FailureKind::Unreachable if is_unsigned(&message) => Verdict::Credentials,
        FailureKind::Unreachable | FailureKind::Timeout | FailureKind::Answer => Verdict::Passing,
    };
    (verdict, message)
}

/// The SDK has no kind of its own for a request that could not be signed because nothing gives credentials.
fn is_unsigned(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["credential", "identity", "auth scheme"]
        .iter()
        .any(|word| message.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_one_verdict() {
        for (code, status, verdict) in [
            (
                Some("ProvisionedThroughputExceededException"),
                400,
                Verdict::Throttled,
            ),
            (Some("ThrottlingException"), 400, Verdict::Throttled),
            (Some("InternalServerError"), 500, Verdict::Passing),
            (Some("ResourceNotFoundException"), 400, Verdict::NoSuchTable),
            (
                Some("UnrecognizedClientException"),
                400,
                Verdict::Credentials,
            ),
            (Some("AccessDeniedException"), 400, Verdict::AccessDenied),
            (Some("ValidationException"), 400, Verdict::Refused),
            (Some("NeverHeardOf"), 400, Verdict::Refused),
            (Some("NeverHeardOf"), 503, Verdict::Passing),
            (None, 502, Verdict::Passing),
            (None, 200, Verdict::Passing),
            (None, 400, Verdict::Passing),
            (None, 404, Verdict::Refused),
        ] {
            assert_eq!(by_code(code, status), verdict, "{code:?} {status}");
        }
    }
}
