//! Data that is gone for good: recorded with its bounds before anything past it is written, and
//! never a silent skip. Whatever crashes, the same gap is recorded and the same items are written.

use std::sync::Arc;
use std::task::Poll;

use millpond_dynamodb_sink::client::memory::MemoryTable;
use millpond_dynamodb_sink::row::{Row, names};
use millpond_format::gap::Gap;
use millpond_sink::conformance::storm::LETTERS;
use millpond_sink::error::SinkError;
use millpond_sink::flush::Shared;
use millpond_sink::gaps::OnGap;
use millpond_sink::ledger::LedgerError;
use millpond_sink::partition;
use tokio_util::sync::CancellationToken;

use crate::checker::read_table;
use crate::harness::{MAX_ITEM_BYTES, draining, pack, shared, until};
use crate::topic::{KeyValue, MemoryTopic};

pub fn record(ordinal: u64) -> KeyValue {
    let position = 100 + ordinal;
    let key = format!("mp1/s/shardId-000000000000/{position}/0/1/1.{ordinal}/k");
    let value = format!("{{\"job\":\"j{}\",\"n\":{ordinal}}}", ordinal % 2);
    (key, value.into_bytes())
}

/// A batch of these ordinals.
pub fn push(topic: &MemoryTopic, ordinals: std::ops::Range<u64>) {
    topic.push(&ordinals.map(record).collect::<Vec<_>>());
}

pub fn process(table: &MemoryTable, topic: &MemoryTopic, folder: &tempfile::TempDir) -> Shared {
    let table = Arc::new(table.clone());
    Shared {
        on_gap: OnGap::Record,
        ..shared("o", table, topic, pack(), folder.path())
    }
}

pub async fn drain(process: Shared) -> Result<(), SinkError> {
    partition::run(Arc::new(process), 0, draining()).await
}

/// Gaps as the table has them.
fn gaps(table: &MemoryTable) -> Vec<Gap> {
    let rows = table.scan();
    let rows = rows
        .iter()
        .filter(|row| row.key.pk == "millpond:gaps/p/events");
    rows.map(|row| Gap::parse(row.string(names::GAP).expect("text")).expect("a gap"))
        .collect()
}

/// Everything but the ledger, which counts its owners.
fn written(table: &MemoryTable) -> Vec<Row> {
    let rows = table.scan().into_iter();
    rows.filter(|row| !row.key.pk.starts_with("millpond:ledger/"))
        .collect()
}

/// Ordinals in the table, sorted.
pub fn ordinals(table: &MemoryTable) -> Vec<u64> {
    let chains = read_table(&table.scan(), MAX_ITEM_BYTES);
    let mut found: Vec<u64> = chains
        .into_values()
        .flatten()
        .map(|value| {
            let value: serde_json::Value = serde_json::from_slice(&value).expect("JSON");
            value["n"].as_u64().expect("number")
        })
        .collect();
    found.sort_unstable();
    found
}

/// Three batches are written, then two more come, of which retention takes the first.
async fn cut_topic(table: &MemoryTable, folder: &tempfile::TempDir) -> MemoryTopic {
    let topic = MemoryTopic::new(1);
    (0..3).for_each(|batch| push(&topic, batch * 4..batch * 4 + 4));
    drain(process(table, &topic, folder)).await.expect("writes");
    (3..6).for_each(|batch| push(&topic, batch * 4..batch * 4 + 4));
    topic.cut(16);
    topic
}

#[tokio::test(start_paused = true)]
async fn what_retention_took_is_recorded_when_the_operator_says_so() {
    let folder = tempfile::tempdir().expect("tempdir");
    let table = MemoryTable::new("t");
    let topic = cut_topic(&table, &folder).await;
    let halting = Shared {
        on_gap: OnGap::Halt,
        ..process(&table, &topic, &folder)
    };
    let error = drain(halting).await.expect_err("halts").to_string();
    for part in ["offsets 12 to 16 are gone", "`on-gap: record`"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(gaps(&table), []);
    let recording = process(&table, &topic, &folder);
    let metrics = recording.metrics.clone();
    drain(recording).await.expect("goes on");
    let found = gaps(&table);
    assert_eq!(found[0], Gap::Offsets { from: 12, to: 16 });
    let Gap::Chain(chain) = &found[1] else {
        panic!("{found:?}");
    };
    assert_eq!((chain.first, chain.last, chain.missing), (12, 15, 4));
    let before = chain.before.as_ref().expect("something came before");
    assert_eq!((&*before.sequence, &*chain.after.sequence), ("111", "116"));
    assert_eq!((metrics.gaps.get(), metrics.gap_records.get()), (2, 8));
    let expected: Vec<u64> = (0..12).chain(16..24).collect();
    assert_eq!(ordinals(&table), expected);
    // Nothing new: nothing changes, and with `halt` it goes on as well.
    let before = written(&table);
    let halting = Shared {
        on_gap: OnGap::Halt,
        ..process(&table, &topic, &folder)
    };
    drain(halting).await.expect("goes on");
    assert_eq!(written(&table), before);
}

#[tokio::test(start_paused = true)]
async fn a_break_in_a_chain_is_recorded_with_the_positions_around_it() {
    let folder = tempfile::tempdir().expect("tempdir");
    let table = MemoryTable::new("t");
    let topic = MemoryTopic::new(1);
    push(&topic, 0..2);
    topic.push(&[record(3), record(4), record(7)]);
    drain(process(&table, &topic, &folder))
        .await
        .expect("goes on");
    let bounds = |gap: &Gap| match gap {
        Gap::Chain(gap) => (gap.first, gap.last, gap.missing, gap.offset),
        other => panic!("{other}"),
    };
    let found: Vec<_> = gaps(&table).iter().map(bounds).collect();
    // Inside a batch only the span is known.
    assert_eq!(found, [(4, 6, 2, 2), (2, 2, 1, 2)]);
    assert_eq!(ordinals(&table), [0, 1, 3, 4, 7]);
}

#[tokio::test(start_paused = true)]
async fn envelopes_that_stay_away_halt_though_the_batch_is_stored() {
    let folder = tempfile::tempdir().expect("tempdir");
    let table = MemoryTable::new("t");
    let topic = MemoryTopic::new(1);
    push(&topic, 0..4);
    // The second envelope of every read.
    topic
        .state
        .lock()
        .expect("lock")
        .hide
        .extend((1..200).map(|read| 2 * read));
    let error = drain(process(&table, &topic, &folder)).await;
    let error = error.expect_err("halts").to_string();
    assert!(error.contains("expected envelope 1 of 2"), "{error}");
    assert_eq!((gaps(&table), ordinals(&table)), (vec![], vec![]));
}

/// Calls to the table before the process dies, up to the end of its run.
pub async fn dies_after(calls: u64, table: &MemoryTable, process: Shared) -> bool {
    let until = table.calls() + calls;
    let mut running = Box::pin(drain(process));
    // A call is counted before it takes effect, and then gives others a turn.
    let ended = std::future::poll_fn(|context| match running.as_mut().poll(context) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending if table.calls() >= until => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    });
    match ended.await {
        Some(ended) => {
            ended.expect("goes on");
            false
        }
        None => true,
    }
}

/// Dies after every number of calls in turn; afterwards `again` finishes.
async fn dies_everywhere(again: impl Fn(&MemoryTopic)) {
    let folder = tempfile::tempdir().expect("tempdir");
    let table = MemoryTable::new("t");
    let topic = cut_topic(&table, &folder).await;
    drain(process(&table, &topic, &folder))
        .await
        .expect("goes on");
    let expected = written(&table);
    assert_eq!(gaps(&table).len(), 2);
    let mut deaths = 0;
    for calls in 1.. {
        let folder = tempfile::tempdir().expect("tempdir");
        let table = MemoryTable::new("t");
        let topic = cut_topic(&table, &folder).await;
        if !dies_after(calls, &table, process(&table, &topic, &folder)).await {
            break;
        }
        deaths += 1;
        let intent = table.scan().iter().find_map(|row| {
            let intent = row.string(names::INTENT)?;
            Some(intent.to_owned())
        });
        if intent.is_some() {
            // Only an intent says what was decided; before it the hole is looked for anew.
            again(&topic);
        }
        drain(process(&table, &topic, &folder))
            .await
            .expect("goes on");
        assert_eq!(written(&table), expected, "after {calls} calls");
    }
    assert!(deaths >= 5, "{deaths}");
}

#[tokio::test(start_paused = true)]
async fn a_replay_passes_over_the_same_gap() {
    dies_everywhere(|_| {}).await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_passes_over_the_same_gap_though_the_data_is_back() {
    dies_everywhere(|topic| topic.cut(0)).await;
}

#[tokio::test(start_paused = true)]
async fn an_open_plan_whose_data_went_is_given_up_and_recorded() {
    given_up(true, 8..10).await;
}

/// Its items are written, and its source sends it again.
#[tokio::test(start_paused = true)]
async fn what_comes_again_of_a_plan_that_was_given_up_is_not_written_again() {
    given_up(false, 0..10).await;
}

/// A plan of ordinals 0 to 7 is given up, once it is begun or (`early` is false) written; then `next` are sent.
async fn given_up(early: bool, next: std::ops::Range<u64>) {
    let folder = tempfile::tempdir().expect("tempdir");
    let table = MemoryTable::new("t");
    let topic = MemoryTopic::new(1);
    push(&topic, 0..4);
    push(&topic, 4..8);
    let first = Arc::new(process(&table, &topic, &folder));
    let running = tokio::spawn(partition::run(first, 0, CancellationToken::new()));
    let intent = || {
        let rows = table.scan();
        let intent = rows.iter().find_map(|row| row.string(names::INTENT));
        intent.map(str::to_owned)
    };
    until("the plan is begun, or written", || {
        intent().is_some() && (early || ordinals(&table).len() >= 8)
    })
    .await;
    running.abort();
    assert!(running.await.is_err_and(|end| end.is_cancelled()));
    let there = ordinals(&table);
    topic.cut(4);
    let again = next.clone().filter(|ordinal| *ordinal < 8).count();
    push(&topic, next);
    let halting = Shared {
        on_gap: OnGap::Halt,
        ..process(&table, &topic, &folder)
    };
    let error = drain(halting).await.expect_err("halts");
    let gone = LedgerError::Gone {
        committed: 0,
        earliest: 4,
    };
    assert!(
        matches!(&error, SinkError::Ledger { source, .. } if *source == gone),
        "{error}"
    );
    drain(process(&table, &topic, &folder))
        .await
        .expect("goes on");
    let found = gaps(&table);
    assert_eq!(found[0], Gap::Plan { from: 0, to: 8 });
    assert!(
        matches!(&found[1], Gap::Chain(gap) if (gap.first, gap.last) == (0, 7)),
        "{found:?}"
    );
    let now = ordinals(&table);
    let expected: Vec<u64> = there.into_iter().chain(8..10).collect();
    assert_eq!(now, expected, "nothing twice, and what was written stays");
    assert_eq!(intent(), None);
    // What of it is in the table nobody knows: it is a dead letter.
    let letters = std::fs::read_to_string(folder.path().join(LETTERS)).unwrap_or_default();
    let in_doubt = letters.matches("\"reason\":\"after-gap-in-doubt\"").count();
    assert_eq!((in_doubt, letters.lines().count()), (again, again));
}
