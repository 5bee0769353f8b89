//! `millpond status`: what runs on the cluster and how far behind it is.
//!
//! What cannot be asked is said, and what can be is shown all the same. It ends with 0 when the
//! cluster answered everything, whatever the answers were, and with 1 when it did not.

use std::fmt::Write as _;

use anyhow::Result;
use millpond_connector::secret::SecretStore;
use serde::Serialize;

use crate::cli::StatusArgs;
use crate::cluster::api::ClusterApi;
use crate::cluster::cdk::{Cdk, Listed};
use crate::cluster::fluvio;
use crate::cluster::lag::{PartitionStatus, join};
use crate::cluster::observe::processes;
use crate::cluster::pipeline::{ClusterPipeline, WantedTopic};
use crate::commands::deploy::deployment_dir;
use crate::commands::{print, say};
use crate::exit::Exit;

/// What `status` shows, and its JSON form.
#[derive(Debug, Default, Serialize)]
struct Status {
    connectors: Vec<ConnectorStatus>,
    topics: Vec<TopicStatus>,
    partitions: Vec<PartitionStatus>,
    /// What could not be asked, and why.
    unknown: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ConnectorStatus {
    name: String,
    #[serde(rename = "type")]
    type_name: String,
    topic: String,
    state: State,
    pid: Option<u32>,
    log: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Running,
    /// In cdk's list, without a process.
    Ended,
    NotDeployed,
    /// There is no cdk to ask.
    Unknown,
}

impl State {
    const fn words(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Ended => "ended",
            Self::NotDeployed => "not deployed",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Debug, Serialize)]
struct TopicStatus {
    name: String,
    exists: bool,
    partitions: Option<u32>,
    /// Whether any sink has committed an offset of it; `None` when that could not be asked.
    committed: Option<bool>,
}

/// Runs `millpond status`.
///
/// # Errors
/// When the file cannot be read.
pub async fn run(args: StatusArgs) -> Result<Exit> {
    let secrets = SecretStore::open(args.secrets.as_deref())?;
    let Some(wanted) = ClusterPipeline::load(&args.config, &secrets)? else {
        return Ok(Exit::Configuration);
    };
    let dir = deployment_dir(&args.data_dir)?;
    let mut status = Status::default();
    // Offsets can be shown without cdk, on a machine that has only the cluster in reach.
    let listed = match Cdk::find().and_then(|cdk| cdk.list()) {
        Ok(listed) => Some(listed),
        Err(error) => {
            status.cannot("the state of connectors", &error);
            None
        }
    };
    for connector in &wanted.connectors {
        let known = listed
            .as_ref()
            .and_then(|listed| listed.iter().find(|listed| listed.name == connector.name));
        let strays = processes(&dir, &connector.name);
        status.connectors.push(ConnectorStatus {
            name: connector.name.clone(),
            type_name: connector.type_name.clone(),
            topic: connector.topic.clone(),
            state: state(listed.is_some(), known, !strays.is_empty()),
            pid: known
                .filter(|known| known.running)
                .and_then(|known| known.pid)
                .or(strays.first().copied()),
            log: known
                .and_then(|known| known.log.as_ref())
                .map(|log| log.display().to_string()),
        });
    }
    let before = status.unknown.len();
    match fluvio::connect(&args.cluster).await {
        Ok(cluster) => status.ask(cluster.as_ref(), &wanted.topics).await,
        Err(error) => status.cannot("the state of topics", &error),
    }
    print(&match args.json {
        true => serde_json::to_string(&status)?,
        false => table(&status).trim_end().to_owned(),
    })?;
    for one in &status.unknown {
        say(one);
    }
    Ok(match status.unknown.len() == before {
        true => Exit::Success,
        false => Exit::Failure,
    })
}

impl Status {
    fn cannot(&mut self, what: &str, error: &anyhow::Error) {
        self.unknown.push(format!("{what} is not known: {error:#}"));
    }

    async fn ask(&mut self, cluster: &dyn ClusterApi, topics: &[WantedTopic]) {
        let asked = cluster.committed().await;
        let asked = asked.inspect_err(|error| self.cannot("how far the sinks have come", error));
        let is_known = asked.is_ok();
        let committed = asked.unwrap_or_default();
        for topic in topics {
            let name = &topic.settings.name;
            let facts = match cluster.topic(name).await {
                Ok(facts) => facts,
                Err(error) => {
                    self.cannot(&format!("the state of topic `{name}`"), &error);
                    continue;
                }
            };
            if facts.is_some() {
                match cluster.partitions(name).await {
                    Ok(found) => self.partitions.extend(join(name, &found, &committed)),
                    Err(error) => {
                        self.cannot(&format!("the state of topic `{name}`'s partitions"), &error);
                    }
                }
            }
            self.topics.push(TopicStatus {
                name: name.clone(),
                exists: facts.is_some(),
                partitions: facts.map(|facts| facts.partitions),
                committed: is_known.then(|| committed.iter().any(|one| one.topic == *name)),
            });
        }
    }
}

fn state(cdk: bool, known: Option<&Listed>, has_process: bool) -> State {
    match known {
        _ if has_process => State::Running,
        Some(known) if known.running => State::Running,
        Some(_) => State::Ended,
        None if cdk => State::NotDeployed,
        None => State::Unknown,
    }
}

fn table(status: &Status) -> String {
    let mut text = String::new();
    let widest =
        |names: &mut dyn Iterator<Item = usize>, least: usize| names.max().unwrap_or(0).max(least);
    let name = widest(&mut status.connectors.iter().map(|one| one.name.len()), 9);
    let kind = widest(
        &mut status.connectors.iter().map(|one| one.type_name.len()),
        4,
    );
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{:name$}  {:kind$}  {:12}  PROCESS",
        "CONNECTOR", "TYPE", "STATE"
    );
    for one in &status.connectors {
        let pid = one
            .pid
            .map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let _ = writeln!(
            text,
            "{:name$}  {:kind$}  {:12}  {pid}",
            one.name,
            one.type_name,
            one.state.words()
        );
    }
    for topic in status.topics.iter().filter(|topic| !topic.exists) {
        let _ = writeln!(
            text,
            "\ntopic `{}` does not exist; `millpond deploy` creates it",
            topic.name
        );
    }
    for topic in &status.topics {
        if topic.exists && topic.committed == Some(false) {
            let _ = writeln!(
                text,
                "\nno sink has committed anything of topic `{}` yet",
                topic.name
            );
        }
    }
    if status.partitions.is_empty() {
        return text;
    }
    let topic = widest(&mut status.partitions.iter().map(|one| one.topic.len()), 5);
    let _ = writeln!(
        text,
        "\n{:topic$}  PARTITION  {:>12}  {:>12}  {:>12}  {:>12}  CONSUMER",
        "TOPIC", "FIRST", "END", "COMMITTED", "LAG"
    );
    for one in &status.partitions {
        let first = one
            .first
            .map_or_else(|| "-".to_owned(), |first| first.to_string());
        let head = format!(
            "{:topic$}  {:>9}  {first:>12}  {:>12}",
            one.topic, one.partition, one.end
        );
        if one.consumers.is_empty() {
            let _ = writeln!(text, "{head}  {:>12}  {:>12}  -", "-", "-");
        }
        for consumer in &one.consumers {
            let _ = writeln!(
                text,
                "{head}  {:>12}  {:>12}  {}",
                consumer.committed, consumer.lag, consumer.consumer
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::lag::ConsumerStatus;

    fn listed(running: bool) -> Listed {
        Listed {
            name: "a".to_owned(),
            running,
            pid: None,
            log: None,
        }
    }

    #[test]
    fn a_state_is_what_the_process_says_first() {
        for (cdk, known, process, expected) in [
            (true, Some(listed(true)), false, State::Running),
            (true, Some(listed(false)), false, State::Ended),
            (true, Some(listed(false)), true, State::Running),
            (true, None, true, State::Running),
            (true, None, false, State::NotDeployed),
            (false, None, false, State::Unknown),
        ] {
            assert_eq!(state(cdk, known.as_ref(), process), expected);
        }
    }

    #[test]
    fn tables_line_up() {
        let status = Status {
            connectors: vec![ConnectorStatus {
                name: "events-source".to_owned(),
                type_name: "kinesis-source".to_owned(),
                topic: "events".to_owned(),
                state: State::Running,
                pid: Some(7),
                log: None,
            }],
            topics: vec![TopicStatus {
                name: "gone".to_owned(),
                exists: false,
                partitions: None,
                committed: None,
            }],
            unknown: Vec::new(),
            partitions: vec![PartitionStatus {
                topic: "events".to_owned(),
                partition: 0,
                first: None,
                end: 1200,
                consumers: vec![ConsumerStatus {
                    consumer: "sink".to_owned(),
                    committed: 1000,
                    lag: 200,
                }],
            }],
        };
        let expected = "\
CONNECTOR      TYPE            STATE         PROCESS
events-source  kinesis-source  running       7

topic `gone` does not exist; `millpond deploy` creates it

TOPIC   PARTITION         FIRST           END     COMMITTED           LAG  CONSUMER
events          0             -          1200          1000           200  sink
";
        assert_eq!(table(&status), expected);
    }
}
