//! Days of traffic, from seeds.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

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

#[derive(Debug, Default)]
struct Found {
    steps: Vec<(u64, Advice)>,
    /// Minutes in which producers were throttled.
    throttled: u64,
    /// Longest that anything waited at the producers, minutes.
    longest_wait: u64,
    /// Minutes in which the busiest minute of six hours was at least `low`, or no fewer shards were allowed.
    used: u64,
    /// What came, and what the stream took.
    came: f64,
    taken: f64,
    minutes: u64,
}

fn run(seed: u64, days: u64) -> Found {
    let settings = ScalingSettings {
        mode: ScalingMode::Auto,
        min_shards: 2,
        max_shards: 400,
        ..ScalingSettings::default()
    };
    let mut scaling = ShardScaling::new(settings);
    let mut traffic = Traffic::new(seed);
    let start = Instant::now();
    let mut found = Found::default();
    let mut shards = 8u32;
    let mut coming: Option<(u64, u32)> = None;
    let mut waiting = 0.0f64;
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
        }
        let came = traffic.at(minute);
        found.came += came;
        let capacity = f64::from(shards) * 1_000.0;
        let wanted = came + waiting;
        let taken = wanted.min(capacity);
        waiting = wanted - taken;
        found.taken += taken;
        found.minutes += 1;
        if waiting > 0.0 {
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
        let milli = (taken / f64::from(shards)) as u32;
        let load = Load {
            open_shards: shards,
            in_milli: milli,
            out_milli: milli / 2,
            unknown_shards: 0,
        };
        // While a change is under way none is asked for.
        if coming.is_none()
            && let Some(advice) = scaling.decide(now, load)
        {
            scaling.called(now, advice);
            found.steps.push((minute, advice));
            coming = Some((minute + 3, advice.to));
        }
    }
    found.came -= waiting;
    found
}

fn check(seed: u64, found: &Found) {
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
    assert!(
        (found.came - found.taken).abs() < 1e-3 * found.came.max(1.0),
        "seed {seed}: {} came, {} taken",
        found.came,
        found.taken
    );
    // A burst of three times the load finds at most half of what it needs, and then doubles twice.
    assert!(found.longest_wait <= 180, "seed {seed}: {found:?}");
    let throttled = found.throttled * 1_000 / found.minutes;
    assert!(
        throttled <= 60,
        "seed {seed}: {throttled} thousandths throttled"
    );
    let used = found.used * 1_000 / found.minutes;
    assert!(
        used >= 800,
        "seed {seed}: used {used} thousandths of the time"
    );
}

/// No flapping, the service's limits kept, nothing that came is not taken, and the utilisation held. What is short of
/// all the time is spent waiting for a step down that the day's calls do not allow yet. `MILLPOND_SEEDS` says how many seeds.
#[expect(
    clippy::print_stdout,
    reason = "figures for the README, shown with `--nocapture`"
)]
#[test]
fn days_of_traffic() {
    let seed = std::env::var("MILLPOND_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let many = std::env::var("MILLPOND_SEEDS")
        .ok()
        .and_then(|many| many.parse().ok());
    let seeds = seed.map_or(0..many.unwrap_or(40), |seed: u64| seed..seed + 1);
    let mut steps = 0;
    let mut used = Vec::new();
    for seed in seeds {
        let found = run(seed, 7);
        check(seed, &found);
        steps += found.steps.len();
        used.push((found.used * 1_000 / found.minutes, seed));
    }
    assert!(steps > 0, "nothing was ever changed");
    used.sort_unstable();
    let at = |part: usize| used[(used.len() - 1) * part / 100];
    println!(
        "{} seeds, {} steps: used in thousandths of the time (seed): least {:?}, 1st percentile {:?}, 5th {:?}, median {:?}",
        used.len(),
        steps,
        at(0),
        at(1),
        at(5),
        at(50)
    );
}

#[test]
fn the_same_seed_twice_is_the_same_run() {
    let steps = |seed| format!("{:?}", run(seed, 3).steps);
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
