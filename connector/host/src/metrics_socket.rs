//! Metrics as JSON on a Unix socket, as the connector contract has them: whoever connects gets one
//! object, then the end of the stream. The probes of the same binary ask there, too.

use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::state::State;

/// A reader that takes longer than this is left.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// More than any answer has.
const MAX_ANSWER_BYTES: u64 = 1 << 20;

/// After a failed accept (no file descriptors left), so long until the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The socket; its file goes with it.
pub(crate) struct MetricsSocket {
    path: PathBuf,
    task: JoinHandle<()>,
}

/// Name of the socket in a connector's own folder.
pub(crate) const OWN_NAME: &str = "metrics.sock";

impl MetricsSocket {
    /// Listens at `path`, or, when that was not asked for and another connector answers there, at
    /// `own`. Without the socket the connector works all the same: failing is a warning.
    pub(crate) fn open(path: PathBuf, own: Option<PathBuf>, state: Arc<State>) -> Option<Self> {
        let (path, heard) = match (listen(&path), own) {
            (Err(Refusal::Taken), Some(own)) => {
                let heard = listen(&own);
                if heard.is_ok() {
                    tracing::info!(
                        path = %own.display(),
                        taken = %path.display(),
                        "another connector has the usual metrics socket; probes need `FLUVIO_METRIC_CONNECTOR`"
                    );
                }
                (own, heard)
            }
            (heard, _) => (path, heard),
        };
        match heard {
            Ok(listener) => {
                tracing::info!(path = %path.display(), "metrics socket");
                let task = tokio::spawn(serve(listener, state));
                Some(Self { path, task })
            }
            Err(refusal) => {
                tracing::warn!(
                    path = %path.display(),
                    error = %format!("{:#}", refusal.into_error()),
                    "no metrics and no probes; set `FLUVIO_METRIC_CONNECTOR` to a path of this connector's own"
                );
                None
            }
        }
    }
}

/// Why a socket could not be had.
enum Refusal {
    /// Another process answers there.
    Taken,
    Failed(anyhow::Error),
}

impl Refusal {
    fn into_error(self) -> anyhow::Error {
        match self {
            Self::Taken => anyhow::anyhow!("another process answers there"),
            Self::Failed(error) => error,
        }
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl Drop for MetricsSocket {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

fn listen(path: &Path) -> Result<UnixListener, Refusal> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(anyhow::anyhow!("there is a file that is no socket").into());
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(Refusal::Taken),
            // Left behind by a process that was killed.
            Err(_) => std::fs::remove_file(path).context("cannot remove the socket left there")?,
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => {
            return Err(anyhow::Error::new(error)
                .context("cannot look at it")
                .into());
        }
    }
    Ok(UnixListener::bind(path).context("cannot listen")?)
}

async fn serve(listener: UnixListener, state: Arc<State>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = answer(stream, &state).await {
                    tracing::debug!(%error, "metrics were not taken");
                }
            }
            Err(error) => {
                tracing::debug!(%error, "metrics socket");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, state: &State) -> Result<()> {
    let text = format!("{:#}\n", state.to_json());
    timeout(ANSWER_LIMIT, async {
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await
    })
    .await??;
    Ok(())
}

/// What a connector said of itself.
#[derive(Debug)]
pub(crate) struct Answer(Value);

impl Answer {
    pub(crate) fn state(&self) -> &str {
        self.0["millpond"]["state"].as_str().unwrap_or("unknown")
    }

    /// The process answers.
    pub(crate) fn is_alive(&self) -> bool {
        self.state() != "unknown"
    }

    /// It is past connecting.
    pub(crate) fn is_ready(&self) -> bool {
        self.state() == millpond_observe::Phase::Running.name()
    }
}

/// Asks the connector that listens at `path`.
pub(crate) fn ask(path: &Path) -> Result<Answer> {
    let asked = || format!("no connector answers on `{}`", path.display());
    let stream = std::os::unix::net::UnixStream::connect(path).with_context(asked)?;
    stream
        .set_read_timeout(Some(ANSWER_LIMIT))
        .with_context(asked)?;
    let mut bytes = Vec::new();
    stream
        .take(MAX_ANSWER_BYTES)
        .read_to_end(&mut bytes)
        .with_context(asked)?;
    Ok(Answer(serde_json::from_slice(&bytes).with_context(asked)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_connector_has_a_socket_of_its_own() {
        let dir = tempfile::tempdir().expect("a directory");
        let usual = dir.path().join("usual.sock");
        let own = dir.path().join(OWN_NAME);
        let open = |own: Option<&Path>, name: &str| {
            let state = Arc::new(State::new(name, "dynamodb-sink"));
            MetricsSocket::open(usual.clone(), own.map(Path::to_owned), state)
        };
        let name_at = async |path: &Path| {
            let path = path.to_owned();
            let asked = tokio::task::spawn_blocking(move || ask(&path)).await;
            let answer = asked.expect("asked").expect("answered");
            answer.0["millpond"]["name"].as_str().map(str::to_owned)
        };
        let first = open(Some(&own), "first").expect("a socket");
        let second = open(Some(&own), "second").expect("another");
        assert_eq!(name_at(&usual).await.as_deref(), Some("first"));
        assert_eq!(name_at(&own).await.as_deref(), Some("second"));
        // One that was asked for is not exchanged for another.
        assert!(open(None, "third").is_none());
        drop((first, second));
        assert!(!usual.exists() && !own.exists());
    }
}
