//! What every cluster with TLS must hold for those who reach it by a profile: the scripted one,
//! and the real one.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::certificates::{Authority, Pair, Policy, profile};
use crate::config;
use crate::process::{self, command};

/// Asks a cluster for its state by a profile; answers the exit code and what was said.
///
/// # Errors
/// When the command does not end.
pub fn status(
    binary: &str,
    dir: &Path,
    endpoint: &str,
    policy: &Policy<'_>,
) -> Result<(Option<i32>, String)> {
    config::write(dir, &config::pipeline())?;
    let file = dir.join("fluvio.toml");
    std::fs::write(&file, profile(endpoint, policy))?;
    let mut command = command(
        binary,
        &["status", "--profile", "secure"],
        &[("FLV_PROFILE_PATH".to_owned(), file.display().to_string())],
    );
    let output = process::run(command.current_dir(dir).env("TMPDIR", dir))?;
    let said = format!("{}{}", process::stdout(&output), process::stderr(&output));
    Ok((output.status.code(), said))
}

/// A cluster whose servers have `authority`'s certificates and want none of clients.
///
/// # Errors
/// When one of the policies is not treated as it says.
pub fn servers_are_checked(
    binary: &str,
    dir: &Path,
    endpoint: &str,
    authority: &Authority,
) -> Result<()> {
    let client = authority.sign(&["somebody"])?;
    let (cert, key) = client.write(dir, "client")?;
    let ca_cert = dir.join("ca.crt");
    std::fs::write(&ca_cert, authority.pem())?;
    let domain = crate::certificates::DOMAIN;
    let inline = |ca_cert: String, domain: &'static str| Policy::Inline {
        ca_cert,
        client: &client,
        domain,
    };
    for good in [
        Policy::Anonymous,
        inline(authority.pem(), domain),
        Policy::Files {
            ca_cert: &ca_cert,
            cert: &cert,
            key: &key,
        },
    ] {
        let (code, said) = status(binary, dir, endpoint, &good)?;
        ensure!(code == Some(0), "{code:?} {said}");
        ensure!(said.contains("topic `events` does not exist"), "{said}");
    }
    let stranger = Authority::new("stranger")?;
    for (bad, part) in [
        (inline(stranger.pem(), domain), "UnknownIssuer"),
        (inline(authority.pem(), "other.test"), "NotValidForName"),
        (inline("nothing".to_owned(), domain), "`ca_cert` holds no"),
    ] {
        let (code, said) = status(binary, dir, endpoint, &bad)?;
        // The words of the TLS library differ in form, not in what they name.
        let said_plain = said.replace("not valid for name", "NotValidForName");
        ensure!(
            code == Some(1) && said_plain.contains(part) && said.contains(endpoint),
            "{code:?} no `{part}` in {said}"
        );
    }
    Ok(())
}

/// A cluster that lets in only those with a certificate of `authority`.
///
/// # Errors
/// When somebody else is let in, or is not told why not.
pub fn clients_are_checked(
    binary: &str,
    dir: &Path,
    endpoint: &str,
    authority: &Authority,
) -> Result<()> {
    let known = authority.sign(&["root"])?;
    let unknown = Authority::new("stranger")?.sign(&["root"])?;
    let with = |client: &Pair| {
        let policy = Policy::Inline {
            ca_cert: authority.pem(),
            client,
            domain: crate::certificates::DOMAIN,
        };
        status(binary, dir, endpoint, &policy)
    };
    let (code, said) = with(&known)?;
    ensure!(code == Some(0), "{code:?} {said}");
    let (code, said) = with(&unknown)?;
    ensure!(
        code == Some(1) && said.contains(endpoint),
        "{code:?} {said}"
    );
    Ok(())
}
