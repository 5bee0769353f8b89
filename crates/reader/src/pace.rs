//! Read units a second, held by a token bucket that believes what the service says a call consumed.
//!
//! What a call costs is known when it is answered. So each takes the most that it can cost before
//! it starts, and gives back afterwards what it did not consume.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Most read units of one page of a query: 1 MB, strongly consistent, at 4 KB a unit
/// (DynamoDB developer guide, "Query" and "Read consistency", read 2026-11-26).
pub(crate) const PAGE_UNITS: f64 = 256.0;

/// Most read units of one item: 400 KB, strongly consistent.
pub(crate) const ITEM_UNITS: f64 = 100.0;

/// A token bucket; time is an argument.
///
/// Of calls that start within a window of `w` seconds no more than `rate · w + capacity` units are
/// consumed, as long as none consumes more than it took.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    capacity: f64,
    level: f64,
    /// Units that calls under way have taken: they may come back, and must find room.
    taken: f64,
    /// When `level` was right.
    at: Duration,
}

impl Bucket {
    /// A full bucket for so many units a second; it holds those of one second, or a page's if
    /// that is more, since a page cannot be cut.
    fn new(rate: f64) -> Self {
        let capacity = rate.max(PAGE_UNITS);
        Self {
            rate,
            capacity,
            level: capacity,
            taken: 0.0,
            at: Duration::ZERO,
        }
    }

    /// Takes units, or says how long to wait before asking again.
    fn take(&mut self, now: Duration, units: f64) -> Result<(), Duration> {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        let room = self.capacity - self.taken;
        self.level = (self.level + passed * self.rate).min(room);
        self.at = self.at.max(now);
        let missing = units.min(self.capacity) - self.level;
        if missing <= 0.0 {
            self.level -= units;
            self.taken += units;
            return Ok(());
        }
        // Rounded up, so that the wait is always enough.
        let wait = Duration::from_secs_f64((missing / self.rate).min(3_600.0));
        Err(wait + Duration::from_micros(1))
    }

    /// A call that took units has consumed so many.
    fn settle(&mut self, taken: f64, consumed: f64) {
        self.taken = (self.taken - taken).max(0.0);
        self.level = (self.level + taken - consumed).min(self.capacity - self.taken);
    }
}

/// Lets calls start as the bucket has units for them, in the order in which they ask.
#[derive(Debug)]
pub(crate) struct Pace {
    bucket: Mutex<Bucket>,
    began: Instant,
    /// Whoever is first in line holds it while waiting.
    line: tokio::sync::Mutex<()>,
    settled: Notify,
}

impl Pace {
    pub(crate) fn new(read_units_per_second: f64) -> Self {
        Self {
            bucket: Mutex::new(Bucket::new(read_units_per_second)),
            began: Instant::now(),
            line: tokio::sync::Mutex::new(()),
            settled: Notify::new(),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Bucket) -> T) -> T {
        act(&mut self.bucket.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until a call that may cost so many units may start.
    pub(crate) async fn take(self: &Arc<Self>, units: f64) -> Taken {
        let _first = self.line.lock().await;
        while let Err(wait) = self.with(|bucket| bucket.take(self.began.elapsed(), units)) {
            // Another call may give back earlier what it did not consume.
            let _ = tokio::time::timeout(wait, self.settled.notified()).await;
        }
        Taken {
            pace: Arc::clone(self),
            units,
            consumed: units,
        }
    }
}

/// What a call under way has taken. Unless it says otherwise all of it counts as consumed: a call that
/// failed or was given up may have been carried out.
#[derive(Debug)]
pub(crate) struct Taken {
    pace: Arc<Pace>,
    units: f64,
    consumed: f64,
}

impl Taken {
    pub(crate) fn consumed(mut self, units: f64) {
        self.consumed = units;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.pace
            .with(|bucket| bucket.settle(self.units, self.consumed));
        self.pace.settled.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_bucket_lets_a_second_go_and_then_the_rate() {
        let mut bucket = Bucket::new(1_000.0);
        let second = Duration::from_secs(1);
        for _ in 0..3 {
            assert_eq!(bucket.take(second, 256.0), Ok(()));
            bucket.settle(256.0, 256.0);
        }
        let wait = bucket.take(second, 256.0).expect_err("232 are left");
        assert!(wait >= Duration::from_millis(24) && wait < Duration::from_millis(25));
        assert_eq!(bucket.take(second + wait, 256.0), Ok(()));
        // Room is kept for what may come back.
        let later = second * 10;
        bucket
            .take(later, 750.0)
            .expect_err("744 and what is under way");
        bucket.settle(256.0, 1.0);
        assert_eq!(bucket.take(later, 750.0), Ok(()));
        // More than the bucket holds is let go when it is full, and paid for afterwards.
        let mut slow = Bucket::new(1.0);
        assert_eq!(slow.take(second, 300.0), Ok(()));
        slow.settle(300.0, 300.0);
        let wait = slow.take(second, 1.0).expect_err("in debt");
        assert!(wait >= Duration::from_secs(45), "{wait:?}");
    }

    proptest! {
        #[test]
        fn no_window_goes_above_rate_and_burst(
            rate in 1.0f64..5_000.0,
            calls in prop::collection::vec((1.0f64..=PAGE_UNITS, 0.0f64..=1.0, 0u64..50, 0usize..4), 1..60),
        ) {
            let mut bucket = Bucket::new(rate);
            let capacity = bucket.capacity;
            let mut now = Duration::ZERO;
            let mut started: Vec<(f64, f64)> = Vec::new();
            let mut open: Vec<(f64, f64)> = Vec::new();
            for (taken, share, pause_ms, keep_open) in calls {
                now += Duration::from_millis(pause_ms);
                while let Err(wait) = bucket.take(now, taken) {
                    now += wait;
                    if let Some((taken, consumed)) = open.pop() {
                        bucket.settle(taken, consumed);
                    }
                }
                let consumed = taken * share;
                started.push((now.as_secs_f64(), consumed));
                open.push((taken, consumed));
                while open.len() > keep_open {
                    let (taken, consumed) = open.remove(0);
                    bucket.settle(taken, consumed);
                }
                for (index, (from, _)) in started.iter().enumerate() {
                    let within: f64 = started[index..].iter().map(|(_, units)| units).sum();
                    let most = rate * (now.as_secs_f64() - from) + capacity + 1e-6;
                    prop_assert!(within <= most, "{within} above {most}");
                }
            }
        }
    }
}
