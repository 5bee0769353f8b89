//! Whether a shard moves, and how much it gives. Pure: `now` is an argument.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The mean reaches back about so long.
const MEMORY: Duration = Duration::from_secs(60);

/// Until when a shard's reader waits because the pace, or the service, says so. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rest(Arc<Mutex<Option<Instant>>>);

impl Rest {
    pub(crate) fn until(&self, end: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = end;
    }

    fn end(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of a shard that is read here.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    /// Longest time without any.
    patience: Duration,
    moved: Instant,
    rest: Rest,
    bytes: u64,
    counted: Instant,
    per_second: f64,
}

impl Progress {
    /// A shard that is begun now, and gave `per_second` bytes a second before. It counts as stalled after
    /// `patience` without progress, for which a rest does not count.
    pub(crate) fn new(now: Instant, patience: Duration, per_second: u64, rest: Rest) -> Self {
        Self {
            patience,
            moved: now,
            rest,
            bytes: 0,
            counted: now,
            per_second: per_second as f64,
        }
    }

    /// An answer came, with so many bytes; or events became durable.
    pub(crate) fn moved(&mut self, now: Instant, bytes: u64) {
        self.moved = now;
        self.bytes += bytes;
    }

    /// True when nothing moved for too long. A shard without news is asked all the same, and
    /// each answer counts: so data waits, or might.
    pub(crate) fn is_stalled(&self, now: Instant) -> bool {
        now >= self.stalls_at()
    }

    /// When it will count as stalled.
    pub(crate) fn stalls_at(&self) -> Instant {
        self.rest.end().unwrap_or(self.moved).max(self.moved) + self.patience
    }

    /// Bytes a second, a mean of the last minute or so.
    pub(crate) fn bytes_per_second(&mut self, now: Instant) -> u64 {
        let seconds = now.saturating_duration_since(self.counted).as_secs_f64();
        if seconds >= 1.0 {
            let latest = self.bytes as f64 / seconds;
            let weight = 1.0 - (-seconds / MEMORY.as_secs_f64()).exp();
            self.per_second += weight * (latest - self.per_second);
            self.bytes = 0;
            self.counted = now;
        }
        // Not negative, and a rate below one byte a second is none.
        self.per_second as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_follows_and_forgets() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut progress = Progress::new(start, Duration::from_secs(30), 0, Rest::default());
        for second in 1..=300 {
            progress.moved(at(second), 5_000);
            progress.bytes_per_second(at(second));
        }
        let steady = progress.bytes_per_second(at(300));
        assert!((4_900..=5_000).contains(&steady), "{steady}");
        let later = progress.bytes_per_second(at(360));
        assert!((1_700..=1_900).contains(&later), "{later}");
        assert_eq!(progress.bytes_per_second(at(3_600)), 0);
        // It goes on from what the owner before measured.
        let mut taken = Progress::new(start, Duration::from_secs(30), 9_000, Rest::default());
        assert_eq!(taken.bytes_per_second(start), 9_000);
    }

    #[test]
    fn a_shard_stalls_when_nothing_moves() {
        let start = Instant::now();
        let rest = Rest::default();
        let mut progress = Progress::new(start, Duration::from_secs(30), 0, rest.clone());
        assert!(!progress.is_stalled(start + Duration::from_secs(29)));
        assert!(progress.is_stalled(start + Duration::from_secs(30)));
        progress.moved(start + Duration::from_secs(20), 0);
        assert!(!progress.is_stalled(start + Duration::from_secs(49)));
        rest.until(Some(start + Duration::from_secs(100)));
        assert!(!progress.is_stalled(start + Duration::from_secs(129)));
        assert!(progress.is_stalled(start + Duration::from_secs(130)));
    }
}
