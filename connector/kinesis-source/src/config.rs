//! Section `kinesis` of `Connector.yaml`: raw form, checks, and the config that cannot be wrong.

mod raw;

use millpond_connector::aws::{AwsSettings, AwsSwitches};
use millpond_connector::document::ConnectorDocument;
use millpond_connector::problem::Problems;
use millpond_connector::section::Section;
use millpond_connector::units::{ByteSize, HumanDuration};
use millpond_format::origin::MAX_STREAM_NAME_BYTES;
use millpond_leases::Settings;

use crate::checkpoint::Aggregated;
use crate::delivery::Batching;
use crate::dynamo_table::companion_name;
use crate::fan_out::FallBack;
use crate::limits::{
    MAX_CONSUMER_NAME_BYTES, READ_TARGET_BYTES, SHARD_READ_BYTES_PER_SECOND, SHARD_READS_PER_SECOND,
};
use crate::loss::OnLoss;
use crate::numbering::{Decompress, Numbering};
use crate::pacing::Pace;
use crate::retention_guard::GuardSettings;
use crate::shard_scaling::{ScalingMode, ScalingSettings};
use crate::watch_config;

pub use raw::{RawKinesis, RawStart};

/// Time between two reads of a shard that is read to its newest record. It adds half of itself to the
/// mean time until an event is readable, and at most itself; two reads a second leave
/// three of a shard's five to other consumers. After ten silent seconds it doubles.
pub const DEFAULT_IDLE_INTERVAL: HumanDuration = HumanDuration::from_millis(500);

/// Default of `max-buffered`.
pub const DEFAULT_MAX_BUFFERED: ByteSize = ByteSize(32 << 20);

/// Default of `topic-partitions`.
pub const DEFAULT_TOPIC_PARTITIONS: u32 = 4;

/// Default of `lease-duration`: the shards of a killed source are read again within 10 s, with
/// some room for a slow table and a busy machine.
pub const DEFAULT_LEASE_DURATION: HumanDuration = HumanDuration::from_secs(5);

/// Longest name of a table (DynamoDB API reference, `CreateTable`, read 2026-11-26).
const MAX_TABLE_NAME_BYTES: usize = 255;

/// What the checkpoint follows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointAfter {
    /// What is durable in the topic.
    #[default]
    Topic,
    /// What every sink of the topic has committed.
    Table,
}

/// How shards are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// By asking, `GetRecords`.
    Polling,
    /// By having them pushed, `SubscribeToShard`.
    FanOut,
}

/// How shards are read by fan-out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FanOutConfig {
    /// Name of the consumer.
    pub consumer_name: String,
    /// What is done when it cannot be had.
    pub fall_back: FallBack,
    /// It is removed at the end of a drain.
    pub removes_consumer: bool,
}

/// Where to begin when no checkpoint exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the oldest record that the stream keeps.
    TrimHorizon,
    /// With the first record that arrives after the first start.
    Latest,
    /// With the first record that arrived then or later, milliseconds since the Unix epoch.
    AtTimestamp(i64),
}

/// How the source reads and batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceConfig {
    /// Where to begin when no checkpoint exists.
    pub start: Start,
    /// What to do about events that the stream removed before they were read.
    pub on_loss: OnLoss,
    /// What the checkpoint follows.
    pub checkpoint_after: CheckpointAfter,
    /// What is done about the retention period when unread events near its end.
    pub guard: GuardSettings,
    /// How the number of shards follows the load.
    pub scaling: ScalingSettings,
    /// What is made of aggregated records.
    pub aggregated: Aggregated,
    /// Which payloads are opened.
    pub decompress: Decompress,
    /// How batches are made.
    pub batching: Batching,
    /// How often and how much a shard is read.
    pub pace: Pace,
}

impl SourceConfig {
    /// By which rules records become events.
    #[must_use]
    pub const fn numbering(&self) -> Numbering {
        Numbering::new(self.aggregated, self.decompress)
    }
}

impl Default for SourceConfig {
    fn default() -> Self {
        Self {
            start: Start::TrimHorizon,
            on_loss: OnLoss::Fail,
            checkpoint_after: CheckpointAfter::Topic,
            guard: GuardSettings::default(),
            scaling: ScalingSettings::default(),
            aggregated: Aggregated::Auto,
            decompress: Decompress::None,
            batching: Batching {
                batch_bytes: 1 << 20,
                linger: std::time::Duration::from_millis(250),
                max_buffered_bytes: usize::try_from(DEFAULT_MAX_BUFFERED.get())
                    .unwrap_or(usize::MAX),
            },
            pace: Pace {
                reads_per_second: SHARD_READS_PER_SECOND,
                bytes_per_second: SHARD_READ_BYTES_PER_SECOND,
                target_bytes: READ_TARGET_BYTES,
                idle_interval: DEFAULT_IDLE_INTERVAL.get(),
            },
        }
    }
}

impl SourceConfig {
    /// True when the source may change its stream, or say how it should be changed.
    #[must_use]
    pub fn changes_stream(&self) -> bool {
        self.guard.max_hours.is_some() || self.scaling.mode != ScalingMode::Off
    }
}

/// Where the leases of the shards are.
#[derive(Debug, Clone)]
pub struct LeaseConfig {
    /// The table.
    pub table: String,
    /// It is made when it does not exist.
    pub create: bool,
    /// Timings.
    pub settings: Settings,
    /// Access to AWS.
    pub aws: AwsSettings,
}

/// A section that is right.
#[derive(Debug, Clone)]
pub struct KinesisConfig {
    /// Stream name.
    pub stream: String,
    /// Access to AWS.
    pub aws: AwsSettings,
    /// Which of the region's endpoints, of both services.
    pub switches: AwsSwitches,
    /// Partitions of the topic, where `millpond run` creates it.
    pub topic_partitions: u32,
    /// How the source reads and batches.
    pub source: SourceConfig,
    /// How the shards are shared; `None` for one process with all of them.
    pub leases: Option<LeaseConfig>,
    /// How the shards are read by fan-out; `None` for polling.
    pub fan_out: Option<FanOutConfig>,
}

impl KinesisConfig {
    /// Checks a section; `None` exactly when an error was pushed.
    pub fn validate(
        document: &ConnectorDocument,
        section: &Section<'_>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let before = problems.errors();
        let raw: RawKinesis = section.read(problems)?;
        let leases = LeaseConfig::validate(section, problems, &raw);
        let guard = watch_config::guard(section, problems, &raw);
        let scaling = watch_config::scaling(section, problems, &raw);
        let fan_out = FanOutConfig::validate(document, section, problems, &raw);
        let stream = section.require(problems, "stream", raw.stream);
        if stream.as_deref().is_some_and(|name| !is_stream_name(name)) {
            problems.push(
                section
                    .problem("stream", "is no stream name")
                    .allowed("1 to 128 of `A-Z a-z 0-9 . _ -`"),
            );
        }
        let switches = AwsSwitches {
            fips: raw.fips,
            dual_stack: raw.dual_stack,
        };
        for (name, is_on, endpoint) in [
            ("fips", raw.fips, &raw.endpoint),
            ("dual-stack", raw.dual_stack, &raw.endpoint),
            ("fips", raw.fips, &raw.lease_table_endpoint),
            ("dual-stack", raw.dual_stack, &raw.lease_table_endpoint),
        ] {
            if is_on == Some(true) && endpoint.is_some() {
                problems.push(
                    section
                        .problem(
                            name,
                            "chooses among the region's endpoints, and an endpoint is given",
                        )
                        .help("leave one of them out"),
                );
            }
        }
        let on_aws = raw.endpoint.is_none();
        let aws = AwsSettings::validate(section, problems, raw.region, raw.endpoint, raw.profile);
        let defaults = SourceConfig::default();
        let topic_partitions = section.in_range(
            problems,
            "topic-partitions",
            raw.topic_partitions.unwrap_or(DEFAULT_TOPIC_PARTITIONS),
            1..=256,
        );
        let max_buffered = section.in_range(
            problems,
            "max-buffered",
            raw.max_buffered.unwrap_or(DEFAULT_MAX_BUFFERED),
            ByteSize(4 << 20)..=ByteSize(1 << 30),
        );
        let idle_interval = section.in_range(
            problems,
            "idle-interval",
            raw.idle_interval.unwrap_or(DEFAULT_IDLE_INTERVAL),
            HumanDuration::from_millis(200)..=HumanDuration::from_secs(60),
        );
        let reads_per_second = section.in_range(
            problems,
            "reads-per-second",
            raw.reads_per_second.unwrap_or(SHARD_READS_PER_SECOND),
            1..=1_000,
        );
        let bytes_per_second = section.in_range(
            problems,
            "read-bytes-per-second",
            raw.read_bytes_per_second
                .unwrap_or(ByteSize(SHARD_READ_BYTES_PER_SECOND)),
            ByteSize(64 << 10)..=ByteSize(4 << 30),
        );
        let batch_bytes = document.meta.producer.batch_bytes;
        if max_buffered.is_some_and(|max| max.get() < batch_bytes) {
            problems.push(
                section
                    .problem("max-buffered", "is smaller than one batch")
                    .allowed(format!(
                        "at least {} (`producer.batch-size`)",
                        ByteSize(batch_bytes)
                    )),
            );
        }
        if on_aws {
            warn_above(
                section,
                problems,
                "reads-per-second",
                reads_per_second > Some(SHARD_READS_PER_SECOND),
            );
            let bytes = bytes_per_second.map(ByteSize::get);
            warn_above(
                section,
                problems,
                "read-bytes-per-second",
                bytes > Some(SHARD_READ_BYTES_PER_SECOND),
            );
        }
        if problems.errors() > before {
            return None;
        }
        Some(Self {
            stream: stream?,
            aws,
            switches,
            topic_partitions: topic_partitions?,
            source: SourceConfig {
                start: match raw.start {
                    None | Some(RawStart::TrimHorizon) => Start::TrimHorizon,
                    Some(RawStart::Latest) => Start::Latest,
                    Some(RawStart::AtTimestamp(moment)) => Start::AtTimestamp(moment.as_millis()),
                },
                on_loss: raw.on_loss.unwrap_or_default(),
                checkpoint_after: raw.checkpoint_after.unwrap_or_default(),
                guard,
                scaling,
                aggregated: raw.aggregated.unwrap_or(defaults.aggregated),
                decompress: raw.decompress.unwrap_or(defaults.decompress),
                batching: Batching {
                    batch_bytes: usize::try_from(batch_bytes).ok()?,
                    linger: document.meta.producer.linger,
                    max_buffered_bytes: usize::try_from(max_buffered?.get()).ok()?,
                },
                pace: Pace {
                    reads_per_second: reads_per_second?,
                    bytes_per_second: bytes_per_second?.get(),
                    idle_interval: idle_interval?.get(),
                    ..defaults.pace
                },
            },
            leases,
            fan_out,
        })
    }
}

impl FanOutConfig {
    fn validate(
        document: &ConnectorDocument,
        section: &Section<'_>,
        problems: &mut Problems,
        raw: &RawKinesis,
    ) -> Option<Self> {
        if raw.mode != Some(Mode::FanOut) {
            for (setting, is_given) in [
                ("consumer-name", raw.consumer_name.is_some()),
                ("fall-back", raw.fall_back.is_some()),
                ("remove-consumer", raw.remove_consumer.is_some()),
            ] {
                if is_given {
                    problems.push(
                        section
                            .problem(setting, "does nothing without `mode: fan-out`")
                            .help("set the mode, or leave this out"),
                    );
                }
            }
            return None;
        }
        let given = raw.consumer_name.as_ref().or(raw.lease_table.as_ref());
        let consumer_name = given.unwrap_or(&document.meta.name).clone();
        if !is_name(&consumer_name, MAX_CONSUMER_NAME_BYTES) {
            problems.push(
                section
                    .problem(
                        "consumer-name",
                        format!("`{consumer_name}` is no name of a consumer"),
                    )
                    .allowed(format!(
                        "1 to {MAX_CONSUMER_NAME_BYTES} of `A-Z a-z 0-9 . _ -`"
                    )),
            );
        }
        let removes_consumer = raw.remove_consumer.unwrap_or(false);
        if removes_consumer && raw.lease_table.is_some() {
            problems.push(
                section
                    .problem(
                        "remove-consumer",
                        "would take the consumer from the other sources that share the shards",
                    )
                    .help("leave it out, and remove the consumer once all of them have ended"),
            );
        }
        Some(Self {
            consumer_name,
            fall_back: raw.fall_back.unwrap_or_default(),
            removes_consumer,
        })
    }
}

impl LeaseConfig {
    fn validate(section: &Section<'_>, problems: &mut Problems, raw: &RawKinesis) -> Option<Self> {
        let Some(table) = raw.lease_table.clone() else {
            for (setting, is_given) in [
                ("create-lease-table", raw.create_lease_table.is_some()),
                ("lease-duration", raw.lease_duration.is_some()),
                ("lease-table-endpoint", raw.lease_table_endpoint.is_some()),
            ] {
                if is_given {
                    problems.push(
                        section
                            .problem(setting, "does nothing without `lease-table`")
                            .help("name the table, or leave this out"),
                    );
                }
            }
            return None;
        };
        if !is_table_name(&companion_name(&table)) {
            problems.push(
                section
                    .problem("lease-table", "is no name for a lease table")
                    .allowed(format!(
                        "1 to {} of `A-Z a-z 0-9 . _ -`",
                        MAX_TABLE_NAME_BYTES - companion_name("").len()
                    )),
            );
        }
        // Region and profile are the stream's, and checked there.
        let aws = AwsSettings {
            region: raw.region.clone(),
            endpoint: raw.lease_table_endpoint.clone(),
            profile: raw.profile.clone(),
        };
        if aws.endpoint.as_deref().is_some_and(|url| !is_http_url(url)) {
            problems.push(
                section
                    .problem("lease-table-endpoint", "is no URL of an AWS endpoint")
                    .allowed("`http://HOST[:PORT]` or `https://HOST[:PORT]`")
                    .help("leave it out to speak to AWS itself"),
            );
        }
        let duration = section.in_range(
            problems,
            "lease-duration",
            raw.lease_duration.unwrap_or(DEFAULT_LEASE_DURATION),
            HumanDuration::from_secs(2)..=HumanDuration::from_secs(300),
        )?;
        Some(Self {
            table,
            create: raw.create_lease_table.unwrap_or(false),
            settings: Settings::new(duration.get()).ok()?,
            aws,
        })
    }
}

fn is_http_url(text: &str) -> bool {
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(' '))
}

fn is_table_name(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    name.len() > companion_name("").len()
        && name.len() <= MAX_TABLE_NAME_BYTES
        && name.bytes().all(known)
}

fn is_stream_name(name: &str) -> bool {
    is_name(name, MAX_STREAM_NAME_BYTES)
}

fn is_name(name: &str, most_bytes: usize) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= most_bytes && name.bytes().all(known)
}

fn warn_above(section: &Section<'_>, problems: &mut Problems, setting: &str, above: bool) {
    if above {
        problems.push(
            section
                .problem(
                    setting,
                    "is more than a shard of Kinesis gives: it will throttle",
                )
                .as_warning(),
        );
    }
}
