//! Two ways in which two workers once held one lease, step by step.
#![allow(missing_docs, reason = "tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use millpond_leases::{
    Beat, Change, Coordinator, Decision, DropReason, Event, LeaseId, MemoryStore, Outcome,
    Settings, WorkerId,
};

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn lease() -> LeaseId {
    LeaseId::new("0")
}

fn leases() -> BTreeSet<LeaseId> {
    BTreeSet::from([lease()])
}

/// A view read at `read`, decided on at `now`; all changes are answered by then. What was taken.
fn step(
    coordinator: &mut Coordinator,
    store: &MemoryStore,
    view: &millpond_leases::View,
    read: Duration,
    now: Duration,
) -> (Vec<Event>, Vec<Decision>) {
    let decisions = coordinator.decide(read, now, view, &leases());
    let mut events = Vec::new();
    for decision in &decisions {
        if let Decision::Change(change) = decision {
            let outcome = store.apply(change);
            events.extend(coordinator.answered(change, outcome, now, now));
        }
    }
    (events, decisions)
}

fn now_step(coordinator: &mut Coordinator, store: &MemoryStore, now: Duration) -> Vec<Event> {
    step(coordinator, store, &store.snapshot(), now, now).0
}

/// The row of `id` as it beats next.
fn beat(store: &MemoryStore, id: &str, session: u64, count: u64) {
    let id = WorkerId::new(id);
    let seen = store.snapshot().workers.get(&id).copied();
    let new = Some(Beat { session, count });
    assert_eq!(
        store.apply(&Change::Worker { id, seen, new }),
        Outcome::Applied
    );
}

/// A view that took long to arrive says nothing about the time it took.
#[test]
fn an_owner_is_not_dead_because_the_answer_was_slow() {
    let store = MemoryStore::default();
    let mut owner = Coordinator::new(WorkerId::new("owner"), Settings::default(), 1);
    now_step(&mut owner, &store, at(0));
    let taken = now_step(&mut owner, &store, at(1));
    assert_eq!(taken, [Event::Taken(lease(), 1)]);

    let mut other = Coordinator::new(WorkerId::new("other"), Settings::default(), 2);
    for now in [10, 1_500, 2_900] {
        now_step(&mut other, &store, at(now));
    }
    // It asks for its view, then the owner beats, and then the view arrives: late, but while the
    // last beat of `other` still counts. The row was last seen to change more than 6 s before.
    let view = store.snapshot();
    now_step(&mut owner, &store, at(3_100));
    let (events, decisions) = step(&mut other, &store, &view, at(3_000), at(7_000));
    assert!(other.is_live(at(7_000)), "else this shows nothing");
    assert_eq!(events, [], "{decisions:?}");
    assert!(owner.held(&lease(), at(7_000)).is_some());
}

/// A row that was removed and written anew must not look as if it had never changed.
#[test]
fn a_restarted_owner_does_not_look_like_its_dead_self() {
    let store = MemoryStore::default();
    let id = WorkerId::new("owner");
    let mut owner = Coordinator::new(id.clone(), Settings::default(), 11);
    let mut other = Coordinator::new(WorkerId::new("other"), Settings::default(), 2);
    now_step(&mut owner, &store, at(0));
    now_step(&mut other, &store, at(1));
    let first = store.snapshot().workers[&id];

    // The row goes and comes while `other` looks away, at the same count of beats.
    owner.leave();
    now_step(&mut owner, &store, at(100));
    assert!(owner.is_over());
    let mut owner = Coordinator::new(id.clone(), Settings::default(), 12);
    // A view from before that; nothing is there to be taken yet.
    let mut view = store.snapshot();
    view.workers.insert(id.clone(), first);
    for decision in other.decide(at(2_900), at(2_900), &view, &BTreeSet::new()) {
        if let Decision::Change(change) = decision {
            let outcome = store.apply(&change);
            other.answered(&change, outcome, at(2_900), at(2_900));
        }
    }
    now_step(&mut owner, &store, at(4_000));
    let second = store.snapshot().workers[&id];
    assert_eq!(first.count, second.count, "else this shows nothing");
    let taken = now_step(&mut owner, &store, at(4_001));
    assert_eq!(taken, [Event::Taken(lease(), 1)]);

    let now = at(6_500);
    let events = now_step(&mut other, &store, now);
    assert_eq!(events, []);
    assert!(other.is_live(now) && owner.held(&lease(), now).is_some());
}

/// The older of two processes must know the row of the younger from its own.
#[test]
fn a_forgotten_process_sees_that_its_row_is_anothers() {
    let store = MemoryStore::default();
    let id = WorkerId::new("owner");
    let mut older = Coordinator::new(id.clone(), Settings::default(), 11);
    now_step(&mut older, &store, at(0));
    now_step(&mut older, &store, at(1));
    assert!(older.held(&lease(), at(2)).is_some());
    let seen = store.snapshot().workers.get(&id).copied();
    let gone = Change::Worker {
        id,
        seen,
        new: None,
    };
    assert_eq!(store.apply(&gone), Outcome::Applied);
    beat(&store, "owner", 12, 0);
    let (_, decisions) = step(&mut older, &store, &store.snapshot(), at(500), at(500));
    assert_eq!(decisions, [Decision::Drop(lease(), DropReason::Replaced)]);
    assert!(older.is_over());
}
