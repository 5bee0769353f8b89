//! Dead letters from end to end: one bad event costs one entry at every stage, and is put back once.

use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use millpond_connector::meta::TopicSettings;
use millpond_connector::topic::Topic as _;
use millpond_embedded_topic::{EmbeddedTopic, TopicConfig};
use millpond_fluvio_topic::{Cluster, ClusterSettings, TopicOptions};
use millpond_sink::dead_letters::{DeadLetter, Payload};
use millpond_sink::letter_topic::LetterTopic;
use millpond_tests::pipeline::{EVENTS, Pipeline};
use millpond_tests::scripted_cluster::ScriptedCluster;
use millpond_tests::{config, dead_letter_file};
use serde_json::Value;

use crate::MILLPOND;

const EVENT_COUNT: u64 = 9_999;

/// Lines of JSON on stdout.
fn lines(output: &[u8]) -> Result<Vec<Value>> {
    let text = std::str::from_utf8(output)?;
    text.lines()
        .map(|line| Ok(serde_json::from_str(line)?))
        .collect()
}

/// Runs `millpond dlq` on the letters of a place.
fn dlq(pipeline: &Pipeline, arguments: &[&str], place: &[&str]) -> Result<Output> {
    pipeline.millpond(&[&["dlq"], arguments, place].concat())
}

/// A record that begins as an aggregated one, and whose digest is another.
const BROKEN_AGGREGATE: &[u8] = b"\xf3\x89\x9a\xc2\x0a\x01k0123456789abcdef";

/// The source passes on what it cannot take apart, the SmartModule rejects what it cannot group: an
/// entry each, and nothing else is touched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_event_among_ten_thousand_is_one_entry_at_source_and_packer() -> Result<()> {
    let pipeline = Pipeline::new(MILLPOND, 2, &config::pipeline()).await?;
    for bad in [BROKEN_AGGREGATE, b"no JSON \x1b[31m"] {
        pipeline.emit(EVENT_COUNT / 2, u64::from(bad[0]))?;
        pipeline.aws.put(EVENTS, "poison", bad).await?;
    }
    pipeline.catch_up()?;
    let mut expected = Vec::new();
    for bad in [BROKEN_AGGREGATE, b"no JSON"] {
        expected.extend(pipeline.expected(EVENT_COUNT / 2, u64::from(bad[0]))?);
    }
    expected.sort_unstable();
    assert_eq!(pipeline.read_all()?, expected);

    let file = dead_letter_file(&pipeline.dir().join("data"))?;
    let file = file.to_str().context("UTF-8 path")?;
    let listed = lines(&pipeline.succeed(&["dlq", "list", "--file", file, "--json"])?)?;
    assert_eq!(listed.len(), 2, "{listed:?}");
    let mut reasons: Vec<_> = listed.iter().map(|l| l["reason"].as_str()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, [Some("not-json"), Some("record-broken")]);
    let mut values = Vec::new();
    for letter in &listed {
        assert_eq!(letter["state"], "new");
        let origin = letter["origin"].as_str().context("an origin")?;
        ensure!(origin.ends_with("/poison"), "{origin}");
        let id = letter["id"].as_str().context("an id")?;
        values.push(pipeline.succeed(&["dlq", "show", id, "--file", file, "--raw"])?);
        let shown = pipeline.succeed(&["dlq", "show", id, "--file", file])?;
        ensure!(!shown.contains(&0x1b), "no control characters");
    }
    values.sort_unstable();
    assert_eq!(
        values,
        [b"no JSON \x1b[31m".to_vec(), BROKEN_AGGREGATE.to_vec()]
    );
    Ok(())
}

/// What the sink cannot map is one entry in a table; once the mapping is mended its event is put back, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_event_among_ten_thousand_is_one_entry_at_the_sink_and_is_put_back() -> Result<()> {
    let text = config::pipeline();
    let (source, _) = text.split_once("---\n").context("two documents")?;
    let sink = |required: bool| {
        format!(
            "{source}---\napiVersion: 0.1.0\nmeta: {{name: events-sink, type: dynamodb-sink, version: 0.1.0, topic: events}}\n\
             dynamodb:\n  table: events\n  create-table: true\n  dead-letters: {{table: dead}}\n  plain:\n    \
             partition-key: '{{partition-key}}'\n    sort-key: '{{position}}'\n    attributes:\n      \
             job_id: {{type: string, required: {required}}}\n      raw: {{type: event}}\n"
        )
    };
    let pipeline = Pipeline::new(MILLPOND, 2, &sink(true)).await?;
    pipeline.emit(EVENT_COUNT, 1)?;
    let bad = br#"{"n": 1}"#;
    pipeline.aws.put(EVENTS, "poison", bad).await?;
    // Two rows of a table.
    let large = format!("{{\"pad\": \"{}\"}}", "x".repeat(390_000));
    pipeline.aws.put(EVENTS, "poison", large.as_bytes()).await?;
    pipeline.catch_up()?;

    let place = ["--table", "dead", "--pipeline", "events-sink"];
    let dlq = |arguments: &[&str]| dlq(&pipeline, arguments, &place);
    let listed = lines(&dlq(&["list", "--json"])?.stdout)?;
    assert_eq!(listed.len(), 2, "{listed:?}");
    let sizes: Vec<_> = listed
        .iter()
        .map(|letter| letter["bytes"].as_u64())
        .collect();
    assert_eq!(sizes, [Some(bad.len() as u64), Some(large.len() as u64)]);
    let id = listed[0]["id"].as_str().context("an id")?;
    let shown: Value = serde_json::from_slice(&dlq(&["show", id, "--json"])?.stdout)?;
    assert_eq!(shown["reason"], "field-missing");
    assert_eq!(dlq(&["show", id, "--raw"])?.stdout, bad);
    let all = dlq(&["replay"])?;
    ensure!(!all.status.success(), "nothing chooses");
    let dry = dlq(&["replay", "--all", "--dry-run"])?;
    ensure!(
        dry.status.success(),
        "{}",
        millpond_tests::process::stderr(&dry)
    );

    pipeline.set_config(&sink(false))?;
    for _ in 0..2 {
        let replayed = dlq(&["replay", "--reason", "field-missing"])?;
        ensure!(
            replayed.status.success(),
            "{}",
            millpond_tests::process::stderr(&replayed)
        );
    }
    pipeline.catch_up()?;
    let mut items = pipeline.aws.scan(EVENTS).await?;
    items.retain(|item| item.contains_key("raw"));
    assert_eq!(items.len() as u64, EVENT_COUNT + 2, "each of them once");
    for wanted in [&bad[..], large.as_bytes()] {
        let raw =
            |item: &&std::collections::HashMap<_, aws_sdk_dynamodb::types::AttributeValue>| {
                let raw = item.get("raw").and_then(|value| value.as_b().ok());
                raw.is_some_and(|raw| raw.as_ref() == wanted)
            };
        let found: Vec<_> = items.iter().filter(raw).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["pk"].as_s().map(String::as_str), Ok("poison"));
    }
    let listed = lines(&dlq(&["list", "--json", "--state", "replayed"])?.stdout)?;
    assert_eq!(listed.len(), 2);
    Ok(())
}

/// The same letters as records of another topic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_can_go_to_a_topic() -> Result<()> {
    let text = format!("{}  dead-letters: {{topic: dead}}\n", config::pipeline());
    let pipeline = Pipeline::new(MILLPOND, 1, &text).await?;
    pipeline.emit(100, 1)?;
    pipeline.aws.put(EVENTS, "poison", b"no JSON").await?;
    pipeline.catch_up()?;
    let path = pipeline.dir().join("data/topics/dead");
    let topic = EmbeddedTopic::open(TopicConfig::new(path, "dead", 1))?;
    assert_eq!(topic.bounds(0).await?.end, 1);
    let mut reader = topic.reader(0, 0, &[]).await?;
    let chunk = reader
        .next(Duration::from_secs(10))
        .await?
        .context("a record")?;
    let letter: Value = serde_json::from_slice(&chunk.records[0].value)?;
    assert_eq!(letter["reason"], "not-json");
    let id = letter["id"].as_str().context("an id")?;
    assert_eq!(chunk.records[0].key.as_deref(), Some(id.as_bytes()));
    // Its value is a line of a dead-letter file.
    let file = pipeline.dir().join("dead.jsonl");
    std::fs::write(&file, [&chunk.records[0].value[..], b"\n"].concat())?;
    let file = file.to_str().context("UTF-8 path")?;
    let shown = pipeline.succeed(&["dlq", "show", id, "--file", file, "--raw"])?;
    assert_eq!(shown, b"no JSON");
    drop(reader);
    topic.close();
    drop(topic);
    let place = ["--topic", "dead", "--data-dir", "data"];
    topic_letters(&pipeline, &place, id).await?;
    // Its event came by, and is a letter again, of its own.
    pipeline.catch_up()?;
    let mut list = vec!["dlq", "list", "--json"];
    list.extend(place);
    let states: Vec<_> = lines(&pipeline.succeed(&list)?)?;
    let states: Vec<_> = states
        .iter()
        .map(|letter| letter["state"].as_str())
        .collect();
    assert_eq!(states, [Some("replayed"), Some("new")]);
    Ok(())
}

/// What `dlq` does with the one letter of a topic, wherever that is.
pub async fn topic_letters(pipeline: &Pipeline, place: &[&str], id: &str) -> Result<()> {
    let dlq = |arguments: &[&str]| dlq(pipeline, arguments, place);
    let listed = lines(&dlq(&["list", "--json"])?.stdout)?;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(
        (listed[0]["id"].as_str(), listed[0]["state"].as_str()),
        (Some(id), Some("new"))
    );
    assert_eq!(dlq(&["show", id, "--raw"])?.stdout, b"no JSON");
    let before = pipeline.aws.records(EVENTS).await?;
    // Twice, and it is put back once.
    for _ in 0..2 {
        let replayed = dlq(&["replay", "--all"])?;
        ensure!(
            replayed.status.success(),
            "{}",
            millpond_tests::process::stderr(&replayed)
        );
    }
    let after = pipeline.aws.records(EVENTS).await?;
    assert_eq!(after.len(), before.len() + 1);
    assert_eq!(after.iter().filter(|data| *data == b"no JSON").count(), 2);
    let listed = lines(&dlq(&["list", "--json", "--state", "replayed"])?.stdout)?;
    assert_eq!(listed.len(), 1);
    Ok(())
}

/// What holds for a topic of the data directory holds for one of a cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_in_a_topic_of_a_cluster_are_listed_and_put_back_once() -> Result<()> {
    let servers = ScriptedCluster::start().await?;
    let settings = ClusterSettings {
        endpoint: Some(servers.endpoint()),
        ..ClusterSettings::default()
    };
    let cluster = Cluster::connect(&settings).await?;
    let mut dead = TopicSettings::named("dead".to_owned());
    dead.partitions = Some(1);
    cluster.create_topic(&dead).await?;
    let topic = cluster.open_topic("dead", TopicOptions::default()).await?;
    let letter = DeadLetter {
        id: "p/events/0/7/0".into(),
        offset: 7,
        time_ms: 5,
        reason: "not-json".into(),
        detail: "expected value".into(),
        group: None,
        record_key: Some("mp1/events/shardId-000000000000/9/0/5/1.0/poison".into()),
        payload: Payload::Raw("no JSON".into()),
    };
    let letters = LetterTopic::new(Arc::new(topic));
    letters.append(std::slice::from_ref(&letter), false).await?;
    let pipeline = Pipeline::new(MILLPOND, 1, &config::pipeline()).await?;
    pipeline.aws.put(EVENTS, "poison", b"no JSON").await?;
    let endpoint = servers.endpoint();
    let place = ["--topic", "dead", "--cluster", &endpoint];
    topic_letters(&pipeline, &place, &letter.id).await?;
    // A sink that writes its plan again puts nothing there a second time.
    letters.append(&[letter], true).await?;
    let listed = pipeline.succeed(&[&["dlq", "list", "--json"][..], &place[..]].concat())?;
    assert_eq!(lines(&listed)?.len(), 1);
    let missing = pipeline.millpond(&["dlq", "list", "--topic", "none", "--cluster", &endpoint])?;
    let said = millpond_tests::process::stderr(&missing);
    ensure!(
        !missing.status.success() && said.contains("`none`"),
        "{said}"
    );
    Ok(())
}
