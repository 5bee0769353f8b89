//! HTTP for `object_store` on the client that all other AWS calls use: one TLS stack, one proxy setting.
//!
//! `object_store` tells errors of a service apart by their status alone; here its code is read, too,
//! and kept for [`super::classify`].

use std::error::Error;
use std::sync::Arc;

use async_trait::async_trait;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::{
    HttpConnector as _, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use millpond_connector::aws::{CONNECT_TIMEOUT, READ_TIMEOUT};
use millpond_sink::claim::Claim;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use tokio::time::timeout;

use super::Stale;
use crate::limits::{CALL_TIMEOUT, MAX_ANSWER_BYTES};

/// Longest part of a service's own words that is kept.
const MAX_MESSAGE_BYTES: usize = 500;

/// A service answered with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// HTTP status.
    pub status: u16,
    /// Its code, empty when it gave none.
    pub code: String,
    /// Its words.
    pub message: String,
}

impl std::fmt::Display for Answered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            status,
            code,
            message,
        } = self;
        match (code.as_str(), message.as_str()) {
            ("", _) => write!(f, "service answered with status {status}"),
            (code, "") => write!(f, "service answered `{code}` ({status})"),
            (code, message) => write!(f, "service answered `{code}` ({status}): {message}"),
        }
    }
}

impl Error for Answered {}

/// What ran out of time.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {} s", CALL_TIMEOUT.as_secs())]
struct Late;

/// Calls over the AWS SDK's HTTP client.
#[derive(Debug, Clone)]
pub struct Wire(SharedHttpConnector);

impl Wire {
    /// A client with a pool of connections; reads the proxy settings of the environment.
    #[must_use]
    pub fn new() -> Self {
        let settings = HttpConnectorSettings::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // Counts from the first byte sent: an object is on its way meanwhile.
            .read_timeout(READ_TIMEOUT.max(CALL_TIMEOUT))
            .build();
        let connector = Connector::builder()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .connector_settings(settings)
            .proxy_config(ProxyConfig::from_env())
            .build();
        Self(SharedHttpConnector::new(connector))
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        // It is signed by now: a process that is paused after this sends what has an end.
        if let Some(claim) = request.extensions().get::<Arc<Claim>>()
            && !claim.is_fresh()
        {
            return Err(HttpError::new(HttpErrorKind::Unknown, Stale));
        }
        let request = request.map(SdkBody::from_body_1_x);
        let request = request.try_into().map_err(broken)?;
        let answer = self.0.call(request).await.map_err(unsent)?;
        let answer = answer.try_into_http1x().map_err(broken)?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        let body = body
            .map_err(|error| HttpError::new_boxed(HttpErrorKind::Interrupted, error))?
            .to_bytes();
        match answered(parts.status.as_u16(), &body) {
            Some(error) => Err(HttpError::new(HttpErrorKind::Unknown, error)),
            None => Ok(HttpResponse::from_parts(
                parts,
                HttpResponseBody::from(body),
            )),
        }
    }
}

impl Default for Wire {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl HttpService for Wire {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        match timeout(CALL_TIMEOUT, self.send(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(HttpError::new(HttpErrorKind::Timeout, Late)),
        }
    }
}

impl HttpConnector for Wire {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

/// The error in an answer. What `object_store` makes something of is left to it: no such object,
/// a condition that does not hold.
fn answered(status: u16, body: &Bytes) -> Option<Answered> {
    if matches!(status, 200..=299 | 304 | 412) {
        return None;
    }
    let text = String::from_utf8_lossy(body);
    let code = element(&text, "Code");
    if status == 404 && code != "NoSuchBucket" {
        return None;
    }
    Some(Answered {
        status,
        code: code.to_owned(),
        message: element(&text, "Message").to_owned(),
    })
}

/// Text of the first XML element of this name; empty when there is none.
fn element<'a>(text: &'a str, name: &str) -> &'a str {
    let inner = || {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        let (inner, _) = rest.split_once(&format!("</{name}>"))?;
        Some(&inner[..inner.floor_char_boundary(MAX_MESSAGE_BYTES)])
    };
    inner().unwrap_or_default()
}

fn broken(error: impl Error + Send + Sync + 'static) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, error)
}

fn unsent(error: ConnectorError) -> HttpError {
    let kind = if error.is_user() {
        HttpErrorKind::Unknown
    } else if error.is_timeout() {
        HttpErrorKind::Timeout
    } else {
        HttpErrorKind::Request
    };
    HttpError::new(kind, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_read_and_what_is_none_is_passed_on() {
        let body = |code: &str| {
            Bytes::from(format!(
                "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>words</Message></Error>"
            ))
        };
        for (status, code) in [(200, "SlowDown"), (304, ""), (404, "NoSuchKey"), (412, "")] {
            assert_eq!(answered(status, &body(code)), None, "{status} {code}");
        }
        for (status, code) in [(404, "NoSuchBucket"), (503, "SlowDown"), (409, "Conflict")] {
            let error = answered(status, &body(code)).expect("an error");
            assert_eq!((error.status, error.code.as_str()), (status, code));
            assert_eq!(error.message, "words");
        }
        let cut = answered(500, &Bytes::from_static(b"<Error><Code>Inter")).expect("an error");
        assert_eq!((cut.code.as_str(), cut.message.as_str()), ("", ""));
        assert_eq!(cut.to_string(), "service answered with status 500");
        assert_eq!(
            element(&format!("<M>{}</M>", "ü".repeat(900)), "M").len(),
            500
        );
    }
}
