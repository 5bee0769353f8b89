//! The section `dynamodb` of a connector configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use millpond_connector::aws::AwsSettings;
use millpond_connector::document::ConnectorDocument;
use millpond_connector::meta::{PartitionChoice, is_topic_name};
use millpond_connector::problem::Problems;
use millpond_connector::registry::{BuiltConnector, ConnectorKind, ValidConnector};
use millpond_connector::section::Section;
use millpond_connector::topic::Transform;
use millpond_connector::units::{ByteSize, HumanDuration};
use millpond_format::limits::{MAX_ITEM_BYTES, MIN_ITEM_BYTES};
use millpond_leases::DynamoStore;
use millpond_sink::fingerprint::module_digests;
use millpond_sink::gaps::OnGap;
use millpond_sink::settings;
use millpond_sink::sharing::{Share, Sharing};
use millpond_sink::sink::{self, SinkSettings, StoreSink};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use crate::client::aws::AwsTable;
use crate::client::{Capacity, TableApi};
use crate::dictionaries::Training;
use crate::form::extra::RawExtra;
use crate::form::names::RawNames;
use crate::form::{ItemForm, RawForm, form, room};
use crate::mapping::settings::PlainSettings;
use crate::pace_settings::{self, KeyLimit, WriteBudget};
use crate::pacing::PaceSettings;
use crate::plan_writer::Spreading;
use crate::row::{KeyNames, names};
use crate::sharing::sharing;
use crate::spread::{self, RawWriteShards, WriteShards};
use crate::store::{self, LeasesOf, TableSettings, Tables};

/// Longest attribute name of a key (DynamoDB developer guide, "Quotas": 255 for key attributes,
/// read 2026-11-23).
const MAX_KEY_NAME_BYTES: usize = 255;

/// Writes the topic's records to a DynamoDB table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "DynamodbSection")]
struct RawDynamodb {
    /// Table name (3 to 255 of `A-Z a-z 0-9 _ . -`) or its ARN.
    #[schemars(required)]
    table: Option<String>,
    /// AWS region; default: what the AWS environment says.
    region: Option<String>,
    /// URL to speak to in place of the region's own; default: what the AWS environment says.
    endpoint: Option<String>,
    /// Profile of the shared AWS configuration files.
    profile: Option<String>,
    /// Creates the table when there is none. Default: false.
    create_table: Option<bool>,
    /// How a created table is paid for. Default: `on-demand`.
    billing: Option<Billing>,
    /// Attribute name of the partition key, a string. Default: `pk`.
    partition_key: Option<String>,
    /// Attribute name of the sort key, a string. Default: `sk`.
    sort_key: Option<String>,
    /// Name that sets this pipeline's rows apart from others in the table:
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`. Default: `meta.name`.
    pipeline: Option<String>,
    /// Largest item, names and keys included: 8192 to 409600 bytes. Default: 409600.
    max_item_bytes: Option<ByteSize>,
    /// Longest time that data waits to be joined with more before it is written:
    /// 100ms to 5m. Default: 5s.
    max_age: Option<HumanDuration>,
    /// Write units a second that all sinks of the pipeline may use together, 1 to 1000000000, or `auto`: what the
    /// table says of its capacity, and learned where it says nothing. Default: `auto`.
    max_write_units_per_second: Option<WriteBudget>,
    /// Write units a second of one partition key, 1 to 1000000000, or `none`. Default: 1000, which is
    /// DynamoDB's own limit.
    max_write_units_per_key: Option<KeyLimit>,
    /// Over how many partition keys of the table a group is spread, within a topic partition: 1 to 64, or `auto`: one,
    /// and twice as many whenever the limit of a key holds it back. Default: `auto`.
    write_shards: Option<RawWriteShards>,
    /// Of how much time a budget that is set or provisioned may be spent later when it was not used, at most twice
    /// the budget at a time: 0s to 5m. Default: 0s.
    burst_credit: Option<HumanDuration>,
    /// Packs small items anew where that saves write units, with dictionaries that are trained from the stream and kept
    /// in the table. Default: `none`.
    dictionary: Option<DictionaryUse>,
    /// Where events go that cannot be written. Default: the file `dead-letters.jsonl` in the
    /// data directory.
    dead_letters: Option<RawDeadLetters>,
    /// Table with the same key attribute names for ledger and leases; created like the table itself, but
    /// always `on-demand`. Default: the table itself.
    ledger_table: Option<String>,
    /// Shares the topic partitions with other sinks of the same pipeline. Default: true on a cluster
    /// unless `meta.consumer.partition` names partitions, false for `millpond run`.
    share_partitions: Option<bool>,
    /// How long a sink that shares may be silent until others take its partitions, the same for all
    /// sinks of a pipeline: 2s to 5m. Default: 6s.
    lease_duration: Option<HumanDuration>,
    /// What happens when events are missing from the topic for good: `halt` stops the topic
    /// partition, `record` records the gap with its bounds and goes on after it. Default: `halt`.
    on_gap: Option<OnGap>,
    /// Pipelines of the same topic in the same table that this one is meant to stand beside: a
    /// new pipeline name is refused without it, since it may be an old one renamed by mistake.
    beside: Option<Vec<String>>,
    /// One item per event, its keys and attributes taken from the event's JSON. Only without
    /// `transforms`. Default: the layout of `FORMAT.md`.
    plain: Option<PlainSettings>,
    /// How long after its newest event an item may be deleted: 1s to 36600d. Default: never.
    ttl: Option<HumanDuration>,
    /// Attribute that says when, in seconds since the Unix epoch. Default: `ttl`.
    ttl_attribute: Option<String>,
    /// More attributes of every item, by name: `{constant: TEXT}`, `{group-part: N}`, and `{minimum: POINTER}` and
    /// `{maximum: POINTER}` of a JSON field over the item's events; at most 16. Not with `plain`, which has its own.
    #[serde(default)]
    attributes: BTreeMap<String, RawExtra>,
    /// What separates the parts of a group. Default: `/`.
    group_separator: Option<String>,
    /// Names of the attributes of an item. They stay as they are for as long as a pipeline has its name. Default: those
    /// of `FORMAT.md`.
    attribute_names: Option<RawNames>,
    /// With what the partition keys of items begin, where others in the table need that: 1 to 255 bytes, without `/`,
    /// the last character none of `A-Z a-z 0-9 . _ -`. Stays as it is like the names. Default: nothing.
    key_prefix: Option<String>,
}

/// How a table is paid for.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Billing {
    /// Per request.
    OnDemand,
    /// Fixed units a second.
    Provisioned(Units),
}

/// What small items are packed with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum DictionaryUse {
    /// They stay as they are.
    #[default]
    None,
    /// With the newest dictionary of the pipeline, which is trained when it pays.
    Auto,
}

/// Provisioned capacity of a created table.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct Units {
    /// Read units a second, at least 1.
    read_units: u64,
    /// Write units a second, at least 1.
    write_units: u64,
}

/// Where dead letters go.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum RawDeadLetters {
    /// A file of JSON lines; a relative path starts at the configuration file.
    File(String),
    /// A table with the same key attribute names.
    Table(String),
    /// Another topic; `millpond run` keeps it in its data directory, a cluster must have it.
    Topic(String),
}

/// Where dead letters go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadLetterTarget {
    /// `dead-letters.jsonl` in the data directory.
    Default,
    /// This file.
    File(PathBuf),
    /// This table.
    Table(String),
    /// This topic.
    Topic(String),
}

/// A configuration that cannot be wrong.
#[derive(Debug, Clone)]
pub struct SinkConfig {
    /// Table name.
    pub table: String,
    /// AWS access.
    pub aws: AwsSettings,
    /// How to create a missing table; `None` does not.
    pub create: Option<Capacity>,
    /// Key attribute names.
    pub keys: KeyNames,
    /// Pipeline name.
    pub pipeline: String,
    /// Largest item in bytes.
    pub max_item_bytes: usize,
    /// Longest wait for more data.
    pub max_age: Duration,
    /// How fast it writes.
    pub pace: PaceSettings,
    /// Where dead letters go.
    pub dead_letters: DeadLetterTarget,
    /// Another table for ledger and leases.
    pub ledger_table: Option<String>,
    /// Whether topic partitions are shared with other sinks.
    pub sharing: Sharing,
    /// What to do about data that is gone for good.
    pub on_gap: OnGap,
    /// Pipelines of the same topic that this one is meant to stand beside.
    pub beside: Vec<String>,
    /// What items look like.
    pub form: ItemForm,
    /// Packs small items anew, and trains dictionaries for them; `None` does not.
    pub training: Option<Training>,
    /// Over how many partition keys a group is spread.
    pub write_shards: WriteShards,
    /// Topic partitions to consume.
    pub partitions: PartitionChoice,
    /// Transform chain.
    pub transforms: Vec<Transform>,
    /// Digests of the SmartModules, where they are known.
    pub digests: Vec<String>,
}

/// The connector kind `dynamodb-sink`.
#[derive(Debug, Clone, Copy, Default)]
pub struct DynamodbSink;

impl ConnectorKind for DynamodbSink {
    fn type_name(&self) -> &'static str {
        "dynamodb-sink"
    }

    fn section_name(&self) -> &'static str {
        "dynamodb"
    }

    fn package_description(&self) -> Option<&'static str> {
        Some(include_str!("../Connector.toml"))
    }

    fn section_schema(&self, generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<RawDynamodb>()
    }

    fn validate(
        &self,
        document: &ConnectorDocument,
        section: &Section<'_>,
        problems: &mut Problems,
    ) -> Option<Box<dyn ValidConnector>> {
        let config = validate(document, section, problems)?;
        Some(Box::new(config))
    }
}

fn validate(
    document: &ConnectorDocument,
    section: &Section<'_>,
    problems: &mut Problems,
) -> Option<SinkConfig> {
    let before = problems.errors();
    let raw: RawDynamodb = section.read(problems)?;
    let table = section.require(problems, "table", raw.table);
    if table.as_ref().is_some_and(|table| !is_table_name(table)) {
        problems.push(table_problem(section, "table"));
    }
    let aws = AwsSettings::validate(section, problems, raw.region, raw.endpoint, raw.profile);
    let keys = KeyNames {
        partition: raw
            .partition_key
            .unwrap_or_else(|| KeyNames::default().partition),
        sort: raw.sort_key.unwrap_or_else(|| KeyNames::default().sort),
    };
    check_keys(
        section,
        problems,
        &keys,
        raw.share_partitions != Some(false),
    );
    let pipeline = settings::pipeline(document, section, problems, raw.pipeline);
    let max_item_bytes = section.in_range(
        problems,
        "max-item-bytes",
        raw.max_item_bytes
            .unwrap_or(ByteSize(MAX_ITEM_BYTES as u64)),
        ByteSize(MIN_ITEM_BYTES as u64)..=ByteSize(MAX_ITEM_BYTES as u64),
    );
    let max_age = settings::max_age(section, problems, raw.max_age, settings::MAX_AGE);
    let pace = pace_settings::pace(
        section,
        problems,
        raw.max_write_units_per_second,
        raw.max_write_units_per_key,
        raw.burst_credit,
    );
    let write_shards = spread::write_shards(section, problems, raw.write_shards);
    if raw.write_shards.is_some() && raw.plain.is_some() {
        problems.push(
            section
                .problem(
                    "write-shards",
                    "spreads groups, and `plain` makes keys of its own",
                )
                .help("leave it out: give the template of `plain.partition-key` more values"),
        );
    }
    let capacity = match raw.billing {
        Some(Billing::Provisioned(units)) => {
            let range = 1..=1_000_000_000;
            for (path, value) in [
                ("billing.provisioned.read-units", units.read_units),
                ("billing.provisioned.write-units", units.write_units),
            ] {
                section.in_range(problems, path, value, range.clone());
            }
            Capacity::Provisioned {
                read_units: units.read_units,
                write_units: units.write_units,
            }
        }
        _ => Capacity::OnDemand,
    };
    let create = raw.create_table.unwrap_or(false);
    if raw.billing.is_some() && !create {
        problems.push(
            section
                .problem("billing", "has no effect without `create-table: true`")
                .as_warning(),
        );
    }
    let dead_letters = match raw.dead_letters {
        None => DeadLetterTarget::Default,
        Some(RawDeadLetters::File(path)) => {
            if path.is_empty() {
                problems.push(section.problem("dead-letters.file", "is empty"));
            }
            DeadLetterTarget::File(document.resolve(&path))
        }
        Some(RawDeadLetters::Table(name)) => {
            if !is_table_name(&name) {
                problems.push(table_problem(section, "dead-letters.table"));
            }
            DeadLetterTarget::Table(name)
        }
        Some(RawDeadLetters::Topic(name)) => {
            if !is_topic_name(&name) {
                problems.push(
                    section
                        .problem("dead-letters.topic", "is no topic name")
                        .allowed("1 to 63 of `a-z 0-9 -`, no `-` at either end"),
                );
            }
            if name == document.meta.topic.name {
                problems.push(
                    section.problem("dead-letters.topic", "is the topic that the sink reads"),
                );
            }
            DeadLetterTarget::Topic(name)
        }
    };
    let ledger_table = raw.ledger_table;
    if let Some(name) = &ledger_table {
        check_ledger_table(section, problems, name, table.as_deref());
    }
    let sharing = sharing(
        document,
        section,
        problems,
        raw.share_partitions,
        raw.lease_duration,
    );
    let beside = settings::beside(section, problems, raw.beside);
    let dictionary = raw.dictionary.unwrap_or_default();
    check_dictionary(section, problems, dictionary, raw.plain.is_some());
    let raw_form = RawForm {
        plain: raw.plain,
        ttl: raw.ttl,
        ttl_attribute: raw.ttl_attribute,
        attributes: raw.attributes,
        group_separator: raw.group_separator,
        names: raw.attribute_names,
        key_prefix: raw.key_prefix,
    };
    let form = form(document, section, problems, raw_form, &keys);
    if let (Some(limit), Some(form)) = (max_item_bytes, &form) {
        let besides = room::besides(&pipeline, &keys, form, write_shards.unwrap_or_default());
        room::check(document, section, problems, limit, besides);
    }
    if problems.errors() > before {
        return None;
    }
    Some(SinkConfig {
        table: table?,
        aws,
        create: create.then_some(capacity),
        keys,
        pipeline,
        max_item_bytes: usize::try_from(max_item_bytes?.0).ok()?,
        max_age: max_age?,
        pace: pace?,
        dead_letters,
        ledger_table,
        sharing: sharing?,
        on_gap: raw.on_gap.unwrap_or_default(),
        beside,
        form: form?,
        training: (dictionary == DictionaryUse::Auto).then(Training::default),
        write_shards: write_shards?,
        partitions: document.meta.consumer.partitions.clone(),
        transforms: document.transforms.clone(),
        digests: Vec::new(),
    })
}

/// DynamoDB API reference, `TableName` (read 2026-11-23).
fn is_table_name(name: &str) -> bool {
    if name.starts_with("arn:") {
        return name.len() <= 1_024 && name.contains(":table/");
    }
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (3..=255).contains(&name.len()) && name.bytes().all(known)
}

fn table_problem(section: &Section<'_>, path: &str) -> millpond_connector::problem::Problem {
    section
        .problem(path, "is no table name")
        .allowed("3 to 255 of `A-Z a-z 0-9 _ . -`, or an ARN")
}

fn check_ledger_table(
    section: &Section<'_>,
    problems: &mut Problems,
    name: &str,
    table: Option<&str>,
) {
    if !is_table_name(name) {
        problems.push(table_problem(section, "ledger-table"));
    }
    if table == Some(name) {
        problems.push(
            section
                .problem("ledger-table", "is the same as `table`")
                .help("leave it out: the ledger is in the table then"),
        );
    }
}

fn check_dictionary(
    section: &Section<'_>,
    problems: &mut Problems,
    dictionary: DictionaryUse,
    is_mapped: bool,
) {
    if dictionary == DictionaryUse::Auto && is_mapped {
        let problem = section.problem("dictionary", "is for packed items, and `plain` makes none");
        problems.push(problem.help("leave `dictionary` out, or `plain`"));
    }
}

fn check_keys(section: &Section<'_>, problems: &mut Problems, keys: &KeyNames, has_leases: bool) {
    for (path, name) in [("partition-key", &keys.partition), ("sort-key", &keys.sort)] {
        if !(1..=MAX_KEY_NAME_BYTES).contains(&name.len()) {
            problems.push(
                section
                    .problem(path, "is no name of a key")
                    .allowed(format!("1 to {MAX_KEY_NAME_BYTES} bytes")),
            );
        }
        let of_leases = DynamoStore::ATTRIBUTES.contains(&name.as_str());
        if names::ALL.contains(&name.as_str()) || (has_leases && of_leases) {
            let mut taken = names::ALL.to_vec();
            taken.extend(DynamoStore::ATTRIBUTES);
            taken.sort_unstable();
            taken.dedup();
            let mut problem = section
                .problem(path, "is the name of an attribute that Millpond writes")
                .allowed(format!("any but `{}`", taken.join("`, `")));
            if !names::ALL.contains(&name.as_str()) {
                problem =
                    problem.help("or set `share-partitions: false`: only leases use that name");
            }
            problems.push(problem);
        }
    }
    if keys.partition == keys.sort {
        problems.push(section.problem("sort-key", "is the same as `partition-key`"));
    }
}

#[async_trait]
impl ValidConnector for SinkConfig {
    fn shared_work(&self) -> Option<String> {
        let shares = self.sharing.share != Share::Never && self.partitions == PartitionChoice::All;
        shares.then(|| format!("pipeline `{}` in table `{}`", self.pipeline, self.table))
    }

    fn dead_letter_topic(&self) -> Option<&str> {
        match &self.dead_letters {
            DeadLetterTarget::Topic(name) => Some(name),
            _ => None,
        }
    }

    async fn build(mut self: Box<Self>) -> anyhow::Result<BuiltConnector> {
        self.digests = module_digests(&self.transforms);
        let context = || format!("table `{}`", self.table);
        let sdk = self.aws.load().await.with_context(context)?;
        self.aws
            .check_credentials(&sdk)
            .await
            .with_context(context)?;
        let client = Client::new(&sdk);
        let table = |name: &str| -> Arc<dyn TableApi> {
            Arc::new(AwsTable::new(
                client.clone(),
                name.to_owned(),
                self.keys.clone(),
            ))
        };
        let data = table(&self.table);
        let dead_letters = match &self.dead_letters {
            DeadLetterTarget::Table(name) => Some(table(name)),
            DeadLetterTarget::Default | DeadLetterTarget::File(_) | DeadLetterTarget::Topic(_) => {
                None
            }
        };
        let ledger = self.ledger_table.as_deref().map(table);
        let leases: LeasesOf = {
            let name = self.ledger_table.as_ref().unwrap_or(&self.table).clone();
            let keys = self.keys.clone();
            let client = client.clone();
            Box::new(move |place| {
                let (pk, sk) = (&keys.partition, &keys.sort);
                let (pipeline, topic) = (&place.pipeline, &place.topic);
                Arc::new(DynamoStore::new(client, &name, pk, sk, pipeline, topic))
            })
        };
        let tables = Tables {
            data,
            dead_letters,
            ledger,
            leases: Some(leases),
        };
        Ok(BuiltConnector::Sink(Box::new(self.sink_on(tables))))
    }
}

impl SinkConfig {
    /// The sink on these tables, the second one for dead letters, without leases.
    #[must_use]
    pub fn sink(
        self,
        table: Arc<dyn TableApi>,
        dead_letters: Option<Arc<dyn TableApi>>,
    ) -> StoreSink {
        self.sink_on(Tables {
            data: table,
            dead_letters,
            ledger: None,
            leases: None,
        })
    }

    /// The sink on these tables.
    #[must_use]
    pub fn sink_on(self, tables: Tables) -> StoreSink {
        let fingerprint = store::settings(
            &self.keys,
            self.max_item_bytes,
            &self.form,
            self.write_shards,
        );
        let shared = SinkSettings {
            pipeline: self.pipeline,
            max_age: self.max_age,
            dead_letters: match self.dead_letters {
                DeadLetterTarget::Default => sink::DeadLetterTarget::Default,
                DeadLetterTarget::File(path) => sink::DeadLetterTarget::File(path),
                DeadLetterTarget::Table(_) => sink::DeadLetterTarget::Store,
                DeadLetterTarget::Topic(name) => sink::DeadLetterTarget::Topic(name),
            },
            on_gap: self.on_gap,
            beside: self.beside,
            partitions: self.partitions,
            transforms: self.transforms,
            digests: self.digests,
            fingerprint,
        };
        let sharing = self.sharing;
        let table = TableSettings {
            table: tables.data,
            dead_letters: tables.dead_letters,
            ledger: tables.ledger,
            leases: tables.leases,
            create: self.create,
            keys: self.keys,
            max_item_bytes: self.max_item_bytes,
            pace: self.pace,
            form: self.form,
            training: self.training,
            // Without a limit no key is ever hot.
            spreading: Spreading::new(self.write_shards, self.pace.key_units.unwrap_or(0)),
        };
        StoreSink::new(shared, Box::new(table)).sharing(sharing)
    }
}
