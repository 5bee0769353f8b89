//! What must be done to a cluster: decided here, without touching anything.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use millpond_connector::meta::Compression;

use super::pipeline::{ClusterPipeline, WantedConnector, WantedTopic};

/// What there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actual {
    /// Topics of the file that exist, by name.
    pub topics: BTreeMap<String, TopicFacts>,
    /// SmartModules of the file that exist, by name on the cluster: true when they are the same.
    pub modules: BTreeMap<String, bool>,
    /// Connectors in cdk's list, by name: true while they run.
    pub connectors: BTreeMap<String, bool>,
    /// Documents that were split off before, by connector.
    pub documents: BTreeMap<String, String>,
}

/// A topic as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicFacts {
    /// Number of partitions.
    pub partitions: u32,
    /// Copies of each, unless they were placed by hand.
    pub replication: Option<u32>,
    /// Oldest age kept.
    pub retention: Option<Duration>,
    /// Size of a segment.
    pub segment_bytes: Option<u64>,
    /// Compression that it asks for; without one, any.
    pub compression: Option<Compression>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Create a topic, by name.
    CreateTopic(String),
    /// Upload a SmartModule, by its name on the cluster.
    UploadModule {
        /// Its name.
        name: String,
        /// Another one has that name now.
        replaces: bool,
    },
    /// Write a connector's document into its file.
    WriteDocument(String),
    /// Take a connector that has ended off cdk's list.
    Forget(String),
    /// Start a connector.
    Start(String),
}

/// Why nothing is done: what is there is not what is wanted, and changing it is not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What differs.
    pub what: String,
    /// What to do about it.
    pub help: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.help)
    }
}

/// Steps from what is to what is wanted, in order; none when all is as wanted.
///
/// # Errors
/// All differences that only the operator may resolve.
pub fn plan(actual: &Actual, wanted: &ClusterPipeline) -> Result<Vec<Step>, Vec<Difference>> {
    let mut steps = Vec::new();
    let mut differences = Vec::new();
    for topic in &wanted.topics {
        match actual.topics.get(&topic.settings.name) {
            None if topic.settings.not_made.is_empty() => {
                compare_producer(topic, topic.settings.compression, &mut differences);
                steps.push(Step::CreateTopic(topic.settings.name.clone()));
            }
            None => differences.push(Difference {
                what: format!(
                    "topic `{}` is not there, and Millpond makes no topic with `{}`",
                    topic.settings.name,
                    topic.settings.not_made.join("`, `")
                ),
                help: "create it with `fluvio topic create --config FILE`, then deploy again"
                    .to_owned(),
            }),
            Some(facts) => compare_topic(topic, facts, &mut differences),
        }
    }
    let is_running = |name: &String| actual.connectors.get(name) == Some(&true);
    for module in &wanted.modules {
        let replaces = match actual.modules.get(&module.name) {
            Some(true) => continue,
            Some(false) => true,
            None => false,
        };
        let users: Vec<&String> = module
            .used_by
            .iter()
            .filter(|name| is_running(name))
            .collect();
        if let (true, Some(user)) = (replaces, users.first()) {
            differences.push(Difference {
                what: format!(
                    "SmartModule `{}` on the cluster is not the one of this program, and `{user}` is running with it",
                    module.name
                ),
                help: "run `millpond down` with the program that deployed it, so that no plan is left open, then deploy again"
                    .to_owned(),
            });
            continue;
        }
        steps.push(Step::UploadModule {
            name: module.name.clone(),
            replaces,
        });
    }
    for connector in &wanted.connectors {
        plan_connector(actual, connector, &mut steps, &mut differences);
    }
    match differences.is_empty() {
        true => Ok(steps),
        false => Err(differences),
    }
}

fn plan_connector(
    actual: &Actual,
    wanted: &WantedConnector,
    steps: &mut Vec<Step>,
    differences: &mut Vec<Difference>,
) {
    let name = &wanted.name;
    let document = actual.documents.get(name);
    let listed = actual.connectors.get(name);
    if listed == Some(&true) {
        let what = match document {
            Some(text) if *text == wanted.text => return,
            Some(_) => "is running with another configuration than this file's",
            None => "is running, but was not deployed from this data directory",
        };
        differences.push(Difference {
            what: format!("connector `{name}` {what}"),
            help: format!(
                "end it with `millpond down` or `cdk deploy shutdown --name {name}`, then deploy again"
            ),
        });
        return;
    }
    if document != Some(&wanted.text) {
        steps.push(Step::WriteDocument(name.clone()));
    }
    if listed == Some(&false) {
        steps.push(Step::Forget(name.clone()));
    }
    steps.push(Step::Start(name.clone()));
}

fn compare_topic(wanted: &WantedTopic, facts: &TopicFacts, differences: &mut Vec<Difference>) {
    let settings = &wanted.settings;
    let mut differ = |what: &str, is: String, should: String, help: &str| {
        differences.push(Difference {
            what: format!(
                "topic `{}` has {what} {is}, the file says {should}",
                settings.name
            ),
            help: help.to_owned(),
        });
    };
    if let Some(partitions) = settings.partitions
        && partitions != facts.partitions
    {
        differ(
            "partitions:",
            facts.partitions.to_string(),
            partitions.to_string(),
            "set `topic-partitions` (or `partition.count`) to what it has, or use another topic: events keep their partition",
        );
    }
    if let (Some(wanted), Some(is)) = (settings.replication, facts.replication)
        && wanted != is
    {
        differ("replication:", is.to_string(), wanted.to_string(), RECREATE);
    }
    if let Some(retention) = settings.retention_time
        && facts.retention != Some(retention)
    {
        differ(
            "retention",
            facts
                .retention
                .map_or_else(|| "of the cluster's default".to_owned(), seconds),
            seconds(retention),
            RECREATE,
        );
    }
    if let Some(segment) = settings.segment_bytes
        && facts.segment_bytes != Some(segment)
    {
        let is = facts.segment_bytes;
        differ(
            "segment size",
            is.map_or_else(
                || "of the cluster's default".to_owned(),
                |bytes| format!("{bytes} bytes"),
            ),
            format!("{segment} bytes"),
            RECREATE,
        );
    }
    let is = facts.compression.unwrap_or(Compression::Any);
    match settings.compression {
        Some(asked) if asked != is => differ("compression", words(is), words(asked), RECREATE),
        _ => compare_producer(wanted, facts.compression, differences),
    }
}

/// Whether a topic that takes `taken` takes what the file's source sends.
fn compare_producer(
    wanted: &WantedTopic,
    taken: Option<Compression>,
    differences: &mut Vec<Difference>,
) {
    let (Some(sent), Some(taken)) = (wanted.compression, taken) else {
        return;
    };
    if taken != Compression::Any && sent != Compression::Any && taken != sent {
        differences.push(Difference {
            what: format!(
                "topic `{}` takes compression {}, and `producer.compression` is {}",
                wanted.settings.name,
                words(taken),
                words(sent)
            ),
            help: "make them equal, or leave `producer.compression` out".to_owned(),
        });
    }
}

fn words(compression: Compression) -> String {
    format!("{compression:?}").to_lowercase()
}

const RECREATE: &str = "change the file, or use another topic: Fluvio does not change an existing one, and deleting it loses what no sink has written yet";

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
