//! How long the stream keeps records, as it was said last, and what it may have removed: shared by all who need it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::limits::SURELY_KEPT_MS;
use crate::reader::WallClock;

/// The retention period. Clones share it.
#[derive(Clone)]
pub struct Retention {
    said: Arc<Mutex<Said>>,
    clock: WallClock,
}

#[derive(Debug, Clone, Copy)]
struct Said {
    period_ms: i64,
    /// What arrived by then may be gone, whatever the period is now: a longer one brings nothing back.
    horizon_ms: i64,
}

impl fmt::Debug for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Retention").field(&self.said()).finish()
    }
}

impl Retention {
    /// A period of so many milliseconds, on a clock.
    #[must_use]
    pub fn new(period_ms: i64, clock: WallClock) -> Self {
        let said = Said {
            period_ms,
            horizon_ms: i64::MIN,
        };
        Self {
            said: Arc::new(Mutex::new(said)),
            clock,
        }
    }

    fn said(&self) -> Said {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The period in milliseconds.
    #[must_use]
    pub fn ms(&self) -> i64 {
        self.said().period_ms
    }

    /// The stream says another one. The shorter of the two held until now, as far as is known here.
    pub fn set(&self, period_ms: i64) {
        let now_ms = (self.clock)();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let horizon_ms = now_ms.saturating_sub(period_ms.min(said.period_ms));
        *said = Said {
            period_ms,
            horizon_ms: horizon_ms.max(said.horizon_ms),
        };
    }

    /// What arrived at this time or before may be removed, milliseconds since the Unix epoch.
    #[must_use]
    pub fn horizon_ms(&self) -> i64 {
        let Said {
            period_ms,
            horizon_ms,
        } = self.said();
        (self.clock)().saturating_sub(period_ms).max(horizon_ms)
    }

    /// True for what arrived so lately that no period that a stream can have removes it, however the clocks go.
    #[must_use]
    pub fn surely_keeps(&self, arrival_ms: i64) -> bool {
        let age_ms = (self.clock)().saturating_sub(arrival_ms);
        age_ms < self.ms().min(SURELY_KEPT_MS)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    const HOUR: i64 = 3_600_000;

    fn on_a_clock(hours: i64) -> (Retention, Arc<AtomicI64>) {
        let now = Arc::new(AtomicI64::new(1_000 * HOUR));
        let clock = now.clone();
        let clock = Arc::new(move || clock.load(Ordering::Relaxed));
        (Retention::new(hours * HOUR, clock), now)
    }

    #[test]
    fn a_longer_period_brings_nothing_back() {
        let (retention, now) = on_a_clock(24);
        assert_eq!(retention.horizon_ms(), 976 * HOUR);
        now.fetch_add(HOUR, Ordering::Relaxed);
        retention.set(48 * HOUR);
        assert_eq!(retention.horizon_ms(), 977 * HOUR);
        now.fetch_add(24 * HOUR, Ordering::Relaxed);
        assert_eq!(retention.horizon_ms(), 977 * HOUR);
        now.fetch_add(HOUR, Ordering::Relaxed);
        assert_eq!(retention.horizon_ms(), 978 * HOUR);
        // A shorter one removes at once, and a longer one after it changes nothing about that.
        retention.set(24 * HOUR);
        assert_eq!(retention.horizon_ms(), 1_002 * HOUR);
        retention.set(48 * HOUR);
        assert_eq!(retention.horizon_ms(), 1_002 * HOUR);
    }

    #[test]
    fn what_no_period_removes_is_not_doubted() {
        let (retention, _) = on_a_clock(168);
        assert!(retention.surely_keeps(978 * HOUR));
        assert!(!retention.surely_keeps(977 * HOUR));
        // An emulator that keeps less.
        let (retention, _) = on_a_clock(1);
        assert!(!retention.surely_keeps(999 * HOUR));
        assert!(retention.surely_keeps(999 * HOUR + 1));
    }
}
