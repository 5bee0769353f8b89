//! kinesis-mock as a child process on loopback.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The version whose behaviour the cases describe.
const PACKAGE: &str = "kinesis-local@0.6.2";
const INSTALL_DEADLINE: Duration = Duration::from_secs(120);
const READY_DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// It listens on all addresses and has no setting for it; and a child must not
/// outlive the test, however that ends, so it watches its standard input.
const PRELOAD: &str = r"'use strict';
const { Server } = require('net');
const listen = Server.prototype.listen;
Server.prototype.listen = function (port, ...rest) {
  return listen.call(this, { port, host: '127.0.0.1' }, ...rest);
};
process.stdin.on('end', () => process.exit(0)).resume();
";

/// Why kinesis-mock cannot be used here.
#[derive(Debug)]
pub struct Unavailable(pub String);

/// A running kinesis-mock; ends when dropped.
#[derive(Debug)]
pub struct KinesisMock {
    child: Child,
    addr: SocketAddr,
}

impl KinesisMock {
    /// Installs it if need be, starts it, and waits until it accepts connections.
    pub fn start() -> Result<Self, Unavailable> {
        let package = installed()?;
        let preload = package.join("../../preload.cjs");
        fs::write(&preload, PRELOAD)
            .map_err(|error| Unavailable(format!("cannot write {preload:?}: {error}")))?;
        // Another process may take a port between the choice and its use.
        let mut last = Unavailable(String::new());
        for _ in 0..3 {
            match Self::spawn(&package, &preload) {
                Ok(mock) => return Ok(mock),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub fn endpoint_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    fn spawn(package: &Path, preload: &Path) -> Result<Self, Unavailable> {
        let (plain, tls) =
            free_ports().map_err(|error| Unavailable(format!("no free port: {error}")))?;
        let mut command = Command::new("node");
        command
            .arg("--require")
            .arg(preload)
            .arg("main.js")
            .current_dir(package);
        command
            .env("KINESIS_MOCK_PLAIN_PORT", plain.to_string())
            .env("KINESIS_MOCK_TLS_PORT", tls.to_string());
        command.env("LOG_LEVEL", "ERROR").env("SHARD_LIMIT", "500");
        for change in [
            "CREATE_STREAM",
            "DELETE_STREAM",
            "MERGE_SHARDS",
            "SPLIT_SHARD",
            "UPDATE_SHARD_COUNT",
        ] {
            command.env(format!("{change}_DURATION"), "1ms");
        }
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| Unavailable(format!("cannot start node: {error}")))?;
        let mut mock = Self {
            child,
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, plain)),
        };
        let deadline = Instant::now() + READY_DEADLINE;
        while TcpStream::connect(mock.addr).is_err() {
            if let Ok(Some(status)) = mock.child.try_wait() {
                return Err(Unavailable(format!(
                    "kinesis-mock ended with {status} instead of listening"
                )));
            }
            if Instant::now() > deadline {
                return Err(Unavailable(format!(
                    "kinesis-mock does not listen after {READY_DEADLINE:?}"
                )));
            }
            thread::sleep(POLL);
        }
        Ok(mock)
    }
}

impl Drop for KinesisMock {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_ports() -> std::io::Result<(u16, u16)> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let (first, second) = (listen()?, listen()?);
    Ok((first.local_addr()?.port(), second.local_addr()?.port()))
}

/// The package's folder, installed below the target folder.
fn installed() -> Result<PathBuf, Unavailable> {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(PACKAGE.replace('@', "-"));
    let package = root.join("node_modules/kinesis-local");
    if package.join("main.js").exists() {
        return Ok(package);
    }
    // Installed beside and moved, so that a run that was cut off leaves nothing half done.
    let staging = root.with_extension(format!("{}.tmp", std::process::id()));
    fs::create_dir_all(&staging)
        .map_err(|error| Unavailable(format!("cannot create {staging:?}: {error}")))?;
    let result = install(&staging);
    if result.is_ok() {
        let _ = fs::remove_dir_all(&root);
        // Whoever comes second finds the same package.
        let _ = fs::rename(&staging, &root);
    }
    let _ = fs::remove_dir_all(&staging);
    result.and_then(|()| match package.join("main.js").exists() {
        true => Ok(package),
        false => Err(Unavailable(format!("{PACKAGE} has no main.js"))),
    })
}

fn install(prefix: &Path) -> Result<(), Unavailable> {
    let mut npm = Command::new("npm")
        .args([
            "install",
            "--no-audit",
            "--no-fund",
            "--no-save",
            "--ignore-scripts",
            "--prefix",
        ])
        .arg(prefix)
        .arg(PACKAGE)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| Unavailable(format!("cannot start npm: {error}")))?;
    let deadline = Instant::now() + INSTALL_DEADLINE;
    loop {
        match npm.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => {
                return Err(Unavailable(format!(
                    "npm install {PACKAGE} failed with {status}"
                )));
            }
            Ok(None) if Instant::now() < deadline => thread::sleep(POLL),
            Ok(None) => {
                let _ = npm.kill();
                let _ = npm.wait();
                return Err(Unavailable(format!(
                    "npm install {PACKAGE} took over {INSTALL_DEADLINE:?}"
                )));
            }
            Err(error) => return Err(Unavailable(format!("npm: {error}"))),
        }
    }
}
