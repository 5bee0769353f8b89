//! What the whole-process tests share: starting the tool and the stand-ins, and ending them.
//!
//! Every process is started on loopback with free ports, by the test that needs it, and ended
//! when its handle is dropped. Nothing here sleeps: waiting is reading a line or an exit status,
//! or asking a condition again until a deadline.

pub mod certificates;
pub mod checker;
pub mod config;
pub mod fleet;
pub mod kill_run;
pub mod on_cluster;
pub mod on_scripted;
pub mod pipeline;
pub mod process;
pub mod profiles;
pub mod python;
pub mod scripted_cluster;
pub mod seed;
pub mod stand_ins;
pub mod sts;
pub mod topic_rules;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// How long any one wait of a test may take; generous, because machines are slow and shared.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// Asks until the answer is something, or the deadline has passed.
///
/// # Errors
/// Names `what` was waited for.
pub async fn eventually<T, F>(what: &str, ask: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    eventually_every(Duration::from_millis(20), what, ask).await
}

/// The same with a pause of its own between two questions, where each of them is work: a process that those asked
/// about would wait for.
///
/// # Errors
/// Names `what` was waited for.
pub async fn eventually_every<T, F>(
    pause: Duration,
    what: &str,
    mut ask: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        anyhow::ensure!(start.elapsed() < DEADLINE, "no {what} after {DEADLINE:?}");
        tokio::time::sleep(pause).await;
    }
}

/// The dead-letter file of the one sink that keeps its state below a folder.
///
/// # Errors
/// When there is none, or more than one.
pub fn dead_letter_file(folder: &Path) -> anyhow::Result<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.ends_with("dead-letters.jsonl") {
                found.push(path);
            }
        }
    }
    let file = found.pop().filter(|_| found.is_empty());
    file.with_context(|| format!("not one dead-letter file below {}", folder.display()))
}

/// Announces a test that cannot run here, past the test harness, which keeps what a passing
/// test prints to itself.
pub fn announce_skipped(test: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
}

/// The committed SmartModule.
pub const PACK_WASM: &[u8] = include_bytes!("../../smartmodules/pack/pack.wasm");
