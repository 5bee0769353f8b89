//! A table that holds other data, too: nobody minds the other's rows.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use aws_sdk_dynamodb::types::AttributeValue;
use millpond_tests::config;
use millpond_tests::pipeline::{EVENTS, Pipeline};
use serde_json::Value;

use crate::MILLPOND;

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
    let said = pipeline.succeed(&["verify", "--table", EVENTS, "--deep", "--json"])?;
    let last = std::str::from_utf8(&said)?
        .lines()
        .last()
        .context("a summary")?;
    let summary: Value = serde_json::from_str(last)?;
    assert_eq!(summary["events"], 2_000, "{last}");
    assert_eq!(summary["complete"], true, "{last}");
    let items = pipeline.aws.scan(EVENTS).await?;
    for pk in FOREIGN {
        let found = items
            .iter()
            .filter(|item| item["pk"].as_s().is_ok_and(|found| found == pk));
        assert_eq!(found.collect::<Vec<_>>(), [&row(pk)]);
    }
    Ok(())
}
