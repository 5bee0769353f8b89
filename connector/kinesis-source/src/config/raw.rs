//! Section `kinesis` as it is written: every setting, none of it checked.

use millpond_connector::units::{ByteSize, HumanDuration, Moment};

use super::{CheckpointAfter, Mode};
use crate::checkpoint::Aggregated;
use crate::fan_out::FallBack;
use crate::loss::OnLoss;
use crate::numbering::Decompress;
use crate::shard_scaling::ScalingMode;
use crate::watch_config::GuardMode;

/// Reads an Amazon Kinesis data stream.
#[derive(Debug, Clone, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RawKinesis {
    /// Name of the stream: 1 to 128 of `A-Z a-z 0-9 . _ -`.
    #[schemars(required)]
    pub stream: Option<String>,
    /// AWS region. Default: what the AWS environment or profile says.
    pub region: Option<String>,
    /// URL to speak to in place of the region's own endpoint, such as a stand-in's. Default: the AWS
    /// environment (`AWS_ENDPOINT_URL_KINESIS`, `AWS_ENDPOINT_URL`), else AWS itself.
    pub endpoint: Option<String>,
    /// Profile of the AWS configuration files. Default: `AWS_PROFILE`, else `default`.
    pub profile: Option<String>,
    /// Speaks to the endpoints that are validated by FIPS 140, of Kinesis and of DynamoDB. Default: the AWS environment
    /// (`AWS_USE_FIPS_ENDPOINT`) or the profile, else false.
    pub fips: Option<bool>,
    /// Speaks to the endpoints that have IPv6 addresses as well. Default: the AWS environment
    /// (`AWS_USE_DUALSTACK_ENDPOINT`) or the profile, else false.
    pub dual_stack: Option<bool>,
    /// Where to begin when no checkpoint exists: `trim-horizon` (default; the oldest record kept),
    /// `latest` (records that arrive after the first start), or `{at-timestamp: RFC3339}`.
    pub start: Option<RawStart>,
    /// What to do when the stream removed events before they were read (a checkpoint older than the retention, a
    /// shard that left the stream): `fail` (default; the source ends with an error that names the shard), or
    /// `gap-and-continue` (the gap is recorded in the topic with its bounds, and reading goes on behind it).
    pub on_loss: Option<OnLoss>,
    /// What is made of records of the Kinesis Producer Library that hold many events: `auto` (default; each is
    /// one event, those of other shards are dropped as by the Kinesis Client Library), `keep-stray`
    /// (the same, without dropping any), or `off` (the record is one event, as it is).
    pub aggregated: Option<Aggregated>,
    /// Which payloads are opened on their way in: `none` (default), `auto` (those that begin as gzip or zstd do), `gzip` or
    /// `zstd` (all). One that cannot be opened is a dead letter, as it was; events are what was in them.
    pub decompress: Option<Decompress>,
    /// Partitions of the topic that `millpond run` creates, 1 to 256. Default: 4. In a cluster the topic's
    /// own count holds.
    pub topic_partitions: Option<u32>,
    /// Bytes read but not yet durable in the topic above which reading pauses, 4 MiB to 1 GiB.
    /// Default: 32 MiB.
    pub max_buffered: Option<ByteSize>,
    /// Time between two reads of a shard once its newest record was read, 200 ms to 60 s.
    /// Default: 500 ms; doubled while nothing arrives for some time.
    pub idle_interval: Option<HumanDuration>,
    /// `GetRecords` calls a second and shard, 1 to 1000. Default: 5, which is all that a shard of
    /// Kinesis gives to its polling consumers together; less leaves more to others.
    pub reads_per_second: Option<u32>,
    /// Bytes a second and shard, 64 KiB to 4 GiB. Default: 2 MiB, which is all that a shard of Kinesis
    /// gives to its polling consumers together.
    pub read_bytes_per_second: Option<ByteSize>,
    /// What the checkpoint follows: `topic` (default; what is durable in the topic), or `table` (what the topic's sinks have
    /// committed, so that a lost topic costs a replay and no event).
    pub checkpoint_after: Option<CheckpointAfter>,
    /// What to do when unread events near the end of the stream's retention period: `warn` (default), or `extend` (makes
    /// the period longer, up to `retention-max`).
    pub retention_guard: Option<GuardMode>,
    /// Longest retention period that `retention-guard: extend` sets, 24 h to 365 days, whole hours. Needed with it.
    pub retention_max: Option<HumanDuration>,
    /// To what `retention-guard: extend` shortens the period once everything was read for an hour, 24 h to 365 days, whole
    /// hours. Default: it gives nothing back. What other consumers have not read by then is lost to them.
    pub retention_give_back: Option<HumanDuration>,
    /// Whether the number of shards follows the load: `off` (default), `advise` (log and metrics say what should be
    /// done), or `auto` (it is done, within `min-shards` and `max-shards`).
    pub shard_scaling: Option<ScalingMode>,
    /// Fewest shards for `shard-scaling`, 1 to 10,000. Default: 1.
    pub min_shards: Option<u32>,
    /// Most shards for `shard-scaling`, 1 to 10,000. Needed with it.
    pub max_shards: Option<u32>,
    /// Percentage of what the shards take below which there are too many, 1 to 100. Default: 30. At most half of
    /// `utilisation-high`.
    pub utilisation_low: Option<u32>,
    /// Percentage of what the shards take above which there are too few, 1 to 100. Default: 75.
    pub utilisation_high: Option<u32>,
    /// How shards are read: `polling` (default; shares a shard's 2 MiB a second with its other readers), or `fan-out`
    /// (has 2 MiB a second of its own, pushed at once, and costs by shard, hour and byte).
    pub mode: Option<Mode>,
    /// Name of the consumer that `fan-out` registers: 1 to 128 of `A-Z a-z 0-9 . _ -`, the same for all sources that
    /// share the shards. Default: `lease-table`, else the connector's name.
    pub consumer_name: Option<String>,
    /// What is done when fan-out does not work: `none` (default; it is tried again, or the source ends with
    /// the reason), or `polling`.
    pub fall_back: Option<FallBack>,
    /// Removes the consumer at the end of a drain. Default: false; it stays registered, and costs.
    pub remove_consumer: Option<bool>,
    /// DynamoDB table of leases and checkpoints, in the layout of the Kinesis Client Library: sources with the same
    /// table share the shards. A second table, `<name>-millpond`, goes with it. Default: none; this
    /// process reads every shard and keeps its checkpoint in its data directory.
    pub lease_table: Option<String>,
    /// Makes the two tables, billed on demand, when they do not exist. Default: false.
    pub create_lease_table: Option<bool>,
    /// How long a source may be silent before others take its shards, 2 s to 300 s. Default: 5 s. All
    /// sources of a table should have the same.
    pub lease_duration: Option<HumanDuration>,
    /// URL to speak to in place of the region's own DynamoDB endpoint. Default: the AWS environment
    /// (`AWS_ENDPOINT_URL_DYNAMODB`, `AWS_ENDPOINT_URL`), else AWS itself.
    pub lease_table_endpoint: Option<String>,
}

/// Where to begin when no checkpoint exists.
#[derive(Debug, Clone, Copy, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RawStart {
    /// With the oldest record that the stream keeps.
    TrimHorizon,
    /// With the first record that arrives after the first start of this connector.
    Latest,
    /// With the first record that arrived at this time (RFC 3339, with a time zone) or later.
    AtTimestamp(Moment),
}
