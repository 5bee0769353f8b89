//! A scripted SC and SPU on loopback: tests of the cluster path without a cluster.
//!
//! They speak what `millpond-fluvio-topic` speaks and no more, in the published wire types, and answer as
//! the servers of Fluvio 0.50 do, their faults included: answers cut at `max_bytes` in the middle of a
//! batch, the jump to the end of the log when an output does not fit. What goes wrong beyond that is
//! said by [`Fault`]. Logs are in memory and outlive the servers, which can be stopped and started.

mod chain;
mod fault;
mod log;
mod sc;
mod server;
mod slice;
mod spu;
mod state;
mod stream;
mod versions;

use std::sync::Arc;

use server::Listening;
use state::State;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::certificates::{Authority, Pair};

pub use fault::{Fault, Server};

/// A cluster of one SC and one SPU; dropped, it is gone.
pub struct ScriptedCluster {
    state: Arc<State>,
    sc: Listening,
    spu: Listening,
}

impl ScriptedCluster {
    /// Starts both servers on free ports.
    ///
    /// # Errors
    /// When loopback has no port left.
    pub async fn start() -> std::io::Result<Self> {
        Self::start_with(None).await
    }

    /// The same, spoken to with TLS; clients need a certificate of `clients` when that is there.
    ///
    /// # Errors
    /// When loopback has no port left, or the certificates cannot be used.
    pub async fn start_with_tls(
        servers: &Pair,
        clients: Option<&Authority>,
    ) -> anyhow::Result<Self> {
        let acceptor = acceptor(servers, clients)?;
        Ok(Self::start_with(Some(acceptor)).await?)
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> std::io::Result<Self> {
        let state = Arc::new(State::new(tls));
        let sc = Listening::start(Server::Sc, 0, &state).await?;
        let spu = Listening::start(Server::Spu, 0, &state).await?;
        state.lock().spu_port = spu.port();
        Ok(Self { state, sc, spu })
    }

    /// `host:port` of the SC.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.sc.port())
    }

    /// Adds a fault to those that happen at the next occasion.
    pub fn script(&self, fault: Fault) {
        self.state.lock().script.add(fault);
    }

    /// The faults that have not happened yet.
    #[must_use]
    pub fn pending(&self) -> Vec<Fault> {
        self.state.lock().script.pending()
    }

    /// How many streams with SmartModules were opened so far.
    #[must_use]
    pub fn streams(&self) -> u64 {
        self.state.lock().streams
    }

    /// How many of these had their modules compiled at one time, at most.
    #[must_use]
    pub fn most_streams_at_work(&self) -> u64 {
        self.state.lock().most_at_work
    }

    /// Closes every connection of a server and its port.
    pub async fn stop(&mut self, server: Server) {
        self.server(server).stop().await;
    }

    /// Opens the port of a stopped server again.
    ///
    /// # Errors
    /// When something else has taken it.
    pub async fn resume(&mut self, server: Server) -> std::io::Result<()> {
        let state = Arc::clone(&self.state);
        let listening = self.server(server);
        *listening = Listening::start(server, listening.port(), &state).await?;
        Ok(())
    }

    /// Stops a server and starts it again: every connection is cut, the logs stay.
    ///
    /// # Errors
    /// As [`Self::resume`].
    pub async fn restart(&mut self, server: Server) -> std::io::Result<()> {
        self.stop(server).await;
        self.resume(server).await
    }

    /// One past the last record of a partition; 0 for one that is not there.
    #[must_use]
    pub fn log_end(&self, topic: &str, partition: u32) -> i64 {
        let mut contents = self.state.lock();
        contents.log(topic, partition).map_or(0, |log| log.end())
    }

    fn server(&mut self, server: Server) -> &mut Listening {
        match server {
            Server::Sc => &mut self.sc,
            Server::Spu => &mut self.spu,
        }
    }
}

fn acceptor(servers: &Pair, clients: Option<&Authority>) -> anyhow::Result<TlsAcceptor> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes())?)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build()?)
        }
    };
    let cert = CertificateDer::from_pem_slice(servers.cert.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(servers.key.as_bytes())?;
    let config = builder.with_single_cert(vec![cert], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
