//! The section as it is written.

use std::collections::BTreeMap;

use millpond_connector::units::{ByteSize, HumanDuration};
use millpond_sink::gaps::OnGap;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::form::extra::RawExtra;
use crate::form::names::RawNames;
use crate::mapping::settings::PlainSettings;
use crate::pace_settings::{KeyLimit, WriteBudget};
use crate::spread::RawWriteShards;

/// Writes the topic's records to a DynamoDB table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "DynamodbSection")]
pub(super) struct RawDynamodb {
    /// Table name (3 to 255 of `A-Z a-z 0-9 _ . -`) or its ARN.
    #[schemars(required)]
    pub(super) table: Option<String>,
    /// AWS region; default: what the AWS environment says.
    pub(super) region: Option<String>,
    /// URL to speak to in place of the region's own; default: what the AWS environment says.
    pub(super) endpoint: Option<String>,
    /// Profile of the shared AWS configuration files.
    pub(super) profile: Option<String>,
    /// Creates the table when there is none. Default: false.
    pub(super) create_table: Option<bool>,
    /// How a created table is paid for. Default: `on-demand`.
    pub(super) billing: Option<Billing>,
    /// Attribute name of the partition key, a string. Default: `pk`.
    pub(super) partition_key: Option<String>,
    /// Attribute name of the sort key, a string. Default: `sk`.
    pub(super) sort_key: Option<String>,
    /// Name that sets this pipeline's rows apart from others in the table:
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`. Default: `meta.name`.
    pub(super) pipeline: Option<String>,
    /// Largest item, names and keys included: 8192 to 409600 bytes. Default: 409600.
    pub(super) max_item_bytes: Option<ByteSize>,
    /// Longest time that data waits to be joined with more before it is written:
    /// 100ms to 5m. Default: 5s.
    pub(super) max_age: Option<HumanDuration>,
    /// Write units a second that all sinks of the pipeline may use together, 1 to 1000000000, or `auto`: what the
    /// table says of its capacity, and learned where it says nothing. Default: `auto`.
    pub(super) max_write_units_per_second: Option<WriteBudget>,
    /// Write units a second of one partition key, 1 to 1000000000, or `none`. Default: 1000, which is
    /// DynamoDB's own limit.
    pub(super) max_write_units_per_key: Option<KeyLimit>,
    /// Over how many partition keys of the table a group is spread, within a topic partition: 1 to 64, or `auto`: one,
    /// and twice as many whenever the limit of a key holds it back. Default: `auto`.
    pub(super) write_shards: Option<RawWriteShards>,
    /// Of how much time a budget that is set or provisioned may be spent later when it was not used, at most twice
    /// the budget at a time: 0s to 5m. Default: 0s.
    pub(super) burst_credit: Option<HumanDuration>,
    /// Packs small items anew where that saves write units, with dictionaries that are trained from the stream and kept
    /// in the table. Default: `none`.
    pub(super) dictionary: Option<DictionaryUse>,
    /// Where events go that cannot be written. Default: the file `dead-letters.jsonl` in the
    /// data directory.
    pub(super) dead_letters: Option<RawDeadLetters>,
    /// Table with the same key attribute names for ledger and leases; created like the table itself, but
    /// always `on-demand`. Default: the table itself.
    pub(super) ledger_table: Option<String>,
    /// Shares the topic partitions with other sinks of the same pipeline. Default: true on a cluster
    /// unless `meta.consumer.partition` names partitions, false for `millpond run`.
    pub(super) share_partitions: Option<bool>,
    /// How long a sink that shares may be silent until others take its partitions, the same for all
    /// sinks of a pipeline: 2s to 5m. Default: 6s.
    pub(super) lease_duration: Option<HumanDuration>,
    /// What happens when events are missing from the topic for good: `halt` stops the topic
    /// partition, `record` records the gap with its bounds and goes on after it. Default: `halt`.
    pub(super) on_gap: Option<OnGap>,
    /// Pipelines of the same topic in the same table that this one is meant to stand beside: a
    /// new pipeline name is refused without it, since it may be an old one renamed by mistake.
    pub(super) beside: Option<Vec<String>>,
    /// One item per event, its keys and attributes taken from the event's JSON. Only without
    /// `transforms`. Default: the layout of `FORMAT.md`.
    pub(super) plain: Option<PlainSettings>,
    /// How long after its newest event an item may be deleted: 1s to 36600d. Default: never.
    pub(super) ttl: Option<HumanDuration>,
    /// Attribute that says when, in seconds since the Unix epoch. Default: `ttl`.
    pub(super) ttl_attribute: Option<String>,
    /// More attributes of every item, by name: `{constant: TEXT}`, `{group-part: N}`, and `{minimum: POINTER}` and
    /// `{maximum: POINTER}` of a JSON field over the item's events; at most 16. Not with `plain`, which has its own.
    #[serde(default)]
    pub(super) attributes: BTreeMap<String, RawExtra>,
    /// What separates the parts of a group. Default: `/`.
    pub(super) group_separator: Option<String>,
    /// Names of the attributes of an item. They stay as they are for as long as a pipeline has its name. Default: those
    /// of `FORMAT.md`.
    pub(super) attribute_names: Option<RawNames>,
    /// With what the partition keys of items begin, where others in the table need that: 1 to 255 bytes, without `/`,
    /// the last character none of `A-Z a-z 0-9 . _ -`. Stays as it is like the names. Default: nothing.
    pub(super) key_prefix: Option<String>,
}

/// How a table is paid for.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Billing {
    /// Per request.
    OnDemand,
    /// Fixed units a second.
    Provisioned(Units),
}

/// What small items are packed with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum DictionaryUse {
    /// They stay as they are.
    #[default]
    None,
    /// With the newest dictionary of the pipeline, which is trained when it pays.
    Auto,
}

/// Provisioned capacity of a created table.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Units {
    /// Read units a second, at least 1.
    pub(super) read_units: u64,
    /// Write units a second, at least 1.
    pub(super) write_units: u64,
}

/// Where dead letters go.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawDeadLetters {
    /// A file of JSON lines; a relative path starts at the configuration file.
    File(String),
    /// A table with the same key attribute names.
    Table(String),
    /// Another topic; `millpond run` keeps it in its data directory, a cluster must have it.
    Topic(String),
}
