//! Who should have how many. Even means: nobody has more than one lease more than another.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use crate::row::{LeaseId, LeaseRow, View, WorkerId};

/// The live workers and what each will hold once every promised hand-over is done.
pub(crate) struct Balance<'a> {
    counts: BTreeMap<&'a WorkerId, usize>,
    leases: usize,
}

/// Who will hold this row once a promised hand-over is done; nobody if that worker is dead.
pub(crate) fn prospective<'a>(
    row: &'a LeaseRow,
    live: &BTreeSet<&WorkerId>,
) -> Option<&'a WorkerId> {
    let living = |worker: &&WorkerId| live.contains(worker);
    let wanted = row.wanted_by.as_ref().filter(living);
    wanted.or_else(|| row.owner.as_ref().filter(living))
}

impl<'a> Balance<'a> {
    pub(crate) fn new(
        view: &View,
        leases: &BTreeSet<LeaseId>,
        live: &'a BTreeSet<&'a WorkerId>,
    ) -> Self {
        let mut counts: BTreeMap<&WorkerId, usize> =
            live.iter().map(|worker| (*worker, 0)).collect();
        for row in leases.iter().filter_map(|lease| view.leases.get(lease)) {
            if let Some(count) = prospective(row, live).and_then(|worker| counts.get_mut(worker)) {
                *count += 1;
            }
        }
        Self {
            counts,
            leases: leases.len(),
        }
    }

    fn floor(&self) -> usize {
        self.leases / self.counts.len().max(1)
    }

    fn ceiling(&self) -> usize {
        self.leases.div_ceil(self.counts.len().max(1))
    }

    fn count(&self, worker: &WorkerId) -> usize {
        self.counts.get(worker).copied().unwrap_or(0)
    }

    /// How many free leases this worker may take.
    pub(crate) fn room(&self, me: &WorkerId) -> usize {
        self.ceiling().saturating_sub(self.count(me))
    }

    /// From whom this worker should ask a lease next. Below the floor it asks until it is there.
    /// At the floor, one of the workers there asks for each lease that somebody has above the
    /// ceiling: the first by id, so that not all ask for the same one.
    pub(crate) fn ask(&mut self, me: &WorkerId) -> Option<WorkerId> {
        let mine = self.count(me);
        let (floor, ceiling) = (self.floor(), self.ceiling());
        let (richest, most) = self
            .counts
            .iter()
            .map(|(worker, count)| (*worker, *count))
            .max_by_key(|(worker, count)| (*count, hashed(me, worker.as_str())))?;
        if most < mine + 2 || mine > floor {
            return None;
        }
        if mine == floor {
            let excess: usize = self
                .counts
                .values()
                .map(|count| count.saturating_sub(ceiling))
                .sum();
            let before = self
                .counts
                .iter()
                .filter(|(worker, count)| **count == floor && **worker < me);
            if before.count() >= excess {
                return None;
            }
        }
        let richest = richest.clone();
        for (worker, count) in &mut self.counts {
            if **worker == richest {
                *count -= 1;
            } else if *worker == me {
                *count += 1;
            }
        }
        Some(richest)
    }
}

/// An order of things that differs from worker to worker, so that they do not all reach for the
/// same lease first.
pub(crate) fn hashed(me: &WorkerId, thing: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (me, thing).hash(&mut hasher);
    hasher.finish()
}
