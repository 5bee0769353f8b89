//! From open batches to appends, and from acknowledged appends to durable positions.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use millpond_connector::mutation::{self, Mutation};
use millpond_connector::topic::{Offset, PartitionId, StoredBatch};
use millpond_format::record::BatchBuilder;
use millpond_format::sequence::Position;

use super::{AnswerEnd, Delivery, Mark, Partition, Run, Sealed, ShardIndex};
use crate::limits::MAX_AWAITING;

impl Delivery {
    pub(super) fn mark(&mut self, index: ShardIndex, position: Option<Position>, end: AnswerEnd) {
        let shard = &mut self.shards[index.slot];
        match shard.marks.back_mut() {
            // Nothing was read since: the same point, better known.
            Some(last) if position.is_none() && last.sends == shard.next_sends => {
                last.end = AnswerEnd {
                    caught_up: last.end.caught_up || end.caught_up,
                    ..end
                };
            }
            _ => shard.marks.push_back(Mark {
                position,
                ordinals: shard.next_ordinals.clone(),
                sends: shard.next_sends.clone(),
                end,
            }),
        }
        if self.awaits_release {
            thin_out(&mut shard.marks, |earlier, later| {
                later.position = later.position.take().or(earlier.position);
                later.end.caught_up |= earlier.end.caught_up;
            });
        }
        self.advance(index);
    }

    pub(super) fn seal(&mut self, partition_id: usize) {
        let partition = &mut self.partitions[partition_id];
        partition.opened_at = None;
        if partition.open.record_count() == 0 {
            return;
        }
        let open = std::mem::take(&mut partition.open);
        // An empty builder is not free of bytes: only what was pushed was counted.
        self.open_bytes -= open.raw_len() - BatchBuilder::new().raw_len();
        let record_count = open.record_count();
        let base_timestamp_ms = open.base_timestamp_ms();
        let mut raw = open.finish();
        // Room for a batch that did not fill: what waits is to take no more than is counted for it (I9).
        if raw.len() < raw.capacity() / 2 {
            raw.shrink_to_fit();
        }
        let raw = Bytes::from(raw);
        self.sealed_bytes += raw.len();
        partition.sealed.push_back(Sealed {
            batch: StoredBatch {
                raw,
                record_count,
                base_timestamp_ms,
            },
            runs: std::mem::take(&mut partition.runs),
        });
    }

    /// Seals the batches whose linger is over.
    pub fn seal_due(&mut self, now: Instant) {
        let linger = self.batching.linger;
        for partition_id in 0..self.partitions.len() {
            if self.partitions[partition_id]
                .opened_at
                .is_some_and(|at| now >= at + linger)
            {
                self.seal(partition_id);
            }
        }
    }

    /// Seals everything: nothing more will come, or memory is short.
    pub fn seal_all(&mut self) {
        (0..self.partitions.len()).for_each(|partition_id| self.seal(partition_id));
    }

    /// When the next batch is due to be sealed.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        let opened = self.partitions.iter().filter_map(|p| p.opened_at).min();
        opened.map(|at| at + self.batching.linger)
    }

    /// The next batch to append, on a partition without an append in flight.
    pub fn next_append(&mut self) -> Option<(PartitionId, StoredBatch)> {
        let idle = |partition: &Partition| !partition.in_flight && !partition.sealed.is_empty();
        let partition_id = self.partitions.iter().position(idle)?;
        let partition = &mut self.partitions[partition_id];
        let batch = partition.sealed.front()?.batch.clone();
        partition.in_flight = true;
        Some((partition_id as PartitionId, batch))
    }

    /// The append in flight on this partition is durable, and ends before offset `end`. Answers its number of
    /// events.
    pub fn appended(&mut self, partition: PartitionId, end: Offset) -> u32 {
        let Some(partition_state) = self.partitions.get_mut(partition as usize) else {
            return 0;
        };
        partition_state.in_flight = false;
        let Some(sealed) = partition_state.sealed.pop_front() else {
            return 0;
        };
        self.sealed_bytes -= sealed.batch.raw.len();
        for run in &sealed.runs {
            self.shards[run.shard.slot].appended_sends[partition as usize] = run.next_send;
        }
        if self.awaits_release {
            let awaiting = &mut self.partitions[partition as usize].awaiting;
            awaiting.push_back((end, sealed.runs));
            thin_out(awaiting, |(_, earlier), (_, later)| {
                let known = later.len();
                let missing = |run: &Run| {
                    later[..known]
                        .iter()
                        .all(|run_of| run_of.shard != run.shard)
                };
                let missing: Vec<Run> = earlier.into_iter().filter(missing).collect();
                later.extend(missing);
            });
        } else {
            self.reached(partition, &sealed.runs);
        }
        sealed.batch.record_count
    }

    /// Every consumer of the topic has what lies before offset `end` of this partition in safety.
    pub fn released(&mut self, partition: PartitionId, end: Offset) {
        loop {
            let Some(state) = self.partitions.get_mut(partition as usize) else {
                return;
            };
            let is_released = |(last, _): &mut (Offset, Vec<Run>)| *last <= end;
            let Some((_, runs)) = state.awaiting.pop_front_if(is_released) else {
                return;
            };
            self.reached(partition, &runs);
        }
    }

    /// True while something is in the topic that its consumers have not released.
    #[must_use]
    pub fn awaits(&self) -> bool {
        let mut partitions = self.partitions.iter();
        partitions.any(|partition| !partition.awaiting.is_empty())
    }

    fn reached(&mut self, partition: PartitionId, runs: &[Run]) {
        for run in runs {
            let durable = &mut self.shards[run.shard.slot].durable_sends[partition as usize];
            *durable = run.next_send.max(*durable);
            self.advance(run.shard);
        }
    }

    /// The append in flight on this partition failed: the same batch is offered again, first.
    pub fn append_failed(&mut self, partition: PartitionId) {
        if let Some(partition) = self.partitions.get_mut(partition as usize) {
            partition.in_flight = false;
        }
    }

    pub(super) fn advance(&mut self, index: ShardIndex) {
        let shard = &mut self.shards[index.slot];
        let mut moved = false;
        while let Some(mark) = shard.marks.front() {
            let reached = mark
                .sends
                .iter()
                .zip(&shard.durable_sends)
                .all(|(wanted, durable)| durable >= wanted);
            if !reached && !mutation::is(Mutation::CheckpointBeforeProduce) {
                break;
            }
            let Some(mark) = shard.marks.pop_front() else {
                break;
            };
            moved = true;
            let durable = &mut shard.durable;
            if mark.position.is_some() {
                durable.position = mark.position;
            }
            durable.chain.next_ordinals = mark.ordinals;
            durable.unread_since_ms = mark.end.unread_since_ms.max(durable.unread_since_ms);
            durable.caught_up |= mark.end.caught_up;
            durable.finished |= mark.end.closed || mutation::is(Mutation::FinishedTooEarly);
        }
        if moved && !self.changed.contains(&index) {
            self.changed.push(index);
        }
    }
}

/// Above the limit every second one is merged into the one behind it: what waits for long is known less finely.
fn thin_out<T>(queue: &mut VecDeque<T>, merge: impl Fn(T, &mut T)) {
    if queue.len() <= MAX_AWAITING {
        return;
    }
    let mut rest = std::mem::take(queue).into_iter();
    while let Some(earlier) = rest.next() {
        match rest.next() {
            Some(mut later) => {
                merge(earlier, &mut later);
                queue.push_back(later);
            }
            None => queue.push_back(earlier),
        }
    }
}
