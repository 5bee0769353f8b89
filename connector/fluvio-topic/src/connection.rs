//! Connections to SC and SPUs, every wait bounded.

use std::sync::Arc;
use std::time::Duration;

use fluvio_protocol::api::Request;
use fluvio_socket::{
    AsyncResponse, ClientConfig, MultiplexerSocket, SocketError, VersionedSerialSocket,
    VersionedSocket,
};
use fluvio_spu_schema::server::stream_fetch::{DefaultStreamFetchRequest, OFFSET_MANAGEMENT_API};
use tokio::time::timeout;

use crate::error::ClusterError;
use crate::limits::{CONNECT, STREAM_QUEUE};
use crate::tls::{self, Tls, TlsFailure};

/// A connection whose server has said what it speaks.
#[derive(Clone)]
pub(crate) struct Connection {
    address: Arc<str>,
    socket: Arc<VersionedSerialSocket>,
}

impl Connection {
    /// Connects to `address`, an SPU's under its name, with TLS where the cluster has it.
    pub(crate) async fn open(
        tls: Option<&Tls>,
        address: &str,
        spu: Option<&str>,
    ) -> Result<Self, ClusterError> {
        let unreachable = |reason: String| ClusterError::Unreachable {
            address: address.to_owned(),
            reason,
        };
        let refused = |reason: String| ClusterError::Tls {
            address: address.to_owned(),
            reason,
        };
        let mut config = ClientConfig::with_addr(address.to_owned());
        config.set_client_id("millpond");
        let connecting = async {
            let greeted = match tls {
                None => config.connect().await,
                Some(tls) => match tls.connect(address, spu).await {
                    Ok(socket) => VersionedSocket::connect(socket, Arc::new(config)).await,
                    Err(TlsFailure::Network(reason)) => return Err(unreachable(reason)),
                    Err(TlsFailure::Refused(reason)) => return Err(refused(reason)),
                },
            };
            greeted.map_err(|error| match &error {
                // A server says what it thinks of a client's certificate after the handshake.
                SocketError::Io { source, .. } => match tls::refusal(source) {
                    Some(reason) => refused(reason),
                    None => unreachable(error.to_string()),
                },
                _ => unreachable(error.to_string()),
            })
        };
        let versioned = timeout(CONNECT, connecting).await.map_err(|_| {
            unreachable(format!(
                "no greeting within {} s (is it a Fluvio server, {} TLS?)",
                CONNECT.as_secs(),
                if tls.is_some() { "with" } else { "without" }
            ))
        })??;
        let (socket, config, versions) = versioned.split();
        let socket = MultiplexerSocket::shared(socket);
        Ok(Self {
            address: address.into(),
            socket: Arc::new(VersionedSerialSocket::new(socket, config, versions)),
        })
    }

    /// True once the connection is known to be broken.
    pub(crate) fn is_stale(&self) -> bool {
        self.socket.is_stale()
    }

    /// The version that both sides speak for a request.
    pub(crate) fn version<R: Request>(&self, name: &'static str) -> Result<i16, ClusterError> {
        self.socket
            .lookup_version::<R>()
            .ok_or_else(|| ClusterError::Version {
                address: self.address.to_string(),
                found: self.socket.versions().platform_version().to_string(),
                request: name,
            })
    }

    /// The version for requests about consumer offsets. An SPU does not list them among what it
    /// speaks; it knows them when it knows streams of that version, all being numbered together.
    pub(crate) fn offset_version(&self, name: &'static str) -> Result<i16, ClusterError> {
        let version = self.version::<DefaultStreamFetchRequest>(name)?;
        if version >= OFFSET_MANAGEMENT_API {
            return Ok(version);
        }
        Err(ClusterError::Version {
            address: self.address.to_string(),
            found: self.socket.versions().platform_version().to_string(),
            request: name,
        })
    }

    /// Sends a request and waits at most `limit` for its answer. A connection that gave no answer
    /// is not used again.
    pub(crate) async fn request<R>(
        &self,
        name: &'static str,
        request: R,
        limit: Duration,
    ) -> Result<R::Response, ClusterError>
    where
        R: Request + Send + Sync + 'static,
        R::Response: Send,
    {
        let version = self.version::<R>(name)?;
        self.request_as(request, version, limit).await
    }

    /// The same in a version already looked up.
    pub(crate) async fn request_as<R>(
        &self,
        request: R,
        version: i16,
        limit: Duration,
    ) -> Result<R::Response, ClusterError>
    where
        R: Request + Send + Sync + 'static,
        R::Response: Send,
    {
        if self.is_stale() {
            return Err(self.unreachable("the connection is closed".into()));
        }
        let socket = Arc::clone(&self.socket);
        // Its own task: a caller that goes away must not leave half a request on the connection.
        let answer = tokio::spawn(async move {
            let message = socket.new_request(request, Some(version));
            match timeout(limit, socket.send_and_receive(message)).await {
                Ok(Ok(response)) => Ok(response),
                Ok(Err(error)) => {
                    socket.set_stale();
                    Err(error.to_string())
                }
                Err(_) => {
                    socket.set_stale();
                    Err(format!("no answer within {} s", limit.as_secs()))
                }
            }
        });
        match answer.await {
            Ok(result) => result.map_err(|reason| self.unreachable(reason)),
            Err(error) => Err(self.unreachable(error.to_string())),
        }
    }

    /// Opens a stream of answers to one request.
    pub(crate) async fn stream<R>(
        &self,
        name: &'static str,
        request: R,
    ) -> Result<AsyncResponse<R>, ClusterError>
    where
        R: Request + Send + Sync,
    {
        let version = self.version::<R>(name)?;
        let message = self.socket.new_request(request, Some(version));
        let opened = timeout(CONNECT, self.socket.create_stream(message, STREAM_QUEUE)).await;
        match opened {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(self.unreachable(error.to_string())),
            Err(_) => Err(self.unreachable("the request could not be sent".into())),
        }
    }

    /// What a broken stream means.
    pub(crate) fn broken(&self, error: &SocketError) -> ClusterError {
        self.unreachable(error.to_string())
    }

    pub(crate) fn unreachable(&self, reason: String) -> ClusterError {
        ClusterError::Unreachable {
            address: self.address.to_string(),
            reason,
        }
    }
}
