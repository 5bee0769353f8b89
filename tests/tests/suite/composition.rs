//! SmartModules of users before the sink, and topics of other producers: the real engine on the
//! embedded topic, the real sink on a table over the wire, every event read back.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use millpond::connectors::smart_modules;
use millpond_connector::connector::{ConnectorContext, Sink as _};
use millpond_connector::meta::PartitionChoice;
use millpond_connector::metrics::Metrics;
use millpond_connector::topic::{StoredBatch, Topic as _, Transform};
use millpond_dynamodb_sink::client::Capacity;
use millpond_dynamodb_sink::client::aws::AwsTable;
use millpond_dynamodb_sink::pacing::PaceSettings;
use millpond_dynamodb_sink::row::KeyNames;
use millpond_dynamodb_sink::store::TableSettings;
use millpond_embedded_topic::{EmbeddedTopic, TopicConfig};
use millpond_format::record::BatchBuilder;
use millpond_sink::claim::StaleWrites;
use millpond_sink::gaps::OnGap;
use millpond_sink::sink::{DeadLetterTarget, SinkSettings, StoreSink};
use millpond_tests::pipeline::Pipeline;
use millpond_tests::{DEADLINE, config};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::MILLPOND;

const TIME_MS: i64 = 1_763_886_000_000;

/// A topic of two partitions, and sinks of it.
struct Bench {
    pipeline: Pipeline,
    topic: Arc<EmbeddedTopic>,
}

fn step(uses: &str, with: &[(&str, &str)]) -> Transform {
    Transform {
        uses: uses.into(),
        with: with
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

fn pack(with: &[(&str, &str)]) -> Transform {
    step("millpond/pack@0.1.0", with)
}

fn keep() -> Transform {
    let with = [("pointer", "/kind"), ("keep", "keep")];
    step("filter-events.wasm", &with)
}

/// A record: key and value.
type Record = (Option<String>, String);

/// An event of Kinesis.
fn event(ordinal: u64, kind: &str) -> Record {
    let shard = "shardId-000000000000";
    let key = format!(
        "mp1/s/{shard}/{}/0/{TIME_MS}/7.{ordinal}/key",
        100 + ordinal
    );
    let value = format!(r#"{{"job":"j","kind":"{kind}","n":{ordinal}}}"#);
    (Some(key), value)
}

fn events(ordinals: std::ops::Range<u64>, kept: impl Fn(u64) -> bool) -> Vec<Record> {
    let kind = |ordinal| if kept(ordinal) { "keep" } else { "drop" };
    ordinals
        .map(|ordinal| event(ordinal, kind(ordinal)))
        .collect()
}

fn values<'a>(records: impl IntoIterator<Item = &'a Record>) -> Vec<String> {
    records
        .into_iter()
        .map(|(_, value)| value.clone())
        .collect()
}

impl Bench {
    async fn new() -> Result<Self> {
        let pipeline = Pipeline::new(MILLPOND, 1, &config::pipeline()).await?;
        let mut config = TopicConfig::new(pipeline.dir().join("topic"), "orders", 2);
        let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../smartmodules/examples");
        config.modules = smart_modules().with_base_dir(modules);
        // Every run of a sink compiles its chain for each topic partition, by an engine that is
        // hardly optimised here.
        config.transform_time_limit = DEADLINE * 5;
        let topic = Arc::new(EmbeddedTopic::open(config)?);
        for partition in 0..2 {
            // One that never reads: else the topic forgets what the first sinks have committed.
            topic.release(partition, "keeper", 0).await?;
        }
        Ok(Self { pipeline, topic })
    }

    async fn append(&self, partition: u32, records: &[Record]) -> Result<()> {
        let mut builder = BatchBuilder::new();
        for (index, (key, value)) in (0..).zip(records) {
            let key = key.as_ref().map(String::as_bytes);
            builder.push(key, value.as_bytes(), TIME_MS + index);
        }
        let batch = StoredBatch {
            record_count: builder.record_count(),
            base_timestamp_ms: builder.base_timestamp_ms(),
            raw: builder.finish().into(),
        };
        self.topic.append(partition, batch).await?;
        Ok(())
    }

    /// Runs a sink on its own table until all that is in the topic is committed.
    async fn sink(&self, table: &str, transforms: &[Transform]) -> Result<Arc<Metrics>> {
        let metrics = Arc::new(Metrics::default());
        let settings = SinkSettings {
            pipeline: table.to_owned(),
            max_age: Duration::from_millis(200),
            dead_letters: DeadLetterTarget::Default,
            on_gap: OnGap::Halt,
            beside: Vec::new(),
            partitions: PartitionChoice::All,
            transforms: transforms.to_vec(),
            digests: Vec::new(),
            fingerprint: Vec::new(),
        };
        let client = self.pipeline.aws.dynamodb.clone();
        let keys = KeyNames::default();
        let store = TableSettings {
            table: Arc::new(AwsTable::new(client, table.into(), keys.clone())),
            dead_letters: None,
            ledger: None,
            leases: None,
            create: Some(Capacity::OnDemand),
            keys,
            max_item_bytes: 409_600,
            pace: PaceSettings::default(),
            form: Default::default(),
            spreading: Default::default(),
            training: None,
            stale_writes: StaleWrites::LOCAL,
        };
        let drain = CancellationToken::new();
        drain.cancel();
        let data_dir = self.pipeline.dir().join(table);
        std::fs::create_dir_all(&data_dir)?;
        let sink = Box::new(StoreSink::new(settings, Box::new(store)));
        let context = ConnectorContext {
            name: table.to_owned(),
            topic: self.topic.clone(),
            data_dir,
            drain,
            metrics: metrics.clone(),
        };
        sink.run(context).await?;
        Ok(metrics)
    }

    /// Events of a table by group, as the tool reads them.
    fn read(&self, table: &str) -> Result<BTreeMap<String, Vec<String>>> {
        let listed = self
            .pipeline
            .succeed(&["groups", "--table", table, "--json"])?;
        let mut groups = BTreeMap::new();
        for line in String::from_utf8(listed)?.lines() {
            let listed: Value = serde_json::from_str(line)?;
            let group = listed["group"].as_str().context("group")?;
            let read = self
                .pipeline
                .succeed(&["read", "--table", table, "--group", group])?;
            let events: Vec<String> = String::from_utf8(read)?
                .lines()
                .map(str::to_owned)
                .collect();
            ensure!(listed["events"] == events.len(), "{listed}: {events:?}");
            groups.insert(group.to_owned(), events);
        }
        Ok(groups)
    }

    /// Reason and text of every dead letter of a sink.
    fn letters(&self, table: &str) -> Result<Vec<(String, String)>> {
        let path = self.pipeline.dir().join(table).join("dead-letters.jsonl");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .map(|line| {
                let letter: Value = serde_json::from_str(line)?;
                let part = |name: &str| letter[name].as_str().unwrap_or_default().to_owned();
                Ok((part("reason"), part("detail")))
            })
            .collect()
    }
}

fn by_group<const N: usize>(groups: [(&str, Vec<String>); N]) -> BTreeMap<String, Vec<String>> {
    groups
        .map(|(group, events)| (group.to_owned(), events))
        .into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filtered_events_are_no_gap_and_lost_ones_are() -> Result<()> {
    let bench = Bench::new().await?;
    let plain = [keep()];
    let packed = [keep(), pack(&[("group-by", "/job")])];
    let kept = |ordinal: u64| ordinal % 3 == 1;
    // Batches that keep some, none and all; each a run of its own, and then all in one.
    let batches = [
        events(0..10, kept),
        events(10..13, |_| false),
        events(13..20, |_| true),
        events(20..40, kept),
    ];
    for batch in &batches {
        bench.append(0, batch).await?;
        bench.sink("plain", &plain).await?;
        bench.sink("packed", &packed).await?;
    }
    bench.sink("plain-at-once", &plain).await?;
    bench.sink("packed-at-once", &packed).await?;
    let stays = |record: &&Record| record.1.contains("keep");
    let expected = values(batches.iter().flatten().filter(stays));
    for (table, group) in [
        ("plain", "key"),
        ("packed", "j"),
        ("plain-at-once", "key"),
        ("packed-at-once", "j"),
    ] {
        assert_eq!(
            bench.read(table)?,
            by_group([(group, expected.clone())]),
            "{table}"
        );
        assert_eq!(bench.letters(table)?, []);
    }

    // The source repeats what it does not know to be stored: that is no second event.
    bench.append(0, &events(30..40, kept)).await?;
    for (table, chain) in [("plain", &plain[..]), ("packed", &packed)] {
        let metrics = bench.sink(table, chain).await?;
        assert_eq!(metrics.sink_events.get(), 0, "{table}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_event_is_found_behind_a_filter() -> Result<()> {
    let bench = Bench::new().await?;
    // Plain events are counted one by one, and the one that was filtered is believed first: the
    // count runs out at the second hole. A packed batch begins after the hole.
    let chains = [
        ("plain", vec![keep()], ["expected ordinal 15", "found 16"]),
        (
            "packed",
            vec![keep(), pack(&[("group-by", "/job")])],
            ["expected ordinal 10", "found 11"],
        ),
    ];
    let first = events(0..10, |ordinal| ordinal != 3);
    bench.append(0, &first).await?;
    for (table, chain, _) in &chains {
        bench.sink(table, chain).await?;
    }
    // Ordinal 10 never came to the topic.
    bench
        .append(0, &events(11..20, |ordinal| ordinal != 15))
        .await?;
    for (table, chain, found) in &chains {
        let error = bench.sink(table, chain).await.err().context("passed")?;
        let text = format!("{error:#}");
        for part in found.iter().chain(&["nothing was skipped"]) {
            ensure!(text.contains(part), "{table}: {text}");
        }
        let read: Vec<_> = bench.read(table)?.into_values().flatten().collect();
        assert_eq!(read.len(), 9, "nothing after the gap: {read:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_events_keep_their_origin_and_changed_keys_are_told() -> Result<()> {
    let bench = Bench::new().await?;
    let redact = step("redact-json.wasm", &[("remove", "kind")]);
    bench.append(0, &events(0..5, |_| true)).await?;
    bench
        .sink("redacted", &[redact.clone(), pack(&[("group-by", "/job")])])
        .await?;
    bench.sink("redacted-plain", &[redact]).await?;
    let expected: Vec<String> = (0..5)
        .map(|n| format!(r#"{{"job":"j","n":{n}}}"#))
        .collect();
    assert_eq!(bench.read("redacted")?, by_group([("j", expected.clone())]));
    assert_eq!(bench.read("redacted-plain")?, by_group([("key", expected)]));

    // Two keys of five are replaced, and one more event is filtered: no gap, two dead letters.
    let with = |ordinal: u64, member: &str| {
        let (key, value) = event(ordinal, "keep");
        (key, value.replacen('{', &format!("{{{member},"), 1))
    };
    let mut mixed = events(5..8, |ordinal| ordinal != 6);
    mixed.extend([with(8, r#""rekey":"x""#), with(9, r#""rekey":"y""#)]);
    mixed.extend(events(10..12, |_| true));
    let bench = Bench::new().await?;
    bench.append(0, &events(0..5, |_| true)).await?;
    bench.append(0, &mixed).await?;
    let rekey = step("key-by-field.wasm", &[("pointer", "/rekey")]);
    let chain = [keep(), rekey.clone(), pack(&[("group-by", "/job")])];
    bench.sink("rekeyed", &chain).await?;
    assert_eq!(bench.read("rekeyed")?["j"].len(), 9);
    let letters = bench.letters("rekeyed")?;
    assert_eq!(letters.len(), 2);
    for (reason, detail) in letters {
        assert_eq!(reason, "origin-invalid");
        ensure!(detail.contains("must keep the keys"), "{detail}");
    }
    // Plain there is nowhere to put them: no offset is known.
    let error = bench
        .sink("rekeyed-plain", &[rekey])
        .await
        .err()
        .context("passed")?;
    let text = format!("{error:#}");
    ensure!(
        text.contains("key `x`") && text.contains("keep the record keys"),
        "{text}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_fails_halts_its_partition_and_names_the_record() -> Result<()> {
    let bench = Bench::new().await?;
    bench.append(0, &events(0..3, |_| true)).await?;
    let poison = (event(3, "keep").0, "no json".to_owned());
    bench.append(0, &[poison]).await?;
    let other = (
        Some("mp1/s/shardId-000000000001/7/0/1/7.0/k".to_owned()),
        r#"{"job":"o"}"#.to_owned(),
    );
    bench.append(1, &[other]).await?;
    let redact = step("redact-json.wasm", &[("remove", "kind")]);
    let chain = [redact, pack(&[("group-by", "/job")])];
    let error = bench.sink("halted", &chain).await.err().context("passed")?;
    let text = format!("{error:#}");
    for part in [
        "`redact-json.wasm`",
        "batch at offset 3",
        "not a JSON object",
    ] {
        ensure!(text.contains(part), "{text}");
    }
    ensure!(!text.contains("no json"), "its bytes are told: {text}");
    assert_eq!(bench.read("halted")?["o"].len(), 1, "the other partition");
    // What the filter may judge is a dead letter, and the partition goes on.
    let chain = [keep(), pack(&[("group-by", "/job")])];
    bench.sink("filtered", &chain).await?;
    assert_eq!(bench.read("filtered")?["j"].len(), 3);
    assert_eq!(bench.letters("filtered")?[0].0, "not-json");
    Ok(())
}

fn foreign(key: Option<&str>, value: &str) -> Record {
    (key.map(str::to_owned), value.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_topic_of_another_producer_is_sunk_packed_and_plain() -> Result<()> {
    let bench = Bench::new().await?;
    let first = [
        foreign(Some("eu"), r#"{"shop":"a","n":1}"#),
        foreign(None, r#"{"shop":"b","n":2}"#),
        foreign(Some("us"), r#"{"shop":"a","n":3}"#),
    ];
    let second = [
        foreign(None, r#"{"shop":"b","n":4,"kind":"drop"}"#),
        foreign(Some("eu"), r#"{"shop":"b","n":5,"kind":"keep"}"#),
    ];
    // The same bytes twice are two events: nothing says otherwise.
    let third = [foreign(Some("eu"), r#"{"shop":"b","n":5,"kind":"keep"}"#)];
    let accept = ("on-missing-origin", "topic-offset");
    let chains = [
        ("plain", vec![]),
        ("by-field", vec![pack(&[accept, ("group-by", "/shop")])]),
        (
            "by-key",
            vec![pack(&[accept, ("on-missing-group", "group:none")])],
        ),
        (
            "filtered",
            vec![keep(), pack(&[accept, ("group-by", "/shop")])],
        ),
        ("refused", vec![pack(&[("group-by", "/shop")])]),
    ];
    for (partition, batch) in [(0, &first[..]), (0, &second), (1, &third)] {
        bench.append(partition, batch).await?;
        for (table, chain) in &chains {
            bench.sink(table, chain).await?;
        }
    }
    let all = [values(&first), values(&second), values(&third)].concat();
    let of = |numbers: &[usize]| -> Vec<String> {
        numbers.iter().map(|number| all[*number].clone()).collect()
    };
    // The key is the group; what has none is in the group that is named like the topic.
    let plain = by_group([
        ("eu", of(&[0, 4, 5])),
        ("orders", of(&[1, 3])),
        ("us", of(&[2])),
    ]);
    assert_eq!(sorted(bench.read("plain")?), plain);
    let by_field = by_group([("a", of(&[0, 2])), ("b", of(&[1, 3, 4, 5]))]);
    assert_eq!(sorted(bench.read("by-field")?), by_field);
    let by_key = by_group([
        ("eu", of(&[0, 4, 5])),
        ("none", of(&[1, 3])),
        ("us", of(&[2])),
    ]);
    assert_eq!(sorted(bench.read("by-key")?), by_key);
    let filtered = by_group([("a", of(&[0, 2])), ("b", of(&[1, 4, 5]))]);
    assert_eq!(sorted(bench.read("filtered")?), filtered);
    for (table, _) in &chains[..4] {
        assert_eq!(bench.letters(table)?, [], "{table}");
    }
    // Without being told, the packer takes none.
    let letters = bench.letters("refused")?;
    assert_eq!(letters.len(), 6);
    ensure!(
        letters
            .iter()
            .all(|(_, detail)| detail.contains("`on-missing-origin: topic-offset`"))
    );

    // A slice by time finds them, too: their time is the record's.
    let slice = [
        "--from",
        "2025-11-23T08:20:00Z",
        "--to",
        "2025-11-23T08:20:01Z",
    ];
    for table in ["plain", "by-key"] {
        let arguments = [&["read", "--table", table, "--group", "us"][..], &slice].concat();
        let read = String::from_utf8(bench.pipeline.succeed(&arguments)?)?;
        assert_eq!(read.trim_end(), all[2], "{table}");
    }
    Ok(())
}

/// Events by number: those of different topic partitions have no order among them.
fn sorted(mut groups: BTreeMap<String, Vec<String>>) -> BTreeMap<String, Vec<String>> {
    let number = |event: &String| -> u64 {
        let event: Value = serde_json::from_str(event).unwrap_or_default();
        event["n"].as_u64().unwrap_or_default()
    };
    for events in groups.values_mut() {
        events.sort_by_key(number);
    }
    groups
}
