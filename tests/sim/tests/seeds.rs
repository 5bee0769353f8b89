//! The same seed gives the same trace; then, many seeds.
#![expect(clippy::print_stdout, reason = "figures, and what replays a failure")]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use millpond_sim::campaign::{campaign, threads};
use millpond_sim::run::run;
use millpond_sim::scenario::{Cuts, Fault, Mode, Scenario};
use millpond_sim::shrink::shrink;
use millpond_sink::gaps::OnGap;

/// Seeds of one run of this test, unless `MILLPOND_SIM_SEEDS` says otherwise.
const SEEDS: u64 = 2_000;

/// Before anything else is believed.
#[test]
fn the_same_seed_gives_the_same_trace() {
    let first: Mutex<BTreeMap<u64, Vec<String>>> = Mutex::default();
    let keep = |outcome: &millpond_sim::run::Outcome| {
        first
            .lock()
            .expect("lock")
            .insert(outcome.seed, outcome.trace.clone());
    };
    campaign(0..60, &Cuts::default(), threads(), &keep);
    let first = first.into_inner().expect("lock");
    assert_eq!(first.len(), 60);
    // Now in another order, and one at a time.
    for (seed, trace) in first.iter().rev() {
        let again = run(*seed, &Cuts::default());
        let differs = trace.iter().zip(&again.trace).position(|(a, b)| a != b);
        if let Some(line) = differs {
            panic!(
                "seed {seed}, line {line}: first `{}`, then `{}`",
                trace[line], again.trace[line]
            );
        }
        assert_eq!(trace.len(), again.trace.len(), "seed {seed}");
    }
    let traces: std::collections::BTreeSet<_> = first.values().collect();
    assert_eq!(traces.len(), first.len(), "two seeds, one trace");
}

#[test]
fn no_seed_breaks_a_rule() {
    let wanted = std::env::var("MILLPOND_SIM_SEEDS").ok();
    let seeds = wanted.and_then(|text| text.parse().ok()).unwrap_or(SEEDS);
    let seen: Mutex<BTreeMap<&str, u64>> = Mutex::default();
    let begun = Instant::now();
    let found = campaign(0..seeds, &Cuts::default(), threads(), &|outcome| {
        let mut seen = seen.lock().expect("lock");
        *seen.entry("events").or_default() += outcome.events as u64;
        *seen.entry("items").or_default() += outcome.items as u64;
        *seen.entry("dead letters").or_default() += outcome.dead as u64;
        *seen.entry("late events").or_default() += outcome.late as u64;
        *seen.entry("gaps").or_default() += outcome.gaps as u64;
        *seen.entry("seeds with chains that grew").or_default() += u64::from(outcome.spread > 0);
        for fault in Fault::ALL {
            let word = format!(" !{}", fault.name());
            let count = outcome.trace.iter().filter(|line| line.ends_with(&word));
            *seen.entry(fault.name()).or_default() += count.count() as u64;
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    let seen = seen.into_inner().expect("lock");
    println!("{:.0} seeds/s, {seen:?}", seeds as f64 / seconds);
    if let Some(outcome) = found {
        panic!("{}", shrink(&outcome, &Cuts::default()).story());
    }
    // What never happens proves nothing.
    for fault in Fault::ALL {
        let silent = *fault == Fault::Skew;
        let count = seen[fault.name()];
        // In most seeds the topic keeps what it must keep.
        let least = match fault {
            Fault::Lost => seeds / 100,
            _ => seeds / 50,
        };
        assert!(
            silent || count > least,
            "{} happened {count} times",
            fault.name()
        );
    }
    for (what, least) in [
        ("items", seeds),
        ("dead letters", seeds / 10),
        ("gaps", seeds / 400),
        ("late events", seeds / 400),
        ("seeds with chains that grew", seeds / 50),
    ] {
        assert!(seen[what] > least, "{} {what}", seen[what]);
    }
}

#[test]
fn every_mode_and_a_wrong_clock_are_among_the_seeds() {
    let scenarios: Vec<_> = (0..200)
        .map(|seed| Scenario::of(seed, &Cuts::default()))
        .collect();
    for mode in [Mode::Plain, Mode::ByKey, Mode::ByJob, Mode::Constant] {
        assert!(
            scenarios
                .iter()
                .any(|scenario| scenario.configs[0].mode == mode),
            "{mode:?}"
        );
    }
    let skewed = |scenario: &&Scenario| scenario.rate(Fault::Skew) > 0;
    assert!(scenarios.iter().filter(skewed).count() > 50);
    assert!(scenarios.iter().any(|scenario| scenario.aggregates));
    assert!(
        scenarios
            .iter()
            .any(|scenario| scenario.sharing_sources.is_some())
    );
    assert!(
        scenarios
            .iter()
            .any(|scenario| scenario.sharing_sinks.is_some())
    );
    assert!(scenarios.iter().any(|scenario| scenario.configs[0].filter));
    assert!(scenarios.iter().any(|scenario| !scenario.letters_apart));
    for on_gap in [OnGap::Halt, OnGap::Record] {
        let loses =
            |scenario: &Scenario| scenario.rate(Fault::Lost) > 0 && scenario.on_gap == on_gap;
        assert!(scenarios.iter().any(loses), "{on_gap:?}");
    }
    assert!(scenarios.iter().any(|scenario| scenario.budget.is_some()));
}
