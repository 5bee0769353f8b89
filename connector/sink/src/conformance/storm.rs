//! Crashes at any await, lost answers, throttles and rivals: each event is in the store once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millpond_connector::metrics::Metrics;
use millpond_connector::topic::{Topic as _, Transform};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::events::{check, read_letters};
use super::topic::MemoryTopic;
use super::workload::{Shape, Workload};
use super::{PIPELINE, Subject, draining, pack, seeds};
use crate::dead_letters::DeadLetterFile;
use crate::error::SinkError;
use crate::flush::Shared;
use crate::gaps::OnGap;
use crate::ledger::LedgerError;
use crate::letter_queue::DeadLetters;
use crate::partition;
use crate::store::Store;

/// Name of the dead-letter file of a process.
pub const LETTERS: &str = "dead.jsonl";

/// What a process shares among its partitions; its dead letters go to [`LETTERS`] in `folder`.
#[must_use]
pub fn shared(
    owner: &str,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    topic: &MemoryTopic,
    transforms: Vec<Transform>,
    folder: &Path,
) -> Shared {
    Shared {
        store,
        topic: Arc::new(topic.clone()),
        transforms,
        metrics,
        dead_letters: DeadLetters::File(DeadLetterFile::new(folder.join(LETTERS))),
        pipeline: PIPELINE.into(),
        on_gap: OnGap::Halt,
        max_age: Duration::from_millis(300),
        plan_bytes: 8 << 20,
        owner: owner.to_owned(),
        fingerprint: "f".into(),
    }
}

type Process = JoinHandle<Result<(), SinkError>>;

/// Runs processes that crash at random points, some of which live on as rivals. With `poison`,
/// events that are no JSON are told so, by the packer or by the store.
///
/// # Panics
/// When an event is not in the store exactly once, in order.
pub async fn storm(seed: u64, subject: &dyn Subject, folder: &Path, packed: bool, poison: bool) {
    let (workload, letters) = outlasted(seed, subject, folder, packed, poison).await;
    check(&workload, &subject.events().await, &letters);
}

/// As [`storm`], for stores that do not keep every event: answers what was sent, and the values of the
/// dead letters, when all is over.
///
/// # Panics
/// When a process ends otherwise than by a crash or by its rival, or the ledger is not at the end.
pub async fn outlasted(
    seed: u64,
    subject: &dyn Subject,
    folder: &Path,
    packed: bool,
    poison: bool,
) -> (Workload, Vec<Vec<u8>>) {
    let mut random = SmallRng::seed_from_u64(seed);
    let topic = MemoryTopic {
        lag: Duration::from_millis(120),
        ..MemoryTopic::new(seed)
    };
    let rivalry = seed.is_multiple_of(3);
    let shape = Shape {
        // Two processes with one dead-letter file could both append, so rivals see no poison.
        poison: if poison && !rivalry { 2 } else { 0 },
        large: u32::from(packed),
        alike: seed.is_multiple_of(2),
        ..Shape::default()
    };
    let process = async |owner: &str| {
        let metrics = Arc::new(Metrics::default());
        let store = subject.open(metrics.clone()).await;
        let transforms = if packed { pack() } else { Vec::new() };
        Arc::new(shared(owner, store, metrics, &topic, transforms, folder))
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
        subject.inject(random.random(), 6);
        life += 1;
        let process = process(&format!("o{life}")).await;
        let process: Process = tokio::spawn(partition::run(process, 0, CancellationToken::new()));
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
    subject.inject(random.random(), 3);
    // A rival that a throttle held up at its start may take over even now, each of them once.
    let mut attempt = 0;
    let last = loop {
        let last = process(&format!("last{attempt}")).await;
        match partition::run(last.clone(), 0, draining()).await {
            Ok(()) => break last,
            ended if attempt < rivals.len() => assert_fenced(seed, ended),
            Err(error) => panic!("seed {seed}: {error}"),
        }
        attempt += 1;
    };
    for rival in rivals {
        rival.abort();
        if let Ok(ended) = rival.await {
            assert_fenced(seed, ended);
        }
    }
    subject.inject(0, 0);
    let ledger = last.store.ledger(0).await.expect("answers").expect("a row");
    let released = topic.state.lock().expect("lock").released.last().copied();
    let end = topic.bounds(0).await.expect("bounds").end;
    assert_eq!(
        (ledger.intent, ledger.committed, released),
        (None, end, Some(end)),
        "seed {seed}"
    );
    let letters = read_letters(&folder.join(LETTERS));
    (workload, letters)
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

/// Runs `one` with `count` seeds on one thread in virtual time. One blocking thread: what a
/// process was writing to the dead-letter file when it crashed is over before the next one looks.
///
/// # Panics
/// When `one` does, or no thread can be had.
pub fn storms(count: u64, mut one: impl AsyncFnMut(u64)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .max_blocking_threads(1)
        .build()
        .expect("runtime");
    for seed in seeds(count) {
        runtime.block_on(one(seed));
    }
}
