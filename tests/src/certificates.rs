//! An authority of a test's own, what it has signed, and profiles of Fluvio's that use it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};

/// The domain of the servers' certificates; an SPU is `custom-spu-5001` below it.
pub const DOMAIN: &str = "fluvio.test";

/// Signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key in PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Certificate.
    pub cert: String,
    /// Private key.
    pub key: String,
}

impl Authority {
    /// Makes one.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self(CertifiedIssuer::self_signed(
            params,
            KeyPair::generate()?,
        )?))
    }

    /// Its own certificate in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these names.
    ///
    /// # Errors
    /// When a name cannot be in a certificate.
    pub fn sign(&self, names: &[&str]) -> Result<Pair> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone())?;
        // What an SC takes for the client's name.
        let name = names.first().map_or("client", String::as_str);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.0)?;
        Ok(Pair {
            cert: cert.pem(),
            key: key.serialize_pem(),
        })
    }

    /// A certificate for servers of [`DOMAIN`].
    ///
    /// # Errors
    /// As [`Self::sign`].
    pub fn sign_servers(&self) -> Result<Pair> {
        self.sign(&[DOMAIN, &format!("*.{DOMAIN}")])
    }
}

impl Pair {
    /// Writes both as files and answers where: certificate, key.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, dir: &Path, name: &str) -> Result<(PathBuf, PathBuf)> {
        let (cert, key) = (
            dir.join(format!("{name}.crt")),
            dir.join(format!("{name}.key")),
        );
        std::fs::write(&cert, &self.cert)?;
        std::fs::write(&key, &self.key)?;
        Ok((cert, key))
    }
}

/// How a profile says that its cluster is to be spoken to.
pub enum Policy<'a> {
    /// Encrypted, certificates unseen.
    Anonymous,
    /// Certificates checked, all of them within the file.
    Inline {
        /// The authority to trust.
        ca_cert: String,
        /// The client's own.
        client: &'a Pair,
        /// Name of the servers.
        domain: &'a str,
    },
    /// The same in files.
    Files {
        /// The authority to trust.
        ca_cert: &'a Path,
        /// The client's own certificate.
        cert: &'a Path,
        /// Its key.
        key: &'a Path,
    },
}

/// Text of a configuration file of Fluvio's with one profile, `secure`.
#[must_use]
pub fn profile(endpoint: &str, policy: &Policy<'_>) -> String {
    let tls = match policy {
        Policy::Anonymous => "tls_policy = \"anonymous\"\n".to_owned(),
        Policy::Inline {
            ca_cert,
            client: Pair { cert, key },
            domain,
        } => format!(
            "tls_policy = \"verified\"\ntls_source = \"inline\"\n\n[cluster.secure.tls.certs]\n\
             domain = \"{domain}\"\nca_cert = \"\"\"\n{ca_cert}\"\"\"\ncert = \"\"\"\n{cert}\"\"\"\nkey = \"\"\"\n{key}\"\"\"\n"
        ),
        Policy::Files { ca_cert, cert, key } => format!(
            "tls_policy = \"verified\"\ntls_source = \"files\"\n\n[cluster.secure.tls.certs]\n\
             domain = \"{DOMAIN}\"\nca_cert = \"{}\"\ncert = \"{}\"\nkey = \"{}\"\n",
            ca_cert.display(),
            cert.display(),
            key.display()
        ),
    };
    format!(
        "version = \"2.0\"\ncurrent_profile = \"secure\"\n\n[profile.secure]\ncluster = \"secure\"\n\n\
         [cluster.secure]\nendpoint = \"{endpoint}\"\n\n[cluster.secure.tls]\n{tls}"
    )
}
