//! What was consumed lately.

use std::time::Duration;

/// Seconds of which an average is made: items of hundreds of units make a single one say little.
const SECONDS: usize = 3;

/// Slices of a second.
const SLICES: usize = 10;

/// Units consumed, by tenths of seconds.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    slices: [f64; SECONDS * SLICES],
    /// Number of the newest slice since time began.
    newest: u64,
    total: f64,
}

impl Meter {
    /// So many units were consumed.
    pub fn add(&mut self, units: f64, now: Duration) {
        self.forget(now);
        self.total += units.max(0.0);
        let at = Self::at(self.newest);
        self.slices[at] += units.max(0.0);
    }

    /// Units since time began.
    #[must_use]
    pub const fn total(&self) -> f64 {
        self.total
    }

    /// Units a second, of late.
    pub fn rate(&mut self, now: Duration) -> f64 {
        self.forget(now);
        let since = now.as_secs_f64().clamp(1.0, SECONDS as f64);
        self.slices.iter().sum::<f64>() / since
    }

    fn at(slice: u64) -> usize {
        (slice % (SECONDS * SLICES) as u64) as usize
    }

    fn forget(&mut self, now: Duration) {
        let slice = (now.as_millis() / (1_000 / SLICES as u128)) as u64;
        let passed = slice.saturating_sub(self.newest);
        for number in 0..passed.min((SECONDS * SLICES) as u64) {
            self.slices[Self::at(slice - number)] = 0.0;
        }
        self.newest = self.newest.max(slice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_seconds_are_kept() {
        let mut meter = Meter::default();
        let ms = Duration::from_millis;
        for tenth in 0..30 {
            meter.add(10.0, ms(tenth * 100));
        }
        assert_eq!(meter.rate(ms(2_999)).round(), 100.0);
        assert_eq!(meter.rate(ms(4_400)), 50.0);
        assert_eq!(meter.rate(ms(60_000)), 0.0);
        meter.add(6.0, ms(60_000));
        assert_eq!(meter.rate(ms(60_050)), 2.0);
        assert_eq!(meter.total(), 306.0);
    }
}
