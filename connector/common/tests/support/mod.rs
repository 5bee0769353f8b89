//! Two small connectors that show how one is written, and how a file is checked in a test.
#![allow(dead_code, reason = "each test file uses its part")]

use async_trait::async_trait;
use millpond_connector::aws::AwsSettings;
use millpond_connector::catalog::SmartModuleCatalog;
use millpond_connector::connector::{ConnectorContext, Sink, Source};
use millpond_connector::document::ConnectorDocument;
use millpond_connector::manifest::{ManifestFile, Scope, Validation};
use millpond_connector::problem::Problems;
use millpond_connector::registry::{BuiltConnector, ConnectorKind, Registry, ValidConnector};
use millpond_connector::secret::{Secret, SecretStore};
use millpond_connector::section::Section;
use millpond_connector::topic::Transform;
use millpond_connector::units::{ByteSize, HumanDuration, Moment};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawRiver {
    /// Name of the stream.
    #[schemars(required)]
    stream: Option<String>,
    region: Option<String>,
    endpoint: Option<String>,
    profile: Option<String>,
    start: Option<Start>,
    topic_partitions: Option<u32>,
    token: Option<Secret>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Start {
    TrimHorizon,
    Latest,
    AtTimestamp(Moment),
}

/// Fills a topic.
pub struct RiverSource;

struct ValidRiver {
    partitions: Option<u32>,
}

impl ConnectorKind for RiverSource {
    fn type_name(&self) -> &'static str {
        "river-source"
    }

    fn section_name(&self) -> &'static str {
        "river"
    }

    fn section_schema(&self, generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<RawRiver>()
    }

    fn validate(
        &self,
        _: &ConnectorDocument,
        section: &Section<'_>,
        problems: &mut Problems,
    ) -> Option<Box<dyn ValidConnector>> {
        let before = problems.errors();
        let raw: RawRiver = section.read(problems)?;
        AwsSettings::validate(section, problems, raw.region, raw.endpoint, raw.profile);
        section.require(problems, "stream", raw.stream);
        if let Some(count) = raw.topic_partitions {
            section.in_range(problems, "topic-partitions", count, 1..=256);
        }
        if let Some(Start::AtTimestamp(moment)) = raw.start
            && moment.as_millis() < 0
        {
            problems.push(
                section
                    .problem("start.at-timestamp", "lies before all streams")
                    .as_warning(),
            );
        }
        // A careless check, on purpose: the words hold the secret.
        if let Some(token) = raw.token
            && token.expose().len() < 8
        {
            let what = format!("holds `{}`, which is too short", token.expose());
            problems.push(section.problem("token", what));
        }
        let partitions = raw.topic_partitions;
        (problems.errors() == before).then(|| Box::new(ValidRiver { partitions }) as _)
    }
}

#[async_trait]
impl ValidConnector for ValidRiver {
    fn topic_partitions(&self) -> Option<u32> {
        self.partitions
    }

    async fn build(self: Box<Self>) -> anyhow::Result<BuiltConnector> {
        Ok(BuiltConnector::Source(self))
    }
}

#[async_trait]
impl Source for ValidRiver {
    async fn run(self: Box<Self>, _: ConnectorContext) -> anyhow::Result<()> {
        Ok(())
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawLake {
    #[schemars(required)]
    table: Option<String>,
    create_table: Option<bool>,
    billing: Option<Billing>,
    max_item_bytes: Option<ByteSize>,
    max_age: Option<HumanDuration>,
    dead_letters: Option<DeadLetters>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Billing {
    OnDemand,
    Provisioned(Units),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Units {
    #[expect(dead_code, reason = "only read")]
    read_units: u64,
    #[expect(dead_code, reason = "only read")]
    write_units: u64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum DeadLetters {
    #[expect(dead_code, reason = "only read")]
    File(String),
    #[expect(dead_code, reason = "only read")]
    Table(String),
}

/// Empties a topic.
pub struct LakeSink;

struct ValidLake;

impl ConnectorKind for LakeSink {
    fn type_name(&self) -> &'static str {
        "lake-sink"
    }

    fn section_name(&self) -> &'static str {
        "lake"
    }

    fn section_schema(&self, generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<RawLake>()
    }

    fn validate(
        &self,
        _: &ConnectorDocument,
        section: &Section<'_>,
        problems: &mut Problems,
    ) -> Option<Box<dyn ValidConnector>> {
        let before = problems.errors();
        let raw: RawLake = section.read(problems)?;
        section.require(problems, "table", raw.table);
        let bytes = raw.max_item_bytes.unwrap_or(ByteSize(409_600));
        section.in_range(
            problems,
            "max-item-bytes",
            bytes,
            ByteSize(1024)..=ByteSize(409_600),
        );
        let age = raw.max_age.unwrap_or(HumanDuration::from_secs(5));
        let ages = HumanDuration::from_millis(100)..=HumanDuration::from_secs(300);
        section.in_range(problems, "max-age", age, ages);
        let _ = (raw.create_table, raw.billing, raw.dead_letters);
        (problems.errors() == before).then(|| Box::new(ValidLake) as _)
    }
}

#[async_trait]
impl ValidConnector for ValidLake {
    async fn build(self: Box<Self>) -> anyhow::Result<BuiltConnector> {
        Ok(BuiltConnector::Sink(self))
    }
}

#[async_trait]
impl Sink for ValidLake {
    async fn run(self: Box<Self>, _: ConnectorContext) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Knows `millpond/pack@0.1.0` with a parameter `level` of 1 to 19.
pub struct PackOnly;

impl SmartModuleCatalog for PackOnly {
    fn known(&self) -> Vec<String> {
        vec!["millpond/pack@0.1.0".to_owned()]
    }

    fn packs(&self, uses: &str) -> bool {
        uses == "millpond/pack@0.1.0"
    }

    fn check(&self, transform: &Transform, step: &Section<'_>, problems: &mut Problems) {
        let level = transform.with.get("level");
        if level.is_some_and(|level| !(1..=19).contains(&level.parse().unwrap_or(0))) {
            problems.push(
                step.problem("with.level", "is out of range")
                    .allowed("1 to 19"),
            );
        }
    }
}

/// Both connectors.
pub fn registry() -> Registry {
    Registry::new().with(RiverSource).with(LakeSink)
}

/// Checks a whole file.
pub fn check(text: impl Into<Vec<u8>>) -> Validation {
    check_with(text, &SecretStore::from_environment(), Scope::Pipeline)
}

/// Checks a file with secrets and a scope.
pub fn check_with(text: impl Into<Vec<u8>>, secrets: &SecretStore, scope: Scope) -> Validation {
    let file = ManifestFile::from_bytes("Connector.yaml", text, "");
    registry().validate(&file, secrets, &PackOnly, scope)
}

/// A file without a mistake.
pub const GOOD: &str = "\
apiVersion: 0.1.0
meta:
  name: river
  type: river-source
  topic: events
  version: 0.1.0
  producer:
    linger: 100ms
    batch-size: 2 MiB
river:
  stream: events
  start: {at-timestamp: '2026-01-31T12:00:00Z'}
  topic-partitions: 8
---
apiVersion: 0.1.0
meta:
  name: lake
  type: lake-sink
  topic: events
  version: 0.1.0
  consumer:
    partition: all
    max_bytes: 1 MB
    offset: {start: {from-end: 5}, strategy: none, flush-period: {secs: 1, nanos: 5}}
transforms:
  - uses: millpond/pack@0.1.0
    with:
      group-by: /job_id
      level: \"3\"
      nested: {b: [1, 'x'], a: true}
lake:
  table: events
  create-table: true
  billing: {provisioned: {read-units: 5, write-units: 10}}
  max-item-bytes: 400 KiB
  dead-letters: {file: dead.jsonl}
";
