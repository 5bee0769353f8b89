//! `meta` of a connector document: what every connector shares, in types that cannot be wrong.

use std::time::Duration;

use crate::problem::{Problem, Problems};
use crate::raw_meta::{RawConsumer, RawMeta, RawProducer, RawTopic};
use crate::section::Section;
use crate::units::{ByteSize, HumanDuration};

pub use crate::raw_meta::{Compression, OffsetStart, OffsetStrategy};

/// Default of `meta.producer.linger`.
pub const DEFAULT_LINGER: Duration = Duration::from_millis(250);

/// Default of `meta.producer.batch-size`, bytes.
pub const DEFAULT_BATCH_BYTES: u64 = 1 << 20;

/// Longest `meta.producer.linger`.
pub const MAX_LINGER: HumanDuration = HumanDuration::from_secs(60);

/// Bounds of `meta.producer.batch-size`; the upper one is Fluvio's largest batch.
pub const BATCH_BYTES: std::ops::RangeInclusive<ByteSize> = ByteSize(1 << 10)..=ByteSize(32 << 20);

/// Most partitions of a topic.
pub const MAX_PARTITIONS: u32 = 256;

/// Most copies of a partition: more than that no cluster has a use for.
pub const MAX_REPLICATION: u32 = 16;

/// Partitions of a topic for which nothing says how many.
pub const DEFAULT_PARTITIONS: u32 = 4;

/// Who a connector is and which topic it works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Name of the connector, unique in the file: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub name: String,
    /// Type name, such as `kinesis-source`.
    pub type_name: String,
    /// The topic it fills or empties.
    pub topic: TopicSettings,
    /// Version of the connector package; only a cluster uses it.
    pub version: String,
    /// How a source makes batches.
    pub producer: ProducerSettings,
    /// How a sink reads.
    pub consumer: ConsumerSettings,
    /// Names of the secrets that may be filled in.
    pub secrets: Vec<String>,
}

/// The topic, by name (`0.0.0`, `0.1.0`) or by configuration (`0.2.0`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSettings {
    /// Topic name: 1 to 63 of `a-z 0-9 -`, Fluvio's rule.
    pub name: String,
    /// Number of partitions, where the file says it.
    pub partitions: Option<u32>,
    /// Copies of each partition, where the file says it; only a cluster uses it.
    pub replication: Option<u32>,
    /// Places copies without regard to racks, where the file says it; only a cluster uses it.
    pub ignore_rack_assignment: Option<bool>,
    /// Oldest age kept, where the file says it.
    pub retention_time: Option<Duration>,
    /// Largest size of one partition in bytes, where the file says it.
    pub max_partition_bytes: Option<u64>,
    /// Size of a segment in bytes, where the file says it; only a cluster uses it.
    pub segment_bytes: Option<u64>,
    /// The compression that producers must use, where the file says it; only a cluster uses it.
    pub compression: Option<Compression>,
    /// Settings of the file that Millpond does not make a topic with.
    pub not_made: Vec<&'static str>,
}

impl TopicSettings {
    /// A topic of which only the name is said.
    #[must_use]
    pub const fn named(name: String) -> Self {
        Self {
            name,
            partitions: None,
            replication: None,
            ignore_rack_assignment: None,
            retention_time: None,
            max_partition_bytes: None,
            segment_bytes: None,
            compression: None,
            not_made: Vec::new(),
        }
    }
}

/// `meta.producer`: how a source makes batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerSettings {
    /// A batch waits this long for more records.
    pub linger: Duration,
    /// A batch is closed once it holds this many bytes.
    pub batch_bytes: u64,
    /// Compression of batches in a cluster; the embedded topic ignores it.
    pub compression: Option<Compression>,
}

impl Default for ProducerSettings {
    fn default() -> Self {
        Self {
            linger: DEFAULT_LINGER,
            batch_bytes: DEFAULT_BATCH_BYTES,
            compression: None,
        }
    }
}

/// Which partitions a sink reads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PartitionChoice {
    /// All of the topic.
    #[default]
    All,
    /// These, in rising order, at least one.
    Some(Vec<u32>),
}

/// `meta.consumer`: how a sink reads.
///
/// Millpond's sinks keep their position in their own ledger: the embedded mode takes only
/// `partitions` from here and ignores the rest, which is kept for a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConsumerSettings {
    /// Which partitions it reads.
    pub partitions: PartitionChoice,
    /// Largest answer in bytes; only a cluster uses it.
    pub max_bytes: Option<u64>,
    /// Consumer id; only a cluster uses it.
    pub id: Option<String>,
    /// First offset; only a cluster uses it.
    pub start: Option<OffsetStart>,
    /// Who commits offsets; only a cluster uses it.
    pub strategy: Option<OffsetStrategy>,
    /// How often committed offsets are flushed; only a cluster uses it.
    pub flush_period: Option<Duration>,
}

/// A name of a pipeline or connector: 1 to 64 of `A-Z a-z 0-9 . _ -`.
#[must_use]
pub fn is_connector_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Fluvio's rule for the name of a topic: 1 to 63 of `a-z 0-9 -`, no `-` at either end.
#[must_use]
pub fn is_topic_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The topic in the form that the document's version has.
pub(crate) enum TopicForm {
    Name(Option<String>),
    Configuration(Option<RawTopic>),
}

/// `meta` as far as it could be understood.
pub(crate) struct CheckedMeta {
    /// Placeholders stand where something was missing or wrong, so that the rest can be checked.
    pub(crate) meta: Meta,
    /// The name is no placeholder.
    pub(crate) name_known: bool,
    /// The topic's name is no placeholder.
    pub(crate) topic_known: bool,
}

impl CheckedMeta {
    /// Nothing was understood.
    pub(crate) fn nothing() -> Self {
        Self::new(None, None, None)
    }

    fn new(name: Option<String>, type_name: Option<String>, topic: Option<TopicSettings>) -> Self {
        let placeholder = || "unknown".to_owned();
        Self {
            name_known: name.is_some(),
            topic_known: topic.is_some(),
            meta: Meta {
                name: name.unwrap_or_else(placeholder),
                type_name: type_name.unwrap_or_else(placeholder),
                topic: topic.unwrap_or_else(|| TopicSettings::named(placeholder())),
                version: String::new(),
                producer: ProducerSettings::default(),
                consumer: ConsumerSettings::default(),
                secrets: Vec::new(),
            },
        }
    }
}

/// Checks `meta`.
pub(crate) fn validate<T>(
    section: &Section<'_>,
    raw: RawMeta<T>,
    topic: TopicForm,
    problems: &mut Problems,
) -> CheckedMeta {
    let name = section.require(problems, "name", raw.name);
    let name = name.filter(|name| {
        check(section, problems, "name", is_connector_name(name), || {
            (
                "is no name for a connector",
                "1 to 64 of `A-Z a-z 0-9 . _ -`",
            )
        })
    });
    let type_name = section.require(problems, "type", raw.type_name);
    let version = section.require(problems, "version", raw.version);
    let topic = match topic {
        TopicForm::Name(name) => {
            let name = section.require(problems, "topic", name);
            topic_name(section, problems, "topic", name).map(TopicSettings::named)
        }
        TopicForm::Configuration(topic) => {
            let topic = section.require(problems, "topic", topic);
            topic.and_then(|topic| topic_settings(section, topic, problems))
        }
    };
    let mut checked = CheckedMeta::new(name, type_name, topic);
    let meta = &mut checked.meta;
    meta.version = version.unwrap_or_default();
    meta.producer = producer_settings(section, raw.producer.unwrap_or_default(), problems);
    meta.consumer = consumer_settings(section, raw.consumer.unwrap_or_default(), problems);
    let secrets = raw.secrets.into_iter();
    meta.secrets = secrets.filter_map(|secret| secret.name).collect();
    checked
}

fn check(
    section: &Section<'_>,
    problems: &mut Problems,
    path: &str,
    right: bool,
    words: impl FnOnce() -> (&'static str, &'static str),
) -> bool {
    if !right {
        let (what, allowed) = words();
        problems.push(section.problem(path, what).allowed(allowed));
    }
    right
}

fn topic_name(
    section: &Section<'_>,
    problems: &mut Problems,
    path: &str,
    name: Option<String>,
) -> Option<String> {
    name.filter(|name| {
        check(section, problems, path, is_topic_name(name), || {
            (
                "is no name for a topic",
                "1 to 63 of `a-z 0-9 -`, no `-` at either end",
            )
        })
    })
}

fn topic_settings(
    section: &Section<'_>,
    raw: RawTopic,
    problems: &mut Problems,
) -> Option<TopicSettings> {
    let name = section.require(
        problems,
        "topic.meta.name",
        raw.meta.and_then(|meta| meta.name),
    );
    let name = topic_name(section, problems, "topic.meta.name", name);
    let partition = raw.partition.unwrap_or_default();
    let mut not_made = Vec::new();
    if !partition.maps.is_empty() {
        not_made.push("partition.maps");
    }
    if raw.deduplication.is_some() {
        not_made.push("deduplication");
    }
    for setting in &not_made {
        problems.push(
            section
                .problem(
                    &format!("topic.{setting}"),
                    "is ignored in embedded mode, and `millpond deploy` makes no topic with it",
                )
                .as_warning(),
        );
    }
    let partitions = partition.count.and_then(|count| {
        section.in_range(problems, "topic.partition.count", count, 1..=MAX_PARTITIONS)
    });
    let replication = partition.replication.and_then(|copies| {
        let path = "topic.partition.replication";
        section.in_range(problems, path, copies, 1..=MAX_REPLICATION)
    });
    let retention = raw.retention.unwrap_or_default();
    Some(TopicSettings {
        name: name?,
        partitions,
        replication,
        ignore_rack_assignment: partition.ignore_rack_assignment,
        retention_time: retention.time.map(HumanDuration::get),
        max_partition_bytes: partition.max_size.map(ByteSize::get),
        segment_bytes: retention.segment_size.map(ByteSize::get),
        compression: raw.compression.and_then(|compression| compression.kind),
        not_made,
    })
}

fn producer_settings(
    section: &Section<'_>,
    raw: RawProducer,
    problems: &mut Problems,
) -> ProducerSettings {
    let linger = raw.linger.unwrap_or(HumanDuration(DEFAULT_LINGER));
    let size = raw.batch_size.unwrap_or(ByteSize(DEFAULT_BATCH_BYTES));
    let shortest = HumanDuration::from_millis(0);
    section.in_range(problems, "producer.linger", linger, shortest..=MAX_LINGER);
    section.in_range(problems, "producer.batch-size", size, BATCH_BYTES);
    ProducerSettings {
        linger: linger.get(),
        batch_bytes: size.get(),
        compression: raw.compression,
    }
}

fn consumer_settings(
    section: &Section<'_>,
    raw: RawConsumer,
    problems: &mut Problems,
) -> ConsumerSettings {
    let partitions = match raw.partition.map(|partition| partition.0) {
        None | Some(None) => PartitionChoice::All,
        Some(Some(mut list)) => {
            list.sort_unstable();
            list.dedup();
            if list.is_empty() {
                let problem = section.problem("consumer.partition", "names no partition");
                problems.push(problem.allowed("`all`, a partition, or a list of partitions"));
            }
            PartitionChoice::Some(list)
        }
    };
    let offset = raw.offset.unwrap_or_default();
    ConsumerSettings {
        partitions,
        max_bytes: raw.max_bytes.map(ByteSize::get),
        id: raw.id,
        start: offset.start,
        strategy: offset.strategy,
        flush_period: offset.flush_period.map(|period| period.0),
    }
}

/// `meta.topic` in a form that belongs to another version.
pub(crate) fn topic_form_problem(section: &Section<'_>, configuration: bool) -> Option<Problem> {
    let node = section.value("topic")?;
    match (configuration, node.entries().is_some()) {
        (false, true) => Some(
            section
                .problem(
                    "topic",
                    "is a topic configuration, which this `apiVersion` does not know",
                )
                .help("set `apiVersion: 0.2.0`, or give the topic's name alone"),
        ),
        (true, false) if node.text().is_some() => Some(
            section
                .problem(
                    "topic",
                    "is a name, but `apiVersion: 0.2.0` takes a topic configuration",
                )
                .help("write `topic: {meta: {name: NAME}}`, or set `apiVersion: 0.1.0`"),
        ),
        _ => None,
    }
}
