//! The packer natively: what comes out is what went in, whatever that was.

mod support;

use std::collections::BTreeMap;

use millpond_format::header::{Header, Kind, RejectReason};
use millpond_format::limits;
use millpond_format::record::{BatchBuilder, Records, put_record};
use millpond_pack::{PackError, PackedRecord};
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use support::unpack::{self, Event, Unpacked, unpack};
use support::{BASE_OFFSET, START_MS, json_batch, json_event, origin_key, packer};

/// An event of a made-up batch: shard, group and value.
type Made = (u32, String, Vec<u8>);

fn batch_of(events: &[Made]) -> Vec<u8> {
    let mut next = BTreeMap::new();
    let mut batch = BatchBuilder::new();
    for (shard, group, value) in events {
        let ordinal: &mut u64 = next.entry(*shard).or_default();
        let key = origin_key(*shard, *ordinal, group);
        *ordinal += 1;
        batch.push(Some(key.as_bytes()), value, START_MS);
    }
    batch.finish()
}

fn pack(pairs: &[(&str, &str)], raw: &[u8]) -> Vec<PackedRecord> {
    packer(pairs)
        .pack(raw, BASE_OFFSET, START_MS)
        .expect("a well-formed batch")
}

fn pack_and_unpack(pairs: &[(&str, &str)], events: &[Made]) -> Unpacked {
    let unpacked = unpack(&pack(pairs, &batch_of(events)), events.len() as u64);
    assert_eq!(unpacked.wrong_sources, 0);
    unpacked
}

/// What the groups must hold, in order.
fn expected(events: &[Made]) -> (Vec<String>, BTreeMap<String, Vec<Event>>) {
    let mut order: Vec<String> = Vec::new();
    let mut groups: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    let mut next = BTreeMap::new();
    for (shard, group, value) in events {
        let ordinal: &mut u64 = next.entry(*shard).or_default();
        if !groups.contains_key(group) {
            order.push(group.clone());
        }
        groups.entry(group.clone()).or_default().push(Event {
            value: value.clone(),
            time_ms: START_MS + *ordinal as i64,
            shard: format!("shardId-{shard:012}"),
            ordinal: *ordinal,
        });
        *ordinal += 1;
    }
    (order, groups)
}

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut value = vec![0; bytes];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut value);
    value
}

/// A value of one of the kinds that make trouble.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let sizes = prop_oneof![
        4 => 0..2_000usize,
        2 => 0..20_000usize,
        1 => 60_000..70_000usize,
        1 => Just(0usize),
    ];
    (sizes, any::<u64>(), 0..3u8).prop_map(|(bytes, seed, kind)| match kind {
        0 => noise(seed, bytes),
        1 => vec![seed as u8; bytes],
        _ => json_event(&mut SmallRng::seed_from_u64(seed), 1, seed % 1_000, bytes),
    })
}

fn made() -> impl Strategy<Value = Vec<Made>> {
    let group = prop_oneof!["[a-c]", "[a-zäß/#]{1,12}", "g{1000}"];
    prop::collection::vec((0..5u32, group, value()), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_is_lost_reordered_or_over_the_limit(events in made(), max_item_bytes in prop_oneof![Just(8_192usize), Just(409_600), 8_192..409_600usize], level in 1..4i32) {
        let pairs = [("max-item-bytes", max_item_bytes.to_string()), ("level", level.to_string())];
        let pairs = [(pairs[0].0, pairs[0].1.as_str()), (pairs[1].0, pairs[1].1.as_str())];
        let unpacked = pack_and_unpack(&pairs, &events);
        let (order, groups) = expected(&events);
        prop_assert_eq!(unpacked.order, order);
        prop_assert!(unpacked.groups == groups, "groups differ");
        prop_assert!(unpacked.largest_item <= max_item_bytes, "{}", unpacked.largest_item);
    }

    #[test]
    fn a_packer_remembers_nothing(first in made(), second in made()) {
        let (first, second) = (batch_of(&first), batch_of(&second));
        let mut used = packer(&[]);
        let _ = used.pack(&first, BASE_OFFSET, START_MS);
        let again = used.pack(&second, BASE_OFFSET, START_MS).expect("packs");
        prop_assert!(again == pack(&[], &second), "a used packer answers differently");
    }

    #[test]
    fn arbitrary_bytes_are_an_error_and_no_panic(raw in prop::collection::vec(any::<u8>(), 0..300)) {
        let result = packer(&[]).pack(&raw, BASE_OFFSET, START_MS);
        let readable = Records::new(&raw).is_ok_and(|mut records| records.all(|record| record.is_ok()));
        prop_assert_eq!(result.is_ok(), readable);
    }

    #[test]
    fn a_changed_byte_in_a_batch_costs_no_panic(index in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut raw = json_batch(3, 20_000, 400, 3);
        let count = Records::new(&raw).expect("well-formed").declared_count();
        let index = index.index(raw.len());
        raw[index] = byte;
        if let Ok(records) = packer(&[("group-by", "/job_id")]).pack(&raw, BASE_OFFSET, START_MS) {
            unpack(&records, count.into());
        }
    }

    #[test]
    fn any_text_as_json_is_an_event_or_a_reject(values in prop::collection::vec("[\\[\\]{}:,\"at0-9.eE\\\\u +-]{0,40}", 1..20)) {
        let events: Vec<Made> = values.into_iter().map(|text| (0, "k".to_owned(), text.into_bytes())).collect();
        let unpacked = pack_and_unpack(&[("group-by", "/a"), ("event-time", "/t/0")], &events);
        prop_assert_eq!(unpacked.rejects.len() + unpacked.groups.values().map(Vec::len).sum::<usize>(), events.len());
    }
}

#[test]
fn an_empty_batch_has_no_envelope() {
    assert_eq!(pack(&[], &BatchBuilder::new().finish()), []);
}

#[test]
fn an_unreadable_batch_is_one_error_that_says_where() {
    let mut raw = json_batch(1, 5_000, 400, 3);
    raw.truncate(3_000);
    let error = packer(&[])
        .pack(&raw, BASE_OFFSET, START_MS)
        .expect_err("truncated");
    assert!(matches!(
        error,
        PackError::Records {
            base_offset: BASE_OFFSET,
            ..
        }
    ));
    assert_eq!(
        error.to_string(),
        "the batch at topic offset 4711 cannot be read: truncated in record 5"
    );
}

#[test]
fn one_poisoned_event_among_ten_thousand_costs_one_envelope() {
    let mut rng = SmallRng::seed_from_u64(5);
    let mut events: Vec<Made> = (0..10_000)
        .map(|number| (0, "k".into(), json_event(&mut rng, 7, number, 200)))
        .collect();
    events[4_321].2 = b"{\"job_id\": oops".to_vec();
    let pairs = [("group-by", "/job_id")];
    let records = pack(&pairs, &batch_of(&events));
    let unpacked = unpack(&records, 10_000);
    assert_eq!(unpacked.groups["job-0007"].len(), 9_999);
    let [(reject, event)] = unpacked.rejects.as_slice() else {
        panic!("{} rejects", unpacked.rejects.len());
    };
    assert_eq!(reject.reason, RejectReason::NotJson);
    assert_eq!(
        reject.detail,
        "`/job_id` needs JSON, but the event is not JSON: expected value at line 1 column 12"
    );
    assert_eq!(
        reject.record_key.as_deref(),
        Some(origin_key(0, 4_321, "k").as_bytes())
    );
    assert_eq!(
        (event.value.as_slice(), event.ordinal),
        (events[4_321].2.as_slice(), 4_321)
    );
    events.remove(4_321);
    let without = pack(&pairs, &batch_of(&events));
    assert_eq!(records.len(), without.len() + 1);
}

#[test]
fn large_events_are_split_and_come_back_in_order() {
    for (max_item_bytes, bytes, compressible) in [
        ("409600", limits::MAX_EVENT_BYTES, false),
        ("409600", limits::MAX_EVENT_BYTES, true),
        ("409600", limits::MAX_WHOLE_EVENT_BYTES, false),
        ("409600", limits::MAX_WHOLE_EVENT_BYTES, true),
        ("409600", 408_200, false),
        ("8192", limits::MAX_EVENT_BYTES, false),
        ("8192", 7_000, false),
    ] {
        let large = if compressible {
            vec![b'x'; bytes]
        } else {
            noise(9, bytes)
        };
        let small = |number| (1, "g".to_owned(), format!("event {number}").into_bytes());
        let events: Vec<Made> = vec![
            small(1),
            small(2),
            (2, "g".into(), large),
            small(3),
            (1, "h".into(), vec![1]),
        ];
        let unpacked = pack_and_unpack(&[("max-item-bytes", max_item_bytes)], &events);
        let whole = compressible && bytes <= limits::MAX_WHOLE_EVENT_BYTES;
        assert_eq!(
            unpacked.parts == 0,
            whole,
            "{bytes} bytes in {} parts",
            unpacked.parts
        );
        assert!(unpacked.largest_item <= max_item_bytes.parse().expect("a number"));
        assert!(
            unpacked.groups == expected(&events).1,
            "{bytes} bytes changed"
        );
    }
}

#[test]
fn slices_fill_their_items() {
    let events = vec![(1, "g".into(), noise(2, limits::MAX_EVENT_BYTES))];
    let unpacked = pack_and_unpack(&[], &events);
    assert_eq!(unpacked.parts, 26);
    assert!(unpacked.largest_item > 405_000, "{}", unpacked.largest_item);
}

#[test]
fn an_event_over_the_limit_is_rejected_and_still_comes_out() {
    for bytes in [limits::MAX_EVENT_BYTES + 1, 3 * limits::MAX_EVENT_BYTES] {
        let events = vec![
            (1, "g".to_owned(), b"before".to_vec()),
            (1, "g".into(), noise(4, bytes)),
            (1, "g".into(), b"after".to_vec()),
        ];
        let unpacked = pack_and_unpack(&[], &events);
        assert_eq!(unpacked.groups["g"].len(), 2);
        let (reject, event) = &unpacked.rejects[0];
        assert_eq!(reject.reason, RejectReason::TooLarge);
        assert_eq!(
            reject.detail,
            format!("the event has {bytes} bytes, the limit is 10485760")
        );
        assert!(event.value == events[1].2, "{bytes} bytes changed");
    }
}

#[test]
fn ten_megabytes_that_are_not_json_are_rejected_whole() {
    let value = noise(6, limits::MAX_EVENT_BYTES);
    let events = vec![(0, "g".to_owned(), value.clone())];
    let unpacked = pack_and_unpack(&[("group-by", "/j")], &events);
    assert_eq!(unpacked.rejects[0].0.reason, RejectReason::NotJson);
    assert!(unpacked.rejects[0].1.value == value);
}

#[test]
fn a_record_without_an_origin_is_rejected_and_still_counted() {
    let mut batch = BatchBuilder::new();
    batch.push(Some(origin_key(0, 0, "g").as_bytes()), b"good", START_MS);
    batch.push(None, b"no key", START_MS + 7);
    batch.push(Some(b"\xff"), b"bad key", START_MS);
    batch.push(Some(&[b'k'; 5_000]), b"long key", START_MS);
    let unpacked = unpack(&pack(&[], &batch.finish()), 4);
    assert_eq!(unpacked.groups["g"].len(), 1);
    let expected = [
        ("the record has no key: a SmartModule", 7),
        ("record key is not UTF-8 text: ", 0),
        ("record key does not start with `mp1/`: ", 0),
    ];
    assert_eq!(unpacked.rejects.len(), expected.len());
    for (at, ((reject, event), (detail, time))) in (1..).zip(unpacked.rejects.iter().zip(expected))
    {
        assert!(reject.detail.starts_with(detail), "{}", reject.detail);
        assert!(reject.detail.contains("on-missing-origin"));
        assert_eq!(event.ordinal, BASE_OFFSET + at);
        assert_eq!(event.time_ms - START_MS, time);
    }
    assert!(
        unpacked.rejects[2]
            .0
            .detail
            .ends_with("; record key cut from 5000 bytes")
    );
    assert!(unpacked.rejects.iter().all(|(reject, event)| {
        reject.reason == RejectReason::OriginInvalid && event.shard.is_empty()
    }));
    assert_eq!(
        unpacked.rejects[2].0.record_key.as_ref().map(Vec::len),
        Some(4_096)
    );
}

/// Place in the batch, key, value.
type Left<'a> = (i64, Option<&'a [u8]>, &'a [u8]);

/// A batch as another SmartModule leaves it: records that keep their place among those removed.
fn thinned(records: &[Left<'_>]) -> Vec<u8> {
    let mut raw = (records.len() as u32).to_be_bytes().to_vec();
    for (delta, key, value) in records {
        put_record(&mut raw, 10 * delta, *delta, *key, value);
    }
    raw
}

#[test]
fn the_records_of_another_producer_have_their_topic_offset_for_an_origin() {
    let ours = origin_key(0, 9, "g");
    let raw = thinned(&[
        (2, Some(b"k"), b"{\"j\":1}"),
        (3, None, b"{\"j\":2}"),
        (5, Some(ours.as_bytes()), b"{\"j\":1}"),
        (6, Some(b""), b"{}"),
        (7, Some(b"\xff"), b"{\"j\":1}"),
        (8, Some(b"mp1/broken"), b"{\"j\":1}"),
        (9, Some(b"mp2/later"), b"{\"j\":1}"),
        (10, Some(b"mp/free"), b"{\"j\":1}"),
    ]);
    let accept = ("on-missing-origin", "topic-offset");
    let at = |event: &unpack::Event| (event.shard.clone(), event.ordinal, event.time_ms);
    let foreign = |delta: i64| {
        (
            String::new(),
            BASE_OFFSET + delta as u64,
            START_MS + 10 * delta,
        )
    };

    // By the key, as events of Kinesis are by their partition key.
    let unpacked = unpack(&pack(&[accept], &raw), 8);
    assert_eq!(unpacked.order, ["k", "g", "mp/free"]);
    assert_eq!(at(&unpacked.groups["k"][0]), foreign(2));
    assert_eq!(at(&unpacked.groups["mp/free"][0]), foreign(10));
    assert_eq!(unpacked.groups["g"][0].ordinal, 9);
    let reasons: Vec<_> = unpacked
        .rejects
        .iter()
        .map(|(reject, event)| (reject.reason.name(), event.ordinal - BASE_OFFSET))
        .collect();
    let expected = [
        ("group-missing", 3),
        ("group-missing", 6),
        ("group-invalid", 7),
        ("origin-invalid", 8),
        ("origin-invalid", 9),
    ];
    assert_eq!(reasons, expected);
    assert_eq!(unpacked.rejects[0].0.detail, "the record has no key");

    // By what is in it: then keys do not matter.
    let by_value = [
        accept,
        ("group-by", "/j"),
        ("on-missing-group", "group:rest"),
    ];
    let unpacked = unpack(&pack(&by_value, &raw), 8);
    let groups: Vec<_> = unpacked
        .groups
        .iter()
        .map(|(group, events)| (group.as_str(), events.len()))
        .collect();
    assert_eq!(groups, [("1", 4), ("2", 1), ("rest", 1)]);
    assert_eq!(at(&unpacked.groups["2"][0]), foreign(3));
    assert_eq!(unpacked.rejects.len(), 2);

    // By default an event without an origin is one whose key was changed.
    let unpacked = unpack(&pack(&[("group-by", "/j")], &raw), 8);
    assert_eq!(unpacked.groups["1"].len(), 1);
    assert_eq!(unpacked.rejects.len(), 7);
    assert_eq!(unpacked.rejects[0].1.ordinal, BASE_OFFSET + 2);
}

#[test]
fn records_made_anew_before_the_packer_have_no_offset() {
    let raw = thinned(&[(0, Some(b"k"), b"a"), (0, Some(b"k"), b"b")]);
    let unpacked = unpack(&pack(&[("on-missing-origin", "topic-offset")], &raw), 2);
    assert_eq!(unpacked.groups["k"].len(), 1);
    let (reject, _) = &unpacked.rejects[0];
    assert_eq!(reject.reason, RejectReason::OriginInvalid);
    assert!(reject.detail.contains("made this record anew"));
}

#[test]
fn event_times_come_from_where_they_are_said_to() {
    let events: Vec<Made> = [
        "{\"t\":5}",
        "{\"t\":\"1970-01-01T00:00:00.007Z\"}",
        "{\"t\":3}",
    ]
    .iter()
    .map(|json| (0, "g".to_owned(), json.as_bytes().to_vec()))
    .collect();
    let records = pack(&[("event-time", "/t")], &batch_of(&events));
    let (header, _) = Header::decode(&records[0].value).expect("a header");
    assert_eq!(header.kind, Kind::Events);
    assert_eq!((header.first_time_ms(), header.last_time_ms()), (3, 7));
}

#[test]
fn many_shards_and_repeated_ordinals_are_no_danger() {
    let mut rng = SmallRng::seed_from_u64(11);
    let events: Vec<Made> = (0..30_000)
        .map(|_| (rng.random_range(0..6_000), "g".to_owned(), b"x".to_vec()))
        .collect();
    let unpacked = pack_and_unpack(&[("max-item-bytes", "8192")], &events);
    assert!(unpacked.groups == expected(&events).1);
    assert!(unpacked.largest_item <= 8_192);
    let unpacked = pack_and_unpack(&[], &events);
    assert!(unpacked.groups == expected(&events).1);

    let mut batch = BatchBuilder::new();
    for ordinal in [5, 6, 7, 5, 6, 7, 8] {
        batch.push(Some(origin_key(0, ordinal, "g").as_bytes()), b"x", START_MS);
    }
    let unpacked = unpack(&pack(&[], &batch.finish()), 7);
    assert_eq!(unpacked.groups["g"].len(), 7);
}

#[test]
fn frames_are_of_the_size_that_slices_and_ratio_want() {
    let records = pack(
        &[("group-by", "constant:all")],
        &json_batch(8, 1 << 20, 550, 20),
    );
    let [record] = records.as_slice() else {
        panic!("{} envelopes", records.len());
    };
    let (header, _) = Header::decode(&record.value).expect("a header");
    let raw: Vec<_> = header
        .frames
        .iter()
        .map(|frame| frame.raw_bytes as usize)
        .collect();
    assert!(
        raw.iter()
            .all(|bytes| *bytes <= limits::FRAME_TARGET_BYTES + 64),
        "{raw:?}"
    );
    assert!(
        raw[..raw.len() - 1]
            .iter()
            .all(|bytes| *bytes > limits::FRAME_TARGET_BYTES - 1_024),
        "{raw:?}"
    );
    let overhead = record.value.len() - header.packed_bytes();
    assert!(
        overhead < 1_500,
        "{overhead} bytes of header for {} frames",
        raw.len()
    );
}
