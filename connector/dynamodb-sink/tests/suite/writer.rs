//! Retries, partial failures, refusals and pace, in the one place that has them.

use std::sync::Arc;
use std::time::Duration;

use millpond_connector::aws::CREDENTIALS_PATIENCE;
use millpond_connector::metrics::Metrics;
use millpond_dynamodb_sink::budget::Budget;
use millpond_dynamodb_sink::client::memory::{Fault, MemoryTable};
use millpond_dynamodb_sink::client::{Condition, Throttle, Verdict};
use millpond_dynamodb_sink::pacing::{PaceSettings, SMOOTHING};
use millpond_dynamodb_sink::plan::PlannedItem;
use millpond_dynamodb_sink::row::KeyNames;
use millpond_dynamodb_sink::writer::TableWriter;
use proptest::prelude::*;
use tokio::time::Instant;

use crate::rules::sized;

fn items(count: usize, bytes: usize) -> Vec<PlannedItem> {
    let item = |index: usize| {
        let row = sized("chain", &format!("{index:04}"), bytes);
        let size = row.size(&KeyNames::default());
        PlannedItem {
            row: Arc::new(row),
            bytes: size.bytes(),
            units: size.write_units(),
            events: 10,
            event_bytes: 1_000,
        }
    };
    (0..count).map(item).collect()
}

fn writer(table: &MemoryTable, budget: Option<u64>) -> (TableWriter, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::default());
    let budget = budget.map(|units| {
        let settings = PaceSettings::fixed(units);
        Arc::new(Budget::new(settings, metrics.clone()))
    });
    let api = Arc::new(table.clone());
    let writer = TableWriter::new(api, KeyNames::default(), budget, metrics.clone());
    (writer, metrics)
}

#[tokio::test(start_paused = true)]
async fn unprocessed_items_are_never_taken_for_success() {
    let table = MemoryTable::new("t");
    table.inject(vec![Some(Fault::Unprocessed); 12]);
    let (writer, metrics) = writer(&table, None);
    let written = Arc::new(std::sync::Mutex::new(Vec::new()));
    let hook = written.clone();
    metrics.on_written(Box::new(move |item| {
        assert!(item.acknowledged_ms > 1_700_000_000_000);
        hook.lock().expect("lock").push(item.sk.clone());
    }));
    assert_eq!(writer.write_items(&items(60, 2_000)).await, Ok(vec![]));
    assert_eq!(table.scan().len(), 60);
    assert_eq!((metrics.items.get(), metrics.sink_events.get()), (60, 600));
    assert_eq!(metrics.write_units_items.get(), 120);
    assert_eq!(metrics.write_units_reported_milli.get(), 120_000);
    assert!(metrics.sink_throttles.get() >= 3);
    let mut keys = written.lock().expect("lock").clone();
    keys.sort();
    keys.dedup();
    assert_eq!(
        (keys.len(), written.lock().expect("lock").len()),
        (60, 60),
        "each told once"
    );
}

#[tokio::test(start_paused = true)]
async fn throttles_outages_and_lost_answers_are_waited_out() {
    let table = MemoryTable::new("t");
    let kinds = [
        Throttle::Unknown,
        Throttle::Table,
        Throttle::KeyRange,
        Throttle::Account,
    ];
    let mut faults: Vec<_> = kinds
        .map(|kind| Some(Fault::Fail(Verdict::Throttled(kind))))
        .to_vec();
    faults.extend(vec![Some(Fault::Fail(Verdict::Transient)); 50]);
    faults.extend([Some(Fault::LoseAnswer), Some(Fault::Fail(Verdict::Expired))]);
    let (writer, metrics) = writer(&table, None);
    writer.describe().await.expect("the credentials are good");
    table.inject(faults);
    let begun = Instant::now();
    assert_eq!(writer.write_items(&items(5, 300)).await, Ok(vec![]));
    assert!(
        begun.elapsed() > Duration::from_secs(5),
        "waited {:?}",
        begun.elapsed()
    );
    assert_eq!((table.scan().len(), metrics.items.get()), (5, 5));
    assert_eq!(metrics.sink_throttles.get(), 4);
}

const LOCKED_OUT: [Verdict; 2] = [
    Verdict::Expired,
    Verdict::Credentials("check the credentials"),
];

#[tokio::test(start_paused = true)]
async fn credentials_that_never_worked_are_an_error_at_once() {
    for verdict in LOCKED_OUT {
        let table = MemoryTable::new("events");
        table.inject([Some(Fault::Fail(verdict))]);
        let (writer, _) = writer(&table, None);
        let begun = Instant::now();
        let error = writer.describe().await.expect_err("fatal").to_string();
        assert!(error.contains("check the credentials"), "{error}");
        assert!(begun.elapsed().is_zero(), "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn credentials_that_worked_are_waited_for_as_long_as_said() {
    for verdict in LOCKED_OUT {
        let table = MemoryTable::new("events");
        let (writer, _) = writer(&table, None);
        writer.describe().await.expect("the credentials are good");
        // Renewed after a while.
        table.inject(vec![Some(Fault::Fail(verdict)); 20]);
        assert_eq!(writer.write_items(&items(3, 300)).await, Ok(vec![]));
        // Never renewed.
        table.inject(vec![Some(Fault::Fail(verdict)); 10_000]);
        let begun = Instant::now();
        let error = writer.write_items(&items(3, 300)).await.expect_err("ends");
        let (waited, error) = (begun.elapsed(), error.to_string());
        assert!(error.contains("check the credentials"), "{error}");
        let longest = CREDENTIALS_PATIENCE + Duration::from_secs(30);
        assert!(
            (CREDENTIALS_PATIENCE..longest).contains(&waited),
            "{waited:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn one_refused_item_costs_itself_alone() {
    let table = MemoryTable::new("t");
    let (writer, metrics) = writer(&table, None);
    let mut items = items(10, 300);
    items[4].row = Arc::new(sized("chain", "0004", 409_601));
    let rejected = writer.write_items(&items).await.expect("goes on");
    assert_eq!(
        rejected.iter().map(|row| row.index).collect::<Vec<_>>(),
        [4]
    );
    assert_eq!((table.scan().len(), metrics.items.get()), (9, 9));
}

#[tokio::test(start_paused = true)]
async fn what_no_try_can_mend_says_what_to_do() {
    for (verdict, help) in [
        (Verdict::NoTable, "`create-table: true`"),
        (
            Verdict::Fatal("check the credentials"),
            "check the credentials",
        ),
    ] {
        let table = MemoryTable::new("events");
        table.inject([Some(Fault::Fail(verdict))]);
        let (writer, _) = writer(&table, None);
        let error = writer
            .write_items(&items(1, 300))
            .await
            .expect_err("fatal")
            .to_string();
        assert!(
            error.contains("table `events`: BatchWriteItem failed") && error.contains(help),
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_condition_is_told_apart() {
    let table = MemoryTable::new("t");
    let (writer, metrics) = writer(&table, None);
    let row = sized("a", "b", 300);
    assert_eq!(writer.put(&row, &Condition::Absent).await, Ok(true));
    assert_eq!(writer.put(&row, &Condition::Absent).await, Ok(false));
    assert_eq!(metrics.write_units_overhead.get(), 2);
    assert_eq!(
        metrics.write_units_reported_milli.get(),
        2_000,
        "a failed condition is billed"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The whole writer with several requests under way: the units that the table saw over the
    /// whole run stay within the rate, what it may keep, and one request.
    #[test]
    fn the_budget_holds(rate in 5u64..400, count in 1usize..60, kib in 1usize..30) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build().expect("runtime");
        runtime.block_on(async {
            let table = MemoryTable::new("t");
            table.inject((0..20).map(|i| (i % 3 == 0).then_some(Fault::Unprocessed)));
            let (writer, _) = writer(&table, Some(rate));
            let begun = Instant::now();
            let items = items(count, kib * 1_024);
            assert_eq!(writer.write_items(&items).await, Ok(vec![]));
            let rate = rate as f64;
            let kept = rate * SMOOTHING.as_secs_f64();
            let bound = rate * begun.elapsed().as_secs_f64() + kept + kept.max(kib as f64);
            assert!(table.units() <= bound + 1e-3, "{} units, bound {bound}", table.units());
        });
    }
}
