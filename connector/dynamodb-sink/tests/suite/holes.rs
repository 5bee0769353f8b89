//! Missing records: read once more, and an error if they stay missing; never skipped.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use millpond_connector::connector::{ConnectorContext, Sink};
use millpond_connector::metrics::Metrics;
use millpond_connector::topic::{
    Offset, OffsetBounds, PartitionId, PartitionReader, StoredBatch, Topic, TopicError, Transform,
};
use millpond_dynamodb_sink::client::memory::MemoryTable;
use millpond_dynamodb_sink::row::names;
use millpond_sink::error::SinkError;
use millpond_sink::partition;
use tokio_util::sync::CancellationToken;

use crate::checker::{check, read_letters};
use crate::harness::{MAX_ITEM_BYTES, config, draining, pack, shared, until};
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
async fn a_reader_that_begins_earlier_changes_nothing() {
    for (transforms, early) in [(pack(), 7), (Vec::new(), 4)] {
        let folder = tempfile::tempdir().expect("tempdir");
        let table = MemoryTable::new("t");
        let topic = MemoryTopic {
            lag: Duration::from_millis(250),
            ..MemoryTopic::new(early)
        };
        let mut workload = Workload::new(early, Shape::default());
        let packed = !transforms.is_empty();
        topic.state.lock().expect("lock").early = early as usize;
        for life in 0..4 {
            for _ in 0..5 {
                workload.send(&topic);
            }
            let process = shared(
                &format!("o{life}"),
                Arc::new(table.clone()),
                &topic,
                transforms.clone(),
                folder.path(),
            );
            let ended = partition::run(Arc::new(process), 0, draining()).await;
            ended.expect("the same as ever");
        }
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

/// Two topic partitions.
struct Pair([MemoryTopic; 2]);

#[async_trait]
impl Topic for Pair {
    fn name(&self) -> &str {
        self.0[0].name()
    }

    fn partition_count(&self) -> u32 {
        2
    }

    async fn append(
        &self,
        partition: PartitionId,
        batch: StoredBatch,
    ) -> Result<Range<Offset>, TopicError> {
        self.0[partition as usize].append(0, batch).await
    }

    async fn reader(
        &self,
        partition: PartitionId,
        from: Offset,
        transforms: &[Transform],
    ) -> Result<Box<dyn PartitionReader>, TopicError> {
        self.0[partition as usize].reader(0, from, transforms).await
    }

    async fn bounds(&self, partition: PartitionId) -> Result<OffsetBounds, TopicError> {
        self.0[partition as usize].bounds(0).await
    }

    async fn release(
        &self,
        partition: PartitionId,
        consumer: &str,
        offset: Offset,
    ) -> Result<(), TopicError> {
        self.0[partition as usize]
            .release(0, consumer, offset)
            .await
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_cannot_go_on_does_not_stop_the_others() {
    let folder = tempfile::tempdir().expect("tempdir");
    let table = MemoryTable::new("t");
    let record = |shard: u32, ordinal: u64| {
        let position = 100 + ordinal;
        let key = format!("mp1/s/shardId-00000000000{shard}/{position}/0/1/1.{ordinal}/k");
        let value = format!("{{\"job\":\"j{shard}\",\"n\":{ordinal}}}");
        (key, value.into_bytes())
    };
    let (broken, sound) = (MemoryTopic::new(1), MemoryTopic::new(2));
    broken.push(&[record(0, 0)]);
    broken.push(&[record(0, 2)]);
    let metrics = Arc::new(Metrics::default());
    let drain = CancellationToken::new();
    let context = ConnectorContext {
        name: "sink".into(),
        topic: Arc::new(Pair([broken, sound.clone()])),
        data_dir: folder.path().to_owned(),
        drain: drain.clone(),
        metrics: metrics.clone(),
    };
    let sink = Box::new(config(None).sink(Arc::new(table.clone()), None));
    let running = tokio::spawn(sink.run(context));
    until("one halts", || metrics.partitions_halted.get() == 1).await;
    sound.push(&[record(1, 0), record(1, 1)]);
    until("the other goes on", || metrics.sink_events.get() == 2).await;
    drain.cancel();
    let error = running.await.expect("no panic").expect_err("halted");
    let text = format!("{error:#}");
    assert!(
        text.contains("sink `sink`: topic partition 0") && text.contains("expected ordinal 1"),
        "{text}"
    );
    let rows = table.scan();
    let ledgers = rows
        .iter()
        .filter(|row| row.key.pk.starts_with("millpond:ledger/"));
    let committed: Vec<_> = ledgers.map(|row| row.integer(names::COMMITTED)).collect();
    assert_eq!(committed, [Some(0), Some(2)]);
}

/// A SmartModule that drops events before the packer.
fn filter_and_pack() -> Vec<Transform> {
    let filter = Transform {
        uses: "filter.wasm".into(),
        with: [("without".to_owned(), "\"drop\"".to_owned())].into(),
    };
    std::iter::once(filter).chain(pack()).collect()
}

/// Runs over batches of (ordinal, is dropped); answers the events in the table and the released
/// offset. Every batch is a run of its own, so that no plan sees two.
async fn run_filtered(batches: &[&[(u64, bool)]]) -> Result<(i64, Option<u64>), SinkError> {
    let folder = tempfile::tempdir().expect("tempdir");
    let table = MemoryTable::new("t");
    let topic = MemoryTopic::new(1);
    for batch in batches {
        let record = |(ordinal, dropped): &(u64, bool)| {
            let position = 100 + ordinal;
            let key = format!("mp1/s/shardId-000000000000/{position}/0/1/1.{ordinal}/k");
            let kind = if *dropped { "drop" } else { "keep" };
            let value = format!("{{\"job\":\"j\",\"kind\":\"{kind}\",\"n\":{ordinal}}}");
            (key, value.into_bytes())
        };
        topic.push(&batch.iter().map(record).collect::<Vec<_>>());
        let process = shared(
            "o",
            Arc::new(table.clone()),
            &topic,
            filter_and_pack(),
            folder.path(),
        );
        partition::run(Arc::new(process), 0, draining()).await?;
    }
    let rows = table.scan();
    let items = rows
        .iter()
        .filter(|row| !row.key.pk.starts_with("millpond:"));
    let events = items.filter_map(|row| row.integer("n")).sum();
    let released = topic.state.lock().expect("lock").released.last().copied();
    Ok((events, released))
}

#[tokio::test(start_paused = true)]
async fn a_filtered_record_is_no_hole_and_a_lost_one_is() {
    let (keep, drop) = (false, true);
    // At the start, inside, at the end, and a whole batch.
    let head: &[_] = &[(0, drop), (1, keep), (2, drop), (3, keep), (4, drop)];
    let gone: &[_] = &[(5, drop), (6, drop)];
    let done = run_filtered(&[head, gone, &[(7, keep)]]).await;
    assert_eq!(done.expect("no hole"), (3, Some(8)));
    assert_eq!(run_filtered(&[gone]).await.expect("no hole"), (0, Some(2)));

    // The same with ordinal 7 lost: three were removed unseen, four are missing.
    let error = run_filtered(&[head, gone, &[(8, keep)]]).await;
    let error = error.expect_err("one more is missing than was removed");
    let text = error.to_string();
    assert!(
        text.contains("expected ordinal 4 of numbering 1, found 8"),
        "{text}"
    );
    let inside: &[_] = &[(0, keep), (2, keep)];
    let error = run_filtered(&[inside])
        .await
        .expect_err("nothing was removed");
    assert!(error.to_string().contains("2 events"), "{error}");
}
