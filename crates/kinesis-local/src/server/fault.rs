//! An error as the wire shows it.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::error::Category;

use super::response;
use crate::model::KinesisError;

/// An error answer. All have status 400, as AWS gives for what is the caller's doing.
#[derive(Debug)]
pub(crate) struct Fault {
    name: &'static str,
    message: String,
}

impl Fault {
    pub(crate) fn new(name: &'static str, message: impl Into<String>) -> Self {
        Self {
            name,
            message: message.into(),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationException", message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new("InvalidArgumentException", message)
    }

    pub(crate) fn serialization(message: impl Into<String>) -> Self {
        Self::new("SerializationException", message)
    }
}

impl From<KinesisError> for Fault {
    fn from(error: KinesisError) -> Self {
        Self {
            name: error.kind.name(),
            message: error.message,
        }
    }
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        match error.classify() {
            Category::Data => {
                Self::validation(format!("the request does not fit the operation: {error}"))
            }
            Category::Syntax | Category::Eof | Category::Io => {
                Self::serialization(format!("the request is not JSON: {error}"))
            }
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        tracing::debug!(error = self.name, message = %self.message, "request refused");
        let body = serde_json::json!({ "__type": self.name, "message": self.message }).to_string();
        response::json(StatusCode::BAD_REQUEST, body.into())
    }
}
