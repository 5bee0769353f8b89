//! What a shard takes and gives in a second.

use std::collections::VecDeque;

use super::{ReadLimits, WriteLimits};

const SECOND_MS: u64 = 1_000;

/// An amount that may not pass `limit` in any second.
///
/// An amount above the limit is let through only when nothing else counts, and
/// then fills the window for as long as the limit needs to carry it: this is how
/// a 10 MiB read blocks its shard for five seconds.
#[derive(Debug, Clone)]
struct Window {
    limit: u64,
    used: u64,
    entries: VecDeque<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    until_ms: u64,
    amount: u64,
}

impl Window {
    fn new(limit: u64) -> Self {
        Self {
            limit: limit.max(1),
            used: 0,
            entries: VecDeque::new(),
        }
    }

    fn used(&mut self, now_ms: u64) -> u64 {
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.until_ms <= now_ms) {
            self.used -= entry.amount;
        }
        self.used
    }

    fn fits(&mut self, now_ms: u64, amount: u64) -> bool {
        let used = self.used(now_ms);
        used.saturating_add(amount) <= self.limit || used == 0
    }

    fn take(&mut self, now_ms: u64, amount: u64) {
        let (life_ms, counted) = if amount > self.limit {
            (
                amount.saturating_mul(SECOND_MS).div_ceil(self.limit),
                self.limit,
            )
        } else {
            (SECOND_MS, amount)
        };
        let until_ms = now_ms.saturating_add(life_ms);
        self.used += counted;
        match self.entries.back_mut() {
            Some(last) if last.until_ms == until_ms => last.amount += counted,
            _ => self.entries.push_back(Entry {
                until_ms,
                amount: counted,
            }),
        }
    }
}

/// Counts what is written to one shard.
#[derive(Debug, Clone)]
pub(crate) struct WriteMeter {
    bytes: Window,
    records: Window,
}

impl WriteMeter {
    pub(crate) fn new(limits: WriteLimits) -> Self {
        Self {
            bytes: Window::new(limits.bytes_per_second),
            records: Window::new(limits.records_per_second),
        }
    }

    /// Counts one record and says whether it may be stored; a refused one counts nothing.
    pub(crate) fn admit(&mut self, now_ms: u64, bytes: u64) -> bool {
        let fits = self.records.fits(now_ms, 1) && self.bytes.fits(now_ms, bytes);
        if fits {
            self.records.take(now_ms, 1);
            self.bytes.take(now_ms, bytes);
        }
        fits
    }
}

/// Counts what is read from one shard.
#[derive(Debug, Clone)]
pub(crate) struct ReadMeter {
    bytes: Window,
    calls: Window,
}

impl ReadMeter {
    pub(crate) fn new(limits: ReadLimits) -> Self {
        Self {
            bytes: Window::new(limits.bytes_per_second),
            calls: Window::new(limits.calls_per_second),
        }
    }

    /// The same for what is pushed, which knows no calls.
    pub(crate) fn pushed(limits: ReadLimits) -> Self {
        Self::new(ReadLimits {
            calls_per_second: u64::MAX,
            ..limits
        })
    }

    /// The bytes that one call may return now: `None` refuses the call.
    pub(crate) fn allowance(&mut self, now_ms: u64) -> Option<u64> {
        if !self.calls.fits(now_ms, 1) {
            return None;
        }
        match self.bytes.used(now_ms) {
            0 => Some(u64::MAX),
            used if used < self.bytes.limit => Some(self.bytes.limit - used),
            _ => None,
        }
    }

    pub(crate) fn count(&mut self, now_ms: u64, bytes: u64) {
        self.calls.take(now_ms, 1);
        if bytes > 0 {
            self.bytes.take(now_ms, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_oversized_amount_blocks_for_as_long_as_it_takes() {
        let mut window = Window::new(2);
        assert!(window.fits(0, 10));
        window.take(0, 10);
        assert!(!window.fits(4_999, 1));
        assert!(window.fits(5_000, 1));
    }

    #[test]
    fn a_window_forgets_after_exactly_a_second() {
        let mut meter = WriteMeter::new(WriteLimits {
            bytes_per_second: 100,
            records_per_second: 2,
        });
        assert!(meter.admit(0, 10));
        assert!(meter.admit(500, 10));
        assert!(!meter.admit(999, 10));
        assert!(meter.admit(1_000, 10));
        assert!(!meter.admit(1_000, 10));
    }

    proptest! {
        #[test]
        fn no_second_holds_more_than_the_limit(
            limit in 1u64..50, calls in proptest::collection::vec((0u64..400, 1u64..60), 1..200)
        ) {
            let mut window = Window::new(limit);
            let mut now_ms = 0;
            let mut admitted: Vec<(u64, u64)> = Vec::new();
            for (wait_ms, amount) in calls {
                now_ms += wait_ms;
                if window.fits(now_ms, amount) {
                    window.take(now_ms, amount);
                    admitted.push((now_ms, amount));
                }
            }
            for (index, &(start, _)) in admitted.iter().enumerate() {
                let in_second: Vec<u64> = admitted[index..]
                    .iter().take_while(|(at, _)| *at < start + SECOND_MS).map(|(_, amount)| *amount).collect();
                let total: u64 = in_second.iter().sum();
                // Only an amount that can never fit may pass the limit, and then it is alone.
                prop_assert!(total <= limit || in_second.len() == 1, "{in_second:?} over {limit}");
            }
        }
    }
}
