use proptest::prelude::*;

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn of(key: u64, units: u64) -> [KeyUse; 1] {
    [KeyUse {
        key: KeyId(key),
        units,
    }]
}

fn auto() -> Pacer {
    Pacer::new(PaceSettings::default(), Duration::ZERO)
}

fn provisioned(units: u64, burst_credit: Duration) -> Pacer {
    let settings = PaceSettings {
        burst_credit,
        ..PaceSettings::default()
    };
    let mut pacer = Pacer::new(settings, Duration::ZERO);
    pacer.looked(Some(WriteCapacity::Provisioned(units)), Duration::ZERO);
    pacer
}

/// Units of requests of `request` units that start from `from` until `until`, to one key each.
fn spend(pacer: &mut Pacer, request: u64, from: Duration, until: Duration) -> u64 {
    let (mut now, mut units, mut key) = (from, 0, 0);
    while now < until {
        key += 1;
        match pacer.take(request, &of(key, request), now) {
            Turn::Start => {
                units += request;
                pacer.settle(request, request as f64, &[], now);
            }
            Turn::Table(wait) | Turn::Keys(wait) => now += wait,
        }
    }
    units
}

#[test]
fn the_budget_is_what_is_said_else_what_the_table_says_else_learned() {
    let mut fixed = Pacer::new(PaceSettings::fixed(300), ms(0));
    assert!(!fixed.is_look_due(seconds(1_000)), "the table is not asked");
    fixed.looked(Some(WriteCapacity::Provisioned(100)), ms(0));
    assert_eq!(fixed.budget(), 300.0);
    let mut auto = auto();
    assert!(auto.is_look_due(ms(0)));
    assert_eq!(auto.budget(), START_UNITS);
    auto.looked(Some(WriteCapacity::Provisioned(1_000)), ms(0));
    assert_eq!(auto.budget(), 980.0);
    assert!(!auto.is_look_due(seconds(14)) && auto.is_look_due(seconds(15)));
    auto.refused(Throttle::Table, &[], seconds(3), seconds(3));
    assert!(!auto.is_look_due(seconds(4)) && auto.is_look_due(seconds(5)));
    auto.looked(None, seconds(6));
    assert!(auto.budget() < 980.0);
    auto.looked(
        Some(WriteCapacity::OnDemand { max: Some(200) }),
        seconds(66),
    );
    assert_eq!(auto.budget(), 196.0);
    auto.looked(Some(WriteCapacity::OnDemand { max: None }), seconds(126));
    assert_eq!(auto.budget(), 196.0, "goes on from there");
    let spent = spend(&mut auto, 20, seconds(126), seconds(130));
    assert!(auto.budget() > 600.0 && spent > 1_000, "{spent}");
}

#[test]
fn each_kind_of_refusal_slows_down_what_it_is_about() {
    let limit = 4_000;
    let refused = |why, hot_units, of_others| {
        let mut pacer = provisioned(limit, Duration::ZERO);
        let request = [of(1, hot_units), of(2, of_others)].concat();
        let now = seconds(1);
        assert_eq!(
            pacer.take(hot_units + of_others, &request, now),
            Turn::Start
        );
        let units = hot_units + of_others;
        pacer.settle(units, units as f64, &[], now);
        pacer.refused(why, &request, now, now);
        let hot: Vec<u64> = pacer.take_hot().iter().map(|hot| hot.key.0).collect();
        (
            pacer.budget() < 3_900.0,
            hot,
            pacer.take(1, &[], now + seconds(5)),
        )
    };
    use Throttle::{Account, Index, KeyRange, Table, Unknown};
    assert_eq!(refused(Table, 900, 1), (true, vec![], Turn::Start));
    assert_eq!(refused(Index, 900, 1), (true, vec![], Turn::Start));
    assert_eq!(refused(KeyRange, 900, 1), (false, vec![1], Turn::Start));
    assert_eq!(refused(KeyRange, 200, 200), (true, vec![], Turn::Start));
    assert_eq!(refused(Unknown, 950, 1), (false, vec![1], Turn::Start));
    assert_eq!(refused(Unknown, 700, 1), (true, vec![], Turn::Start));
    let mut pacer = provisioned(limit, Duration::ZERO);
    pacer.refused(Account, &[], seconds(1), seconds(1));
    assert_eq!(pacer.take(1, &[], seconds(1)), Turn::Table(seconds(1)));
    assert_eq!(pacer.take(1, &[], seconds(2)), Turn::Start);
    assert_eq!(pacer.budget(), 1_960.0);
}

#[test]
fn credit_is_spent_only_where_it_is_allowed_and_not_all_at_once() {
    let minute = seconds(60);
    let idle = seconds(600);
    let mut without = provisioned(1_000, Duration::ZERO);
    assert_eq!(without.take(1, &[], idle), Turn::Start);
    let spent = spend(&mut without, 98, idle, idle + minute);
    assert!((58_800..59_100).contains(&spent), "{spent}");
    let mut with = provisioned(1_000, minute);
    assert_eq!(with.take(1, &[], idle), Turn::Start);
    let spent = spend(&mut with, 98, idle, idle + minute / 2);
    assert!(
        (58_700..59_100).contains(&spent),
        "twice the budget: {spent}"
    );
    let spent = spend(&mut with, 98, idle + minute / 2, idle + 3 * minute);
    assert!(
        (176_300..177_000).contains(&spent),
        "no more than a minute: {spent}"
    );
    // What is behind a learned budget nobody knows.
    let mut learned = Pacer::new(
        PaceSettings {
            burst_credit: minute,
            ..PaceSettings::default()
        },
        ms(0),
    );
    learned.looked(Some(WriteCapacity::OnDemand { max: None }), ms(0));
    let spent = spend(&mut learned, 400, idle, idle + ms(100));
    assert!(spent <= 1_200, "{spent}");
}

#[test]
fn who_waits_for_a_key_does_not_wait_for_the_table() {
    let mut pacer = provisioned(10_000, Duration::ZERO);
    assert_eq!(pacer.take(390, &of(1, 390), ms(0)), Turn::Start);
    assert!(matches!(pacer.take(390, &of(1, 390), ms(40)), Turn::Keys(wait) if wait > ms(300)));
    assert_eq!(pacer.take(390, &of(2, 390), ms(40)), Turn::Start);
    // What was refused does not count for its key.
    pacer.settle(390, 0.0, &of(2, 390), ms(40));
    assert_eq!(pacer.take(390, &of(2, 390), ms(80)), Turn::Start);
}

#[test]
fn a_sink_without_a_partition_may_only_register() {
    let mut pacer = Pacer::new(PaceSettings::fixed(1_000), ms(0));
    pacer.hold(0, 4, ms(0));
    assert_eq!(spend(&mut pacer, 1, ms(0), seconds(10)), 100);
    pacer.hold(1, 4, seconds(10));
    assert_eq!(pacer.budget(), 250.0);
    pacer.hold(4, 4, seconds(10));
    assert_eq!(pacer.budget(), 1_000.0);
}

/// What started, when, and how much of it was consumed.
type Starts = Vec<(Duration, f64)>;

/// Every window: within what `rate` earns in it, what it may keep, and `largest`.
fn assert_within(starts: &Starts, rate: f64, kept: f64, largest: f64) -> Result<(), TestCaseError> {
    for first in 0..starts.len() {
        let mut sum = 0.0;
        for (at, units) in &starts[first..] {
            sum += units;
            let window = (*at - starts[first].0).as_secs_f64();
            let bound = rate * window + kept + largest + 1e-3;
            prop_assert!(sum <= bound, "{sum} in {window} s, bound {bound}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// I8, with many waiters that come late, pauses of the process, refusals of every kind, units that are
    /// given back, credit, and a limit that is looked up anew and differs.
    #[test]
    fn never_above_the_budget_in_any_window(
        limits in prop::collection::vec(20u64..3_000, 1..4),
        credit_s in 0u64..3,
        requests in prop::collection::vec(
            (1u64..400, 0u64..4, 0u64..200, 0u64..=100, 0u64..12, 0u64..3_000),
            1..120,
        ),
    ) {
        let mut pacer = provisioned(limits[0], seconds(credit_s));
        let (mut now, mut starts, mut largest) = (Duration::ZERO, Starts::new(), 0.0_f64);
        let mut of_key: std::collections::BTreeMap<u64, Starts> = std::collections::BTreeMap::new();
        for (index, (units, key, gap_ms, percent, event, late_ms)) in requests.into_iter().enumerate() {
            now += ms(gap_ms);
            let keys = of(key, units);
            loop {
                match pacer.take(units, &keys, now) {
                    Turn::Start => break,
                    Turn::Table(wait) | Turn::Keys(wait) => now += wait + ms(late_ms / 10),
                }
            }
            let began = now;
            // The answer comes later; a process may have been paused meanwhile.
            now += ms(if event == 11 { late_ms } else { 5 });
            let consumed = units * percent / 100;
            pacer.settle(units, consumed as f64, &of(key, units - consumed), now);
            let why = [Throttle::Unknown, Throttle::Table, Throttle::Index, Throttle::KeyRange, Throttle::Account];
            if let Some(why) = why.get(event as usize) {
                pacer.refused(*why, &keys, began, now);
            }
            if event == 10 {
                let limit = limits[index % limits.len()];
                pacer.looked(Some(WriteCapacity::Provisioned(limit)), now);
            }
            starts.push((began, consumed as f64));
            of_key.entry(key).or_default().push((began, consumed as f64));
            largest = largest.max(units as f64);
        }
        let highest = limits.iter().copied().max().unwrap_or(0) as f64 * KEPT_OF_CAPACITY;
        let kept = highest * (SMOOTHING + seconds(credit_s)).as_secs_f64();
        assert_within(&starts, highest, kept, largest)?;
        // Nor above twice of it while credit is spent, nor a key above its own.
        assert_within(&starts, 2.0 * highest, 2.0 * highest * SMOOTHING.as_secs_f64(), largest)?;
        for starts in of_key.values() {
            assert_within(starts, 1_000.0, 1_000.0 * keys::DEPTH.as_secs_f64(), largest)?;
        }
    }

    /// Several sinks, each with the partitions that it holds; one after the other gives one back before
    /// another takes it. Together they stay within what one may spend alone.
    #[test]
    fn sinks_that_share_are_together_within_the_budget(
        limit in 50u64..3_000,
        sinks in 2usize..5,
        partitions in 1usize..7,
        moves in prop::collection::vec((0usize..100, 0usize..100, 10u64..900, prop::bool::ANY), 1..25),
        units in 1u64..300,
    ) {
        let settings = PaceSettings { key_units: None, ..PaceSettings::fixed(limit) };
        let mut pacers = vec![Pacer::new(settings, ms(0)); sinks];
        // Who holds each partition.
        let mut owner: Vec<Option<usize>> = (0..partitions).map(|partition| Some(partition % sinks)).collect();
        let mut now = Duration::ZERO;
        let held = |owner: &[Option<usize>], sink| owner.iter().filter(|of| **of == Some(sink)).count();
        for (sink, pacer) in pacers.iter_mut().enumerate() {
            pacer.hold(held(&owner, sink), partitions, now);
        }
        let mut starts = Starts::new();
        // What a process owes when it dies, nobody pays.
        let mut forgiven = 0;
        for (partition, to, for_ms, is_dead) in moves {
            let until = now + ms(for_ms);
            // Everybody who holds something writes as much as it may.
            while now < until {
                for (sink, pacer) in pacers.iter_mut().enumerate() {
                    if held(&owner, sink) > 0 && pacer.take(units, &[], now) == Turn::Start {
                        pacer.settle(units, units as f64, &[], now);
                        starts.push((now, units as f64));
                    }
                }
                now += ms(10);
            }
            let partition = partition % partitions;
            let from = owner[partition].take();
            if let Some(from) = from.filter(|_| !is_dead) {
                pacers[from].hold(held(&owner, from), partitions, now);
            }
            // A dead sink does not hear of it, and starts nothing.
            if let Some(from) = from.filter(|_| is_dead) {
                for of in owner.iter_mut().filter(|of| **of == Some(from)) {
                    *of = None;
                }
                forgiven += 1;
                pacers[from] = Pacer::new(settings, now);
                pacers[from].hold(0, partitions, now);
            }
            let to = to % sinks;
            owner[partition] = Some(to);
            pacers[to].hold(held(&owner, to), partitions, now);
        }
        let budget = limit as f64;
        let kept = budget * SMOOTHING.as_secs_f64();
        assert_within(&starts, budget, kept, (units * (sinks as u64 + forgiven)) as f64)?;
    }
}
