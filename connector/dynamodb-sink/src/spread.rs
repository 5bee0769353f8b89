//! Over how many partition keys of the table a chain of items is spread.
//!
//! A partition key takes 1,000 write units a second, whatever the table may take. A chain that needs more goes
//! round several of them, its *write shards*. What decides is pure; time is an argument.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use millpond_connector::problem::Problems;
use millpond_connector::section::Section;
use millpond_connector::topic::PartitionId;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::Deserializer;

use crate::limits::{MAX_NOTE_BYTES, MAX_WRITE_SHARDS};
use crate::pace_settings::OrWord;

/// How long a chain has at least the number of write shards that it was given last: the pacer needs seconds to
/// see what a change gave, and each of the new keys may call out. What was called out counts as long.
pub const HOLD: Duration = Duration::from_secs(30);

/// What a chain takes is measured over so long at least.
const MEASURED: Duration = Duration::from_secs(5);

/// A chain of several write shards that takes less than this part of their limits is held back by something else:
/// it has never more than two and a half times as many as it needs.
const BUSY: f64 = 0.8;

/// Chains that are remembered as hot at one time; as many as the pacer looks after keys.
const MAX_HOT: usize = 10_000;

/// In the settings of the fingerprint, before the number.
const SETTING: &str = "write-shards ";

/// The setting `write-shards`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WriteShards {
    /// One, and twice as many whenever the limit of a partition key holds the chain back.
    #[default]
    Auto,
    /// So many, 1 to [`MAX_WRITE_SHARDS`].
    Fixed(u32),
}

impl WriteShards {
    /// As it stands in the settings of the fingerprint; `None` for the default.
    #[must_use]
    pub fn text(self) -> Option<String> {
        match self {
            Self::Auto => None,
            Self::Fixed(number) => Some(format!("{SETTING}{number}")),
        }
    }

    /// Reads what [`WriteShards::text`] gave.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let number = text.strip_prefix(SETTING)?.parse().ok()?;
        (1..=MAX_WRITE_SHARDS)
            .contains(&number)
            .then_some(Self::Fixed(number))
    }

    /// The most that a chain may have.
    #[must_use]
    pub fn most(self) -> u32 {
        match self {
            Self::Auto => MAX_WRITE_SHARDS,
            Self::Fixed(number) => number,
        }
    }
}

/// `auto`, or a number; not checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawWriteShards(pub(crate) Option<u64>);

impl<'de> Deserialize<'de> for RawWriteShards {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(deserializer.deserialize_any(OrWord("auto"))?))
    }
}

impl JsonSchema for RawWriteShards {
    fn schema_name() -> Cow<'static, str> {
        "WriteShards".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": 1, "maximum": MAX_WRITE_SHARDS },
                { "const": "auto" },
            ]
        })
    }
}

/// Checks `write-shards`; `None` once a problem was pushed.
pub(crate) fn write_shards(
    section: &Section<'_>,
    problems: &mut Problems,
    raw: Option<RawWriteShards>,
) -> Option<WriteShards> {
    let Some(RawWriteShards(Some(number))) = raw else {
        return Some(WriteShards::Auto);
    };
    let most = u64::from(MAX_WRITE_SHARDS);
    let number = section.in_range(problems, "write-shards", number, 1..=most)?;
    Some(WriteShards::Fixed(u32::try_from(number).ok()?))
}

/// Which chains need more write shards, of all topic partitions of a sink.
#[derive(Debug)]
pub struct Spread {
    /// Units a second that a partition key takes.
    key_units: f64,
    chains: BTreeMap<(PartitionId, String), Hot>,
}

#[derive(Debug, Default)]
struct Hot {
    grown_at: Option<Duration>,
    /// When a key was called hot last.
    called_at: Option<Duration>,
    /// Units that were written since then.
    units: u64,
    since: Duration,
}

impl Hot {
    fn is_held(&self, now: Duration) -> bool {
        self.grown_at.is_some_and(|at| now < at + HOLD)
    }

    fn is_hot(&self, now: Duration) -> bool {
        self.called_at.is_some_and(|at| now <= at + HOLD)
    }

    /// Units a second, once they are known.
    fn rate(&self, now: Duration) -> Option<f64> {
        let over = now.saturating_sub(self.since);
        (over >= MEASURED).then(|| self.units as f64 / over.as_secs_f64())
    }

    fn measure(&mut self, now: Duration) {
        (self.units, self.since) = (0, now);
    }

    /// True when more write shards are likely to help. A key makes others wait now and then although the table, or
    /// what there is to write, sets the pace.
    fn needs_more(&self, present: u32, key_units: f64, now: Duration) -> bool {
        let is_busy = |rate: f64| rate >= BUSY * key_units * f64::from(present);
        self.is_hot(now) && (present == 1 || self.rate(now).is_some_and(is_busy))
    }
}

impl Spread {
    /// Where a partition key takes so many units a second.
    #[must_use]
    pub fn new(key_units: u64) -> Self {
        Self {
            key_units: key_units as f64,
            chains: BTreeMap::new(),
        }
    }

    /// A partition key of the chain is at its limit.
    pub fn hot(&mut self, partition: PartitionId, group: &str, now: Duration) {
        let chain = (partition, group.to_owned());
        if !self.chains.contains_key(&chain) && self.chains.len() >= MAX_HOT {
            self.chains
                .retain(|_, hot| hot.is_hot(now) || hot.is_held(now));
            if self.chains.len() >= MAX_HOT {
                return;
            }
        }
        let hot = self.chains.entry(chain).or_default();
        if !hot.is_held(now) && !hot.is_hot(now) {
            hot.called_at = Some(now);
            hot.measure(now);
        }
    }

    /// True when no chain was ever hot, as in most sinks.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.chains.is_empty()
    }

    /// So many units of the chain were written.
    pub fn written(&mut self, partition: PartitionId, group: &str, units: u64) {
        if let Some(hot) = self.chains.get_mut(&(partition, group.to_owned())) {
            hot.units = hot.units.saturating_add(units);
        }
    }

    /// Write shards for the next plan of a chain that has `present` now.
    #[must_use]
    pub fn number(&self, partition: PartitionId, group: &str, present: u32, now: Duration) -> u32 {
        let present = present.clamp(1, MAX_WRITE_SHARDS);
        if self.is_calm() {
            return present;
        }
        let hot = self.chains.get(&(partition, group.to_owned()));
        match hot.is_some_and(|hot| hot.needs_more(present, self.key_units, now)) {
            true => (present * 2).min(MAX_WRITE_SHARDS),
            false => present,
        }
    }

    /// The chain has what [`Spread::number`] said: that is in an intent.
    pub fn grown(&mut self, partition: PartitionId, group: &str, now: Duration) {
        if let Some(hot) = self.chains.get_mut(&(partition, group.to_owned())) {
            hot.called_at = None;
            hot.grown_at = Some(now);
            hot.measure(now);
        }
    }
}

/// Numbers of a plan's groups as its intent holds them: `<index>:<number>` of those with more than one, by commas,
/// where the index counts the groups in order. What no longer fits gets one: any number does that is recorded.
pub fn note(numbers: &mut [u32]) -> String {
    let mut note = String::new();
    for (index, number) in numbers.iter_mut().enumerate() {
        if *number <= 1 {
            continue;
        }
        let entry = format!("{index}:{number}");
        if note.len() + 1 + entry.len() > MAX_NOTE_BYTES {
            *number = 1;
            continue;
        }
        if !note.is_empty() {
            note.push(',');
        }
        note.push_str(&entry);
    }
    note
}

/// Reads what [`note`] gave of so many groups; `None` for anything else.
#[must_use]
pub fn parse_note(note: &str, groups: usize) -> Option<Vec<u32>> {
    let mut numbers = vec![1; groups];
    for entry in note.split(',').filter(|entry| !entry.is_empty()) {
        let (index, number) = entry.split_once(':')?;
        let number = number.parse().ok()?;
        if !(2..=MAX_WRITE_SHARDS).contains(&number) {
            return None;
        }
        *numbers.get_mut(index.parse::<usize>().ok()?)? = number;
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_hot_chain_doubles_and_then_holds_for_a_while() {
        let mut spread = Spread::new(1_000);
        assert_eq!(spread.number(0, "g", 0, s(0)), 1);
        spread.hot(0, "g", s(5));
        spread.hot(0, "g", s(6));
        assert_eq!(spread.number(0, "g", 1, s(6)), 2);
        assert_eq!(
            spread.number(0, "g", 1, s(7)),
            2,
            "a plan that is made again"
        );
        assert_eq!(
            spread.number(1, "g", 1, s(7)),
            1,
            "of another topic partition"
        );
        spread.grown(0, "g", s(7));
        assert_eq!(spread.number(0, "g", 2, s(7)), 2);
        // Both keys call out.
        spread.hot(0, "g", s(20));
        spread.hot(0, "g", s(36));
        spread.written(0, "g", 60_000);
        assert_eq!(spread.number(0, "g", 2, s(36)), 2, "held");
        spread.hot(0, "g", s(37));
        assert_eq!(spread.number(0, "g", 2, s(39)), 2, "not measured yet");
        spread.written(0, "g", 19_000);
        assert_eq!(spread.number(0, "g", 2, s(47)), 4);
        assert_eq!(spread.number(0, "g", 2, s(68)), 2, "long ago");
    }

    #[test]
    fn it_stops_where_more_keys_give_nothing() {
        let mut spread = Spread::new(1_000);
        let mut now = s(0);
        let mut present = 1;
        // The table gives 4,500 units a second; keys call out all the time.
        for _ in 0..600 {
            now += s(1);
            spread.hot(0, "g", now);
            spread.written(0, "g", 4_500.min(u64::from(present) * 980));
            let number = spread.number(0, "g", present, now);
            if number > present {
                spread.grown(0, "g", now);
            }
            present = number;
        }
        assert_eq!(present, 8);
        // Another process finds eight, and sees no need.
        let mut spread = Spread::new(1_000);
        spread.hot(0, "g", now);
        spread.written(0, "g", 45_000);
        assert_eq!(spread.number(0, "g", present, now + s(10)), 8);
        assert_eq!(spread.number(0, "g", 4, now + s(10)), 8, "of four it would");
        assert_eq!(
            spread.number(0, "g", MAX_WRITE_SHARDS, now),
            MAX_WRITE_SHARDS
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut spread = Spread::new(1_000);
        for group in 0..2 * MAX_HOT {
            spread.hot(0, &group.to_string(), s(1));
        }
        assert_eq!(spread.chains.len(), MAX_HOT);
        spread.hot(0, "another", s(100));
        assert_eq!(spread.chains.len(), 1);
    }

    #[test]
    fn a_note_says_the_numbers_and_stays_small() {
        let mut numbers = [1, 4, 1, 2];
        assert_eq!(note(&mut numbers), "1:4,3:2");
        assert_eq!(parse_note("1:4,3:2", 4), Some(vec![1, 4, 1, 2]));
        assert_eq!(parse_note("", 2), Some(vec![1, 1]));
        for bad in ["1", "1:1", "1:65", "4:2", "a:2", "0:-2"] {
            assert_eq!(parse_note(bad, 4), None, "{bad}");
        }
        let mut many = vec![64; 10_000];
        let text = note(&mut many);
        assert!(text.len() <= MAX_NOTE_BYTES);
        assert_eq!(parse_note(&text, many.len()), Some(many));
    }

    #[test]
    fn a_setting_is_read_as_it_was_kept() {
        assert_eq!(WriteShards::Auto.text(), None);
        let fixed = WriteShards::Fixed(7);
        assert_eq!(
            fixed.text().as_deref().and_then(WriteShards::parse),
            Some(fixed)
        );
        for bad in ["write-shards 0", "write-shards 65", "7", "{}"] {
            assert_eq!(WriteShards::parse(bad), None, "{bad}");
        }
    }
}
