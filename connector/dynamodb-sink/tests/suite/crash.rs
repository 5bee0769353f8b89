//! Crashes at any await, lost answers, throttles and rivals: each event is in the table once.

use std::sync::Arc;
use std::time::Duration;

use millpond_dynamodb_sink::client::memory::{Fault, MemoryTable};
use millpond_dynamodb_sink::client::{Throttle, Verdict};
use millpond_dynamodb_sink::row::names;
use millpond_sink::error::SinkError;
use millpond_sink::ledger::LedgerError;
use millpond_sink::partition;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::checker::{check, read_letters};
use crate::harness::{MAX_ITEM_BYTES, draining, on_virtual_time, pack, shared};
use crate::topic::MemoryTopic;
use crate::workload::{Shape, Workload};

fn faults(random: &mut SmallRng, percent: u32) -> Vec<Option<Fault>> {
    let one = |random: &mut SmallRng| match random.random_range(0..5) {
        0 => Fault::Fail(Verdict::Throttled(Throttle::Table)),
        1 => Fault::Fail(Verdict::Transient),
        2 => Fault::Fail(Verdict::Throttled(Throttle::KeyRange)),
        3 => Fault::LoseAnswer,
        _ => Fault::Unprocessed,
    };
    (0..400)
        .map(|_| (random.random_range(0..100) < percent).then(|| one(random)))
        .collect()
}

type Process = JoinHandle<Result<(), SinkError>>;

/// Runs processes that crash at random points, some of which live on as rivals.
async fn storm(seed: u64, transforms: bool) {
    let mut random = SmallRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().expect("tempdir");
    let table = MemoryTable::new("t");
    let topic = MemoryTopic {
        lag: Duration::from_millis(120),
        ..MemoryTopic::new(seed)
    };
    let rivalry = seed.is_multiple_of(3);
    let chain = || if transforms { pack() } else { Vec::new() };
    let shape = Shape {
        // Without the packer nothing looks into an event, so none is poison. And two processes
        // with one dead-letter file could both append, so rivals see none.
        poison: if transforms && !rivalry { 2 } else { 0 },
        large: u32::from(transforms),
        ..Shape::default()
    };
    let mut workload = Workload::new(seed, shape);
    let mut rivals: Vec<Process> = Vec::new();
    let mut sent = 0;
    let mut life = 0;
    while sent < shape.batches {
        for _ in 0..random.random_range(0..8) {
            workload.send(&topic);
            sent += 1;
        }
        table.inject(faults(&mut random, 6));
        life += 1;
        let process = shared(
            &format!("o{life}"),
            Arc::new(table.clone()),
            &topic,
            chain(),
            folder.path(),
        );
        let process: Process = tokio::spawn(partition::run(
            Arc::new(process),
            0,
            CancellationToken::new(),
        ));
        // A crash between any two awaits: by time, then by turns.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..900))).await;
        for _ in 0..random.random_range(0..120) {
            tokio::task::yield_now().await;
        }
        if rivalry && random.random_range(0..100) < 40 {
            rivals.push(process);
        } else {
            process.abort();
            match process.await {
                Err(aborted) => assert!(aborted.is_cancelled(), "seed {seed}: {aborted}"),
                Ok(ended) => assert_fenced(seed, ended),
            }
        }
    }
    table.inject(faults(&mut random, 3));
    let last = shared(
        "last",
        Arc::new(table.clone()),
        &topic,
        chain(),
        folder.path(),
    );
    let last = Arc::new(last);
    let result = partition::run(last.clone(), 0, draining()).await;
    result.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    for rival in rivals {
        rival.abort();
        if let Ok(ended) = rival.await {
            assert_fenced(seed, ended);
        }
    }
    let rows = table.scan();
    let ledger = rows
        .iter()
        .find(|row| row.key.pk.starts_with("millpond:ledger/"));
    let ledger = ledger.expect("ledger");
    assert_eq!(ledger.string(names::INTENT), None, "seed {seed}");
    let end = topic.state.lock().expect("lock").released.last().copied();
    assert_eq!(
        ledger.integer(names::COMMITTED),
        end.map(|end| end as i64),
        "seed {seed}"
    );
    let letters = read_letters(&folder.path().join("dead.jsonl"));
    check(&workload, &rows, &letters, MAX_ITEM_BYTES);
}

/// A process can only end by itself because another one took its partition.
fn assert_fenced(seed: u64, ended: Result<(), SinkError>) {
    match ended {
        Err(SinkError::Ledger {
            source: LedgerError::Fenced { .. },
            ..
        }) => {}
        other => panic!("seed {seed}: {other:?}"),
    }
}

fn storms(count: u64, transforms: bool) {
    on_virtual_time(count, |seed| storm(seed, transforms));
}

#[test]
fn packed_events_survive_a_storm_once_each() {
    storms(60, true);
}

#[test]
fn plain_events_survive_a_storm_once_each() {
    storms(30, false);
}
