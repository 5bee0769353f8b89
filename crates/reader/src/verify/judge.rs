//! Judges the counts of a census by what the ledger, the gaps and the stream say. Pure.

use std::collections::BTreeMap;

use millpond_format::gap::{ChainGap, Gap};
use millpond_format::marks::Marks;
use millpond_format::sequence::Position;
use xxhash_rust::xxh3::xxh3_128;

use super::census::{Census, Tally, Thresholds, ordinal_hash};
use super::finding::{Finding, ShardKey};

/// Said where events are missing that a dead-letter file might account for.
const LETTERS_HINT: &str =
    "if dead letters of this pipeline are in a file or another table, name it";

/// What the ledger of a topic partition says.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Topic partition.
    pub topic_partition: u32,
    /// First topic offset that is not committed.
    pub committed: u64,
    /// First topic offset that the pipeline read.
    pub start: u64,
    /// True while a plan is being written.
    pub is_open: bool,
    /// Per shard how far its events are in the table.
    pub marks: Marks,
}

/// What the stream still holds of one shard for one topic partition.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// Position of the first event that is held.
    pub first: Option<Position>,
    /// Events up to the ledger's mark.
    pub events: u64,
    /// Events beyond it, which are not in the table yet.
    pub waiting: u64,
    /// Sum of the hashes of the values of the events up to the mark.
    pub values: u128,
}

impl Held {
    /// Takes an event of the stream; `is_marked` when the ledger's mark covers it.
    pub fn take(&mut self, position: &Position, value: &[u8], is_marked: bool) {
        if self.first.as_ref().is_none_or(|first| position < first) {
            self.first = Some(position.clone());
        }
        if is_marked {
            self.events += 1;
            self.values = self.values.wrapping_add(xxh3_128(value));
        } else {
            self.waiting += 1;
        }
    }
}

/// The verdict on one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardCount {
    /// Which.
    pub key: ShardKey,
    /// What is there.
    pub tally: Tally,
    /// Events that recorded gaps say are lost.
    pub in_gaps: u64,
    /// Ordinals that are nowhere; where SmartModules remove records, these are among them.
    pub missing: u64,
}

/// What is judged.
pub(crate) struct Evidence<'a> {
    pub(crate) census: &'a Census,
    pub(crate) ledgers: &'a BTreeMap<u32, Ledger>,
    pub(crate) gaps: &'a [(u32, Gap)],
    /// By topic partition, stream and shard.
    pub(crate) held: &'a BTreeMap<(u32, Box<str>, Box<str>), Held>,
    pub(crate) is_deep: bool,
}

impl Evidence<'_> {
    /// Every shard, and what is wrong.
    pub(crate) fn judge(&self) -> (Vec<ShardCount>, Vec<Finding>) {
        let mut shards = Vec::new();
        let mut findings = Vec::new();
        for ledger in self.ledgers.values() {
            let mut of_partition = Vec::new();
            let mut missing = Vec::new();
            for mut found in self.expected(ledger) {
                self.judge_shard(ledger, &mut found, &mut findings, &mut missing);
                of_partition.push(found.count);
            }
            // Records that SmartModules removed leave holes that are no loss; they are counted.
            let absent: u64 = of_partition.iter().map(|count| count.missing).sum();
            if absent > ledger.marks.removed_ever {
                findings.extend(missing);
            }
            shards.extend(of_partition);
        }
        (shards, findings)
    }

    /// Tallies of a topic partition with what its marks expect, those without a tally too.
    fn expected(&self, ledger: &Ledger) -> Vec<Expected> {
        let of = ledger.topic_partition;
        let mut all: Vec<Expected> = Vec::new();
        let tallies = self.census.shards.iter();
        for (key, tally) in tallies.filter(|(key, _)| key.topic_partition == of) {
            let is_first = all.last().is_none_or(|before| {
                before.count.key.shard != key.shard || before.count.key.stream != key.stream
            });
            all.push(Expected::new(key.clone(), tally.clone(), is_first));
        }
        for mark in ledger.marks.iter() {
            let known =
                |e: &Expected| e.count.key.shard == mark.shard && e.count.key.stream == mark.stream;
            // A later numbering may hold nothing but repetitions, so only a shard of which
            // nothing at all is there is surely missing.
            if !all.iter().any(known) && ledger.start == 0 {
                let key = ShardKey {
                    topic_partition: of,
                    stream: mark.stream.clone(),
                    shard: mark.shard.clone(),
                    epoch: mark.epoch,
                };
                let mut none = Expected::new(key, Tally::default(), true);
                none.is_absent = true;
                all.push(none);
            }
        }
        all
    }

    fn judge_shard(
        &self,
        ledger: &Ledger,
        found: &mut Expected,
        findings: &mut Vec<Finding>,
        missing: &mut Vec<Finding>,
    ) {
        let Expected {
            count,
            is_first,
            is_absent,
        } = found;
        let (key, tally) = (count.key.clone(), count.tally.clone());
        let mark = ledger.marks.get(&key.stream, &key.shard);
        let marked = mark
            .filter(|mark| mark.epoch == key.epoch)
            .map(|m| m.ordinal);
        let is_older = mark.is_some_and(|mark| mark.epoch > key.epoch);
        if !is_older && marked.is_none_or(|marked| marked < tally.last) && !*is_absent {
            findings.push(Finding::MarkBehind {
                key: key.clone(),
                marked,
                last: tally.last,
            });
        }
        let gaps = self.gaps_of(&key);
        let whole = *is_first && ledger.start == 0;
        let gap_first = gaps.iter().map(|gap| gap.first).min();
        let first = match (whole, *is_absent) {
            (true, _) => 0,
            (false, true) => return,
            (false, false) => gap_first.map_or(tally.first, |gap| gap.min(tally.first)),
        };
        let gap_last = gaps.iter().map(|gap| gap.last).max().unwrap_or(0);
        let last = marked.unwrap_or(0).max(tally.last).max(gap_last);
        let ordinals = last - first + 1;
        let present = tally.events + tally.dead_letters;
        let lost: u64 = gaps.iter().map(|gap| gap.missing).sum();
        if present > ordinals {
            findings.push(Finding::RepeatedEvents {
                key,
                first,
                last,
                repeated: present - ordinals,
            });
            return;
        }
        let absent = ordinals - present;
        count.in_gaps = lost.min(absent);
        count.missing = absent - count.in_gaps;
        if count.missing > 0 {
            missing.push(Finding::MissingEvents {
                key: key.clone(),
                first,
                last,
                missing: count.missing,
                hint: (tally.dead_letters == 0).then_some(LETTERS_HINT),
            });
        }
        if self.is_deep && absent == 0 && tally.opaque == 0 {
            let sum = (first..=last).fold(0u64, |sum, o| sum.wrapping_add(ordinal_hash(o)));
            if sum != tally.ordinals {
                findings.push(Finding::OtherOrdinals {
                    key: key.clone(),
                    first,
                    last,
                });
            }
        }
        if marked.is_some() {
            self.judge_stream(ledger, &key, &tally, (ordinals, absent), findings);
        }
    }

    /// Holds the newest numbering of a shard against what the stream holds of it.
    fn judge_stream(
        &self,
        ledger: &Ledger,
        key: &ShardKey,
        tally: &Tally,
        (ordinals, absent): (u64, u64),
        findings: &mut Vec<Finding>,
    ) {
        let place = (key.topic_partition, key.stream.clone(), key.shard.clone());
        let Some(held) = self.held.get(&place) else {
            return;
        };
        let others = self.census.shards.keys().filter(|other| {
            (other.topic_partition, &other.stream, &other.shard)
                == (key.topic_partition, &key.stream, &key.shard)
        });
        if others.count() != 1 || ledger.start != 0 {
            // The stream does not say which numbering an event had.
            return;
        }
        let from_the_start = match (&held.first, &tally.first_position) {
            (Some(held), Some(first)) => held <= first,
            _ => false,
        };
        if held.events > ordinals || (from_the_start && held.events < ordinals) {
            findings.push(Finding::StreamCount {
                key: key.clone(),
                stream: held.events,
                table: ordinals,
            });
            return;
        }
        let is_comparable = self.is_deep && absent == 0 && tally.opaque == 0;
        if is_comparable && (tally.compared, tally.values) != (held.events, held.values) {
            findings.push(Finding::StreamDiffers {
                key: key.clone(),
                events: held.events,
            });
        }
    }

    fn gaps_of(&self, key: &ShardKey) -> Vec<&ChainGap> {
        let here = |(partition, gap): &(u32, Gap)| match gap {
            Gap::Chain(gap) => {
                *partition == key.topic_partition
                    && gap.epoch == key.epoch
                    && gap.shard == *key.shard
                    && gap.stream == *key.stream
            }
            Gap::Offsets { .. } | Gap::Plan { .. } => false,
        };
        let gaps = self.gaps.iter().filter(|gap| here(gap));
        gaps.filter_map(|(_, gap)| match gap {
            Gap::Chain(gap) => Some(&**gap),
            _ => None,
        })
        .collect()
    }
}

struct Expected {
    count: ShardCount,
    /// First numbering of its shard in the table.
    is_first: bool,
    /// The ledger knows of it, and nothing is there.
    is_absent: bool,
}

impl Expected {
    fn new(key: ShardKey, tally: Tally, is_first: bool) -> Self {
        Self {
            count: ShardCount {
                key,
                tally,
                in_gaps: 0,
                missing: 0,
            },
            is_first,
            is_absent: false,
        }
    }
}

/// Where the values of a shard must be compared from, by what the stream holds up to its mark.
pub(crate) fn thresholds(
    ledgers: &BTreeMap<u32, Ledger>,
    held: &BTreeMap<(u32, Box<str>, Box<str>), Held>,
) -> Thresholds {
    let threshold = |((partition, stream, shard), held): (&(u32, Box<str>, Box<str>), &Held)| {
        let mark = ledgers.get(partition)?.marks.get(stream, shard)?;
        let key = ShardKey {
            topic_partition: *partition,
            stream: stream.clone(),
            shard: shard.clone(),
            epoch: mark.epoch,
        };
        Some((key, (mark.ordinal + 1).saturating_sub(held.events)))
    };
    held.iter().filter_map(threshold).collect()
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
