//! Failed calls of AWS in words: the one place for every adapter and every command.

use std::error::Error;
use std::fmt::Write as _;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// Deepest error chain that is put into words.
const CHAIN_LIMIT: usize = 16;

/// At which step a call failed, independent of the service's own error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// No connection, or it broke before the answer.
    Unreachable,
    /// One of the time limits ran out.
    Timeout,
    /// Credentials could not be resolved.
    Credentials,
    /// The service answered with an error.
    Service,
    /// The answer could not be read.
    Answer,
    /// The request could not be built.
    Request,
}

impl FailureKind {
    /// True when the same call can succeed later without a change by anyone.
    ///
    /// [`FailureKind::Service`] depends on the service's error code and is answered with false.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Unreachable | Self::Timeout | Self::Answer)
    }
}

/// At which step a call failed.
pub fn failure_kind<E, R>(error: &SdkError<E, R>) -> FailureKind
where
    E: Error + 'static,
    R: std::fmt::Debug + 'static,
{
    if sources(error).any(|source| source.is::<CredentialsError>()) {
        return FailureKind::Credentials;
    }
    match error {
        SdkError::TimeoutError(_) => FailureKind::Timeout,
        SdkError::DispatchFailure(failure) if failure.is_timeout() => FailureKind::Timeout,
        SdkError::DispatchFailure(failure) if failure.is_user() => FailureKind::Request,
        SdkError::DispatchFailure(_) => FailureKind::Unreachable,
        SdkError::ServiceError(_) => FailureKind::Service,
        SdkError::ResponseError(_) => FailureKind::Answer,
        _ => FailureKind::Request,
    }
}

/// A failed call in words, without a dump of the request or the answer.
pub fn describe<E, R>(error: &SdkError<E, R>) -> String
where
    E: Error + ProvideErrorMetadata + 'static,
    R: std::fmt::Debug + 'static,
{
    match failure_kind(error) {
        FailureKind::Credentials => format!("AWS credentials cannot be had: {}", causes(error)),
        FailureKind::Timeout => format!("no answer in time: {}", causes(error)),
        FailureKind::Unreachable => format!("endpoint cannot be reached: {}", causes(error)),
        FailureKind::Answer => format!("answer cannot be read: {}", causes(error)),
        FailureKind::Request => format!("request cannot be built: {}", causes(error)),
        FailureKind::Service => {
            let Some(service) = error.as_service_error() else {
                return causes(error);
            };
            match (service.code(), service.message()) {
                (Some(code), Some(message)) => format!("service answered `{code}`: {message}"),
                (Some(code), None) => format!("service answered `{code}`"),
                (None, _) => format!("service answered with an error: {}", chain(service)),
            }
        }
    }
}

fn sources<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| {
        let error: &'a (dyn Error + 'static) = *error;
        error.source()
    })
    .take(CHAIN_LIMIT)
}

/// The error and what caused it, each said once.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    join(sources(error))
}

/// What caused the error; the error itself only when nothing did.
fn causes(error: &(dyn Error + 'static)) -> String {
    match error.source() {
        Some(source) => chain(source),
        None => chain(error),
    }
}

fn join<'a>(errors: impl Iterator<Item = &'a (dyn Error + 'static)>) -> String {
    let mut said = String::new();
    for error in errors {
        let text = error.to_string();
        if text.is_empty() || said.contains(&text) {
            continue;
        }
        if !said.is_empty() {
            said.push_str(": ");
        }
        let _ = write!(said, "{text}");
    }
    said
}

#[cfg(test)]
mod tests {
    use std::io;

    use aws_smithy_runtime_api::client::result::ConnectorError;
    use aws_smithy_types::error::ErrorMetadata;

    use super::*;

    type Failure = SdkError<ErrorMetadata, String>;

    fn io_error(text: &str) -> Box<io::Error> {
        Box::new(io::Error::other(text.to_owned()))
    }

    #[test]
    fn every_step_has_its_kind_and_its_words() {
        let service = ErrorMetadata::builder()
            .code("ResourceNotFoundException")
            .message("no such table")
            .build();
        let table: [(Failure, FailureKind, bool, &str); 9] = [
            (
                SdkError::timeout_error(io_error("20 s are over")),
                FailureKind::Timeout,
                true,
                "no answer in time: 20 s are over",
            ),
            (
                SdkError::dispatch_failure(ConnectorError::timeout(io_error("5 s are over"))),
                FailureKind::Timeout,
                true,
                "no answer in time: timeout: 5 s are over",
            ),
            (
                SdkError::dispatch_failure(ConnectorError::io(io_error("connection refused"))),
                FailureKind::Unreachable,
                true,
                "endpoint cannot be reached: io error: connection refused",
            ),
            (
                SdkError::dispatch_failure(ConnectorError::user(io_error("no host"))),
                FailureKind::Request,
                false,
                "request cannot be built: user error: no host",
            ),
            (
                SdkError::construction_failure(io_error("no table name")),
                FailureKind::Request,
                false,
                "request cannot be built: no table name",
            ),
            (
                SdkError::construction_failure(CredentialsError::not_loaded("none set")),
                FailureKind::Credentials,
                false,
                "AWS credentials cannot be had: the credential provider was not enabled: none set",
            ),
            (
                SdkError::response_error(io_error("not JSON"), "<html>".to_owned()),
                FailureKind::Answer,
                true,
                "answer cannot be read: not JSON",
            ),
            (
                SdkError::service_error(service, String::new()),
                FailureKind::Service,
                false,
                "service answered `ResourceNotFoundException`: no such table",
            ),
            (
                SdkError::service_error(ErrorMetadata::builder().build(), String::new()),
                FailureKind::Service,
                false,
                "service answered with an error: Error",
            ),
        ];
        for (error, kind, transient, words) in table {
            assert_eq!(failure_kind(&error), kind, "{words}");
            assert_eq!(kind.is_transient(), transient, "{words}");
            assert_eq!(describe(&error), words);
        }
    }
}
