//! The budget of each partition key, which the table has whatever its capacity is.
//!
//! A chain of items has one partition key and one writer, so its budget is never shared between sinks.

use std::collections::BTreeMap;
use std::time::Duration;

use super::bucket::{Bucket, Rate};
use super::{HotKey, KeyId, KeyUse};

/// What is kept of a key's limit, so that clocks that differ a little do not matter.
const KEPT: f64 = 0.98;

/// Of how much time a key's earnings are kept: a request that waits for the table's budget meanwhile does not
/// lose them. With an item of 400 units that is still within one second's limit.
pub const DEPTH: Duration = Duration::from_millis(500);

/// What a decrease leaves.
const CUT: f64 = 0.9;

/// One decrease leaves at least this.
const CUT_AT_LEAST: f64 = 0.25;

/// Refusals within so long after a decrease are part of what it answered.
const HOLD: Duration = Duration::from_secs(1);

/// Units a second that a key regains in a second.
const GAIN: f64 = 20.0;

/// A key that makes its writers wait in so many seconds in a row is hot.
const HOT_SECONDS: u32 = 5;

/// One that made somebody wait is pressed for so many seconds.
const PRESSED_SECONDS: u64 = 2;

/// It is said again while it lasts, after so long.
const SAID_FOR: Duration = Duration::from_secs(30);

/// Keys that are looked after at one time. More than this are not limited one by one; to use them all up would
/// take millions of units a second.
pub const MAX_KEYS: usize = 10_000;

#[derive(Debug, Clone)]
struct Entry {
    bucket: Bucket,
    /// Units a second after the last decrease.
    cut_to: f64,
    cut_at: Option<Duration>,
    /// Whole second in which `used` is counted.
    second: u64,
    used: u64,
    used_before: u64,
    /// Last second in which somebody had to wait for it, and how many in a row there were.
    short_in: u64,
    short_seconds: u32,
    said_at: Option<Duration>,
}

/// Budgets of partition keys.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Units a second that a key has; `None` limits none.
    limit: Option<f64>,
    entries: BTreeMap<KeyId, Entry>,
    purged_in: u64,
    hot: Vec<HotKey>,
}

impl Keys {
    /// Every key has its limit: so many units a second.
    #[must_use]
    pub fn new(limit: Option<f64>) -> Self {
        Self {
            limit: limit.map(|limit| limit * KEPT),
            entries: BTreeMap::new(),
            purged_in: 0,
            hot: Vec::new(),
        }
    }

    /// How long until a request to these keys may start.
    pub fn wait(&mut self, keys: &[KeyUse], now: Duration) -> Duration {
        let waits = keys.iter().filter_map(|of| {
            let entry = self.entries.get_mut(&of.key)?;
            entry.regain(self.limit?, now);
            Some(entry.bucket.wait(now))
        });
        waits.max().unwrap_or_default()
    }

    /// A request had to wait for these keys, not for the table.
    pub fn short(&mut self, keys: &[KeyUse], now: Duration) {
        for of in keys {
            let Some(entry) = self.entries.get_mut(&of.key) else {
                continue;
            };
            if !entry.bucket.wait(now).is_zero() && entry.is_short_for_long(now) {
                self.hot.extend(entry.say(of.key, now));
            }
        }
    }

    /// True when somebody had to wait for one of these keys lately.
    #[must_use]
    pub fn is_pressed(&self, keys: &[KeyUse], now: Duration) -> bool {
        keys.iter().any(|of| {
            let entry = self.entries.get(&of.key);
            entry.is_some_and(|entry| {
                entry.short_seconds > 0 && now.as_secs() <= entry.short_in + PRESSED_SECONDS
            })
        })
    }

    /// A request starts.
    pub fn take(&mut self, keys: &[KeyUse], now: Duration) {
        let Some(limit) = self.limit else { return };
        self.purge(now);
        for of in keys {
            if self.entries.len() >= MAX_KEYS && !self.entries.contains_key(&of.key) {
                continue;
            }
            let entry = self
                .entries
                .entry(of.key)
                .or_insert_with(|| Entry::new(limit, now));
            entry.bucket.take(of.units);
            entry.count(of.units, now);
        }
    }

    /// These units were taken and not consumed.
    pub fn give_back(&mut self, keys: &[KeyUse]) {
        for of in keys {
            if let Some(entry) = self.entries.get_mut(&of.key) {
                entry.bucket.give_back(of.units as f64);
            }
        }
    }

    /// The key of these that was used most in the last second, with its part of what a key may.
    #[must_use]
    pub fn hottest(&self, keys: &[KeyUse], now: Duration) -> Option<(KeyId, f64)> {
        let limit = self.limit?;
        let uses = keys.iter().filter_map(|of| {
            let entry = self.entries.get(&of.key)?;
            Some((of.key, entry.recent(now) / limit))
        });
        uses.max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The table refused a request of this key for the key's sake.
    pub fn cut(&mut self, key: KeyId, began: Duration, now: Duration) {
        let Some(limit) = self.limit else { return };
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        self.hot.extend(entry.say(key, now));
        if let Some(cut_at) = entry.cut_at
            && (began < cut_at || now < cut_at + HOLD)
        {
            return;
        }
        let rate = entry.rate(limit, now);
        let used = entry.recent(now).clamp(rate * CUT_AT_LEAST, rate);
        entry.cut_to = CUT * used;
        entry.cut_at = Some(now);
        entry.bucket.set_rate(Rate::of(entry.cut_to), now);
    }

    /// Keys that were found hot since this was asked last.
    pub fn take_hot(&mut self) -> Vec<HotKey> {
        std::mem::take(&mut self.hot)
    }

    /// Forgets keys that nobody used lately, once a second.
    fn purge(&mut self, now: Duration) {
        if self.purged_in == now.as_secs() {
            return;
        }
        self.purged_in = now.as_secs();
        self.entries.retain(|_, entry| {
            let is_idle = entry.second + 2 < now.as_secs() && entry.bucket.wait(now).is_zero();
            let is_said = entry
                .said_at
                .is_some_and(|said_at| now < said_at + SAID_FOR);
            let is_cut = entry.cut_at.is_some_and(|cut_at| now < cut_at + SAID_FOR);
            !is_idle || is_said || is_cut
        });
    }
}

impl Entry {
    fn new(limit: f64, now: Duration) -> Self {
        Self {
            bucket: Bucket::new(Rate::of(limit), DEPTH, now),
            cut_to: limit,
            cut_at: None,
            second: now.as_secs(),
            used: 0,
            used_before: 0,
            short_in: 0,
            short_seconds: 0,
            said_at: None,
        }
    }

    fn rate(&self, limit: f64, now: Duration) -> f64 {
        match self.cut_at {
            None => limit,
            Some(cut_at) => {
                let gained = GAIN * now.saturating_sub(cut_at).as_secs_f64();
                (self.cut_to + gained).min(limit)
            }
        }
    }

    fn regain(&mut self, limit: f64, now: Duration) {
        if self.cut_at.is_some() {
            self.bucket.set_rate(Rate::of(self.rate(limit, now)), now);
        }
    }

    fn count(&mut self, units: u64, now: Duration) {
        let second = now.as_secs();
        if second != self.second {
            self.used_before = if second == self.second + 1 {
                self.used
            } else {
                0
            };
            self.used = 0;
            self.second = second;
        }
        self.used = self.used.saturating_add(units);
    }

    /// Units in the last second, about.
    fn recent(&self, now: Duration) -> f64 {
        let left = 1.0 - f64::from(now.subsec_nanos()) / 1e9;
        match now.as_secs().saturating_sub(self.second) {
            0 => self.used as f64 + self.used_before as f64 * left,
            1 => self.used as f64 * left,
            _ => 0.0,
        }
    }

    fn is_short_for_long(&mut self, now: Duration) -> bool {
        let second = now.as_secs();
        if second != self.short_in {
            let is_next = second <= self.short_in + 2;
            self.short_seconds = if is_next { self.short_seconds + 1 } else { 1 };
            self.short_in = second;
        }
        self.short_seconds >= HOT_SECONDS
    }

    /// Says that the key is hot, unless that was said a moment ago.
    fn say(&mut self, key: KeyId, now: Duration) -> Option<HotKey> {
        if self.said_at.is_some_and(|said_at| now < said_at + SAID_FOR) {
            return None;
        }
        self.said_at = Some(now);
        Some(HotKey {
            key,
            units_per_second: self.recent(now).round() as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn of(key: u64, units: u64) -> [KeyUse; 1] {
        [KeyUse {
            key: KeyId(key),
            units,
        }]
    }

    /// Writes as much as `keys` allow for so long; the units.
    fn write(keys: &mut Keys, request: [KeyUse; 1], from: Duration, until: Duration) -> u64 {
        let (mut now, mut units) = (from, 0);
        while now < until {
            let wait = keys.wait(&request, now);
            if wait.is_zero() {
                keys.take(&request, now);
                units += request[0].units;
            } else {
                keys.short(&request, now);
                now += wait;
            }
        }
        units
    }

    #[test]
    fn a_key_has_its_limit_and_is_called_hot_when_it_is_used_up_for_long() {
        let mut keys = Keys::new(Some(1_000.0));
        let units = write(&mut keys, of(1, 100), ms(0), ms(4_000));
        assert!((3_900..=4_600).contains(&units), "{units}");
        assert_eq!(keys.take_hot(), []);
        write(&mut keys, of(1, 100), ms(4_000), ms(20_000));
        let hot = keys.take_hot();
        assert_eq!(hot.len(), 1, "said once: {hot:?}");
        assert!((850..1_100).contains(&hot[0].units_per_second), "{hot:?}");
        assert_eq!(keys.wait(&of(2, 1), ms(20_000)), ms(0), "others are free");
        write(&mut keys, of(1, 100), ms(20_000), ms(60_000));
        assert_eq!(keys.take_hot().len(), 1, "and again while it lasts");
    }

    #[test]
    fn a_refused_key_is_slowed_down_and_comes_back() {
        let mut keys = Keys::new(Some(1_000.0));
        write(&mut keys, of(1, 50), ms(0), ms(2_000));
        keys.cut(KeyId(1), ms(2_000), ms(2_000));
        keys.cut(KeyId(1), ms(2_100), ms(2_100));
        assert_eq!(keys.take_hot().len(), 1);
        let units = write(&mut keys, of(1, 50), ms(2_000), ms(3_000));
        assert!((850..=950).contains(&units), "{units}");
        let units = write(&mut keys, of(1, 50), ms(12_000), ms(13_000));
        assert!(
            (1_400..=1_560).contains(&units),
            "with what it kept: {units}"
        );
    }

    #[test]
    fn what_is_kept_is_bounded_and_idle_keys_are_forgotten() {
        let mut keys = Keys::new(Some(1_000.0));
        for key in 0..30_000 {
            keys.take(&of(key, 10), ms(10));
        }
        assert_eq!(keys.entries.len(), MAX_KEYS);
        keys.take(&of(1, 1), ms(10_000));
        assert_eq!(keys.entries.len(), 1);
        let mut without = Keys::new(None);
        without.take(&of(1, 5_000), ms(0));
        assert_eq!(without.wait(&of(1, 1), ms(0)), ms(0));
    }
}
