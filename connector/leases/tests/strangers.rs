//! A worker of another program, which renews in its own time, on virtual time.
#![allow(missing_docs, reason = "tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use millpond_leases::{
    Beat, Change, Coordinator, Decision, LeaseId, LeaseRow, Outcome, Settings, View, WorkerId,
};

const SILENCE: Duration = Duration::from_secs(60);

/// One of ours beside a stranger that renews at these times, for ten minutes: when the stranger's lease was taken.
fn taken_at(renews: impl Fn(Duration) -> u64) -> Option<Duration> {
    let settings = Settings::default();
    let [me, stranger] = ["me", "stranger"].map(WorkerId::new);
    let lease = LeaseId::new("shard");
    let leases = BTreeSet::from([lease.clone()]);
    let mut view = View::default();
    view.silences.insert(stranger.clone(), SILENCE);
    let row = LeaseRow {
        epoch: 1,
        owner: Some(stranger.clone()),
        wanted_by: None,
    };
    view.leases.insert(lease, row);
    let mut coordinator = Coordinator::new(me.clone(), settings, 1);
    let mut now = Duration::ZERO;
    while now < Duration::from_secs(600) {
        let count = renews(now);
        let beat = Beat { session: 0, count };
        view.workers.insert(stranger.clone(), beat);
        for decision in coordinator.decide(now, now, &view, &leases) {
            match decision {
                Decision::Change(change @ Change::Worker { new: Some(new), .. }) => {
                    view.workers.insert(me.clone(), new);
                    coordinator.answered(&change, Outcome::Applied, now, now);
                }
                Decision::Change(Change::Lease { new, .. }) if new.owner.as_ref() == Some(&me) => {
                    return Some(now);
                }
                _ => {}
            }
        }
        now += settings.beat();
    }
    None
}

#[test]
fn one_that_renews_keeps_its_leases() {
    for every in [3, 10, 30, 59] {
        assert_eq!(
            taken_at(|now| now.as_secs() / every),
            None,
            "each {every} s"
        );
    }
}

#[test]
fn one_that_stopped_is_dead_after_its_silence() {
    let stopped = Duration::from_secs(100);
    let taken = taken_at(|now| now.min(stopped).as_secs() / 20).expect("taken");
    let silent = taken.checked_sub(stopped).expect("not before");
    let beats = Settings::default().beat() * 2;
    assert!((SILENCE..SILENCE + beats).contains(&silent), "{silent:?}");
}
