//! The section `dynamodb`: all mistakes at once, each with its place; and the shipped samples.

use millpond_connector::testing::validate_section;
use millpond_dynamodb_sink::kind;

#[test]
fn a_small_section_is_enough() {
    let (problems, valid) = validate_section(kind(), "table: events\n");
    assert!(
        valid.is_some() && problems.is_empty(),
        "{}",
        problems.plain()
    );
}

#[test]
fn every_setting_can_be_given() {
    let section = "\
table: events
region: eu-central-1
endpoint: http://127.0.0.1:8000
profile: dev
create-table: true
billing: {provisioned: {read-units: 10, write-units: 500}}
partition-key: id
sort-key: at
pipeline: jobs
max-item-bytes: 200 KiB
max-age: 30s
max-write-units-per-second: 400
max-write-units-per-key: none
write-shards: 8
burst-credit: 1m
dead-letters: {table: dead-events}
ledger-table: events-ledger
share-partitions: true
lease-duration: 10s
key-prefix: 'events#'
attribute-names: {header: head, frames: data, events: count, first-time: from, last-time: to, event: value, origin: origin}
attributes: {lowest: {minimum: /price}, highest: {maximum: /price}}
";
    let (problems, valid) = validate_section(kind(), section);
    assert!(
        valid.is_some() && problems.is_empty(),
        "{}",
        problems.plain()
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    let section = "\
table: e
regoin: eu-central-1
endpoint: localhost
create-table: true
billing: {provisioned: {read-units: 0, write-units: 1}}
partition-key: h
sort-key: h
pipeline: a/b
max-item-bytes: 409601
max-age: 5ms
max-write-units-per-second: 0
max-write-units-per-key: 0
write-shards: 65
burst-credit: 6m
dead-letters: {table: x}
ledger-table: e
lease-duration: 1s
";
    let (problems, valid) = validate_section(kind(), section);
    assert!(valid.is_none());
    let text = problems.plain();
    for part in [
        "dynamodb.table",
        "dynamodb.regoin",
        "`region`",
        "dynamodb.endpoint",
        "dynamodb.billing.provisioned.read-units",
        "dynamodb.partition-key",
        "is the same as `partition-key`",
        "dynamodb.pipeline",
        "dynamodb.max-item-bytes",
        "dynamodb.max-age",
        "dynamodb.max-write-units-per-second",
        "dynamodb.max-write-units-per-key",
        "dynamodb.write-shards",
        "dynamodb.burst-credit",
        "dynamodb.dead-letters.table",
        "dynamodb.ledger-table",
        "is the same as `table`",
        "dynamodb.lease-duration",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn a_budget_is_a_number_or_one_word() {
    for section in [
        "table: events\nmax-write-units-per-second: auto\n",
        "table: events\nmax-write-units-per-second: 1000000000\nmax-write-units-per-key: 3000\n",
    ] {
        let (problems, valid) = validate_section(kind(), section);
        assert!(valid.is_some(), "{}", problems.plain());
    }
    for value in ["automatic", "-1", "1.5", "[1]"] {
        let section = format!("table: events\nmax-write-units-per-second: {value}\n");
        let (problems, valid) = validate_section(kind(), &section);
        let text = problems.plain();
        assert!(
            valid.is_none() && text.contains("`auto`"),
            "{value}: {text}"
        );
    }
}

#[test]
fn write_shards_are_a_number_or_one_word_and_not_for_mapped_events() {
    for value in ["auto", "1", "64"] {
        let section = format!("table: events\nwrite-shards: {value}\n");
        let (problems, valid) = validate_section(kind(), &section);
        assert!(valid.is_some(), "{}", problems.plain());
    }
    let plain = "{partition-key: '{/id}', sort-key: '{position}', attributes: {a: {type: number}}}";
    for (value, more, said) in [
        ("0", String::new(), "1 to 64"),
        ("none", String::new(), "`auto`"),
        (
            "2",
            format!("plain: {plain}\n"),
            "`plain` makes keys of its own",
        ),
    ] {
        let section = format!("table: events\nwrite-shards: {value}\n{more}");
        let (problems, valid) = validate_section(kind(), &section);
        let text = problems.plain();
        assert!(valid.is_none() && text.contains(said), "{value}: {text}");
    }
}

#[test]
fn mistakes_of_a_mapping_are_told_at_their_places() {
    let section = "\
table: events
ttl: 0s
ttl-attribute: millpond
plain:
  partition-key: '{id}'
  same-key: newest
  attributes:
    total: {type: decimal}
    pk: {from: /x}
    note: {from: x, requird: false}
";
    let (problems, valid) = validate_section(kind(), section);
    assert!(valid.is_none());
    let text = problems.plain();
    for part in [
        "dynamodb.ttl",
        "dynamodb.plain.partition-key",
        "`{id}`",
        "dynamodb.plain.sort-key",
        "dynamodb.plain.same-key",
        "`last-wins`",
        "dynamodb.plain.attributes.total.type",
        "`number-set`",
        "dynamodb.plain.attributes.pk",
        "dynamodb.plain.attributes.note.from",
        "dynamodb.plain.attributes.note.requird",
        "`required`",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn more_attributes_need_names_and_room_of_their_own() {
    let section = "\
table: events
ttl: 1d
attributes:
  ttl: {constant: x}
  pk: {group-part: 0}
  one: {group-part: 1}
  two: {group-part: 1}
  three: {part: 1}
group-separator: ''
";
    let (problems, _) = validate_section(kind(), section);
    let text = problems.plain();
    for part in [
        "dynamodb.attributes.ttl",
        "dynamodb.attributes.pk",
        "dynamodb.attributes.two",
        "dynamodb.attributes.three",
        "`group-part`",
        "dynamodb.group-separator",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let section = "table: events\nplain: {partition-key: a, sort-key: '{position}', attributes: {a: {}}}\n\
        attributes: {b: {constant: c}}\n";
    let (problems, _) = validate_section(kind(), section);
    assert!(
        problems.plain().contains("plain.attributes"),
        "{}",
        problems.plain()
    );
    let long = format!(
        "table: events\nattributes: {{a: {{constant: {}}}}}\n",
        "x".repeat(1_000)
    );
    for (with, errors) in [("{}", 1), ("{max-item-bytes: 400000}", 0)] {
        let transforms = format!("[{{uses: millpond/pack@0.1.0, with: {with}}}]");
        let problems = problems_of(&transforms, &long);
        assert_eq!(problems.errors(), errors, "{}", problems.plain());
    }
}

#[test]
fn names_a_prefix_and_bounds_are_checked_at_their_places() {
    let section = "\
table: events
ttl: 1d
key-prefix: events/
attribute-names: {header: late, frames: one, events: ttl, first-time: t0, last-time: same, origin: same, event: ''}
attributes:
  one: {minimum: price}
  two: {maximum: ''}
";
    let (problems, valid) = validate_section(kind(), section);
    assert!(valid.is_none());
    let text = problems.plain();
    for part in [
        "dynamodb.key-prefix",
        "dynamodb.attribute-names.header",
        "dynamodb.attribute-names.frames",
        "dynamodb.attribute-names.events",
        "dynamodb.attribute-names.origin",
        "dynamodb.attribute-names.event",
        "dynamodb.attributes.one",
        "it starts with `/`",
        "dynamodb.attributes.two",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(
        !text.contains("attribute-names.first-time") && !text.contains("attribute-names.last-time"),
        "{text}"
    );
    for prefix in ["p", "millpond:", "", "a-", "a/#"] {
        let section = format!("table: events\nkey-prefix: '{prefix}'\n");
        let (problems, _) = validate_section(kind(), &section);
        assert!(problems.plain().contains("dynamodb.key-prefix"), "{prefix}");
    }
    let section = "table: events\nplain: {partition-key: a, sort-key: '{position}', attributes: {a: {}}}\n\
        key-prefix: 'a#'\nattribute-names: {header: x}\n";
    let (problems, _) = validate_section(kind(), section);
    let text = problems.plain();
    assert!(
        text.contains("dynamodb.key-prefix") && text.contains("dynamodb.attribute-names"),
        "{text}"
    );
}

/// Problems of a document with these transforms and this section.
fn problems_of(transforms: &str, section: &str) -> millpond_connector::problem::Problems {
    use millpond_connector::manifest::{ManifestFile, Scope};
    use millpond_connector::registry::Registry;
    use millpond_connector::secret::SecretStore;
    let section: String = section.lines().map(|line| format!("  {line}\n")).collect();
    let text = format!(
        "apiVersion: 0.1.0\nmeta: {{name: a, type: dynamodb-sink, topic: t, version: 0.1.0}}\n\
         transforms: {transforms}\ndynamodb:\n{section}"
    );
    let file = ManifestFile::from_bytes("c.yaml", text.as_bytes(), "");
    let checked = Registry::new().with(kind()).validate(
        &file,
        &SecretStore::from_environment(),
        &millpond_connector_host::BuiltIn,
        Scope::Connector,
    );
    checked.problems
}

#[test]
fn a_mapping_stands_without_transforms() {
    let section = "table: events\nplain: {partition-key: '{/id}', sort-key: '{position}', attributes: {a: {}}}\n";
    for (transforms, errors) in [("[]", 0), ("[{uses: millpond/pack@0.1.0}]", 1)] {
        let problems = problems_of(transforms, section);
        assert_eq!(problems.errors(), errors, "{}", problems.plain());
    }
}

#[test]
fn billing_without_a_table_to_create_is_a_warning() {
    let (problems, valid) = validate_section(kind(), "table: events\nbilling: on-demand\n");
    assert!(valid.is_some());
    assert_eq!(
        (problems.errors(), problems.warnings()),
        (0, 1),
        "{}",
        problems.plain()
    );
}

/// Lease rows have attributes of their own, which a key must not take where there are leases.
#[test]
fn a_key_may_have_a_name_of_the_leases_only_without_them() {
    let section = "table: events\nsort-key: session\n";
    let (problems, valid) = validate_section(kind(), section);
    assert!(valid.is_none());
    let text = problems.plain();
    assert!(text.contains("share-partitions: false"), "{text}");
    let section = format!("{section}share-partitions: false\n");
    let (problems, valid) = validate_section(kind(), &section);
    assert!(
        valid.is_some() && problems.is_empty(),
        "{}",
        problems.plain()
    );
    let (problems, valid) = validate_section(kind(), &format!("{section}lease-duration: 3s\n"));
    assert!(valid.is_some());
    assert_eq!(problems.warnings(), 1, "{}", problems.plain());
}

#[test]
fn partitions_divided_by_hand_are_not_shared() {
    use millpond_connector::manifest::{ManifestFile, Scope};
    use millpond_connector::registry::Registry;
    use millpond_connector::secret::SecretStore;
    let text = "apiVersion: 0.1.0\nmeta: {name: out, type: dynamodb-sink, topic: events, version: 0.1.0, \
                consumer: {partition: [0, 1]}}\ndynamodb: {table: events, share-partitions: true}\n";
    let file = ManifestFile::from_bytes("c.yaml", text.as_bytes(), "");
    let secrets = SecretStore::from_environment();
    let checked = Registry::new().with(kind()).validate(
        &file,
        &secrets,
        &millpond_connector_host::BuiltIn,
        Scope::Connector,
    );
    let text = checked.problems.plain();
    assert!(
        checked.pipeline.is_none() && text.contains("by hand"),
        "{text}"
    );
}

/// `Connector.toml`, `sample-config.yaml` and the README name the settings that there are.
#[test]
fn the_shipped_files_name_every_setting() {
    use millpond_connector::registry::ConnectorKind;
    let mut generator = schemars::SchemaGenerator::default();
    let reference = kind().section_schema(&mut generator);
    let schema = generator.take_definitions(true);
    let name = reference.as_value()["$ref"]
        .as_str()
        .and_then(|path| path.rsplit('/').next());
    let properties = &schema[name.expect("reference")]["properties"];
    let properties = properties.as_object().expect("properties");
    assert!(properties.len() >= 13);
    let toml = include_str!("../../Connector.toml");
    let readme = include_str!("../../README.md");
    let sample = include_str!("../../sample-config.yaml");
    for setting in properties.keys() {
        assert!(
            toml.contains(&format!("[dynamodb.properties.{setting}]")),
            "{setting}"
        );
        assert!(readme.contains(&format!("`{setting}`")), "{setting}");
        assert!(sample.contains(&format!("{setting}: ")), "{setting}");
    }
    let (_, section) = sample.split_once("\ndynamodb:\n").expect("section");
    let section: Vec<&str> = section
        .lines()
        .map(|line| line.strip_prefix("  ").unwrap_or(line))
        .collect();
    let (problems, valid) = validate_section(kind(), &section.join("\n"));
    assert!(
        valid.is_some() && problems.is_empty(),
        "{}",
        problems.plain()
    );
}
