//! When the retention period of the stream is to be made longer, and when it is given back. Pure: `now` is an
//! argument.
//!
//! - *Longer* when at the present speed, a mean of three minutes, a shard would lose data within [`EXTEND_BEFORE`], and
//!   that was so for three minutes. What drains in time is left alone, however far behind it is.
//! - *Longer at once* when less than [`RESERVE`] is left and the shard does not gain on the trim horizon by a tenth, or
//!   nobody knows: the call itself may fail and must have time to be repeated, and a speed may collapse.
//! - *Given back* when everything was near its newest record for an hour.
//!
//! A call counts when it succeeded. One that failed is decided anew at the next look at the stream.

use std::time::{Duration, Instant};

use crate::clock::NEAR_MS;

/// Data that would be lost within so long at the present speed is worth a longer period.
pub const EXTEND_BEFORE: Duration = Duration::from_secs(6 * 3_600);

/// An estimate must hold for so long.
const SURE_AFTER: Duration = Duration::from_secs(3 * 60);

/// With less than this left no estimate is waited for.
pub const RESERVE: Duration = Duration::from_secs(3_600);

/// But a shard that was only begun is given the time for a first measure.
const RESERVE_SURE_AFTER: Duration = Duration::from_secs(20);

/// So fast, in the stream's time, must a shard be that has less than [`RESERVE`] left.
const GAINS: f64 = 1.1;

/// Shortest time between two changes: the clocks must have seen the one before.
const SPACING: Duration = Duration::from_secs(10 * 60);

/// Everything must have been near its newest record for so long before anything is given back.
const CALM: Duration = Duration::from_secs(60 * 60);

/// What was not looked at for longer is not known to have been so all the time: another source decided meanwhile.
const GAP: Duration = Duration::from_secs(5 * 60);

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

/// How near one shard is to a loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Danger {
    /// Age of the oldest event that is not durable.
    pub behind: Duration,
    /// Until that is trimmed.
    pub left: Duration,
    /// How fast the position moves, seconds of the stream a second, over three minutes; `None` while that was not
    /// measured for long enough.
    pub speed: Option<f64>,
    /// The same of the last minute, or of as much as was measured.
    pub latest_speed: Option<f64>,
}

impl Danger {
    /// Data would be lost soon at the present speed.
    fn is_losing(&self) -> bool {
        let lost_within = |speed: f64| self.left.as_secs_f64() / (1.0 - speed);
        let slow = self.speed.filter(|speed| *speed < 1.0);
        slow.is_some_and(|speed| lost_within(speed) < EXTEND_BEFORE.as_secs_f64())
    }

    /// So little is left that only a shard which gains on the trim horizon is safe.
    fn is_short(&self) -> bool {
        self.left < RESERVE && self.latest_speed.is_none_or(|speed| speed < GAINS)
    }

    fn is_near_newest(&self) -> bool {
        self.behind < Duration::from_millis(NEAR_MS.unsigned_abs())
    }
}

/// Decides about the retention period.
#[derive(Debug, Clone)]
pub struct RetentionGuard {
    settings: GuardSettings,
    changed: Option<Instant>,
    looked: Option<Instant>,
    losing_since: Option<Instant>,
    short_since: Option<Instant>,
    calm_since: Option<Instant>,
}

impl RetentionGuard {
    /// Nothing was changed yet.
    #[must_use]
    pub fn new(settings: GuardSettings) -> Self {
        Self {
            settings,
            changed: None,
            looked: None,
            losing_since: None,
            short_since: None,
            calm_since: None,
        }
    }

    /// What is to be done. `hours` is the period as it is, `dangers` those of all shards of the stream, also of those
    /// that others read or nobody does.
    pub fn decide(&mut self, now: Instant, hours: u32, dangers: &[Danger]) -> Option<GuardAction> {
        let is_long = |at: Instant| now.saturating_duration_since(at) > GAP;
        if self.looked.replace(now).is_some_and(is_long) {
            (self.losing_since, self.short_since, self.calm_since) = (None, None, None);
        }
        let held = |since: Option<Instant>, is_so: bool| is_so.then(|| since.unwrap_or(now));
        self.losing_since = held(self.losing_since, dangers.iter().any(Danger::is_losing));
        self.short_since = held(self.short_since, dangers.iter().any(Danger::is_short));
        let is_calm = !dangers.is_empty() && dangers.iter().all(Danger::is_near_newest);
        self.calm_since = held(self.calm_since, is_calm);
        let passed = |since: Option<Instant>, time: Duration| {
            since.is_some_and(|since| now.saturating_duration_since(since) >= time)
        };
        if self.changed.is_some() && !passed(self.changed, SPACING) {
            return None;
        }
        let max = self.settings.max_hours?;
        let is_needed =
            passed(self.losing_since, SURE_AFTER) || passed(self.short_since, RESERVE_SURE_AFTER);
        if is_needed && hours < max {
            return Some(GuardAction::Extend(hours.saturating_mul(2).min(max)));
        }
        let back = self.settings.give_back_hours?;
        let may_give_back = passed(self.calm_since, CALM) && hours > back;
        may_give_back.then_some(GuardAction::GiveBack(back))
    }

    /// The period was changed.
    pub fn changed(&mut self, now: Instant) {
        self.changed = Some(now);
    }
}

#[cfg(test)]
#[path = "retention_guard_tests.rs"]
mod tests;
