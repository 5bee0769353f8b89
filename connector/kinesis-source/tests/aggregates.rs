//! Records of the Kinesis Producer Library, made by the reference implementation, through the source.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use millpond_connector::connector::Source;
use millpond_connector::metrics::Metrics;
use millpond_format::origin::Origin;
use millpond_kinesis_local::model::{ModelConfig, NewRecord, ShardId};
use millpond_kinesis_source::KinesisSource;
use millpond_kinesis_source::aggregate::{Aggregate, AggregateBuilder, hash_key};
use millpond_kinesis_source::checkpoint::{Aggregated, CheckpointStore};
use millpond_kinesis_source::checkpoint_memory::MemoryCheckpoints;
use millpond_kinesis_source::config::SourceConfig;
use serde::Deserialize;
use support::stream::ModelStream;
use support::topic::MemoryTopic;
use support::{Running, check, context, spawn, until};

#[derive(Deserialize)]
struct Case {
    /// Partition key, explicit hash key, data.
    events: Vec<(String, Option<String>, String)>,
    record: String,
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn cases() -> BTreeMap<String, Case> {
    let text = std::fs::read_to_string(golden().join("aggregates.json")).expect("readable");
    serde_json::from_str(&text).expect("cases")
}

fn bytes(text: &str) -> Vec<u8> {
    STANDARD.decode(text).expect("base64")
}

#[test]
fn records_of_the_reference_implementation_are_taken_apart() {
    let cases = cases();
    assert!(cases.len() >= 5);
    for (name, case) in cases {
        let aggregate = Aggregate::parse(&bytes(&case.record)).expect("whole");
        let found: Vec<_> = aggregate.events().collect();
        assert_eq!(found.len(), case.events.len(), "{name}");
        for (index, (event, (key, explicit, data))) in found.iter().zip(&case.events).enumerate() {
            let expected = match explicit {
                Some(explicit) => explicit.parse().expect("number"),
                None => hash_key(key),
            };
            assert_eq!(event.sub_sequence as usize, index, "{name}");
            assert_eq!(
                (event.partition_key, event.hash_key),
                (key.as_str(), expected)
            );
            assert_eq!(event.data, bytes(data), "{name}");
        }
    }
}

/// The reference implementation itself, where Python and its package index are to be had.
#[test]
fn the_reference_implementation_still_makes_these_records() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kinesis-aggregation");
    let python = folder.join("bin/python");
    let run = |command: &mut Command| -> Result<Output, String> {
        let output = command.output().map_err(|error| error.to_string())?;
        let said = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
        output.status.success().then_some(()).ok_or_else(said)?;
        Ok(output)
    };
    let installed = run(Command::new("python3").args(["-m", "venv"]).arg(&folder)).and_then(|_| {
        let packages = ["aws_kinesis_agg==1.2.3", "protobuf", "six"];
        run(Command::new(&python)
            .args(["-m", "pip", "install", "--quiet"])
            .args(packages))
    });
    if let Err(reason) = installed {
        // Past the test harness, which keeps what a passing test prints to itself.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED the comparison with aws_kinesis_agg: {reason}"
        );
        return;
    }
    let made = run(Command::new(&python).arg(golden().join("aggregates.py"))).expect("runs");
    let kept = std::fs::read(golden().join("aggregates.json")).expect("readable");
    assert_eq!(
        String::from_utf8_lossy(&made.stdout),
        String::from_utf8_lossy(&kept)
    );
}

fn run(
    stream: &Arc<ModelStream>,
    aggregated: Aggregated,
    store: &Arc<dyn CheckpointStore>,
    topic: &Arc<MemoryTopic>,
) -> Running {
    let mut config = SourceConfig::default();
    config.batching.batch_bytes = 2_000;
    config.aggregated = aggregated;
    let source =
        KinesisSource::new(stream.clone(), config, store.clone()).with_clock(stream.clock());
    let source: Box<dyn Source> = Box::new(source);
    spawn(source, context(topic))
}

/// Puts a case to the shard of `key`, and plain events around it.
fn put(stream: &ModelStream, case: &Case, key: &str, expect: bool) {
    stream.put_many(3);
    let record = NewRecord::new(key, None, bytes(&case.record)).expect("a record");
    stream
        .with_model(|model, now| model.put_record(now, "events", record, None))
        .expect("accepted");
    if expect {
        let mut put = stream.put.lock().expect("not poisoned");
        for (key, _, data) in &case.events {
            put.entry(key.clone()).or_default().push(bytes(data));
        }
    }
    stream.put_many(3);
}

fn verify(stream: &ModelStream, topic: &MemoryTopic) -> usize {
    let put = stream.put.lock().expect("not poisoned");
    check(topic, &put, &stream.parents())
}

#[tokio::test(start_paused = true)]
async fn aggregated_and_plain_records_survive_kills_with_the_same_origins() {
    let cases = cases();
    let stream = ModelStream::new(1, ModelConfig::default());
    let topic = Arc::new(MemoryTopic::new(4));
    let store: Arc<dyn CheckpointStore> = Arc::new(MemoryCheckpoints::default());
    topic.delay_ms.store(300, Ordering::Relaxed);
    for life_ms in (50..2_500).step_by(190) {
        for case in cases.values() {
            put(&stream, case, "any", true);
        }
        let running = run(&stream, Aggregated::Auto, &store, &topic);
        tokio::time::sleep(Duration::from_millis(life_ms)).await;
        running.killed().await;
    }
    let running = run(&stream, Aggregated::Auto, &store, &topic);
    running.caught_up().await;
    let metrics = running.metrics.clone();
    running.drained().await;
    assert!(verify(&stream, &topic) > 0, "no kill repeated anything");
    assert_eq!(metrics.aggregates_broken.get(), 0);
    assert_eq!(metrics.aggregates_stray.get(), 0);
}

fn keys(topic: &MemoryTopic) -> Vec<String> {
    let records = topic.records().into_iter();
    records.map(|(_, _, key, _)| key).collect()
}

#[tokio::test(start_paused = true)]
async fn events_of_another_shard_are_dropped_unless_they_are_to_be_kept() {
    let case = &cases()["explicit hash keys"];
    for (aggregated, kept) in [(Aggregated::Auto, false), (Aggregated::KeepStray, true)] {
        let stream = ModelStream::new(1, ModelConfig::default());
        let topic = Arc::new(MemoryTopic::new(2));
        let store: Arc<dyn CheckpointStore> = Arc::new(MemoryCheckpoints::default());
        // All events of the case lie in the upper half, and the record is put to the lower one.
        let half = (1u128 << 127).to_string();
        stream
            .with_model(|model, now| model.split_shard(now, "events", ShardId::new(0), &half))
            .expect("split");
        let low = (0..).map(|n| format!("k{n}"));
        let low = low.into_iter().find(|key| hash_key(key) < 1 << 127);
        tokio::time::advance(Duration::from_secs(1)).await;
        put(&stream, case, &low.expect("some key"), kept);
        let running = run(&stream, aggregated, &store, &topic);
        running.caught_up().await;
        let metrics = running.metrics.clone();
        running.drained().await;
        assert_eq!(verify(&stream, &topic), 0);
        let stray = if kept { 0 } else { case.events.len() as u64 };
        assert_eq!(metrics.aggregates_stray.get(), stray);
    }
}

fn put_record(stream: &ModelStream, key: &str, data: Vec<u8>) {
    let record = NewRecord::new(key, None, data).expect("a record");
    stream
        .with_model(|model, now| model.put_record(now, "events", record, None))
        .expect("accepted");
}

async fn read_all(stream: &Arc<ModelStream>, topic: &Arc<MemoryTopic>) -> Arc<Metrics> {
    let store: Arc<dyn CheckpointStore> = Arc::new(MemoryCheckpoints::default());
    let running = run(stream, Aggregated::Auto, &store, topic);
    running.caught_up().await;
    let metrics = running.metrics.clone();
    running.drained().await;
    metrics
}

/// The producer library sends stray events again, and only them where the record reached the shard that it expected.
#[tokio::test(start_paused = true)]
async fn of_a_mixed_record_only_the_stray_events_are_dropped() {
    let stream = ModelStream::new(1, ModelConfig::default());
    let topic = Arc::new(MemoryTopic::new(1));
    let half = 1u128 << 127;
    stream
        .with_model(|model, now| {
            model.split_shard(now, "events", ShardId::new(0), &half.to_string())
        })
        .expect("split");
    tokio::time::advance(Duration::from_secs(1)).await;
    let key_of = |is_low: bool| {
        let mut keys = (0..).map(|n| format!("k{n}"));
        keys.find(|key| (hash_key(key) < half) == is_low)
            .expect("some key")
    };
    let (low, high) = (key_of(true), key_of(false));
    let mut mixed = AggregateBuilder::default();
    for (number, key) in [&low, &high, &low, &high, &low].into_iter().enumerate() {
        mixed.push(key, None, vec![number as u8].into());
    }
    put_record(&stream, &low, mixed.finish());
    let metrics = read_all(&stream, &topic).await;
    let records = topic.records().into_iter();
    let found: Vec<_> = records
        .map(|(_, _, key, value)| {
            let origin = Origin::parse(key.as_bytes()).expect("an origin");
            (origin.sub_sequence, origin.partition_key.to_owned(), value)
        })
        .collect();
    let kept = |number: u32| (number, low.clone(), vec![number as u8]);
    assert_eq!(found, [0, 2, 4].map(kept));
    assert_eq!(metrics.aggregates_stray.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_without_an_event_is_a_dead_letter() {
    let stream = ModelStream::new(1, ModelConfig::default());
    let topic = Arc::new(MemoryTopic::new(1));
    let empty = AggregateBuilder::default().finish();
    put_record(&stream, "key", empty.clone());
    let metrics = read_all(&stream, &topic).await;
    assert_eq!(topic.letters(), [("aggregate".to_owned(), empty)]);
    assert_eq!(metrics.aggregates_broken.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_broken_one_is_one_dead_letter_as_it_was() {
    let case = &cases()["many keys"];
    let mut broken = bytes(&case.record);
    broken[20] ^= 1;
    let stream = ModelStream::new(1, ModelConfig::default());
    let topic = Arc::new(MemoryTopic::new(2));
    let store: Arc<dyn CheckpointStore> = Arc::new(MemoryCheckpoints::default());
    for _ in 0..3 {
        put(&stream, case, "any", true);
        put_record(&stream, "key", broken.clone());
    }
    let running = run(&stream, Aggregated::Auto, &store, &topic);
    running.caught_up().await;
    let metrics = running.metrics.clone();
    running.drained().await;
    let events: usize = 3 * (case.events.len() + 6);
    assert_eq!(verify(&stream, &topic), 0);
    assert_eq!(topic.len(), events + 3);
    assert_eq!(topic.letters(), vec![("aggregate".to_owned(), broken); 3]);
    assert_eq!(metrics.aggregates_broken.get(), 3);
    // It is passed by the checkpoint like any other.
    let running = run(&stream, Aggregated::Auto, &store, &topic);
    running.caught_up().await;
    running.drained().await;
    assert_eq!(topic.len(), events + 3);
}

#[tokio::test(start_paused = true)]
async fn with_the_setting_off_any_is_taken_as_it_is() {
    let case = &cases()["many keys"];
    let stream = ModelStream::new(1, ModelConfig::default());
    let topic = Arc::new(MemoryTopic::new(2));
    let store: Arc<dyn CheckpointStore> = Arc::new(MemoryCheckpoints::default());
    stream.put_many(5);
    stream.put("key", bytes(&case.record));
    stream.put_many(5);
    let running = run(&stream, Aggregated::Off, &store, &topic);
    running.caught_up().await;
    let metrics = running.metrics.clone();
    running.drained().await;
    assert_eq!(verify(&stream, &topic), 0);
    assert_eq!(metrics.aggregates_broken.get(), 0);
}

/// What was sent after the last checkpoint was numbered by the old setting: the new one must not
/// give those numbers to other events.
#[tokio::test(start_paused = true)]
async fn another_setting_begins_another_numbering() {
    let case = &cases()["many keys"];
    let stream = ModelStream::new(1, ModelConfig::default());
    let topic = Arc::new(MemoryTopic::new(2));
    let store: Arc<dyn CheckpointStore> = Arc::new(MemoryCheckpoints::default());
    put(&stream, case, "any", true);
    let running = run(&stream, Aggregated::Auto, &store, &topic);
    until("something is durable", || !keys(&topic).is_empty()).await;
    running.killed().await;
    let epochs = |keys: Vec<String>| -> BTreeSet<u64> {
        let epoch = |key: &String| {
            let origin = millpond_format::origin::Origin::parse(key.as_bytes());
            origin.expect("origin").chain.epoch
        };
        keys.iter().map(epoch).collect()
    };
    let before = epochs(keys(&topic));
    assert_eq!(before.len(), 1);
    let running = run(&stream, Aggregated::Off, &store, &topic);
    running.caught_up().await;
    running.drained().await;
    assert_eq!(epochs(keys(&topic)).len(), 2);
}
