//! A token bucket on write units, whose rate may change. Time is an argument.
//!
//! A request may start when nothing is owed, and owes its units from then on. So its size does not
//! matter to whoever waits behind it, and one that is larger than a second's budget is no special case.
//! It takes its units when it starts, and not before: starts promised ahead would all come
//! at once after a pause of the process (I8).
//!
//! In any window the units of the requests that started in it are at most what the rate earned in the
//! window, what the bucket holds, and the last request.

use std::time::Duration;

/// Parts of a unit that are counted: one nanosecond at a thousandth of a unit a second.
const UNIT: i128 = 1_000_000_000_000;

/// Units a second, in thousandths; at least one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

impl Rate {
    /// From units a second; what is no number or below a thousandth is a thousandth.
    #[must_use]
    pub fn of(units_per_second: f64) -> Self {
        Self((units_per_second * 1_000.0).clamp(1.0, 1e15) as u64)
    }

    /// Thousandths of units a second.
    #[must_use]
    pub const fn milli(self) -> u64 {
        self.0
    }
}

/// Write units that may be spent. Whoever may not start yet asks again; others must not ask meanwhile.
#[derive(Debug, Clone)]
pub struct Bucket {
    rate: Rate,
    /// Of how much time the earnings are kept.
    depth: Duration,
    /// Parts of units that are there at `at`; negative is debt.
    level: i128,
    at: Duration,
}

impl Bucket {
    /// Nothing is owed, and nothing is there.
    #[must_use]
    pub fn new(rate: Rate, depth: Duration, now: Duration) -> Self {
        Self {
            rate,
            depth,
            level: 0,
            at: now,
        }
    }

    /// Another rate from now on. What is owed stays owed; what is there beyond the new depth is gone.
    pub fn set_rate(&mut self, rate: Rate, now: Duration) {
        self.refill(now);
        self.rate = rate;
        self.level = self.level.min(self.full());
    }

    /// Keeps the earnings of another time from now on.
    pub fn set_depth(&mut self, depth: Duration, now: Duration) {
        self.refill(now);
        self.depth = depth;
        self.level = self.level.min(self.full());
    }

    /// How long until a request may start.
    pub fn wait(&mut self, now: Duration) -> Duration {
        self.refill(now);
        let owed = (-self.level).max(0);
        let rate = i128::from(self.rate.0);
        let nanos = owed / rate + i128::from(owed % rate != 0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// A request of so many units starts.
    pub fn take(&mut self, units: u64) {
        self.level = self.level.saturating_sub(i128::from(units) * UNIT);
    }

    /// So many units were taken and not consumed; below zero, consumed and not taken.
    pub fn give_back(&mut self, units: f64) {
        let parts = (units.clamp(-1e15, 1e15) * UNIT as f64) as i128;
        self.level = self.level.saturating_add(parts).min(self.full());
    }

    /// True when it can hold no more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.level >= self.full()
    }

    fn full(&self) -> i128 {
        i128::from(self.rate.0).saturating_mul(self.depth.as_nanos() as i128)
    }

    fn refill(&mut self, now: Duration) {
        let nanos = now.saturating_sub(self.at).as_nanos() as i128;
        let earned = nanos.saturating_mul(self.rate.0.into());
        self.level = self.level.saturating_add(earned).min(self.full());
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn bucket(units: f64, depth: Duration) -> Bucket {
        Bucket::new(Rate::of(units), depth, Duration::ZERO)
    }

    #[test]
    fn a_request_starts_when_nothing_is_owed() {
        let mut bucket = bucket(100.0, ms(100));
        assert_eq!(bucket.wait(ms(0)), ms(0));
        bucket.take(60);
        assert_eq!(bucket.wait(ms(0)), ms(600));
        assert_eq!(bucket.wait(ms(250)), ms(350));
        assert_eq!(bucket.wait(ms(600)), ms(0));
        bucket.take(400);
        assert_eq!(bucket.wait(ms(600)), ms(4_000));
    }

    #[test]
    fn a_pause_earns_no_more_than_the_depth() {
        let mut bucket = bucket(100.0, ms(100));
        assert_eq!(bucket.wait(ms(60_000)), ms(0));
        assert!(bucket.is_full());
        bucket.take(10);
        assert_eq!(bucket.wait(ms(60_000)), ms(0));
        bucket.take(10);
        assert_eq!(bucket.wait(ms(60_000)), ms(100));
    }

    #[test]
    fn debt_is_paid_at_the_rate_of_the_time() {
        let mut bucket = bucket(100.0, ms(100));
        bucket.take(100);
        bucket.set_rate(Rate::of(50.0), ms(500));
        assert_eq!(bucket.wait(ms(500)), ms(1_000));
        bucket.set_rate(Rate::of(0.0), ms(500));
        assert_eq!(bucket.wait(ms(500)), ms(50_000_000));
    }

    #[test]
    fn what_was_not_consumed_comes_back_and_no_more() {
        let mut bucket = bucket(100.0, ms(100));
        bucket.take(100);
        bucket.give_back(70.0);
        assert_eq!(bucket.wait(ms(0)), ms(300));
        bucket.give_back(1_000.0);
        assert!(bucket.is_full());
        bucket.give_back(-110.0);
        assert_eq!(bucket.wait(ms(0)), ms(1_000));
    }

    proptest! {
        /// Any window, with rates that change, requests larger than a second's budget, waiters that come
        /// late and units that are given back.
        #[test]
        fn never_above_what_the_rates_earned_in_any_window(
            requests in prop::collection::vec(
                (1u64..1_000, 0u64..700, 0u64..=100, 0u64..3_000, prop::option::weighted(0.2, 1u32..2_000)),
                1..60,
            ),
            depth_ms in 0u64..2_000,
            first in 1u32..2_000,
        ) {
            let mut rate = f64::from(first);
            let mut highest = rate;
            let mut bucket = bucket(rate, ms(depth_ms));
            let mut now = Duration::ZERO;
            // When requests started, what they consumed, and what had been earned by then.
            let mut starts: Vec<(f64, f64)> = Vec::new();
            let (mut earned, mut counted) = (0.0, Duration::ZERO);
            let mut largest = 0.0_f64;
            for (units, gap_ms, percent, late_ms, change) in requests {
                now += ms(gap_ms);
                while let wait = bucket.wait(now)
                    && !wait.is_zero()
                {
                    now += wait + ms(late_ms);
                }
                earned += rate * (now - counted).as_secs_f64();
                counted = now;
                bucket.take(units);
                let consumed = units as f64 * percent as f64 / 100.0;
                bucket.give_back(units as f64 - consumed);
                starts.push((earned, consumed));
                largest = largest.max(units as f64);
                if let Some(units) = change {
                    rate = f64::from(units);
                    highest = highest.max(rate);
                    bucket.set_rate(Rate::of(rate), now);
                }
            }
            let held = highest * depth_ms as f64 / 1_000.0;
            for first in 0..starts.len() {
                let mut sum = 0.0;
                for (earned, consumed) in &starts[first..] {
                    sum += consumed;
                    let bound = earned - starts[first].0 + held + largest + 1e-3;
                    prop_assert!(sum <= bound, "{sum} units, bound {bound}");
                }
            }
        }
    }
}
