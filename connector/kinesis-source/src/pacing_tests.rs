use proptest::prelude::*;

use super::*;
use crate::limits::{READ_TARGET_BYTES, SHARD_READ_BYTES_PER_SECOND, SHARD_READS_PER_SECOND};

const IDLE: Duration = Duration::from_millis(500);

fn pace() -> Pace {
    Pace {
        reads_per_second: SHARD_READS_PER_SECOND,
        bytes_per_second: SHARD_READ_BYTES_PER_SECOND,
        target_bytes: READ_TARGET_BYTES,
        idle_interval: IDLE,
    }
}

fn answer(records: u32, bytes: u64, caught_up: bool) -> AnswerSize {
    AnswerSize {
        records,
        bytes,
        caught_up,
    }
}

#[test]
fn the_next_read_waits_for_calls_bytes_or_idleness() {
    let began = Instant::now();
    for (size, wait_ms) in [
        (answer(0, 0, false), 200),
        (answer(10, 1_000, false), 200),
        (answer(1_000, 1 << 20, false), 500),
        (answer(10, 10 << 20, false), 5_000),
        (answer(0, 0, true), 500),
        (answer(10, 1_000, true), 500),
        (answer(2_000, 2 << 20, true), 1_000),
    ] {
        let mut pacer = Pacer::new(pace());
        assert_eq!(pacer.next_read(began), began);
        pacer.answered(began, size);
        assert_eq!(
            pacer.next_read(began) - began,
            Duration::from_millis(wait_ms),
            "{size:?}"
        );
    }
}

#[test]
fn a_silent_shard_is_asked_half_as_often_until_something_comes() {
    let mut pacer = Pacer::new(pace());
    let mut now = Instant::now();
    for _ in 0..QUIET_AFTER {
        pacer.answered(now, answer(0, 0, true));
        now = pacer.next_read(now);
    }
    assert_eq!(pacer.next_read(now), now);
    pacer.answered(now, answer(0, 0, true));
    assert_eq!(pacer.next_read(now) - now, IDLE * 2);
    pacer.answered(now, answer(1, 100, true));
    assert_eq!(pacer.next_read(now) - now, IDLE);
}

#[test]
fn a_throttle_is_respected() {
    let mut pacer = Pacer::new(pace());
    let now = Instant::now();
    pacer.failed(now, now, Duration::from_secs(3));
    assert_eq!(pacer.next_read(now) - now, Duration::from_secs(3));
    pacer.failed(now, now, Duration::ZERO);
    assert_eq!(pacer.next_read(now) - now, Duration::from_millis(200));
}

#[test]
fn the_limit_follows_the_record_size() {
    let mut pacer = Pacer::new(pace());
    let now = Instant::now();
    assert_eq!(pacer.limit(), FIRST_READ_LIMIT);
    pacer.answered(now, answer(1, 10 << 20, false));
    assert_eq!(pacer.limit(), 1);
    for _ in 0..60 {
        pacer.answered(now, answer(1_000, 200_000, false));
    }
    assert!(
        (5_000..=5_243).contains(&pacer.limit()),
        "{}",
        pacer.limit()
    );
    for _ in 0..60 {
        pacer.answered(now, answer(1_000, 1_000, false));
    }
    assert_eq!(pacer.limit(), MAX_RECORDS_PER_READ);
    pacer.answered(now, answer(100, 100 << 10, false));
    assert_eq!(pacer.limit(), 1 << 10);
}

#[test]
fn no_second_holds_more_than_a_shard_gives() {
    let mut pacer = Pacer::new(pace());
    let mut now = Instant::now();
    let start = now;
    let mut reads = Vec::new();
    for _ in 0..200 {
        now = pacer.next_read(now);
        let records = pacer.limit();
        let bytes = u64::from(records) * 100_007;
        pacer.answered(now, answer(records, bytes, false));
        reads.push((now, bytes));
    }
    for (first, _) in &reads {
        let second = *first..*first + Duration::from_secs(1);
        let bytes: u64 = reads
            .iter()
            .filter(|(at, _)| second.contains(at))
            .map(|(_, b)| b)
            .sum();
        assert!(
            bytes <= SHARD_READ_BYTES_PER_SECOND,
            "{bytes} bytes from {:?}",
            *first - start
        );
    }
    let rate = reads.iter().map(|(_, b)| b).sum::<u64>() as f64 / (now - start).as_secs_f64();
    assert!(
        rate > 0.9 * SHARD_READ_BYTES_PER_SECOND as f64,
        "{rate} bytes a second"
    );
}

proptest! {
    #[test]
    fn never_above_the_pace_in_any_window(
        steps in prop::collection::vec(
            (0u32..2_000, 1u64..20_000, any::<bool>(), 0u64..400, 0u8..10),
            1..60,
        ),
    ) {
        let mut pacer = Pacer::new(pace());
        let start = Instant::now();
        let mut now = start;
        let mut reads: Vec<(Instant, u64)> = Vec::new();
        for (records, record_bytes, caught_up, latency_ms, kind) in steps {
            now = pacer.next_read(now).max(now);
            let began = now;
            now += Duration::from_millis(latency_ms);
            if kind == 0 {
                pacer.failed(began, now, Duration::from_millis(latency_ms));
                reads.push((began, 0));
            } else {
                let bytes = (u64::from(records) * record_bytes).min(10 << 20);
                pacer.answered(began, answer(records, bytes, caught_up));
                reads.push((began, bytes));
            }
        }
        for first in 0..reads.len() {
            let mut bytes = 0;
            for last in first..reads.len() {
                let window = reads[last].0 - reads[first].0;
                let seconds = window.as_secs_f64();
                let calls = (last - first + 1) as f64;
                prop_assert!(calls <= seconds * 5.0 + 1.0 + 1e-6, "{calls} calls in {window:?}");
                // The bytes of all but the last answer of the window are paid for.
                prop_assert!(
                    bytes as f64 <= seconds * SHARD_READ_BYTES_PER_SECOND as f64 + 1.0,
                    "{bytes} bytes in {window:?}"
                );
                bytes += reads[last].1;
            }
        }
    }
}

#[test]
fn throttles_make_reads_fewer_and_larger_and_calm_undoes_it() {
    let mut pacer = Pacer::new(pace());
    let mut now = Instant::now();
    for _ in 0..60 {
        pacer.answered(now, answer(100, 100 << 10, false));
    }
    let usual = pacer.limit();
    for _ in 0..10 {
        pacer.throttled(now, Duration::ZERO, 0.5);
        let wait = pacer.next_read(now) - now;
        assert!(wait <= LONGEST_THROTTLED_INTERVAL, "{wait:?}");
        now += wait;
    }
    assert_eq!(
        pacer.limit(),
        2 * usual,
        "two seconds' half is all that a second gives"
    );
    pacer.throttled(now, Duration::from_secs(7), 0.5);
    assert_eq!(
        pacer.next_read(now) - now,
        Duration::from_secs(7),
        "what the service asks for"
    );
    for _ in 0..100 {
        now = pacer.next_read(now);
        pacer.answered(now, answer(10, 1_000, false));
    }
    assert_eq!(pacer.next_read(now) - now, Duration::from_millis(200));
}

/// One shard, as the service counts it, on virtual time.
struct SharedShard {
    kinesis: millpond_kinesis_local::model::Kinesis,
    begin: Instant,
}

impl SharedShard {
    const BEGIN_MS: u64 = 1_763_880_000_000;

    fn new(begin: Instant) -> Self {
        use millpond_kinesis_local::model::{
            CreateStream, Kinesis, ModelConfig, NewRecord, ReadLimits,
        };
        let config = ModelConfig {
            read_limits: Some(ReadLimits::default()),
            ..ModelConfig::default()
        };
        let mut kinesis = Kinesis::new(config, 1);
        let create = CreateStream::provisioned(1);
        kinesis
            .create_stream(Self::BEGIN_MS, "s", create)
            .expect("created");
        let data = bytes::Bytes::from(vec![7; 10 << 10]);
        for _ in 0..20_000 {
            let record = NewRecord::new("k", None, data.clone()).expect("a record");
            kinesis
                .put_record(Self::BEGIN_MS, "s", record, None)
                .expect("put");
        }
        Self { kinesis, begin }
    }

    fn ms(&self, now: Instant) -> u64 {
        Self::BEGIN_MS + (now - self.begin).as_millis() as u64
    }

    fn iterator(&mut self) -> String {
        use millpond_kinesis_local::model::{IteratorStart, ShardId};
        let start = IteratorStart::TrimHorizon;
        self.kinesis
            .get_shard_iterator(Self::BEGIN_MS, "s", ShardId::new(0), start)
            .expect("an iterator")
    }
}

/// Several readers of a shard that is far behind: nobody starves, little is wasted. The last one polls as
/// fast as it can and knows no pace.
fn share(readers: usize, greedy: bool, seed: u64) -> (Vec<u64>, u64, u64) {
    use rand::{Rng as _, SeedableRng as _};
    let mut random = rand::rngs::SmallRng::seed_from_u64(seed);
    let begin = Instant::now();
    let mut shard = SharedShard::new(begin);
    let mut pacers: Vec<(Pacer, String, u64)> = (0..readers)
        .map(|_| (Pacer::new(pace()), shard.iterator(), 0))
        .collect();
    let mut greedy_iterator = greedy.then(|| shard.iterator());
    let mut greedy_next = begin;
    let (mut reads, mut throttles) = (0, 0);
    let end = begin + Duration::from_secs(60);
    loop {
        let next = pacers.iter().enumerate();
        let next = next.min_by_key(|(_, (pacer, ..))| pacer.next_read(begin));
        let (index, at) = next
            .map(|(index, (pacer, ..))| (index, pacer.next_read(begin)))
            .expect("a reader");
        if let Some(iterator) = &mut greedy_iterator
            && greedy_next < at
        {
            let ms = shard.ms(greedy_next);
            if let Ok(page) = shard.kinesis.get_records(ms, iterator, Some(20)) {
                *iterator = page.next_shard_iterator.expect("open");
            }
            greedy_next += Duration::from_millis(250);
            continue;
        }
        if at >= end {
            let bytes = pacers.iter().map(|(_, _, bytes)| *bytes).collect();
            return (bytes, reads, throttles);
        }
        let ms = shard.ms(at);
        let (pacer, iterator, bytes) = &mut pacers[index];
        reads += 1;
        match shard
            .kinesis
            .get_records(ms, iterator, Some(pacer.limit() as usize))
        {
            Ok(page) => {
                let size: usize = page.records.iter().map(|record| record.size_bytes).sum();
                *bytes += size as u64;
                *iterator = page.next_shard_iterator.expect("open");
                pacer.answered(at, answer(page.records.len() as u32, size as u64, false));
            }
            Err(_) => {
                throttles += 1;
                pacer.throttled(at, Duration::ZERO, random.random());
            }
        }
    }
}

#[test]
fn readers_of_one_shard_share_it() {
    // Every assertion says the seed; `MILLPOND_SEED` takes it again.
    let given = std::env::var("MILLPOND_SEED").ok();
    let given = given.and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    let whole = 60 * SHARD_READ_BYTES_PER_SECOND;
    for readers in 1..=5 {
        let (bytes, reads, throttles) = share(readers, false, seed);
        let all: u64 = bytes.iter().sum();
        assert!(
            all * 2 >= whole,
            "{readers} readers, seed {seed}: {all} of {whole} bytes"
        );
        // A sixth of a fair share, at least.
        let least = bytes.iter().min().expect("one") * readers as u64;
        assert!(
            least * 6 >= whole,
            "{readers} readers, seed {seed}: {bytes:?}"
        );
        assert!(
            throttles * 10 <= reads * 9,
            "{readers} readers, seed {seed}: {throttles} of {reads}"
        );
    }
    let (bytes, _, _) = share(2, true, seed);
    for bytes in &bytes {
        assert!(
            *bytes * 40 >= whole,
            "seed {seed}: {bytes} of {whole} beside a greedy one"
        );
    }
}
