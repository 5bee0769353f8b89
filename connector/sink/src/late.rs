//! Stored batches some of whose events are late: dropped by their marks, though a gap holds their place.
//!
//! Whether an event is in the store cannot be found out from its place: so it is written nowhere but to the dead letters,
//! where somebody can decide (I1, I2). Which events these are follows from the same decision that drops them. Their bytes
//! and origins are those of the stored records, which are read once more when the dead letters are put away: nothing
//! of an event is held until then.

use std::collections::BTreeSet;
use std::ops::Range;

use millpond_connector::topic::Offset;
use millpond_format::gap::Gap;
use millpond_format::origin::Origin;

use crate::contiguity::Envelope;
use crate::dedup::{DedupError, Workbench};
use crate::pieces::{Decision, Piece, Rules};
use crate::recorded::RecordedGaps;

/// Consecutive stored records with late events among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateBatch {
    /// Their offsets; where SmartModules removed some, they may reach further.
    pub offsets: Range<Offset>,
    pieces: Vec<LatePiece>,
}

/// What is dropped of one shard and numbering.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LatePiece {
    stream: Box<str>,
    shard: Box<str>,
    epoch: u64,
    decision: Decision,
    /// What SmartModules left of it, where that is not all.
    left: Option<BTreeSet<u64>>,
}

impl LatePiece {
    fn new(piece: &Piece<'_>, decision: Decision) -> Self {
        Self {
            stream: piece.stream.into(),
            shard: piece.shard.into(),
            epoch: piece.epoch,
            decision,
            left: None,
        }
    }

    fn is_of(&self, stream: &str, shard: &str, epoch: u64) -> bool {
        self.epoch == epoch && *self.shard == *shard && *self.stream == *stream
    }
}

impl LateBatch {
    /// True for an event that was dropped here, of a piece that a gap touches.
    #[must_use]
    pub fn drops(&self, origin: &Origin<'_>) -> bool {
        let (chain, mut pieces) = (origin.chain, self.pieces.iter());
        pieces.any(|piece| {
            let is_left = |left: &BTreeSet<u64>| left.contains(&chain.ordinal);
            piece.is_of(origin.stream, origin.shard, chain.epoch)
                && !piece.decision.keeps(chain.ordinal)
                && piece.left.as_ref().is_none_or(is_left)
        })
    }

    /// True where nothing but the records of `offsets` tells which they are.
    #[must_use]
    pub fn is_filtered(&self) -> bool {
        self.pieces.iter().any(|piece| piece.left.is_some())
    }
}

/// True when some of a piece that is dropped may be late; `own` are the gaps of the plan so far.
fn is_late(piece: &Piece<'_>, decision: Decision, rules: Rules<'_>, own: &[Gap]) -> bool {
    let is_dropped = !(decision.keeps(piece.min) && decision.keeps(piece.max));
    let in_own = || {
        let mut gaps = RecordedGaps::default();
        gaps.add(own);
        gaps.touches(piece, decision)
    };
    is_dropped
        && (rules.doubts_all
            || rules.recorded.touches(piece, decision)
            || (!own.is_empty() && in_own()))
}

/// Notes a plain record that may be late.
pub(crate) fn note_record(
    piece: &Piece<'_>,
    decision: Decision,
    offset: Offset,
    rules: Rules<'_>,
    own: &[Gap],
    late: &mut Vec<LateBatch>,
) {
    if !is_late(piece, decision, rules, own) {
        return;
    }
    let next = LatePiece::new(piece, Decision::None);
    match late.last_mut() {
        // One read for all that follow one another.
        Some(last) if last.offsets.end == offset && !last.is_filtered() => {
            last.offsets.end = offset + 1;
            if !last.pieces.contains(&next) {
                last.pieces.push(next);
            }
        }
        _ => late.push(LateBatch {
            offsets: offset..offset + 1,
            pieces: vec![next],
        }),
    }
}

/// Notes a batch of envelopes, some of whose events may be late.
///
/// # Errors
/// [`DedupError::Trim`] when its frames are damaged.
pub(crate) fn note_batch<'a>(
    batch: &[&Envelope],
    (first, last): (Offset, Offset),
    decided: impl Iterator<Item = (Piece<'a>, Decision)>,
    rules: Rules<'_>,
    own: &[Gap],
    tools: &mut Workbench,
    late: &mut Vec<LateBatch>,
) -> Result<(), DedupError> {
    let mut pieces = Vec::new();
    for (piece, decision) in decided.filter(|(piece, d)| is_late(piece, *d, rules, own)) {
        let mut noted = LatePiece::new(&piece, decision);
        if piece.count <= piece.max - piece.min {
            let mut left = BTreeSet::new();
            for envelope in batch {
                let seen = tools.ordinals(envelope, |source, ordinal| {
                    if noted.is_of(&source.stream, &source.shard, source.epoch) {
                        left.insert(ordinal);
                    }
                });
                seen.map_err(|source| DedupError::Trim {
                    base_offset: first,
                    source,
                })?;
            }
            noted.left = Some(left);
        }
        pieces.push(noted);
    }
    if !pieces.is_empty() {
        let offsets = first..last + 1;
        late.push(LateBatch { offsets, pieces });
    }
    Ok(())
}
