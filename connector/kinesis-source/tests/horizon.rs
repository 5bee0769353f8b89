//! Readers that the stream's trim horizon overtakes while they read, on a stopped clock.

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use millpond_connector::connector::Source;
use millpond_format::origin::Origin;
use millpond_format::stream_gap::{StreamGap, StreamGapKind};
use millpond_kinesis_local::model::ShardId;
use millpond_kinesis_source::classify::Operation;
use millpond_kinesis_source::config::SourceConfig;
use millpond_kinesis_source::loss::OnLoss;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use support::fan_out::fan_out;
use support::stream::service;
use support::world::World;
use support::{Running, context, spawn, until};
use tokio::time::{sleep, timeout};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Polled,
    Pushed,
}

/// One topic partition, so that the topic holds each shard's events in order.
fn world() -> World {
    World::new(1, 1)
}

/// What the topic has of one shard.
struct Told {
    /// Sequence numbers by the number of the event.
    events: BTreeMap<u32, String>,
    gaps: Vec<StreamGap>,
}

impl Told {
    /// Every event that is not there lies in a gap that ends with the next one that is, and begins where the
    /// checkpoint was, which may be before the last one that is there. Answers how many are not there.
    fn missing(&self, put: u32) -> u32 {
        let mut missing = 0;
        let mut last: Option<(u32, &String)> = None;
        for (number, sequence) in &self.events {
            let expected = last.map_or(0, |(last, _)| last + 1);
            self.is_told(*number - expected, last, Some(sequence));
            missing += number - expected;
            last = Some((*number, sequence));
        }
        let expected = last.map_or(0, |(last, _)| last + 1);
        self.is_told(put - expected, last, None);
        missing + put - expected
    }

    /// The same before the last event that is there.
    fn missing_inside(&self) -> u32 {
        self.missing(self.events.keys().next_back().map_or(0, |last| last + 1))
    }

    fn is_told(&self, count: u32, last: Option<(u32, &String)>, before: Option<&String>) {
        let last_sequence = last.map(|(_, sequence)| sequence.as_str());
        let is_between = |gap: &StreamGap| {
            // As long as each other in one stream.
            gap.after.as_deref() <= last_sequence && gap.before.as_ref() == before
        };
        let is_told = count == 0 || self.gaps.iter().any(is_between);
        assert!(
            is_told,
            "{count} events after {last:?} and before {before:?} are not there, and no gap says so: {:?}",
            self.gaps
        );
    }
}

trait Horizon {
    fn start(&self, mode: Mode, config: SourceConfig) -> Running;
    fn put_number(&self, number: u32, bytes: usize);
    fn told(&self, shard: &str) -> Told;
    fn set_hours(&self, hours: u32);
}

impl Horizon for World {
    fn start(&self, mode: Mode, config: SourceConfig) -> Running {
        let source = self.source(config);
        let source = match mode {
            Mode::Polled => source,
            Mode::Pushed => source.with_fan_out(fan_out(&self.stream)),
        };
        let source: Box<dyn Source> = Box::new(source);
        spawn(source, context(&self.topic))
    }

    fn put_number(&self, number: u32, bytes: usize) {
        let mut event = vec![b'x'; bytes];
        event[..4].copy_from_slice(&number.to_be_bytes());
        self.stream.put("key", event);
    }

    fn told(&self, shard: &str) -> Told {
        let mut told = Told {
            events: BTreeMap::new(),
            gaps: Vec::new(),
        };
        for (_, _, key, value) in self.topic.records() {
            if let Some(gap) = StreamGap::parse(key.as_bytes()) {
                if gap.shard == shard {
                    told.gaps.push(gap);
                }
                continue;
            }
            let origin = Origin::parse(key.as_bytes()).expect("an origin");
            if origin.shard == shard {
                let number = u32::from_be_bytes(value[..4].try_into().expect("four bytes"));
                let sequence = origin.sequence.as_str().to_owned();
                told.events.insert(number, sequence);
            }
        }
        told
    }

    fn set_hours(&self, hours: u32) {
        let set = self.stream.with_model(|model, now| {
            let before = model.describe_stream_summary(now, "events")?;
            match hours.cmp(&before.retention_hours) {
                std::cmp::Ordering::Less => model.decrease_retention(now, "events", hours),
                std::cmp::Ordering::Equal => Ok(()),
                std::cmp::Ordering::Greater => model.increase_retention(now, "events", hours),
            }
        });
        set.expect("set");
    }
}

/// What a source stops with by itself.
async fn stopped(running: Running) -> String {
    let failed = timeout(30 * HOUR, running.failed());
    failed.await.expect("it goes on")
}

const FIRST: &str = "shardId-000000000000";

fn config(on_loss: OnLoss) -> SourceConfig {
    let mut config = SourceConfig {
        on_loss,
        ..SourceConfig::default()
    };
    config.pace.idle_interval = Duration::from_secs(60);
    config
}

/// A record of 1,000 bytes in about 125 s: half of what comes in, a record a minute.
fn slow(on_loss: OnLoss) -> SourceConfig {
    let mut config = config(on_loss);
    config.pace.bytes_per_second = 8;
    config.pace.target_bytes = 1;
    config
}

/// 23.9 hours of a record a minute.
async fn nearly_a_day(world: &World) -> u32 {
    for number in 0..1_434 {
        // The first read takes 20, before it knows their size.
        world.put_number(number, if number < 20 { 8 } else { 1_000 });
        sleep(MINUTE).await;
    }
    1_434
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_overtaken_stops_before_it_passes_the_loss() {
    let world = world();
    let put = nearly_a_day(&world).await;
    let error = world.start(Mode::Polled, slow(OnLoss::Fail)).failed().await;
    assert!(error.contains("on-loss: gap-and-continue"), "{error}");
    let told = world.told(FIRST);
    let read = told.events.len() as u32;
    assert!((20..put).contains(&read), "{read}");
    // Nothing is missing before the last that was read.
    assert_eq!(told.missing_inside(), 0);
    // And the next start finds the same.
    let error = stopped(world.start(Mode::Polled, config(OnLoss::Fail))).await;
    assert!(error.contains("on-loss: gap-and-continue"), "{error}");
    assert_eq!(world.told(FIRST).events.len() as u32, read);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_overtaken_records_each_loss_and_goes_on() {
    let world = world();
    let put = nearly_a_day(&world).await;
    let running = world.start(Mode::Polled, slow(OnLoss::GapAndContinue));
    sleep(20 * HOUR).await;
    let gaps = running.metrics.stream_gaps.get();
    running.drained().await;
    let told = world.told(FIRST);
    let missing = told.missing_inside();
    assert!(missing > 300, "{missing}");
    assert_eq!(told.gaps.len() as u64, gaps);
    assert!(
        told.gaps
            .iter()
            .all(|gap| gap.kind == StreamGapKind::Expired)
    );
    // Under a new numbering each time, so that no ordinal is given twice.
    let keys = world.topic.records();
    let epochs = keys.iter().filter_map(|(_, _, key, _)| {
        let origin = Origin::parse(key.as_bytes()).ok()?;
        Some((origin.chain.epoch, origin.chain.ordinal))
    });
    let distinct: std::collections::BTreeSet<_> = epochs.clone().collect();
    assert_eq!(distinct.len(), epochs.count());
    assert!(told.events.len() as u32 + missing <= put);
}

#[tokio::test(start_paused = true)]
async fn a_period_that_is_shortened_is_noticed_with_the_next_answer() {
    for mode in [Mode::Polled, Mode::Pushed] {
        for on_loss in [OnLoss::Fail, OnLoss::GapAndContinue] {
            let world = world();
            world.set_hours(72);
            // Events so large that few are in one answer.
            for number in 0..60 {
                world.put_number(number, 600_000);
                sleep(HOUR).await;
            }
            world.topic.held.store(true, Ordering::Relaxed);
            let mut config = config(on_loss);
            config.batching.max_buffered_bytes = 1;
            let running = world.start(mode, config);
            let metrics = running.metrics.clone();
            until("read", || metrics.source_events.get() > 0).await;
            world.set_hours(24);
            world.topic.held.store(false, Ordering::Relaxed);
            match on_loss {
                OnLoss::Fail => {
                    let error = stopped(running).await;
                    assert!(error.contains("gap-and-continue"), "{error}");
                    assert_eq!(world.told(FIRST).missing_inside(), 0);
                }
                OnLoss::GapAndContinue => {
                    sleep(MINUTE).await;
                    running.drained().await;
                    let told = world.told(FIRST);
                    assert!(told.missing(60) > 0, "{mode:?}");
                    // One more where it was shortened between an answer and the look for the record before it.
                    assert!((1..=2).contains(&told.gaps.len()), "{:?}", told.gaps);
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_period_that_is_lengthened_too_late_brings_nothing_back() {
    for restarts in [false, true] {
        let world = world();
        world.put_number(0, 8);
        let running = world.start(Mode::Polled, config(OnLoss::Fail));
        running.caught_up().await;
        running.drained().await;
        // The topic takes nothing for so long that the stream removes what is unread.
        world.topic.held.store(true, Ordering::Relaxed);
        world.topic.held_for_hours.store(true, Ordering::Relaxed);
        let mut config = slow(OnLoss::Fail);
        config.batching.max_buffered_bytes = 1;
        let running = world.start(Mode::Polled, config);
        for number in 1..24 * 30 {
            world.put_number(number, if number < 20 { 8 } else { 1_000 });
            sleep(2 * MINUTE).await;
        }
        sleep(2 * HOUR).await;
        world.set_hours(72);
        sleep(2 * MINUTE).await;
        let running = match restarts {
            false => running,
            true => {
                running.killed().await;
                world.start(Mode::Polled, config)
            }
        };
        world.topic.held.store(false, Ordering::Relaxed);
        let error = stopped(running).await;
        assert!(error.contains("gap-and-continue"), "{error}");
        assert_eq!(world.told(FIRST).missing_inside(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_children_of_a_shard_are_as_old_as_its_last_record() {
    let world = world();
    for number in 0..10 {
        world.put_number(number, 8);
    }
    let halves = (1u128 << 127).to_string();
    world
        .stream
        .with_model(|model, now| model.split_shard(now, "events", ShardId::new(0), &halves))
        .expect("split");
    for number in 10..1_434 {
        world.put_number(number, 8);
        sleep(MINUTE).await;
    }
    // The parent is read to its end, and then the children cannot be read for so long that some of theirs expire.
    world.topic.held.store(true, Ordering::Relaxed);
    let running = world.start(Mode::Polled, config(OnLoss::GapAndContinue));
    sleep(20 * MINUTE).await;
    world.topic.held.store(false, Ordering::Relaxed);
    running.caught_up().await;
    running.drained().await;
    let told = ["shardId-000000000001", "shardId-000000000002"].map(|shard| world.told(shard));
    let told = told.iter().find(|told| !told.events.is_empty());
    let told = told.expect("events of a child");
    let first = told.events.first_key_value().expect("one");
    assert!(*first.0 > 10, "{first:?}");
    let before = told.gaps.first().and_then(|gap| gap.before.as_ref());
    assert_eq!(before, Some(first.1), "{:?}", told.gaps);
}

#[tokio::test(start_paused = true)]
async fn what_is_old_and_not_lost_is_no_alarm() {
    for mode in [Mode::Polled, Mode::Pushed] {
        // Longer kept than must be: unread for longer than the stream says that it keeps records.
        let world = world();
        world.set_hours(48);
        *world.stream.said_hours.lock().expect("not poisoned") = Some(24);
        world.put_number(0, 8);
        let running = world.start(mode, config(OnLoss::Fail));
        running.caught_up().await;
        running.drained().await;
        for number in 1..30 {
            world.put_number(number, 8);
            sleep(HOUR).await;
        }
        let running = world.start(mode, config(OnLoss::Fail));
        running.caught_up().await;
        // Few events, all read: the last one has long gone, and there was none behind it.
        sleep(100 * HOUR).await;
        world.put_number(30, 8);
        sleep(HOUR).await;
        // A topic that takes nothing for a day, beside a shard that is silent.
        world.topic.held.store(true, Ordering::Relaxed);
        sleep(30 * HOUR).await;
        world.topic.held.store(false, Ordering::Relaxed);
        world.put_number(31, 8);
        sleep(HOUR).await;
        running.drained().await;
        let told = world.told(FIRST);
        assert_eq!((told.missing(32), told.gaps.len()), (0, 0), "{mode:?}");
        let looks = world.stream.count(Operation::Read);
        assert!(looks < 20_000, "{looks}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_while_it_is_looked_changes_nothing() {
    let world = world();
    world.set_hours(48);
    for number in 0..30 {
        world.put_number(number, 600_000);
        sleep(HOUR).await;
    }
    for operation in [Operation::ShardIterator, Operation::Read] {
        let failures = [
            service("ProvisionedThroughputExceededException", 400),
            service("InternalFailure", 500),
            service("ExpiredIteratorException", 400),
        ];
        let failures = failures.iter().cycle().take(9).cloned();
        world.stream.fail(operation, failures.collect());
    }
    let running = world.start(Mode::Polled, config(OnLoss::Fail));
    running.caught_up().await;
    running.drained().await;
    assert_eq!(world.told(FIRST).missing(30), 0);
}

/// Seeds in one run of the tests. One alone: `MILLPOND_SEED=n`.
const SEEDS: u64 = 6;

#[test]
#[expect(
    clippy::print_stderr,
    reason = "a failing run is repeated from its seed"
)]
fn whatever_is_not_in_the_topic_lies_in_a_gap() {
    let only = std::env::var("MILLPOND_SEED").ok();
    let only = only.map(|seed| seed.parse::<u64>().expect("a number"));
    let (mut lost, mut whole) = (0, 0);
    for seed in only.map_or(0..SEEDS, |seed| seed..seed + 1) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("runtime");
        let life = std::panic::AssertUnwindSafe(|| runtime.block_on(life(seed)));
        match std::panic::catch_unwind(life) {
            Ok(0) => whole += 1,
            Ok(_) => lost += 1,
            Err(panic) => {
                eprintln!("failed with MILLPOND_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    eprintln!("{lost} lives with losses, {whole} without");
    assert!(only.is_some() || lost > 0 && whole > 0);
}

/// A slow reader, a topic that takes nothing for hours, kills, and a period that changes. Answers how much was lost.
async fn life(seed: u64) -> u32 {
    let mut random = StdRng::seed_from_u64(seed);
    let world = world();
    world.topic.held_for_hours.store(true, Ordering::Relaxed);
    let mode = match random.random_bool(0.5) {
        true => Mode::Polled,
        false => Mode::Pushed,
    };
    let mut config = slow(OnLoss::GapAndContinue);
    config.pace.bytes_per_second = [8, 20, 200][random.random_range(0..3)];
    config.batching.max_buffered_bytes = 1;
    let mut running = world.start(mode, config);
    let mut put = 0;
    for _ in 0..40 {
        match random.random_range(0..10) {
            0..=4 => {
                for _ in 0..random.random_range(1..120) {
                    let bytes = [8, 1_000, 400_000][random.random_range(0..3)];
                    world.put_number(put, bytes);
                    put += 1;
                    sleep(MINUTE * random.random_range(0..4)).await;
                }
            }
            5 => world.topic.held.store(true, Ordering::Relaxed),
            6 | 7 => world.topic.held.store(false, Ordering::Relaxed),
            8 => {
                running.killed().await;
                running = world.start(mode, config);
            }
            _ => world.set_hours([24, 30, 48][random.random_range(0..3)]),
        }
        sleep(HOUR * random.random_range(0..5)).await;
    }
    running.killed().await;
    world.topic.held.store(false, Ordering::Relaxed);
    config.pace = SourceConfig::default().pace;
    let running = world.start(mode, config);
    running.caught_up().await;
    sleep(2 * MINUTE).await;
    running.drained().await;
    world.told(FIRST).missing(put)
}
