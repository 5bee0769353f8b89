//! A cluster of one SC and one SPU on loopback, for tests.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, Spu};
use crate::settings::ClusterSettings;

/// How long each program may take to be there.
const START: Duration = Duration::from_secs(30);
const SPU: i32 = 5001;
/// Times that ports are looked for: another program may take one before its server does.
const ATTEMPTS: u32 = 3;

/// A running cluster; its processes end and its files go when it is dropped.
pub struct LocalCluster {
    dir: TempDir,
    bin: PathBuf,
    ports: Ports,
    tls: Option<TlsFiles>,
    sc: Option<Child>,
    spu: Option<Child>,
}

/// Files in PEM that make the servers speak TLS beside plain TCP.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificate of the servers, for the domain and `*.domain`.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Authority whose certificates clients must have, if they must have any.
    pub clients: Option<PathBuf>,
}

#[derive(Clone, Copy)]
struct Ports {
    sc_public: u16,
    sc_private: u16,
    sc_tls: u16,
    spu_public: u16,
    spu_private: u16,
    spu_tls: u16,
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

    /// Whether there are servers to test with; otherwise a line on stderr says that `test` is
    /// skipped, past the test harness, which keeps what a passing test prints to itself.
    #[must_use]
    pub fn is_available(test: &str) -> bool {
        Self::is_available_with(test, &[])
    }

    /// The same for a test that needs other `programs` of Fluvio beside them.
    #[must_use]
    pub fn is_available_with(test: &str, programs: &[&str]) -> bool {
        let missing = match Self::bin_dir() {
            None => Some("fluvio-run"),
            Some(bin) => programs
                .iter()
                .copied()
                .find(|name| !bin.join(name).is_file()),
        };
        if let Some(name) = missing {
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED {test}: no `{name}` in MILLPOND_FLUVIO_BIN or PATH"
            );
        }
        missing.is_none()
    }

    /// Starts both and waits until the SPU is online.
    ///
    /// # Errors
    /// When the program is missing, does not start, or is not there in time.
    pub async fn start() -> io::Result<Self> {
        Self::start_with(None).await
    }

    /// The same with TLS at [`Self::tls_endpoint`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with_tls(tls: TlsFiles) -> io::Result<Self> {
        Self::start_with(Some(tls)).await
    }

    async fn start_with(tls: Option<TlsFiles>) -> io::Result<Self> {
        let bin = Self::bin_dir()
            .ok_or_else(|| io::Error::other("no `fluvio-run` in MILLPOND_FLUVIO_BIN or PATH"))?;
        let mut attempt = 1;
        loop {
            let mut cluster = Self {
                dir: TempDir::new()?,
                bin: bin.clone(),
                ports: Ports::free()?,
                tls: tls.clone(),
                sc: None,
                spu: None,
            };
            match cluster.start_both().await {
                Ok(()) => return Ok(cluster),
                Err(error) if attempt == ATTEMPTS => return Err(error),
                Err(_) => attempt += 1,
            }
        }
    }

    async fn start_both(&mut self) -> io::Result<()> {
        self.start_sc().await?;
        let admin = self.connect().await?;
        let Ports {
            spu_public,
            spu_private,
            spu_tls,
            ..
        } = self.ports;
        let public = if self.tls.is_some() {
            spu_tls
        } else {
            spu_public
        };
        let registered = admin.register_spu(SPU, public, spu_private).await;
        registered.map_err(io::Error::other)?;
        self.restart_spu().await
    }

    /// `host:port` of the SC.
    #[must_use]
    pub fn endpoint(&self) -> String {
        address(self.ports.sc_public)
    }

    /// `host:port` of the SC with TLS, when it was started with it.
    #[must_use]
    pub fn tls_endpoint(&self) -> String {
        address(self.ports.sc_tls)
    }

    /// Runs Fluvio's own command line client on it and answers what that printed.
    ///
    /// # Errors
    /// When it is missing or fails; with what it said.
    pub fn fluvio(&self, arguments: &[&str]) -> io::Result<String> {
        let output = Command::new(self.bin.join("fluvio"))
            .args(["--cluster", &self.endpoint()])
            .args(arguments)
            .stdin(Stdio::null())
            .output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("fluvio {arguments:?}: {said}")))
    }

    /// Process numbers of SC and SPU, as far as they were started.
    #[must_use]
    pub fn processes(&self) -> [Option<u32>; 2] {
        [&self.sc, &self.spu].map(|child| child.as_ref().map(Child::id))
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
            spu_tls,
            ..
        } = self.ports;
        let mut command = self.command("spu")?;
        command
            .args(["-i", &SPU.to_string()])
            .args(["-v", &address(spu_private)])
            .args(["--sc-addr", &address(sc_private)])
            .arg("--log-base-dir")
            .arg(self.dir.path().join("log"))
            .env("FLUVIO_METRIC_SPU", self.dir.path().join("spu.sock"));
        self.listen(&mut command, "-p", spu_public, spu_tls);
        self.spu = Some(command.spawn()?);
        // Of a cluster with TLS the plain port is asked, too.
        let plain = Spu {
            id: SPU,
            name: String::new(),
            address: address(spu_public),
        };
        let deadline = Instant::now() + START;
        loop {
            if let Ok(cluster) = Cluster::connect(&self.settings()).await
                && cluster.is_spu_online(SPU).await.unwrap_or_default()
                && cluster.open(&plain).await.is_ok()
            {
                return Ok(());
            }
            self.wait_until(deadline, "the SPU").await?;
        }
    }

    /// Where a server listens: at `plain`, or, with TLS, there and at `tls`.
    fn listen(&self, command: &mut Command, option: &str, plain: u16, tls: u16) {
        let Some(files) = &self.tls else {
            command.args([option, &address(plain)]);
            return;
        };
        command
            .args([option, &address(tls), "--tls"])
            .args(["--bind-non-tls-public", &address(plain)])
            .arg("--server-cert")
            .arg(&files.cert)
            .arg("--server-key")
            .arg(&files.key);
        if let Some(authority) = &files.clients {
            command.args(["--enable-client-cert", "--ca-cert"]);
            command.arg(authority);
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
            .args(["--bind-private", &address(self.ports.sc_private)]);
        let Ports {
            sc_public, sc_tls, ..
        } = self.ports;
        self.listen(&mut command, "--bind-public", sc_public, sc_tls);
        self.sc = Some(command.spawn()?);
        self.connect().await.map(drop)
    }

    async fn connect(&mut self) -> io::Result<Cluster> {
        let deadline = Instant::now() + START;
        loop {
            if let Ok(cluster) = Cluster::connect(&self.settings()).await {
                return Ok(cluster);
            }
            self.wait_until(deadline, "the SC").await?;
        }
    }

    async fn wait_until(&mut self, deadline: Instant, what: &str) -> io::Result<()> {
        // Whoever answers then is somebody else.
        let ended = |child: &mut Option<Child>| match child {
            Some(child) => Ok::<_, io::Error>(child.try_wait()?.is_some()),
            None => Ok(false),
        };
        if !ended(&mut self.sc)? && !ended(&mut self.spu)? && Instant::now() < deadline {
            sleep(Duration::from_millis(50)).await;
            return Ok(());
        }
        let tail = |name: &str| std::fs::read_to_string(self.dir.path().join(name));
        Err(io::Error::other(format!(
            "{what} was not there within {} s, or ended\n{}\n{}",
            START.as_secs(),
            tail("sc.log").unwrap_or_default(),
            tail("spu.log").unwrap_or_default()
        )))
    }

    fn command(&self, role: &str) -> io::Result<Command> {
        let log = self.dir.path().join(format!("{role}.log"));
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = Command::new(self.bin.join("fluvio-run"));
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
        let listeners: Vec<_> = (0..6)
            .map(|_| TcpListener::bind("127.0.0.1:0"))
            .collect::<io::Result<_>>()?;
        let mut ports = [0; 6];
        for (port, listener) in ports.iter_mut().zip(&listeners) {
            *port = listener.local_addr()?.port();
        }
        let [
            sc_public,
            sc_private,
            sc_tls,
            spu_public,
            spu_private,
            spu_tls,
        ] = ports;
        Ok(Self {
            sc_public,
            sc_private,
            sc_tls,
            spu_public,
            spu_private,
            spu_tls,
        })
    }
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn end(process: &mut Option<Child>) -> io::Result<()> {
    if let Some(mut child) = process.take() {
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}
