//! A Fluvio cluster of one SC and one SPU on loopback, where its programs can be had.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use millpond::cluster::cdk::{PROGRAM_DIR_VARIABLE, find_program};
use tempfile::TempDir;

use crate::process::{self, Running};

/// The programs of Fluvio that a cluster test needs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// Servers.
    pub fluvio_run: PathBuf,
    /// Command line client.
    pub fluvio: PathBuf,
    /// Connector Development Kit.
    pub cdk: PathBuf,
}

impl Programs {
    /// Finds them in `MILLPOND_FLUVIO_BIN` or on PATH; otherwise announces that `test` is skipped.
    #[must_use]
    pub fn find(test: &str) -> Option<Self> {
        let dir = std::env::var_os(PROGRAM_DIR_VARIABLE);
        let path = std::env::var_os("PATH");
        let one = |name: &str| {
            let found = find_program(name, dir.as_ref(), path.as_ref());
            if found.is_none() {
                let reason = format!("no `{name}` in {PROGRAM_DIR_VARIABLE} or on PATH");
                crate::announce_skipped(test, &reason);
            }
            found
        };
        Some(Self {
            fluvio_run: one("fluvio-run")?,
            fluvio: one("fluvio")?,
            cdk: one("cdk")?,
        })
    }
}

/// A running cluster; it ends with its handle.
#[derive(Debug)]
pub struct FluvioCluster {
    programs: Programs,
    /// Removed with the handle.
    _dir: TempDir,
    ports: [u16; 4],
    sc: Running,
    spu: Running,
}

const SPU_ID: &str = "5001";

impl FluvioCluster {
    /// Starts SC and SPU on free ports and waits until the SPU is online.
    ///
    /// # Errors
    /// When they do not come up.
    pub async fn start(programs: Programs) -> Result<Self> {
        let dir = TempDir::new()?;
        let ports = free_ports()?;
        let sc = start_sc(&programs, &dir, ports)?;
        let spu = start_spu(&programs, &dir, ports)?;
        let mut cluster = Self {
            programs,
            _dir: dir,
            ports,
            sc,
            spu,
        };
        cluster.register().await?;
        cluster.online().await?;
        Ok(cluster)
    }

    /// Public address of the SC.
    #[must_use]
    pub fn endpoint(&self) -> String {
        address(self.ports[0])
    }

    /// Runs `fluvio` against this cluster.
    ///
    /// # Errors
    /// When it fails; shows its stderr.
    pub fn fluvio(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.programs.fluvio);
        command
            .arg("--cluster")
            .arg(self.endpoint())
            .args(arguments);
        let output = process::run(&mut command)?;
        ensure!(
            output.status.success(),
            "fluvio {arguments:?}: {}",
            process::stderr(&output)
        );
        Ok(process::stdout(&output))
    }

    /// These servers, and no others that took the ports, are the ones that answer.
    fn alive(&mut self) -> Result<()> {
        ensure!(self.sc.is_running()?, "the SC ended: {:?}", self.sc.rest());
        ensure!(
            self.spu.is_running()?,
            "the SPU ended: {:?}",
            self.spu.rest()
        );
        Ok(())
    }

    async fn register(&mut self) -> Result<()> {
        let [_, _, public, private] = self.ports.map(address);
        let arguments = [
            "cluster",
            "spu",
            "register",
            "--id",
            SPU_ID,
            "--public-server",
            &public,
            "--private-server",
            &private,
        ];
        let cluster = std::cell::RefCell::new(self);
        crate::eventually("SC that answers", async || {
            let mut cluster = cluster.borrow_mut();
            cluster.alive()?;
            Ok(cluster.fluvio(&arguments).ok())
        })
        .await?;
        Ok(())
    }

    async fn online(&mut self) -> Result<()> {
        let cluster = std::cell::RefCell::new(self);
        crate::eventually("SPU online", async || {
            let mut cluster = cluster.borrow_mut();
            cluster.alive()?;
            let listed = cluster.fluvio(&["cluster", "spu", "list"])?;
            Ok(listed.contains("Online").then_some(()))
        })
        .await
    }
}

fn address(port: u16) -> String {
    format!("{}:{port}", Ipv4Addr::LOCALHOST)
}

/// Ports that nobody listens on now. Somebody may take one before the servers do: then the
/// server ends at once, which [`FluvioCluster::start`] sees.
fn free_ports() -> Result<[u16; 4]> {
    let mut held = Vec::new();
    let mut ports = [0; 4];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

fn start_sc(programs: &Programs, dir: &TempDir, ports: [u16; 4]) -> Result<Running> {
    let [public, private, _, _] = ports.map(address);
    let mut command = Command::new(&programs.fluvio_run);
    command
        .args([
            "sc",
            "--bind-public",
            &public,
            "--bind-private",
            &private,
            "--local",
        ])
        .arg(dir.path().join("sc"));
    Running::start(&mut command)
}

fn start_spu(programs: &Programs, dir: &TempDir, ports: [u16; 4]) -> Result<Running> {
    let [_, sc, public, private] = ports.map(address);
    let mut command = Command::new(&programs.fluvio_run);
    command
        .args(["spu", "--id", SPU_ID, "--public-server", &public])
        .args([
            "--private-server",
            &private,
            "--sc-addr",
            &sc,
            "--log-base-dir",
        ])
        .arg(dir.path().join("spu"))
        .env("FLUVIO_METRIC_SPU", dir.path().join("spu.sock"));
    Running::start(&mut command)
}
