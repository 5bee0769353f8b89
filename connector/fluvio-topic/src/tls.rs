//! TLS to SC and SPUs, as a profile of Fluvio's configuration file names it.
//!
//! Fluvio's client crate has TLS only with features that bring `aws-lc` into the build; without
//! them it takes any policy and then speaks in the clear. So connections under a policy are made
//! here, over the TLS library that the AWS SDK uses already.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::Arc;

use fluvio::config::{TlsConfig, TlsPolicy};
use fluvio_socket::FluvioSocket;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio_util::compat::{TokioAsyncReadCompatExt as _, TokioAsyncWriteCompatExt as _};

/// How connections under one policy are made.
#[derive(Clone)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    /// Name that certificates are checked against; without one they are not checked.
    domain: Option<String>,
}

/// Why a connection could not be made.
pub(crate) enum TlsFailure {
    /// Nothing answers, or it went away.
    Network(String),
    /// One side does not accept the other.
    Refused(String),
}

impl Tls {
    /// Reads keys and certificates; `None` for a policy without TLS.
    pub(crate) fn new(policy: &TlsPolicy) -> Result<Option<Self>, String> {
        let (certs, key, ca, domain) = match policy {
            TlsPolicy::Disabled => return Ok(None),
            TlsPolicy::Anonymous => return Self::anonymous().map(Some),
            TlsPolicy::Verified(TlsConfig::Inline(given)) => (
                given.cert.clone().into_bytes(),
                given.key.clone().into_bytes(),
                given.ca_cert.clone().into_bytes(),
                &given.domain,
            ),
            TlsPolicy::Verified(TlsConfig::Files(given)) => (
                read("cert", &given.cert)?,
                read("key", &given.key)?,
                read("ca_cert", &given.ca_cert)?,
                &given.domain,
            ),
        };
        let mut roots = RootCertStore::empty();
        for root in certificates("ca_cert", &ca)? {
            roots
                .add(root)
                .map_err(|error| format!("`ca_cert` is no certificate of an authority: {error}"))?;
        }
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|error| format!("`ca_cert`: {error}"))?;
        let config = builder(provider)?.with_webpki_verifier(verifier);
        // A cluster that does not ask for a certificate of the client needs none.
        let config = if certs.is_empty() && key.is_empty() {
            config.with_no_client_auth()
        } else {
            let key = PrivateKeyDer::from_pem_slice(&key)
                .map_err(|error| format!("`key` is no private key in PEM: {error}"))?;
            config
                .with_client_auth_cert(certificates("cert", &certs)?, key)
                .map_err(|error| format!("`cert` and `key` do not go together: {error}"))?
        };
        Ok(Some(Self {
            config: Arc::new(config),
            domain: Some(domain.clone()),
        }))
    }

    /// Encrypted, whoever is at the other end: what the profile asks for.
    fn anonymous() -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let anybody = Arc::new(Anybody(Arc::clone(&provider)));
        let config = builder(provider)?
            .dangerous()
            .with_custom_certificate_verifier(anybody)
            .with_no_client_auth();
        Ok(Self {
            config: Arc::new(config),
            domain: None,
        })
    }

    /// Connects to `address` (`host:port`). The certificate must be of the profile's domain, that
    /// of an SPU of the SPU's own name below it (`SpuPool::connect_to_leader` of the client).
    pub(crate) async fn connect(
        &self,
        address: &str,
        spu: Option<&str>,
    ) -> Result<FluvioSocket, TlsFailure> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let name = match (&self.domain, spu) {
            (None, _) => host.trim_matches(['[', ']']).to_owned(),
            (Some(domain), Some(spu)) if domain.parse::<IpAddr>().is_err() => {
                format!("{spu}.{domain}")
            }
            (Some(domain), _) => domain.clone(),
        };
        let server = ServerName::try_from(name.clone()).map_err(|_| {
            TlsFailure::Refused(format!("`{name}` is no name that a certificate can have"))
        })?;
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| TlsFailure::Network(error.to_string()))?;
        let fd = stream.as_raw_fd();
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector
            .connect(server, stream)
            .await
            .map_err(|error| failure(&error, &name))?;
        let (read, write) = tokio::io::split(stream);
        Ok(FluvioSocket::from_stream(
            Box::new(write.compat_write()),
            Box::new(read.compat()),
            fd,
        ))
    }
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;

fn builder(provider: Arc<CryptoProvider>) -> Result<Builder, String> {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())
}

fn read(what: &str, path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path)
        .map_err(|error| format!("`{what}`: `{}` cannot be read: {error}", path.display()))
}

fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(format!("`{what}` holds no certificate in PEM")),
        Err(error) => Err(format!("`{what}` is no PEM: {error}")),
    }
}

fn failure(error: &io::Error, name: &str) -> TlsFailure {
    match refusal(error) {
        Some(reason) => TlsFailure::Refused(format!("TLS with `{name}`: {reason}")),
        None => TlsFailure::Network(format!("TLS handshake: {error}")),
    }
}

/// What TLS itself said, if it was TLS that failed.
pub(crate) fn refusal(error: &io::Error) -> Option<String> {
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(inner.to_string())
}

/// Takes every certificate, but not a signature that its key did not make.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
