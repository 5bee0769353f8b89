//! The same on real servers, and the way of an event through TLS.

use std::path::Path;

use anyhow::Result;
use millpond_fluvio_topic::testing::{LocalCluster, TlsFiles};
use millpond_tests::certificates::{Authority, DOMAIN, Policy, profile};
use millpond_tests::config;
use millpond_tests::profiles::{clients_are_checked, servers_are_checked};
use tempfile::TempDir;

use millpond_tests::on_cluster::{OnCluster, PROGRAMS, sorted};

use crate::BUILT;

async fn start(dir: &Path, authority: &Authority, asks_clients: bool) -> Result<LocalCluster> {
    let (cert, key) = authority.sign_servers()?.write(dir, "servers")?;
    let ca = dir.join("authority.crt");
    std::fs::write(&ca, authority.pem())?;
    let clients = asks_clients.then_some(ca);
    Ok(LocalCluster::start_with_tls(TlsFiles { cert, key, clients }).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_are_who_the_profile_says() -> Result<()> {
    if !LocalCluster::is_available("servers_are_who_the_profile_says") {
        return Ok(());
    }
    let dir = TempDir::new()?;
    let authority = Authority::new("authority")?;
    let cluster = start(dir.path(), &authority, false).await?;
    servers_are_checked(
        BUILT.millpond,
        dir.path(),
        &cluster.tls_endpoint(),
        &authority,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_cross_a_cluster_that_asks_for_certificates() -> Result<()> {
    let test = "events_cross_a_cluster_that_asks_for_certificates";
    if !LocalCluster::is_available_with(test, PROGRAMS) {
        return Ok(());
    }
    let dir = TempDir::new()?;
    let authority = Authority::new("authority")?;
    let cluster = start(dir.path(), &authority, true).await?;
    let endpoint = cluster.tls_endpoint();
    clients_are_checked(BUILT.millpond, dir.path(), &endpoint, &authority)?;

    let file = dir.path().join("secure.toml");
    let policy = Policy::Inline {
        ca_cert: authority.pem(),
        client: &authority.sign(&["root"])?,
        domain: DOMAIN,
    };
    std::fs::write(&file, profile(&endpoint, &policy))?;
    let mut on = OnCluster::on(BUILT, cluster, &config::pipeline()).await?;
    on.use_profile(&file, "secure");
    on.deploy()?;
    on.pipeline.emit(2_000, 41)?;
    on.arrived(2_000).await?;
    on.down()?;
    assert_eq!(
        on.pipeline.read_all()?,
        sorted(on.pipeline.expected(2_000, 41)?)
    );
    Ok(())
}
