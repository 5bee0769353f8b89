//! Days of traffic, from seeds.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::clock::ShardClock;
use crate::shard_figures::ShardFigures;

const MINUTES_A_DAY: u64 = 24 * 60;

/// Bytes a minute that come to the stream, in thousandths of what one shard takes.
struct Traffic {
    random: SmallRng,
    base: f64,
    growth_a_day: f64,
    bursts_a_day: f64,
    burst: Option<(u64, f64)>,
    silence_until: u64,
}

impl Traffic {
    fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        Self {
            base: random.random_range(500.0..8_000.0),
            growth_a_day: random.random_range(0.9..1.4),
            bursts_a_day: random.random_range(0.0..12.0),
            burst: None,
            silence_until: 0,
            random,
        }
    }

    fn at(&mut self, minute: u64) -> f64 {
        let days = minute as f64 / MINUTES_A_DAY as f64;
        if self
            .random
            .random_bool(self.bursts_a_day / MINUTES_A_DAY as f64)
        {
            let length = self.random.random_range(5..90);
            self.burst = Some((minute + length, self.random.random_range(1.2..3.0)));
        }
        if self.random.random_bool(0.5 / MINUTES_A_DAY as f64) {
            self.silence_until = minute + self.random.random_range(30..600);
        }
        if minute < self.silence_until {
            return 0.0;
        }
        let day = 1.0 + 0.6 * (days * std::f64::consts::TAU).sin();
        let burst = match self.burst {
            Some((until, times)) if minute < until => times,
            _ => 1.0,
        };
        let noise = self.random.random_range(0.95..1.05);
        self.base * self.growth_a_day.powf(days) * day * burst * noise
    }
}

/// What waits somewhere, in order, each with the minute in which it came.
#[derive(Default)]
struct Queue {
    parts: VecDeque<(u64, f64)>,
    lost: f64,
}

impl Queue {
    fn push(&mut self, minute: u64, amount: f64) {
        if amount > 0.0 {
            self.parts.push_back((minute, amount));
        }
    }

    /// Takes out at most so much; what then is older than the retention period is lost.
    fn take(&mut self, minute: u64, most: f64) -> f64 {
        let mut taken = 0.0;
        while let Some((_, amount)) = self.parts.front_mut() {
            let part = amount.min(most - taken);
            taken += part;
            *amount -= part;
            if *amount > 1e-9 {
                break;
            }
            self.parts.pop_front();
        }
        while let Some((came, amount)) = self.parts.front()
            && minute - came > RETENTION_MINUTES
        {
            self.lost += amount;
            self.parts.pop_front();
        }
        taken
    }

    fn oldest(&self) -> Option<u64> {
        self.parts.front().map(|(minute, _)| *minute)
    }

    fn total(&self) -> f64 {
        self.parts.iter().map(|(_, amount)| amount).sum()
    }
}

/// Each reads a third of the stream.
const READERS: usize = 3;

const RETENTION_MINUTES: u64 = 24 * 60;

/// A source, which is away for hours now and then.
#[derive(Default)]
struct Reader {
    unread: Queue,
    clock: ShardClock,
    away_until: u64,
}

impl Reader {
    /// Reads for a minute, at most so much, and tells what it reads carries.
    fn read(&mut self, minute: u64, most: f64, now: Instant) -> Option<ShardFigures> {
        let most = if minute < self.away_until { 0.0 } else { most };
        let read = self.unread.take(minute, most);
        // Thousandths of what a shard takes in a minute, and records of 10 KB.
        let bytes = (read * 60_000.0) as u64;
        self.clock.took(bytes, bytes / 10_000);
        let position = self.unread.oldest().unwrap_or(minute);
        self.clock
            .answered(((minute - position) * 60_000).cast_signed());
        let position_ms = (position * 60_000).cast_signed();
        self.clock.moved(now, Some(position_ms));
        self.clock.figures(position_ms)
    }
}

/// Whether the readers are there all the time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Readers {
    Steady,
    AwayAtTimes,
}

#[derive(Debug, Default)]
struct Found {
    steps: Vec<(u64, Advice)>,
    /// Minutes in which producers were throttled.
    throttled: u64,
    /// Longest that anything waited at the producers, minutes.
    longest_wait: u64,
    /// Minutes in which the busiest minute of six hours was at least `low`, or no fewer shards were allowed.
    used: u64,
    /// Minutes in which more than `high` was used.
    above: u64,
    /// What grew older than the retention period at the producers or in the stream.
    lost: f64,
    /// What came, was read, and waits at the end.
    came: f64,
    read: f64,
    left: f64,
    minutes: u64,
}

fn run(seed: u64, days: u64, readers: Readers) -> Found {
    let settings = ScalingSettings {
        mode: ScalingMode::Auto,
        min_shards: 2,
        max_shards: 400,
        ..ScalingSettings::default()
    };
    let mut scaling = ShardScaling::new(settings);
    let mut traffic = Traffic::new(seed);
    let mut outages = SmallRng::seed_from_u64(!seed);
    let start = Instant::now();
    let mut found = Found::default();
    let mut shards = 8u32;
    let mut coming: Option<(u64, u32)> = None;
    let mut producers = Queue::default();
    let mut sources: [Reader; READERS] = Default::default();
    let mut wait_began = None;
    // The busiest minutes of the last six hours, each busier than all behind it.
    let mut recent: VecDeque<(u64, f64)> = VecDeque::new();
    for minute in 0..days * MINUTES_A_DAY {
        let now = start + Duration::from_secs(minute * 60);
        if let Some((at, count)) = coming
            && minute >= at
        {
            shards = count;
            coming = None;
            // New shards, of which nothing was measured.
            sources
                .iter_mut()
                .for_each(|reader| reader.clock = ShardClock::default());
        }
        let came = traffic.at(minute);
        found.came += came;
        producers.push(minute, came);
        let capacity = f64::from(shards) * 1_000.0;
        let taken = producers.take(minute, capacity);
        found.minutes += 1;
        if producers.total() > 1e-6 {
            found.throttled += 1;
            let since = *wait_began.get_or_insert(minute);
            found.longest_wait = found.longest_wait.max(minute - since);
        } else {
            wait_began = None;
        }
        while recent.back().is_some_and(|(_, before)| *before <= taken) {
            recent.pop_back();
        }
        recent.push_back((minute, taken));
        while recent.front().is_some_and(|(at, _)| minute - at > 360) {
            recent.pop_front();
        }
        let busiest = recent.front().map_or(0.0, |(_, taken)| *taken);
        let is_used = busiest / f64::from(shards) >= f64::from(settings.low_percent) * 10.0;
        found.used += u64::from(is_used || shards <= settings.min_shards);
        let is_above = taken / f64::from(shards) > f64::from(settings.high_percent) * 10.0;
        found.above += u64::from(is_above);
        let each = READERS as f64;
        let mut figures = Vec::with_capacity(READERS);
        for reader in &mut sources {
            // Away twice a week, for up to four hours.
            let is_out = readers == Readers::AwayAtTimes;
            if is_out && outages.random_bool(2.0 / (7 * MINUTES_A_DAY) as f64) {
                reader.away_until = minute + outages.random_range(5..240);
            }
            reader.unread.push(minute, taken / each);
            let before = reader.unread.total();
            figures.push(reader.read(minute, 2.0 * capacity / each, now));
            found.read += before - reader.unread.total();
        }
        let known = figures.iter().flatten();
        let (incoming, outgoing) = known.fold((0, 0), |(into, out), figures| {
            (into + figures.in_per_second, out + figures.out_per_second)
        });
        // Thousandths of a MB, and of twice as much that is read.
        let milli = |rate: u64, each: u64| (rate / each / u64::from(shards)) as u32;
        let load = Load {
            open_shards: shards,
            in_milli: milli(incoming, 1_000),
            out_milli: milli(outgoing, 2_000),
            unknown_shards: figures.iter().filter(|figures| figures.is_none()).count() as u32,
        };
        let advice = scaling.decide(now, load);
        // While a change is under way none is asked for.
        if coming.is_none()
            && let Some(advice) = advice
        {
            scaling.called(now, advice);
            found.steps.push((minute, advice));
            coming = Some((minute + 3, advice.to));
        }
    }
    let queues = sources.iter().map(|reader| &reader.unread);
    for queue in queues.chain([&producers]) {
        found.lost += queue.lost;
        found.left += queue.total();
    }
    found
}

/// Shares of the time in thousandths, and minutes.
struct Limits {
    /// At most above `high`: a burst of three times the load finds at most half of what it needs, and then doubles twice.
    above: u64,
    /// At most with producers refused.
    refused: u64,
    /// Longest that they are refused on end.
    longest_wait: u64,
    /// At least in use.
    used: u64,
}

const STEADY: Limits = Limits {
    above: 60,
    refused: 30,
    longest_wait: 180,
    used: 750,
};

const AWAY: Limits = Limits {
    above: 100,
    refused: 80,
    longest_wait: 360,
    used: 700,
};

fn check(seed: u64, found: &Found, limits: &Limits) {
    let steps = &found.steps;
    for (minute, advice) in steps {
        let Advice { from, to, .. } = *advice;
        assert!(to <= from * 2 && to * 2 >= from, "seed {seed}: {advice:?}");
        assert!((2..=400).contains(&to), "seed {seed}: {advice:?}");
        let day = |other: u64| other <= *minute && minute - other < MINUTES_A_DAY;
        let calls = steps.iter().filter(|(other, _)| day(*other)).count();
        assert!(
            calls <= CALLS_PER_DAY,
            "seed {seed}: {calls} calls in a day"
        );
    }
    for pair in steps.windows(2) {
        let ((first_at, first), (then_at, then)) = (pair[0], pair[1]);
        let (up, down) = (first.to > first.from, then.to < then.from);
        // Up and down again, sooner than the six hours that a step down looks back.
        if up && down {
            assert!(
                then_at - first_at >= 360,
                "seed {seed}: flapping at {then_at}"
            );
        }
        // Down and up again is for more than was carried in the six hours before.
        if !up && !down {
            let before = u64::from(first.utilisation_milli) * u64::from(first.from);
            let after = u64::from(then.utilisation_milli) * u64::from(then.from);
            assert!(after > before, "seed {seed}: flapping at {then_at}");
        }
    }
    assert!(found.lost == 0.0, "seed {seed}: {} lost", found.lost);
    let accounted = found.read + found.left;
    assert!(
        (found.came - accounted).abs() < 1e-6 * found.came.max(1.0),
        "seed {seed}: {} came, {accounted} read or waiting",
        found.came
    );
    let share = |minutes: u64| minutes * 1_000 / found.minutes;
    let (above, refused, used) = (
        share(found.above),
        share(found.throttled),
        share(found.used),
    );
    assert!(
        above <= limits.above,
        "seed {seed}: {above} thousandths above `high`"
    );
    assert!(
        found.longest_wait <= limits.longest_wait,
        "seed {seed}: waited for {} minutes",
        found.longest_wait
    );
    assert!(
        refused <= limits.refused,
        "seed {seed}: {refused} thousandths refused"
    );
    assert!(
        used >= limits.used,
        "seed {seed}: used {used} thousandths of the time"
    );
}

/// Figures of all seeds, the seeds as `MILLPOND_SEED` or `MILLPOND_SEEDS` (how many) say.
#[expect(
    clippy::print_stdout,
    reason = "figures for the README, shown with `--nocapture`"
)]
fn weeks(readers: Readers, limits: &Limits) {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let seeds = match number("MILLPOND_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MILLPOND_SEEDS").unwrap_or(25),
    };
    let (mut used, mut most, mut steps) = (Vec::new(), [(0, 0); 3], 0);
    for seed in seeds {
        let found = run(seed, 7, readers);
        check(seed, &found, limits);
        steps += found.steps.len();
        let share = |minutes: u64| minutes * 1_000 / found.minutes;
        used.push((share(found.used), seed));
        let shares = [
            share(found.above),
            share(found.throttled),
            found.longest_wait,
        ];
        for (most, found) in most.iter_mut().zip(shares) {
            *most = (*most).max((found, seed));
        }
    }
    assert!(steps > 0, "nothing was ever changed");
    used.sort_unstable();
    let at = |part: usize| used[(used.len() - 1) * part / 100];
    println!(
        "{} seeds, {steps} steps: used in thousandths of the time (seed): least {:?}, 1st percentile {:?}, 5th {:?}, median {:?}; \
         most of the time above `high` {:?}, and with producers refused {:?}; longest wait, minutes {:?}",
        used.len(),
        at(0),
        at(1),
        at(5),
        at(50),
        most[0],
        most[1],
        most[2]
    );
}

/// No flapping, the service's limits kept, nothing grows older than the retention period at producers that are refused or
/// in the stream, and the utilisation held. What is short of all the time is spent waiting for a step down that the day's
/// calls do not allow yet.
#[test]
fn days_of_traffic() {
    weeks(Readers::Steady, &STEADY);
}

/// The same while each of three sources is away for up to four hours twice a week, and reads its backlog then: what it
/// would read is not known meanwhile, and nothing is lost either.
#[test]
fn days_of_traffic_with_readers_away() {
    weeks(Readers::AwayAtTimes, &AWAY);
}

#[test]
fn the_same_seed_twice_is_the_same_run() {
    let steps = |seed| format!("{:?}", run(seed, 3, Readers::AwayAtTimes).steps);
    assert_eq!(steps(11), steps(11));
    assert_ne!(steps(11), steps(12));
}

fn at(minutes: u64) -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(Instant::now) + Duration::from_secs(minutes * 60)
}

fn load(open_shards: u32, in_milli: u32) -> Load {
    Load {
        open_shards,
        in_milli,
        out_milli: 0,
        unknown_shards: 0,
    }
}

fn scaling(min_shards: u32, max_shards: u32) -> ShardScaling {
    ShardScaling::new(ScalingSettings {
        mode: ScalingMode::Auto,
        min_shards,
        max_shards,
        ..ScalingSettings::default()
    })
}

#[test]
fn a_busy_minute_is_not_enough_and_three_are() {
    let mut scaling = scaling(1, 100);
    assert_eq!(scaling.decide(at(0), load(10, 900)), None);
    assert_eq!(scaling.decide(at(1), load(10, 700)), None);
    for minute in 2..5 {
        assert_eq!(scaling.decide(at(minute), load(10, 900)), None, "{minute}");
    }
    // 9,000 thousandths of a shard, at 52.5% each.
    let advice = scaling.decide(at(5), load(10, 900)).expect("up");
    assert_eq!((advice.from, advice.to), (10, 18));
    scaling.called(at(5), advice);
    assert_eq!(scaling.decide(at(9), load(18, 990)), None);
}

#[test]
fn bounds_and_the_limits_of_a_call_hold() {
    let mut scaling = scaling(4, 12);
    let mut up = None;
    for minute in 0..4 {
        up = scaling.decide(at(minute), load(10, 1_000));
    }
    assert_eq!(up.map(|advice| advice.to), Some(12));
    // Outside of the bounds it comes in, by half a step if need be.
    assert_eq!(
        scaling.advise(at(500), load(30, 400)).map(|a| a.to),
        Some(15)
    );
    let mut idle = self::scaling(4, 12);
    let mut down = None;
    for minute in 0..=360 {
        down = idle.decide(at(minute), load(12, 10));
    }
    assert_eq!(down.map(|advice| advice.to), Some(6));
}

#[test]
fn a_refusal_is_believed_for_an_hour() {
    let mut scaling = scaling(1, 100);
    for minute in 0..3 {
        scaling.decide(at(minute), load(10, 1_000));
    }
    assert!(scaling.decide(at(3), load(10, 1_000)).is_some());
    scaling.refused(at(3));
    for minute in 4..63 {
        assert!(scaling.decide(at(minute), load(10, 1_000)).is_none());
    }
    assert!(scaling.decide(at(63), load(10, 1_000)).is_some());
}

/// As [`load`], with shards of which nothing is known.
fn partly(open_shards: u32, in_milli: u32) -> Load {
    Load {
        unknown_shards: 1,
        ..load(open_shards, in_milli)
    }
}

#[test]
fn while_something_is_unknown_nothing_is_scaled_in_and_out_only_for_what_is_known() {
    let mut scaling = scaling(1, 100);
    for minute in 0..900 {
        assert_eq!(scaling.advise(at(minute), partly(10, 10)), None, "{minute}");
    }
    assert!(scaling.is_blind());
    // What is known is alone too much.
    for minute in 900..903 {
        assert_eq!(scaling.advise(at(minute), partly(10, 900)), None);
    }
    let up = scaling.advise(at(903), partly(10, 900));
    assert_eq!(up.map(|advice| advice.to), Some(18));
    // Six hours that were seen whole are needed then, of which a moment may be missing: a shard changes hands.
    for minute in 904..1_264 {
        let is_moving = (1_100..1_105).contains(&minute);
        let load = if is_moving {
            partly(10, 10)
        } else {
            load(10, 10)
        };
        assert_eq!(scaling.advise(at(minute), load), None, "{minute}");
    }
    assert!(!scaling.is_blind());
    assert_eq!(scaling.advise(at(1_264), partly(10, 10)), None);
    let down = scaling.advise(at(1_265), load(10, 10));
    assert_eq!(down.map(|advice| advice.to), Some(5));
}

#[test]
fn hours_in_which_nobody_looked_were_not_low() {
    let mut scaling = scaling(1, 100);
    for minute in 0..100 {
        assert_eq!(scaling.advise(at(minute), load(10, 10)), None);
    }
    // Another source decided meanwhile.
    for minute in 400..760 {
        assert_eq!(scaling.advise(at(minute), load(10, 10)), None, "{minute}");
    }
    assert!(scaling.advise(at(760), load(10, 10)).is_some());
}
