use super::*;

const BOUNDS: OffsetBounds = OffsetBounds {
    earliest: 10,
    end: 100,
};

fn row() -> LedgerRow {
    LedgerRow::claim(None, "a", 10, None).row
}

fn done(to: Offset) -> Done {
    Done {
        to,
        marks: Marks::default(),
    }
}

#[test]
fn a_plan_commits_the_one_before() {
    let first = row().begin(None, 20, "f", vec![]);
    assert_eq!((first.row.plan, first.row.committed), (1, 10));
    let second = first.row.begin(Some(&done(20)), 35, "f", vec![]);
    assert_eq!((second.row.plan, second.row.committed), (2, 20));
    let intent = second.row.intent.clone().expect("open");
    assert_eq!((intent.from, intent.to), (20, 35));
    assert_eq!(second.seen, Some(first.row));
    let last = second.row.commit(Some(&done(35)));
    assert_eq!(
        (last.row.plan, last.row.committed, last.row.intent),
        (3, 35, None)
    );
}

#[test]
fn no_two_rows_of_a_history_look_alike_to_a_condition() {
    let claimed = row();
    let first = claimed.begin(None, 20, "f", vec![]).row;
    let second = first.begin(Some(&done(20)), 35, "f", vec![]).row;
    let committed = second.commit(Some(&done(35))).row;
    let third = committed.begin(None, 40, "f", vec![]).row;
    let taken = LedgerRow::claim(Some(&third), "b", 10, None).row;
    let history = [claimed, first, second, committed, third, taken];
    let seen: std::collections::BTreeSet<_> =
        history.iter().map(|row| (row.epoch, row.plan)).collect();
    assert_eq!(seen.len(), history.len());
}

#[test]
fn an_intent_survives_its_text_and_follows_what_is_committed() {
    let mut open = row().begin(None, 20, "f", vec![]).row;
    let intent = open.intent.clone().expect("open");
    assert_eq!(Intent::parse(&intent.text()), Some(intent));
    for text in ["", "1", "1/2", "a/2/f", "1/b/f", "1/2/f/", "1/2/f/hole"] {
        assert_eq!(Intent::parse(text), None, "{text}");
    }
    assert_eq!((row().problem(), open.problem()), (None, None));
    open.committed += 1;
    assert!(open.problem().is_some());
}

#[test]
fn an_open_plan_is_replayed_and_only_with_the_same_configuration() {
    let open = row().begin(None, 20, "f", vec![]).row;
    let taken = LedgerRow::claim(Some(&open), "b", 0, None).row;
    assert_eq!(taken.epoch, 2);
    assert_eq!(
        taken.resume("f", BOUNDS, OnGap::Halt),
        Ok(Resume::Replay { from: 10, to: 20 })
    );
    let refused = taken.resume("g", BOUNDS, OnGap::Halt);
    assert!(matches!(
        refused,
        Err(LedgerError::Fingerprint {
            from: 10,
            to: 20,
            ..
        })
    ));
    let idle = open.commit(Some(&done(20))).row;
    assert_eq!(
        idle.resume("g", BOUNDS, OnGap::Halt),
        Ok(Resume::Read { from: 20 })
    );
}

#[test]
fn a_topic_that_lost_or_never_had_the_offsets_is_refused() {
    let at = |earliest, end| OffsetBounds { earliest, end };
    let gone = row().resume("f", at(11, 100), OnGap::Halt);
    assert_eq!(
        gone,
        Err(LedgerError::Gone {
            committed: 10,
            earliest: 11
        })
    );
    let ahead = row().resume("f", at(0, 9), OnGap::Halt);
    assert_eq!(
        ahead,
        Err(LedgerError::Ahead {
            committed: 10,
            end: 9
        })
    );
    let open = row().begin(None, 20, "f", vec![]).row;
    let ahead = open.resume("f", at(0, 19), OnGap::Halt);
    assert_eq!(
        ahead,
        Err(LedgerError::Ahead {
            committed: 20,
            end: 19
        })
    );
}

#[test]
fn a_failed_condition_is_our_own_lost_answer_or_somebody_else() {
    let step = row().begin(None, 20, "f", vec![]);
    assert_eq!(step.judge(Some(&step.row)), Ok(()));
    let other = LedgerRow::claim(Some(&row()), "b", 0, None).row;
    assert_eq!(
        step.judge(Some(&other)),
        Err(LedgerError::Fenced {
            ours: 1,
            theirs: 2,
            owner: "b".into()
        })
    );
    assert_eq!(step.judge(None), Err(LedgerError::Changed));
}

#[test]
fn what_is_gone_is_passed_over_only_when_told_to() {
    let at = |earliest| OffsetBounds { earliest, end: 100 };
    let resume = |row: &LedgerRow, earliest| row.resume("f", at(earliest), OnGap::Record);
    // Nothing is open: the reader finds the hole and the next plan records it.
    assert_eq!(resume(&row(), 15), Ok(Resume::Read { from: 10 }));
    // A plan with a hole at its start needs only what comes after it.
    let hole = Gap::Offsets { from: 10, to: 15 };
    let open = row().begin(None, 20, "f", vec![hole]).row;
    let replay = Resume::Replay { from: 10, to: 20 };
    assert_eq!(resume(&open, 15), Ok(replay));
    assert_eq!(open.resume("f", at(15), OnGap::Halt), Ok(replay));
    let holes = open.intent.as_ref().map(Intent::holes);
    assert_eq!(holes.as_deref(), Some(std::slice::from_ref(&(10..15))));
    // More went meanwhile: what is written cannot be written anew.
    assert!(open.resume("f", at(16), OnGap::Halt).is_err());
    assert_eq!(resume(&open, 16), Ok(Resume::GiveUp { from: 10, to: 20 }));
    let given_up = open.give_up();
    assert_eq!(given_up.row.plan, open.plan + 1);
    assert_eq!(given_up.row.problem(), None);
    // That needs neither data nor the same configuration any more.
    let resumed = given_up.row.resume("g", at(90), OnGap::Halt);
    assert_eq!(resumed, Ok(Resume::GivenUp { from: 10, to: 20 }));
    let intent = given_up.row.intent.expect("open");
    assert_eq!(Intent::parse(&intent.text()), Some(intent));
}

#[test]
fn a_topic_made_anew_is_read_from_its_start_under_offsets_that_go_on() {
    let at = |earliest, end| OffsetBounds { earliest, end };
    let known = LedgerRow::claim(None, "a", 0, Some("one")).row;
    let idle = known
        .begin(None, 20, "f", vec![])
        .row
        .commit(Some(&done(20)))
        .row;
    assert!(!idle.is_of_another_log(Some("one"), at(0, 20)));
    // Another one is known by its name, or by being too short.
    assert!(idle.is_of_another_log(Some("two"), at(0, 500)));
    assert!(idle.is_of_another_log(None, at(0, 19)));
    assert!(
        !idle.is_of_another_log(None, at(0, 20)),
        "that cannot be seen"
    );
    let followed = idle.follow(Some("two"), at(3, 4), false).row;
    assert_eq!(followed.log.text(), "17/two");
    assert_eq!(Log::parse("17/two"), Some(followed.log.clone()));
    assert!(!followed.is_of_another_log(Some("two"), at(3, 4)));
    let resumed = followed.resume("f", at(3, 4), OnGap::Halt);
    assert_eq!(resumed, Ok(Resume::Read { from: 20 }));
    assert_ne!((followed.epoch, followed.plan), (idle.epoch, idle.plan));
    // And once more: offsets never come twice.
    let again = followed.begin(None, 25, "f", vec![]).row;
    let again = again.commit(Some(&done(25))).row;
    let again = again.follow(Some("three"), at(0, 0), false).row;
    assert_eq!((again.log.shift, again.committed), (25, 25));
    // What a new topic lost at its head is a gap like any other.
    let gone = idle.follow(None, at(90, 95), false).row;
    let gone = gone.resume("f", at(90, 95), OnGap::Halt);
    assert!(
        matches!(
            gone,
            Err(LedgerError::Gone {
                committed: 20,
                earliest: 90
            })
        ),
        "{gone:?}"
    );
}

#[test]
fn an_open_plan_of_a_lost_topic_is_undone_or_becomes_a_gap() {
    let bounds = OffsetBounds {
        earliest: 0,
        end: 500,
    };
    let open = LedgerRow::claim(None, "a", 0, Some("one")).row;
    let open = open.begin(None, 20, "f", vec![]).row;
    let taken = LedgerRow::claim(Some(&open), "b", 0, Some("two")).row;
    assert_eq!(taken.log.identity, "one", "a claim changes nothing of it");
    let undone = taken.follow(Some("two"), bounds, true).row;
    assert_eq!((undone.committed, &undone.intent), (20, &None));
    assert_eq!(undone.log.text(), "20/two");
    assert_eq!(undone.problem(), None);
    let kept = taken.follow(Some("two"), bounds, false).row;
    assert_eq!(kept.problem(), None);
    let resumed = kept.resume("g", bounds, OnGap::Halt);
    assert_eq!(resumed, Ok(Resume::GivenUp { from: 0, to: 20 }));
}

#[test]
fn a_topic_that_is_known_by_nothing_gets_its_name_with_the_next_claim() {
    let unnamed = row();
    assert_eq!(unnamed.log, Log::default());
    let taken = LedgerRow::claim(Some(&unnamed), "b", 0, Some("one")).row;
    assert_eq!(taken.log.text(), "0/one");
}
