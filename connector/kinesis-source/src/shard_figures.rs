//! What a shard carries, as its reader measured it and tells the others.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Figures that were not renewed for so long are of a shard of which nothing is known: one that is read writes its row
/// at least each minute or so, and a new reader has measured it after another.
const STALE: Duration = Duration::from_secs(240);

/// What a shard carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardFigures {
    /// When it was measured, by the clock of whoever did, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Bytes that come in a second, small records counted as what they take of a shard. Behind the newest record,
    /// those of the time that is being read.
    pub in_per_second: u64,
    /// Bytes that are read a second, once the newest record is read; before that 0.
    pub out_per_second: u64,
}

/// Whether figures of others are still true. Clocks of others may be wrong, so what counts is that they change.
#[derive(Debug, Clone, Copy)]
pub struct Heard {
    at_ms: i64,
    changed: Option<Instant>,
}

impl Heard {
    /// Seen for the first time: they may be old.
    #[must_use]
    pub fn new(figures: ShardFigures) -> Self {
        Self {
            at_ms: figures.at_ms,
            changed: None,
        }
    }

    /// Seen again. Answers whether they may be believed.
    pub fn is_fresh(&mut self, now: Instant, figures: ShardFigures) -> bool {
        if figures.at_ms != self.at_ms {
            (self.at_ms, self.changed) = (figures.at_ms, Some(now));
        }
        let is_young = |changed: Instant| now.saturating_duration_since(changed) < STALE;
        self.changed.is_some_and(is_young)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_believed_while_somebody_renews_them() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let figures = |at_ms| ShardFigures {
            at_ms,
            in_per_second: 1,
            out_per_second: 1,
        };
        let mut heard = Heard::new(figures(5));
        assert!(!heard.is_fresh(at(0), figures(5)), "of whenever");
        assert!(!heard.is_fresh(at(10), figures(5)));
        assert!(heard.is_fresh(at(20), figures(9)));
        assert!(heard.is_fresh(at(259), figures(9)));
        assert!(!heard.is_fresh(at(260), figures(9)));
        // A clock that is behind is none the worse for it.
        assert!(heard.is_fresh(at(300), figures(7)));
    }
}
