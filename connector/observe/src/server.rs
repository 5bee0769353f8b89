//! The HTTP server: metrics, probes, status, and a page for people, on one port.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::process::Process;
use crate::{exposition, status};

/// The page loads nothing from elsewhere, and nothing else may make it.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'";

const PAGE: &str = include_str!("page.html");

/// The running server; it ends with this value.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens at `address` (`host:port`; port 0 takes a free one).
    ///
    /// # Errors
    /// The address cannot be had.
    pub async fn bind(address: &str, process: Arc<Process>) -> Result<Self> {
        let asked = || format!("cannot listen on `{address}` for metrics and status");
        let listener = TcpListener::bind(address).await.with_context(asked)?;
        let address = listener.local_addr().with_context(asked)?;
        let router = Router::new()
            .route("/", get(page))
            .route("/status", get(status_document))
            .route("/metrics", get(metrics))
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .with_state(process);
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::warn!(%error, "metrics and status are not served any more");
            }
        });
        tracing::info!(page = %format!("http://{address}/"), "metrics and status");
        Ok(Self { address, task })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn page() -> Response {
    let headers: [(HeaderName, &str); 3] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, PAGE).into_response()
}

async fn status_document(State(process): State<Arc<Process>>) -> Response {
    let document = status::document(&process.snapshot().await);
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, format!("{document}\n")).into_response()
}

async fn metrics(State(process): State<Arc<Process>>) -> Response {
    match exposition::text(Arc::new(process.snapshot().await)) {
        Ok(text) => ([(header::CONTENT_TYPE, exposition::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn ready(State(process): State<Arc<Process>>) -> Response {
    match process.not_ready() {
        None => "ready\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}
