//! Which writes a table takes: a pure model on virtual time.
//!
//! Every limit is a token bucket, as the service's own account of itself has it (Elhemali et al., "Amazon
//! DynamoDB", USENIX ATC 2022: admission by token buckets of partitions and of the table). A write fits when
//! the tokens for it are there. One that is larger than a second's limit fits when a whole second's are
//! there, and owes the rest.
//!
//! | limit | units a second | kept of what was not used |
//! |---|---|---|
//! | provisioned table | as set | 300 s ("Burst and adaptive capacity") |
//! | on-demand table | 4,000, then twice the highest second of all but the last 30 minutes ("Initial throughput and scaling properties") | 1 s |
//! | maximum set for an on-demand table | as set | 1 s |
//! | partition key | 1,000 ("Designing partition keys") | 1 s |
//! | account, for a table on demand | 40,000 ("Quotas") | 1 s |
//!
//! Pages of the DynamoDB developer guide, read 2026-11-26. What it leaves out: partitions that hold several
//! keys, and that burst credit is given at the service's discretion.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Seconds of unused provisioned capacity that are kept.
pub const BURST_SECONDS: f64 = 300.0;

/// The highest second that a new on-demand table counts as having had.
const FIRST_PEAK: f64 = 2_000.0;

/// An on-demand table takes twice of what it had before this.
const RAMP: Duration = Duration::from_secs(30 * 60);

/// Rounding of sums.
const EPSILON: f64 = 1e-6;

/// How a table is paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// So many units a second.
    Provisioned(u64),
    /// Per request.
    OnDemand {
        /// The most that its owner allows in a second.
        max: Option<u64>,
    },
}

/// Limits of a table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// How it is paid for.
    pub mode: Mode,
    /// Units a second of one partition key; `None` limits none.
    pub key_units: Option<f64>,
    /// Units a second of the account for a table on demand.
    pub account_units: f64,
    /// Unused seconds of provisioned capacity that are there at the start.
    pub credit_seconds: f64,
}

impl Limits {
    /// What a table of a new account has, without credit at the start.
    #[must_use]
    pub const fn of(mode: Mode) -> Self {
        Self {
            mode,
            key_units: Some(1_000.0),
            account_units: 40_000.0,
            credit_seconds: 0.0,
        }
    }
}

/// Why a write does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Provisioned capacity.
    Provisioned,
    /// The maximum set for on-demand.
    MaxOnDemand,
    /// A partition key, or all partitions of a table on demand together.
    KeyRange,
    /// The account.
    Account,
}

impl Reason {
    /// The service's word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Provisioned => "TableWriteProvisionedThroughputExceeded",
            Self::MaxOnDemand => "TableWriteMaxOnDemandThroughputExceeded",
            Self::KeyRange => "TableWriteKeyRangeThroughputExceeded",
            Self::Account => "TableWriteAccountLimitExceeded",
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Tokens {
    rate: f64,
    /// Seconds of the rate that are kept.
    kept: f64,
    level: f64,
    at: Duration,
}

impl Tokens {
    fn new(rate: f64, kept: f64, there: f64, now: Duration) -> Self {
        Self {
            rate,
            kept,
            level: rate * there,
            at: now,
        }
    }

    fn refill(&mut self, now: Duration) {
        let seconds = now.saturating_sub(self.at).as_secs_f64();
        self.level = (self.level + seconds * self.rate).min(self.rate * self.kept);
        self.at = self.at.max(now);
    }

    fn set_rate(&mut self, rate: f64, now: Duration) {
        self.refill(now);
        self.rate = rate;
        self.level = self.level.min(rate * self.kept);
    }

    fn fits(&mut self, units: f64, now: Duration) -> bool {
        self.refill(now);
        self.level + EPSILON >= units.min(self.rate)
    }
}

/// A table's write capacity.
#[derive(Debug, Clone)]
pub struct Model {
    limits: Limits,
    table: Tokens,
    max: Option<Tokens>,
    account: Tokens,
    keys: BTreeMap<String, Tokens>,
    purged_at: Duration,
    /// The highest second before those that `minutes` holds.
    old_peak: f64,
    /// The highest second of each minute within [`RAMP`].
    minutes: VecDeque<(u64, f64)>,
    /// Units of the present second.
    present: (u64, f64),
}

impl Model {
    /// A table that nobody has written to.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let mut model = Self {
            limits,
            table: Tokens::new(0.0, 0.0, 0.0, Duration::ZERO),
            max: None,
            account: Tokens::new(limits.account_units, 1.0, 1.0, Duration::ZERO),
            keys: BTreeMap::new(),
            purged_at: Duration::ZERO,
            old_peak: FIRST_PEAK,
            minutes: VecDeque::new(),
            present: (0, 0.0),
        };
        model.set_tokens(1.0 + limits.credit_seconds, Duration::ZERO);
        model
    }

    /// The table is paid for otherwise from now on, or has another capacity.
    pub fn set_mode(&mut self, mode: Mode, now: Duration) {
        let before = self.limits.mode;
        self.limits.mode = mode;
        match (before, mode) {
            (Mode::Provisioned(_), Mode::Provisioned(units)) => {
                self.table.set_rate(units as f64, now);
            }
            _ => self.set_tokens(1.0, now),
        }
    }

    /// The account has another quota from now on.
    pub fn set_account_units(&mut self, units: f64, now: Duration) {
        self.limits.account_units = units;
        self.account.set_rate(units, now);
    }

    fn set_tokens(&mut self, there: f64, now: Duration) {
        let tokens = |rate: u64| Tokens::new(rate as f64, 1.0, 1.0, now);
        match self.limits.mode {
            Mode::Provisioned(units) => {
                self.table = Tokens::new(units as f64, 1.0 + BURST_SECONDS, there, now);
                self.max = None;
            }
            Mode::OnDemand { max } => {
                self.table = Tokens::new(self.ramp(now), 1.0, 1.0, now);
                self.max = max.map(tokens);
            }
        }
    }

    /// What `DescribeTable` says: provisioned write units, and the maximum set for on-demand.
    #[must_use]
    pub fn described(&self) -> (u64, Option<u64>) {
        match self.limits.mode {
            Mode::Provisioned(units) => (units, None),
            Mode::OnDemand { max } => (0, max),
        }
    }

    /// Units a second that the table as a whole takes now, without credit.
    pub fn units_per_second(&mut self, now: Duration) -> f64 {
        match self.limits.mode {
            Mode::Provisioned(units) => units as f64,
            Mode::OnDemand { max } => {
                let all = self.ramp(now).min(self.limits.account_units);
                max.map_or(all, |max| all.min(max as f64))
            }
        }
    }

    /// Units of credit beyond the present second.
    pub fn credit(&mut self, now: Duration) -> f64 {
        self.table.refill(now);
        (self.table.level - self.table.rate).max(0.0)
    }

    /// Takes the units of a write to `key`, if they fit.
    ///
    /// # Errors
    /// Why they do not; nothing is taken then.
    pub fn admit(&mut self, key: &str, units: f64, now: Duration) -> Result<(), Reason> {
        let is_on_demand = matches!(self.limits.mode, Mode::OnDemand { .. });
        if is_on_demand {
            let ramp = self.ramp(now);
            self.table.set_rate(ramp, now);
        }
        self.purge(now);
        if let Some(rate) = self.limits.key_units
            && let Some(tokens) = self.keys.get_mut(key)
        {
            tokens.set_rate(rate, now);
            if !tokens.fits(units, now) {
                return Err(Reason::KeyRange);
            }
        }
        if !self.table.fits(units, now) {
            return Err(match is_on_demand {
                true => Reason::KeyRange,
                false => Reason::Provisioned,
            });
        }
        if self.max.as_mut().is_some_and(|max| !max.fits(units, now)) {
            return Err(Reason::MaxOnDemand);
        }
        if is_on_demand && !self.account.fits(units, now) {
            return Err(Reason::Account);
        }
        self.charge(key, units, now);
        Ok(())
    }

    /// Takes units without asking; below zero, gives them back.
    pub fn charge(&mut self, key: &str, units: f64, now: Duration) {
        self.table.level -= units;
        self.account.level -= units;
        if let Some(max) = &mut self.max {
            max.level -= units;
        }
        if let Some(rate) = self.limits.key_units {
            let new = || Tokens::new(rate, 1.0, 1.0, now);
            let tokens = self.keys.entry(key.to_owned()).or_insert_with(new);
            tokens.level -= units;
        }
        self.count(units, now);
    }

    fn count(&mut self, units: f64, now: Duration) {
        let second = now.as_secs();
        if second != self.present.0 {
            let (past, units) = std::mem::replace(&mut self.present, (second, 0.0));
            // What was there from the second before does not make a peak.
            let units = units.min(self.table.rate);
            match self.minutes.back_mut() {
                Some((minute, most)) if *minute == past / 60 => *most = most.max(units),
                _ => self.minutes.push_back((past / 60, units)),
            }
        }
        self.present.1 += units;
    }

    /// Units a second of a table on demand: twice its highest second before the last half hour.
    fn ramp(&mut self, now: Duration) -> f64 {
        let before = now.saturating_sub(RAMP).as_secs() / 60;
        while let Some((minute, units)) = self.minutes.front().copied()
            && minute < before
        {
            self.old_peak = self.old_peak.max(units);
            self.minutes.pop_front();
        }
        2.0 * self.old_peak
    }

    /// Forgets keys whose tokens are all there again, once a second.
    fn purge(&mut self, now: Duration) {
        if now < self.purged_at + Duration::from_secs(1) {
            return;
        }
        self.purged_at = now;
        self.keys.retain(|_, tokens| {
            tokens.refill(now);
            tokens.level + EPSILON < tokens.rate * tokens.kept
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Units that fit when writes of `units` come each `every`, to a key of their own or to one.
    fn write(
        model: &mut Model,
        units: f64,
        every: Duration,
        from: Duration,
        until: Duration,
        key: Option<&str>,
    ) -> f64 {
        let (mut now, mut taken, mut number) = (from, 0.0, 0);
        while now < until {
            number += 1;
            let own = number.to_string();
            if model.admit(key.unwrap_or(&own), units, now).is_ok() {
                taken += units;
            }
            now += every;
        }
        taken
    }

    #[test]
    fn provisioned_capacity_is_given_by_the_second_and_300_seconds_are_kept() {
        let mut model = Model::new(Limits::of(Mode::Provisioned(100)));
        let taken = write(&mut model, 10.0, ms(10), ms(0), ms(10_001), None);
        assert_eq!(
            taken, 1_100.0,
            "ten seconds, and the first one that was there"
        );
        assert_eq!(model.admit("x", 10.0, ms(10_000)), Err(Reason::Provisioned));
        // Idle for an hour: 300 s and the present one are there.
        let hour = ms(3_600_000);
        let taken = write(&mut model, 10.0, ms(1), hour, hour + ms(5_000), None);
        assert!((30_500.0..30_620.0).contains(&taken), "{taken}");
        assert_eq!(model.described(), (100, None));
    }

    #[test]
    fn a_write_larger_than_a_second_is_taken_and_owed() {
        let mut model = Model::new(Limits::of(Mode::Provisioned(100)));
        assert_eq!(model.admit("a", 390.0, ms(0)), Ok(()));
        assert_eq!(model.admit("a", 390.0, ms(3_800)), Err(Reason::Provisioned));
        assert_eq!(model.admit("a", 390.0, ms(3_900)), Ok(()));
    }

    #[test]
    fn a_key_has_a_thousand_whatever_the_table_has() {
        let mut model = Model::new(Limits {
            credit_seconds: 300.0,
            ..Limits::of(Mode::Provisioned(10_000))
        });
        let taken = write(&mut model, 50.0, ms(5), ms(0), ms(10_000), Some("hot"));
        assert_eq!(taken, 10_950.0);
        assert_eq!(model.admit("hot", 50.0, ms(10_000)), Ok(()));
        assert_eq!(model.admit("hot", 50.0, ms(10_000)), Err(Reason::KeyRange));
        assert_eq!(model.admit("other", 50.0, ms(10_000)), Ok(()));
        let taken = write(&mut model, 1.0, ms(1), ms(20_000), ms(40_000), None);
        assert_eq!(taken, 20_000.0);
        assert!(model.keys.len() < 3_000, "{}", model.keys.len());
    }

    #[test]
    fn on_demand_starts_at_4_000_and_doubles_each_half_hour_of_use() {
        let mut model = Model::new(Limits::of(Mode::OnDemand { max: None }));
        let minute = ms(60_000);
        let mut rates = Vec::new();
        for minutes in [0, 29, 31, 62, 93] {
            let now = minute * minutes;
            let taken = write(&mut model, 100.0, ms(2), now, now + ms(10_000), None);
            rates.push((taken / 11_000.0).round());
        }
        // Twice the highest second, which is a little less than what was allowed.
        assert_eq!(rates, [4.0, 4.0, 8.0, 15.0, 31.0]);
        // The account is the end of it.
        for minutes in [124, 155] {
            let now = minute * minutes;
            let taken = write(&mut model, 100.0, ms(1), now, now + ms(10_000), None);
            assert_eq!((taken / 11_000.0).round(), 40.0);
        }
        let late = minute * 155 + ms(10_000);
        let refused: Vec<_> = (0..100).map(|_| model.admit("x", 900.0, late)).collect();
        assert!(
            refused.contains(&Err(Reason::Account)) || refused.contains(&Err(Reason::KeyRange))
        );
    }

    #[test]
    fn limits_change_under_way() {
        let mut model = Model::new(Limits::of(Mode::Provisioned(1_000)));
        model.set_mode(Mode::Provisioned(200), ms(1_000));
        let taken = write(&mut model, 10.0, ms(5), ms(1_000), ms(11_000), None);
        assert!(
            (3_900.0..4_010.0).contains(&taken),
            "what was there, and the new rate: {taken}"
        );
        model.set_mode(Mode::OnDemand { max: Some(300) }, ms(20_000));
        let taken = write(&mut model, 10.0, ms(5), ms(20_000), ms(30_000), None);
        assert_eq!(taken, 3_290.0);
        assert_eq!(model.admit("x", 20.0, ms(30_000)), Err(Reason::MaxOnDemand));
        assert_eq!(model.units_per_second(ms(30_000)), 300.0);
        model.set_mode(Mode::OnDemand { max: None }, ms(40_000));
        model.set_account_units(50.0, ms(40_000));
        let taken = write(&mut model, 10.0, ms(5), ms(41_000), ms(51_000), None);
        assert!((450.0..560.0).contains(&taken), "{taken}");
        assert_eq!(model.admit("x", 45.0, ms(51_000)), Err(Reason::Account));
    }
}
