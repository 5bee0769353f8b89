//! The `millpond` process of a test.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::DEADLINE;

/// A command that knows nothing of the AWS settings of whoever runs the tests.
#[must_use]
pub fn command(binary: &str, arguments: &[&str], environment: &[(String, String)]) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AWS_") {
            command.env_remove(name);
        }
    }
    command
        .args(arguments)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env_remove("RUST_LOG")
        .env("NO_COLOR", "1")
        .envs(environment.iter().map(|(name, value)| (name, value)));
    command
}

/// Runs a command to its end.
///
/// # Errors
/// When it cannot be started, or does not end before the deadline.
pub fn run(command: &mut Command) -> Result<Output> {
    let mut running = Running::start(command)?;
    let status = running.wait()?;
    let stderr = running.stderr.rest();
    let stdout = running.stdout.rest_bytes();
    Ok(Output {
        status,
        stdout,
        stderr: stderr.into_bytes(),
    })
}

/// Text of a finished process's stderr.
#[must_use]
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Text of a finished process's stdout.
#[must_use]
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A process that runs until it ends or its handle is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

#[derive(Debug)]
struct Lines {
    receiver: Receiver<Vec<u8>>,
    /// What was received, newlines included.
    seen: Vec<u8>,
}

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream
                .read_until(b'\n', &mut line)
                .is_ok_and(|length| length > 0)
            {
                if sender.send(std::mem::take(&mut line)).is_err() {
                    break;
                }
            }
        });
        Self {
            receiver,
            seen: Vec::new(),
        }
    }

    fn next(&mut self, wait: Duration) -> Option<String> {
        let line = self.receiver.recv_timeout(wait).ok()?;
        self.seen.extend_from_slice(&line);
        Some(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    fn rest_bytes(&mut self) -> Vec<u8> {
        while self.next(DEADLINE).is_some() {}
        std::mem::take(&mut self.seen)
    }

    fn rest(&mut self) -> String {
        String::from_utf8_lossy(&self.rest_bytes()).into_owned()
    }
}

impl Running {
    /// Starts a command with its output captured and its stdin held open.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let stderr = child.stderr.take().context("stderr is piped")?;
        Ok(Self {
            child,
            stdout: Lines::of(stdout),
            stderr: Lines::of(stderr),
        })
    }

    /// Process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Reads stdout up to and including the first line that contains `text`.
    ///
    /// # Errors
    /// When the process ends or the deadline passes first; shows what it said.
    pub fn stdout_line(&mut self, text: &str) -> Result<String> {
        Self::line(&mut self.stdout, text, "stdout")
            .with_context(|| format!("stderr so far:\n{}", self.stderr_so_far()))
    }

    /// Reads stderr up to and including the first line that contains `text`.
    ///
    /// # Errors
    /// When the process ends or the deadline passes first; shows what it said.
    pub fn stderr_line(&mut self, text: &str) -> Result<String> {
        Self::line(&mut self.stderr, text, "stderr")
    }

    fn line(lines: &mut Lines, text: &str, name: &str) -> Result<String> {
        let start = Instant::now();
        while start.elapsed() < DEADLINE {
            match lines.next(DEADLINE.saturating_sub(start.elapsed())) {
                Some(line) if line.contains(text) => return Ok(line),
                Some(_) => {}
                None => break,
            }
        }
        bail!("no `{text}` on {name}, only:\n{}", lines.seen());
    }

    /// What it has written to stderr so far.
    pub fn stderr_so_far(&mut self) -> String {
        while self.stderr.next(Duration::ZERO).is_some() {}
        self.stderr.seen()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("process id")?;
        kill_process(pid, signal).context("cannot signal the process")
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When the deadline passes first; shows what it said.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                start.elapsed() < DEADLINE,
                "did not end; stderr so far:\n{}",
                self.stderr_so_far()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// True while it runs.
    ///
    /// # Errors
    /// When the system will not say.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Everything it wrote to stdout and stderr, once it has ended.
    pub fn rest(&mut self) -> (String, String) {
        (self.stdout.rest(), self.stderr.rest())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// True when a program of this name can be started.
#[must_use]
pub fn is_installed(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|dir| is_file(&dir.join(OsStr::new(program))))
    })
}

fn is_file(path: &Path) -> bool {
    path.is_file()
}
