//! The pace of writes: a state machine in write units. Time is an argument, nothing is asked of anybody.
//!
//! A request may start when the table's budget and those of its partition keys owe nothing, and nothing
//! brakes. What the budget is says [`Control`]; what is done about a refusal depends on its kind:
//!
//! | the table says | what becomes slower |
//! |---|---|
//! | table or index over its capacity | the budget |
//! | key range, and one of the request's keys is near its own limit | that key; it is called hot |
//! | key range, and none is | the budget: the partitions are too few, as of a new on-demand table |
//! | account | everything stops for a while, then goes on with half of the budget |
//! | nothing (unprocessed items, no reason) | a key at its limit if there is one, else the budget |
//!
//! In any window what started in it is within what the budget earned in it, [`SMOOTHING`] of it, the
//! credit that the settings allow, and the last request (I8).

mod bucket;
mod control;
mod keys;
mod meter;

use std::time::Duration;

use crate::client::Throttle;

pub use bucket::{Bucket, Rate};
pub use control::{Control, FLOOR_UNITS, START_UNITS};
pub use keys::{Keys, MAX_KEYS};
pub use meter::Meter;

/// Of how much time the budget's earnings may be spent at once, and what one request should not exceed: a
/// burst becomes an even stream of small requests.
pub const SMOOTHING: Duration = Duration::from_millis(100);

/// What is kept of a table's capacity. The rest is for what is not counted: leases, clocks.
pub const KEPT_OF_CAPACITY: f64 = 0.98;

/// Units a second for the few words of a sink that holds no topic partition, such as its registration.
pub const IDLE_UNITS: f64 = 10.0;

/// While credit is there, so many times the budget is spent.
const CREDIT_SPEED: f64 = 2.0;

/// How often the table is asked for its capacity.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// The same after it has refused something.
const LOOK_AFTER_REFUSAL: Duration = Duration::from_secs(5);

/// A table that has refused something is left alone for so long, so that there is something in it again for
/// requests of uneven sizes.
const BREATH: Duration = Duration::from_secs(1);

/// A key with this part of its limit used in the last second is why the key range was exceeded.
const HOT_PART: f64 = 0.5;

/// The same where no reason was given.
const HOT_PART_UNNAMED: f64 = 0.9;

/// Stands for a partition key: its hash. Two keys of one hash are limited together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u64);

impl KeyId {
    /// Of a partition key's value.
    #[must_use]
    pub fn of(pk: &str) -> Self {
        Self(xxhash_rust::xxh3::xxh3_64(pk.as_bytes()))
    }
}

/// Units of a request that go to one partition key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyUse {
    /// The key.
    pub key: KeyId,
    /// Write units.
    pub units: u64,
}

/// A partition key whose limit holds its writers back: its group should be spread over more keys, twice
/// as many as now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HotKey {
    /// The key.
    pub key: KeyId,
    /// Units that it took in the last second, about.
    pub units_per_second: u64,
}

/// Where a budget comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BudgetSource {
    /// What the table says of its capacity; learned where it says nothing.
    #[default]
    Auto,
    /// Units a second of all sinks of the pipeline.
    Fixed(u64),
}

/// How a table is paced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaceSettings {
    /// Where the budget comes from.
    pub budget: BudgetSource,
    /// Of how much time what was left of a known budget may be spent later.
    pub burst_credit: Duration,
    /// Units a second of one partition key; `None` limits none.
    pub key_units: Option<u64>,
}

impl PaceSettings {
    /// Units a second of one partition key, by default (DynamoDB developer guide, "Designing partition
    /// keys": 1,000 write units a second, read 2026-11-26).
    pub const KEY_UNITS: u64 = 1_000;

    /// The most credit that DynamoDB keeps (developer guide, "Burst and adaptive capacity": 300 s, read
    /// 2026-11-26).
    pub const MAX_BURST_CREDIT: Duration = Duration::from_secs(300);

    /// A budget of so many units a second, without credit.
    #[must_use]
    pub fn fixed(units_per_second: u64) -> Self {
        Self {
            budget: BudgetSource::Fixed(units_per_second),
            ..Self::default()
        }
    }
}

impl Default for PaceSettings {
    fn default() -> Self {
        Self {
            budget: BudgetSource::Auto,
            burst_credit: Duration::ZERO,
            key_units: Some(Self::KEY_UNITS),
        }
    }
}

/// What a table says of its write capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteCapacity {
    /// So many units a second were bought.
    Provisioned(u64),
    /// Per request; with the most that its owner allows, if there is such a setting.
    OnDemand {
        /// Units a second.
        max: Option<u64>,
    },
}

/// Whether a request may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It starts now.
    Start,
    /// Not before so long, for all requests.
    Table(Duration),
    /// Not before so long, for requests to these keys.
    Keys(Duration),
}

/// The pace of one table.
#[derive(Debug, Clone)]
pub struct Pacer {
    settings: PaceSettings,
    control: Control,
    table: Bucket,
    /// Holds back how fast credit is spent.
    peak: Bucket,
    keys: Keys,
    meter: Meter,
    /// No topic partition is ours.
    is_idle: bool,
    looked_at: Option<Duration>,
    refused_at: Option<Duration>,
}

impl Pacer {
    /// Nothing has started yet.
    #[must_use]
    pub fn new(settings: PaceSettings, now: Duration) -> Self {
        let limit = match settings.budget {
            BudgetSource::Auto => None,
            BudgetSource::Fixed(units) => Some(units as f64),
        };
        let control = Control::new(limit);
        let rate = Rate::of(control.rate());
        let mut pacer = Self {
            settings,
            control,
            table: Bucket::new(rate, SMOOTHING, now),
            peak: Bucket::new(rate, SMOOTHING, now),
            keys: Keys::new(settings.key_units.map(|units| units as f64)),
            meter: Meter::default(),
            is_idle: false,
            looked_at: None,
            refused_at: None,
        };
        pacer.set_depth(now);
        pacer
    }

    /// Units a second that may be spent now.
    #[must_use]
    pub fn budget(&self) -> f64 {
        match self.is_idle {
            true => self
                .control
                .limit()
                .map_or(IDLE_UNITS, |limit| limit.min(IDLE_UNITS)),
            false => self.control.rate(),
        }
    }

    /// Units that one request should not exceed.
    #[must_use]
    pub fn request_units(&self) -> u64 {
        ((self.budget() * SMOOTHING.as_secs_f64()) as u64).max(1)
    }

    /// The same for a request that goes to one key alone.
    #[must_use]
    pub fn key_request_units(&self) -> u64 {
        let of_key = self.settings.key_units.unwrap_or(u64::MAX);
        let smooth = of_key as f64 * SMOOTHING.as_secs_f64();
        self.request_units().min((smooth as u64).max(1))
    }

    /// Starts a request of `units`, divided among `keys`, or says when to ask again.
    pub fn take(&mut self, units: u64, keys: &[KeyUse], now: Duration) -> Turn {
        self.control.step(self.meter.rate(now), now);
        self.refresh(now);
        let brake = self.control.brake(now);
        if !brake.is_zero() {
            return Turn::Table(brake);
        }
        let wait = self.table.wait(now).max(self.peak.wait(now));
        if !wait.is_zero() {
            self.control.short();
            return Turn::Table(wait);
        }
        let wait = self.keys.wait(keys, now);
        if !wait.is_zero() {
            self.keys.short(keys, now);
            return Turn::Keys(wait);
        }
        self.table.take(units);
        self.peak.take(units);
        self.keys.take(keys, now);
        Turn::Start
    }

    /// How long a request to these keys would have to wait for their sake.
    pub fn key_wait(&mut self, keys: &[KeyUse], now: Duration) -> Duration {
        let wait = self.keys.wait(keys, now);
        if !wait.is_zero() {
            self.keys.short(keys, now);
        }
        wait
    }

    /// True when one of these keys is held back by its own limit, not by the table's. Its requests should not wait
    /// for others besides: what a key's limit gives is lost if it is not used, and holds it back enough. Once
    /// the table's budget is what they wait for, it is false again.
    #[must_use]
    pub fn is_pressed(&self, keys: &[KeyUse], now: Duration) -> bool {
        self.keys.is_pressed(keys, now)
    }

    /// A request that had taken `taken` units was answered: so many were consumed, and of the keys'
    /// these were not.
    pub fn settle(&mut self, taken: u64, consumed: f64, left: &[KeyUse], now: Duration) {
        let over = taken as f64 - consumed.max(0.0);
        self.table.give_back(over);
        self.peak.give_back(over);
        self.keys.give_back(left);
        self.meter.add(consumed, now);
    }

    /// A request to these keys that began at `began` was refused, in whole or in part.
    pub fn refused(&mut self, why: Throttle, keys: &[KeyUse], began: Duration, now: Duration) {
        self.refused_at = Some(now);
        let hot = |part: f64| {
            let hottest = self.keys.hottest(keys, now);
            hottest.filter(|(_, used)| *used >= part)
        };
        let key = match why {
            Throttle::Account => return self.control.stop(now),
            Throttle::Table | Throttle::Index => None,
            Throttle::KeyRange => hot(HOT_PART),
            Throttle::Unknown => hot(HOT_PART_UNNAMED),
        };
        // What was refused is tried again, so it costs its time here: the table has none left.
        match key {
            Some((key, _)) => {
                let of_key = keys.iter().filter(|of| of.key == key);
                self.keys.take(&of_key.copied().collect::<Vec<_>>(), now);
                self.keys.cut(key, began, now);
            }
            None => {
                let units = keys.iter().map(|of| of.units).sum();
                self.table.take(units);
                self.peak.take(units);
                let used = self.meter.rate(now);
                if self.control.cut(used, self.meter.total(), began, now) {
                    let breath = (self.control.rate() * BREATH.as_secs_f64()) as u64;
                    self.table.take(breath);
                }
            }
        }
        self.refresh(now);
    }

    /// Keys that were found hot since this was asked last.
    pub fn take_hot(&mut self) -> Vec<HotKey> {
        self.keys.take_hot()
    }

    /// True when the table is to be asked for its capacity.
    #[must_use]
    pub fn is_look_due(&self, now: Duration) -> bool {
        if self.settings.budget != BudgetSource::Auto {
            return false;
        }
        let Some(looked_at) = self.looked_at else {
            return true;
        };
        let is_refused = self.refused_at.is_some_and(|at| at > looked_at);
        let pause = if is_refused {
            LOOK_AFTER_REFUSAL
        } else {
            LOOK_EVERY
        };
        now >= looked_at + pause
    }

    /// The table was asked; `None` when it did not answer.
    pub fn looked(&mut self, found: Option<WriteCapacity>, now: Duration) {
        self.looked_at = Some(now);
        if self.settings.budget != BudgetSource::Auto {
            return;
        }
        let limit = match found {
            None => return,
            Some(WriteCapacity::Provisioned(units)) => Some(units),
            Some(WriteCapacity::OnDemand { max }) => max,
        };
        self.control
            .set_limit(limit.map(|units| units as f64 * KEPT_OF_CAPACITY));
        self.set_depth(now);
    }

    /// This sink holds `held` of the `all` topic partitions of the pipeline. Each holds another part, so what
    /// all may spend together is the whole.
    pub fn hold(&mut self, held: usize, all: usize, now: Duration) {
        self.is_idle = held == 0;
        self.control
            .set_share(held.min(all) as f64 / all.max(1) as f64);
        self.refresh(now);
    }

    fn refresh(&mut self, now: Duration) {
        self.table.set_rate(Rate::of(self.budget()), now);
        self.peak
            .set_rate(Rate::of(self.budget() * CREDIT_SPEED), now);
    }

    /// Credit is what is left of a budget that somebody has set. What was learned has none: nobody knows
    /// what is behind it.
    fn set_depth(&mut self, now: Duration) {
        let credit = match self.control.limit() {
            Some(_) => self.settings.burst_credit,
            None => Duration::ZERO,
        };
        self.table.set_depth(SMOOTHING + credit, now);
        self.refresh(now);
    }
}

#[cfg(test)]
#[path = "pacer_tests.rs"]
mod tests;
