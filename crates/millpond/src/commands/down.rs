//! `millpond down`: stops what `deploy` started.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use millpond_connector::registry::Direction;
use millpond_connector::secret::SecretStore;

use crate::cli::DownArgs;
use crate::cluster::cdk::Cdk;
use crate::cluster::observe::processes;
use crate::cluster::pipeline::ClusterPipeline;
use crate::cluster::process::{self, Life};
use crate::commands::deploy::deployment_dir;
use crate::commands::{print, say};
use crate::data_dir::DataDir;
use crate::exit::Exit;

/// A connector drains within 30 s of SIGTERM; a loaded machine gets twice that.
const WAIT: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(50);

/// Runs `millpond down`.
///
/// # Errors
/// When cdk fails, or a connector does not end.
pub async fn run(args: DownArgs) -> Result<Exit> {
    let secrets = SecretStore::open(args.secrets.as_deref())?;
    let Some(wanted) = ClusterPipeline::load(&args.config, &secrets)? else {
        return Ok(Exit::Configuration);
    };
    let dir = deployment_dir(&args.data_dir)?;
    let cdk = Cdk::find()?;
    let _held = match dir.exists() {
        true => Some(DataDir::open(&dir)?),
        false => None,
    };
    let mut stopped = 0;
    // What a source has put into the topic, its sink can still write.
    for direction in [Direction::Source, Direction::Sink] {
        let connectors = wanted.connectors.iter();
        for connector in connectors.filter(|connector| connector.direction == direction) {
            stopped += usize::from(stop(&cdk, &dir, &connector.name).await?);
        }
    }
    if stopped == 0 {
        print("nothing to do: no connector of the file is deployed")?;
    }
    Ok(Exit::Success)
}

/// True when there was something to stop.
async fn stop(cdk: &Cdk, dir: &Path, name: &str) -> Result<bool> {
    let listed = cdk.list()?;
    let known = listed.iter().find(|listed| listed.name == name);
    let strays = processes(dir, name);
    let Some(known) = known else {
        return match strays.first() {
            None => Ok(false),
            Some(pid) => bail!(
                "connector `{name}` runs as process {pid}, but cdk has no such connector in its list \
                 (was it started with another TMPDIR?); end it with `kill {pid}`"
            ),
        };
    };
    let pid = known.pid.or(strays.first().copied());
    if known.running {
        let process = pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
        say(&format!("stopping `{name}`{process}, which drains first"));
    }
    cdk.shutdown(name)?;
    wait(dir, name, pid).await?;
    print(&match known.running {
        true => format!("stopped `{name}`"),
        false => format!("`{name}` had ended already; taken off cdk's list"),
    })?;
    Ok(true)
}

async fn wait(dir: &Path, name: &str, pid: Option<u32>) -> Result<()> {
    let begin = Instant::now();
    loop {
        let listed = pid.filter(|pid| process::life(*pid) == Life::Running);
        let Some(pid) = listed.or_else(|| processes(dir, name).first().copied()) else {
            return Ok(());
        };
        if begin.elapsed() > WAIT {
            bail!(
                "connector `{name}` still runs as process {pid}, {} s after SIGTERM; look into its log, \
                 or end it with `kill -9 {pid}`: nothing is lost by that",
                WAIT.as_secs()
            );
        }
        tokio::time::sleep(POLL).await;
    }
}
