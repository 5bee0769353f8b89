use proptest::prelude::*;

use super::*;

type Given = (String, Option<u128>, Vec<u8>);

/// The record that holds these events.
fn record(events: &[Given]) -> Vec<u8> {
    let mut builder = AggregateBuilder::default();
    for (key, hash_key, data) in events {
        builder.push(key, *hash_key, Bytes::copy_from_slice(data));
    }
    let (most, record) = (builder.max_bytes(), builder.finish());
    assert!(record.len() <= most, "{} > {most}", record.len());
    record
}

fn sealed(message: AggregatedRecord) -> Vec<u8> {
    AggregateBuilder {
        message,
        ..AggregateBuilder::default()
    }
    .finish()
}

fn taken_apart(record: &[u8]) -> Result<Vec<Given>, BrokenAggregate> {
    let aggregate = Aggregate::parse(record)?;
    let given = |user: UserRecord<'_>| {
        let explicit = user.hash_key != hash_key(user.partition_key);
        let key = user.partition_key.to_owned();
        (key, explicit.then_some(user.hash_key), user.data.to_vec())
    };
    Ok(aggregate.events().map(given).collect())
}

fn events() -> impl Strategy<Value = Vec<Given>> {
    let event = (
        "[a-z日]{1,20}",
        prop::option::of(any::<u128>()),
        prop::collection::vec(any::<u8>(), 0..60),
    );
    prop::collection::vec(event, 1..12)
}

proptest! {
    #[test]
    fn what_was_put_together_is_taken_apart(events in events()) {
        prop_assert_eq!(taken_apart(&record(&events)), Ok(events));
    }

    #[test]
    fn a_changed_or_missing_byte_is_found(
        events in events(),
        at in any::<prop::sample::Index>(),
        change in 1u8..,
        cut in any::<bool>(),
    ) {
        let mut record = record(&events);
        let at = at.index(record.len() - MAGIC.len()) + MAGIC.len();
        if cut {
            record.truncate(at);
        } else {
            record[at] ^= change;
        }
        prop_assert!(taken_apart(&record).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let digest = Md5::digest(&bytes);
        let record = [MAGIC.as_slice(), bytes.as_slice(), digest.as_slice()].concat();
        let _ = taken_apart(&record);
        let _ = taken_apart(&bytes);
    }
}

#[test]
fn each_fault_has_its_name() {
    let event = |key: Option<u64>, hash: Option<u64>, data: Option<&'static [u8]>| {
        let event = AggregatedEvent {
            partition_key_index: key,
            explicit_hash_key_index: hash,
            data: data.map(Bytes::from_static),
        };
        Bytes::from(event.encode_to_vec())
    };
    let of = |key: &'static [u8], hash_key: &str, event: Bytes| {
        taken_apart(&sealed(AggregatedRecord {
            partition_keys: vec![Bytes::from_static(key)],
            explicit_hash_keys: vec![hash_key.to_owned()],
            events: vec![event],
        }))
    };
    let good = event(Some(0), Some(0), Some(b"x"));
    assert_eq!(
        of(b"k", "7", good.clone()),
        Ok(vec![("k".into(), Some(7), b"x".to_vec())])
    );
    let too_large = "340282366920938463463374607431768211456";
    for (outcome, expected) in [
        (of(b"", "7", good.clone()), BrokenAggregate::PartitionKey(0)),
        (
            of(b"\xff", "7", good.clone()),
            BrokenAggregate::PartitionKey(0),
        ),
        (
            of(&[b'k'; 257], "7", good.clone()),
            BrokenAggregate::PartitionKey(0),
        ),
        (of(b"k", too_large, good), BrokenAggregate::HashKey(0)),
        (
            of(b"k", "7", event(Some(1), None, Some(b"x"))),
            BrokenAggregate::Event {
                event: 0,
                what: "partition key",
            },
        ),
        (
            of(b"k", "7", event(Some(0), Some(1), Some(b"x"))),
            BrokenAggregate::Event {
                event: 0,
                what: "explicit hash key of that index",
            },
        ),
        (
            of(b"k", "7", event(Some(0), None, None)),
            BrokenAggregate::Event {
                event: 0,
                what: "data",
            },
        ),
        (taken_apart(&MAGIC), BrokenAggregate::Truncated(4)),
        // Nothing at all, and keys without an event.
        (
            taken_apart(&AggregateBuilder::default().finish()),
            BrokenAggregate::Empty,
        ),
        (
            taken_apart(&sealed(AggregatedRecord {
                partition_keys: vec![Bytes::from_static(b"k")],
                explicit_hash_keys: vec![],
                events: vec![],
            })),
            BrokenAggregate::Empty,
        ),
    ] {
        assert_eq!(outcome, Err(expected));
    }
    let unread = of(b"k", "7", Bytes::from_static(b"\x07"));
    assert!(matches!(unread, Err(BrokenAggregate::Message(_))));
}

#[test]
fn an_event_belongs_to_the_shard_of_its_hash_key() {
    let record = record(&[("k".into(), Some(10), b"x".to_vec())]);
    let aggregate = Aggregate::parse(&record).expect("whole");
    let event = aggregate.events().next().expect("one");
    for (first, last, belongs) in [
        (0, 9, false),
        (0, 10, true),
        (10, 20, true),
        (11, 20, false),
    ] {
        let range = HashKeyRange { first, last };
        assert_eq!(event.belongs_to(Some(range)), belongs, "{first} to {last}");
    }
    assert!(event.belongs_to(None));
    // MD5 of nothing, a published value.
    assert_eq!(hash_key(""), 0xd41d_8cd9_8f00_b204_e980_0998_ecf8_427e);
}
