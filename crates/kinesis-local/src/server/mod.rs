//! The wire: JSON 1.1 over HTTP, on loopback.

mod consumers;
mod event_stream;
mod fault;
mod operations;
mod push;
mod read;
mod request;
mod response;
mod router;
mod write;

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::serve::ListenerExt;
use bytes::Bytes;
use rand::{TryRngCore, rngs::OsRng};
use tokio::{
    net::TcpListener,
    sync::{Notify, oneshot},
    task::JoinHandle,
};

use crate::model::{HalfOpen, Kinesis, ModelConfig};

/// Where the server's time comes from: Unix milliseconds.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Settings of a [`Server`].
#[derive(Clone)]
pub struct ServerConfig {
    /// Port on 127.0.0.1; 0, the default, takes a free one.
    pub port: u16,
    /// Settings of the model behind it.
    pub model: ModelConfig,
    /// Seed of tokens and sequence numbers; random unless given.
    pub seed: Option<u64>,
    /// Where time comes from; the system's clock unless given.
    pub clock: Clock,
    /// How long [`ServerHandle::shutdown`] waits for requests under way. Default 5 seconds.
    pub drain: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            port: 0,
            model: ModelConfig::default(),
            seed: None,
            clock: Arc::new(system_time_ms),
            drain: Duration::from_secs(5),
        }
    }
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig")
            .field("port", &self.port)
            .field("model", &self.model)
            .field("seed", &self.seed)
            .field("drain", &self.drain)
            .finish_non_exhaustive()
    }
}

fn system_time_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_millis() as u64)
}

/// Two servers must not take each other's tokens for their own; no secret depends on it.
fn random_seed() -> u64 {
    OsRng.try_next_u64().unwrap_or_else(|_| system_time_ms())
}

/// A server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The port is not to be had.
    #[error("cannot listen on `{addr}`: {source}; choose another port, or 0 for a free one")]
    Listen {
        /// Where.
        addr: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// A Kinesis endpoint in this process.
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Starts to serve on 127.0.0.1, in the current tokio runtime.
    ///
    /// # Errors
    /// [`ServerError::Listen`] if the port is taken.
    pub async fn start(config: ServerConfig) -> Result<ServerHandle, ServerError> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, config.port));
        let listen = async {
            let listener = TcpListener::bind(addr).await?;
            let addr = listener.local_addr()?;
            Ok((listener, addr))
        };
        let (listener, addr) = listen
            .await
            .map_err(|source| ServerError::Listen { addr, source })?;
        let listener = listener.tap_io(|stream| {
            // Without it a small answer waits for the client's delayed acknowledgement.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot set nodelay");
            }
        });
        let state = Arc::new(State {
            kinesis: Mutex::new(Kinesis::new(
                config.model,
                config.seed.unwrap_or_else(random_seed),
            )),
            clock: config.clock,
            changed: Notify::new(),
            is_stopping: AtomicBool::new(false),
        });
        let serving = state.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let serve =
            axum::serve(listener, router::router(serving)).with_graceful_shutdown(async move {
                // A dropped handle stops the server, too.
                let _ = stopped.await;
            });
        let task = tokio::spawn(async move {
            if let Err(error) = serve.await {
                tracing::error!(%error, "local kinesis stopped");
            }
        });
        Ok(ServerHandle {
            addr,
            state,
            stop: Some(stop),
            task,
            drain: config.drain,
        })
    }
}

/// A running server. Dropped, it stops without waiting.
#[derive(Debug)]
pub struct ServerHandle {
    /// Where it listens.
    pub addr: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
    drain: Duration,
}

impl ServerHandle {
    /// The value for `AWS_ENDPOINT_URL_KINESIS`.
    #[must_use]
    pub fn endpoint_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Makes subscriptions half open: their connections stay, and nothing comes any more.
    pub fn half_open(&self, which: HalfOpen) {
        self.state.kinesis().half_open(which);
    }

    /// Takes no more requests, ends subscriptions, waits for those under way, and ends.
    pub async fn shutdown(mut self) {
        self.stop.take();
        self.state.stop();
        if tokio::time::timeout(self.drain, &mut self.task)
            .await
            .is_err()
        {
            tracing::debug!("local kinesis ends with connections open");
        }
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.state.stop();
        self.task.abort();
    }
}

/// What every request sees. The payload of a record is the part of its JSON that
/// needs no change between put and get.
struct State {
    kinesis: Mutex<Kinesis<Bytes>>,
    clock: Clock,
    /// Told when records or shards came: whoever pushes looks again.
    changed: Notify,
    is_stopping: AtomicBool,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl State {
    /// The model, for a few microseconds: parse before, write after.
    fn kinesis(&self) -> MutexGuard<'_, Kinesis<Bytes>> {
        self.kinesis.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends what would go on for minutes.
    fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    fn now_ms(&self) -> u64 {
        (self.clock)()
    }
}
