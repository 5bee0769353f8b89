//! `millpond run`: the connectors of a file, in this process.

use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use millpond_connector::drain;
use millpond_connector::logging;
use millpond_connector::manifest::{Pipeline, Validation};
use millpond_connector::secret::SecretStore;
use millpond_observe::traces::Traces;
use millpond_observe::{Phase, Process, Server};
use tokio_util::sync::CancellationToken;

use crate::cli::RunArgs;
use crate::commands::{print_problems, say};
use crate::connectors::validate_path;
use crate::data_dir::DataDir;
use crate::exit::Exit;
use crate::progress::Progress;
use crate::report::grouped;
use crate::runtime::{DRAIN_LIMIT, Ended, Runtime, Until, Watched};

/// Without a terminal: a line of progress so often.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

const REFRESH_INTERVAL: Duration = Duration::from_millis(250);

/// Runs `millpond run`.
///
/// # Errors
/// The first failure of a connector.
pub async fn run(args: RunArgs) -> Result<Exit> {
    let secrets = SecretStore::open(args.secrets.as_deref())?;
    let traces = Traces::from_process()?;
    let layer = traces.as_ref().map(Traces::layer);
    logging::init(args.log_format, secrets.redactor(), layer)?;
    let drain = drain::on_signals().context("cannot install the signal handlers")?;
    let Some(pipeline) = load(&args.config, &secrets)? else {
        return Ok(Exit::Configuration);
    };
    let process = Arc::new(Process::new(env!("CARGO_PKG_VERSION")));
    let _server = match &args.http {
        Some(address) => Some(Server::bind(address, Arc::clone(&process)).await?),
        None => None,
    };
    let data_dir = DataDir::open(&args.data_dir)?;
    let runtime = tokio::select! {
        runtime = Runtime::build(pipeline, data_dir) => runtime?,
        () = drain.cancelled() => return Ok(Exit::Success),
    };
    let until = if args.until_caught_up {
        Until::CaughtUp
    } else {
        Until::Told
    };
    runtime.show_in(&process);
    process.enter(Phase::Running);
    let leaving = tokio::spawn({
        let (process, drain) = (Arc::clone(&process), drain.clone());
        async move {
            drain.cancelled().await;
            process.enter(Phase::Draining);
        }
    });
    let watched = runtime.watched().to_vec();
    let shown = CancellationToken::new();
    let progress = tokio::spawn(show(watched, shown.clone()));
    let ended = runtime.run(drain, until, Some(DRAIN_LIMIT)).await;
    leaving.abort();
    shown.cancel();
    progress.await.context("cannot show progress")?;
    if ended? == Ended::LimitReached {
        say(&format!(
            "run: drained for {} s, the rest stays in the topic and is committed after the next start",
            DRAIN_LIMIT.as_secs()
        ));
    }
    Ok(Exit::Success)
}

fn load(path: &Path, secrets: &SecretStore) -> Result<Option<Pipeline>> {
    let Validation { problems, pipeline } = validate_path(path, secrets)?;
    print_problems(&problems);
    Ok(pipeline)
}

async fn show(watched: Vec<Watched>, shown: CancellationToken) {
    // On a terminal the log scrolls above; elsewhere lines are sparse.
    let is_terminal = std::io::stderr().is_terminal();
    let mut progress = Progress::start("run", None, LINE_INTERVAL);
    let every = if is_terminal {
        REFRESH_INTERVAL
    } else {
        Duration::from_secs(1)
    };
    while tokio::time::timeout(every, shown.cancelled())
        .await
        .is_err()
    {
        progress.update(0, || summary(&watched));
    }
    progress.finish(&summary(&watched));
}

/// One line over all connectors.
#[must_use]
pub fn summary(watched: &[Watched]) -> String {
    let sum = |counter: fn(&millpond_connector::metrics::Metrics) -> u64| -> u64 {
        watched
            .iter()
            .map(|watched| counter(&watched.metrics))
            .sum()
    };
    let mut text = format!(
        "read {} events ({:.1} MB), wrote {} events in {} items",
        grouped(sum(|m| m.source_events.get())),
        sum(|m| m.source_bytes.get()) as f64 / 1e6,
        grouped(sum(|m| m.sink_events.get())),
        grouped(sum(|m| m.items.get())),
    );
    for (name, count) in [
        (
            "write units",
            sum(|m| m.write_units_reported_milli.get()) / 1_000,
        ),
        ("dead letters", sum(|m| m.dead_letters.get())),
        ("duplicates dropped", sum(|m| m.duplicates_dropped.get())),
        ("gaps recorded", sum(|m| m.gaps.get())),
        (
            "throttles",
            sum(|m| m.sink_throttles.get() + m.source_throttles.get()),
        ),
    ] {
        if count > 0 {
            text.push_str(&format!(", {} {name}", grouped(count)));
        }
    }
    text
}
