//! A cluster of one SC and one SPU on loopback, for tests.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;
use crate::settings::ClusterSettings;

/// How long each program may take to be there.
const START: Duration = Duration::from_secs(30);
const SPU: i32 = 5001;

/// A running cluster; its processes end and its files go when it is dropped.
pub struct LocalCluster {
    dir: TempDir,
    program: PathBuf,
    ports: Ports,
    sc: Option<Child>,
    spu: Option<Child>,
}

#[derive(Clone, Copy)]
struct Ports {
    sc_public: u16,
    sc_private: u16,
    spu_public: u16,
    spu_private: u16,
}

impl LocalCluster {
    /// The folder of Fluvio's programs: `MILLPOND_FLUVIO_BIN`, else where `PATH` has `fluvio-run`.
    #[must_use]
    pub fn bin_dir() -> Option<PathBuf> {
        let named = std::env::var_os("MILLPOND_FLUVIO_BIN").map(PathBuf::from);
        let paths = std::env::var_os("PATH").unwrap_or_default();
        named
            .into_iter()
            .chain(std::env::split_paths(&paths))
            .find(|dir| dir.join("fluvio-run").is_file())
    }

    /// The same, and a line on stderr that says what is skipped when there is none; past the
    /// test harness, which keeps what a passing test prints to itself.
    #[must_use]
    pub fn is_available(test: &str) -> bool {
        let found = Self::bin_dir().is_some();
        if !found {
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED {test}: no `fluvio-run` in MILLPOND_FLUVIO_BIN or PATH"
            );
        }
        found
    }

    /// Starts both and waits until the SPU is online.
    ///
    /// # Errors
    /// When the program is missing, does not start, or is not there in time.
    pub async fn start() -> io::Result<Self> {
        let bin = Self::bin_dir()
            .ok_or_else(|| io::Error::other("no `fluvio-run` in MILLPOND_FLUVIO_BIN or PATH"))?;
        let mut cluster = Self {
            dir: TempDir::new()?,
            program: bin.join("fluvio-run"),
            ports: Ports::free()?,
            sc: None,
            spu: None,
        };
        cluster.start_sc().await?;
        let admin = cluster.connect().await?;
        let Ports {
            spu_public,
            spu_private,
            ..
        } = cluster.ports;
        let registered = admin.register_spu(SPU, spu_public, spu_private).await;
        registered.map_err(io::Error::other)?;
        cluster.restart_spu().await?;
        Ok(cluster)
    }

    /// `host:port` of the SC.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.ports.sc_public)
    }

    /// How to reach it.
    #[must_use]
    pub fn settings(&self) -> ClusterSettings {
        ClusterSettings {
            profile: None,
            endpoint: Some(self.endpoint()),
        }
    }

    /// Where its files are, the logs `sc.log` and `spu.log` among them.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Ends the SPU without warning.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill_spu(&mut self) -> io::Result<()> {
        end(&mut self.spu)
    }

    /// Starts the SPU on its old log, ending it first if it runs, and waits until it is online.
    ///
    /// # Errors
    /// When it does not start or is not online in time.
    pub async fn restart_spu(&mut self) -> io::Result<()> {
        end(&mut self.spu)?;
        let Ports {
            sc_private,
            spu_public,
            spu_private,
            ..
        } = self.ports;
        let mut command = self.command("spu")?;
        command
            .args(["-i", &SPU.to_string()])
            .args(["-p", &format!("127.0.0.1:{spu_public}")])
            .args(["-v", &format!("127.0.0.1:{spu_private}")])
            .args(["--sc-addr", &format!("127.0.0.1:{sc_private}")])
            .arg("--log-base-dir")
            .arg(self.dir.path().join("log"));
        self.spu = Some(command.spawn()?);
        let deadline = Instant::now() + START;
        loop {
            if let Ok(cluster) = Cluster::connect(&self.settings()).await
                && cluster.is_spu_online(SPU).await.unwrap_or_default()
                && cluster
                    .open(&format!("127.0.0.1:{spu_public}"))
                    .await
                    .is_ok()
            {
                return Ok(());
            }
            self.wait_until(deadline, "the SPU").await?;
        }
    }

    /// Ends the SC and starts it on its old metadata.
    ///
    /// # Errors
    /// When it does not start in time.
    pub async fn restart_sc(&mut self) -> io::Result<()> {
        end(&mut self.sc)?;
        self.start_sc().await
    }

    async fn start_sc(&mut self) -> io::Result<()> {
        let mut command = self.command("sc")?;
        command
            .arg("--local")
            .arg(self.dir.path().join("metadata"))
            .args(["--bind-public", &self.endpoint()])
            .args([
                "--bind-private",
                &format!("127.0.0.1:{}", self.ports.sc_private),
            ]);
        self.sc = Some(command.spawn()?);
        self.connect().await.map(drop)
    }

    async fn connect(&self) -> io::Result<Cluster> {
        let deadline = Instant::now() + START;
        loop {
            if let Ok(cluster) = Cluster::connect(&self.settings()).await {
                return Ok(cluster);
            }
            self.wait_until(deadline, "the SC").await?;
        }
    }

    async fn wait_until(&self, deadline: Instant, what: &str) -> io::Result<()> {
        if Instant::now() < deadline {
            sleep(Duration::from_millis(50)).await;
            return Ok(());
        }
        let tail = |name: &str| std::fs::read_to_string(self.dir.path().join(name));
        Err(io::Error::other(format!(
            "{what} was not there within {} s\n{}\n{}",
            START.as_secs(),
            tail("sc.log").unwrap_or_default(),
            tail("spu.log").unwrap_or_default()
        )))
    }

    fn command(&self, role: &str) -> io::Result<Command> {
        let log = self.dir.path().join(format!("{role}.log"));
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = Command::new(&self.program);
        command
            .arg(role)
            .current_dir(self.dir.path())
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(command)
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        // The processes are its own: what fails here has ended already.
        let _ = end(&mut self.spu);
        let _ = end(&mut self.sc);
    }
}

impl Ports {
    /// Ports that nobody listened on just now.
    fn free() -> io::Result<Self> {
        let listeners: Vec<_> = (0..4)
            .map(|_| TcpListener::bind("127.0.0.1:0"))
            .collect::<io::Result<_>>()?;
        let mut ports = [0; 4];
        for (port, listener) in ports.iter_mut().zip(&listeners) {
            *port = listener.local_addr()?.port();
        }
        let [sc_public, sc_private, spu_public, spu_private] = ports;
        Ok(Self {
            sc_public,
            sc_private,
            spu_public,
            spu_private,
        })
    }
}

fn end(process: &mut Option<Child>) -> io::Result<()> {
    if let Some(mut child) = process.take() {
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}
