//! Traces for a collector, by OTLP over HTTP: on where the usual variables name an endpoint.
//!
//! The spans are those of Millpond's own crates (flushes, take-overs, reads, appends), down to the level `debug`,
//! whatever `RUST_LOG` says of the log. The exporter reads the other `OTEL_EXPORTER_OTLP_*` variables itself.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use axum::body::Bytes;
use axum::http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use millpond_connector::logging::ExtraLayer;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Runtime;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;

/// The variables that turn traces on, the first one that is set.
pub const ENDPOINT_VARIABLES: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

/// Service name unless `OTEL_SERVICE_NAME` gives one.
const SERVICE: &str = "millpond";

/// A collector that takes longer is left.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// More than any answer of a collector has.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Traces on their way to a collector; what is left is sent at the end.
pub struct Traces {
    provider: SdkTracerProvider,
    // Ends after the provider, which sends through it.
    _runtime: Runtime,
}

impl Traces {
    /// Traces as the environment of the process wants them; `None` without an endpoint.
    ///
    /// # Errors
    /// An endpoint that is none, or that is not reached by plain HTTP.
    pub fn from_process() -> Result<Option<Self>> {
        Self::from(|name| std::env::var(name).ok())
    }

    fn from(value: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let set = ENDPOINT_VARIABLES.iter().find_map(|name| {
            let value = value(name).filter(|value| !value.is_empty())?;
            Some((*name, value))
        });
        let Some((name, endpoint)) = set else {
            return Ok(None);
        };
        if !endpoint.starts_with("http://") {
            bail!(
                "`{name}` is `{endpoint}`: traces go by plain HTTP, for example to a collector on this machine at `http://127.0.0.1:4318`; unset it to do without traces"
            );
        }
        let endpoint = if name == ENDPOINT_VARIABLES[0] {
            endpoint
        } else {
            format!("{}/v1/traces", endpoint.trim_end_matches('/'))
        };
        let service = value("OTEL_SERVICE_NAME").unwrap_or_else(|| SERVICE.to_owned());
        let traces = Self::to(&endpoint, service);
        traces
            .with_context(|| format!("`{name}` is no endpoint for traces"))
            .map(Some)
    }

    fn to(endpoint: &str, service: String) -> Result<Self> {
        // The exporter's thread waits for its calls, so they need a runtime beside it.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("traces")
            .enable_all()
            .build()
            .context("cannot start the runtime of the traces")?;
        let sender = Sender {
            client: Client::builder(TokioExecutor::new()).build_http(),
            runtime: runtime.handle().clone(),
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(sender)
            .with_endpoint(endpoint)
            .build()?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(Resource::builder().with_service_name(service).build())
            .build();
        Ok(Self {
            provider,
            _runtime: runtime,
        })
    }

    /// What turns spans into traces.
    #[must_use]
    pub fn layer(&self) -> ExtraLayer {
        let tracer = self.provider.tracer(SERVICE);
        let ours = Targets::new().with_target(SERVICE, LevelFilter::DEBUG);
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_filter(ours)
            .boxed()
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").finish_non_exhaustive()
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::debug!(%error, "the last traces were not sent");
        }
    }
}

/// Sends requests on a runtime of their own.
#[derive(Clone)]
struct Sender {
    client: Client<HttpConnector, Full<Bytes>>,
    runtime: tokio::runtime::Handle,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let answer = client.request(request.map(Full::new)).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?;
            Ok::<_, HttpError>(Response::from_parts(head, body.to_bytes()))
        });
        let limit = self
            .runtime
            .spawn(async move { tokio::time::timeout(ANSWER_LIMIT, sent).await });
        limit.await???
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::routing::post;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// A collector that hands on what it is sent.
    async fn collector() -> (String, mpsc::UnboundedReceiver<Bytes>) {
        let (told, sent) = mpsc::unbounded_channel();
        let router = Router::new()
            .route(
                "/v1/traces",
                post(
                    async |State(told): State<mpsc::UnboundedSender<Bytes>>, body: Bytes| {
                        let _ = told.send(body);
                        StatusCode::OK
                    },
                ),
            )
            .with_state(told);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        (format!("http://{address}/v1/traces"), sent)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn spans_of_ours_reach_a_collector() {
        let (endpoint, mut sent) = collector().await;
        let traces = Traces::to(&endpoint, SERVICE.into()).expect("well formed");
        let subscriber = tracing_subscriber::registry().with(traces.layer());
        tracing::subscriber::with_default(subscriber, || {
            let _ours =
                tracing::debug_span!(target: "millpond_sink", "flush", partition = 3).entered();
            let _other = tracing::info_span!(target: "hyper", "foreign").entered();
        });
        tokio::task::spawn_blocking(move || drop(traces))
            .await
            .expect("sent");
        let body = sent.recv().await.expect("a request");
        let holds = |text: &str| body.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(holds("flush") && holds("partition") && holds("millpond"));
        assert!(!holds("foreign"));
    }

    #[test]
    fn without_an_endpoint_there_are_none_and_a_wrong_one_is_told() {
        assert!(Traces::from(|_| None).expect("well formed").is_none());
        let error = Traces::from(|_| Some("https://collector:4318".into()));
        let error = error.expect_err("not plain").to_string();
        assert!(
            error.contains(ENDPOINT_VARIABLES[0]) && error.contains("plain HTTP"),
            "{error}"
        );
    }
}
