//! What is known of a request without reading its body.

use hyper::HeaderMap;

/// The service behind the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Amazon Kinesis Data Streams, JSON 1.1.
    Kinesis,
    /// Amazon DynamoDB, JSON 1.0.
    DynamoDb,
}

impl Service {
    /// Content type of the service's answers.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Kinesis => "application/x-amz-json-1.1",
            Self::DynamoDb => "application/x-amz-json-1.0",
        }
    }

    /// An error code as the service writes it into `__type`.
    #[must_use]
    pub fn error_type(self, code: &str) -> String {
        match self {
            Self::Kinesis => code.to_owned(),
            // Errors of every service alike come from another name space than its own.
            Self::DynamoDb if COMMON.contains(&code) => {
                format!("com.amazon.coral.service#{code}")
            }
            Self::DynamoDb => format!("com.amazonaws.dynamodb.v20120810#{code}"),
        }
    }
}

const COMMON: [&str; 5] = [
    "ExpiredTokenException",
    "UnrecognizedClientException",
    "InvalidSignatureException",
    "InternalFailure",
    "ServiceUnavailable",
];

/// The operation of a request: what follows the last dot of `X-Amz-Target`. Empty without one.
#[must_use]
pub fn operation(headers: &HeaderMap) -> String {
    let target = headers
        .get("x-amz-target")
        .and_then(|target| target.to_str().ok())
        .unwrap_or_default();
    target
        .rsplit_once('.')
        .map_or_else(String::new, |(_, operation)| operation.to_owned())
}
