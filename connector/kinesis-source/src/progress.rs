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
    begun: Instant,
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
            begun: now,
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

    /// When it will count as stalled, should nothing move.
    ///
    /// A shard without news is asked all the same, and each answer counts: while one is awaited
    /// (`awaits_answer`) and none comes, data waits, or might. And it waits for certain when it was read and
    /// the topic owes an answer (`silent_since`), whatever is read beside that.
    pub(crate) fn stalls_at(
        &self,
        awaits_answer: bool,
        silent_since: Option<Instant>,
    ) -> Option<Instant> {
        let read = self.rest.end().unwrap_or(self.moved).max(self.moved);
        let stream = awaits_answer.then_some(read);
        // What is on its way may be of an earlier holding of the shard.
        let topic = silent_since.map(|since| since.max(self.begun));
        let since = stream.into_iter().chain(topic).min()?;
        Some(since + self.patience)
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
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let rest = Rest::default();
        let mut progress = Progress::new(start, Duration::from_secs(30), 0, rest.clone());
        assert_eq!(progress.stalls_at(true, None), Some(at(30)));
        progress.moved(at(20), 0);
        assert_eq!(progress.stalls_at(true, None), Some(at(50)));
        rest.until(Some(at(100)));
        assert_eq!(progress.stalls_at(true, None), Some(at(130)));
        // Nothing is to come, and nothing is on its way.
        assert_eq!(progress.stalls_at(false, None), None);
    }

    #[test]
    fn what_is_read_does_not_hide_that_the_topic_is_silent() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut progress = Progress::new(at(10), Duration::from_secs(30), 0, Rest::default());
        for second in 10..40 {
            progress.moved(at(second), 100);
        }
        assert_eq!(progress.stalls_at(true, Some(at(15))), Some(at(45)));
        assert_eq!(progress.stalls_at(false, Some(at(15))), Some(at(45)));
        // Whoever comes to a topic that is silent already is given the same time.
        assert_eq!(progress.stalls_at(false, Some(start)), Some(at(40)));
    }
}
