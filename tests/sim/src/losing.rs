//! The topic is lost and made anew.

use std::sync::atomic::Ordering;
use std::time::Duration;

use millpond_sink::claim::StaleWrites;

use crate::scenario::Scenario;
use crate::world::{World, lock};

/// A topic is lost so often at most: each time everything that is not in the table is read again.
const MAX_LOSSES: u64 = 3;

/// A write that timed out has its effect within so many milliseconds, where the topic may be lost.
pub const LATE_MS: u64 = 3_000;

/// The same in other worlds.
pub const LATE_MS_ELSEWHERE: u64 = 20_000;

/// Times that fit a run of some seconds. What is sent takes as long as a late effect, and the caller's time out.
pub const STALE_WRITES: StaleWrites = StaleWrites {
    look_again: Duration::from_secs(4),
    arrives_within: Duration::from_millis(LATE_MS + 100),
};

/// When what a stale writer sent has an end.
#[must_use]
pub fn stale_writes(scenario: &Scenario) -> StaleWrites {
    match scenario.loses_topic {
        true => STALE_WRITES,
        false => StaleWrites {
            arrives_within: Duration::from_millis(LATE_MS_ELSEWHERE + 100),
            ..STALE_WRITES
        },
    }
}

impl World {
    /// Loses the topic, if it was not lost too often. Sources die with it; a sink dies, or lives on with its end of a topic
    /// that is closed, some of them after a long pause.
    pub fn lose_topic(&self) {
        if self.generation.load(Ordering::Relaxed) >= MAX_LOSSES {
            return;
        }
        let released = self.log.lose();
        lock(&self.oracle).topic_lost(&released);
        self.generation.fetch_add(1, Ordering::Relaxed);
        self.note("the topic is lost and made anew");
        let processes = lock(&self.processes).clone();
        for process in processes.iter().filter_map(std::sync::Weak::upgrade) {
            let dies = process.name.starts_with("source") || self.dice.chance("dies with it", 200);
            if dies {
                process.kill();
                continue;
            }
            // It wakes while another one takes the partition, before it has to look, or when all is over.
            let ms = match self.dice.below("pauses then", 6) {
                0 => continue,
                1..=3 => self.dice.between("pauses for long", 7_500, 14_000),
                _ => self.dice.between("pauses for", 500, 4_000),
            };
            process.pause(Duration::from_millis(ms));
        }
        self.topic_lost.notify_waiters();
        self.log.news.notify_waiters();
    }
}
