//! The faults, and the answers that the services give in place of their own.
//!
//! Sources, read 2026-11-26: Kinesis API reference, `GetRecords`, `GetShardIterator`, `ListShards` and "Common
//! errors"; DynamoDB API reference, `ThrottlingReason`, `BatchWriteItem`, `PutItem`; DynamoDB developer
//! guide, "Error handling with DynamoDB" and "Throttling exceptions".

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use crate::service::Service;

/// Faults of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Throttling exceptions, with each throttling reason.
    Throttled,
    /// Status 500, with and without a body of the service's own.
    ServerError,
    /// Status 503, with and without a body of the service's own.
    Unavailable,
    /// Some rows of a batch are not written.
    Unprocessed,
    /// Half an answer, then silence.
    Stalled,
    /// The connection is reset, before the request took effect or within its answer.
    Reset,
    /// The request is taken and never answered, with or without its effect.
    HalfOpen,
    /// The answer ends early: on the connection, inside its JSON, or before its first byte.
    Truncated,
    /// The answer comes in small pieces.
    Slow,
    /// The request takes effect, its answer is lost.
    LostAnswer,
    /// The session token has expired, for several requests in a row.
    ExpiredCredentials,
    /// The shard iterator has expired.
    ExpiredIterator,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 12] = [
        Self::Throttled,
        Self::ServerError,
        Self::Unavailable,
        Self::Unprocessed,
        Self::Stalled,
        Self::Reset,
        Self::HalfOpen,
        Self::Truncated,
        Self::Slow,
        Self::LostAnswer,
        Self::ExpiredCredentials,
        Self::ExpiredIterator,
    ];
}

/// What becomes of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is not forwarded; this is its answer.
    Refuse(Refusal),
    /// Of a batch, the rows whose bit is set (by position, modulo 64) are forwarded; at least one
    /// row is, and at least one is not. A batch of one row is throttled.
    Unprocessed(u64),
    /// It is forwarded, and the connection is closed without an answer.
    LoseAnswer,
    /// It is forwarded, and this is its answer all the same.
    LoseAnswerTo(Refusal),
    /// The connection is reset; it is not forwarded.
    ResetBefore,
    /// It is forwarded, and the connection is reset in the middle of the answer.
    ResetWithin,
    /// The connection stays open, and nothing comes.
    HalfOpen {
        /// Whether the request takes effect.
        forwarded: bool,
    },
    /// It is forwarded, half of the answer comes, and then nothing on an open connection.
    Stall,
    /// It is forwarded, and the answer ends early.
    Truncate(Cut),
    /// It is forwarded, and the answer takes about this long.
    Slow(Duration),
}

/// How an answer is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The connection is closed before the announced length.
    Connection,
    /// The announced length is that of the cut answer, so only the JSON is broken.
    Json,
    /// The status line and the headers are whole, and the body is empty.
    Empty,
}

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Content type of the body.
    pub content_type: &'static str,
    /// Body.
    pub body: Bytes,
}

impl Refusal {
    /// An error of the service's own.
    #[must_use]
    pub fn of(service: Service, status: u16, code: &str, message: &str) -> Self {
        let body = json!({ "__type": service.error_type(code), "message": message });
        Self::json(service, status, &body)
    }

    pub(crate) fn json(service: Service, status: u16, body: &serde_json::Value) -> Self {
        Self {
            status,
            content_type: service.content_type(),
            body: body.to_string().into(),
        }
    }

    /// An error of something between us and the service.
    fn of_gateway(status: u16, body: &'static str) -> Self {
        Self {
            status,
            content_type: "text/html",
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    /// The session token has expired.
    #[must_use]
    pub fn expired_token(service: Service) -> Self {
        Self::of(
            service,
            400,
            "ExpiredTokenException",
            "The security token included in the request is expired",
        )
    }
}

const EXCEEDED: &str = "ProvisionedThroughputExceededException";

/// A throttling exception; `variant` chooses which, with which reason.
#[must_use]
pub fn throttled(service: Service, operation: &str, variant: u64) -> Refusal {
    match service {
        Service::Kinesis => {
            let (code, message) = match (operation, variant % 4) {
                ("ListShards" | "DescribeStreamSummary", _) => {
                    ("LimitExceededException", "Rate exceeded for this stream")
                }
                ("GetRecords", 0) => (
                    "KMSThrottlingException",
                    "The request was denied due to request throttling by KMS",
                ),
                (_, 1) => ("ThrottlingException", "Rate exceeded"),
                _ => (EXCEEDED, "Rate exceeded for shard"),
            };
            Refusal::of(service, 400, code, message)
        }
        Service::DynamoDb => dynamodb_throttle(operation, variant),
    }
}

/// Throttling reasons: resource type, operation and limit, as one word.
const LIMITS: [&str; 4] = [
    "ProvisionedThroughputExceeded",
    "KeyRangeThroughputExceeded",
    "MaxOnDemandThroughputExceeded",
    "AccountLimitExceeded",
];

fn dynamodb_throttle(operation: &str, variant: u64) -> Refusal {
    let service = Service::DynamoDb;
    let access = match operation {
        "GetItem" | "BatchGetItem" | "Query" | "Scan" => "Read",
        "PutItem" | "UpdateItem" | "DeleteItem" | "BatchWriteItem" => "Write",
        _ => return Refusal::of(service, 400, "ThrottlingException", "Rate exceeded"),
    };
    let limit = LIMITS[(variant % 4) as usize];
    let (kind, resource) = if (variant / 4).is_multiple_of(2) {
        ("Table", "table/events")
    } else {
        ("Index", "table/events/index/by-time")
    };
    // The same limit has another exception in each capacity mode, and its own list's name.
    let (code, list) = match (limit, variant / 8 % 2) {
        ("ProvisionedThroughputExceeded", _) | ("KeyRangeThroughputExceeded", 0) => {
            (EXCEEDED, "ThrottlingReasons")
        }
        ("AccountLimitExceeded", 0) => ("RequestLimitExceeded", "ThrottlingReasons"),
        _ => ("ThrottlingException", "throttlingReasons"),
    };
    let body = json!({
        "__type": service.error_type(code),
        "message": "Throughput exceeds the current capacity of your table or index",
        list: [{
            "reason": format!("{kind}{access}{limit}"),
            "resource": format!("arn:aws:dynamodb:us-east-1:000000000000:{resource}"),
        }],
    });
    Refusal::json(service, 400, &body)
}

/// A status 500; `variant` chooses whose.
#[must_use]
pub fn server_error(service: Service, variant: u64) -> Refusal {
    let code = match (service, variant % 3) {
        (_, 0) => return Refusal::of_gateway(500, ""),
        (Service::DynamoDb, _) => "InternalServerError",
        (Service::Kinesis, 1) => "InternalFailure",
        (Service::Kinesis, _) => "InternalFailureException",
    };
    Refusal::of(service, 500, code, "Internal server error")
}

/// A status 503; `variant` chooses whose.
#[must_use]
pub fn unavailable(service: Service, variant: u64) -> Refusal {
    match variant % 3 {
        0 => Refusal::of_gateway(503, "<html><body>Service Unavailable</body></html>"),
        1 => Refusal::of_gateway(503, ""),
        _ => Refusal::of(
            service,
            503,
            "ServiceUnavailable",
            "The service is temporarily unavailable",
        ),
    }
}
