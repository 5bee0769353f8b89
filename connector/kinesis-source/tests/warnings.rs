//! Warnings of the clock on data loss, as they stand in the log. In a program of its own: a log is the whole process's.

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use millpond_kinesis_source::config::SourceConfig;
use support::log::Log;
use support::world::World;
use support::{context, spawn, until};
use tokio::time::{Instant, sleep_until};

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test(start_paused = true)]
async fn the_log_warns_at_each_threshold_and_again_after_ten_minutes() {
    let log = Log::default();
    log.listen();
    let world = World::new(1, 1);
    world.topic.held_for_hours.store(true, Ordering::Relaxed);
    world.topic.held.store(true, Ordering::Relaxed);
    world.stream.put_many(40);
    let source = world.source(SourceConfig::default());
    let running = spawn(Box::new(source), context(&world.topic));
    let said = |level: &str| log.count(&["of the stream", level]);
    let expected = [
        // Hours, and whether anything was said of this level by then.
        (11.9, [false, false, false]),
        (12.1, [true, false, false]),
        (17.9, [true, false, false]),
        (18.1, [true, true, false]),
        (21.5, [true, true, false]),
        (21.7, [true, true, true]),
    ];
    let began = Instant::now();
    for (hours, levels) in expected {
        sleep_until(began + HOUR.mul_f64(hours)).await;
        let found = ["notable", "urgent", "critical"].map(|level| said(level) > 0);
        assert_eq!(found, levels, "after {hours} hours");
    }
    // Six hours of notable, each ten minutes.
    assert!((34..=38).contains(&said("notable")), "{}", said("notable"));
    assert_eq!(log.count(&["ERROR", "notable"]), 0);
    assert_eq!(log.count(&["ERROR", "critical"]), said("critical"));
    world.topic.held.store(false, Ordering::Relaxed);
    until("no longer near a loss", || {
        log.count(&["no longer near a loss"]) == 1
    })
    .await;
    running.drained().await;
}
