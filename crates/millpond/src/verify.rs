//! Compares what was read back with what was emitted, event by event. Pure; its memory is one
//! bit for each event, and one number for each partition key of the group at hand.

use std::collections::HashMap;

use crate::report::EventCounts;
use crate::workload::Workload;

/// A comparison under way.
#[derive(Debug)]
pub struct Verifier {
    workload: Workload,
    counts: EventCounts,
    seen: Vec<u64>,
    distinct: u64,
    /// The current group.
    group: String,
    /// Last event of each Kinesis partition key in the current group.
    last: HashMap<String, u64>,
}

/// An event of the workload, recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recognised {
    /// Its index.
    pub index: u64,
    /// Its Kinesis partition key.
    pub partition_key: String,
}

impl Verifier {
    /// Expects the events `0..emitted` of `workload`.
    #[must_use]
    pub fn new(workload: Workload, emitted: u64) -> Self {
        Self {
            workload,
            counts: EventCounts {
                emitted,
                ..EventCounts::default()
            },
            seen: vec![0; usize::try_from(emitted.div_ceil(64)).unwrap_or(usize::MAX)],
            distinct: 0,
            group: String::new(),
            last: HashMap::new(),
        }
    }

    /// What follows is of this group, and must be the events of one job: its id is the group.
    pub fn next_group(&mut self, group: &str) {
        group.clone_into(&mut self.group);
        self.last.clear();
    }

    /// Takes the next event of the group; `None` if it is no event of the workload, or of one
    /// that was not emitted.
    pub fn take(&mut self, value: &[u8]) -> Option<Recognised> {
        self.counts.read += 1;
        let known = self.workload.index_of(value);
        let Some(index) = known.filter(|index| *index < self.counts.emitted) else {
            self.counts.changed += 1;
            return None;
        };
        let expected = self.workload.event(index);
        if expected.data.as_bytes() != value || expected.job_id() != self.group {
            self.counts.changed += 1;
        }
        if !self.mark(index) {
            self.counts.duplicated += 1;
        } else if let Some(last) = self.last.get_mut(&expected.partition_key) {
            if index < *last {
                self.counts.out_of_order += 1;
            }
            *last = index.max(*last);
        } else {
            self.last.insert(expected.partition_key.clone(), index);
        }
        Some(Recognised {
            index,
            partition_key: expected.partition_key,
        })
    }

    /// True when the event is seen for the first time.
    fn mark(&mut self, index: u64) -> bool {
        let Some(word) = usize::try_from(index / 64)
            .ok()
            .and_then(|word| self.seen.get_mut(word))
        else {
            return false;
        };
        let bit = 1 << (index % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        self.distinct += u64::from(is_new);
        is_new
    }

    /// The result, once every group was read.
    #[must_use]
    pub fn finish(mut self) -> EventCounts {
        self.counts.lost = self.counts.emitted - self.distinct;
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: u64 = 1_000;

    fn workload() -> Workload {
        Workload::new(3, 1_763_886_000_000, 4)
    }

    /// Takes them in this order, each run of events of one job as its group.
    fn verify(indices: impl IntoIterator<Item = u64>) -> EventCounts {
        let mut verifier = Verifier::new(workload(), EVENTS);
        for index in indices {
            let event = workload().event(index);
            // Not `next_group`: what came before in the group still counts.
            event.job_id().clone_into(&mut verifier.group);
            let recognised = verifier.take(event.data.as_bytes());
            if index < EVENTS {
                let partition_key = event.partition_key;
                assert_eq!(
                    recognised,
                    Some(Recognised {
                        index,
                        partition_key
                    })
                );
            }
        }
        verifier.finish()
    }

    #[test]
    fn all_events_in_order_are_exact() {
        assert!(verify(0..EVENTS).is_exact());
    }

    #[test]
    fn each_kind_of_damage_is_counted() {
        let lost = verify(1..EVENTS);
        assert_eq!((lost.lost, lost.read), (1, EVENTS - 1));
        let doubled = verify((0..EVENTS).chain([7]));
        assert_eq!((doubled.duplicated, doubled.lost), (1, 0));
        assert_eq!(doubled.out_of_order, 0);
        let foreign = verify((0..EVENTS).chain([EVENTS]));
        assert_eq!((foreign.changed, foreign.read), (1, EVENTS + 1));
        assert!(!lost.is_exact() && !doubled.is_exact() && !foreign.is_exact());
    }

    #[test]
    fn order_counts_within_a_partition_key_only() {
        let key = |index: u64| workload().event(index).partition_key;
        let later = (1..EVENTS)
            .find(|index| key(*index) == key(0))
            .expect("pair");
        let swapped = [later, 0]
            .into_iter()
            .chain((1..EVENTS).filter(|index| *index != later));
        assert_eq!(verify(swapped).out_of_order, 1);
        // By partition key, one after the other: all fine.
        let mut by_key: Vec<u64> = (0..EVENTS).collect();
        by_key.sort_by_key(|index| key(*index));
        assert!(verify(by_key).is_exact());
    }

    #[test]
    fn a_changed_byte_is_seen() {
        let mut verifier = Verifier::new(workload(), 1);
        verifier.next_group(workload().event(0).job_id());
        let mut data = workload().event(0).data.into_bytes();
        if let Some(last) = data.last_mut() {
            *last ^= 1;
        }
        assert!(verifier.take(&data).is_some());
        let counts = verifier.finish();
        assert_eq!((counts.changed, counts.lost), (1, 0));
        assert!(!counts.is_exact());
    }

    #[test]
    fn an_event_in_another_group_is_not_where_it_belongs() {
        let event = workload().event(0);
        for (group, changed) in [(event.job_id(), 0), ("another", 1), ("", 1)] {
            let mut verifier = Verifier::new(workload(), 1);
            verifier.next_group(group);
            assert!(verifier.take(event.data.as_bytes()).is_some());
            let counts = verifier.finish();
            assert_eq!((counts.changed, counts.lost), (changed, 0), "{group}");
        }
    }
}
