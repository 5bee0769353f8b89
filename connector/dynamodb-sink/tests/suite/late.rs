//! Events that come after their place was recorded as a gap: none is written a second time, none is dropped in silence.

use std::collections::BTreeMap;
use std::sync::Arc;

use millpond_connector::metrics::Metrics;
use millpond_connector::topic::Transform;
use millpond_dynamodb_sink::client::memory::MemoryTable;
use millpond_dynamodb_sink::row::{Row, names};
use millpond_format::marks::Marks;
use millpond_sink::conformance::storm::LETTERS;
use millpond_sink::flush::Shared;
use millpond_sink::letter_queue::DeadLetters;
use millpond_sink::partition;
use tokio_util::sync::CancellationToken;

use crate::gaps::{dies_after, drain, ordinals, process, push, record};
use crate::harness::{pack, store, until};
use crate::topic::{KeyValue, MemoryTopic};

const MISSING: &str = "after-gap";
const IN_DOUBT: &str = "after-gap-in-doubt";

/// A process whose dead letters go to the table, too.
fn to_table(
    table: &MemoryTable,
    topic: &MemoryTopic,
    folder: &tempfile::TempDir,
    transforms: Vec<Transform>,
) -> Shared {
    let kept = store(Arc::new(table.clone()), Arc::new(Metrics::default()));
    Shared {
        transforms,
        dead_letters: DeadLetters::Store(Arc::new(kept)),
        ..process(table, topic, folder)
    }
}

fn letter_rows(table: &MemoryTable) -> Vec<Row> {
    let rows = table.scan().into_iter();
    rows.filter(|row| row.key.pk == "millpond:dead-letters/p")
        .collect()
}

fn number(value: &[u8]) -> u64 {
    let value: serde_json::Value = serde_json::from_slice(value).expect("JSON");
    value["n"].as_u64().expect("a number")
}

/// Reasons by ordinal; each row is the event as it was put, with its origin.
fn letters(table: &MemoryTable) -> BTreeMap<u64, String> {
    let mut found = BTreeMap::new();
    for row in letter_rows(table) {
        let value = row.binary(names::VALUE).expect("a value").concat();
        let (origin, event) = record(number(&value));
        assert_eq!(
            (row.string(names::ORIGIN), &value[..]),
            (Some(&*origin), &event[..])
        );
        let reason = row.string(names::REASON).expect("a reason").to_owned();
        let other = found.insert(number(&value), reason);
        assert_eq!(other, None, "two entries of {}", number(&value));
    }
    found
}

/// Two batches, then two with three ordinals missing.
fn broken(topic: &MemoryTopic) {
    push(topic, 0..2);
    topic.push(&[record(3), record(4), record(7)]);
}

fn reasons(of: &[(u64, &str)]) -> BTreeMap<u64, String> {
    let of = of.iter();
    of.map(|(ordinal, reason)| (*ordinal, (*reason).to_owned()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn what_was_missing_and_comes_later_is_a_dead_letter_once() {
    for transforms in [pack(), Vec::new()] {
        let folder = tempfile::tempdir().expect("tempdir");
        let table = MemoryTable::new("t");
        let topic = MemoryTopic::new(1);
        let process = || to_table(&table, &topic, &folder, transforms.clone());
        let is_packed = !transforms.is_empty();
        broken(&topic);
        drain(process()).await.expect("goes on");
        let expected = match is_packed {
            // Inside a batch only the span is known, and 4 lies in it.
            true => reasons(&[(2, MISSING), (4, IN_DOUBT), (5, IN_DOUBT), (6, IN_DOUBT)]),
            false => reasons(&[(2, MISSING), (5, MISSING), (6, MISSING)]),
        };
        // Everything is sent again, twice over and in other batches, to a sink that did not see the gap.
        for times in 1..4 {
            topic.push(&[record(1), record(2), record(3)]);
            push(&topic, 0..8);
            push(&topic, 2..7);
            let process = process();
            let metrics = process.metrics.clone();
            drain(process).await.expect("goes on");
            assert_eq!(letters(&table), expected, "{times} times, {is_packed}");
            assert_eq!(metrics.gaps.get(), 0);
            assert!(metrics.dead_letters.get() > 0 && metrics.duplicates_dropped.get() > 0);
        }
        push(&topic, 8..10);
        drain(process()).await.expect("goes on");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gap_and_what_comes_of_it_may_be_in_one_plan() {
    for transforms in [pack(), Vec::new()] {
        let folder = tempfile::tempdir().expect("tempdir");
        let table = MemoryTable::new("t");
        let topic = MemoryTopic::new(1);
        push(&topic, 0..2);
        push(&topic, 3..5);
        topic.push(&[record(2), record(3)]);
        push(&topic, 5..6);
        let process = to_table(&table, &topic, &folder, transforms);
        drain(process).await.expect("goes on");
        assert_eq!(letters(&table), reasons(&[(2, MISSING)]));
        assert_eq!(ordinals_of(&table), [0, 1, 3, 4, 5]);
    }
}

/// Ordinals in the table, packed or not.
fn ordinals_of(table: &MemoryTable) -> Vec<u64> {
    let rows = table.scan().into_iter();
    let plain = rows.filter(|row| !row.key.pk.starts_with("millpond:"));
    let plain: Option<Vec<u64>> = plain
        .map(|row| Some(number(&row.binary(names::VALUE)?.concat())))
        .collect();
    let mut found = match plain {
        Some(plain) => plain,
        None => return ordinals(table),
    };
    found.sort_unstable();
    found
}

/// In another numbering of the source its position tells an event.
#[tokio::test(start_paused = true)]
async fn another_numbering_does_not_hide_what_was_missing() {
    let renumbered = |ordinal: u64| -> KeyValue {
        let (key, value) = record(ordinal);
        (key.replace("/1/1.", "/1/2."), value)
    };
    for transforms in [pack(), Vec::new()] {
        let folder = tempfile::tempdir().expect("tempdir");
        let table = MemoryTable::new("t");
        let topic = MemoryTopic::new(1);
        let process = || to_table(&table, &topic, &folder, transforms.clone());
        push(&topic, 0..2);
        push(&topic, 3..6);
        drain(process()).await.expect("goes on");
        topic.push(&(0..4).map(renumbered).collect::<Vec<_>>());
        topic.push(&(4..8).map(renumbered).collect::<Vec<_>>());
        drain(process()).await.expect("goes on");
        let rows = letter_rows(&table);
        let found: Vec<_> = rows.iter().map(|row| row.string(names::ORIGIN)).collect();
        assert_eq!(found, [Some(&*renumbered(2).0)]);
        assert_eq!(ordinals_of(&table), [0, 1, 3, 4, 5, 6, 7]);
    }
}

/// Wherever a sink dies, the next one puts the same away, into a table and into a file.
#[tokio::test(start_paused = true)]
async fn whoever_finishes_a_plan_puts_the_same_away() {
    let begin = async |is_filed: bool| {
        let folder = tempfile::tempdir().expect("tempdir");
        let table = MemoryTable::new("t");
        let topic = MemoryTopic::new(1);
        broken(&topic);
        drain(process(&table, &topic, &folder))
            .await
            .expect("goes on");
        // A gap of its own, and one event of each.
        push(&topic, 10..12);
        topic.push(&[record(2), record(3)]);
        push(&topic, 9..10);
        push(&topic, 12..14);
        let next = match is_filed {
            true => process(&table, &topic, &folder),
            false => to_table(&table, &topic, &folder, pack()),
        };
        (folder, table, topic, next)
    };
    for is_filed in [false, true] {
        let mut deaths = 0;
        for calls in 1.. {
            let (folder, table, topic, next) = begin(is_filed).await;
            let died = dies_after(calls, &table, next).await;
            let last = match is_filed {
                true => process(&table, &topic, &folder),
                false => to_table(&table, &topic, &folder, pack()),
            };
            drain(last).await.expect("goes on");
            let expected = reasons(&[(2, MISSING), (9, MISSING)]);
            let found = match is_filed {
                false => letters(&table),
                true => {
                    let text = std::fs::read_to_string(folder.path().join(LETTERS));
                    let text = text.expect("letters");
                    assert_eq!(text.lines().count(), 2, "{text}");
                    assert_eq!(text.matches("\"reason\":\"after-gap\"").count(), 2);
                    expected.clone()
                }
            };
            assert_eq!(found, expected, "after {calls} calls");
            assert_eq!(ordinals(&table), [0, 1, 3, 4, 7, 10, 11, 12, 13]);
            if !died {
                break;
            }
            deaths += 1;
        }
        assert!(deaths >= 5, "{deaths}");
    }
}

/// More shards than the ledger can say of one plan: each plan ends before that.
#[tokio::test(start_paused = true)]
async fn a_plan_of_many_shards_that_is_given_up_is_not_written_again() {
    let of_shard = |shard: u64| -> KeyValue {
        let key = format!("mp1/s/shardId-{shard:012}/{}/0/1/1.0/k", 100 + shard);
        let value = format!("{{\"job\":\"j{}\",\"n\":{shard}}}", shard % 2);
        (key, value.into_bytes())
    };
    let batch = |first: u64| (first..first + 3_000).map(of_shard).collect::<Vec<_>>();
    let folder = tempfile::tempdir().expect("tempdir");
    let table = MemoryTable::new("t");
    let topic = MemoryTopic::new(1);
    let process = || to_table(&table, &topic, &folder, pack());
    topic.push(&batch(0));
    topic.push(&batch(3_000));
    let first = Arc::new(process());
    let running = tokio::spawn(partition::run(first, 0, CancellationToken::new()));
    let ledger = || {
        let rows = table.scan().into_iter();
        rows.filter_map(|row| {
            let intent = row.string(names::INTENT)?.to_owned();
            let moved = row.binary(names::MOVED)?.concat();
            Some((intent, Marks::decode(&moved).expect("marks").len()))
        })
        .next()
    };
    // The first plan is committed by the second.
    until("both plans are written", || ordinals(&table).len() >= 6_000).await;
    running.abort();
    assert!(running.await.is_err_and(|end| end.is_cancelled()));
    let (intent, moved) = ledger().expect("a plan is open");
    assert!(intent.starts_with("3000/6000/"), "{intent}");
    assert_eq!(moved, 3_000);
    topic.cut(6_000);
    topic.push(&batch(0));
    topic.push(&batch(3_000));
    topic.push(&[of_shard(6_000)]);
    drain(process()).await.expect("goes on");
    assert_eq!(ordinals(&table), (0..=6_000).collect::<Vec<_>>());
    let rows = letter_rows(&table);
    assert_eq!(rows.len(), 3_000, "of the plan that was given up");
    assert!(
        rows.iter()
            .all(|row| row.string(names::REASON) == Some(IN_DOUBT))
    );
}
