//! How many shards the stream should have. Pure: `now` is an argument.
//!
//! - *Up* when the utilisation has been above `high` for three minutes: to as many shards as bring it to the middle
//!   between `low` and `high`, at most to twice as many.
//! - *Down* when even the busiest minute of the last six hours was below `low`: to the same middle, at most by
//!   half, and by half again as soon as the service allows it. What comes after a step down is therefore a step up only when there is more to carry than in those six hours.
//! - A shard of which nobody says what it carries counts as nothing, and while there is one nothing is scaled down.
//! - The service allows ten calls in any 24 hours. Steps down take only half of them, so that five are left for
//!   steps up, which together can make 32 shards of one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Deserialize;

/// Calls in any 24 hours (Kinesis API reference, `UpdateShardCount`, read 2026-11-26).
pub const CALLS_PER_DAY: usize = 10;

/// Of these, at most so many are steps down or come before one.
const CALLS_BEFORE_DOWN: usize = 5;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// The utilisation must be high for so long.
pub const UP_AFTER: Duration = Duration::from_secs(3 * 60);

/// Shortest time between two steps: the new shards must have taken up their share.
const SPACING: Duration = Duration::from_secs(10 * 60);

/// It must be low for so long.
pub const DOWN_AFTER: Duration = Duration::from_secs(6 * 3_600);

/// What was not seen for longer, or not seen whole, says nothing of the least that was needed.
const BLIND_AFTER: Duration = Duration::from_secs(10 * 60);

/// What is remembered of the load: the highest of each of these.
const SLOT: Duration = Duration::from_secs(60);

/// Whether the number of shards is changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ScalingMode {
    /// Nothing is looked at.
    #[default]
    Off,
    /// What should be done is said in log and metrics.
    Advise,
    /// It is done.
    Auto,
}

/// How the number of shards follows the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScalingSettings {
    /// Whether it does.
    pub mode: ScalingMode,
    /// Fewest shards, at least 1.
    pub min_shards: u32,
    /// Most shards.
    pub max_shards: u32,
    /// Below this percentage of what the shards take there are too many.
    pub low_percent: u32,
    /// Above this one there are too few.
    pub high_percent: u32,
}

impl Default for ScalingSettings {
    fn default() -> Self {
        Self {
            mode: ScalingMode::Off,
            min_shards: 1,
            max_shards: 1,
            low_percent: 30,
            high_percent: 75,
        }
    }
}

/// What the stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Open shards.
    pub open_shards: u32,
    /// Bytes that come in, thousandths of what the open shards take.
    pub in_milli: u32,
    /// Bytes that are read, thousandths of what the open shards give.
    pub out_milli: u32,
    /// Shards of which neither is known; both count them as nothing.
    pub unknown_shards: u32,
}

/// What should be done, with its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    /// Open shards now.
    pub from: u32,
    /// Open shards as they should be.
    pub to: u32,
    /// The utilisation that decided, thousandths: the highest of the time looked at.
    pub utilisation_milli: u32,
}

/// Decides about the number of shards.
#[derive(Debug, Clone)]
pub struct ShardScaling {
    settings: ScalingSettings,
    high_since: Option<Instant>,
    watched_since: Option<Instant>,
    looked: Option<Instant>,
    /// When the load of all shards was known last.
    whole: Option<Instant>,
    is_blind: bool,
    /// Highest load of each slot, thousandths of a shard.
    slots: VecDeque<(Instant, u64)>,
    calls: VecDeque<Instant>,
    refused_until: Option<Instant>,
}

impl ShardScaling {
    /// Nothing was seen yet.
    #[must_use]
    pub fn new(settings: ScalingSettings) -> Self {
        Self {
            settings,
            high_since: None,
            watched_since: None,
            looked: None,
            whole: None,
            is_blind: false,
            slots: VecDeque::new(),
            calls: VecDeque::new(),
            refused_until: None,
        }
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &ScalingSettings {
        &self.settings
    }

    /// What should be done now, were there no limit to calls.
    pub fn advise(&mut self, now: Instant, load: Load) -> Option<Advice> {
        let milli = load.in_milli.max(load.out_milli);
        let needed = u64::from(milli) * u64::from(load.open_shards);
        self.look(now, load.unknown_shards == 0);
        self.remember(now, needed);
        let high = self.settings.high_percent * 10;
        self.high_since = match (milli > high, self.high_since) {
            (true, since) => since.or(Some(now)),
            (false, _) => None,
        };
        let passed = |since: Option<Instant>, time: Duration| {
            since.is_some_and(|since| now.saturating_duration_since(since) >= time)
        };
        let open = load.open_shards.max(1);
        if passed(self.high_since, UP_AFTER) {
            let busiest = self.busiest(now, UP_AFTER);
            let to = self.shards_for(busiest).min(open.saturating_mul(2));
            return self.advice(open, to.max(open + 1), busiest);
        }
        let busiest = self.busiest(now, DOWN_AFTER);
        let is_low = busiest < u64::from(self.settings.low_percent) * 10 * u64::from(open);
        let is_whole = load.unknown_shards == 0;
        if is_whole && passed(self.watched_since, DOWN_AFTER) && is_low {
            let to = self.shards_for(busiest).max(open.div_ceil(2));
            return self.advice(open, to.min(open), busiest);
        }
        // What lies outside of the bounds comes in, whatever the load.
        let advice = self.advice(open, open, busiest);
        advice.filter(|advice| is_whole || advice.to > advice.from)
    }

    /// The same as a call to be made: `None` while the service's limits, or ours, do not allow one.
    pub fn decide(&mut self, now: Instant, load: Load) -> Option<Advice> {
        let advice = self.advise(now, load)?;
        let in_day = |at: &Instant| now.saturating_duration_since(*at) < DAY;
        self.calls.retain(in_day);
        let most = match advice.to < advice.from {
            true => CALLS_BEFORE_DOWN,
            false => CALLS_PER_DAY,
        };
        let is_early = |at: &Instant| now.saturating_duration_since(*at) < SPACING;
        let is_refused = self.refused_until.is_some_and(|until| now < until);
        let may = self.calls.len() < most && !self.calls.back().is_some_and(is_early);
        (may && !is_refused).then_some(advice)
    }

    /// A call was accepted.
    pub fn called(&mut self, now: Instant, advice: Advice) {
        self.calls.push_back(now);
        self.high_since = None;
        // Before a step up producers may have been refused, so that what was seen says too little of what comes.
        // After a step down the last six hours are known as well as before it.
        if advice.to > advice.from {
            self.watched_since = Some(now);
        }
    }

    /// The service refused a call; it is asked again after an hour.
    pub fn refused(&mut self, now: Instant) {
        self.refused_until = Some(now + Duration::from_secs(3_600));
    }

    fn advice(&self, from: u32, to: u32, busiest: u64) -> Option<Advice> {
        let ScalingSettings {
            min_shards,
            max_shards,
            ..
        } = self.settings;
        // Bounds first, and within what one call may do.
        let to = to.clamp(min_shards, max_shards.max(min_shards));
        let to = to.clamp(from.div_ceil(2), from.saturating_mul(2));
        let utilisation = busiest / u64::from(from);
        (to != from).then_some(Advice {
            from,
            to,
            utilisation_milli: u32::try_from(utilisation).unwrap_or(u32::MAX),
        })
    }

    /// Shards that carry so much at the middle between `low` and `high`.
    fn shards_for(&self, needed: u64) -> u32 {
        let middle = u64::from(self.settings.low_percent + self.settings.high_percent) * 5;
        u32::try_from(needed.div_ceil(middle.max(1)))
            .unwrap_or(u32::MAX)
            .max(1)
    }

    /// True while the load of some shards has not been known for a while.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.is_blind
    }

    fn look(&mut self, now: Instant, is_whole: bool) {
        let is_long = |since: Instant| now.saturating_duration_since(since) >= BLIND_AFTER;
        if self.looked.replace(now).is_some_and(is_long) {
            self.high_since = None;
        }
        let was_long = is_long(*self.whole.get_or_insert(now));
        if was_long {
            self.watched_since = None;
        }
        self.is_blind = was_long && !is_whole;
        if is_whole {
            self.whole = Some(now);
            self.watched_since.get_or_insert(now);
        }
    }

    fn remember(&mut self, now: Instant, needed: u64) {
        match self.slots.back_mut() {
            Some((begun, highest)) if now.saturating_duration_since(*begun) < SLOT => {
                *highest = needed.max(*highest);
            }
            _ => self.slots.push_back((now, needed)),
        }
        let is_old =
            |(begun, _): &(Instant, u64)| now.saturating_duration_since(*begun) > DOWN_AFTER + SLOT;
        while self.slots.front().is_some_and(is_old) {
            self.slots.pop_front();
        }
    }

    /// Highest load of the last while.
    fn busiest(&self, now: Instant, back: Duration) -> u64 {
        let within = |at: Instant| now.saturating_duration_since(at) <= back;
        let slots = self.slots.iter().rev();
        let recent = slots.take_while(|(begun, _)| within(*begun));
        recent.map(|(_, highest)| *highest).max().unwrap_or(0)
    }
}

#[cfg(test)]
#[path = "shard_scaling_tests.rs"]
mod tests;
