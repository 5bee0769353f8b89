//! A table that holds other data, too: nobody minds the other's rows.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, Result, ensure};
use aws_sdk_dynamodb::types::AttributeValue;
use millpond_tests::pipeline::{EVENTS, JOBS, Pipeline, START_MS};
use millpond_tests::{announce_skipped, checker, config, python};
use serde_json::Value;

use crate::MILLPOND;
use crate::readers::run_python;

/// Partition keys of others: near those of Millpond, and like nothing of its.
const FOREIGN: [&str; 6] = [
    "customer#17",
    "events-sink",
    "events-sinks/job#0",
    "other/job-1#0",
    "millpond",
    "zzz",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_others_are_neither_read_nor_touched() -> Result<()> {
    let pipeline = Pipeline::new(MILLPOND, 2, &config::pipeline()).await?;
    pipeline.emit(1_000, 1)?;
    pipeline.catch_up()?;
    let row = |pk: &str| {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let number = AttributeValue::N("7".to_owned());
        // Names that items of Millpond have, with other types and meanings.
        HashMap::from([
            ("pk".to_owned(), text(pk)),
            ("sk".to_owned(), text("2025-11-23T08:20:00.123Z")),
            ("h".to_owned(), text("height")),
            ("d".to_owned(), number.clone()),
            ("committed".to_owned(), number),
        ])
    };
    for pk in FOREIGN {
        let put = pipeline.aws.dynamodb.put_item().table_name(EVENTS);
        put.set_item(Some(row(pk))).send().await?;
    }
    pipeline.emit(1_000, 2)?;
    pipeline.catch_up()?;
    let mut expected = pipeline.expected(1_000, 1)?;
    expected.extend(pipeline.expected(1_000, 2)?);
    expected.sort_unstable();
    assert_eq!(pipeline.read_all()?, expected);
    verify(&pipeline, 2_000)?;
    let items = pipeline.aws.scan(EVENTS).await?;
    for pk in FOREIGN {
        let found = items
            .iter()
            .filter(|item| item["pk"].as_s().is_ok_and(|found| found == pk));
        assert_eq!(found.collect::<Vec<_>>(), [&row(pk)]);
    }
    Ok(())
}

/// `millpond verify` finds so many events, and nothing wrong.
fn verify(pipeline: &Pipeline, events: u64) -> Result<()> {
    let said = pipeline.succeed(&["verify", "--table", EVENTS, "--deep", "--json"])?;
    let last = std::str::from_utf8(&said)?
        .lines()
        .last()
        .context("a summary")?;
    let summary: Value = serde_json::from_str(last)?;
    assert_eq!(summary["events"], events, "{last}");
    assert_eq!(summary["complete"], true, "{last}");
    Ok(())
}

/// Every name that an item has, the user's own, and a prefix before its key.
const NAMED: &str = "  partition-key: id
  sort-key: at
  key-prefix: 'events#'
  ttl: 90d
  ttl-attribute: ends
  attribute-names: {header: head, frames: data, events: count, first-time: first, last-time: last, event: body, origin: from}
  attributes:
    kind: {constant: packed}
    lowest: {minimum: /duration_us}
    highest: {maximum: /duration_us}
    last_worker: {maximum: /worker}
    mixed: {minimum: /no/such/field}
";

/// Prints the events of every group, read by the Python decoder.
const PYTHON_READ: &str = "
import sys, millpond
for group in millpond.groups(sys.argv[1]):
    for event in millpond.read(sys.argv[1], group):
        print(event.value.decode())
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_keys_of_the_users_choosing_are_known_to_every_reader() -> Result<()> {
    let config = format!("{}{NAMED}", config::pipeline());
    let pipeline = Pipeline::new(MILLPOND, 2, &config).await?;
    pipeline.emit(2_000, 1)?;
    pipeline.catch_up()?;
    // What another program keeps in the same table: under the very keys that items would have without the prefix,
    // and in attributes of an item that are free now.
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let items: Vec<_> = pipeline.aws.scan(EVENTS).await?;
    let mut foreign = Vec::new();
    for item in items.iter().filter(|item| item.contains_key("head")) {
        let pk = item["id"].as_s().map_err(|_| anyhow::anyhow!("a string"))?;
        let bare = pk.strip_prefix("events#").context("the prefix")?;
        foreign.push(HashMap::from([
            ("id".to_owned(), text(bare)),
            ("at".to_owned(), item["at"].clone()),
            ("h".to_owned(), text("height")),
        ]));
        let update = pipeline.aws.dynamodb.update_item().table_name(EVENTS);
        let update = update.key("id", text(pk)).key("at", item["at"].clone());
        let update = update.update_expression("SET h = :h, t1 = :h");
        update
            .expression_attribute_values(":h", text("height"))
            .send()
            .await?;
    }
    ensure!(foreign.len() >= JOBS as usize, "{} items", foreign.len());
    for row in &foreign {
        let put = pipeline.aws.dynamodb.put_item().table_name(EVENTS);
        put.set_item(Some(row.clone())).send().await?;
    }
    pipeline.emit(2_000, 2)?;
    pipeline.catch_up()?;
    let mut expected = pipeline.expected(2_000, 1)?;
    expected.extend(pipeline.expected(2_000, 2)?);
    expected.sort_unstable();

    // `groups` and `read`.
    assert_eq!(pipeline.read_all()?, expected);
    // `verify`.
    verify(&pipeline, 4_000)?;
    // `export`.
    pipeline.succeed(&[
        "export",
        "--table",
        EVENTS,
        "--all",
        "--format",
        "ndjson",
        "--output",
        "all.ndjson",
    ])?;
    let exported = std::fs::read_to_string(pipeline.dir().join("all.ndjson"))?;
    let mut exported: Vec<_> = exported.lines().map(str::to_owned).collect();
    exported.sort_unstable();
    assert_eq!(exported, expected);
    // `inspect`, of which the size is the service's.
    let items = pipeline.aws.scan(EVENTS).await?;
    let item = items
        .iter()
        .find(|item| item.contains_key("head") && !item.contains_key("h"));
    let item = item.context("an item that nobody changed")?;
    let key = |name: &str| {
        item[name]
            .as_s()
            .cloned()
            .map_err(|_| anyhow::anyhow!("a string"))
    };
    let (pk, sk) = (key("id")?, key("at")?);
    let shown = pipeline.succeed(&["inspect", "--table", EVENTS, "--pk", &pk, "--sk", &sk])?;
    let shown: Value = serde_json::from_slice(&shown)?;
    let put = pipeline
        .aws
        .dynamodb
        .put_item()
        .table_name(EVENTS)
        .set_item(Some(item.clone()));
    let put = put.return_consumed_capacity(aws_sdk_dynamodb::types::ReturnConsumedCapacity::Total);
    let units = put
        .send()
        .await?
        .consumed_capacity
        .and_then(|used| used.capacity_units);
    assert_eq!(shown["write_units"].as_f64(), units);
    // Someone who knows the page alone.
    let keyed: Vec<_> = items
        .iter()
        .filter(|item| !foreign.contains(item))
        .map(keyed)
        .collect();
    let checked = checker::check(
        &checker::as_on_the_page(&keyed, "events-sink"),
        "events-sink",
    );
    ensure!(checked.problems.is_empty(), "{:?}", checked.problems);
    assert_eq!(checked.len(), 4_000);
    bounds_hold(&items, &checked)?;
    // `tail`.
    let from = format!("--from={START_MS}");
    let tailed = pipeline.succeed(&["tail", "--table", EVENTS, "--all", "--limit=4000", &from])?;
    let mut tailed: Vec<_> = std::str::from_utf8(&tailed)?
        .lines()
        .map(str::to_owned)
        .collect();
    tailed.sort_unstable();
    assert_eq!(tailed, expected);
    // The decoder for Python.
    match python::with(&["boto3", "zstandard"]) {
        Err(reason) => announce_skipped("names_and_keys_of_the_users_choosing (Python)", &reason),
        Ok(python) => {
            let mut read = run_python(&python, &pipeline, PYTHON_READ, &[EVENTS])?;
            read.sort_unstable();
            assert_eq!(read, expected);
        }
    }
    // Nobody touched the others' rows.
    for row in &foreign {
        ensure!(items.contains(row), "{row:?}");
    }
    Ok(())
}

/// The item with the names of keys that the checker knows.
fn keyed(item: &checker::Item) -> checker::Item {
    let mut item = item.clone();
    for (name, is) in [("id", "pk"), ("at", "sk")] {
        if let Some(value) = item.remove(name) {
            item.insert(is.to_owned(), value);
        }
    }
    item
}

/// The bounds of the items of each chain are those of its events; of a field that no event has there are none.
fn bounds_hold(items: &[checker::Item], checked: &checker::Checked) -> Result<()> {
    let mut found: BTreeMap<String, (u64, u64, String)> = BTreeMap::new();
    let none = || (u64::MAX, 0, String::new());
    for item in items.iter().filter(|item| item.contains_key("head")) {
        ensure!(
            !item.contains_key("mixed") && item.contains_key("ends"),
            "{item:?}"
        );
        let number = |name: &str, or: u64| {
            let number = item.get(name).and_then(|value| value.as_n().ok());
            number.map_or(Ok(or), |number| number.parse())
        };
        let (low, high) = (number("lowest", u64::MAX)?, number("highest", 0)?);
        let text = |name: &str| item[name].as_s().map_err(|_| anyhow::anyhow!("a string"));
        let worker = text("last_worker")?;
        let bare = text("id")?.strip_prefix("events#").context("the prefix")?;
        let bounds = found.entry(bare.to_owned()).or_insert_with(none);
        bounds.0 = bounds.0.min(low);
        bounds.1 = bounds.1.max(high);
        bounds.2 = bounds.2.clone().max(worker.clone());
    }
    let mut with_numbers = 0;
    for (pk, events) in &checked.chains {
        let mut bounds = none();
        for event in events {
            let event: Value = serde_json::from_slice(&event.value)?;
            // Not every event has it.
            if let Some(number) = event["duration_us"].as_u64() {
                with_numbers += 1;
                bounds = (bounds.0.min(number), bounds.1.max(number), bounds.2);
            }
            let worker = event["worker"].as_str().context("a name")?.to_owned();
            bounds.2 = bounds.2.max(worker);
        }
        assert_eq!(found.get(pk), Some(&bounds), "{pk}");
    }
    ensure!(with_numbers > 100, "{with_numbers}");
    Ok(())
}
