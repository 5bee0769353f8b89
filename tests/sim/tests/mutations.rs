//! The simulation must find mistakes: each of these, within a stated number of seeds.
#![expect(clippy::print_stdout, reason = "what each took")]

use millpond_connector::mutation::Mutation;
use millpond_sim::campaign::{campaign, threads};
use millpond_sim::run::run;
use millpond_sim::scenario::Cuts;
use millpond_sim::shrink::shrink;

/// Seeds within which a mistake must be found.
const WITHIN: u64 = 400;

/// The same for a mistake that shows only where one sink takes over between two awaits of another: it was
/// a real one, and the simulation found it.
const RARE_WITHIN: u64 = 1_500;

/// Seeds that are looked at for one that is told in a handful of faults.
const TOLD: usize = 4;

fn within(mutation: Mutation) -> u64 {
    match mutation {
        Mutation::CommitNotNumbered => RARE_WITHIN,
        _ => WITHIN,
    }
}

fn with(mutation: Mutation) -> Cuts {
    Cuts {
        mutation: Some(mutation),
        ..Cuts::default()
    }
}

#[test]
fn every_mistake_is_found() {
    let mut missed = Vec::new();
    for mutation in Mutation::ALL {
        let within = within(mutation);
        let found = campaign(0..within, &with(mutation), threads(), &|_| {});
        let Some(outcome) = found else {
            missed.push(mutation);
            println!("{mutation:?}: not found in {within} seeds");
            continue;
        };
        let violation = outcome.violation.as_ref().expect("found");
        println!(
            "{mutation:?}: found by seed {} of {within}, {}: {}",
            outcome.seed, violation.rule, violation.what
        );
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn a_found_mistake_is_told_shorter_and_replays_from_its_command() {
    let cuts = with(Mutation::UnprocessedIgnored);
    let mut seeds = 0..WITHIN;
    // Where faults come thick, some seeds need many of them: one of the first few is told in a handful.
    let told = (0..TOLD).find_map(|_| {
        let found = campaign(seeds.clone(), &cuts, threads(), &|_| {}).expect("found");
        seeds.start = found.seed + 1;
        let shrunk = shrink(&found, &cuts);
        let story = shrunk.story();
        assert!(shrunk.outcome.trace.len() < found.trace.len(), "{story}");
        let (faults, before) = (shrunk.outcome.faults, found.faults);
        assert!(faults * 4 <= before, "{faults} of {before} faults: {story}");
        (faults <= 8).then_some((found, shrunk, story))
    });
    let (found, shrunk, story) = told.expect("one of them in eight faults");
    let command = shrunk.command();
    assert!(story.contains(&command) && command.contains("--mutation UnprocessedIgnored"));
    let again = run(found.seed, &shrunk.cuts);
    assert_eq!(again.trace, shrunk.outcome.trace);
    // The product as it is breaks nothing there.
    let right = Cuts {
        mutation: None,
        ..shrunk.cuts
    };
    assert_eq!(run(found.seed, &right).violation, None);
}
