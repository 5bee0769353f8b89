//! A token bucket on write units. Pure: `now` is an argument, and the answer is how long to wait.
//!
//! It holds the units of one second. A request takes its units when it starts, and not before: starts
//! promised ahead would all come at once after a pause of the process (I8). One that is larger than
//! the bucket starts when the bucket is full and leaves a debt, which later requests wait out.

use std::time::Duration;

/// Nano-units: exact arithmetic with rates of up to 2^40 units a second.
const SCALE: i128 = 1_000_000_000;

/// A budget of write units. Whoever may not start yet asks again; others must not ask meanwhile.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    /// Units a second.
    rate: i128,
    /// Nano-units that are there at `at`; negative is debt.
    level: i128,
    /// Time since the bucket was made up to which `level` is counted.
    at: Duration,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub fn new(units_per_second: u64) -> Self {
        let rate = i128::from(units_per_second.max(1));
        Self {
            rate,
            level: rate * SCALE,
            at: Duration::ZERO,
        }
    }

    /// Takes `units` for a request that starts now and answers zero; or takes nothing and answers
    /// when to ask again.
    ///
    /// `now` counts from the making of the bucket. What was taken cannot be given back, but
    /// [`TokenBucket::settle`] corrects it once the units consumed are known.
    pub fn take(&mut self, units: u64, now: Duration) -> Duration {
        self.refill(now);
        let units = i128::from(units) * SCALE;
        let needed = units.min(self.rate * SCALE);
        if self.level < needed {
            // One nanosecond earns `rate` nano-units.
            let missing = needed - self.level;
            let wait = missing.div_euclid(self.rate) + i128::from(missing % self.rate != 0);
            return Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX));
        }
        self.level -= units;
        Duration::ZERO
    }

    /// Corrects what was taken by what the service says it consumed.
    pub fn settle(&mut self, taken: u64, consumed: f64) {
        let consumed = (consumed.clamp(0.0, 1e15) * SCALE as f64) as i128;
        let given_back = i128::from(taken) * SCALE - consumed;
        self.level = (self.level + given_back).min(self.rate * SCALE);
    }

    fn refill(&mut self, now: Duration) {
        if now <= self.at {
            return;
        }
        let nanos = (now - self.at).as_nanos() as i128;
        let full = self.rate * SCALE;
        self.level = self
            .level
            .saturating_add(nanos.saturating_mul(self.rate))
            .min(full);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Duration = Duration::ZERO;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_burst_of_one_second_then_the_rate() {
        let mut bucket = TokenBucket::new(100);
        assert_eq!(bucket.take(60, NOW), NOW);
        assert_eq!(bucket.take(40, NOW), NOW);
        assert_eq!(bucket.take(10, NOW), ms(100));
        assert_eq!(bucket.take(10, ms(40)), ms(60));
        assert_eq!(bucket.take(10, ms(100)), NOW);
        assert_eq!(bucket.take(10, ms(100)), ms(100));
    }

    #[test]
    fn a_request_larger_than_the_bucket_goes_into_debt() {
        let mut bucket = TokenBucket::new(100);
        assert_eq!(bucket.take(400, NOW), NOW);
        assert_eq!(bucket.take(1, NOW), ms(3_010));
    }

    #[test]
    fn a_pause_earns_no_more_than_a_burst() {
        let mut bucket = TokenBucket::new(100);
        assert_eq!(bucket.take(100, NOW), NOW);
        assert_eq!(bucket.take(100, NOW), ms(1_000));
        // Asked again long after: one may start, the next may not.
        assert_eq!(bucket.take(100, ms(5_000)), NOW);
        assert_eq!(bucket.take(100, ms(5_000)), ms(1_000));
    }

    #[test]
    fn what_was_not_consumed_comes_back_and_no_more() {
        let mut bucket = TokenBucket::new(100);
        bucket.take(100, NOW);
        bucket.settle(100, 30.0);
        assert_eq!(bucket.take(70, NOW), NOW);
        bucket.settle(70, 1_000.0);
        assert_eq!(bucket.take(1, NOW), ms(9_310));
    }

    proptest! {
        /// Any window of the starts: at most rate x window, one burst, and one request that is
        /// larger than the bucket. The service may consume less than was reserved, not more.
        #[test]
        fn never_above_the_budget_in_any_window(
            rate in 1u64..2_000,
            requests in prop::collection::vec((1u64..1_000, 0u64..700, 0u64..=100), 1..60),
            late_ms in 0u64..3_000,
        ) {
            let mut bucket = TokenBucket::new(rate);
            let mut now = Duration::ZERO;
            let mut starts: Vec<(Duration, f64)> = Vec::new();
            let mut largest = rate as f64;
            for (units, gap_ms, percent) in requests {
                now += Duration::from_millis(gap_ms);
                // It may be asked late.
                while let wait = bucket.take(units, now)
                    && !wait.is_zero()
                {
                    now += wait + ms(late_ms);
                }
                let consumed = units as f64 * percent as f64 / 100.0;
                bucket.settle(units, consumed);
                starts.push((now, consumed));
                largest = largest.max(units as f64);
            }
            for first in 0..starts.len() {
                prop_assert!(first == 0 || starts[first - 1].0 <= starts[first].0);
                let mut sum = 0.0;
                for (start, consumed) in &starts[first..] {
                    sum += consumed;
                    let window = (*start - starts[first].0).as_secs_f64();
                    let bound = rate as f64 * window + largest + 1e-3;
                    prop_assert!(sum <= bound, "{sum} in {window} s, bound {bound}");
                }
            }
        }
    }
}
