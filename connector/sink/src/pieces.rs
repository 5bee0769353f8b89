//! One shard's events of a batch, and which of them are new: the rules that [`crate::dedup`] explains.

use millpond_connector::mutation::{self, Mutation};
use millpond_connector::topic::Offset;
use millpond_format::gap::{ChainGap, Gap};
use millpond_format::header::{Header, Kind};
use millpond_format::sequence::Position;

use crate::contiguity::Envelope;
use crate::dedup::{Admission, DedupError};
use crate::gaps::OnGap;
use crate::marks::Mark;
use crate::origins::{BatchChain, Cutoffs, OriginQuestion};
use crate::recorded::RecordedGaps;

/// One shard's events of a batch, over all its envelopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    pub(crate) stream: &'a str,
    pub(crate) shard: &'a str,
    pub(crate) epoch: u64,
    pub(crate) min: u64,
    pub(crate) max: u64,
    pub(crate) count: u64,
    pub(crate) first: &'a Position,
    pub(crate) last: &'a Position,
}

/// Which events of a piece are new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    All,
    None,
    /// Those with a higher ordinal.
    After(u64),
}

impl Decision {
    pub(crate) fn keeps(self, ordinal: u64) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::After(last) if mutation::is(Mutation::HighWaterOneOff) => ordinal >= last,
            Self::After(last) => ordinal > last,
        }
    }
}

/// What decides besides the entries.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) on_gap: OnGap,
    pub(crate) whole: bool,
    pub(crate) cutoffs: &'a Cutoffs,
    /// What was recorded as lost before.
    pub(crate) recorded: &'a RecordedGaps,
    /// Whatever is dropped may be late.
    pub(crate) doubts_all: bool,
}

/// Events of an envelope, each counted once.
pub(crate) fn counted(header: &Header) -> u64 {
    match &header.kind {
        Kind::Events => header.event_count(),
        Kind::Part(part) => u64::from(part.is_last()),
        Kind::Reject(_) => 1,
    }
}

/// Every shard and numbering of a batch, in the order of streams, shards and numberings.
pub(crate) fn pieces<'a>(batch: &[&'a Envelope]) -> Vec<Piece<'a>> {
    let mut pieces: Vec<Piece<'a>> = Vec::new();
    for envelope in batch {
        // A record without an origin has a source without a name: nothing tells it from others.
        let named = envelope
            .header
            .sources
            .iter()
            .filter(|source| !source.stream.is_empty());
        for source in named {
            let count = match &envelope.header.kind {
                Kind::Events => source.count,
                Kind::Part(part) => u64::from(part.is_last()),
                Kind::Reject(_) => 1,
            };
            let order = |piece: &Piece<'_>| {
                (piece.stream, piece.shard, piece.epoch).cmp(&(
                    &source.stream,
                    &source.shard,
                    source.epoch,
                ))
            };
            match pieces.binary_search_by(order) {
                Ok(index) => {
                    let piece = &mut pieces[index];
                    piece.count += count;
                    if source.first_ordinal < piece.min {
                        (piece.min, piece.first) = (source.first_ordinal, &source.first);
                    }
                    if source.last_ordinal > piece.max {
                        (piece.max, piece.last) = (source.last_ordinal, &source.last);
                    }
                }
                Err(index) => pieces.insert(
                    index,
                    Piece {
                        stream: &source.stream,
                        shard: &source.shard,
                        epoch: source.epoch,
                        min: source.first_ordinal,
                        max: source.last_ordinal,
                        count,
                        first: &source.first,
                        last: &source.last,
                    },
                ),
            }
        }
    }
    pieces
}

/// Accounts for `missing` ordinals: removed records first; what is left is a gap that `on_gap`
/// lets pass (`bounds`), or none. False when it is neither.
fn accounts(
    missing: u64,
    on_gap: OnGap,
    admission: &mut Admission<'_>,
    bounds: impl FnOnce(u64) -> ChainGap,
) -> bool {
    if mutation::is(Mutation::GapCheckOff) {
        return true;
    }
    let marks = &mut admission.marks;
    match (marks.removed.checked_sub(missing), on_gap) {
        (Some(left), _) => marks.removed = left,
        (None, OnGap::Halt) => return false,
        (None, OnGap::Record) => {
            let lost = missing - std::mem::take(&mut marks.removed);
            admission.gaps.push(Gap::Chain(Box::new(bounds(lost))));
        }
    }
    true
}

/// Decides about one piece and moves its shard's mark.
pub(crate) fn judge(
    piece: &Piece<'_>,
    (base_offset, last_offset): (Offset, Offset),
    rules: Rules<'_>,
    admission: &mut Admission<'_>,
) -> Result<Result<Decision, OriginQuestion>, DedupError> {
    if mutation::is(Mutation::DuplicatesKept) {
        return Ok(Ok(Decision::All));
    }
    let gap = |first, last, before: Option<&Position>, after: &Position| {
        let (before, after) = (before.cloned(), after.clone());
        move |missing| ChainGap {
            stream: piece.stream.to_owned(),
            shard: piece.shard.to_owned(),
            epoch: piece.epoch,
            first,
            last,
            missing,
            before,
            after,
            offset: base_offset,
        }
    };
    let span = piece.max.saturating_sub(piece.min).saturating_add(1);
    let inside = gap(
        piece.min.saturating_add(1),
        piece.max.saturating_sub(1),
        Some(piece.first),
        piece.last,
    );
    let absent = span.checked_sub(piece.count);
    let is_whole = |absent| accounts(absent, rules.on_gap, admission, inside);
    if piece.count == 0 || !absent.is_some_and(is_whole) {
        return Err(DedupError::Inside {
            stream: piece.stream.to_owned(),
            shard: piece.shard.to_owned(),
            epoch: piece.epoch,
            first: piece.min,
            last: piece.max,
            count: piece.count,
            base_offset,
        });
    }
    let follows = |admission: &mut Admission<'_>, expected: u64, before: Option<&Position>| {
        let missing = piece.min.saturating_sub(expected);
        let gap = gap(expected, piece.min.saturating_sub(1), before, piece.first);
        if accounts(missing, rules.on_gap, admission, gap) {
            return Ok(());
        }
        Err(DedupError::Gap {
            stream: piece.stream.to_owned(),
            shard: piece.shard.to_owned(),
            epoch: piece.epoch,
            expected,
            found: piece.min,
            base_offset,
        })
    };
    let moved = |highest: &Position| Mark {
        stream: piece.stream.into(),
        shard: piece.shard.into(),
        epoch: piece.epoch,
        ordinal: piece.max,
        last: piece.last.clone(),
        highest: highest.max(piece.last).clone(),
    };
    let known = admission.marks.get(piece.stream, piece.shard);
    let Some(mark) = known.cloned() else {
        if rules.whole {
            follows(admission, 0, None)?;
        }
        admission.marks.set(moved(piece.last));
        return Ok(Ok(Decision::All));
    };
    // Last ordinal of this numbering that is in the table.
    let delivered = if mark.epoch == piece.epoch {
        let expected = mark.ordinal.saturating_add(1);
        follows(admission, expected, Some(&mark.last))?;
        if piece.max <= mark.ordinal {
            return Ok(Ok(Decision::None));
        }
        Some(mark.ordinal)
    } else {
        if piece.epoch < mark.epoch && *piece.last <= mark.highest {
            // A process that was replaced sent this late; all of it is in the table.
            return Ok(Ok(Decision::None));
        }
        follows(admission, 0, None)?;
        None
    };
    let by_ordinal = match delivered {
        Some(ordinal) if piece.min <= ordinal => Decision::After(ordinal),
        _ => Decision::All,
    };
    let repeats = delivered.is_none() || mark.is_catching_up();
    let decision = if !repeats || *piece.first > mark.highest {
        by_ordinal
    } else if *piece.last <= mark.highest {
        Decision::None
    } else {
        let chain = BatchChain {
            base_offset,
            stream: piece.stream.to_owned(),
            shard: piece.shard.to_owned(),
            epoch: piece.epoch,
        };
        let Some(cutoff) = rules.cutoffs.get(&chain) else {
            return Ok(Err(OriginQuestion {
                base_offset,
                last_offset,
                chain,
                highest: mark.highest,
            }));
        };
        match cutoff.checked_sub(1) {
            Some(last) => Decision::After(delivered.map_or(last, |ordinal| ordinal.max(last))),
            None => by_ordinal,
        }
    };
    admission.marks.set(moved(&mark.highest));
    Ok(Ok(decision))
}
