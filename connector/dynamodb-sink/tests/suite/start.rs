//! Starting: tables that are missing, late, of another shape; ledgers that do not fit the topic.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millpond_connector::connector::{ConnectorContext, Sink};
use millpond_connector::metrics::Metrics;
use millpond_connector::topic::Transform;
use millpond_dynamodb_sink::client::memory::{Fault, MemoryTable};
use millpond_dynamodb_sink::client::{Capacity, TableApi, Verdict};
use millpond_dynamodb_sink::config::SinkConfig;
use millpond_dynamodb_sink::row::{Row, Value, names};
use millpond_dynamodb_sink::store::Tables;
use millpond_sink::partition;
use tokio_util::sync::CancellationToken;

use crate::checker::{check, read_letters};
use crate::harness::{MAX_ITEM_BYTES, QUICK, config, draining, pack, shared, until};
use crate::topic::MemoryTopic;
use crate::workload::{Shape, Workload};

async fn run(
    config: SinkConfig,
    table: &MemoryTable,
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
    let sink = Box::new(config.sink(Arc::new(table.clone()), None));
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
async fn a_missing_table_is_created_when_told_to_and_only_then() {
    let folder = tempfile::tempdir().expect("tempdir");
    let (topic, workload) = filled(1);
    let table = MemoryTable::absent("t");
    let error = run(config(None), &table, &topic, folder.path())
        .await
        .expect_err("missing");
    assert!(
        error.contains("table `t` does not exist") && error.contains("create-table: true"),
        "{error}"
    );
    // The endpoint is down at first.
    table.inject(vec![Some(Fault::Fail(Verdict::Transient)); 20]);
    let metrics = run(
        config(Some(Capacity::OnDemand)),
        &table,
        &topic,
        folder.path(),
    )
    .await
    .expect("runs");
    assert!(metrics.commits.get() >= 1);
    let letters = read_letters(&folder.path().join("dead-letters.jsonl"));
    check(&workload, &table.scan(), &letters, MAX_ITEM_BYTES);
    // Nothing new: nothing is written but the claim.
    let before = table.scan().len();
    let metrics = run(config(None), &table, &topic, folder.path())
        .await
        .expect("runs");
    assert_eq!(
        (
            metrics.items.get(),
            metrics.commits.get(),
            table.scan().len()
        ),
        (0, 0, before)
    );
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_of_another_topic_or_layout_is_refused() {
    let folder = tempfile::tempdir().expect("tempdir");
    let (topic, _) = filled(1);
    let table = MemoryTable::new("t");
    run(config(None), &table, &topic, folder.path())
        .await
        .expect("runs");
    let registry = table
        .scan()
        .into_iter()
        .find(|row| row.key.pk == "millpond:pipelines");
    let registry = registry.expect("registered");
    assert_eq!(
        (
            registry.string(names::TOPIC),
            registry.integer(names::PARTITIONS)
        ),
        (Some("events"), Some(1))
    );
    for (name, value, expected) in [
        (
            names::TOPIC,
            Value::S("other".into()),
            "is fed from topic `other`, not from `events`",
        ),
        (
            names::PARTITIONS,
            Value::N(4),
            "is fed from 4 topic partitions",
        ),
        (names::VERSION, Value::N(3), "newer than 2"),
    ] {
        table.plant(registry.clone().with(name, value));
        let error = run(config(None), &table, &topic, folder.path())
            .await
            .expect_err("refused");
        assert!(
            error.contains(expected) && error.contains("pipeline `p`"),
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_credentials_end_the_sink_at_once() {
    let folder = tempfile::tempdir().expect("tempdir");
    let (topic, _) = filled(1);
    let table = MemoryTable::new("t");
    table.inject([Some(Fault::Fail(Verdict::Fatal("check the credentials")))]);
    let error = run(config(None), &table, &topic, folder.path())
        .await
        .expect_err("refused");
    assert!(
        error.contains("sink `sink`") && error.contains("check the credentials"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_lost_records_is_refused() {
    let folder = tempfile::tempdir().expect("tempdir");
    let (topic, _) = filled(1);
    let table = MemoryTable::new("t");
    run(config(None), &table, &topic, folder.path())
        .await
        .expect("runs");
    topic.cut(1_000_000);
    let error = run(config(None), &table, &topic, folder.path())
        .await
        .expect_err("refused");
    assert!(
        error.contains("the topic begins at 1000000") && error.contains("are gone"),
        "{error}"
    );
}

/// What a process finds, or reads first, has waited while nobody wrote: it does not wait for `max-age` on top
/// of that. What comes later does.
#[tokio::test(start_paused = true)]
async fn the_first_plan_after_a_start_does_not_wait_for_max_age() {
    let folder = tempfile::tempdir().expect("tempdir");
    let (topic, mut workload) = (MemoryTopic::new(3), Workload::new(3, Shape::default()));
    let table = MemoryTable::new("t");
    let items = || {
        table
            .scan()
            .iter()
            .filter(|row| row.key.pk.starts_with("p/"))
            .count()
    };
    // One batch alone may be a repetition.
    let send = |workload: &mut Workload| (0..4).for_each(|_| workload.send(&topic));
    let max_age = Duration::from_secs(60);
    for found_at_start in [false, true] {
        let before = items();
        if found_at_start {
            send(&mut workload);
        }
        let mut process = shared("s", Arc::new(table.clone()), &topic, pack(), folder.path());
        process.max_age = max_age;
        let running = tokio::spawn(partition::run(
            Arc::new(process),
            0,
            CancellationToken::new(),
        ));
        // Long enough for the claim, which is no part of it.
        tokio::time::sleep(Duration::from_secs(2)).await;
        if !found_at_start {
            assert_eq!(items(), before);
            send(&mut workload);
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let first = items();
        assert!(
            first > before,
            "the first plan is written, found: {found_at_start}"
        );
        send(&mut workload);
        tokio::time::sleep(max_age - Duration::from_secs(4)).await;
        assert_eq!(items(), first, "the second one waits");
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert!(items() > first, "as long as it is told to");
        running.abort();
    }
}

/// A process that dies in the middle of writing a plan leaves its intent open.
#[tokio::test(start_paused = true)]
async fn an_open_plan_is_finished_only_with_the_configuration_that_made_it() {
    let folder = tempfile::tempdir().expect("tempdir");
    let (topic, workload) = filled(2);
    let table = MemoryTable::new("t");
    let first = Arc::new(shared(
        "first",
        Arc::new(table.clone()),
        &topic,
        pack(),
        folder.path(),
    ));
    let process = tokio::spawn(partition::run(first, 0, CancellationToken::new()));
    let intent = || {
        let rows = table.scan();
        let ledger = rows
            .iter()
            .find(|row| row.key.pk.starts_with("millpond:ledger/"));
        ledger.and_then(|row| row.string(names::INTENT).map(str::to_owned))
    };
    until("an intent is recorded", || intent().is_some()).await;
    process.abort();
    assert!(process.await.is_err_and(|end| end.is_cancelled()));
    let other: Vec<Transform> = Vec::new();
    let mut changed = shared(
        "second",
        Arc::new(table.clone()),
        &topic,
        other,
        folder.path(),
    );
    changed.fingerprint = "g".into();
    let error = partition::run(Arc::new(changed), 0, draining())
        .await
        .expect_err("refused");
    let text = error.to_string();
    assert!(
        text.contains("with configuration `f`") && text.contains("is `g` now"),
        "{text}"
    );
    let same = shared(
        "third",
        Arc::new(table.clone()),
        &topic,
        pack(),
        folder.path(),
    );
    partition::run(Arc::new(same), 0, draining())
        .await
        .expect("finishes");
    let letters = read_letters(&folder.path().join("dead.jsonl"));
    check(&workload, &table.scan(), &letters, MAX_ITEM_BYTES);
}

/// Items in one table, ledger in another: both say so, and neither is taken for another pipeline's.
#[tokio::test(start_paused = true)]
async fn a_ledger_in_a_table_of_its_own_is_bound_to_its_items() {
    let folder = tempfile::tempdir().expect("tempdir");
    let (topic, workload) = filled(3);
    let events = MemoryTable::new("events");
    let ledger = MemoryTable::absent("ledger");
    let run = async |data: &MemoryTable, ledger: Option<&MemoryTable>| {
        let context = ConnectorContext {
            name: "sink".into(),
            topic: Arc::new(topic.clone()),
            data_dir: folder.path().to_owned(),
            drain: draining(),
            metrics: Arc::default(),
        };
        let tables = Tables {
            data: Arc::new(data.clone()),
            dead_letters: None,
            ledger: ledger.map(|ledger| Arc::new(ledger.clone()) as Arc<dyn TableApi>),
            leases: None,
            stale_writes: QUICK,
        };
        let sink = Box::new(config(Some(Capacity::OnDemand)).sink_on(tables));
        let result = sink.run(context).await;
        result.map_err(|error| format!("{error:#}"))
    };
    for _ in 0..2 {
        run(&events, Some(&ledger)).await.expect("runs");
    }
    let is_ledger = |row: &Row| row.key.pk.starts_with("millpond:ledger/");
    assert!(!events.scan().iter().any(is_ledger));
    assert!(ledger.scan().iter().any(is_ledger));
    assert_eq!(ledger.scan().len(), 2, "ledger row and registration");
    let letters = read_letters(&folder.path().join("dead-letters.jsonl"));
    check(&workload, &events.scan(), &letters, MAX_ITEM_BYTES);

    let refused = async |data: &MemoryTable, ledger: Option<&MemoryTable>, part: &str| {
        let error = run(data, ledger).await.expect_err(part);
        assert!(
            error.contains(part) && error.contains("pipeline `p`"),
            "{error}"
        );
    };
    refused(
        &events,
        None,
        "has its ledger in table `ledger`, not in the same table",
    )
    .await;
    let other = MemoryTable::new("other");
    refused(&events, Some(&other), "not in table `other`").await;
    // Another pipeline of the same name must not take the ledger for its own.
    let elsewhere = MemoryTable::new("elsewhere");
    refused(&elsewhere, Some(&ledger), "the table was made anew").await;
    let own = MemoryTable::new("own");
    run(&own, None).await.expect("runs");
    refused(&own, Some(&ledger), "has its ledger in the same table").await;
    for row in ledger.scan() {
        if row.key.pk == "millpond:pipelines" {
            elsewhere.plant(row.with(names::LEDGER, Value::S("ledger".into())));
        }
    }
    refused(
        &elsewhere,
        Some(&ledger),
        "is the ledger of items in table `events`",
    )
    .await;
}

/// A drain is not held up by a table that never answered, unless something waits to be written to it.
#[tokio::test(start_paused = true)]
async fn a_drain_ends_a_sink_whose_table_does_not_answer_when_nothing_waits() {
    let folder = tempfile::tempdir().expect("tempdir");
    let unreachable = || {
        let table = MemoryTable::new("t");
        table.inject(vec![Some(Fault::Fail(Verdict::Transient)); 100_000]);
        table
    };
    let minute = Duration::from_secs(60);
    let empty = MemoryTopic::new(1);
    let table = unreachable();
    let ended = run(config(None), &table, &empty, folder.path());
    let ended = tokio::time::timeout(minute, ended).await.expect("at once");
    ended.expect("drained");
    assert!(table.scan().is_empty());
    let (filled, _) = filled(1);
    let table = unreachable();
    let waits = run(config(None), &table, &filled, folder.path());
    let waits = tokio::time::timeout(minute, waits).await;
    waits.expect_err("what is in the topic is to be written");
}

/// The ledger's time is part of the plans' time: a claim is no plan.
#[tokio::test]
async fn a_claim_is_not_counted_as_time_of_plans() {
    let folder = tempfile::tempdir().expect("tempdir");
    let table = MemoryTable::new("t");
    let metrics = run(config(None), &table, &MemoryTopic::new(1), folder.path()).await;
    let metrics = metrics.expect("drained");
    assert!(!table.scan().is_empty(), "claimed");
    assert!(metrics.ledger_micros.get() <= metrics.flush_micros.get());
}
