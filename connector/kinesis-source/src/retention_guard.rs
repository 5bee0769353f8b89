//! When the retention period of the stream is to be made longer, and when it is given back. Pure: `now` is an
//! argument.

use std::time::{Duration, Instant};

use millpond_connector::stream_clock::{LossLevel, StreamClock};

/// Shortest time between two changes: the clocks must have seen the one before.
const SPACING: Duration = Duration::from_secs(10 * 60);

/// Everything must have been near its newest record for so long before anything is given back.
const CALM: Duration = Duration::from_secs(60 * 60);

/// Behind by less than this is near.
const NEAR_MS: u64 = 5 * 60 * 1_000;

/// What the guard may do. Without a maximum it only warns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GuardSettings {
    /// Longest retention period that it sets, hours; `None`: it changes nothing.
    pub max_hours: Option<u32>,
    /// To what it shortens the period once everything is read, hours; `None`: never.
    pub give_back_hours: Option<u32>,
}

/// A change of the retention period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardAction {
    /// Make it so long, hours.
    Extend(u32),
    /// Make it so short, hours.
    GiveBack(u32),
}

/// Decides about the retention period.
#[derive(Debug, Clone)]
pub struct RetentionGuard {
    settings: GuardSettings,
    changed: Option<Instant>,
    calm_since: Option<Instant>,
}

impl RetentionGuard {
    /// Nothing was changed yet.
    #[must_use]
    pub fn new(settings: GuardSettings) -> Self {
        Self {
            settings,
            changed: None,
            calm_since: None,
        }
    }

    /// What is to be done. `oldest_behind_ms` is how far the most backward shard is behind, of all shards of the
    /// stream, also those that others read.
    pub fn decide(
        &mut self,
        now: Instant,
        clock: &StreamClock,
        oldest_behind_ms: u64,
    ) -> Option<GuardAction> {
        let is_near = oldest_behind_ms < NEAR_MS;
        self.calm_since = match (is_near, self.calm_since) {
            (true, since) => since.or(Some(now)),
            (false, _) => None,
        };
        let is_early = |since: Instant| now.saturating_duration_since(since) < SPACING;
        if self.changed.is_some_and(is_early) {
            return None;
        }
        let hours = clock.retention_hours;
        let worst = clock
            .worst()
            .map(|reading| reading.level)
            .unwrap_or_default();
        let max = self.settings.max_hours?;
        if worst >= LossLevel::Urgent && hours < max {
            self.changed = Some(now);
            return Some(GuardAction::Extend(hours.saturating_mul(2).min(max)));
        }
        let is_calm = self
            .calm_since
            .is_some_and(|since| now.saturating_duration_since(since) >= CALM);
        let back = self.settings.give_back_hours?;
        if is_calm && worst == LossLevel::Fine && hours > back {
            self.changed = Some(now);
            return Some(GuardAction::GiveBack(back));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_connector::stream_clock::ShardReading;

    fn clock(hours: u32, level: LossLevel) -> StreamClock {
        StreamClock {
            retention_hours: hours,
            shards: vec![ShardReading {
                shard: "s".into(),
                millis_behind_latest: 0,
                seconds_until_trim: 1,
                drain_seconds: None,
                seconds_until_loss: None,
                level,
            }],
            ..StreamClock::default()
        }
    }

    fn guard(max: Option<u32>, back: Option<u32>) -> RetentionGuard {
        RetentionGuard::new(GuardSettings {
            max_hours: max,
            give_back_hours: back,
        })
    }

    #[test]
    fn it_doubles_up_to_its_maximum_and_not_in_a_row() {
        let start = Instant::now();
        let mut guard = guard(Some(60), None);
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
        let far = 100 * NEAR_MS;
        assert_eq!(
            guard.decide(at(0), &clock(24, LossLevel::Notable), far),
            None
        );
        let urgent = clock(24, LossLevel::Urgent);
        assert_eq!(
            guard.decide(at(1), &urgent, far),
            Some(GuardAction::Extend(48))
        );
        assert_eq!(guard.decide(at(2), &urgent, far), None);
        let later = clock(48, LossLevel::Critical);
        assert_eq!(
            guard.decide(at(12), &later, far),
            Some(GuardAction::Extend(60))
        );
        assert_eq!(
            guard.decide(at(99), &clock(60, LossLevel::Critical), far),
            None
        );
        // Nobody told it to give anything back.
        assert_eq!(guard.decide(at(300), &clock(60, LossLevel::Fine), 0), None);
        assert_eq!(guard.decide(at(999), &clock(60, LossLevel::Fine), 0), None);
    }

    #[test]
    fn it_gives_back_after_an_hour_of_calm() {
        let start = Instant::now();
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
        let mut guard = guard(Some(168), Some(24));
        let fine = clock(48, LossLevel::Fine);
        assert_eq!(guard.decide(at(0), &fine, 0), None);
        assert_eq!(guard.decide(at(40), &fine, NEAR_MS), None);
        assert_eq!(guard.decide(at(41), &fine, 0), None);
        assert_eq!(guard.decide(at(100), &fine, 0), None);
        let given = guard.decide(at(101), &fine, 0);
        assert_eq!(given, Some(GuardAction::GiveBack(24)));
        assert_eq!(guard.decide(at(200), &clock(24, LossLevel::Fine), 0), None);
    }

    #[test]
    fn without_a_maximum_it_changes_nothing() {
        let mut guard = guard(None, None);
        let now = Instant::now();
        assert_eq!(
            guard.decide(now, &clock(24, LossLevel::Critical), 1 << 40),
            None
        );
    }
}
