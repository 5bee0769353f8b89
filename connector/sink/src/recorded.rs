//! The gaps of a topic partition that were recorded, as far as it must be known later: which events are *late*, that
//! is, come after their place was recorded as a gap.
//!
//! Gaps are kept for good, so there may be many. A shard has so many stretches of ordinals here at most; beyond that
//! its oldest two become one, *in doubt*, that reaches over what lies between them. An event from there may be in the
//! store, and becomes a dead letter that says so: too many are put away then, never too few.

use std::collections::HashMap;

use millpond_format::gap::{ChainGap, Gap};
use millpond_format::origin::Origin;
use millpond_format::sequence::Position;

use crate::limits::MAX_STRETCHES_OF_SHARD;
use crate::pieces::{Decision, Piece};

/// What is known of a late event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Late {
    /// Its ordinal was missing.
    Missing,
    /// Its ordinal may have been written: it went with a plan that was given up, or is one of a range of which
    /// some are missing.
    InDoubt,
}

/// Ordinals that went with a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stretch {
    /// Their numbering; of several that became one, none.
    epoch: Option<u64>,
    first: u64,
    last: u64,
    /// Position of the last event before; none at the start of a numbering.
    before: Option<Position>,
    /// Position at which it ends.
    end: Position,
    /// The event there belongs to it.
    holds_end: bool,
    late: Late,
}

impl Stretch {
    fn of(gap: &ChainGap, is_given_up: bool) -> Self {
        let span = gap.last.saturating_sub(gap.first).saturating_add(1);
        let late = match is_given_up || gap.missing < span {
            true => Late::InDoubt,
            false => Late::Missing,
        };
        Self {
            epoch: Some(gap.epoch),
            first: gap.first,
            last: gap.last,
            before: gap.before.clone(),
            end: gap.after.clone(),
            holds_end: is_given_up,
            late,
        }
    }

    /// Both of them, and what is between.
    fn joined(self, later: Self) -> Self {
        Self {
            epoch: self.epoch.filter(|epoch| later.epoch == Some(*epoch)),
            first: self.first.min(later.first),
            last: self.last.max(later.last),
            before: match (self.before, later.before) {
                (Some(one), Some(other)) => Some(one.min(other)),
                _ => None,
            },
            holds_end: match self.end.cmp(&later.end) {
                std::cmp::Ordering::Less => later.holds_end,
                std::cmp::Ordering::Equal => self.holds_end || later.holds_end,
                std::cmp::Ordering::Greater => self.holds_end,
            },
            end: self.end.max(later.end),
            late: Late::InDoubt,
        }
    }

    fn has(&self, origin: &Origin<'_>) -> bool {
        if self.epoch == Some(origin.chain.epoch) {
            return (self.first..=self.last).contains(&origin.chain.ordinal);
        }
        // Another numbering: the position tells.
        let at = Position::new(origin.sequence, origin.sub_sequence);
        self.before.as_ref().is_none_or(|before| at > *before) && self.reaches(&at)
    }

    fn reaches(&self, at: &Position) -> bool {
        *at < self.end || (self.holds_end && *at == self.end)
    }

    /// True when some of the dropped events of a piece may lie here.
    fn touches(&self, piece: &Piece<'_>, last: u64) -> bool {
        match self.epoch == Some(piece.epoch) {
            true => piece.min <= self.last && self.first <= last,
            false => {
                self.before
                    .as_ref()
                    .is_none_or(|before| piece.last > before)
                    && self.reaches(piece.first)
            }
        }
    }
}

/// The gaps of one topic partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordedGaps {
    /// By stream and shard.
    shards: HashMap<String, Vec<Stretch>>,
    has_offsets: bool,
}

fn name(stream: &str, shard: &str) -> String {
    format!("{stream}/{shard}")
}

impl RecordedGaps {
    /// True without one that could make an event late.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// True when offsets are lost, whatever they held.
    #[must_use]
    pub fn has_offsets(&self) -> bool {
        self.has_offsets
    }

    /// Adds the gaps of one plan; plans in their order.
    pub fn add(&mut self, gaps: &[Gap]) {
        let is_given_up = gaps.iter().any(|gap| matches!(gap, Gap::Plan { .. }));
        for gap in gaps {
            match gap {
                Gap::Offsets { .. } => self.has_offsets = true,
                Gap::Plan { .. } => {}
                Gap::Chain(gap) => self.add_stretch(gap, is_given_up),
            }
        }
    }

    fn add_stretch(&mut self, gap: &ChainGap, is_given_up: bool) {
        let stretches = self
            .shards
            .entry(name(&gap.stream, &gap.shard))
            .or_default();
        stretches.push(Stretch::of(gap, is_given_up));
        if stretches.len() <= MAX_STRETCHES_OF_SHARD {
            return;
        }
        let mut oldest = stretches.drain(..2);
        let joined = match (oldest.next(), oldest.next()) {
            (Some(one), Some(other)) => one.joined(other),
            _ => return,
        };
        drop(oldest);
        if stretches.len() + 1 == MAX_STRETCHES_OF_SHARD {
            tracing::warn!(
                stream = gap.stream,
                shard = gap.shard,
                "so many gaps are recorded that the oldest are known by their bounds only: a repetition of events \
                 between them becomes a dead letter, too"
            );
        }
        stretches.insert(0, joined);
    }

    /// True when some of the events of a piece that are dropped may be late.
    pub(crate) fn touches(&self, piece: &Piece<'_>, decision: Decision) -> bool {
        let last = match decision {
            Decision::All => return false,
            Decision::None => piece.max,
            Decision::After(last) if last < piece.min => return false,
            Decision::After(last) => piece.max.min(last),
        };
        let stretches = self.shards.get(&name(piece.stream, piece.shard));
        let mut stretches = stretches.into_iter().flatten();
        stretches.any(|stretch| stretch.touches(piece, last))
    }

    /// What is known of an event that was dropped; `None` where no gap holds it.
    #[must_use]
    pub fn late(&self, origin: &Origin<'_>) -> Option<Late> {
        let stretches = self.shards.get(&name(origin.stream, origin.shard))?;
        let held = stretches.iter().filter(|stretch| stretch.has(origin));
        held.map(|stretch| stretch.late).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u64) -> Position {
        Position {
            sequence: number.to_string().into(),
            sub_sequence: 0,
        }
    }

    /// Ordinals of numbering 1 stand at positions that are 100 more.
    fn chain(first: u64, last: u64, missing: u64) -> Gap {
        Gap::Chain(Box::new(ChainGap {
            stream: "s".into(),
            shard: "a".into(),
            epoch: 1,
            first,
            last,
            missing,
            before: first.checked_sub(1).map(|before| at(100 + before)),
            after: at(100 + last + 1),
            offset: first,
        }))
    }

    fn late(gaps: &RecordedGaps, position: u64, epoch: u64, ordinal: u64) -> Option<Late> {
        let key = format!("mp1/s/a/{position}/0/1/{epoch}.{ordinal}/k");
        gaps.late(&Origin::parse(key.as_bytes()).expect("an origin"))
    }

    #[test]
    fn late_is_what_a_gap_holds_by_ordinal_or_in_another_numbering_by_position() {
        let mut gaps = RecordedGaps::default();
        assert!(gaps.is_empty());
        gaps.add(&[Gap::Offsets { from: 3, to: 6 }, chain(3, 5, 3)]);
        gaps.add(&[chain(10, 14, 2)]);
        let plan = Gap::Plan { from: 20, to: 22 };
        // The last event of a plan ends it.
        let Gap::Chain(mut of_plan) = chain(20, 21, 2) else {
            panic!("a chain");
        };
        of_plan.after = at(121);
        gaps.add(&[plan, Gap::Chain(of_plan)]);
        let expected = |ordinal| match ordinal {
            3..=5 => Some(Late::Missing),
            10..=14 | 20..=21 => Some(Late::InDoubt),
            _ => None,
        };
        for ordinal in 0..30 {
            assert_eq!(late(&gaps, 100 + ordinal, 1, ordinal), expected(ordinal));
            assert_eq!(
                late(&gaps, 100 + ordinal, 2, ordinal + 7),
                expected(ordinal)
            );
        }
        assert!(gaps.has_offsets() && !gaps.is_empty());
        let other = b"mp1/s/b/103/0/1/1.3/k";
        assert_eq!(gaps.late(&Origin::parse(other).expect("an origin")), None);
    }

    #[test]
    fn above_the_limit_the_oldest_are_known_by_their_bounds() {
        let mut gaps = RecordedGaps::default();
        let many = 3 * MAX_STRETCHES_OF_SHARD as u64;
        (0..many).for_each(|number| gaps.add(&[chain(number * 10, number * 10 + 1, 2)]));
        assert_eq!(gaps.shards["s/a"].len(), MAX_STRETCHES_OF_SHARD);
        for ordinal in 0..many * 10 {
            let is_lost = ordinal % 10 < 2;
            let found = late(&gaps, 100 + ordinal, 1, ordinal);
            // Never too few; those of late are known exactly.
            assert!(found.is_some() || !is_lost, "{ordinal}");
            if ordinal >= (many - MAX_STRETCHES_OF_SHARD as u64 + 1) * 10 {
                assert_eq!(found, is_lost.then_some(Late::Missing), "{ordinal}");
            }
        }
    }

    #[test]
    fn only_what_is_dropped_can_be_late() {
        let mut gaps = RecordedGaps::default();
        gaps.add(&[chain(3, 5, 3)]);
        let (first, last) = (at(102), at(108));
        let piece = |min, max| Piece {
            stream: "s",
            shard: "a",
            epoch: 1,
            min,
            max,
            count: max - min + 1,
            first: &first,
            last: &last,
        };
        for (piece, decision, expected) in [
            (piece(2, 8), Decision::None, true),
            (piece(2, 8), Decision::All, false),
            (piece(2, 8), Decision::After(3), true),
            (piece(2, 8), Decision::After(2), false),
            (piece(0, 2), Decision::None, false),
            (piece(6, 9), Decision::None, false),
        ] {
            assert_eq!(gaps.touches(&piece, decision), expected, "{piece:?}");
        }
        let other = Piece {
            epoch: 2,
            ..piece(0, 6)
        };
        assert!(gaps.touches(&other, Decision::None));
    }
}
