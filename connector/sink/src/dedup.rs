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
use millpond_format::frame::{FrameDecoder, FrameEncoder, RawFrame};
use millpond_format::gap::Gap;
use millpond_format::header::{Header, SourceRange};
use millpond_format::join::{TrimError, trim, unite};
use millpond_format::origin::{Origin, OriginError};
use millpond_format::sequence::Position;

use crate::contiguity::{Envelope, PlainRecord, Unit};
use crate::frames::each_frame;
use crate::gaps::OnGap;
use crate::late::{LateBatch, note_batch, note_record};
use crate::marks::Marks;
use crate::origins::{Cutoffs, OriginQuestion};
use crate::pieces::{Decision, Piece, Rules, counted, judge, pieces};
use crate::placement::is_topic_origin;
use crate::recorded::RecordedGaps;

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
        let (decoder, encoder) = self.tools()?;
        let trimmed = trim(&envelope.header, &envelope.frames, decoder, encoder, keep)?;
        Ok(trimmed.map(|(header, frames)| Envelope {
            header,
            frames: frames.into(),
        }))
    }

    /// The events of all frames in few raw frames.
    ///
    /// # Errors
    /// [`TrimError`] when a frame is damaged.
    pub fn unite(&mut self, header: &Header, frames: &[u8]) -> Result<Vec<RawFrame>, TrimError> {
        let (decoder, _) = self.tools()?;
        Ok(unite(header, frames, decoder)?)
    }

    /// Shows every value in the frames of an envelope, in order.
    ///
    /// # Errors
    /// [`TrimError`] when the frames are damaged; some values may have been shown.
    pub fn events(
        &mut self,
        envelope: &Envelope,
        mut show: impl FnMut(&[u8]),
    ) -> Result<(), TrimError> {
        let (decoder, _) = self.tools()?;
        each_frame(decoder, &envelope.header, &envelope.frames, |frame| {
            for event in &frame.events {
                show(frame.value(event));
            }
        })?;
        Ok(())
    }

    /// Shows the ordinal of every event in the frames of an envelope, with the source that it counts in.
    ///
    /// # Errors
    /// [`TrimError`] when the frames are damaged; some may have been shown.
    pub fn ordinals(
        &mut self,
        envelope: &Envelope,
        mut show: impl FnMut(&SourceRange, u64),
    ) -> Result<(), TrimError> {
        let (decoder, _) = self.tools()?;
        let header = &envelope.header;
        each_frame(decoder, header, &envelope.frames, |frame| {
            for event in &frame.events {
                if let Some(source) = header.sources.get(event.source as usize) {
                    show(source, event.ordinal);
                }
            }
        })?;
        Ok(())
    }

    fn tools(&mut self) -> Result<&mut (FrameDecoder, FrameEncoder), TrimError> {
        Ok(match &mut self.0 {
            Some(tools) => tools,
            empty => empty.insert((FrameDecoder::new()?, FrameEncoder::new(TRIM_LEVEL)?)),
        })
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
    /// Where events were dropped whose place may have been recorded as a gap.
    pub late: Vec<LateBatch>,
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
    let past = Past {
        on_gap: OnGap::Halt,
        recorded: &RecordedGaps::default(),
        doubts_all: false,
    };
    admit_past(past, units, removed, marks, whole, cutoffs, tools)
}

/// What is missing, or was.
#[derive(Debug, Clone, Copy)]
pub struct Past<'a> {
    /// With [`OnGap::Record`] missing ordinals are answered as gaps.
    pub on_gap: OnGap,
    /// Gaps of earlier plans: what of them comes now is dropped like all that lies below the marks, and answered.
    pub recorded: &'a RecordedGaps,
    /// Nothing tells which events an earlier gap took: all that is dropped is answered.
    pub doubts_all: bool,
}

/// Goes through `units` in order and answers what is new.
///
/// `removed` records were taken out of these units by other SmartModules.
///
/// `whole` says that the pipeline has read the topic from its first record, so that a shard
/// without a mark must begin at ordinal 0.
///
/// # Errors
/// [`DedupError`] names the shard, ordinals and offset of the first break.
pub fn admit_past<'a>(
    past: Past<'_>,
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
        late: Vec::new(),
    };
    if !mutation::is(Mutation::RemovedNotCounted) {
        admission.marks.remove(removed);
    }
    let rules = Rules {
        on_gap: past.on_gap,
        whole,
        cutoffs,
        recorded: past.recorded,
        doubts_all: past.doubts_all,
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
        let Admission { gaps, late, .. } = admission;
        note_record(&piece, decision, record.offset, rules, gaps, late);
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
    let has_gaps = !rules.recorded.is_empty() || rules.doubts_all || !admission.gaps.is_empty();
    if has_gaps {
        let decided = pieces.iter().copied().zip(decisions.iter().copied());
        let Admission { gaps, late, .. } = admission;
        note_batch(batch, at, decided, rules, gaps, tools, late)?;
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
