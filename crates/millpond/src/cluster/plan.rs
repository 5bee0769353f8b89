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
            None => steps.push(Step::CreateTopic(topic.settings.name.clone())),
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
    if let (Some(wanted), Some(is)) = (wanted.compression, facts.compression)
        && is != Compression::Any
        && wanted != Compression::Any
        && is != wanted
    {
        differ(
            "compression",
            format!("{is:?}").to_lowercase(),
            format!("{wanted:?}").to_lowercase(),
            "set `producer.compression` to what it has, or use another topic",
        );
    }
}

const RECREATE: &str = "change the file, or use another topic: Fluvio does not change an existing one, and deleting it loses what no sink has written yet";

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::pipeline::WantedModule;
    use millpond_connector::meta::TopicSettings;
    use millpond_connector::registry::Direction;

    fn wanted() -> ClusterPipeline {
        let connector = |name: &str, direction| WantedConnector {
            name: name.to_owned(),
            type_name: "t".to_owned(),
            direction,
            topic: "events".to_owned(),
            text: format!("meta: {name}\n"),
        };
        ClusterPipeline {
            topics: vec![WantedTopic {
                settings: TopicSettings {
                    partitions: Some(4),
                    ..TopicSettings::named("events".to_owned())
                },
                compression: None,
            }],
            modules: vec![WantedModule {
                uses: "millpond/pack@0.1.0".to_owned(),
                name: "pack".to_owned(),
                wasm: b"wasm",
                used_by: vec!["sink".to_owned()],
            }],
            connectors: vec![
                connector("source", Direction::Source),
                connector("sink", Direction::Sink),
            ],
        }
    }

    /// What a cluster looks like after these steps.
    fn after(mut actual: Actual, steps: &[Step], wanted: &ClusterPipeline) -> Actual {
        for step in steps {
            match step {
                Step::CreateTopic(name) => {
                    let topic = wanted
                        .topics
                        .iter()
                        .find(|topic| topic.settings.name == *name);
                    let settings = &topic.expect("a topic of the file").settings;
                    let facts = TopicFacts {
                        partitions: settings.partitions.expect("always said"),
                        retention: settings.retention_time,
                        segment_bytes: settings.segment_bytes,
                        compression: None,
                    };
                    actual.topics.insert(name.clone(), facts);
                }
                Step::UploadModule { name, .. } => {
                    actual.modules.insert(name.clone(), true);
                }
                Step::WriteDocument(name) => {
                    let connector = wanted.connectors.iter().find(|one| one.name == *name);
                    let text = connector.expect("a connector of the file").text.clone();
                    actual.documents.insert(name.clone(), text);
                }
                Step::Forget(name) => {
                    assert_eq!(actual.connectors.remove(name), Some(false), "{name}");
                }
                Step::Start(name) => {
                    let before = actual.connectors.insert(name.clone(), true);
                    assert_eq!(before, None, "a taken name is not started again: {name}");
                }
            }
        }
        actual
    }

    fn done() -> Actual {
        let wanted = wanted();
        let steps = plan(&Actual::default(), &wanted).expect("a plan");
        after(Actual::default(), &steps, &wanted)
    }

    fn start(name: &str) -> Step {
        Step::Start(name.to_owned())
    }

    #[test]
    fn the_first_time_does_everything_in_order() {
        let steps = plan(&Actual::default(), &wanted()).expect("a plan");
        assert_eq!(
            steps,
            [
                Step::CreateTopic("events".to_owned()),
                Step::UploadModule {
                    name: "pack".to_owned(),
                    replaces: false
                },
                Step::WriteDocument("source".to_owned()),
                start("source"),
                Step::WriteDocument("sink".to_owned()),
                start("sink"),
            ]
        );
    }

    #[test]
    fn the_second_time_does_nothing() {
        assert_eq!(plan(&done(), &wanted()), Ok(vec![]));
    }

    #[test]
    fn from_any_half_way_it_gets_there_and_stays() {
        let wanted = wanted();
        let all = plan(&Actual::default(), &wanted).expect("a plan");
        for begun in 0..all.len() {
            let half = after(Actual::default(), &all[..begun], &wanted);
            let rest = plan(&half, &wanted).expect("a plan");
            assert_eq!(rest, all[begun..], "after {begun} steps");
        }
    }

    #[test]
    fn what_has_ended_is_forgotten_first() {
        let mut actual = done();
        actual.connectors.insert("sink".to_owned(), false);
        let steps = plan(&actual, &wanted()).expect("a plan");
        assert_eq!(steps, [Step::Forget("sink".to_owned()), start("sink")]);
        assert_eq!(
            plan(&after(actual, &steps, &wanted()), &wanted()),
            Ok(vec![])
        );
    }

    #[test]
    fn another_module_is_replaced_only_when_its_users_rest() {
        let mut actual = done();
        actual.modules.insert("pack".to_owned(), false);
        let refused = plan(&actual, &wanted()).expect_err("the sink is running");
        assert!(refused[0].what.contains("`sink` is running"), "{refused:?}");
        actual.connectors.remove("sink");
        let steps = plan(&actual, &wanted()).expect("a plan");
        let upload = Step::UploadModule {
            name: "pack".to_owned(),
            replaces: true,
        };
        assert_eq!(steps, [upload, start("sink")]);
    }

    #[test]
    fn a_running_connector_is_not_changed_under_way() {
        let mut actual = done();
        actual
            .documents
            .insert("source".to_owned(), "other".to_owned());
        let refused = plan(&actual, &wanted()).expect_err("another configuration");
        assert!(
            refused[0].what.contains("another configuration"),
            "{refused:?}"
        );
        actual.documents.remove("source");
        let refused = plan(&actual, &wanted()).expect_err("unknown origin");
        assert!(refused[0].what.contains("not deployed from"), "{refused:?}");
        // Resting, it is simply written anew.
        actual.connectors.remove("source");
        let steps = plan(&actual, &wanted()).expect("a plan");
        assert_eq!(
            steps,
            [Step::WriteDocument("source".to_owned()), start("source")]
        );
    }

    #[test]
    fn every_difference_of_a_topic_is_named_at_once() {
        let mut wanted = wanted();
        wanted.topics[0].settings.retention_time = Some(Duration::from_secs(3600));
        wanted.topics[0].settings.segment_bytes = Some(1 << 20);
        wanted.topics[0].compression = Some(Compression::Zstd);
        let facts = TopicFacts {
            partitions: 2,
            retention: Some(Duration::from_secs(60)),
            segment_bytes: None,
            compression: Some(Compression::Gzip),
        };
        let mut actual = done();
        actual.topics.insert("events".to_owned(), facts);
        let texts: Vec<String> = plan(&actual, &wanted)
            .expect_err("differences")
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(texts.len(), 4, "{texts:#?}");
        for (text, part) in texts.iter().zip([
            "partitions: 2, the file says 4",
            "retention 60 s, the file says 3600 s",
            "segment size of the cluster's default, the file says 1048576 bytes",
            "compression gzip, the file says zstd",
        ]) {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn what_the_file_does_not_say_may_be_anything() {
        let mut actual = done();
        let facts = TopicFacts {
            partitions: 4,
            retention: Some(Duration::from_secs(60)),
            segment_bytes: Some(5),
            compression: Some(Compression::Gzip),
        };
        actual.topics.insert("events".to_owned(), facts);
        assert_eq!(plan(&actual, &wanted()), Ok(vec![]));
    }
}
