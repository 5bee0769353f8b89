//! Late events into the dead letters, before the ledger passes the plan that they came with (I6).

use std::collections::HashSet;

use millpond_connector::mutation::{self, Mutation};
use millpond_connector::topic::ConsumedRecord;
use millpond_format::origin::Origin;

use super::Core;
use crate::dead_letters::DeadLetter;
use crate::error::SinkError;
use crate::late::LateBatch;
use crate::letters::Letters;
use crate::recorded::Late;

/// Late events of a plan.
#[derive(Debug, Clone, Default)]
pub(super) struct LateEvents {
    pub(super) batches: Vec<LateBatch>,
    /// Offsets are lost and nothing tells what they held: each event that is dropped is in doubt.
    pub(super) doubts_all: bool,
}

impl Core {
    /// Puts them away, as they are stored in the topic; answers how many there are. Holds one answer of the topic at a time.
    ///
    /// An entry is named by its event: one that comes again, or is put away again, is the same entry.
    pub(super) async fn put_late_away(&self, late: &LateEvents) -> Result<u64, SinkError> {
        let mut count = 0;
        if mutation::is(Mutation::LateDropped) {
            return Ok(count);
        }
        for batch in &late.batches {
            let mut reading = self.reading(batch.offsets.start);
            while let Some(records) = reading.stored(batch.offsets.end).await? {
                let mut ids = HashSet::new();
                let letters = records
                    .iter()
                    .filter_map(|record| self.late_letter(batch, record, late.doubts_all));
                let letters: Vec<_> = letters
                    .filter(|letter| ids.insert(letter.id.clone()))
                    .collect();
                count += letters.len() as u64;
                // It may have come, and been put away, with an earlier plan.
                self.shared.dead_letters.put_away(letters, true).await?;
            }
        }
        Ok(count)
    }

    fn late_letter(
        &self,
        batch: &LateBatch,
        record: &ConsumedRecord,
        doubts_all: bool,
    ) -> Option<DeadLetter> {
        let origin = Origin::parse(record.key.as_deref().unwrap_or_default()).ok()?;
        if !batch.drops(&origin) {
            return None;
        }
        let doubt = doubts_all.then_some(Late::InDoubt);
        let late = self.recorded.late(&origin).or(doubt)?;
        let letters = Letters {
            pipeline: &self.shared.pipeline,
            topic: self.shared.topic.name(),
            partition: self.partition,
        };
        Some(letters.after_gap(record, &origin, late))
    }
}
