//! Sinks that share the partitions of a topic: added, drained, crashed and stalled under load, every
//! event is in the table once and in order, and every partition has an owner soon.

use std::sync::atomic::Ordering;
use std::time::Duration;

use millpond_dynamodb_sink::pacing::{IDLE_UNITS, PaceSettings};
use millpond_dynamodb_sink::row::{Row, names};
use millpond_leases::Settings;
use millpond_sink::limits::{HAND_OVER_LIMIT, SHARED_DRAIN};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::checker::check;
use crate::harness::{MAX_ITEM_BYTES, on_virtual_time, until_within};
use crate::instances::{Instance, Pipeline, Wire, folder, of_partition};
use crate::topic::MemoryTopic;
use crate::workload::{Shape, Workload};

const PARTITIONS: u64 = 4;

/// A dead sink's partitions are taken over within this time of its end, see `millpond_leases`; and
/// a second for slow calls.
const TAKEN_OVER: Duration = Duration::from_secs(10);

/// One workload for each partition.
struct Load {
    workloads: Vec<Workload>,
    random: SmallRng,
}

impl Load {
    fn new(seed: u64, shape: Shape) -> Self {
        let workloads = (0..PARTITIONS).map(|partition| Workload::new(seed + partition, shape));
        Self {
            workloads: workloads.collect(),
            random: SmallRng::seed_from_u64(seed),
        }
    }

    fn send(&mut self, pipeline: &Pipeline) {
        for (workload, topic) in self.workloads.iter_mut().zip(&pipeline.topic.0) {
            for _ in 0..self.random.random_range(0..3) {
                workload.send(topic);
            }
        }
    }

    /// Each event once and in order, each poisoned one in the dead letters, nothing open.
    fn check(&self, pipeline: &Pipeline, what: &str) {
        let rows = pipeline.table.scan();
        for (partition, workload) in self.workloads.iter().enumerate() {
            let items = of_partition(&rows, partition);
            let id = format!("/p/events/{partition}/");
            let letters = rows
                .iter()
                .filter(|row| row.key.pk == "millpond:dead-letters/p" && row.key.sk.contains(&id));
            let letters: Vec<Vec<u8>> = letters
                .map(|row| row.binary(names::VALUE).expect("bytes").concat())
                .collect();
            check(workload, &items, &letters, MAX_ITEM_BYTES);
        }
        for row in ledgers(&rows) {
            assert_eq!(row.string(names::INTENT), None, "{what}: {:?}", row.key);
        }
    }
}

fn ledgers(rows: &[Row]) -> impl Iterator<Item = &Row> {
    rows.iter()
        .filter(|row| row.key.pk.starts_with("millpond:ledger/"))
}

/// Waits until the partitions that the sinks hold are all of them, each once.
async fn all_held(sinks: &[Instance], within: Duration, what: &str) -> Duration {
    let even = PARTITIONS / sinks.len() as u64;
    until_within(within, Duration::from_millis(20), || {
        let running = sinks.iter().filter(|sink| sink.is_running()).count();
        assert_eq!(running, sinks.len(), "{what}: a sink has ended");
        let shares: Vec<u64> = sinks.iter().map(Instance::held).collect();
        let is_even = shares.iter().all(|held| (even..=even + 1).contains(held));
        let is_so = is_even && shares.iter().sum::<u64>() == PARTITIONS;
        (!is_so).then(|| format!("{what}: {shares:?}"))
    })
    .await
}

/// Sinks with what outlives each of them: the folder of its state.
struct Fleet {
    pipeline: Pipeline,
    live: Vec<(Instance, Wire, TempDir)>,
    /// Of ended sinks, to be started again.
    folders: Vec<TempDir>,
    random: SmallRng,
}

impl Fleet {
    fn start(&mut self) {
        let old = self.folders.pop().filter(|_| self.random.random_bool(0.5));
        let folder = old.unwrap_or_else(folder);
        let wire = Wire::new(self.random.random());
        let sink = self.pipeline.start(&wire, folder.path());
        self.live.push((sink, wire, folder));
    }

    fn take(&mut self) -> Option<(Instance, TempDir)> {
        if self.live.is_empty() {
            return None;
        }
        let index = self.random.random_range(0..self.live.len());
        let (sink, _, folder) = self.live.swap_remove(index);
        Some((sink, folder))
    }

    async fn disturb(&mut self, what: &str) {
        match self.random.random_range(0..6) {
            0 | 1 if self.live.len() < 4 => self.start(),
            2 => {
                if let Some((sink, folder)) = self.take() {
                    sink.drain(what).await;
                    self.folders.push(folder);
                }
            }
            3 => {
                if let Some((sink, folder)) = self.take() {
                    for _ in 0..self.random.random_range(0..60) {
                        tokio::task::yield_now().await;
                    }
                    sink.crash(what).await;
                    self.folders.push(folder);
                }
            }
            _ => {
                let stall = Duration::from_millis(self.random.random_range(500..12_000));
                if let Some((_, wire, _)) = self.live.first() {
                    wire.stall(stall);
                }
            }
        }
    }
}

async fn storm(seed: u64) {
    let what = format!("seed {seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let pipeline = Pipeline::new(seed, PARTITIONS, Duration::from_millis(60));
    let mut load = Load::new(seed, Shape::default());
    let mut fleet = Fleet {
        pipeline: pipeline.clone(),
        live: Vec::new(),
        folders: Vec::new(),
        random: SmallRng::seed_from_u64(seed ^ 1),
    };
    fleet.start();
    fleet.start();
    for _ in 0..14 {
        for _ in 0..random.random_range(1..6) {
            load.send(&pipeline);
            sleep(Duration::from_millis(random.random_range(0..700))).await;
        }
        fleet.disturb(&what).await;
    }
    while fleet.live.len() < 2 {
        fleet.start();
    }
    // The longest stall that may still be on, and then the time for a take-over and a balance.
    sleep(Duration::from_secs(12)).await;
    let (mut sinks, mut folders) = (Vec::new(), Vec::new());
    for (sink, _, folder) in fleet.live {
        sinks.push(sink);
        folders.push(folder);
    }
    all_held(&sinks, TAKEN_OVER * 2, &what).await;
    load.send(&pipeline);
    for sink in sinks {
        sink.drain(&what).await;
    }
    load.check(&pipeline, &what);
    let rows = pipeline.leases.snapshot();
    let owned = rows.leases.values().filter(|row| row.owner.is_some());
    assert_eq!(owned.count(), 0, "{what}: all leases were given back");
}

#[test]
fn sinks_come_and_go_and_every_event_is_there_once() {
    on_virtual_time(25, storm);
}

/// Three under load; one crashes: what was its is others' within the stated time.
#[test]
fn a_dead_sinks_partitions_are_taken_over_in_time() {
    on_virtual_time(20, async |seed| {
        let what = format!("seed {seed}");
        let pipeline = Pipeline::new(seed, PARTITIONS, Duration::from_millis(20));
        let mut load = Load::new(seed, Shape::default());
        let folders = [folder(), folder(), folder()];
        let mut sinks = Vec::new();
        for (number, folder) in (0..).zip(&folders) {
            sinks.push(pipeline.start(&Wire::new(seed * 10 + number), folder.path()));
        }
        all_held(&sinks, TAKEN_OVER, &what).await;
        for _ in 0..seed % 7 {
            load.send(&pipeline);
            sleep(Duration::from_millis(400)).await;
        }
        sinks.swap_remove(seed as usize % 3).crash(&what).await;
        let waited = all_held(&sinks, TAKEN_OVER, &what).await;
        assert!(
            waited >= Settings::DEFAULT / 2,
            "{what}: after {waited:?} it could be alive"
        );
        load.send(&pipeline);
        for sink in sinks {
            sink.drain(&what).await;
        }
        load.check(&pipeline, &what);
    });
}

/// One that is started again with its state takes what was its at once.
#[test]
fn a_restarted_sink_waits_for_no_expiry() {
    on_virtual_time(5, async |seed| {
        let what = format!("seed {seed}");
        let pipeline = Pipeline::new(seed, PARTITIONS, Duration::from_millis(20));
        let folder = folder();
        let mut sinks = vec![pipeline.start(&Wire::new(seed), folder.path())];
        all_held(&sinks, TAKEN_OVER, &what).await;
        sinks.remove(0).crash(&what).await;
        sinks.push(pipeline.start(&Wire::new(seed + 100), folder.path()));
        let waited = all_held(&sinks, TAKEN_OVER, &what).await;
        assert!(waited < Settings::DEFAULT / 2, "{what}: {waited:?}");
    });
}

/// What sharing costs is what the README says: of a write unit for each change and a read unit for each
/// view (of up to 4 KB), at most 3,000 an hour, and nothing in the ledger.
#[test]
fn an_idle_hour_costs_what_is_stated() {
    on_virtual_time(1, async |seed| {
        let pipeline = Pipeline::new(seed, PARTITIONS, Duration::ZERO);
        let folder = folder();
        let sink = [pipeline.start(&Wire::new(seed), folder.path())];
        all_held(&sink, TAKEN_OVER, "idle").await;
        sleep(Duration::from_secs(10)).await;
        let count = || {
            let calls = &pipeline.calls;
            (
                calls.changes.load(Ordering::Relaxed),
                calls.views.load(Ordering::Relaxed),
                pipeline.table.units(),
            )
        };
        let before = count();
        sleep(Duration::from_secs(3_600)).await;
        let after = count();
        let (changes, views) = (after.0 - before.0, after.1 - before.1);
        assert!((2_400..=3_000).contains(&changes), "{changes} changes");
        assert!((2_400..=3_000).contains(&views), "{views} views");
        assert!(after.2 == before.2, "the ledger rests");
    });
}

/// Of two with one data directory, which a lock prevents on one machine, the older one ends and says why.
#[test]
fn a_copied_data_directory_is_noticed() {
    on_virtual_time(5, async |seed| {
        let what = format!("seed {seed}");
        let pipeline = Pipeline::new(seed, PARTITIONS, Duration::from_millis(20));
        let folder = folder();
        let older = [pipeline.start(&Wire::new(seed), folder.path())];
        all_held(&older, TAKEN_OVER, &what).await;
        let twin = [pipeline.start(&Wire::new(seed + 100), folder.path())];
        all_held(&twin, TAKEN_OVER, &what).await;
        let [older] = older;
        let error = older.failure().await;
        assert!(error.contains("same worker id"), "{what}: {error}");
    });
}

/// A drain of a long backlog is cut: leases are given back, not left to expire, and others go on.
#[test]
fn a_long_backlog_is_left_to_others() {
    on_virtual_time(5, async |seed| {
        let what = format!("seed {seed}");
        let pipeline = Pipeline::new(seed, PARTITIONS, Duration::from_secs(8));
        let mut load = Load::new(seed, Shape::default());
        for _ in 0..30 {
            load.send(&pipeline);
        }
        let folders = [folder(), folder()];
        let sink = pipeline.start(&Wire::new(seed), folders[0].path());
        let sinks = [sink];
        all_held(&sinks, TAKEN_OVER, &what).await;
        sleep(Duration::from_secs(10)).await;
        let [sink] = sinks;
        let start = Instant::now();
        sink.drain(&what).await;
        let took = start.elapsed();
        // A plan under way may ask this slow topic once more before it can be written.
        let expected = SHARED_DRAIN..SHARED_DRAIN + HAND_OVER_LIMIT;
        assert!(expected.contains(&took), "{what}: {took:?}");
        let rows = pipeline.leases.snapshot();
        assert!(rows.workers.is_empty(), "{what}: {rows:?}");
        let rows = pipeline.table.scan();
        let open = ledgers(&rows).filter(|row| row.string(names::INTENT).is_some());
        assert_eq!(open.count(), 0, "{what}: what was written is committed");

        let others = [pipeline.start(&Wire::new(seed + 100), folders[1].path())];
        let waited = all_held(&others, TAKEN_OVER, &what).await;
        assert!(waited < Settings::DEFAULT / 2, "{what}: {waited:?}");
        let ends: Vec<i64> = pipeline.topic.0.iter().map(MemoryTopic::end).collect();
        let is_done = || {
            let rows = pipeline.table.scan();
            let committed: Vec<_> = ledgers(&rows)
                .map(|row| row.integer(names::COMMITTED))
                .collect();
            ends.iter().map(|end| Some(*end)).eq(committed)
        };
        let (limit, pause) = (Duration::from_secs(600), Duration::from_millis(500));
        until_within(limit, pause, || (!is_done()).then(|| what.clone())).await;
        let [other] = others;
        other.drain(&what).await;
        load.check(&pipeline, &what);
    });
}

/// A new sink is given its share in a hand-over: nothing is written again, nobody waits for an expiry.
#[test]
fn a_new_sink_is_given_its_share_without_a_replay() {
    on_virtual_time(10, async |seed| {
        let what = format!("seed {seed}");
        let pipeline = Pipeline::new(seed, PARTITIONS, Duration::from_millis(20));
        let mut load = Load::new(seed, Shape::default());
        let folders = [folder(), folder()];
        let mut sinks = vec![pipeline.start(&Wire::new(seed), folders[0].path())];
        all_held(&sinks, TAKEN_OVER, &what).await;
        load.send(&pipeline);
        sinks.push(pipeline.start(&Wire::new(seed + 100), folders[1].path()));
        for _ in 0..4 {
            load.send(&pipeline);
            sleep(Duration::from_millis(300)).await;
        }
        all_held(&sinks, TAKEN_OVER, &what).await;
        load.send(&pipeline);
        let metrics: Vec<_> = sinks.iter().map(|sink| sink.metrics.clone()).collect();
        for sink in sinks {
            sink.drain(&what).await;
        }
        load.check(&pipeline, &what);
        let rows = pipeline.table.scan();
        let epochs = ledgers(&rows).filter_map(|row| row.integer(names::EPOCH));
        // One claim each, and one more for the two that moved.
        assert_eq!(epochs.sum::<i64>(), 6, "{what}");
        let written: u64 = metrics.iter().map(|metrics| metrics.items.get()).sum();
        let items = rows.iter().filter(|row| row.attributes.contains_key("d"));
        let items = items.count() as u64;
        assert!(items > 0, "{what}: else this shows nothing");
        assert_eq!(written, items, "{what}: nothing was written twice");
    });
}

/// One alone uses the whole budget, several its parts; never more than the whole together, also while
/// partitions change hands. One that holds nothing has the few units that its registration takes.
#[tokio::test(start_paused = true)]
async fn sinks_that_share_divide_the_budget() {
    let mut pipeline = Pipeline::new(5, PARTITIONS, Duration::from_millis(30));
    pipeline.pace = PaceSettings::fixed(1_000);
    let mut load = Load::new(5, Shape::default());
    let folders: Vec<TempDir> = (0..3).map(|_| folder()).collect();
    let start = |index: usize| {
        let wire = Wire::new(index as u64);
        pipeline.start(&wire, folders[index].path())
    };
    let budget = |sink: &Instance| sink.metrics.write_budget_milli.get();
    let budgets = |sinks: &[Instance]| -> Vec<u64> { sinks.iter().map(budget).collect() };
    let mut sinks = Vec::new();
    for (index, parts) in [vec![1_000], vec![500, 500], vec![250, 250, 500]]
        .into_iter()
        .enumerate()
    {
        sinks.push(start(index));
        let begun = Instant::now();
        let wanted: Vec<u64> = parts.iter().map(|units| units * 1_000).collect();
        loop {
            load.send(&pipeline);
            sleep(Duration::from_millis(50)).await;
            let now = budgets(&sinks);
            let idle = now
                .iter()
                .filter(|units| **units <= IDLE_UNITS as u64 * 1_000);
            let allowed = 1_000_000 + IDLE_UNITS as u64 * 1_000 * idle.count() as u64;
            assert!(now.iter().sum::<u64>() <= allowed, "{now:?}");
            let mut even = now.clone();
            even.sort_unstable();
            if even == wanted {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{now:?}");
        }
    }
    // What a dead one had goes to the others.
    if let Some(sink) = sinks.pop() {
        sink.crash("its budget").await;
    }
    until_within(TAKEN_OVER, Duration::from_millis(50), || {
        let now = budgets(&sinks);
        (now.iter().sum::<u64>() < 1_000_000).then(|| format!("{now:?}"))
    })
    .await;
    for sink in sinks {
        sink.drain("its budget").await;
    }
    load.check(&pipeline, "shared budget");
}
