//! Profiles of Fluvio's configuration file, TLS in all its forms, against the scripted cluster.

use anyhow::Result;
use millpond_tests::certificates::Authority;
use millpond_tests::profiles::{clients_are_checked, servers_are_checked};
use millpond_tests::scripted_cluster::ScriptedCluster;
use tempfile::TempDir;

use crate::MILLPOND;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_are_who_the_profile_says() -> Result<()> {
    let dir = TempDir::new()?;
    let authority = Authority::new("authority")?;
    let servers = ScriptedCluster::start_with_tls(&authority.sign_servers()?, None).await?;
    let endpoint = servers.endpoint();
    tokio::task::spawn_blocking(move || {
        servers_are_checked(MILLPOND, dir.path(), &endpoint, &authority)
    })
    .await?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_shows_the_certificate_of_its_profile() -> Result<()> {
    let dir = TempDir::new()?;
    let authority = Authority::new("authority")?;
    let servers = authority.sign_servers()?;
    let servers = ScriptedCluster::start_with_tls(&servers, Some(&authority)).await?;
    let endpoint = servers.endpoint();
    tokio::task::spawn_blocking(move || {
        clients_are_checked(MILLPOND, dir.path(), &endpoint, &authority)
    })
    .await?
}
