//! The one table that says what to do about an error of an object store.
//!
//! Sources: Amazon S3 API reference, "Error responses" (`ErrorResponses.html`), and S3 user guide,
//! "How to prevent object overwrites with conditional writes" (`conditional-writes.html`: 409
//! while another write of the same name is under way); read 2026-11-23.

use std::error::Error;
use std::io;

use aws_credential_types::provider::error::CredentialsError;
use millpond_connector::aws::chain;
use object_store::client::{HttpError, HttpErrorKind};

use super::wire::Answered;
use super::{ApiFailure, Stale};

/// Deepest error chain that is looked through.
const CHAIN_LIMIT: usize = 16;

/// What to do about a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Too many requests: wait, then send the same again.
    Throttled,
    /// The call may or may not have taken effect; wait, then send the same again.
    Transient,
    /// It was not sent, since the ledger was not looked at for too long: look, then send it.
    Unsent,
    /// It was not sent and must not be: the topic partition is another process's.
    Fenced,
    /// Credentials have run out, or cannot be had right now; they may be renewed: wait, then
    /// send the same again.
    Expired,
    /// No try can succeed before somebody changes something; with what to change.
    Fatal(&'static str),
}

const CREDENTIALS: &str =
    "check the credentials: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or the profile";
const PERMISSION: &str = "allow the IAM actions that the sink's README lists on this bucket";
const BUCKET: &str = "create the bucket, or correct `url`";
const REGION: &str = "the bucket is in another region: set `region`";
const CLOCK: &str = "set the clock of this machine";
const CONDITIONS: &str = "the store does not know conditional writes, which the ledger needs";
const REQUEST: &str = "the request is not understood there: check `endpoint` and the version";
const FOLDER: &str = "allow this user to write there, or correct `url`";

/// What to do about an error code of S3 and its HTTP status.
#[must_use]
pub fn classify(code: &str, status: u16) -> Verdict {
    match code {
        "SlowDown"
        | "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequests" => Verdict::Throttled,
        "InternalError"
        | "ServiceUnavailable"
        | "RequestTimeout"
        | "OperationAborted"
        | "ConditionalRequestConflict"
        | "IncompleteBody" => Verdict::Transient,
        "ExpiredToken" | "TokenRefreshRequired" => Verdict::Expired,
        "NoSuchBucket" | "InvalidBucketName" => Verdict::Fatal(BUCKET),
        "PermanentRedirect"
        | "TemporaryRedirect"
        | "Redirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException" => Verdict::Fatal(REGION),
        "RequestTimeTooSkewed" => Verdict::Fatal(CLOCK),
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidToken"
        | "InvalidSecurity"
        | "MissingSecurityHeader"
        | "NotSignedUp" => Verdict::Fatal(CREDENTIALS),
        "AccessDenied" | "AccountProblem" | "AllAccessDisabled" | "UnauthorizedAccess" => {
            Verdict::Fatal(PERMISSION)
        }
        "NotImplemented" => Verdict::Fatal(CONDITIONS),
        _ => match status {
            429 | 503 => Verdict::Throttled,
            408 | 409 | 500.. => Verdict::Transient,
            301 | 302 | 307 | 308 => Verdict::Fatal(REGION),
            401 => Verdict::Fatal(CREDENTIALS),
            403 => Verdict::Fatal(PERMISSION),
            // The service always gives a code: without one, the answer was cut on its way.
            200..=299 | 400 if code.is_empty() => Verdict::Transient,
            _ => Verdict::Fatal(REQUEST),
        },
    }
}

/// What to do about an error of a folder. A full disk is waited for, as the dead-letter file does.
#[must_use]
pub fn classify_io(kind: io::ErrorKind) -> Verdict {
    match kind {
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::InvalidFilename => Verdict::Fatal(FOLDER),
        _ => Verdict::Transient,
    }
}

/// What to do about an error of `object_store`: decided by what caused it.
#[must_use]
pub fn failure(error: &object_store::Error) -> ApiFailure {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    let mut verdict = None;
    for _ in 0..CHAIN_LIMIT {
        let Some(at) = cause else { break };
        if let Some(answered) = at.downcast_ref::<Answered>() {
            return ApiFailure {
                verdict: classify(&answered.code, answered.status),
                message: answered.to_string(),
            };
        }
        if at.is::<Stale>() {
            return ApiFailure::unsent();
        }
        if let Some(error) = at.downcast_ref::<CredentialsError>() {
            return ApiFailure {
                verdict: classify_credentials(error),
                message: format!("AWS credentials cannot be had: {}", chain(error)),
            };
        }
        if let Some(http) = at.downcast_ref::<HttpError>() {
            verdict.get_or_insert(classify_http(http.kind()));
        } else if let Some(io) = at.downcast_ref::<io::Error>() {
            verdict.get_or_insert(classify_io(io.kind()));
        }
        cause = at.source();
    }
    let verdict = verdict.unwrap_or(match error {
        object_store::Error::InvalidPath { .. }
        | object_store::Error::NotSupported { .. }
        | object_store::Error::NotImplemented { .. }
        | object_store::Error::UnknownConfigurationKey { .. } => Verdict::Fatal(REQUEST),
        _ => Verdict::Transient,
    });
    ApiFailure {
        verdict,
        message: chain(error),
    }
}

fn classify_http(kind: HttpErrorKind) -> Verdict {
    match kind {
        // Nothing was sent that could be tried again otherwise: the URL itself is wrong.
        HttpErrorKind::Unknown => Verdict::Fatal(REQUEST),
        _ => Verdict::Transient,
    }
}

fn classify_credentials(error: &CredentialsError) -> Verdict {
    match error {
        CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => {
            Verdict::Fatal(CREDENTIALS)
        }
        _ => Verdict::Expired,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_verdict() {
        for (code, status, verdict) in [
            ("SlowDown", 503, Verdict::Throttled),
            ("", 503, Verdict::Throttled),
            ("", 429, Verdict::Throttled),
            ("InternalError", 500, Verdict::Transient),
            ("InternalError", 200, Verdict::Transient),
            ("RequestTimeout", 400, Verdict::Transient),
            ("ConditionalRequestConflict", 409, Verdict::Transient),
            ("OperationAborted", 409, Verdict::Transient),
            ("", 502, Verdict::Transient),
            ("", 400, Verdict::Transient),
            ("ExpiredToken", 400, Verdict::Expired),
            ("NoSuchBucket", 404, Verdict::Fatal(BUCKET)),
            ("PermanentRedirect", 301, Verdict::Fatal(REGION)),
            ("AuthorizationHeaderMalformed", 400, Verdict::Fatal(REGION)),
            ("RequestTimeTooSkewed", 403, Verdict::Fatal(CLOCK)),
            ("InvalidAccessKeyId", 403, Verdict::Fatal(CREDENTIALS)),
            ("SignatureDoesNotMatch", 403, Verdict::Fatal(CREDENTIALS)),
            ("AccessDenied", 403, Verdict::Fatal(PERMISSION)),
            ("", 403, Verdict::Fatal(PERMISSION)),
            ("NotImplemented", 501, Verdict::Fatal(CONDITIONS)),
            ("EntityTooLarge", 400, Verdict::Fatal(REQUEST)),
            ("SomethingNew", 418, Verdict::Fatal(REQUEST)),
        ] {
            assert_eq!(classify(code, status), verdict, "{code} {status}");
        }
        for (kind, verdict) in [
            (io::ErrorKind::StorageFull, Verdict::Transient),
            (io::ErrorKind::Interrupted, Verdict::Transient),
            (io::ErrorKind::PermissionDenied, Verdict::Fatal(FOLDER)),
            (io::ErrorKind::NotADirectory, Verdict::Fatal(FOLDER)),
        ] {
            assert_eq!(classify_io(kind), verdict, "{kind}");
        }
    }

    #[test]
    fn the_cause_decides_however_deep_it_is() {
        let wrapped = |source: Box<dyn Error + Send + Sync>| object_store::Error::Generic {
            store: "S3",
            source,
        };
        let answered = Answered {
            status: 503,
            code: "SlowDown".into(),
            message: "Please reduce your request rate.".into(),
        };
        let found = failure(&wrapped(Box::new(HttpError::new(
            HttpErrorKind::Unknown,
            answered,
        ))));
        assert_eq!(found.verdict, Verdict::Throttled);
        assert_eq!(
            found.message,
            "service answered `SlowDown` (503): Please reduce your request rate."
        );
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let away = HttpError::new(HttpErrorKind::Connect, refused);
        assert_eq!(
            failure(&wrapped(Box::new(away))).verdict,
            Verdict::Transient
        );
        let none = CredentialsError::not_loaded("none set");
        assert_eq!(
            failure(&wrapped(Box::new(none))).verdict,
            Verdict::Fatal(CREDENTIALS)
        );
        let late = CredentialsError::provider_timed_out(std::time::Duration::from_secs(5));
        assert_eq!(failure(&wrapped(Box::new(late))).verdict, Verdict::Expired);
    }
}
