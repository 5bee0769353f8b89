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

/// Whose signature a request bears.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signer {
    /// Id of the access key.
    pub access_key_id: String,
    /// The session token that belongs to it, if it is a temporary one.
    pub session_token: Option<String>,
}

impl Signer {
    /// What `Authorization` and `X-Amz-Security-Token` say (AWS signature version 4). The signature itself is not
    /// checked. `None` for a request that bears none.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let (_, credential) = text("authorization")?.split_once("Credential=")?;
        let (access_key_id, _) = credential.split_once('/')?;
        Some(Self {
            access_key_id: access_key_id.to_owned(),
            session_token: text("x-amz-security-token").map(str::to_owned),
        })
    }
}
