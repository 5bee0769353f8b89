//! One table: what a failed call means for what we do next.
//!
//! Pages cited were read 2026-11-23. "Common errors" is the page of that name of the Kinesis API reference.

use std::time::Duration;

/// The call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `DescribeStreamSummary`.
    Describe,
    /// `ListShards`.
    ListShards,
    /// `GetShardIterator`.
    ShardIterator,
    /// `GetRecords`.
    Read,
    /// `DescribeStreamConsumer`.
    DescribeConsumer,
    /// `RegisterStreamConsumer`.
    RegisterConsumer,
    /// `SubscribeToShard`.
    Subscribe,
}

impl Operation {
    /// The call's name in the API reference.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Describe => "DescribeStreamSummary",
            Self::ListShards => "ListShards",
            Self::ShardIterator => "GetShardIterator",
            Self::Read => "GetRecords",
            Self::DescribeConsumer => "DescribeStreamConsumer",
            Self::RegisterConsumer => "RegisterStreamConsumer",
            Self::Subscribe => "SubscribeToShard",
        }
    }

    /// True for the calls of enhanced fan-out.
    #[must_use]
    pub const fn is_fan_out(self) -> bool {
        matches!(
            self,
            Self::DescribeConsumer | Self::RegisterConsumer | Self::Subscribe
        )
    }
}

/// At which step a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedStep {
    /// No connection, or it broke.
    Connection,
    /// No answer in time.
    Timeout,
    /// Credentials could not be had.
    Credentials,
    /// The request could not be built.
    Request,
    /// The answer could not be read.
    Answer,
    /// The service refused.
    Service,
}

/// A failed call, reduced to what decides.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// At which step it failed.
    pub step: FailedStep,
    /// The service's error code, without a namespace.
    pub code: Option<String>,
    /// HTTP status of the answer.
    pub status: Option<u16>,
    /// How long the service asks us to wait.
    pub retry_after: Option<Duration>,
    /// In words.
    pub message: String,
}

/// What to do about a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Too much was asked for: wait, for at least as long as the service said.
    Throttled(Option<Duration>),
    /// The same call can succeed later.
    Retry,
    /// The iterator or page token is too old: take a new one and go on.
    Refresh,
    /// No repetition helps.
    Fatal(Fatal),
}

/// Why no repetition helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fatal {
    /// The stream or the shard does not exist.
    NotFound,
    /// Credentials are missing, wrong, expired or not allowed to sign in. Of credentials that worked
    /// before it is not final: they may be renewed (`retry`).
    Credentials,
    /// The credentials are valid, but the call is not allowed to them.
    Permission,
    /// The key that encrypts the stream cannot be used.
    EncryptionKey,
    /// The call's arguments were refused.
    Refused,
}

/// The table.
#[must_use]
pub fn classify(operation: Operation, failure: &Failure) -> Verdict {
    match failure.step {
        // The request may not have arrived. All calls but one only read, and a consumer that was registered
        // all the same is found: asking again is safe.
        FailedStep::Connection | FailedStep::Timeout | FailedStep::Answer => Verdict::Retry,
        FailedStep::Credentials => Verdict::Fatal(Fatal::Credentials),
        FailedStep::Request => Verdict::Fatal(Fatal::Refused),
        // The service always gives a code: without one, the answer was cut on its way.
        FailedStep::Service if failure.code.is_none() && failure.status == Some(400) => {
            Verdict::Retry
        }
        FailedStep::Service => by_code(operation, failure)
            .unwrap_or_else(|| by_status(failure.status, failure.retry_after)),
    }
}

fn by_code(operation: Operation, failure: &Failure) -> Option<Verdict> {
    let throttled = Verdict::Throttled(failure.retry_after);
    let verdict = match failure.code.as_deref()? {
        // API reference, GetRecords and GetShardIterator: the request rate or the data is too much
        // for the throughput of the shard.
        "ProvisionedThroughputExceededException" => throttled,
        // API reference, ListShards, DescribeStreamSummary, SubscribeToShard and others: calls a second.
        // RegisterStreamConsumer: also the number of consumers (`consumer.rs`).
        "LimitExceededException" => throttled,
        // API reference, GetRecords: KMS limits requests a second.
        "KMSThrottlingException" => throttled,
        // Common errors.
        "ThrottlingException"
        | "Throttling"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "SlowDown" => throttled,
        // API reference, GetRecords: an iterator lives for five minutes.
        "ExpiredIteratorException" => Verdict::Refresh,
        // API reference, ListShards: a token lives for 300 seconds.
        "ExpiredNextTokenException" => Verdict::Refresh,
        // API reference, ListShards: the stream is not ACTIVE; it may become so. SubscribeToShard: the consumer is
        // not ACTIVE yet, or subscribed to the shard less than five seconds ago.
        "ResourceInUseException" => Verdict::Retry,
        // API reference, GetRecords: processing failed for an unknown reason. Common errors:
        // InternalFailure, ServiceUnavailable.
        "InternalFailureException"
        | "InternalFailure"
        | "InternalServerError"
        | "ServiceUnavailable"
        | "ServiceUnavailableException" => Verdict::Retry,
        // API reference, all calls.
        "ResourceNotFoundException" => Verdict::Fatal(Fatal::NotFound),
        // API reference, all calls; Common errors, NotAuthorized.
        "AccessDeniedException" | "AccessDenied" | "NotAuthorized" => {
            Verdict::Fatal(Fatal::Permission)
        }
        // Common errors: temporary credentials have expired, or clocks differ; the key id is unknown, the
        // signature does not fit, or there is none.
        "ExpiredTokenException"
        | "ExpiredToken"
        | "RequestExpired"
        | "RequestTimeTooSkewed"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "OptInRequired" => Verdict::Fatal(Fatal::Credentials),
        // API reference, GetRecords: KMS refuses the key; a human must act.
        "KMSAccessDeniedException"
        | "KMSDisabledException"
        | "KMSInvalidStateException"
        | "KMSNotFoundException"
        | "KMSOptInRequired" => Verdict::Fatal(Fatal::EncryptionKey),
        // API reference: an argument exceeds its restrictions. For a read the only argument that can be
        // wrong is the iterator, which a new one from the last position replaces.
        "InvalidArgumentException" if operation == Operation::Read => Verdict::Refresh,
        "InvalidArgumentException" | "ValidationException" | "ValidationError" => {
            Verdict::Fatal(Fatal::Refused)
        }
        _ => return None,
    };
    Some(verdict)
}

/// For codes that the table does not know: the meaning of HTTP itself (RFC 9110, section 15; RFC 6585).
fn by_status(status: Option<u16>, retry_after: Option<Duration>) -> Verdict {
    match status {
        Some(429) => Verdict::Throttled(retry_after),
        Some(400..500) => Verdict::Fatal(Fatal::Refused),
        _ => Verdict::Retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(code: Option<&str>, status: u16) -> Failure {
        Failure {
            step: FailedStep::Service,
            code: code.map(str::to_owned),
            status: Some(status),
            retry_after: Some(Duration::from_secs(2)),
            message: "m".to_owned(),
        }
    }

    #[test]
    fn table_by_code() {
        use Operation::{Describe, ListShards, Read, RegisterConsumer, ShardIterator, Subscribe};
        let throttled = Verdict::Throttled(Some(Duration::from_secs(2)));
        let fatal = Verdict::Fatal;
        for (operation, code, status, verdict) in [
            (
                Read,
                "ProvisionedThroughputExceededException",
                400,
                throttled,
            ),
            (
                ShardIterator,
                "ProvisionedThroughputExceededException",
                400,
                throttled,
            ),
            (ListShards, "LimitExceededException", 400, throttled),
            (Describe, "LimitExceededException", 400, throttled),
            (Read, "KMSThrottlingException", 400, throttled),
            (Read, "ThrottlingException", 400, throttled),
            (Read, "ExpiredIteratorException", 400, Verdict::Refresh),
            (Read, "InvalidArgumentException", 400, Verdict::Refresh),
            (
                ListShards,
                "ExpiredNextTokenException",
                400,
                Verdict::Refresh,
            ),
            (ListShards, "ResourceInUseException", 400, Verdict::Retry),
            (Read, "InternalFailureException", 500, Verdict::Retry),
            (Read, "ServiceUnavailable", 503, Verdict::Retry),
            (
                Read,
                "ExpiredTokenException",
                400,
                fatal(Fatal::Credentials),
            ),
            (
                Describe,
                "ResourceNotFoundException",
                400,
                fatal(Fatal::NotFound),
            ),
            (
                Read,
                "ResourceNotFoundException",
                400,
                fatal(Fatal::NotFound),
            ),
            (Read, "AccessDeniedException", 400, fatal(Fatal::Permission)),
            (
                Describe,
                "UnrecognizedClientException",
                400,
                fatal(Fatal::Credentials),
            ),
            (
                Describe,
                "InvalidSignatureException",
                400,
                fatal(Fatal::Credentials),
            ),
            (
                Describe,
                "MissingAuthenticationTokenException",
                400,
                fatal(Fatal::Credentials),
            ),
            (
                Read,
                "KMSDisabledException",
                400,
                fatal(Fatal::EncryptionKey),
            ),
            (
                ShardIterator,
                "InvalidArgumentException",
                400,
                fatal(Fatal::Refused),
            ),
            (
                ListShards,
                "ValidationException",
                400,
                fatal(Fatal::Refused),
            ),
            (Subscribe, "ResourceInUseException", 400, Verdict::Retry),
            (Subscribe, "ResourceInUseException", 500, Verdict::Retry),
            (Subscribe, "LimitExceededException", 400, throttled),
            (
                Subscribe,
                "ResourceNotFoundException",
                400,
                fatal(Fatal::NotFound),
            ),
            (
                Subscribe,
                "InvalidArgumentException",
                400,
                fatal(Fatal::Refused),
            ),
            (RegisterConsumer, "LimitExceededException", 400, throttled),
            (
                RegisterConsumer,
                "AccessDeniedException",
                400,
                fatal(Fatal::Permission),
            ),
            (Read, "NeverHeardOf", 500, Verdict::Retry),
            (Read, "NeverHeardOf", 429, throttled),
            (Read, "NeverHeardOf", 403, fatal(Fatal::Refused)),
        ] {
            let found = classify(operation, &service(Some(code), status));
            assert_eq!(found, verdict, "{} {code} {status}", operation.name());
        }
        for status in [200, 400, 502] {
            assert_eq!(classify(Read, &service(None, status)), Verdict::Retry);
        }
        assert_eq!(classify(Read, &service(None, 404)), fatal(Fatal::Refused));
    }

    #[test]
    fn table_by_step() {
        for (step, verdict) in [
            (FailedStep::Connection, Verdict::Retry),
            (FailedStep::Timeout, Verdict::Retry),
            (FailedStep::Answer, Verdict::Retry),
            (FailedStep::Credentials, Verdict::Fatal(Fatal::Credentials)),
            (FailedStep::Request, Verdict::Fatal(Fatal::Refused)),
        ] {
            let failure = Failure {
                step,
                ..service(None, 0)
            };
            assert_eq!(classify(Operation::Read, &failure), verdict, "{step:?}");
        }
    }
}
