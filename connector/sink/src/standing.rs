//! What is shown of one topic partition while it is worked on here.

use std::sync::Arc;

use millpond_connector::metrics::Metrics;
use millpond_connector::topic::{Offset, PartitionId};

/// The partition's place on the board. It goes when the work ends, in whatever way, unless it failed: then
/// it stays, to say where and why.
pub struct Standing {
    metrics: Arc<Metrics>,
    partition: PartitionId,
    /// Time of the oldest event of the plan that is being written.
    writing_ms: Option<i64>,
    has_failed: bool,
}

impl Standing {
    /// The work begins.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, partition: PartitionId) -> Self {
        Self {
            metrics,
            partition,
            writing_ms: None,
            has_failed: false,
        }
    }

    /// Everything below `offset` is in the store, and the oldest event that waits is of `waiting_ms`.
    pub fn written(&mut self, offset: Offset, waiting_ms: Option<i64>) {
        self.writing_ms = None;
        self.metrics.partitions.update(self.partition, |at| {
            at.written = offset;
            at.oldest_waiting_ms = waiting_ms;
        });
    }

    /// What waited is being written.
    pub fn writes(&mut self, oldest_ms: Option<i64>) {
        self.writing_ms = oldest_ms;
    }

    /// More waits; the oldest of it is of `oldest_ms`.
    pub fn waits(&self, oldest_ms: Option<i64>) {
        let oldest_ms = [oldest_ms, self.writing_ms].into_iter().flatten().min();
        let partitions = &self.metrics.partitions;
        partitions.update(self.partition, |at| at.oldest_waiting_ms = oldest_ms);
    }

    /// The work ended.
    pub fn ended(mut self, well: bool) {
        self.has_failed = !well;
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        if !self.has_failed {
            self.metrics.partitions.remove(&self.partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_that_of_what_is_written_and_of_what_waits() {
        let metrics = Arc::new(Metrics::default());
        let oldest = || metrics.partitions.get(&3).expect("there").oldest_waiting_ms;
        let mut standing = Standing::new(metrics.clone(), 3);
        standing.written(7, None);
        standing.waits(Some(20));
        assert_eq!(oldest(), Some(20));
        standing.writes(Some(20));
        standing.waits(Some(30));
        assert_eq!(oldest(), Some(20), "it is not in the store yet");
        standing.written(9, Some(30));
        assert_eq!(oldest(), Some(30));
        standing.ended(false);
        assert_eq!(metrics.partitions.get(&3).expect("kept").written, 9);
        drop(Standing::new(metrics.clone(), 3));
        assert_eq!(metrics.partitions.get(&3), None);
    }
}
