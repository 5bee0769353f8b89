//! Checks the section: all mistakes at once, each at its place.

use millpond_connector::aws::AwsSettings;
use millpond_connector::document::ConnectorDocument;
use millpond_connector::meta::is_topic_name;
use millpond_connector::problem::{Problem, Problems};
use millpond_connector::section::Section;
use millpond_connector::units::ByteSize;
use millpond_format::limits::{MAX_ITEM_BYTES, MIN_ITEM_BYTES};
use millpond_leases::DynamoStore;
use millpond_sink::settings;

use super::section::{Billing, DictionaryUse, RawDeadLetters, RawDynamodb};
use super::{DeadLetterTarget, SinkConfig};
use crate::client::Capacity;
use crate::dictionaries::Training;
use crate::form::{RawForm, form, room};
use crate::pace_settings;
use crate::row::{KeyNames, names};
use crate::sharing::sharing;
use crate::spread;

/// Longest attribute name of a key (DynamoDB developer guide, "Quotas": 255 for key attributes,
/// read 2026-11-23).
const MAX_KEY_NAME_BYTES: usize = 255;

pub(super) fn validate(
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
    let capacity = capacity(section, problems, raw.billing);
    let create = raw.create_table.unwrap_or(false);
    if raw.billing.is_some() && !create {
        problems.push(
            section
                .problem("billing", "has no effect without `create-table: true`")
                .as_warning(),
        );
    }
    let dead_letters = dead_letters(document, section, problems, raw.dead_letters);
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

/// What a table is created with.
fn capacity(section: &Section<'_>, problems: &mut Problems, billing: Option<Billing>) -> Capacity {
    match billing {
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
    }
}

fn dead_letters(
    document: &ConnectorDocument,
    section: &Section<'_>,
    problems: &mut Problems,
    raw: Option<RawDeadLetters>,
) -> DeadLetterTarget {
    match raw {
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
    }
}

/// DynamoDB API reference, `TableName` (read 2026-11-23).
fn is_table_name(name: &str) -> bool {
    if name.starts_with("arn:") {
        return name.len() <= 1_024 && name.contains(":table/");
    }
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (3..=255).contains(&name.len()) && name.bytes().all(known)
}

fn table_problem(section: &Section<'_>, path: &str) -> Problem {
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
