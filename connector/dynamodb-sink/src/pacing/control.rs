//! How many units a second may be spent: what somebody said, less what the table refuses, or learned.
//!
//! Additive increase, multiplicative decrease (Chiu and Jain, 1989): of several that share an
//! unknown limit, each gains as much in the same time and loses in proportion, so that they come to equal
//! shares without knowing of each other. The increase doubles with every ten seconds without a refusal, for
//! all of them alike, so that a limit that was raised a lot is found in a minute.

use std::time::Duration;

/// A new on-demand table takes so many units a second (DynamoDB developer guide, "Initial throughput and
/// scaling properties", read 2026-11-26).
pub const START_UNITS: f64 = 4_000.0;

/// No refusal lowers a budget below this, in units a second.
pub const FLOOR_UNITS: f64 = 5.0;

/// What a decrease leaves.
const KEPT: f64 = 0.95;

/// One decrease leaves at least this, however little got through in the second before.
const KEPT_AT_LEAST: f64 = 0.25;

/// Refusals within so long after a decrease are part of what it answered.
const HOLD: Duration = Duration::from_secs(1);

/// An average over less time says little.
const AVERAGED: Duration = Duration::from_secs(10);

/// The part of that time in which the budget must have been used up.
const USED_UP: f64 = 0.8;

/// The budget grows in steps of this length, in which it was used up.
const STEP: Duration = Duration::from_millis(250);

/// Units a second that are gained in a second.
const GAIN: f64 = 5.0;

/// The gain stays the same for so long after a refusal,
const STEADY: Duration = Duration::from_secs(30);

/// and then doubles each time that this has passed.
const GAIN_DOUBLES: Duration = Duration::from_secs(5);

/// until it is this part of the budget: what is beyond a limit may be credit, and is not to be spent at once.
const MOST_GAIN: f64 = 0.04;

/// An account that refuses is left alone for so long, then twice as long and so on.
const BRAKE: Duration = Duration::from_secs(1);

/// The longest of these.
const LONGEST_BRAKE: Duration = Duration::from_secs(10);

/// After so long without a refusal of the account the next brake is a short one again.
const BRAKE_FORGOTTEN: Duration = Duration::from_secs(60);

/// The budget as it is now.
#[derive(Debug, Clone)]
pub struct Control {
    /// What somebody said, for all who share it; `None` when nobody did.
    limit: Option<f64>,
    /// The part of `limit` that is ours.
    share: f64,
    /// Units a second: of all who share it where somebody said a limit, else our own.
    whole: f64,
    /// Nothing was refused yet, and nobody said a limit: it is looked for by doubling.
    is_searching: bool,
    /// Somebody had to wait for the budget since the last step.
    is_short: bool,
    stepped_at: Duration,
    cut_at: Option<Duration>,
    /// Units consumed until then.
    total_at_cut: f64,
    /// Time in which the budget was used up, since the last decrease.
    quiet: Duration,
    brake_until: Duration,
    brakes: u32,
}

impl Control {
    /// All of `limit`, or of what a new table takes.
    #[must_use]
    pub fn new(limit: Option<f64>) -> Self {
        Self {
            limit,
            share: 1.0,
            whole: limit.unwrap_or(START_UNITS),
            is_searching: true,
            is_short: false,
            stepped_at: Duration::ZERO,
            cut_at: None,
            total_at_cut: 0.0,
            quiet: Duration::ZERO,
            brake_until: Duration::ZERO,
            brakes: 0,
        }
    }

    /// Units a second now.
    #[must_use]
    pub const fn rate(&self) -> f64 {
        self.whole * self.part()
    }

    /// What somebody said may be spent, by all who share it.
    #[must_use]
    pub const fn limit(&self) -> Option<f64> {
        self.limit
    }

    const fn part(&self) -> f64 {
        match self.limit {
            Some(_) => self.share,
            None => 1.0,
        }
    }

    /// How long nothing at all may start.
    #[must_use]
    pub fn brake(&self, now: Duration) -> Duration {
        self.brake_until.saturating_sub(now)
    }

    /// Somebody has to wait for the budget.
    pub const fn short(&mut self) {
        self.is_short = true;
    }

    /// Somebody says another limit, or none. It is news, so it replaces what was guessed below the old one.
    pub fn set_limit(&mut self, limit: Option<f64>) {
        if limit == self.limit {
            return;
        }
        let ours = self.rate();
        self.limit = limit;
        match limit {
            Some(limit) => self.whole = limit,
            None => {
                self.whole = ours;
                self.is_searching = true;
            }
        }
    }

    /// Another part of what is shared: `share` in `0.0..=1.0`. A learned budget learns it from the table, except
    /// for its first value.
    pub fn set_share(&mut self, share: f64) {
        if self.limit.is_none() && self.whole == START_UNITS * self.share {
            self.whole = START_UNITS * share;
        }
        self.share = share;
    }

    /// Grows, if it is time; `used` is what is consumed in a second, of late.
    pub fn step(&mut self, used: f64, now: Duration) {
        if now < self.stepped_at + STEP {
            return;
        }
        self.stepped_at = now;
        if !std::mem::take(&mut self.is_short) {
            return;
        }
        self.quiet += STEP;
        let step = STEP.as_secs_f64();
        let grown = match self.limit {
            None if self.is_searching => self.whole * step.exp2(),
            _ => {
                let long = self.quiet.saturating_sub(STEADY).as_secs_f64();
                let doublings = (long / GAIN_DOUBLES.as_secs_f64()).min(30.0);
                let most = GAIN.max(self.whole * MOST_GAIN);
                self.whole + step * (GAIN * doublings.exp2()).min(most)
            }
        };
        // A budget that nobody has used proves nothing.
        let proven = grown.min(2.0 * self.of_whole(used)).max(self.whole);
        self.whole = self.limit.map_or(proven, |limit| proven.min(limit));
    }

    /// What all who share would have used if each used as much for its part.
    fn of_whole(&self, used: f64) -> f64 {
        used / self.part().max(f64::MIN_POSITIVE)
    }

    /// The table refused a request that began at `began`; `used` is what got through in a second of late, and
    /// `total` since time began. Answers whether that was news.
    pub fn cut(&mut self, used: f64, total: f64, began: Duration, now: Duration) -> bool {
        if let Some(cut_at) = self.cut_at
            && (began < cut_at || now < cut_at + HOLD)
        {
            return false;
        }
        let mut through = used;
        if let Some(cut_at) = self.cut_at {
            // Between two refusals, with the budget used up, the table gave what it earned: what was more
            // of late was saved before.
            let time = now.saturating_sub(cut_at);
            if time >= AVERAGED && self.quiet >= time.mul_f64(USED_UP) {
                through = through.min((total - self.total_at_cut) / time.as_secs_f64());
            }
        }
        let through = self.of_whole(through);
        let through = through.clamp(self.whole * KEPT_AT_LEAST, self.whole);
        self.total_at_cut = total;
        self.decrease(KEPT * through, now);
        true
    }

    /// The account refused a request: nobody may start for a while.
    pub fn stop(&mut self, now: Duration) {
        if now < self.brake_until {
            return;
        }
        if now > self.brake_until + BRAKE_FORGOTTEN {
            self.brakes = 0;
        }
        let brake = BRAKE.saturating_mul(1 << self.brakes.min(10));
        self.brakes = self.brakes.saturating_add(1);
        self.brake_until = now + brake.min(LONGEST_BRAKE);
        self.decrease(self.whole / 2.0, now);
    }

    fn decrease(&mut self, whole: f64, now: Duration) {
        self.whole = whole.max(FLOOR_UNITS.min(self.whole));
        self.is_searching = false;
        self.cut_at = Some(now);
        self.quiet = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// Lets a budget that is always used up grow.
    fn grow(control: &mut Control, from: f64, to: f64) {
        let mut now = from;
        while now < to {
            now += 0.25;
            control.short();
            control.step(control.rate(), seconds(now));
        }
    }

    #[test]
    fn a_limit_that_is_said_is_held_and_regained() {
        let mut control = Control::new(Some(1_000.0));
        grow(&mut control, 0.0, 10.0);
        assert_eq!(control.rate(), 1_000.0);
        assert!(control.cut(800.0, 0.0, seconds(10.0), seconds(10.0)));
        assert_eq!(control.rate(), 760.0);
        // What began before, or comes right after, is part of the same news.
        assert!(!control.cut(800.0, 0.0, seconds(9.9), seconds(12.0)));
        assert!(!control.cut(800.0, 0.0, seconds(10.5), seconds(10.9)));
        assert_eq!(control.rate(), 760.0);
        grow(&mut control, 12.0, 32.0);
        assert!((855.0..865.0).contains(&control.rate()), "{control:?}");
        grow(&mut control, 32.0, 60.0);
        assert_eq!(control.rate(), 1_000.0);
        control.cut(720.0, 0.0, seconds(61.0), seconds(61.0));
        control.set_limit(Some(3_000.0));
        assert_eq!(control.rate(), 3_000.0);
    }

    #[test]
    fn without_a_limit_it_doubles_until_it_is_refused_and_then_adds() {
        let mut control = Control::new(None);
        grow(&mut control, 0.0, 2.0);
        assert!((control.rate() - 16_000.0).abs() < 1.0, "{control:?}");
        control.cut(6_000.0, 20_000.0, seconds(2.0), seconds(2.0));
        assert_eq!(control.rate(), 5_700.0);
        grow(&mut control, 2.0, 22.0);
        assert!((5_795.0..5_805.0).contains(&control.rate()), "{control:?}");
        // More than it gave on the average since then was saved before.
        control.cut(
            5_800.0,
            20_000.0 + 20.0 * 5_500.0,
            seconds(22.0),
            seconds(22.0),
        );
        assert_eq!(control.rate(), 5_225.0);
        control.cut(0.0, 0.0, seconds(24.0), seconds(24.0));
        assert!(control.rate() > 1_000.0, "one second does not end it");
        grow(&mut control, 24.0, 84.0);
        assert!(
            control.rate() > 2_000.0,
            "after half a minute it is found sooner"
        );
    }

    #[test]
    fn a_budget_that_is_not_used_does_not_grow() {
        let mut control = Control::new(None);
        for second in 1..100 {
            control.step(100.0, seconds(f64::from(second)));
        }
        assert_eq!(control.rate(), START_UNITS);
        for second in 100..200 {
            control.short();
            control.step(100.0, seconds(f64::from(second)));
        }
        assert_eq!(control.rate(), START_UNITS);
    }

    #[test]
    fn an_account_that_refuses_stops_everything_longer_each_time() {
        let mut control = Control::new(Some(1_000.0));
        let mut now = 0.0;
        let mut brakes = Vec::new();
        for _ in 0..6 {
            control.stop(seconds(now));
            control.stop(seconds(now));
            let brake = control.brake(seconds(now)).as_secs_f64();
            brakes.push(brake);
            now += brake + 0.1;
        }
        assert_eq!(brakes, [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]);
        assert_eq!(control.rate(), 1_000.0 / 64.0);
        control.stop(seconds(now + 100.0));
        assert_eq!(control.brake(seconds(now + 100.0)), BRAKE);
    }

    #[test]
    fn a_share_is_a_part_of_what_is_said() {
        let mut control = Control::new(Some(1_000.0));
        control.set_share(0.25);
        assert_eq!(control.rate(), 250.0);
        control.cut(250.0, 0.0, seconds(1.0), seconds(1.0));
        control.set_share(0.5);
        assert_eq!(control.rate(), 475.0);
        control.set_limit(Some(400.0));
        assert_eq!(control.rate(), 200.0);
        control.set_share(0.0);
        assert_eq!(control.rate(), 0.0);
        control.set_share(1.0);
        assert_eq!(control.rate(), 400.0);
        let mut learned = Control::new(None);
        learned.set_share(0.5);
        assert_eq!(learned.rate(), 2_000.0);
        learned.cut(1_000.0, 0.0, seconds(1.0), seconds(1.0));
        learned.set_share(1.0);
        assert_eq!(learned.rate(), 950.0);
    }

    /// Sinks that share an unknown limit come to equal parts of it.
    #[test]
    fn learned_budgets_become_even() {
        let limit = 6_000.0;
        let mut sinks = [200.0, 1_500.0, 6_000.0].map(|rate| Control {
            whole: rate,
            is_searching: false,
            ..Control::new(None)
        });
        let mut totals = [0.0; 3];
        let mut credit = 0.0_f64;
        for step in 1..40_000 {
            let now = seconds(f64::from(step) / 4.0);
            let sum: f64 = sinks.iter().map(Control::rate).sum();
            credit = (credit + (limit - sum) / 4.0).min(limit);
            let through = if credit < 0.0 { limit / sum } else { 1.0 };
            for (sink, total) in sinks.iter_mut().zip(&mut totals) {
                *total += sink.rate() * through / 4.0;
                sink.short();
                sink.step(sink.rate(), now);
                if through < 1.0 {
                    sink.cut(sink.rate() * through, *total, now, now);
                }
            }
            credit = credit.max(0.0);
        }
        let rates = sinks.map(|sink| sink.rate());
        let (least, most) = rates
            .iter()
            .fold((f64::MAX, 0.0_f64), |(least, most), rate| {
                (least.min(*rate), most.max(*rate))
            });
        assert!(most / least < 1.1, "{rates:?}");
        let sum: f64 = rates.iter().sum();
        assert!((0.85..1.15).contains(&(sum / limit)), "{rates:?}");
    }
}
