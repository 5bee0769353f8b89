//! A Connector.yaml as a user writes it: right, and wrong in every way.

mod support;

use std::time::Duration;

use millpond_connector::manifest::{ManifestFile, Scope};
use millpond_connector::meta::{Compression, OffsetStart, PartitionChoice};
use millpond_connector::problem::Severity;
use millpond_connector::registry::{BuiltConnector, Direction};
use millpond_connector::secret::SecretStore;
use support::{GOOD, PackOnly, check, check_with, registry};

#[test]
fn a_right_file_becomes_a_pipeline() {
    let checked = check(GOOD);
    assert!(checked.problems.is_empty(), "{}", checked.problems);
    let pipeline = checked.pipeline.expect("a pipeline");
    let [source, sink] = pipeline.connectors.as_slice() else {
        panic!("two connectors");
    };
    assert_eq!(source.document.direction(), Direction::Source);
    let producer = &source.document.meta.producer;
    assert_eq!(producer.linger, Duration::from_millis(100));
    assert_eq!(producer.batch_bytes, 2 << 20);
    let defaults = &sink.document.meta.producer;
    assert_eq!(defaults.linger, Duration::from_millis(250));
    assert_eq!(defaults.batch_bytes, 1 << 20);
    let consumer = &sink.document.meta.consumer;
    assert_eq!(consumer.partitions, PartitionChoice::All);
    assert_eq!(consumer.max_bytes, Some(1_000_000));
    assert_eq!(consumer.start, Some(OffsetStart::FromEnd(5)));
    assert_eq!(consumer.flush_period, Some(Duration::new(1, 5)));
    let [step] = sink.document.transforms.as_slice() else {
        panic!("one transform");
    };
    assert_eq!(step.uses, "millpond/pack@0.1.0");
    assert_eq!(
        step.with.get("group-by").map(String::as_str),
        Some("/job_id")
    );
    let nested: serde_json::Value =
        serde_json::from_str(step.with.get("nested").expect("nested")).expect("JSON");
    assert_eq!(nested, serde_json::json!({ "a": true, "b": [1, "x"] }));
    let [topic] = pipeline.topics.as_slice() else {
        panic!("one topic");
    };
    assert_eq!((topic.name.as_str(), topic.partitions), ("events", Some(8)));
}

#[tokio::test]
async fn a_valid_connector_builds() {
    let pipeline = check(GOOD).pipeline.expect("a pipeline");
    let mut directions = Vec::new();
    for connector in pipeline.connectors {
        directions.push(match connector.config.build().await.expect("built") {
            BuiltConnector::Source(_) => Direction::Source,
            BuiltConnector::Sink(_) => Direction::Sink,
        });
    }
    assert_eq!(directions, [Direction::Source, Direction::Sink]);
}

const TEN_MISTAKES: &str = "\
apiVersion: 0.1.0
meta:
  name: river
  type: river-source
  topic: events
  version: 0.1.0
  producer:
    lingr: 5s
    batch-size: 64 MB
  secrets:
    - name: MILLPOND_NO_SUCH_SECRET
river:
  stream: 17
  start: oldest
  topic-partitions: 0
---
apiVersion: 0.1.0
meta:
  name: river
  type: lake-snk
  topic: event
  version: 0.1.0
transforms:
  - uses: millpond/pakc@0.1.0
lake:
  max-age: 2h
  create-table: yes
  billing:
    provisioned: {read-units: 5}
";

#[test]
fn ten_mistakes_and_more_are_said_at_once_each_in_its_place() {
    let checked = check(TEN_MISTAKES);
    assert!(checked.pipeline.is_none());
    let found: Vec<(u32, u32, &str)> = checked
        .problems
        .list()
        .iter()
        .map(|problem| {
            let span = problem.span.expect("a place");
            (span.line, span.column, problem.path.as_str())
        })
        .collect();
    assert_eq!(
        found,
        [
            (5, 10, "meta.topic"),
            (8, 5, "meta.producer.lingr"),
            (9, 17, "meta.producer.batch-size"),
            (11, 13, "meta.secrets[0].name"),
            (13, 11, "river.stream"),
            (14, 10, "river.start"),
            (15, 21, "river.topic-partitions"),
            (19, 9, "meta.name"),
            (20, 9, "meta.type"),
            (21, 10, "meta.topic"),
            (24, 11, "transforms[0].uses"),
            (25, 1, "lake.table"),
            (26, 12, "lake.max-age"),
            (27, 17, "lake.create-table"),
            (29, 5, "lake.billing.provisioned"),
        ],
        "{}",
        checked.problems
    );
    let plain = checked.problems.plain();
    for line in [
        "Connector.yaml:5:10: error: `meta.topic` is emptied by no sink of this file, given `events`; did you mean `event`?",
        "Connector.yaml:8:5: error: `meta.producer.lingr` is not a known setting; did you mean `linger`?",
        "Connector.yaml:9:17: error: `meta.producer.batch-size` is out of range, given `64 MB`, allowed: 1 KiB to 32 MiB",
        "Connector.yaml:11:13: error: `meta.secrets[0].name` is listed, but the secret is not set, given `MILLPOND_NO_SUCH_SECRET`; set the environment variable `MILLPOND_NO_SUCH_SECRET`, or name a file with `--secrets`",
        "Connector.yaml:13:11: error: `river.stream` is a whole number, not text, given `17`; put it in quotes",
        "Connector.yaml:14:10: error: `river.start` is not a known value, given `oldest`, allowed: `trim-horizon`, `latest`, `at-timestamp`",
        "Connector.yaml:15:21: error: `river.topic-partitions` is out of range, given `0`, allowed: 1 to 256",
        "Connector.yaml:19:9: error: `meta.name` is taken by the connector in line 3, given `river`; give each connector its own name",
        "Connector.yaml:20:9: error: `meta.type` is not a known type of connector, given `lake-snk`; did you mean `lake-sink`?",
        "Connector.yaml:21:10: error: `meta.topic` is filled by no source of this file, given `event`; did you mean `events`?",
        "Connector.yaml:24:11: error: `transforms[0].uses` is not a known SmartModule, given `millpond/pakc@0.1.0`, allowed: a built-in one, or a path to a `.wasm` file; did you mean `millpond/pack@0.1.0`?",
        "Connector.yaml:25:1: error: `lake.table` is missing; add `table` under `lake`",
        "Connector.yaml:26:12: error: `lake.max-age` is out of range, given `2h`, allowed: 100ms to 5m",
        "Connector.yaml:27:17: error: `lake.create-table` is text, not `true` or `false`, given `yes`; YAML 1.2 knows only `true` and `false`",
        "Connector.yaml:29:5: error: `lake.billing.provisioned` lacks `write-units`",
    ] {
        assert!(
            plain.lines().any(|found| found == line),
            "{line}\nnot in\n{plain}"
        );
    }
    let fancy = checked.problems.fancy(false, 100);
    assert!(fancy.contains("[Connector.yaml:26:12]"), "{fancy}");
    assert!(fancy.contains("max-age: 2h"), "{fancy}");
}

/// The first problem's plain line, without the file's name; the file must have just one.
fn only_problem(text: &str, scope: Scope) -> String {
    let checked = check_with(text, &SecretStore::from_environment(), scope);
    let plain = checked.problems.plain();
    assert_eq!(plain.lines().count(), 1, "{plain}");
    let line = plain.trim_end().trim_start_matches("Connector.yaml");
    line.trim_start_matches(':').to_owned()
}

fn source_with(change: &str, to: &str) -> String {
    let source = GOOD.split("---\n").next().expect("a source");
    assert!(source.contains(change), "{change}");
    source.replace(change, to)
}

fn sink_with(change: &str, to: &str) -> String {
    let sink = GOOD.split("---\n").nth(1).expect("a sink");
    assert!(sink.contains(change), "{change}");
    sink.replace(change, to)
}

#[test]
fn each_mistake_has_its_words() {
    for (text, expected) in [
        (
            source_with("apiVersion: 0.1.0", "apiVersion: 1.0"),
            "1:13: error: `apiVersion` is not a known version, given `1.0`, allowed: `0.0.0`, `0.1.0`, `0.2.0`",
        ),
        (
            source_with("  topic: events\n", "  topic: {meta: {name: events}}\n"),
            "5:10: error: `meta.topic` is a topic configuration, which this `apiVersion` does not know; set `apiVersion: 0.2.0`, or give the topic's name alone",
        ),
        (
            source_with("0.1.0\nmeta", "0.2.0\nmeta"),
            "5:10: error: `meta.topic` is a name, but `apiVersion: 0.2.0` takes a topic configuration, given `events`; write `topic: {meta: {name: NAME}}`, or set `apiVersion: 0.1.0`",
        ),
        (
            source_with("  topic: events", "  topic: Events"),
            "5:10: error: `meta.topic` is no name for a topic, given `Events`, allowed: 1 to 63 of `a-z 0-9 -`, no `-` at either end",
        ),
        (
            source_with("  name: river\n", ""),
            "2:1: error: `meta.name` is missing; add `name` under `meta`",
        ),
        (
            source_with("  version: 0.1.0\n", ""),
            "2:1: error: `meta.version` is missing; add `version` under `meta`",
        ),
        (
            source_with("river:\n", "rivr:\n"),
            "2:1: error: `river` is missing: a `river-source` cannot do without it; add a section `river:` beside `meta:`\nConnector.yaml:10:1: error: `rivr` is not a known setting; did you mean `river`?",
        ),
        (
            source_with(
                "river:\n",
                "transforms: [{uses: millpond/pack@0.1.0}]\nriver:\n",
            ),
            "10:1: error: `transforms` is not taken on a source: there it would run on single records, and an error in it would lose the record; move it to the sink, where it runs on whole stored batches",
        ),
        (
            source_with("river:\n", "lake: {}\nriver:\n"),
            "10:1: error: `lake` is the section of a `lake-sink`, but this is a `river-source`; its own section is `river`",
        ),
        (
            source_with(
                "{at-timestamp: '2026-01-31T12:00:00Z'}",
                "{at-timestamp: yesterday}",
            ),
            "12:25: error: `river.start.at-timestamp` is no moment in RFC 3339, with a time zone: `2026-01-31T12:00:00Z`, given `yesterday`",
        ),
        (
            source_with("{at-timestamp: '2026-01-31T12:00:00Z'}", "at-timestamp"),
            "12:10: error: `river.start` needs a value with `at-timestamp`, given `at-timestamp`; write `at-timestamp: VALUE` one level deeper",
        ),
        (
            source_with(
                "{at-timestamp: '2026-01-31T12:00:00Z'}",
                "{at-timestamp: '1960-01-31T12:00:00Z'}",
            ),
            "12:25: warning: `river.start.at-timestamp` lies before all streams, given `1960-01-31T12:00:00Z`",
        ),
        (
            source_with(
                "  stream: events",
                "  stream: events\n  endpoint: localhost:4567",
            ),
            "12:13: error: `river.endpoint` is no URL of an AWS endpoint, given `localhost:4567`, allowed: `http://HOST[:PORT]` or `https://HOST[:PORT]`; leave it out to speak to AWS itself",
        ),
        (
            source_with("  stream: events", "  stream: events\n  stream: others"),
            "12:3: error: key `stream` is given twice, first in line 11; remove one of the two",
        ),
        (
            source_with("linger: 100ms", "linger: 100"),
            "8:13: error: `meta.producer.linger` has no unit: `ms`, `s`, `m`, `h` or `d`, given `100`",
        ),
        (
            source_with("topic-partitions: 8", "topic-partitions: -1"),
            "13:21: error: `river.topic-partitions` is out of range, given `-1`, allowed: a whole number from 0 to 4294967295",
        ),
        (
            sink_with("level: \"3\"", "level: 3"),
            "15:14: warning: `transforms[0].with.level` is not text: a Fluvio cluster takes only texts, maps and lists here, given `3`; write `level: \"3\"`",
        ),
        (
            sink_with("level: \"3\"", "level: \"30\""),
            "15:14: error: `transforms[0].with.level` is out of range, given `30`, allowed: 1 to 19",
        ),
        (
            sink_with("level: \"3\"", "level:"),
            "15:12: error: `transforms[0].with.level` has no value, given ``",
        ),
        (
            sink_with("    with:", "    wiht:"),
            "13:5: error: `transforms[0].wiht` is not a known setting; did you mean `with`?",
        ),
        (
            sink_with("partition: all", "partition: [0, x]"),
            "8:20: error: `meta.consumer.partition[1]` is text, not a whole number from 0 to 4294967295, given `x`",
        ),
        (
            sink_with("partition: all", "partition: some"),
            "8:16: error: `meta.consumer.partition` is out of range, given `some`, allowed: `all`, a partition (a whole number from 0), or a list of partitions",
        ),
        (
            sink_with("{file: dead.jsonl}", "{fil: dead.jsonl}"),
            "22:18: error: `lake.dead-letters` is not a known value, given `fil`, allowed: `file`, `table`; did you mean `file`?",
        ),
        (
            sink_with("write-units: 10}", "write-units: 10, burst: 3}"),
            "20:59: error: `lake.billing.provisioned.burst` is not a known setting; known are `read-units`, `write-units`",
        ),
        (
            String::new(),
            " error: the file holds no connector; `millpond schema` prints what it may hold",
        ),
        (
            "- a\n- b\n".into(),
            "1:1: error: a connector document is a map, not a list",
        ),
        (
            "meta: [\n".into(),
            "2:1: error: is not YAML: while parsing a node, did not find expected node content",
        ),
    ] {
        let checked = check_with(
            text.as_str(),
            &SecretStore::from_environment(),
            Scope::Connector,
        );
        let plain = checked.problems.plain();
        let found = plain
            .trim_end()
            .trim_start_matches("Connector.yaml")
            .trim_start_matches(':');
        assert_eq!(found, expected, "\n{text}");
    }
}

#[test]
fn a_topic_needs_both_ends_but_a_single_connector_may_stand_alone() {
    let source = GOOD.split("---\n").next().expect("a source");
    assert_eq!(
        only_problem(source, Scope::Pipeline),
        "5:10: error: `meta.topic` is emptied by no sink of this file, given `events`; \
         add a sink with the same `meta.topic`"
    );
    let alone = check_with(source, &SecretStore::from_environment(), Scope::Connector);
    assert!(alone.problems.is_empty(), "{}", alone.problems);
    assert!(alone.pipeline.is_some());
}

#[test]
fn every_api_version() {
    let bare = source_with("apiVersion: 0.1.0\n", "");
    for text in [
        bare.clone(),
        format!("apiVersion: 0.0.0\n{bare}"),
        format!("apiVersion: \"0.1.0\"\n{bare}"),
    ] {
        let checked = check_with(text, &SecretStore::from_environment(), Scope::Connector);
        assert!(checked.problems.is_empty(), "{}", checked.problems);
    }
    let topic = "  topic:
    version: 0.1.0
    meta:
      name: events
    partition:
      count: 6
      max-size: 1.0 GB
      replication: 2
      ignore-rack-assignment: true
    retention:
      time: 2m
      segment-size: 2.0 MB
    compression:
      type: lz4
    deduplication:
      bounds: {count: 100, age: 4s}
      filter: {transform: {uses: infinyon/fluvio-smartmodule-filter@0.1.0}}
";
    let bare = bare.replace("  topic-partitions: 8\n", "");
    let text = format!(
        "apiVersion: 0.2.0\n{}",
        bare.replace("  topic: events\n", topic)
    );
    let checked = check_with(
        text.as_str(),
        &SecretStore::from_environment(),
        Scope::Connector,
    );
    let plain = checked.problems.plain();
    assert!(
        plain.contains("warning: `meta.topic.deduplication` is ignored"),
        "{plain}"
    );
    assert_eq!(checked.problems.list().len(), 1, "{plain}");
    let pipeline = checked.pipeline.expect("a pipeline");
    let [topic] = pipeline.topics.as_slice() else {
        panic!("one topic");
    };
    assert_eq!(topic.partitions, Some(6));
    assert_eq!(topic.replication, Some(2));
    assert_eq!(topic.ignore_rack_assignment, Some(true));
    assert_eq!(topic.compression, Some(Compression::Lz4));
    assert_eq!(topic.not_made, ["deduplication"]);
    assert_eq!(topic.retention_time, Some(Duration::from_secs(120)));
    assert_eq!(topic.max_partition_bytes, Some(1_000_000_000));
    assert_eq!(topic.segment_bytes, Some(2_000_000));
}

#[test]
fn a_topic_whose_partitions_are_said_twice_must_agree() {
    let text = source_with("0.1.0\nmeta", "0.2.0\nmeta").replace(
        "  topic: events\n",
        "  topic: {meta: {name: events}, partition: {count: 4}}\n",
    );
    assert_eq!(
        only_problem(&text, Scope::Connector),
        "5:52: error: `meta.topic.partition.count` disagrees with the connector's own section, \
         which says 8, given `4`"
    );
}

#[test]
fn a_wasm_file_is_looked_for_beside_the_file_and_must_be_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let check = |uses: &str| {
        let text = sink_with("millpond/pack@0.1.0", uses);
        std::fs::write(folder.path().join("sink.yaml"), text).expect("written");
        let file = ManifestFile::read(&folder.path().join("sink.yaml")).expect("read");
        let secrets = SecretStore::from_environment();
        registry().validate(&file, &secrets, &PackOnly, Scope::Connector)
    };
    std::fs::write(folder.path().join("good.wasm"), b"\0asm\x01\0\0\0").expect("written");
    std::fs::write(folder.path().join("text.wasm"), b"hello").expect("written");
    std::fs::write(folder.path().join("empty.wasm"), b"").expect("written");

    let good = check("good.wasm");
    assert!(good.problems.is_empty(), "{}", good.problems);
    let pipeline = good.pipeline.expect("a pipeline");
    let uses = &pipeline.connectors[0].document.transforms[0].uses;
    assert_eq!(uses, &folder.path().join("good.wasm").display().to_string());

    for (uses, word) in [
        ("text.wasm", "does not begin with"),
        ("empty.wasm", "does not begin with"),
        ("missing.wasm", "No such file"),
    ] {
        let checked = check(uses);
        let [problem] = checked.problems.list() else {
            panic!("{uses}: {}", checked.problems);
        };
        assert_eq!(problem.path, "transforms[0].uses");
        assert_eq!(problem.span.map(|span| span.line), Some(12));
        assert!(problem.what.contains(word), "{}", problem.what);
    }
    let missing = ManifestFile::read(&folder.path().join("none.yaml")).expect_err("no file");
    assert!(missing.to_string().contains("none.yaml"), "{missing}");
}

#[test]
fn sizes_and_depths_are_bounded() {
    let bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\n\
        c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]\n\
        e: [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]\n";
    for (text, word) in [
        (bomb.to_owned(), "the file holds too much"),
        ("[".repeat(200), "is nested too deeply"),
        ("- ".repeat(5_000), "is nested too deeply"),
        ("#".repeat((1 << 20) + 1), "the file is too large"),
        (
            "a: &a [*a]\n".to_owned(),
            "an alias stands inside its own anchor",
        ),
    ] {
        let checked = check(text);
        assert!(checked.pipeline.is_none());
        let [problem] = checked.problems.list() else {
            panic!("{}", checked.problems);
        };
        assert!(problem.what.contains(word), "{}", checked.problems);
    }
    let many: String = (0..5_000).map(|i| format!("unknown-{i}: 1\n")).collect();
    let checked = check(format!("{GOOD}{many}"));
    assert!(
        checked.problems.errors() >= 5_000,
        "{}",
        checked.problems.errors()
    );
    assert!(checked.problems.plain().lines().count() < 1_000);
}

#[test]
fn a_line_too_long_to_show_is_only_named() {
    // One line of 48,000 columns, each second one wrong: neither a panic nor a page per value.
    let list = "x,".repeat(24_000);
    let checked = check(GOOD.replace("partition: all", &format!("partition: [{list}]")));
    let errors = checked.problems.errors();
    assert!((100..200).contains(&errors), "{errors}");
    let fancy = checked.problems.fancy(false, 80);
    assert!(fancy.contains("Connector.yaml:22:17\n"), "{fancy}");
    assert!(fancy.len() < 100_000, "{}", fancy.len());
    let wide = checked_wide(70_000);
    assert!(wide.contains("is a map, not text"), "{wide}");
}

/// A mistake at the end of a line of so many columns, rendered with snippets.
fn checked_wide(columns: usize) -> String {
    let text = GOOD.replace(
        "stream: events",
        &format!("stream: {}{{}}", " ".repeat(columns)),
    );
    check(text).problems.fancy(true, 80)
}

#[test]
fn anchors_are_followed_and_places_count_characters() {
    let text = GOOD
        .replace("name: lake\n", "name: &n lake # ä\n")
        .replace("table: events", "table: *n");
    let checked = check(text);
    assert!(checked.problems.is_empty(), "{}", checked.problems);

    let text = source_with("  stream: events", "  stream: {ä: 1} # é");
    let checked = check_with(
        text.as_str(),
        &SecretStore::from_environment(),
        Scope::Connector,
    );
    let [problem] = checked.problems.list() else {
        panic!("{}", checked.problems);
    };
    assert_eq!(problem.what, "is a map, not text");
    let span = problem.span.expect("a place");
    assert_eq!((span.line, span.column), (11, 11));
    assert_eq!(text.get(span.start..span.start + 1), Some("{"));

    // After other letters, columns count characters and bytes are bytes.
    let text = source_with("  stream: events", "  'strëam': événements");
    let checked = check_with(
        text.as_str(),
        &SecretStore::from_environment(),
        Scope::Connector,
    );
    let unknown = checked
        .problems
        .list()
        .iter()
        .find(|p| p.what == "is not a known setting");
    let span = unknown.and_then(|problem| problem.span).expect("a place");
    assert_eq!(text.get(span.bytes()), Some("'strëam'"));
    assert!(checked.problems.fancy(true, 80).contains("événements"));
}

#[test]
fn control_characters_are_escaped() {
    let text = source_with(
        "stream: events",
        "stream: events\n  \"a\\e[31m\\nb\": 'c'\n  start: \"x\\e\"",
    );
    let text = text.replace("  start: {at-timestamp: '2026-01-31T12:00:00Z'}\n", "");
    let checked = check_with(text, &SecretStore::from_environment(), Scope::Connector);
    let plain = checked.problems.plain();
    assert!(!plain.contains('\u{1b}'), "{plain:?}");
    assert_eq!(plain.lines().count(), 2, "{plain}");
    assert!(plain.contains("given `x\\u{1b}`"), "{plain}");
    assert!(!checked.problems.fancy(false, 80).contains('\u{1b}'));
}

#[test]
fn bytes_that_are_no_text_have_a_place() {
    let mut bytes = b"meta:\n  name: ".to_vec();
    bytes.push(0xff);
    let checked = check(bytes);
    let [problem] = checked.problems.list() else {
        panic!("{}", checked.problems);
    };
    assert_eq!(problem.what, "the file is not text in UTF-8");
    let span = problem.span.expect("a place");
    assert_eq!((span.line, span.column), (2, 9));

    let with_mark = [b"\xef\xbb\xbf".as_slice(), GOOD.as_bytes()].concat();
    let checked = check(with_mark);
    assert!(checked.problems.is_empty(), "{}", checked.problems);
}

#[test]
fn the_schema_is_stable_and_knows_what_the_reader_knows() {
    let text = registry().schema_text();
    assert_eq!(text, registry().schema_text());
    let schema: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let kinds = schema["anyOf"].as_array().expect("kinds");
    assert_eq!(kinds.len(), 2);
    let lake = &schema["$defs"]["RawLake"];
    assert_eq!(lake["additionalProperties"], false);
    let mut names: Vec<&str> = lake["properties"]
        .as_object()
        .expect("properties")
        .keys()
        .map(String::as_str)
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "billing",
            "create-table",
            "dead-letters",
            "max-age",
            "max-item-bytes",
            "table"
        ]
    );
    assert_eq!(lake["required"], serde_json::json!(["table"]));
    assert!(text.contains("\"const\": \"river-source\""));
    // Only a sink has transforms.
    assert!(kinds[0].pointer("/anyOf/0/properties/transforms").is_none());
    assert!(kinds[1].pointer("/anyOf/0/properties/transforms").is_some());
}

#[test]
fn a_warning_does_not_stop_a_pipeline() {
    let checked = check(GOOD.replace("level: \"3\"", "level: 3"));
    assert_eq!(
        (checked.problems.errors(), checked.problems.warnings()),
        (0, 1)
    );
    assert_eq!(checked.problems.list()[0].severity, Severity::Warning);
    assert!(checked.pipeline.is_some());
}

#[test]
fn a_section_alone_is_tested_as_a_file_would_be() {
    let section = "table: events\nmax-age: 1d\n";
    let (problems, connector) =
        millpond_connector::testing::validate_section(support::LakeSink, section);
    assert!(connector.is_none());
    let [problem] = problems.list() else {
        panic!("{problems}");
    };
    assert_eq!(problem.path, "lake.max-age");
    let line = problem.span.map(|span| span.line);
    assert_eq!(line, Some(millpond_connector::testing::FIRST_LINE + 1));
    let (problems, connector) =
        millpond_connector::testing::validate_section(support::LakeSink, "table: events");
    assert!(connector.is_some(), "{problems}");
}
