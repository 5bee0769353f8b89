//! The raw form of `meta` and `transforms`, as Fluvio's connector contract has it.
//!
//! Read from the source of Fluvio 0.50 (`fluvio-connector-package`, 2025-11). What the embedded
//! mode ignores is accepted and says so.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::units::{ByteSize, HumanDuration};

/// Name, type and topic of the connector, and how it works on the topic.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(bound = "T: JsonSchema")]
pub(crate) struct RawMeta<T> {
    /// Name of the connector, unique in the file: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    #[schemars(required)]
    pub(crate) name: Option<String>,
    /// Type of the connector; one that ends in `-source` fills its topic, any other empties it.
    #[serde(rename = "type")]
    #[schemars(required)]
    pub(crate) type_name: Option<String>,
    /// Topic that source and sink meet on: its name, or with `apiVersion: 0.2.0` its configuration.
    #[schemars(required)]
    pub(crate) topic: Option<T>,
    /// Version of the connector package; only a cluster uses it.
    #[schemars(required)]
    pub(crate) version: Option<String>,
    /// How a source makes batches.
    pub(crate) producer: Option<RawProducer>,
    /// How a sink reads.
    pub(crate) consumer: Option<RawConsumer>,
    /// Secrets that `${{ secrets.NAME }}` may fill in.
    #[serde(default)]
    pub(crate) secrets: Vec<RawSecret>,
}

/// One secret that may be filled in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawSecret {
    /// Its name: `A-Z a-z 0-9 _`, no digit first.
    #[schemars(required)]
    pub(crate) name: Option<String>,
}

/// How a source makes batches.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawProducer {
    /// A batch waits this long for more records: 0ms to 60s, default 250ms.
    pub(crate) linger: Option<HumanDuration>,
    /// Compression of batches in a cluster; the embedded topic ignores it.
    pub(crate) compression: Option<Compression>,
    /// A batch is closed once it holds this many bytes: 1 KiB to 32 MiB, default 1 MiB.
    #[serde(alias = "batch_size")]
    pub(crate) batch_size: Option<ByteSize>,
}

/// How batches are compressed in a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// Not at all.
    None,
    /// Gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
    /// Whatever the producer chose; only as a topic's setting.
    Any,
}

/// How a sink reads. The embedded mode takes `partition` and ignores the rest.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawConsumer {
    /// `all` (default), one partition, or a list of partitions.
    pub(crate) partition: Option<RawPartitions>,
    /// Largest answer; only a cluster uses it.
    #[serde(alias = "max_bytes")]
    pub(crate) max_bytes: Option<ByteSize>,
    /// Consumer id; only a cluster uses it.
    pub(crate) id: Option<String>,
    /// Where to begin and who commits; only a cluster uses it, Millpond's sinks keep a ledger.
    pub(crate) offset: Option<RawOffset>,
}

/// Where a consumer begins and who commits.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawOffset {
    /// First offset.
    pub(crate) start: Option<OffsetStart>,
    /// Who commits offsets.
    pub(crate) strategy: Option<OffsetStrategy>,
    /// How often committed offsets are flushed.
    #[serde(alias = "flush_period")]
    pub(crate) flush_period: Option<RawPeriod>,
}

/// First offset of a consumer in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OffsetStart {
    /// The first that is stored.
    Beginning,
    /// The next that will be stored.
    End,
    /// This one.
    Absolute(i64),
    /// So many after the first.
    FromBeginning(u32),
    /// So many before the end.
    FromEnd(u32),
}

/// Who commits offsets in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OffsetStrategy {
    /// Nobody.
    None,
    /// The connector.
    Manual,
    /// The client, by time.
    Auto,
}

/// `all` (`None`), a partition, or a list of partitions.
#[derive(Debug)]
pub(crate) struct RawPartitions(pub(crate) Option<Vec<u32>>);

struct PartitionsVisitor;

impl<'de> Visitor<'de> for PartitionsVisitor {
    type Value = RawPartitions;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`all`, a partition (a whole number from 0), or a list of partitions")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<RawPartitions, E> {
        match text {
            "all" => Ok(RawPartitions(None)),
            other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
        }
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<RawPartitions, E> {
        u32::try_from(number)
            .map(|partition| RawPartitions(Some(vec![partition])))
            .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<RawPartitions, A::Error> {
        let mut list = Vec::new();
        while let Some(partition) = items.next_element()? {
            list.push(partition);
        }
        Ok(RawPartitions(Some(list)))
    }
}

impl<'de> Deserialize<'de> for RawPartitions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PartitionsVisitor)
    }
}

impl JsonSchema for RawPartitions {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Partitions".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [
            { "const": "all" },
            { "type": "integer", "minimum": 0 },
            { "type": "array", "minItems": 1, "items": { "type": "integer", "minimum": 0 } },
        ] })
    }
}

/// A period as `{secs, nanos}`, Fluvio's form, or as a duration with its unit.
#[derive(Debug)]
pub(crate) struct RawPeriod(pub(crate) Duration);

struct PeriodVisitor;

impl<'de> Visitor<'de> for PeriodVisitor {
    type Value = RawPeriod;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`{secs: N, nanos: N}` or a duration such as `5s`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<RawPeriod, E> {
        let period: HumanDuration = text.parse().map_err(E::custom)?;
        Ok(RawPeriod(period.get()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<RawPeriod, A::Error> {
        let (mut secs, mut nanos) = (0_u64, 0_u32);
        while let Some(key) = entries.next_key::<String>()? {
            match key.as_str() {
                "secs" => secs = entries.next_value()?,
                "nanos" => nanos = entries.next_value()?,
                _ => {
                    return Err(de::Error::custom(format!(
                        "knows `secs` and `nanos`, not `{key}`"
                    )));
                }
            }
        }
        let period = Duration::from_secs(secs).checked_add(Duration::from_nanos(nanos.into()));
        period
            .map(RawPeriod)
            .ok_or_else(|| de::Error::custom("is too long a duration to count"))
    }
}

impl<'de> Deserialize<'de> for RawPeriod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PeriodVisitor)
    }
}

impl JsonSchema for RawPeriod {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Period".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let duration = generator.subschema_for::<HumanDuration>();
        json_schema!({ "oneOf": [
            duration,
            {
                "type": "object",
                "properties": {
                    "secs": { "type": "integer", "minimum": 0 },
                    "nanos": { "type": "integer", "minimum": 0 },
                },
                "additionalProperties": false,
            },
        ] })
    }
}

/// Topic configuration of `apiVersion: 0.2.0`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawTopic {
    /// Version of the topic configuration's layout; ignored.
    #[expect(dead_code, reason = "part of the contract, without a meaning here")]
    version: Option<String>,
    /// Name of the topic.
    #[schemars(required)]
    pub(crate) meta: Option<RawTopicMeta>,
    /// Its partitions.
    pub(crate) partition: Option<RawTopicPartition>,
    /// What it keeps.
    pub(crate) retention: Option<RawRetention>,
    /// Compression that producers must use; only a cluster uses it.
    pub(crate) compression: Option<RawTopicCompression>,
    /// Deduplication; Millpond makes no topic with it: it recognises repeated events by their origin.
    pub(crate) deduplication: Option<serde_json::Value>,
}

/// Name of a topic.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawTopicMeta {
    /// 1 to 63 of `a-z 0-9 -`, no `-` at either end.
    #[schemars(required)]
    pub(crate) name: Option<String>,
}

/// Partitions of a topic.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawTopicPartition {
    /// How many: 1 to 256.
    pub(crate) count: Option<u32>,
    /// Largest size of one partition.
    pub(crate) max_size: Option<ByteSize>,
    /// Copies of each partition: 1 to 16; only a cluster uses it.
    pub(crate) replication: Option<u32>,
    /// Placement without regard to racks; only a cluster uses it.
    pub(crate) ignore_rack_assignment: Option<bool>,
    /// Placement by hand; Millpond makes no topic with it.
    #[serde(default)]
    pub(crate) maps: Vec<serde_json::Value>,
}

/// What a topic keeps.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawRetention {
    /// Oldest age kept. The embedded topic keeps longer what a sink has not committed.
    pub(crate) time: Option<HumanDuration>,
    /// Size of a segment; only a cluster uses it.
    pub(crate) segment_size: Option<ByteSize>,
}

/// Compression of a topic.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawTopicCompression {
    /// Which.
    #[serde(rename = "type")]
    pub(crate) kind: Option<Compression>,
}

/// One step that a sink's records go through on their way out of the topic.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawTransform {
    /// SmartModule: a built-in one such as `millpond/pack@0.1.0`, or a path to a `.wasm` file,
    /// relative to this file.
    #[schemars(required)]
    pub(crate) uses: Option<String>,
    /// Parameters: texts; maps and lists become JSON text.
    #[serde(default)]
    pub(crate) with: BTreeMap<String, RawParameter>,
    /// Records shown to the SmartModule at its start; only a cluster uses it.
    pub(crate) lookback: Option<RawLookback>,
}

/// Records shown to a SmartModule at its start.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawLookback {
    /// So many of the last ones.
    #[expect(dead_code, reason = "accepted for a cluster, ignored in embedded mode")]
    last: Option<u64>,
    /// Not older than this.
    #[expect(dead_code, reason = "accepted for a cluster, ignored in embedded mode")]
    age: Option<HumanDuration>,
}

/// A parameter as the text that the SmartModule gets.
#[derive(Debug)]
pub(crate) struct RawParameter {
    pub(crate) text: String,
    /// A number or truth value: a cluster would refuse it.
    pub(crate) bare: bool,
}

impl<'de> Deserialize<'de> for RawParameter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde_json::Value;
        match Value::deserialize(deserializer)? {
            Value::Null => Err(de::Error::custom("has no value")),
            Value::String(text) => Ok(Self { text, bare: false }),
            value => Ok(Self {
                bare: matches!(value, Value::Bool(_) | Value::Number(_)),
                text: value.to_string(),
            }),
        }
    }
}

impl JsonSchema for RawParameter {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Parameter".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "object", "array", "number", "boolean"] })
    }
}
