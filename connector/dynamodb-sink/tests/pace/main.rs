//! The writer as it is, on virtual time, against a table that takes what DynamoDB would: how much of the limit is
//! used, and how much is refused.

#[path = "../../examples/pace/drive.rs"]
mod drive;
#[path = "../../examples/pace/plot.rs"]
mod plot;
#[path = "../../examples/pace/runs.rs"]
mod runs;

use std::path::Path;
use std::time::Duration;

use drive::{Course, drive};
use millpond_dynamodb_sink::pacing::PaceSettings;
use millpond_dynamodb_sink::spread::WriteShards;
use runs::{Known, Run, alone, burst, changing, hot, steady};

/// Sustained use is at least this part of the limit.
const USED: f64 = 0.95;

/// At most this part of the requests is throttled.
const THROTTLED: f64 = 0.01;

fn assert_paced(run: &Run, course: &Course) {
    let name = run.name;
    let used = course.used(run.sustained(course));
    assert!(
        (USED..=1.02).contains(&used),
        "{name}: {used:.3} of the limit, seed {}",
        drive::SEED
    );
    let throttled = course.throttled();
    assert!(
        throttled < THROTTLED,
        "{name}: {throttled:.4} of the requests are throttled, seed {}",
        drive::SEED
    );
}

#[test]
fn a_steady_load_uses_the_limit() {
    for known in Known::ALL {
        let run = steady(known);
        let course = drive(&run);
        assert_paced(&run, &course);
    }
}

#[test]
fn a_burst_of_twenty_times_the_load_becomes_a_stream_at_the_limit() {
    for known in Known::ALL {
        let run = burst(known);
        let course = drive(&run);
        let drained = course.drained_by(runs::BURST.end);
        assert!(
            drained > runs::BURST.end + 20,
            "there was a backlog: {drained}"
        );
        assert!(drained + 10 < run.seconds, "it was worked off: {drained}");
        assert_paced(&run, &course);
    }
}

#[test]
fn credit_is_not_spent_by_accident_and_is_spent_on_purpose() {
    let mut run = burst(Known::Provisioned);
    let without = drive(&run);
    // It was idle enough for the table to have all the credit that there is.
    let most = without.most_in_ten_seconds();
    assert!(most <= run.limit * 10.0, "{most} in ten seconds");
    run.settings.burst_credit = PaceSettings::MAX_BURST_CREDIT;
    let with = drive(&run);
    assert!(with.throttled() < THROTTLED, "{}", with.throttled());
    let (slow, quick) = (
        without.drained_by(runs::BURST.end),
        with.drained_by(runs::BURST.end),
    );
    assert!(quick + 60 < slow, "drained by second {quick}, not {slow}");
    assert!(with.most_in_ten_seconds() <= run.limit * 20.0);
}

#[test]
fn one_hot_group_has_its_limit_and_the_others_have_the_rest() {
    for known in Known::ALL {
        let run = hot(known);
        let course = drive(&run);
        assert_paced(&run, &course);
        let of_key = course.of_key(runs::HOT_KEY, 60..run.seconds);
        assert!(
            (950.0..=1_000.0).contains(&of_key),
            "{of_key} units a second"
        );
        assert_eq!(
            course.hot,
            [runs::HOT_KEY],
            "its group should be spread, no other"
        );
    }
}

#[test]
fn one_group_alone_comes_to_the_limit_of_the_table_over_as_many_keys_as_it_needs() {
    for known in Known::ALL {
        let run = alone(known, WriteShards::Fixed(1));
        let under_one_key = drive(&run).used(run.sustained(&Course::default()));
        assert!(
            (0.13..0.15).contains(&under_one_key),
            "a seventh: {under_one_key}"
        );
        let run = alone(known, WriteShards::Auto);
        let course = drive(&run);
        assert_paced(&run, &course);
        // Who learns takes the table's credit, too, and needs more keys while it lasts.
        let most = match known {
            Known::Provisioned => 16,
            Known::Hidden => 32,
        };
        let keys = course.keys();
        assert!((8..=most).contains(&keys), "{keys} keys, 8 are needed");
    }
}

#[test]
fn a_limit_that_changes_under_way_is_followed() {
    for known in Known::ALL {
        let run = changing(known);
        let course = drive(&run);
        assert_paced(&run, &course);
    }
}

#[test]
fn the_plots_are_what_the_writer_does() {
    for run in runs::plotted() {
        let plot = plot::svg(&run, &drive(&run));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(run.plot());
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == plot,
            "{} is another one: run `just pace-plots`",
            path.display()
        );
    }
}

/// The same seed, the same course.
#[test]
fn a_run_repeats_itself() {
    let run = Run {
        seconds: 30,
        ..changing(Known::Hidden)
    };
    assert_eq!(drive(&run), drive(&run));
    assert!(Duration::from_secs(30) > drive::LATENCY);
}
