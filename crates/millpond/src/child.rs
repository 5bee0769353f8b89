//! Child processes of the same binary, which never outlive their parent.
//!
//! A child watches its stdin: when the parent ends, however it ends, the pipe closes and
//! the child follows. A parent that ends in good order closes the pipe itself.

use std::future::Future;
use std::io::Read as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{ChildStdout, Command};
use tokio::sync::oneshot;

/// Time that a child has to end once its stdin is closed.
const END_LIMIT: Duration = Duration::from_secs(3);

/// A running child; killed when dropped.
#[derive(Debug)]
pub struct Child {
    name: &'static str,
    process: tokio::process::Child,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Child {
    /// Starts this binary again with `args`.
    ///
    /// # Errors
    /// When the binary cannot be found or started.
    pub fn spawn(
        name: &'static str,
        args: &[String],
        environment: &[(String, String)],
    ) -> Result<Self> {
        let binary = std::env::current_exe().context("cannot find the running binary")?;
        let mut process = Command::new(&binary)
            .args(args)
            .envs(environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            // A Ctrl-C of the terminal is for the parent, which ends its children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start `{}` for `{name}`", binary.display()))?;
        let stdout = process.stdout.take().context("child has no stdout")?;
        Ok(Self {
            name,
            process,
            stdout: BufReader::new(stdout).lines(),
        })
    }

    /// The next line of the child's stdout.
    ///
    /// # Errors
    /// When the child closed it, with how the child ended.
    pub async fn line(&mut self) -> Result<String> {
        match self.stdout.next_line().await {
            Ok(Some(line)) => Ok(line),
            Ok(None) => {
                let status = self.process.wait().await?;
                bail!(
                    "child `{}` ended early ({status}); its own message is above",
                    self.name
                )
            }
            Err(error) => Err(error).with_context(|| format!("cannot read from `{}`", self.name)),
        }
    }

    /// Waits until the child ends by itself.
    ///
    /// # Errors
    /// When it cannot be waited for, or ended with a failure.
    pub async fn finished(&mut self) -> Result<()> {
        let status = self.process.wait().await?;
        self.checked(status)
    }

    /// Asks the child to end by closing its stdin; kills it if it does not.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn end(mut self) -> Result<()> {
        drop(self.process.stdin.take());
        if tokio::time::timeout(END_LIMIT, self.process.wait())
            .await
            .is_err()
        {
            self.process.kill().await?;
        }
        Ok(())
    }

    fn checked(&self, status: ExitStatus) -> Result<()> {
        if !status.success() {
            bail!(
                "child `{}` failed ({status}); its own message is above",
                self.name
            );
        }
        Ok(())
    }
}

/// Resolves when stdin closes, that is when the parent is gone or wants this process to end.
///
/// # Errors
/// When the watching thread cannot be started.
pub fn parent_gone() -> Result<impl Future<Output = ()>> {
    let (gone, watched) = oneshot::channel();
    // A plain thread: a blocking read on the runtime would hold up its shutdown.
    std::thread::Builder::new()
        .name("parent-watch".to_owned())
        .spawn(move || {
            let mut ignored = [0; 64];
            while matches!(std::io::stdin().read(&mut ignored), Ok(count) if count > 0) {}
            let _ = gone.send(());
        })
        .context("cannot start a thread")?;
    Ok(async {
        let _ = watched.await;
    })
}
