//! Plans that cannot be finished, since the topic lost some of their records: they become gaps.

use millpond_format::gap::{ChainGap, Gap};

use super::{Intent, LedgerRow, Step};
use crate::marks::{Mark, Marks};

impl LedgerRow {
    /// Gives the open plan up: it becomes a gap.
    #[must_use]
    pub fn give_up(&self) -> Step {
        let mut row = self.clone();
        if let Some(intent) = &mut row.intent {
            let Intent { from, to, .. } = *intent;
            intent.gaps = vec![Gap::Plan { from, to }];
            row.plan += 1;
        }
        Step {
            row,
            seen: Some(self.clone()),
        }
    }

    /// What is lost with a plan that was given up: the plan, and the ordinals that it moved. Some of them may be in
    /// the store.
    #[must_use]
    pub fn given_up_gaps(&self) -> Vec<Gap> {
        let Some(intent) = &self.intent else {
            return Vec::new();
        };
        let chain = |mark: &Mark| {
            let known = self.marks.get(&mark.stream, &mark.shard);
            let before = known.filter(|known| known.epoch == mark.epoch);
            let first = match before {
                Some(before) => before.ordinal + 1,
                None if known.is_some() || self.start == 0 => 0,
                // Where this numbering began is not known here; the plan has no more than its records of it.
                None => (mark.ordinal + 1).saturating_sub(intent.to - intent.from),
            };
            let gap = ChainGap {
                stream: mark.stream.to_string(),
                shard: mark.shard.to_string(),
                epoch: mark.epoch,
                first,
                last: mark.ordinal,
                missing: (mark.ordinal + 1).saturating_sub(first),
                before: before.map(|before| before.last.clone()),
                after: mark.last.clone(),
                offset: intent.from,
            };
            (gap.missing > 0).then(|| Gap::Chain(Box::new(gap)))
        };
        let moved = intent.moved.iter().flat_map(Marks::iter);
        intent
            .gaps
            .iter()
            .cloned()
            .chain(moved.filter_map(chain))
            .collect()
    }
}
