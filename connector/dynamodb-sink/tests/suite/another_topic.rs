//! A topic that is lost and made anew under the same pipeline: offsets begin at 0 again, and what the source
//! sends again is in the table once (I1, I2).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use millpond_connector::metrics::Metrics;
use millpond_dynamodb_sink::client::Verdict;
use millpond_dynamodb_sink::client::memory::{Fault, MemoryTable};
use millpond_dynamodb_sink::plan_writer::Spreading;
use millpond_dynamodb_sink::row::names;
use millpond_dynamodb_sink::spread::WriteShards;
use millpond_format::keys::SortKey;
use millpond_sink::conformance::lost_topic;
use millpond_sink::conformance::storm;
use millpond_sink::partition;

use crate::checker::check;
use crate::harness::{MAX_ITEM_BYTES, draining, pack, seeds, store};
use crate::topic::MemoryTopic;
use crate::workload::{Shape, Workload};

/// All that a workload of this seed sends first, on a topic of its own.
fn sent(seed: u64, batches: u32) -> (MemoryTopic, Workload) {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    lost_topic::sent(&number.to_string(), seed, batches)
}

/// Where chains lie under one partition key each.
async fn drain(owner: &str, table: &MemoryTable, topic: &MemoryTopic) -> Result<(), String> {
    drain_over(1, owner, table, topic).await
}

async fn drain_over(
    write_shards: u32,
    owner: &str,
    table: &MemoryTable,
    topic: &MemoryTopic,
) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("tempdir");
    let metrics = Arc::new(Metrics::default());
    let mut store = store(Arc::new(table.clone()), metrics.clone());
    store.spreading = Spreading::new(WriteShards::Fixed(write_shards), 1_000);
    let store = Arc::new(store);
    let shared = storm::shared(owner, store, metrics, topic, pack(), folder.path());
    let ended = partition::run(Arc::new(shared), 0, draining()).await;
    ended.map_err(|error| error.to_string())
}

/// Rows of gaps.
fn gaps(table: &MemoryTable) -> usize {
    let rows = table.scan();
    rows.iter()
        .filter(|row| row.string(names::GAP).is_some())
        .count()
}

#[tokio::test(start_paused = true)]
async fn what_comes_again_in_a_topic_made_anew_is_in_the_table_once() {
    for seed in seeds(10) {
        let table = MemoryTable::new("t");
        let (first, _) = sent(seed, 10);
        drain("a", &table, &first).await.expect("drains");
        let ends = |table: &MemoryTable| {
            let rows = table.scan();
            let offsets = rows.iter().filter_map(|row| SortKey::parse(&row.key.sk));
            offsets.map(|key| key.base_offset).max().expect("items")
        };
        let end = ends(&table);
        // Empty, then with everything again, then with more; and all of it once more.
        for _ in 0..2 {
            let (again, mut workload) = sent(seed, 0);
            drain("b", &table, &again).await.expect("drains");
            (0..10).for_each(|_| workload.send(&again));
            drain("c", &table, &again).await.expect("drains");
            (0..5).for_each(|_| workload.send(&again));
            drain("d", &table, &again).await.expect("drains");
            check(&workload, &table.scan(), &[], MAX_ITEM_BYTES);
        }
        assert!(ends(&table) > end, "offsets go on");
        assert_eq!(gaps(&table), 0);
    }
}

/// The process dies at every step of a plan, and the topic with it.
#[tokio::test(start_paused = true)]
async fn a_plan_that_was_being_written_when_the_topic_went_leaves_nothing_twice() {
    let (mut left, mut steps) = (0, 0);
    for seed in seeds(3) {
        let write_shards = 1 + u32::try_from(seed % 3).expect("small");
        for step in 0.. {
            let table = MemoryTable::new("t");
            let (first, mut workload) = sent(seed, 6);
            drain_over(write_shards, "a", &table, &first)
                .await
                .expect("drains");
            let before = table.scan().len();
            (0..6).for_each(|_| workload.send(&first));
            let dies = Some(Fault::Fail(Verdict::Fatal("the process died")));
            table.inject((0..step).map(|_| None).chain([dies]));
            if drain_over(write_shards, "a", &table, &first).await.is_ok() {
                break;
            }
            steps += 1;
            let ledger = table.scan();
            let intents = ledger
                .iter()
                .filter(|row| row.string(names::INTENT).is_some());
            if intents.count() > 0 && table.scan().len() > before {
                left += 1;
            }
            let (again, workload) = sent(seed, 12);
            drain_over(write_shards, "b", &table, &again)
                .await
                .expect("drains");
            check(&workload, &table.scan(), &[], MAX_ITEM_BYTES);
            assert_eq!(gaps(&table), 0);
        }
    }
    assert!(
        left > 0 && steps > 10,
        "{left} of {steps} left something behind"
    );
}

/// A topic of a cluster has no identity, and while its first plan is open nothing of it was released: it can be made
/// anew, and grow beyond that plan, before a sink looks.
#[tokio::test(start_paused = true)]
async fn a_first_plan_is_taken_back_where_other_records_are_in_its_place() {
    // What a source sends in one batch follows upon itself.
    let shape = Shape {
        repeats: 0,
        ..lost_topic::shape()
    };
    let nameless = |seed, batches| {
        let (topic, mut workload) = (MemoryTopic::new(seed), Workload::new(seed, shape));
        (0..batches).for_each(|_| workload.send(&topic));
        (topic, workload)
    };
    let mut open = 0;
    // The plan has six batches: it ends within one of these, or where one does.
    for (seed, of) in seeds(3).flat_map(|seed| [(seed, 4), (seed, 2)]) {
        for step in 0.. {
            let table = MemoryTable::new("t");
            let (first, _) = nameless(seed, 6);
            let dies = Some(Fault::Fail(Verdict::Fatal("the process died")));
            table.inject((0..step).map(|_| None).chain([dies]));
            if drain("a", &table, &first).await.is_ok() {
                break;
            }
            let rows = table.scan();
            open += rows
                .iter()
                .filter(|row| row.string(names::INTENT).is_some())
                .count();
            let (again, workload) = nameless(seed, 12);
            let again = again.in_larger_batches(of);
            drain("b", &table, &again).await.expect("drains");
            check(&workload, &table.scan(), &[], MAX_ITEM_BYTES);
            assert_eq!(gaps(&table), 0);
        }
    }
    assert!(open > 10, "{open} plans were open");
}

/// Where the source does not send again what it had checkpointed, that is a hole, and no silence.
#[tokio::test(start_paused = true)]
async fn what_does_not_come_again_is_missing_and_said_to_be() {
    let table = MemoryTable::new("t");
    let (first, mut workload) = sent(7, 10);
    drain("a", &table, &first).await.expect("drains");
    // In the topic alone.
    (0..5).for_each(|_| workload.send(&first));
    let (another, _) = sent(7, 0);
    drain("b", &table, &another)
        .await
        .expect("nothing is there to be missed");
    (0..5).for_each(|_| workload.send(&another));
    let error = drain("c", &table, &another).await.expect_err("halts");
    assert!(error.contains("missing"), "{error}");
}
