//! Each event once: what was delivered before is dropped, a hole in a shard's chain is an error.
//!
//! Within one numbering (epoch) the ordinals of a shard follow one another without a hole, so
//! one number per shard tells repeated, next and missing apart. A new numbering starts at 0 and
//! may repeat events; then positions decide, against the highest one that is in the table.
//!
//! SmartModules before the packer may remove events, and so leave holes in the ordinals that are
//! no loss. They are told apart by counting. Offsets are read without a hole, every offset holds
//! one record, and every record has one ordinal: so the ordinals that are missing over all chains
//! are at most as many as the records that were removed. A removed record shows as missing
//! only when a later event of its chain comes, maybe in a later plan, so the count is kept with
//! the marks. One missing ordinal more is a loss (I7). The count is a bound: a removed record
//! that was a duplicate, had no origin or ended its numbering never shows, and one loss for
//! each of these could pass. Without such SmartModules the count is 0 and no ordinal may be missing.

use std::borrow::Cow;

use millpond_connector::mutation::{self, Mutation};
use millpond_connector::topic::Offset;
use millpond_format::frame::{FrameDecoder, FrameEncoder};
use millpond_format::gap::{ChainGap, Gap};
use millpond_format::header::{Header, Kind, SourceRange};
use millpond_format::join::{TrimError, trim};
use millpond_format::origin::{Origin, OriginError};
use millpond_format::sequence::Position;

use crate::contiguity::{Envelope, PlainRecord, Unit};
use crate::gaps::OnGap;
use crate::marks::{Mark, Marks};
use crate::origins::{BatchChain, Cutoffs, OriginQuestion};
use crate::placement::is_topic_origin;

/// Zstd level of envelopes that had to be taken apart.
pub const TRIM_LEVEL: i32 = 3;

/// Zstd contexts, made once per plan that needs them.
#[derive(Debug, Default)]
pub struct Workbench(Option<(FrameDecoder, FrameEncoder)>);

impl Workbench {
    /// Keeps the events for which `keep` says so; `None` when none is left.
    ///
    /// # Errors
    /// [`TrimError`] when the frames are damaged or zstd fails.
    pub fn trim(
        &mut self,
        envelope: &Envelope,
        keep: impl Fn(&SourceRange, u64) -> bool,
    ) -> Result<Option<Envelope>, TrimError> {
        let (decoder, encoder) = match &mut self.0 {
            Some(tools) => tools,
            empty => empty.insert((FrameDecoder::new()?, FrameEncoder::new(TRIM_LEVEL)?)),
        };
        let trimmed = trim(&envelope.header, &envelope.frames, decoder, encoder, keep)?;
        Ok(trimmed.map(|(header, frames)| Envelope {
            header,
            frames: frames.into(),
        }))
    }
}

/// An entry that is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted<'a> {
    /// An envelope, as it was or with repeated events taken out.
    Envelope(Cow<'a, Envelope>),
    /// A plain event with its origin.
    Plain(&'a PlainRecord, Origin<'a>),
    /// A plain record whose key is no origin.
    Unknown(&'a PlainRecord, OriginError),
}

/// What is new in a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission<'a> {
    /// New entries in order.
    pub entries: Vec<Admitted<'a>>,
    /// Marks after them.
    pub marks: Marks,
    /// Events dropped because they were delivered before.
    pub duplicates: u64,
    /// Missing ordinals that were passed over.
    pub gaps: Vec<Gap>,
}

/// What came of looking through a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// Everything was decided.
    Admitted(Admission<'a>),
    /// A batch cannot be decided before this is answered.
    NeedsOrigins(OriginQuestion),
}

/// A break in the chain of a shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DedupError {
    /// Ordinals are missing between what is in the table and a batch.
    #[error(
        "shard `{shard}` of stream `{stream}`: expected ordinal {expected} of numbering {epoch}, \
         found {found} in the batch at offset {base_offset}"
    )]
    Gap {
        /// Stream name.
        stream: String,
        /// Shard id.
        shard: String,
        /// Numbering.
        epoch: u64,
        /// Ordinal that should have followed.
        expected: u64,
        /// Ordinal that did.
        found: u64,
        /// First offset of the batch.
        base_offset: Offset,
    },
    /// Ordinals are missing, or come twice, inside a batch.
    #[error(
        "shard `{shard}` of stream `{stream}`: the batch at offset {base_offset} has {count} events \
         with ordinals {first} to {last} of numbering {epoch}"
    )]
    Inside {
        /// Stream name.
        stream: String,
        /// Shard id.
        shard: String,
        /// Numbering.
        epoch: u64,
        /// First ordinal.
        first: u64,
        /// Last ordinal.
        last: u64,
        /// Events.
        count: u64,
        /// First offset of the batch.
        base_offset: Offset,
    },
    /// The stored records say otherwise than the envelopes made of them.
    #[error(
        "shard `{shard}` of stream `{stream}`: the envelopes of the batch at offset {base_offset} \
         reach further than its record keys"
    )]
    Origins {
        /// Stream name.
        stream: String,
        /// Shard id.
        shard: String,
        /// First offset of the batch.
        base_offset: Offset,
    },
    /// An envelope could not be taken apart.
    #[error("envelope of the batch at offset {base_offset}: {source}")]
    Trim {
        /// First offset of the batch.
        base_offset: Offset,
        /// Why.
        source: TrimError,
    },
}

impl DedupError {
    fn trim(base_offset: Offset) -> impl Fn(TrimError) -> Self {
        move |source| Self::Trim {
            base_offset,
            source,
        }
    }
}

/// One shard's events of a batch, over all its envelopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece<'a> {
    stream: &'a str,
    shard: &'a str,
    epoch: u64,
    min: u64,
    max: u64,
    count: u64,
    first: &'a Position,
    last: &'a Position,
}

/// Which events of a piece are new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    All,
    None,
    /// Those with a higher ordinal.
    After(u64),
}

impl Decision {
    fn keeps(self, ordinal: u64) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::After(last) if mutation::is(Mutation::HighWaterOneOff) => ordinal >= last,
            Self::After(last) => ordinal > last,
        }
    }
}

/// Goes through `units` in order and answers what is new; a hole is an error.
///
/// # Errors
/// See [`admit_past`].
pub fn admit<'a>(
    units: &[Unit<'a>],
    removed: u64,
    marks: &Marks,
    whole: bool,
    cutoffs: &Cutoffs,
    tools: &mut Workbench,
) -> Result<Outcome<'a>, DedupError> {
    admit_past(OnGap::Halt, units, removed, marks, whole, cutoffs, tools)
}

/// Goes through `units` in order and answers what is new.
///
/// With [`OnGap::Record`] missing ordinals are answered as gaps.
///
/// `removed` records were taken out of these units by other SmartModules.
///
/// `whole` says that the pipeline has read the topic from its first record, so that a shard
/// without a mark must begin at ordinal 0.
///
/// # Errors
/// [`DedupError`] names the shard, ordinals and offset of the first break.
pub fn admit_past<'a>(
    on_gap: OnGap,
    units: &[Unit<'a>],
    removed: u64,
    marks: &Marks,
    whole: bool,
    cutoffs: &Cutoffs,
    tools: &mut Workbench,
) -> Result<Outcome<'a>, DedupError> {
    let mut admission = Admission {
        entries: Vec::new(),
        marks: marks.clone(),
        duplicates: 0,
        gaps: Vec::new(),
    };
    if !mutation::is(Mutation::RemovedNotCounted) {
        admission.marks.remove(removed);
    }
    let rules = Rules {
        on_gap,
        whole,
        cutoffs,
    };
    for unit in units {
        let question = match unit {
            Unit::Plain(record) => admit_plain(record, rules, &mut admission)?,
            Unit::Batch(batch) => admit_batch(batch, rules, tools, &mut admission)?,
        };
        if let Some(question) = question {
            return Ok(Outcome::NeedsOrigins(question));
        }
    }
    Ok(Outcome::Admitted(admission))
}

/// What decides besides the entries.
#[derive(Clone, Copy)]
struct Rules<'a> {
    on_gap: OnGap,
    whole: bool,
    cutoffs: &'a Cutoffs,
}

fn admit_plain<'a>(
    record: &'a PlainRecord,
    rules: Rules<'_>,
    admission: &mut Admission<'a>,
) -> Result<Option<OriginQuestion>, DedupError> {
    let key = record.key.as_deref().unwrap_or_default();
    let origin = match Origin::parse(key) {
        Ok(origin) => origin,
        Err(error) => {
            admission.entries.push(Admitted::Unknown(record, error));
            return Ok(None);
        }
    };
    if is_topic_origin(&origin, record.offset) {
        // The topic itself counts these, and offsets were checked.
        admission.entries.push(Admitted::Plain(record, origin));
        return Ok(None);
    }
    let position = Position::new(origin.sequence, origin.sub_sequence);
    let piece = Piece {
        stream: origin.stream,
        shard: origin.shard,
        epoch: origin.chain.epoch,
        min: origin.chain.ordinal,
        max: origin.chain.ordinal,
        count: 1,
        first: &position,
        last: &position,
    };
    let at = (record.offset, record.offset);
    let none = Cutoffs::new();
    let rules = Rules {
        cutoffs: &none,
        ..rules
    };
    let decision = match judge(&piece, at, rules, admission)? {
        Ok(decision) => decision,
        Err(question) => return Ok(Some(question)),
    };
    if decision.keeps(origin.chain.ordinal) {
        admission.entries.push(Admitted::Plain(record, origin));
    } else {
        admission.duplicates += 1;
    }
    Ok(None)
}

fn admit_batch<'a>(
    batch: &[&'a Envelope],
    rules: Rules<'_>,
    tools: &mut Workbench,
    admission: &mut Admission<'a>,
) -> Result<Option<OriginQuestion>, DedupError> {
    let Some(first) = batch.first() else {
        return Ok(None);
    };
    let at = (first.header.base_offset, first.header.last_offset);
    let pieces = pieces(batch);
    let mut decisions = Vec::with_capacity(pieces.len());
    for piece in &pieces {
        match judge(piece, at, rules, admission)? {
            Ok(decision) => decisions.push(decision),
            Err(question) => return Ok(Some(question)),
        }
    }
    let decision_of = |source: &SourceRange| {
        let found = pieces.iter().position(|piece| {
            piece.epoch == source.epoch
                && piece.shard == &*source.shard
                && piece.stream == &*source.stream
        });
        found.map_or(Decision::All, |index| decisions[index])
    };
    for envelope in batch {
        let header = &envelope.header;
        let keeps = |source: &SourceRange| {
            let decision = decision_of(source);
            (
                decision.keeps(source.first_ordinal),
                decision.keeps(source.last_ordinal),
            )
        };
        if header
            .sources
            .iter()
            .all(|source| keeps(source) == (true, true))
        {
            admission
                .entries
                .push(Admitted::Envelope(Cow::Borrowed(*envelope)));
            continue;
        }
        let before = counted(header);
        let none = header
            .sources
            .iter()
            .all(|source| keeps(source) == (false, false));
        let kept = if none {
            None
        } else {
            let keep = |source: &SourceRange, ordinal| decision_of(source).keeps(ordinal);
            tools.trim(envelope, keep).map_err(DedupError::trim(at.0))?
        };
        let after = kept.as_ref().map_or(0, |kept| counted(&kept.header));
        admission.duplicates += before.saturating_sub(after);
        if let Some(kept) = kept {
            admission.entries.push(Admitted::Envelope(Cow::Owned(kept)));
        }
    }
    Ok(None)
}

/// Events of an envelope, each counted once.
fn counted(header: &Header) -> u64 {
    match &header.kind {
        Kind::Events => header.event_count(),
        Kind::Part(part) => u64::from(part.is_last()),
        Kind::Reject(_) => 1,
    }
}

/// Every shard and numbering of a batch, in the order of streams, shards and numberings.
fn pieces<'a>(batch: &[&'a Envelope]) -> Vec<Piece<'a>> {
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
fn judge(
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
