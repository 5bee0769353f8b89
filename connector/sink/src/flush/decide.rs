//! From what was read to a plan: what is new in it, and what is missing.

use millpond_connector::mutation::{self, Mutation};
use millpond_connector::topic::Transform;
use millpond_format::gap::{Gap, list_text};
use millpond_format::limits::MAX_GAPS_BYTES;
use tokio::time::sleep;
use tracing::warn;

use super::Core;
use super::late::LateEvents;
use crate::contiguity::{Coverage, Entry, Jumps, Unit, cover, digest};
use crate::dedup::{Admission, DedupError, Outcome, Past, Workbench, admit_past};
use crate::error::SinkError;
use crate::gaps::OnGap;
use crate::ledger::{Intent, LedgerError};
use crate::limits::{REREAD_WAIT, REREADS};
use crate::marks::Marks;
use crate::origins::Cutoffs;
use crate::placement::is_packer;
use crate::reading::Input;
use crate::store::PlanInput;

/// What a plan comes to.
pub(super) struct Decided {
    pub(super) marks: Marks,
    pub(super) duplicates: u64,
    pub(super) gaps: Vec<Gap>,
    pub(super) late: LateEvents,
    /// [`digest`] of what was read.
    pub(super) digest: u64,
}

impl Core {
    /// A hole is read again. One that stays is an error, or a gap if the operator chose so.
    pub(super) async fn decide_after_rereads(
        &mut self,
        mut input: Input,
    ) -> Result<Decided, SinkError> {
        let (from, to) = (input.from, input.to);
        let partition = self.partition;
        let rereads = match self.shared.on_gap {
            OnGap::Halt => 1,
            OnGap::Record if mutation::is(Mutation::GapAtFirstSight) => 0,
            OnGap::Record => REREADS,
        };
        for reread in 0..rereads {
            match self.decide(&input, OnGap::Halt, None).await {
                Err(hole) if is_hole(&hole) => {
                    warn!(partition, from, to, %hole, "reads the records once more");
                    sleep(REREAD_WAIT * reread).await;
                    input = self.read_again(from, to).await?;
                }
                other => return other,
            }
        }
        let decided = self.decide(&input, OnGap::Halt, None).await;
        match (decided, self.shared.on_gap) {
            (Err(hole), OnGap::Record) if is_hole(&hole) => {
                self.decide(&input, OnGap::Record, None).await
            }
            (other, _) => other,
        }
    }

    /// The decision of an open plan, which must come out as it did before.
    pub(super) async fn decide_again(
        &mut self,
        input: &Input,
        intent: &Intent,
    ) -> Result<Decided, SinkError> {
        let recorded = intent.gaps.as_slice();
        let on_gap = match recorded {
            [] => OnGap::Halt,
            _ => OnGap::Record,
        };
        let note = Some(intent.note.as_str());
        let decided = self.decide(input, on_gap, note).await?;
        if decided.gaps == recorded {
            return Ok(decided);
        }
        Err(SinkError::Ledger {
            partition: self.partition,
            source: LedgerError::OtherGaps {
                from: input.from,
                to: input.to,
                found: list_text(&decided.gaps),
                recorded: list_text(recorded),
            },
        })
    }

    /// From what was read to a plan; asks the topic for origins where ordinals do not tell.
    /// `note` is that of a plan which is made again.
    async fn decide(
        &mut self,
        input: &Input,
        on_gap: OnGap,
        note: Option<&str>,
    ) -> Result<Decided, SinkError> {
        let partition = self.partition;
        let (from, to) = (input.from, input.to);
        let jumps = Jumps {
            filtered: may_remove(&self.shared.transforms, &input.entries),
            holes: &input.holes,
            pass: on_gap == OnGap::Record,
        };
        let covered = cover(&input.entries, from..to, jumps);
        let Coverage {
            units,
            removed,
            gaps: lost,
        } = covered.map_err(|source| SinkError::Contiguity { partition, source })?;
        let digest = digest(&units);
        // Where SmartModules remove records, which of the missing ordinals went with lost offsets cannot
        // be told: they count with those that were removed, and the gap is that of the offsets.
        let hidden = match jumps.filtered {
            true => lost.iter().map(|hole| hole.end - hole.start).sum(),
            false => 0,
        };
        let removed = removed + hidden;
        let mut tools = Workbench::default();
        let mut cutoffs = Cutoffs::new();
        let marks = self
            .done
            .as_ref()
            .map_or(&self.ledger.marks, |done| &done.marks);
        let whole = self.ledger.start == 0;
        // A filter that was there once hid what went with the gaps of its time.
        let past = Past {
            on_gap,
            recorded: &self.recorded,
            doubts_all: (jumps.filtered || marks.removed_ever > 0)
                && (self.recorded.has_offsets() || !lost.is_empty()),
        };
        let admission = loop {
            let outcome = admit_past(past, &units, removed, marks, whole, &cutoffs, &mut tools)
                .map_err(|source| SinkError::Dedup { partition, source })?;
            let question = match outcome {
                Outcome::Admitted(admission) => break admission,
                Outcome::NeedsOrigins(question) => question,
            };
            let reading = self.reading(question.base_offset);
            let keys = reading.stored_keys(question.last_offset + 1).await?;
            let keys = keys.iter().map(|key| key.as_deref().unwrap_or_default());
            let cutoff = question.answer(keys).ok_or_else(|| SinkError::Dedup {
                partition,
                source: DedupError::Origins {
                    stream: question.chain.stream.clone(),
                    shard: question.chain.shard.clone(),
                    base_offset: question.base_offset,
                },
            })?;
            cutoffs.insert(question.chain, cutoff);
        };
        let Admission {
            entries,
            marks,
            duplicates,
            gaps: missing,
            mut late,
        } = admission;
        // Where records were removed, envelopes do not say how far their batch reaches.
        for batch in late.iter_mut().filter(|batch| batch.is_filtered()) {
            let next = units.partition_point(|unit| unit.offset() <= batch.offsets.start);
            batch.offsets.end = units.get(next).map_or(to, Unit::offset);
        }
        let late = LateEvents {
            batches: late,
            doubts_all: past.doubts_all,
        };
        let lost = lost.into_iter().map(|hole| Gap::Offsets {
            from: hole.start,
            to: hole.end,
        });
        let gaps: Vec<Gap> = lost.chain(missing).collect();
        if list_text(&gaps).len() > MAX_GAPS_BYTES {
            let gaps = gaps.len();
            let source = LedgerError::TooManyGaps { from, to, gaps };
            return Err(SinkError::Ledger { partition, source });
        }
        let input = PlanInput {
            from,
            to,
            entries: &entries,
            is_first: self.ledger.plan == 0,
            note,
            tools: &mut tools,
        };
        let planned = self.writer.plan(input).await;
        planned.map_err(|error| SinkError::of_store(partition, error))?;
        Ok(Decided {
            marks,
            duplicates,
            gaps,
            late,
            digest,
        })
    }
}

/// True when SmartModules may have removed records unseen: any but the packer, which counts
/// what it is given. A lone step under a name of the user's is a packer if it makes envelopes.
pub(super) fn may_remove(transforms: &[Transform], entries: &[Entry]) -> bool {
    let is_packed = || {
        let mut entries = entries.iter();
        entries.any(|entry| matches!(entry, Entry::Envelope(_)))
    };
    match transforms {
        [] => false,
        [step] => !is_packer(step) && !is_packed(),
        _ => true,
    }
}

/// True for what a second read of the same records may mend.
fn is_hole(error: &SinkError) -> bool {
    matches!(
        error,
        SinkError::Contiguity { .. }
            | SinkError::Dedup {
                source: DedupError::Gap { .. } | DedupError::Inside { .. },
                ..
            }
    )
}
