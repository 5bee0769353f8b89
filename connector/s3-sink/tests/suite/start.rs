//! Starting: a store without conditional writes, a pipeline of another topic, a changed configuration.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millpond_connector::aws::AwsSettings;
use millpond_connector::connector::{ConnectorContext, Sink as _};
use millpond_connector::meta::PartitionChoice;
use millpond_connector::metrics::Metrics;
use millpond_s3_sink::client::memory::{Fault, MemoryBucket};
use millpond_s3_sink::client::{ObjectApi as _, Verdict};
use millpond_s3_sink::config::SinkConfig;
use millpond_s3_sink::location::Location;
use millpond_sink::conformance::events::{check, read_letters};
use millpond_sink::conformance::topic::MemoryTopic;
use millpond_sink::conformance::wait::until;
use millpond_sink::conformance::workload::{Shape, Workload};
use millpond_sink::conformance::{draining, pack};
use millpond_sink::gaps::OnGap;
use millpond_sink::sink::DeadLetterTarget;

use crate::harness::{NDJSON, PARQUET};
use crate::reader::read_events;

const LEDGER: &str = "lake/p/_millpond/ledger/events/00000.json";
const REGISTRATION: &str = "lake/p/_millpond/pipeline.json";

fn config() -> SinkConfig {
    SinkConfig {
        location: Location::Bucket {
            bucket: "b".into(),
            prefix: "lake".into(),
        },
        aws: AwsSettings::default(),
        format: NDJSON,
        max_object_bytes: 4_096,
        max_age: Duration::from_millis(200),
        pipeline: "p".into(),
        on_gap: OnGap::Halt,
        beside: Vec::new(),
        dead_letters: DeadLetterTarget::Default,
        partitions: PartitionChoice::All,
        transforms: pack(),
        digests: Vec::new(),
    }
}

async fn run(
    config: SinkConfig,
    bucket: &MemoryBucket,
    topic: &MemoryTopic,
    folder: &Path,
) -> Result<Arc<Metrics>, String> {
    let metrics = Arc::new(Metrics::default());
    let context = ConnectorContext {
        name: "sink".into(),
        topic: Arc::new(topic.clone()),
        data_dir: folder.to_owned(),
        drain: draining(),
        metrics: metrics.clone(),
    };
    let sink = Box::new(config.sink(Arc::new(bucket.clone())));
    let result = sink.run(context).await;
    result
        .map(|()| metrics)
        .map_err(|error| format!("{error:#}"))
}

fn filled(seed: u64) -> (MemoryTopic, Workload) {
    let topic = MemoryTopic::new(seed);
    let mut workload = Workload::new(seed, Shape::default());
    for _ in 0..10 {
        workload.send(&topic);
    }
    (topic, workload)
}

#[tokio::test(start_paused = true)]
async fn an_outage_at_the_start_is_waited_for_and_all_is_counted() {
    let folder = tempfile::tempdir().expect("tempdir");
    let (topic, workload) = filled(1);
    let bucket = MemoryBucket::default();
    bucket.inject(vec![Some(Fault::Fail(Verdict::Transient)); 20]);
    let metrics = run(config(), &bucket, &topic, folder.path())
        .await
        .expect("runs");
    let letters = read_letters(&folder.path().join("dead-letters.jsonl"));
    let objects = bucket.objects();
    check(&workload, &read_events(&objects), &letters);
    let data = crate::reader::data(&objects);
    let bytes: usize = data.iter().map(|(_, bytes)| bytes.len()).sum();
    let sent: Vec<_> = workload.sent().filter(|event| !event.is_poison).collect();
    assert_eq!(
        (metrics.items.get(), metrics.item_bytes.get()),
        (data.len() as u64, bytes as u64)
    );
    assert_eq!(
        (metrics.sink_events.get(), metrics.sink_event_bytes.get()),
        (
            sent.len() as u64,
            sent.iter().map(|event| event.value.len() as u64).sum()
        )
    );
    // Nothing new: nothing is written but the claim.
    let metrics = run(config(), &bucket, &topic, folder.path())
        .await
        .expect("runs");
    assert_eq!((metrics.items.get(), metrics.commits.get()), (0, 0));
    assert_eq!(bucket.objects().len(), objects.len());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_ignores_conditions_is_refused() {
    let folder = tempfile::tempdir().expect("tempdir");
    let (topic, _) = filled(1);
    let bucket = MemoryBucket::unconditional();
    for _ in 0..2 {
        let error = run(config(), &bucket, &topic, folder.path())
            .await
            .expect_err("refused");
        assert!(
            error.contains("ignores `If-None-Match`") && error.contains("conditional writes"),
            "{error}"
        );
    }
    assert_eq!(bucket.objects().len(), 1, "only the registration");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_succeed_ends_the_sink_with_what_to_do() {
    let folder = tempfile::tempdir().expect("tempdir");
    let (topic, _) = filled(1);
    let bucket = MemoryBucket::default();
    // Its own registration and the list of pipelines are looked for before.
    bucket.inject([
        None,
        None,
        Some(Fault::Fail(Verdict::Fatal("create the bucket"))),
    ]);
    let error = run(config(), &bucket, &topic, folder.path())
        .await
        .expect_err("refused");
    for part in [
        "sink `sink`",
        "PutObject",
        REGISTRATION,
        "create the bucket",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_under_a_new_name_is_refused_unless_it_is_meant() {
    let folder = tempfile::tempdir().expect("tempdir");
    let (topic, _) = filled(1);
    let bucket = MemoryBucket::default();
    run(config(), &bucket, &topic, folder.path())
        .await
        .expect("runs");
    let before = bucket.objects();
    let mut renamed = config();
    renamed.pipeline = "q".into();
    let error = run(renamed.clone(), &bucket, &topic, folder.path())
        .await
        .expect_err("refused");
    for part in ["pipeline `q` is new in", "pipeline `p`", "`beside: [p]`"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(bucket.objects(), before, "nothing was written");
    renamed.beside = vec!["p".into()];
    run(renamed.clone(), &bucket, &topic, folder.path())
        .await
        .expect("meant");
    // Once it is there it need not be said again; nor must the first one say anything.
    renamed.beside = Vec::new();
    for known in [renamed, config()] {
        run(known, &bucket, &topic, folder.path())
            .await
            .expect("known");
    }
    // Registered, and ended before it was in the list.
    let list = "lake/_millpond/pipelines/events.json";
    bucket.remove(list);
    run(config(), &bucket, &topic, folder.path())
        .await
        .expect("known");
    assert!(bucket.objects().iter().any(|(name, _)| name == list));
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_of_another_topic_layout_or_version_is_refused() {
    let folder = tempfile::tempdir().expect("tempdir");
    let (topic, _) = filled(1);
    let bucket = MemoryBucket::default();
    run(config(), &bucket, &topic, folder.path())
        .await
        .expect("runs");
    for (registration, expected) in [
        (
            r#"{"version":1,"topic":"other","partitions":1,"fingerprint":"f"}"#,
            "is fed from topic `other`, not from `events`",
        ),
        (
            r#"{"version":1,"topic":"events","partitions":4,"fingerprint":"f"}"#,
            "is fed from 4 topic partitions",
        ),
        (r#"{"version":2}"#, "newer than 1"),
        ("{", "is not what Millpond writes"),
    ] {
        let bytes = Bytes::from_static(registration.as_bytes());
        bucket.put(REGISTRATION, bytes).await.expect("planted");
        let error = run(config(), &bucket, &topic, folder.path())
            .await
            .expect_err("refused");
        assert!(error.contains(expected), "{error}");
    }
}

/// A process that dies in the middle of writing a plan leaves its intent open.
#[tokio::test(start_paused = true)]
async fn an_open_plan_is_finished_only_with_the_configuration_that_made_it() {
    let folder = tempfile::tempdir().expect("tempdir");
    let (topic, workload) = filled(2);
    let bucket = MemoryBucket::default();
    // The list of pipelines and its own registration looked for; registration, its two checks, the list looked
    // for and made, the ledger read and claimed, the intent; then nothing goes on.
    let mut faults = vec![None; 10];
    faults.extend(vec![Some(Fault::Fail(Verdict::Throttled)); 100_000]);
    bucket.inject(faults);
    let running = {
        let (bucket, topic, folder) = (bucket.clone(), topic.clone(), folder.path().to_owned());
        tokio::spawn(async move { run(config(), &bucket, &topic, &folder).await })
    };
    let intent = || {
        let objects = bucket.objects();
        let ledger = objects.iter().find(|(name, _)| name == LEDGER)?;
        let row: serde_json::Value = serde_json::from_slice(&ledger.1).ok()?;
        row["intent"].as_str().map(str::to_owned)
    };
    until("an intent is recorded", || intent().is_some()).await;
    running.abort();
    assert!(running.await.is_err_and(|end| end.is_cancelled()));
    assert_eq!(crate::reader::data(&bucket.objects()).len(), 0);
    bucket.inject([]);
    for other in [
        SinkConfig {
            format: PARQUET,
            ..config()
        },
        SinkConfig {
            max_object_bytes: 8_192,
            ..config()
        },
        SinkConfig {
            transforms: Vec::new(),
            ..config()
        },
    ] {
        let error = run(other, &bucket, &topic, folder.path())
            .await
            .expect_err("refused");
        assert!(
            error.contains("were being written with configuration"),
            "{error}"
        );
    }
    run(config(), &bucket, &topic, folder.path())
        .await
        .expect("finishes");
    let letters = read_letters(&folder.path().join("dead-letters.jsonl"));
    check(&workload, &read_events(&bucket.objects()), &letters);
}
