use super::*;
use crate::checkpoint::Aggregated;
use crate::shard_figures::ShardFigures;
use proptest::prelude::*;

const MEANING: Meaning = Meaning {
    latest_ms: 5_000,
    timestamp_ms: Some(77),
};

const SEQUENCE: &str = "49590338271490256608559692538361571095921575989136588898";

const HORIZON: Begins = Begins {
    stream: PinnedStart::TrimHorizon,
    timestamp_ms: None,
};

fn s(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

/// A row as `DynamoDBLeaseSerializer.toDynamoRecord` writes it for a lease in use.
fn library_row(checkpoint: &str, sub_sequence: u64) -> Attributes {
    let n = |number: u64| AttributeValue::N(number.to_string());
    let set = |ids: &[&str]| AttributeValue::Ss(ids.iter().map(|id| (*id).to_owned()).collect());
    let columns = [
        ("leaseKey", s("shardId-000000000002")),
        ("leaseOwner", s("10.0.0.7:worker-1")),
        ("leaseCounter", n(4_711)),
        ("checkpoint", s(checkpoint)),
        ("checkpointSubSequenceNumber", n(sub_sequence)),
        ("ownerSwitchesSinceCheckpoint", n(3)),
        (
            "parentShardId",
            set(&["shardId-000000000001", "shardId-000000000000"]),
        ),
        ("childShardIds", set(&["shardId-000000000005"])),
        ("startingHashKey", s("0")),
        (
            "endingHashKey",
            s("170141183460469231731687303715884105727"),
        ),
        ("throughputKBps", AttributeValue::N("12.5".to_owned())),
        ("entityType", s("LEASE")),
    ];
    columns
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn read_one(item: &Attributes) -> KclRow {
    read(item, MEANING).expect("reads").expect("a lease")
}

#[test]
fn a_row_of_the_library_is_read_as_it_stands() {
    let found = read_one(&library_row(SEQUENCE, 4));
    assert_eq!(found.shard.as_str(), "shardId-000000000002");
    assert_eq!(found.lease.epoch, 4_711);
    let owner = found.lease.owner.expect("owned");
    assert_eq!(owner.as_str(), "10.0.0.7:worker-1");
    let row = found.row;
    assert!(row.is_foreign);
    assert_eq!(
        row.checkpoint.parents,
        [
            ShardId::from("shardId-000000000000"),
            ShardId::from("shardId-000000000001")
        ]
    );
    assert_eq!(row.children, [ShardId::from("shardId-000000000005")]);
    assert_eq!(row.bytes_per_second, 12_800);
    let last = (1u128 << 127) - 1;
    assert_eq!(row.hash_keys, Some(HashKeyRange { first: 0, last }));
    let Progress::Delivered {
        sequence,
        sub_sequence,
        partial,
        chain,
    } = row.checkpoint.progress
    else {
        panic!("{:?}", row.checkpoint.progress);
    };
    assert_eq!(
        (sequence.as_str(), sub_sequence, partial),
        (SEQUENCE, 4, true)
    );
    assert_eq!((chain.epoch, chain.next_ordinals.len()), (0, 0));
}

#[test]
fn every_word_of_the_library_has_its_meaning() {
    for (word, start) in [
        ("TRIM_HORIZON", PinnedStart::TrimHorizon),
        ("LATEST", PinnedStart::Timestamp { ms: 5_000 }),
        ("AT_TIMESTAMP", PinnedStart::Timestamp { ms: 77 }),
    ] {
        let row = read_one(&library_row(word, 0)).row;
        assert_eq!(row.checkpoint.progress, Progress::NotBegun);
        assert_eq!(row.start, Some(start), "{word}");
    }
    let row = read_one(&library_row("SHARD_END", 0)).row;
    assert!(row.checkpoint.is_finished());

    let unknown = Meaning {
        timestamp_ms: None,
        ..MEANING
    };
    let refused = read(&library_row("AT_TIMESTAMP", 0), unknown).expect_err("no time");
    assert!(refused.reason.contains("at-timestamp"), "{refused}");
    for checkpoint in ["NEWEST", "-1", "12x"] {
        let refused = read(&library_row(checkpoint, 0), MEANING).expect_err("no checkpoint");
        assert!(refused.reason.contains(checkpoint), "{refused}");
    }
}

#[test]
fn what_is_no_lease_is_left_alone_and_a_lease_mid_way_belongs_to_who_reads_it() {
    let mut item = library_row(SEQUENCE, 0);
    item.insert("entityType".to_owned(), s("WORKER_METRIC_STATS"));
    assert_eq!(read(&item, MEANING), Ok(None));

    let mut item = library_row(SEQUENCE, 0);
    item.insert("leaseOwner".to_owned(), s("next"));
    item.insert("checkpointOwner".to_owned(), s("reader"));
    let owner = read_one(&item).lease.owner.expect("owned");
    assert_eq!(owner.as_str(), "reader");

    let mut item = library_row(SEQUENCE, 0);
    item.remove("leaseCounter");
    let refused = read(&item, MEANING).expect_err("no lease");
    assert!(refused.reason.contains("leaseCounter"), "{refused}");
}

fn apply(item: &mut Attributes, row: &ShardRow, begins: Begins) {
    for (name, value) in checkpoint_columns(row, begins) {
        match value {
            Some(value) => item.insert(name.to_owned(), value),
            None => item.remove(name),
        };
    }
}

/// The types of a row that the library can read: what `fromDynamoRecord` asks for.
fn assert_library_can_read(item: &Attributes) {
    for (name, value) in item {
        let right = match name.as_str() {
            "leaseKey" | "leaseOwner" | "checkpoint" | "startingHashKey" | "endingHashKey"
            | "checkpointOwner" | "pendingCheckpoint" => value.is_s(),
            "leaseCounter"
            | "ownerSwitchesSinceCheckpoint"
            | "checkpointSubSequenceNumber"
            | "pendingCheckpointSubSequenceNumber"
            | "throughputKBps" => value.is_n(),
            "parentShardId" | "childShardIds" => value.as_ss().is_ok_and(|ids| !ids.is_empty()),
            "millpond" | "millpondWantedBy" | "millpondFigures" => value.is_s(),
            _ => false,
        };
        assert!(right, "`{name}` is {value:?}");
    }
    for name in [
        "leaseKey",
        "leaseCounter",
        "checkpoint",
        "checkpointSubSequenceNumber",
        "ownerSwitchesSinceCheckpoint",
    ] {
        assert!(item.contains_key(name), "`{name}` is missing");
    }
}

/// `IteratorBuilder.apply` of the library takes the time of `AT_TIMESTAMP` from its settings, and there it may be null.
#[test]
fn a_time_that_only_we_know_is_the_horizon_to_the_library() {
    let time = |ms| Some(PinnedStart::Timestamp { ms });
    // The words of the library: `LATEST` was pinned here, `AT_TIMESTAMP` both know.
    for (word, expected) in [
        ("TRIM_HORIZON", "TRIM_HORIZON"),
        ("LATEST", "TRIM_HORIZON"),
        ("AT_TIMESTAMP", "AT_TIMESTAMP"),
    ] {
        let mut item = library_row(word, 0);
        let row = read_one(&item).row;
        let begins = Begins {
            timestamp_ms: MEANING.timestamp_ms,
            ..HORIZON
        };
        apply(&mut item, &row, begins);
        assert_eq!(item["checkpoint"], s(expected), "{word}");
        // Here it goes on where it stood, whenever that is.
        let later = Meaning {
            latest_ms: 9_000,
            ..MEANING
        };
        let again = read(&item, later).expect("reads").expect("a lease").row;
        assert_eq!((again.start, again.is_foreign), (row.start, false));
    }
    // A stream that begins at its newest record, and one that begins at a time of the settings.
    let mut row = read_one(&library_row("TRIM_HORIZON", 0)).row;
    row.checkpoint.parents.clear();
    row.start = None;
    for (stream, timestamp_ms, expected) in [
        (time(5_000), None, "TRIM_HORIZON"),
        (time(5_000), Some(77), "TRIM_HORIZON"),
        (time(77), Some(77), "AT_TIMESTAMP"),
        (Some(PinnedStart::TrimHorizon), Some(77), "TRIM_HORIZON"),
    ] {
        let begins = Begins {
            stream: stream.expect("a start"),
            timestamp_ms,
        };
        let item = new_row(&"shardId-000000000007".into(), &row, begins);
        assert_eq!(item["checkpoint"], s(expected), "{begins:?}");
    }
}

/// As `DynamoDBMultiStreamLeaseSerializer` writes them.
#[test]
fn leases_of_several_streams_are_refused() {
    let mut item = library_row(SEQUENCE, 0);
    let key = "123456789012:events:1700000000:shardId-000000000002";
    item.insert("leaseKey".to_owned(), s(key));
    let refused = read(&item, MEANING).expect_err("several streams");
    assert_eq!(refused.key, key);
    assert!(refused.reason.contains("`lease-table`"), "{refused}");
    item.insert("leaseKey".to_owned(), s("shardId-000000000002"));
    item.insert("streamName".to_owned(), s("123456789012:events:1700000000"));
    read(&item, MEANING).expect_err("several streams");
    // What is no lease may be called as it likes.
    item.insert("leaseKey".to_owned(), s("host:worker"));
    item.insert("entityType".to_owned(), s("WORKER_METRIC_STATS"));
    assert_eq!(read(&item, MEANING), Ok(None));
}

#[test]
fn the_library_moved_on_and_its_checkpoint_wins() {
    let mut item = library_row(SEQUENCE, 0);
    item.remove("entityType");
    item.insert("pendingCheckpoint".to_owned(), s("99"));
    let chain = ChainState {
        epoch: 1_000,
        next_ordinals: vec![4, 5],
    };
    let mut row = read_one(&item).row;
    row.checkpoint.progress = Progress::Delivered {
        sequence: "4242".to_owned(),
        sub_sequence: 7,
        partial: false,
        chain,
    };
    row.checkpoint.unread_since_ms = Some(9);
    apply(&mut item, &row, HORIZON);
    assert_library_can_read(&item);
    assert!(!item.contains_key("pendingCheckpoint"));
    assert_eq!(item["checkpoint"], s("4242"));
    assert_eq!(
        item["checkpointSubSequenceNumber"],
        AttributeValue::N("7".to_owned())
    );
    let ours = read_one(&item).row;
    assert!(!ours.is_foreign);
    assert_eq!(ours.checkpoint, row.checkpoint);

    // What was added here is still in the row, and means nothing any more.
    item.insert("checkpoint".to_owned(), s("5000"));
    let theirs = read_one(&item).row;
    assert!(theirs.is_foreign);
    let Progress::Delivered {
        sequence, chain, ..
    } = theirs.checkpoint.progress
    else {
        panic!("{theirs:?}");
    };
    assert_eq!((sequence.as_str(), chain.epoch), ("5000", 1_000));
    item.insert("checkpoint".to_owned(), s("SHARD_END"));
    assert!(read_one(&item).row.checkpoint.is_finished());
}

#[test]
fn a_newer_addition_is_refused() {
    let mut item = library_row(SEQUENCE, 0);
    item.insert("millpond".to_owned(), s(r#"{"version":2,"more":[]}"#));
    let refused = read(&item, MEANING).expect_err("newer");
    assert!(refused.reason.contains("version 2"), "{refused}");
    item.insert("millpond".to_owned(), s("{"));
    assert!(read(&item, MEANING).is_err());
}

fn progress() -> impl Strategy<Value = Progress> {
    let chain = (any::<u64>(), prop::collection::vec(any::<u64>(), 0..5)).prop_map(
        |(epoch, next_ordinals)| ChainState {
            epoch,
            next_ordinals,
        },
    );
    let sequence = "0|[1-9][0-9]{0,127}";
    prop_oneof![
        Just(Progress::NotBegun),
        Just(Progress::Finished),
        (sequence, chain.clone()).prop_map(|(first, chain)| Progress::Begun { first, chain }),
        (sequence, any::<u32>(), any::<bool>(), chain).prop_map(
            |(sequence, sub_sequence, partial, chain)| Progress::Delivered {
                sequence,
                sub_sequence,
                partial,
                chain,
            }
        ),
    ]
}

fn rows() -> impl Strategy<Value = ShardRow> {
    let start = prop_oneof![
        Just(None),
        Just(Some(PinnedStart::TrimHorizon)),
        any::<i64>().prop_map(|ms| Some(PinnedStart::Timestamp { ms })),
    ];
    let ids = prop::collection::btree_set("shardId-[0-9]{12}", 0..3);
    let ids = ids.prop_map(|ids| ids.into_iter().map(ShardId::from).collect::<Vec<_>>());
    let range = prop::option::of((any::<u128>(), any::<u128>()));
    (
        progress(),
        start,
        ids.clone(),
        ids,
        range,
        any::<Option<i64>>(),
    )
        .prop_map(
            |(progress, start, parents, children, range, unread_since_ms)| ShardRow {
                checkpoint: ShardCheckpoint {
                    parents,
                    progress,
                    unread_since_ms,
                },
                aggregated: Aggregated::KeepStray.into(),
                start,
                hash_keys: range.map(|(first, last)| HashKeyRange { first, last }),
                children,
                bytes_per_second: 0,
                figures: unread_since_ms.map(|at_ms| ShardFigures {
                    at_ms,
                    in_per_second: 7,
                    out_per_second: 3,
                }),
                is_foreign: false,
            },
        )
}

proptest! {
    #[test]
    fn what_was_written_is_read_and_the_library_can_read_it(
        row in rows(),
        start in prop_oneof![Just(PinnedStart::TrimHorizon), Just(PinnedStart::Timestamp { ms: 1 })],
        timestamp_ms in prop::option::of(0i64..3),
    ) {
        let begins = Begins { stream: start, timestamp_ms };
        let item = new_row(&"shardId-000000000007".into(), &row, begins);
        assert_library_can_read(&item);
        let found = read_one(&item);
        prop_assert_eq!(found.row, row);
        prop_assert_eq!(found.lease.epoch, 0);
    }

    #[test]
    fn any_checkpoint_gives_a_value_or_an_error(
        checkpoint in ".{0,20}",
        addition in prop::option::of(".{0,60}"),
        counter in ".{0,10}",
    ) {
        let mut item = library_row(&checkpoint, 0);
        item.insert("leaseCounter".to_owned(), AttributeValue::N(counter));
        item.extend(addition.map(|text| ("millpond".to_owned(), s(&text))));
        let _ = read(&item, MEANING);
    }
}
