//! A process that was paused within a plan, whose topic was lost meanwhile, and which wakes while, or after, another
//! one takes the plan back: no event is there twice (I2), and none is missing (I1).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use millpond_connector::metrics::Metrics;
use millpond_dynamodb_sink::client::TableApi;
use millpond_dynamodb_sink::client::memory::MemoryTable;
use millpond_dynamodb_sink::ledger_row::decode;
use millpond_sink::conformance::lost_topic::{drain, sent};
use millpond_sink::conformance::{pack, storm};
use millpond_sink::partition;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::checker::check;
use crate::harness::{MAX_ITEM_BYTES, QUICK, on_virtual_time, store, until, until_within};
use crate::tapped::{Call, Tap, Tapped};

/// Where a process is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    /// Before a batch of items is signed.
    Write,
    /// With its items written, before it says so.
    Commit,
    /// Before it looks for what a plan wrote.
    Look,
}

/// A process that is paused once. Its batches are so long on their way.
#[derive(Clone)]
struct Paused {
    at: Pause,
    time: Duration,
    way: Duration,
    has_written: Arc<AtomicBool>,
    until: Arc<Mutex<Option<Instant>>>,
}

impl Paused {
    fn new(at: Pause, time: Duration, way: Duration) -> Self {
        Self {
            at,
            time,
            way,
            has_written: Arc::default(),
            until: Arc::default(),
        }
    }

    /// The table as this process sees it.
    fn sees(&self, table: &MemoryTable) -> Arc<dyn TableApi> {
        Arc::new(Tapped {
            table: table.clone(),
            tap: self.clone(),
        })
    }

    fn is_paused(&self) -> bool {
        self.until.lock().expect("lock").is_some()
    }

    /// All of the process stands still from the first call on at which it is to pause.
    async fn step(&self, pauses: bool) {
        let until = {
            let mut until = self.until.lock().expect("lock");
            if pauses {
                until.get_or_insert_with(|| Instant::now() + self.time);
            }
            *until
        };
        if let Some(until) = until {
            sleep_until(until).await;
        }
    }
}

#[async_trait]
impl Tap for Paused {
    async fn before(&self, call: Call<'_>) {
        match call {
            Call::Rows(_) => {}
            Call::Items(_) => {
                self.step(self.at == Pause::Write).await;
                self.has_written.store(true, Ordering::Relaxed);
            }
            Call::Get | Call::Delete => self.step(false).await,
            Call::Put => {
                let has_written = self.has_written.load(Ordering::Relaxed);
                self.step(self.at == Pause::Commit && has_written).await;
            }
            Call::Tail => self.step(self.at == Pause::Look).await,
        }
    }

    fn way(&self) -> Duration {
        self.way
    }
}

/// Runs a process beside others.
fn start(
    owner: &'static str,
    seed: u64,
    (identity, batches): (&'static str, u32),
    table: Arc<dyn TableApi>,
    folder: &std::path::Path,
) -> JoinHandle<Result<(), String>> {
    let (topic, _) = sent(identity, seed, batches);
    let (store, folder) = (
        store(table, Arc::new(Metrics::default())),
        folder.to_owned(),
    );
    tokio::spawn(async move {
        let drained = drain(owner, Arc::new(store), &topic, true, &folder).await;
        drained.map(drop).map_err(|error| error.to_string())
    })
}

async fn until_paused(process: &Paused) {
    until(&format!("it comes to {:?}", process.at), || {
        process.is_paused()
    })
    .await;
}

fn is_fenced_or_done(ended: &Result<(), String>) -> bool {
    ended
        .as_ref()
        .err()
        .is_none_or(|error| error.contains("fenced"))
}

#[test]
fn a_writer_that_wakes_makes_nothing_twice_whenever_it_does() {
    let (looks, arrives) = (QUICK.look_again, QUICK.arrives_within);
    let instant = Duration::from_millis(1);
    // From the other one's claim on: before it waits, at the ends of both times, and long after it has gone on.
    let wakes = [
        instant,
        looks / 2,
        looks - instant,
        looks + instant,
        looks + arrives / 2,
        looks + arrives - instant,
        looks + arrives + instant,
        (looks + arrives) * 20,
    ];
    let mut stale = 0;
    on_virtual_time(4, async |seed| {
        for (wake, way) in wakes.into_iter().flat_map(|wake| {
            let ways = [instant, arrives / 2, arrives - instant];
            ways.into_iter().map(move |way| (wake, way))
        }) {
            let folder = tempfile::tempdir().expect("tempdir");
            let table = MemoryTable::new("t");
            let paused = Paused::new(Pause::Write, wake, way);
            let process = start("a", seed, ("first", 6), paused.sees(&table), folder.path());
            until_paused(&paused).await;
            let (again, workload) = sent("again", seed, 12);
            let own = store(Arc::new(table.clone()), Arc::new(Metrics::default()));
            let took_over = drain("b", Arc::new(own), &again, true, folder.path()).await;
            took_over.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            let ended = process.await.expect("no panic");
            assert!(is_fenced_or_done(&ended), "seed {seed}: {ended:?}");
            stale += u32::from(ended.is_err());
            // What it sent last is there by now.
            sleep(arrives).await;
            check(&workload, &table.scan(), &[], MAX_ITEM_BYTES);
        }
    });
    assert!(stale > 50, "{stale} were fenced");
}

/// It goes on deleting where it stood, and finds what was written since.
#[test]
fn who_takes_a_plan_back_and_is_overtaken_leaves_what_came_after_it() {
    on_virtual_time(6, async |seed| {
        let folder = tempfile::tempdir().expect("tempdir");
        let table = MemoryTable::new("t");
        let dies = Paused::new(Pause::Commit, Duration::from_secs(9_999), Duration::ZERO);
        let process = start("a", seed, ("first", 6), dies.sees(&table), folder.path());
        until_paused(&dies).await;
        process.abort();
        let hour = Duration::from_secs(3_600);
        let slow = Paused::new(Pause::Look, hour, Duration::ZERO);
        let stale = start("b", seed, ("again", 12), slow.sees(&table), folder.path());
        until_paused(&slow).await;
        let last = start(
            "c",
            seed,
            ("again", 12),
            Arc::new(table.clone()),
            folder.path(),
        );
        last.await.expect("no panic").expect("drains");
        let (_, workload) = sent("again", seed, 12);
        check(&workload, &table.scan(), &[], MAX_ITEM_BYTES);
        let ended = stale.await.expect("no panic");
        assert!(ended.is_err_and(|error| error.contains("fenced")));
        check(&workload, &table.scan(), &[], MAX_ITEM_BYTES);
    });
}

/// On a cluster the topic has no identity: that it is shorter is all that a sink sees which lives on.
#[test]
fn a_sink_that_lives_on_finishes_its_plan_and_waits_for_nothing() {
    on_virtual_time(6, async |seed| {
        let folder = tempfile::tempdir().expect("tempdir");
        let table = MemoryTable::new("t");
        let (mut topic, mut workload) = sent("", seed, 6);
        topic.identity = None;
        let time = Duration::from_millis(300);
        let slow = Paused::new(Pause::Write, time, Duration::ZERO);
        let own = store(slow.sees(&table), Arc::new(Metrics::default()));
        let own = storm::shared(
            "a",
            Arc::new(own),
            Arc::default(),
            &topic,
            pack(),
            folder.path(),
        );
        let stop = CancellationToken::new();
        let process = tokio::spawn(partition::run(Arc::new(own), 0, stop.clone()));
        until_paused(&slow).await;
        // More is read while the plan is being written, and lost with the rest.
        let read = || topic.state.lock().expect("lock").read_bytes;
        let before = read();
        (0..3).for_each(|_| workload.send(&topic));
        until("more is read", || read() > before).await;
        topic.lose();
        let ledger = || {
            let rows = table.scan();
            let ledger = rows.iter().find(|row| row.string("log").is_some());
            ledger.map(|row| decode(row).expect("a ledger row"))
        };
        until_within(QUICK.end(), Duration::from_millis(5), || {
            let follows = ledger().is_some_and(|row| row.log.shift > 0);
            (!follows).then(|| "it waits".to_owned())
        })
        .await;
        // The source sends everything again.
        let (again, workload) = sent("", seed, 9);
        let batches = std::mem::take(&mut *again.state.lock().expect("lock"));
        *topic.state.lock().expect("lock") = batches;
        until("all of it is committed", || {
            ledger().is_some_and(|row| row.committed == row.log.shift + topic.end() as u64)
        })
        .await;
        stop.cancel();
        process.await.expect("no panic").expect("drained");
        check(&workload, &table.scan(), &[], MAX_ITEM_BYTES);
    });
}
