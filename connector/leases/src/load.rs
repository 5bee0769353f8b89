//! Who should have which, where the work of each lease was measured. Even means: nobody bears more than a fifth
//! less than the worker with most, or no lease of that one can make it a tenth better.
//!
//! Every lease weighs a little, worked or not, so that idle ones are spread, too. Only the
//! lightest worker asks, and only for what makes the heaviest clearly lighter and itself not as
//! heavy, so that a load that wavers does not move a lease to and fro.

use std::collections::{BTreeMap, BTreeSet};

use crate::balance::{hashed, prospective};
use crate::row::{LeaseId, LeaseRow, View, WorkerId};

/// The weights of the leases, and what each live worker will bear once every promised hand-over is done.
pub(crate) struct Loads<'a> {
    weights: BTreeMap<&'a LeaseId, u64>,
    sums: BTreeMap<&'a WorkerId, u64>,
    live: &'a BTreeSet<&'a WorkerId>,
    asked: BTreeSet<&'a LeaseId>,
}

impl<'a> Loads<'a> {
    /// `None` when nothing was measured.
    pub(crate) fn new(
        view: &View,
        leases: &'a BTreeSet<LeaseId>,
        live: &'a BTreeSet<&'a WorkerId>,
    ) -> Option<Self> {
        let measured = |lease| view.loads.get(lease).copied().unwrap_or(0);
        let total = leases
            .iter()
            .map(measured)
            .fold(0u64, |sum, load| sum.saturating_add(load));
        if total == 0 {
            return None;
        }
        let idle = total / leases.len().max(1) as u64 / 4 + 1;
        let weight = |lease| measured(lease).saturating_add(idle);
        let mut loads = Self {
            weights: leases.iter().map(|lease| (lease, weight(lease))).collect(),
            sums: live.iter().map(|worker| (*worker, 0)).collect(),
            live,
            asked: BTreeSet::new(),
        };
        for lease in leases {
            let row = view.leases.get(lease);
            if let Some(worker) = row.and_then(|row| prospective(row, live)) {
                loads.add(worker, loads.weights[lease]);
            }
        }
        Some(loads)
    }

    fn add(&mut self, worker: &WorkerId, weight: u64) {
        if let Some(sum) = self.sums.get_mut(worker) {
            *sum = sum.saturating_add(weight);
        }
    }

    /// Which of the free leases this worker should take. Workers with the same view agree.
    pub(crate) fn share_out<'f>(
        &mut self,
        me: &WorkerId,
        mut free: Vec<&'f LeaseId>,
    ) -> Vec<&'f LeaseId> {
        let weights = &self.weights;
        let weight = |lease: &LeaseId| weights.get(lease).copied().unwrap_or(1);
        free.sort_by_key(|lease| (std::cmp::Reverse(weight(lease)), lease.as_str()));
        let mut ours = Vec::new();
        for lease in free {
            let weight = self.weights.get(lease).copied().unwrap_or(1);
            let lightest = self
                .sums
                .iter()
                .min_by_key(|(worker, sum)| (**sum, hashed(worker, lease.as_str())));
            let Some(lightest) = lightest.map(|(worker, _)| (*worker).clone()) else {
                break;
            };
            if lightest == *me {
                ours.push(lease);
            }
            self.add(&lightest, weight);
        }
        ours
    }

    /// The lease that this worker should ask for next.
    pub(crate) fn ask(&mut self, me: &WorkerId, view: &View) -> Option<&'a LeaseId> {
        let (lightest, least) = self
            .sums
            .iter()
            .min_by_key(|(worker, sum)| (**sum, **worker))?;
        let (heaviest, most) = self
            .sums
            .iter()
            .max_by_key(|(worker, sum)| (**sum, **worker))?;
        if *lightest != me {
            return None;
        }
        let (heaviest, gap, step) = ((*heaviest).clone(), most - least, most / 10);
        if gap <= most / 5 {
            return None;
        }
        let is_theirs = |lease: &LeaseId| {
            view.leases.get(lease).is_some_and(|row: &LeaseRow| {
                row.owner.as_ref() == Some(&heaviest)
                    && prospective(row, self.live) == Some(&heaviest)
            })
        };
        let (lease, weight) = self
            .weights
            .iter()
            .map(|(lease, weight)| (*lease, *weight))
            .filter(|(lease, weight)| {
                weight.saturating_add(step) < gap && !self.asked.contains(lease)
            })
            .filter(|(lease, _)| is_theirs(lease))
            .min_by_key(|(lease, weight)| (weight.abs_diff(gap / 2), hashed(me, lease.as_str())))?;
        self.asked.insert(lease);
        if let Some(sum) = self.sums.get_mut(&heaviest) {
            *sum -= weight;
        }
        self.add(me, weight);
        Some(lease)
    }
}
