//! What the sink relies on in a store: a registration that stays, a ledger that changes only by
//! compare-and-set, dead letters that may be put again, gaps that are given back.

use std::sync::Arc;

use bytes::Bytes;
use millpond_connector::metrics::Metrics;
use millpond_connector::topic::PartitionId;
use millpond_format::gap::Gap;
use millpond_format::sequence::{Position, SequenceNumber};
use tokio::task::JoinSet;

use super::{PIPELINE, Subject, topic};
use crate::dead_letters::{DeadLetter, Payload};
use crate::gaps::{GIVEN_UP_INDEX, PlanGaps};
use crate::ledger::{Done, LedgerError, LedgerRow};
use crate::marks::{Mark, Marks};
use crate::registration::Registration;
use crate::store::Store;

/// Processes that claim one partition at the same time.
const RIVALS: usize = 5;

/// Goes through every rule on a place where nothing is yet.
///
/// # Panics
/// On the first rule that does not hold.
pub async fn assert_rules(subject: &dyn Subject) {
    assert_rules_in_turn(subject).await;
    one_claim_wins(subject).await;
}

/// The rules that show with one call at a time, for a server that cannot take two.
///
/// # Panics
/// On the first rule that does not hold.
pub async fn assert_rules_in_turn(subject: &dyn Subject) {
    registration(subject).await;
    ledger(subject).await;
    dead_letters(subject).await;
    gaps(subject).await;
}

async fn open(subject: &dyn Subject) -> Arc<dyn Store> {
    subject.open(Arc::new(Metrics::default())).await
}

async fn registration(subject: &dyn Subject) {
    let mine = Registration {
        topic: "events".into(),
        partitions: 4,
        fingerprint: "f".into(),
    };
    let other = Registration {
        fingerprint: "g".into(),
        ..mine.clone()
    };
    let (store, later) = (open(subject).await, open(subject).await);
    assert_eq!(store.register(&mine).await.expect("registers"), None);
    for (store, again) in [(&store, &mine), (&later, &other)] {
        let found = store.register(again).await.expect("registers");
        assert_eq!(found.as_ref(), Some(&mine), "the first one stays");
    }
}

fn done(to: u64) -> Done {
    let mut marks = Marks::default();
    for shard in 0..20u64 {
        let position = Position::new(SequenceNumber::parse("4959033").expect("a number"), 7);
        marks.set(Mark {
            stream: "events".into(),
            shard: format!("shardId-{shard:012}").into(),
            epoch: 1_763_880_000_000,
            ordinal: to + shard,
            last: position.clone(),
            highest: position,
        });
    }
    Done { to, marks }
}

/// Puts a step and answers whether it was applied.
async fn put(store: &dyn Store, partition: PartitionId, step: &crate::ledger::Step) -> bool {
    let put = store.put_ledger(partition, &step.row, step.seen.as_ref());
    put.await.expect("answers")
}

async fn gaps(subject: &dyn Subject) {
    let of = |partition, from, first_index, gaps| PlanGaps {
        pipeline: PIPELINE,
        topic: topic::NAME,
        partition,
        from,
        first_index,
        gaps,
    };
    let begun = [Gap::Offsets { from: 9, to: 10 }];
    let given_up = [
        Gap::Plan { from: 9, to: 12 },
        Gap::Plan { from: 10, to: 12 },
    ];
    let later = [Gap::Offsets { from: 100, to: 101 }];
    let other = [Gap::Offsets { from: 5, to: 6 }];
    let store = open(subject).await;
    assert_eq!(store.gaps(3).await.expect("answers"), []);
    // Not in the order of their offsets, and some again.
    for plan in [
        of(3, 100, 0, &later[..]),
        of(3, 9, 0, &begun),
        of(2, 5, 0, &other),
        of(4, 5, 0, &other),
        of(3, 9, GIVEN_UP_INDEX, &given_up),
        of(3, 100, 0, &later),
    ] {
        store.put_gaps(plan).await.expect("keeps");
    }
    let [of_other] = other;
    let [first] = begun;
    let [second, third] = given_up;
    let [last] = later;
    let expected = [(9, first), (9, second), (9, third), (100, last)];
    let reopened = open(subject).await;
    assert_eq!(reopened.gaps(3).await.expect("answers"), expected);
    for partition in [2, 4] {
        let found = store.gaps(partition).await.expect("answers");
        assert_eq!(found, [(5, of_other.clone())]);
    }
}

async fn ledger(subject: &dyn Subject) {
    let store = open(subject).await;
    let row = async |store: &Arc<dyn Store>| store.ledger(3).await.expect("answers");
    assert_eq!(row(&store).await, None);
    let claim = LedgerRow::claim(None, "a", 10, None);
    assert!(put(&*store, 3, &claim).await);
    assert!(!put(&*store, 3, &claim).await, "there is one now");
    assert_eq!(row(&store).await.as_ref(), Some(&claim.row));
    assert_eq!(
        store.ledger(4).await.expect("answers"),
        None,
        "of another partition"
    );

    let first = claim.row.begin(None, 20, "f", Vec::new());
    assert!(put(&*store, 3, &first).await);
    let second = first.row.begin(Some(&done(20)), 35, "f", Vec::new());
    assert!(put(&*store, 3, &second).await);
    let stale = first.row.begin(Some(&done(20)), 99, "f", Vec::new());
    assert!(
        !put(&*store, 3, &stale).await,
        "that row is not there any more"
    );
    assert!(stale.judge(row(&store).await.as_ref()).is_err());
    // Committing alone is a step, too.
    let commit = second.row.commit(Some(&done(35)));
    assert!(put(&*store, 3, &commit).await);
    assert_eq!(row(&store).await.as_ref(), Some(&commit.row));
    let third = commit.row.begin(None, 50, "f", Vec::new());
    assert!(put(&*store, 3, &third).await);

    // Another process takes it; the first one can change nothing from then on, however often it
    // tries, and the second one goes on.
    let later = open(subject).await;
    let found = row(&later).await;
    assert_eq!(found.as_ref(), Some(&third.row));
    let taken = LedgerRow::claim(found.as_ref(), "b", 0, None);
    assert!(put(&*later, 3, &taken).await);
    for to in [60, 70] {
        let late = third.row.begin(Some(&done(50)), to, "f", Vec::new());
        assert!(!put(&*store, 3, &late).await, "fenced");
        let judged = late.judge(row(&store).await.as_ref());
        assert!(
            matches!(judged, Err(LedgerError::Fenced { .. })),
            "{judged:?}"
        );
    }
    let on = taken.row.begin(Some(&done(50)), 60, "f", Vec::new());
    assert!(put(&*later, 3, &on).await);
    assert_eq!(row(&store).await.as_ref(), Some(&on.row));
}

async fn one_claim_wins(subject: &dyn Subject) {
    // First where there is no row, then where there is one.
    for _ in 0..2 {
        // All have seen the same before the first one writes.
        let mut steps = Vec::new();
        for number in 0..RIVALS {
            let store = open(subject).await;
            let found = store.ledger(5).await.expect("answers");
            let step = LedgerRow::claim(found.as_ref(), &format!("o{number}"), 0, None);
            steps.push((store, step));
        }
        let mut claims = JoinSet::new();
        for (store, step) in steps {
            claims.spawn(async move { put(&*store, 5, &step).await.then_some(step.row) });
        }
        let won: Vec<LedgerRow> = claims.join_all().await.into_iter().flatten().collect();
        assert_eq!(won.len(), 1, "{won:?}");
        let row = open(subject).await.ledger(5).await.expect("answers");
        assert_eq!(row.as_ref(), won.first());
    }
}

async fn dead_letters(subject: &dyn Subject) {
    let letter = |offset| DeadLetter {
        id: format!("p/events/0/{offset}/0"),
        offset,
        time_ms: 1_763_886_000_123,
        reason: "not-json".into(),
        detail: "expected value at byte 0".into(),
        group: Some("a/b".into()),
        record_key: Some(Bytes::from_static(b"mp1/s/a/1/0/1/1.0/k")),
        payload: Payload::Raw(Bytes::from_static(b"\xff\0")),
    };
    let store = open(subject).await;
    for letters in [&[letter(1), letter(2)][..], &[letter(2), letter(3)]] {
        store.put_dead_letters(letters).await.expect("puts");
    }
}
