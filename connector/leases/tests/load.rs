//! Workers that share leases of measured work: evenly, soon, and calm from then on.
#![allow(missing_docs, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millpond_leases::{
    Coordinator, Decision, LeaseId, LeaseRow, MemoryStore, Settings, View, WorkerId,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

struct Group {
    store: MemoryStore,
    loads: BTreeMap<LeaseId, u64>,
    workers: Vec<Coordinator>,
    now: Duration,
}

impl Group {
    fn new(loads: &[u64], workers: usize) -> Self {
        let loads = loads.iter().enumerate();
        Self {
            store: MemoryStore::default(),
            loads: loads
                .map(|(number, load)| (LeaseId::new(format!("{number:04}")), *load))
                .collect(),
            workers: (0..workers)
                .map(|number| {
                    let id = WorkerId::new(format!("w{number}"));
                    Coordinator::new(id, Settings::default(), number as u64)
                })
                .collect(),
            now: Duration::ZERO,
        }
    }

    /// Each worker steps once; answers how many leases changed.
    fn round(&mut self, joined: usize) -> usize {
        let leases: BTreeSet<LeaseId> = self.loads.keys().cloned().collect();
        let before = self.store.snapshot().leases;
        for worker in &mut self.workers[..joined] {
            self.now += Duration::from_millis(200);
            let view = View {
                loads: self.loads.clone(),
                ..self.store.snapshot()
            };
            for decision in worker.decide(self.now, self.now, &view, &leases) {
                let change = match decision {
                    Decision::Change(change) => change,
                    Decision::HandOver(lease) => worker.hand_over(&lease).expect("held"),
                    Decision::Drop(lease, reason) => panic!("{lease} dropped: {reason:?}"),
                };
                let outcome = self.store.apply(&change);
                worker.answered(&change, outcome, self.now, self.now);
            }
        }
        let after = self.store.snapshot().leases;
        let differs = |(lease, row): &(&LeaseId, &LeaseRow)| before.get(*lease) != Some(*row);
        after.iter().filter(differs).count()
    }

    fn sums(&self, joined: usize) -> Vec<u64> {
        let worker = |number| WorkerId::new(format!("w{number}"));
        let rows = self.store.snapshot().leases;
        let sum = |owner: WorkerId| {
            let theirs = rows
                .iter()
                .filter(|(_, row)| row.owner.as_ref() == Some(&owner));
            theirs.map(|(lease, _)| self.loads[lease]).sum()
        };
        (0..joined).map(|number| sum(worker(number))).collect()
    }
}

#[test]
fn one_busy_lease_is_worth_many_idle_ones() {
    let mut group = Group::new(&[9_000, 100, 100, 100, 100, 100, 100, 100], 2);
    for _ in 0..4 {
        group.round(1);
    }
    assert_eq!(group.sums(1), [9_700]);
    for _ in 0..20 {
        group.round(2);
    }
    let mut sums = group.sums(2);
    sums.sort_unstable();
    assert!(sums[0] >= 600 && sums[1] >= 9_000, "{sums:?}");
}

#[test]
fn whatever_the_loads_the_work_becomes_even_and_then_nothing_moves() {
    for seed in 0..40u64 {
        let mut random = StdRng::seed_from_u64(seed);
        let workers = random.random_range(1..6);
        let leases = random.random_range(1..40);
        let loads: Vec<u64> = (0..leases)
            .map(|_| match random.random_range(0..4) {
                0 => 0,
                1 => random.random_range(0..10),
                _ => random.random_range(0..2_000_000),
            })
            .collect();
        let mut group = Group::new(&loads, workers);
        for joined in 1..=workers {
            for _ in 0..60 {
                group.round(joined);
            }
        }
        let rows = group.store.snapshot().leases;
        assert_eq!(rows.len(), loads.len(), "seed {seed}: not all are held");
        assert!(rows.values().all(|row| row.owner.is_some()), "seed {seed}");
        assert_eq!(group.round(workers), 0, "seed {seed}: not calm");
        let sums = group.sums(workers);
        let (least, most) = (sums.iter().min(), sums.iter().max());
        let (least, most) = (*least.expect("some"), *most.expect("some"));
        let total: u64 = group.loads.values().sum();
        let heaviest = group.loads.values().copied().max().unwrap_or(0);
        let idle = total / leases as u64 / 4 + 1;
        // What is left of a difference is less than a lease, or a fifth.
        let bound = heaviest + idle * leases as u64 / 4 + most / 5;
        assert!(most - least <= bound, "seed {seed}: {sums:?} of {loads:?}");
    }
}
