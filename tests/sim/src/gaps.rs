//! The gaps that were recorded.

use std::collections::BTreeMap;

use millpond_connector::topic::{Offset, PartitionId};
use millpond_format::gap::Gap;

use crate::oracle::Link;

/// By topic partition.
#[derive(Debug, Default)]
pub struct Gaps(BTreeMap<PartitionId, Vec<Gap>>);

impl Gaps {
    /// One more.
    pub fn add(&mut self, partition: PartitionId, gap: Gap) {
        self.0.entry(partition).or_default().push(gap);
    }

    fn of(&self, partition: PartitionId) -> &[Gap] {
        self.0.get(&partition).map_or(&[], Vec::as_slice)
    }

    /// True for an offset that is said to be lost.
    #[must_use]
    pub fn has(&self, partition: PartitionId, offset: Offset) -> bool {
        self.of(partition).iter().any(|gap| match gap {
            Gap::Offsets { from, to } | Gap::Plan { from, to } => (*from..*to).contains(&offset),
            Gap::Chain(_) => false,
        })
    }

    /// True when a gap of a chain holds a link.
    #[must_use]
    pub fn has_link(&self, (partition, shard, epoch, ordinal): &Link) -> bool {
        self.of(*partition).iter().any(|gap| match gap {
            Gap::Offsets { .. } | Gap::Plan { .. } => false,
            Gap::Chain(gap) => {
                gap.shard == *shard
                    && gap.epoch == *epoch
                    && (gap.first..=gap.last).contains(ordinal)
            }
        })
    }

    /// True where offsets are lost.
    #[must_use]
    pub fn has_offsets(&self, partition: PartitionId) -> bool {
        let is_offsets = |gap: &Gap| matches!(gap, Gap::Offsets { .. });
        self.of(partition).iter().any(is_offsets)
    }

    /// True for an offset of a plan that was given up.
    #[must_use]
    pub fn has_planned(&self, partition: PartitionId, offset: Offset) -> bool {
        self.of(partition).iter().any(|gap| match gap {
            Gap::Plan { from, to } => (*from..*to).contains(&offset),
            Gap::Offsets { .. } | Gap::Chain(_) => false,
        })
    }

    /// True where a plan was given up.
    #[must_use]
    pub fn has_plan(&self, partition: PartitionId) -> bool {
        let is_plan = |gap: &Gap| matches!(gap, Gap::Plan { .. });
        self.of(partition).iter().any(is_plan)
    }

    /// The same, anywhere.
    #[must_use]
    pub fn has_plans(&self) -> bool {
        self.0.keys().any(|partition| self.has_plan(*partition))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// True without one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
