use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::clock::ShardClock;

const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;

fn guard(max: Option<u32>, back: Option<u32>) -> RetentionGuard {
    RetentionGuard::new(GuardSettings {
        max_hours: max,
        give_back_hours: back,
    })
}

fn danger(left_s: u64, speed: f64) -> Danger {
    Danger {
        behind: Duration::from_secs(24 * HOUR - left_s),
        left: Duration::from_secs(left_s),
        speed: Some(speed),
        latest_speed: Some(speed),
    }
}

/// What is decided once that has been so for five minutes.
fn decided(danger: Danger) -> Option<GuardAction> {
    let (mut guard, start) = (guard(Some(96), None), Instant::now());
    let looks = (0..=30).map(|n| start + Duration::from_secs(10 * n));
    looks.fold(None, |_, now| guard.decide(now, 24, &[danger]))
}

#[test]
fn the_estimate_decides_and_not_the_used_share() {
    let extend = Some(GuardAction::Extend(48));
    let unknown = |left_s| Danger {
        speed: None,
        latest_speed: None,
        ..danger(left_s, 0.0)
    };
    let cases = [
        // It drains in time, however far behind.
        (danger(4 * HOUR, 20.0), None),
        (danger(2 * HOUR, 1.05), None),
        (danger(30 * MINUTE, 1.2), None),
        // Within six hours at this speed, and not.
        (danger(5 * HOUR, 0.0), extend),
        (danger(7 * HOUR, 0.0), None),
        (danger(4 * HOUR, 0.5), None),
        (danger(2 * HOUR + 50 * MINUTE, 0.5), extend),
        // Less than an hour, and hardly any gain, or nobody knows.
        (danger(50 * MINUTE, 1.05), extend),
        (danger(50 * MINUTE, 0.99), extend),
        (unknown(50 * MINUTE), extend),
        (unknown(2 * HOUR), None),
        (danger(0, 0.0), extend),
    ];
    for (danger, expected) in cases {
        assert_eq!(decided(danger), expected, "{danger:?}");
    }
}

#[test]
fn an_estimate_must_hold_for_minutes_unless_there_is_little_time() {
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let mut guard = guard(Some(96), None);
    let (losing, fine) = (danger(4 * HOUR, 0.0), danger(4 * HOUR, 1.0));
    assert_eq!(guard.decide(at(0), 24, &[losing]), None);
    assert_eq!(guard.decide(at(90), 24, &[losing]), None);
    assert_eq!(guard.decide(at(170), 24, &[losing]), None);
    assert_eq!(guard.decide(at(180), 24, &[fine]), None);
    assert_eq!(guard.decide(at(190), 24, &[fine, losing]), None);
    let extend = Some(GuardAction::Extend(48));
    assert_eq!(guard.decide(at(370), 24, &[fine, losing]), extend);
    let mut guard = self::guard(Some(96), None);
    let short = danger(10 * MINUTE, 0.0);
    assert_eq!(guard.decide(at(0), 24, &[short]), None);
    assert_eq!(guard.decide(at(20), 24, &[short]), extend);
}

#[test]
fn it_doubles_up_to_its_maximum_and_not_in_a_row() {
    let start = Instant::now();
    let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
    let mut guard = guard(Some(60), None);
    let losing = [danger(HOUR, 0.0)];
    assert_eq!(guard.decide(at(0), 24, &losing), None);
    let extend = Some(GuardAction::Extend(48));
    assert_eq!(guard.decide(at(3), 24, &losing), extend);
    // A call that failed is no change.
    assert_eq!(guard.decide(at(4), 24, &losing), extend);
    guard.changed(at(4));
    for minute in 5..14 {
        assert_eq!(guard.decide(at(minute), 48, &losing), None);
    }
    assert_eq!(
        guard.decide(at(14), 48, &losing),
        Some(GuardAction::Extend(60))
    );
    guard.changed(at(14));
    assert_eq!(guard.decide(at(99), 60, &losing), None);
    // Nobody told it to give anything back.
    let near = [danger(24 * HOUR, 1.0)];
    for minute in 100..400 {
        assert_eq!(guard.decide(at(minute), 60, &near), None);
    }
}

#[test]
fn it_gives_back_after_an_hour_in_which_every_shard_was_near() {
    let start = Instant::now();
    let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
    let mut guard = guard(Some(168), Some(24));
    let near = danger(24 * HOUR - 10, 1.0);
    let behind = danger(24 * HOUR - 5 * MINUTE, 3.0);
    for minute in 0..101 {
        let other = if minute == 40 { behind } else { near };
        assert_eq!(guard.decide(at(minute), 48, &[near, other]), None);
    }
    let back = Some(GuardAction::GiveBack(24));
    assert_eq!(guard.decide(at(101), 48, &[near, near]), back);
    assert_eq!(guard.decide(at(200), 24, &[near, near]), None);
    // Of no shard is anything known: nothing is given back.
    let mut blind = self::guard(Some(168), Some(24));
    for minute in 0..200 {
        assert_eq!(blind.decide(at(minute), 48, &[]), None);
    }
}

#[test]
fn an_hour_in_which_nobody_looked_was_not_calm() {
    let start = Instant::now();
    let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
    let mut guard = guard(Some(168), Some(24));
    let near = [danger(24 * HOUR - 10, 1.0)];
    for minute in (0..30).chain(300..360) {
        assert_eq!(guard.decide(at(minute), 48, &near), None, "{minute}");
    }
    let back = Some(GuardAction::GiveBack(24));
    assert_eq!(guard.decide(at(360), 48, &near), back);
}

#[test]
fn without_a_maximum_it_changes_nothing() {
    let (mut guard, start) = (guard(None, None), Instant::now());
    for minute in 0..30 {
        let now = start + Duration::from_secs(60 * minute);
        assert_eq!(guard.decide(now, 24, &[danger(0, 0.0)]), None);
    }
}

struct Ran {
    /// When the period was made longer, seconds.
    extended: Vec<u64>,
    /// When something was lost, seconds.
    lost: Option<u64>,
}

/// A shard `behind_s` back whose position moves at `speed`, through the real clock and the guard's own calls, which fail
/// when `is_failing`, and are repeated after a minute.
fn run(
    behind_s: u64,
    seconds: u64,
    mut speed: impl FnMut(u64) -> f64,
    is_failing: impl Fn(u64) -> bool,
) -> Ran {
    let (start, begin_ms) = (Instant::now(), 1_763_880_000_000i64);
    let mut guard = guard(Some(8_760), None);
    let mut clock = ShardClock::default();
    let mut position = begin_ms as f64 - behind_s as f64 * 1_000.0;
    let (mut hours, mut blocked_until) = (24u32, 0);
    let mut ran = Ran {
        extended: Vec::new(),
        lost: None,
    };
    for second in (0..seconds).step_by(10) {
        let (now, now_ms) = (
            start + Duration::from_secs(second),
            begin_ms + second as i64 * 1_000,
        );
        position = (position + speed(second) * 10_000.0).min(now_ms as f64);
        clock.moved(now, Some(position as i64));
        let retention_ms = i64::from(hours) * 3_600_000;
        if now_ms - position as i64 > retention_ms {
            ran.lost.get_or_insert(second);
        }
        let dangers: Vec<Danger> = clock.danger(now_ms, retention_ms).into_iter().collect();
        let action = guard.decide(now, hours, &dangers);
        if let Some(GuardAction::Extend(to)) = action
            && second >= blocked_until
        {
            blocked_until = second + 70;
            if !is_failing(second) {
                hours = to;
                guard.changed(now);
                ran.extended.push(second);
            }
        }
    }
    ran
}

#[test]
fn what_drains_in_time_is_left_alone() {
    for (behind_h, speed) in [(20.0, 20.0), (23.5, 3.0), (22.0, 1.15), (23.9, 1.5)] {
        let ran = run((behind_h * 3_600.0) as u64, 24 * HOUR, |_| speed, |_| false);
        assert_eq!(
            (ran.extended, ran.lost),
            (vec![], None),
            "{behind_h} h at {speed}"
        );
    }
}

#[test]
fn a_speed_that_collapses_late_leaves_the_guard_time_for_calls_that_fail() {
    for (behind_m, before) in [
        (23 * 60 + 20, 3.0),
        (23 * 60, 1.2),
        (20 * 60, 20.0),
        (23 * 60 + 30, 20.0),
    ] {
        let collapse = 5 * MINUTE;
        let speed = |second| if second < collapse { before } else { 0.0 };
        let failing = |second| second < collapse + 20 * MINUTE;
        let ran = run(behind_m * MINUTE, 12 * HOUR, speed, failing);
        assert_eq!(ran.lost, None, "{behind_m} minutes, {before}");
        assert!(!ran.extended.is_empty(), "{behind_m} minutes, {before}");
    }
}

proptest! {
    // Each is a day of a shard.
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the speed does: nothing is lost while the period may grow, be it that calls fail for twenty minutes
    /// out of each forty.
    #[test]
    fn nothing_is_lost_while_the_period_may_grow(seed in any::<u64>(), behind_m in 0..(24 * 60 - 45u64)) {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut speed = 1.0;
        let speeds = move |second: u64| {
            if second.is_multiple_of(5 * MINUTE) {
                speed = match random.random_range(0..4) {
                    0 => 0.0,
                    1 => random.random_range(0.0..1.0),
                    2 => random.random_range(0.8..1.2),
                    _ => random.random_range(1.0..8.0),
                };
            }
            speed * random.random_range(0.5..1.5)
        };
        let failing = |second: u64| second % (40 * MINUTE) < 20 * MINUTE;
        let ran = run(behind_m * MINUTE, 30 * HOUR, speeds, failing);
        prop_assert_eq!(ran.lost, None);
    }

    /// What gains on the whole is never extended for, however noisy; with less than an hour left, what gains always.
    #[test]
    fn noise_alone_extends_nothing(seed in any::<u64>(), behind_m in 0..(24 * 60 - 20u64), mean in 1.6f64..6.0) {
        let mean = if behind_m > 23 * 60 { 2.5 * mean } else { mean };
        let mut random = SmallRng::seed_from_u64(seed);
        let noisy = move |_| mean * random.random_range(0.3..1.7);
        let ran = run(behind_m * MINUTE, 10 * HOUR, noisy, |_| false);
        prop_assert_eq!(ran.extended, Vec::<u64>::new());
        prop_assert_eq!(ran.lost, None);
    }
}
