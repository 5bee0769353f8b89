//! Missing records: read once more, and an error if they stay missing; never skipped.

use std::sync::Arc;

use millpond_dynamodb_sink::client::memory::MemoryTable;
use millpond_dynamodb_sink::error::SinkError;
use millpond_dynamodb_sink::partition;

use crate::checker::{check, read_letters};
use crate::harness::{MAX_ITEM_BYTES, draining, pack, shared};
use crate::topic::MemoryTopic;
use crate::workload::{Shape, Workload};

fn filled(seed: u64) -> (MemoryTopic, Workload) {
    let topic = MemoryTopic::new(seed);
    let mut workload = Workload::new(seed, Shape::default());
    for _ in 0..20 {
        workload.send(&topic);
    }
    (topic, workload)
}

#[tokio::test(start_paused = true)]
async fn a_record_that_was_left_out_once_is_read_again() {
    for (transforms, hidden) in [(pack(), 11), (Vec::new(), 37)] {
        let folder = tempfile::tempdir().expect("tempdir");
        let table = MemoryTable::new("t");
        let (topic, workload) = filled(hidden);
        topic.state.lock().expect("lock").hide.insert(hidden);
        let packed = !transforms.is_empty();
        let process = shared(
            "o",
            Arc::new(table.clone()),
            &topic,
            transforms,
            folder.path(),
        );
        partition::run(Arc::new(process), 0, draining())
            .await
            .expect("mended");
        if packed {
            let letters = read_letters(&folder.path().join("dead.jsonl"));
            check(&workload, &table.scan(), &letters, MAX_ITEM_BYTES);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_stays_away_stops_the_partition() {
    for transforms in [pack(), Vec::new()] {
        let folder = tempfile::tempdir().expect("tempdir");
        let table = MemoryTable::new("t");
        let (topic, _) = filled(3);
        // The tenth record of the first read is gone, and the tenth of any later one.
        let all = (0..2_000).flat_map(|read| (0..50).map(move |index| read * 50 + index));
        topic.state.lock().expect("lock").hide.extend(all);
        let process = shared(
            "o",
            Arc::new(table.clone()),
            &topic,
            transforms,
            folder.path(),
        );
        let error = partition::run(Arc::new(process), 0, draining())
            .await
            .expect_err("stops");
        assert!(matches!(error, SinkError::Contiguity { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("topic partition 0") && text.contains("expected"),
            "{text}"
        );
        let items = table
            .scan()
            .into_iter()
            .filter(|row| !row.key.pk.starts_with("millpond:"));
        assert_eq!(items.count(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_break_in_a_shards_chain_stops_the_partition() {
    let folder = tempfile::tempdir().expect("tempdir");
    let table = MemoryTable::new("t");
    let topic = MemoryTopic::new(1);
    let record = |ordinal: u64| {
        let key = format!(
            "mp1/s/shardId-000000000000/{}/0/1/1.{ordinal}/k",
            100 + ordinal
        );
        (
            key,
            format!("{{\"job\":\"j\",\"n\":{ordinal}}}").into_bytes(),
        )
    };
    topic.push(&[record(0), record(1)]);
    topic.push(&[record(3), record(4)]);
    let process = shared("o", Arc::new(table.clone()), &topic, pack(), folder.path());
    let error = partition::run(Arc::new(process), 0, draining())
        .await
        .expect_err("stops");
    let text = error.to_string();
    for part in [
        "topic partition 0",
        "shard `shardId-000000000000` of stream `s`",
        "expected ordinal 2 of numbering 1, found 3",
        "offset 2",
    ] {
        assert!(text.contains(part), "{text}");
    }
}
