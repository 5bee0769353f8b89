//! What the model does, case by case.

use millpond_kinesis_local::model::{
    CreateStream, ErrorKind, Event, GetRecordsPage, HashKey, ITERATOR_LIFE_MS, IteratorStart,
    Kinesis, KinesisError, ListShardsQuery, ListStreamsQuery, ModelConfig, NEXT_TOKEN_LIFE_MS,
    NewRecord, Placement, ReadLimits, ShardFilter, ShardId, StreamMode, StreamStatus, WriteLimits,
};

const NOW_MS: u64 = 1_700_000_000_000;
const HOUR_MS: u64 = 3_600_000;
const MIB: usize = 1024 * 1024;

fn with_stream(shards: u32) -> Kinesis {
    with_config(shards, ModelConfig::default())
}

fn with_config(shards: u32, config: ModelConfig) -> Kinesis {
    let mut kinesis = Kinesis::new(config, 7);
    kinesis
        .create_stream(NOW_MS, "s", CreateStream::provisioned(shards))
        .unwrap();
    kinesis
}

fn put(kinesis: &mut Kinesis, now_ms: u64, data: &str) -> Placement {
    let record = NewRecord::new("k", None, data.to_owned()).unwrap();
    kinesis.put_record(now_ms, "s", record, None).unwrap()
}

/// Puts into the shard that owns this hash key.
fn put_at(
    kinesis: &mut Kinesis,
    now_ms: u64,
    hash_key: HashKey,
    bytes: usize,
) -> Result<Placement, KinesisError> {
    let record = NewRecord::new("k", Some(&hash_key.to_string()), vec![0; bytes])?;
    kinesis.put_record(now_ms, "s", record, None)
}

fn iterator(kinesis: &mut Kinesis, now_ms: u64, shard: u32, start: IteratorStart<'_>) -> String {
    kinesis
        .get_shard_iterator(now_ms, "s", ShardId::new(shard), start)
        .unwrap()
}

fn texts(page: &GetRecordsPage<Event>) -> Vec<&str> {
    page.records
        .iter()
        .map(|record| std::str::from_utf8(&record.payload.data).unwrap())
        .collect()
}

fn read(kinesis: &mut Kinesis, now_ms: u64, shard: u32, start: IteratorStart<'_>) -> Vec<String> {
    let iterator = iterator(kinesis, now_ms, shard, start);
    let page = kinesis.get_records(now_ms, &iterator, None).unwrap();
    texts(&page).into_iter().map(str::to_owned).collect()
}

fn shard_ids(kinesis: &mut Kinesis, now_ms: u64, filter: ShardFilter) -> Vec<u32> {
    let query = ListShardsQuery::First {
        stream_name: "s",
        filter,
        exclusive_start: None,
    };
    let page = kinesis.list_shards(now_ms, query, None).unwrap();
    page.shards
        .iter()
        .map(|shard| shard.shard_id.index())
        .collect()
}

fn kind<T: std::fmt::Debug>(result: Result<T, KinesisError>) -> ErrorKind {
    result.unwrap_err().kind
}

fn half() -> String {
    (1u128 << 127).to_string()
}

#[test]
fn each_iterator_type_starts_where_it_says() {
    let mut kinesis = with_stream(1);
    let placed: Vec<_> = (0..5)
        .map(|n| {
            put(&mut kinesis, NOW_MS + n * 10, &n.to_string())
                .sequence_number
                .to_string()
        })
        .collect();
    let now_ms = NOW_MS + 100;
    let cases: [(IteratorStart<'_>, &[&str]); 9] = [
        (IteratorStart::TrimHorizon, &["0", "1", "2", "3", "4"]),
        (IteratorStart::Latest, &[]),
        (
            IteratorStart::AtSequenceNumber(&placed[2]),
            &["2", "3", "4"],
        ),
        (IteratorStart::AfterSequenceNumber(&placed[2]), &["3", "4"]),
        (IteratorStart::AfterSequenceNumber(&placed[4]), &[]),
        (IteratorStart::AtTimestamp(0), &["0", "1", "2", "3", "4"]),
        (IteratorStart::AtTimestamp(NOW_MS + 20), &["2", "3", "4"]),
        (IteratorStart::AtTimestamp(NOW_MS + 21), &["3", "4"]),
        (IteratorStart::AtTimestamp(now_ms), &[]),
    ];
    for (start, wanted) in cases {
        assert_eq!(read(&mut kinesis, now_ms, 0, start), wanted, "{start:?}");
    }
    let latest = iterator(&mut kinesis, now_ms, 0, IteratorStart::Latest);
    put(&mut kinesis, now_ms, "new");
    assert_eq!(
        texts(&kinesis.get_records(now_ms, &latest, None).unwrap()),
        ["new"]
    );
    let future = kinesis.get_shard_iterator(
        now_ms,
        "s",
        ShardId::new(0),
        IteratorStart::AtTimestamp(now_ms + 1),
    );
    assert_eq!(kind(future), ErrorKind::InvalidArgument);
}

#[test]
fn starting_sequence_numbers_of_shards_are_valid_starts() {
    let mut kinesis = with_stream(1);
    put(&mut kinesis, NOW_MS, "a");
    kinesis
        .split_shard(NOW_MS + 1, "s", ShardId::new(0), &half())
        .unwrap();
    let query = ListShardsQuery::First {
        stream_name: "s",
        filter: ShardFilter::FromTrimHorizon,
        exclusive_start: None,
    };
    let parent = kinesis
        .list_shards(NOW_MS + 1, query, None)
        .unwrap()
        .shards
        .remove(0);
    let start = parent.starting_sequence_number.to_string();
    let end = parent.ending_sequence_number.unwrap().to_string();
    assert_eq!(
        read(
            &mut kinesis,
            NOW_MS + 1,
            0,
            IteratorStart::AtSequenceNumber(&start)
        ),
        ["a"]
    );
    assert_eq!(
        read(
            &mut kinesis,
            NOW_MS + 1,
            0,
            IteratorStart::AfterSequenceNumber(&start)
        ),
        ["a"]
    );
    assert!(
        read(
            &mut kinesis,
            NOW_MS + 1,
            0,
            IteratorStart::AtSequenceNumber(&end)
        )
        .is_empty()
    );
}

#[test]
fn sequence_numbers_of_elsewhere_are_refused() {
    let mut kinesis = with_stream(2);
    let low = put_at(&mut kinesis, NOW_MS, HashKey::MIN, 1).unwrap();
    let mut other = with_config(2, ModelConfig::default());
    let ahead = (0..2)
        .map(|_| put_at(&mut other, NOW_MS, HashKey::MIN, 1).unwrap())
        .last()
        .unwrap();
    let cases = [
        "",
        "0",
        "abc",
        &low.sequence_number.to_string(),
        &ahead.sequence_number.to_string(),
    ];
    for (text, shard) in cases.into_iter().zip([0, 0, 0, 1, 0]) {
        let start = IteratorStart::AfterSequenceNumber(text);
        let answer = kinesis.get_shard_iterator(NOW_MS, "s", ShardId::new(shard), start);
        assert_eq!(
            kind(answer),
            ErrorKind::InvalidArgument,
            "`{text}` on {shard}"
        );
        let record = NewRecord::new("k", None, "x").unwrap();
        if text != cases[3] {
            assert_eq!(
                kind(kinesis.put_record(NOW_MS, "s", record, Some(text))),
                ErrorKind::InvalidArgument
            );
        }
    }
    let record = NewRecord::new("k", None, "x").unwrap();
    let after = low.sequence_number.to_string();
    assert!(
        kinesis
            .put_record(NOW_MS, "s", record, Some(&after))
            .is_ok()
    );
}

#[test]
fn iterators_expire_and_do_not_outlive_their_stream() {
    let mut kinesis = with_stream(1);
    let start = iterator(&mut kinesis, NOW_MS, 0, IteratorStart::TrimHorizon);
    assert!(
        kinesis
            .get_records(NOW_MS + ITERATOR_LIFE_MS, &start, None)
            .is_ok()
    );
    let late = kinesis.get_records(NOW_MS + ITERATOR_LIFE_MS + 1, &start, None);
    assert_eq!(kind(late), ErrorKind::ExpiredIterator);

    let now_ms = NOW_MS + ITERATOR_LIFE_MS + 1;
    let old = iterator(&mut kinesis, now_ms, 0, IteratorStart::TrimHorizon);
    kinesis.delete_stream(now_ms, "s").unwrap();
    assert_eq!(
        kind(kinesis.get_records(now_ms, &old, None)),
        ErrorKind::ResourceNotFound
    );
    kinesis
        .create_stream(now_ms, "s", CreateStream::provisioned(1))
        .unwrap();
    assert_eq!(
        kind(kinesis.get_records(now_ms, &old, None)),
        ErrorKind::ResourceNotFound
    );

    for nonsense in ["", "AAAA", "not base64!", &old[4..]] {
        assert_eq!(
            kind(kinesis.get_records(now_ms, nonsense, None)),
            ErrorKind::InvalidArgument,
            "`{nonsense}`"
        );
    }
    let foreign = iterator(
        &mut Kinesis::clone(&with_stream(1)),
        NOW_MS,
        0,
        IteratorStart::Latest,
    );
    let mut elsewhere = Kinesis::<Event>::new(ModelConfig::default(), 8);
    elsewhere
        .create_stream(NOW_MS, "s", CreateStream::provisioned(1))
        .unwrap();
    assert_eq!(
        kind(elsewhere.get_records(NOW_MS, &foreign, None)),
        ErrorKind::InvalidArgument
    );
}

#[test]
fn millis_behind_latest_is_the_age_of_the_next_record() {
    let mut kinesis = with_stream(1);
    for n in 0..3 {
        put(&mut kinesis, NOW_MS + n * 1_000, &n.to_string());
    }
    let now_ms = NOW_MS + 10_000;
    let start = iterator(&mut kinesis, now_ms, 0, IteratorStart::TrimHorizon);
    let first = kinesis.get_records(now_ms, &start, Some(1)).unwrap();
    assert_eq!(
        (texts(&first), first.millis_behind_latest),
        (vec!["0"], 9_000)
    );
    let second = kinesis
        .get_records(now_ms, first.next_shard_iterator.as_ref().unwrap(), Some(1))
        .unwrap();
    assert_eq!(
        (texts(&second), second.millis_behind_latest),
        (vec!["1"], 8_000)
    );
    let third = kinesis
        .get_records(
            now_ms,
            second.next_shard_iterator.as_ref().unwrap(),
            Some(1),
        )
        .unwrap();
    assert_eq!((texts(&third), third.millis_behind_latest), (vec!["2"], 0));
    put(&mut kinesis, now_ms, "3");
    put(&mut kinesis, now_ms, "4");
    let fourth = kinesis
        .get_records(now_ms, third.next_shard_iterator.as_ref().unwrap(), Some(1))
        .unwrap();
    assert_eq!(
        (texts(&fourth), fourth.millis_behind_latest),
        (vec!["3"], 1),
        "0 means caught up"
    );
}

#[test]
fn a_closed_shard_ends_with_its_children() {
    let mut kinesis = with_stream(2);
    put_at(&mut kinesis, NOW_MS, HashKey::MIN, 3).unwrap();
    put_at(&mut kinesis, NOW_MS, HashKey::MIN, 3).unwrap();
    let quarter = (1u128 << 126).to_string();
    kinesis
        .split_shard(NOW_MS + 1, "s", ShardId::new(0), &quarter)
        .unwrap();
    kinesis
        .merge_shards(NOW_MS + 2, "s", ShardId::new(1), ShardId::new(3))
        .unwrap();

    let start = iterator(&mut kinesis, NOW_MS + 3, 0, IteratorStart::TrimHorizon);
    let first = kinesis.get_records(NOW_MS + 3, &start, Some(1)).unwrap();
    assert!(first.child_shards.is_empty() && first.millis_behind_latest > 0);
    let last = kinesis
        .get_records(NOW_MS + 3, &first.next_shard_iterator.unwrap(), Some(1))
        .unwrap();
    assert_eq!(
        (
            last.records.len(),
            last.next_shard_iterator,
            last.millis_behind_latest
        ),
        (1, None, 0)
    );
    let children: Vec<_> = last
        .child_shards
        .iter()
        .map(|child| (child.shard_id.index(), child.parent_shards.clone()))
        .collect();
    assert_eq!(
        children,
        [(2, vec![ShardId::new(0)]), (3, vec![ShardId::new(0)])]
    );
    assert_eq!(
        last.child_shards[0].hash_key_range.end.0 + 1,
        last.child_shards[1].hash_key_range.start.0
    );

    for merged in [1, 3] {
        let start = iterator(&mut kinesis, NOW_MS + 3, merged, IteratorStart::Latest);
        let end = kinesis.get_records(NOW_MS + 3, &start, None).unwrap();
        assert_eq!(end.next_shard_iterator, None);
        assert_eq!(
            end.child_shards[0].parent_shards,
            [ShardId::new(1), ShardId::new(3)]
        );
    }
}

#[test]
fn shard_filters_show_the_shards_of_their_time() {
    let mut kinesis = with_stream(1);
    let (split_ms, merge_ms) = (NOW_MS + 1_000, NOW_MS + 2_000);
    kinesis
        .split_shard(split_ms, "s", ShardId::new(0), &half())
        .unwrap();
    kinesis
        .merge_shards(merge_ms, "s", ShardId::new(1), ShardId::new(2))
        .unwrap();
    let now_ms = NOW_MS + 3_000;
    let cases: [(ShardFilter, &[u32]); 12] = [
        (ShardFilter::FromTrimHorizon, &[0, 1, 2, 3]),
        (ShardFilter::AtTrimHorizon, &[0]),
        (ShardFilter::AtLatest, &[3]),
        (ShardFilter::AtTimestamp(0), &[0]),
        (ShardFilter::AtTimestamp(split_ms - 1), &[0]),
        (ShardFilter::AtTimestamp(split_ms), &[0, 1, 2]),
        (ShardFilter::AtTimestamp(split_ms + 1), &[1, 2]),
        (ShardFilter::AtTimestamp(merge_ms + 1), &[3]),
        (ShardFilter::FromTimestamp(0), &[0, 1, 2, 3]),
        (ShardFilter::FromTimestamp(split_ms + 1), &[1, 2, 3]),
        (ShardFilter::FromTimestamp(merge_ms + 1), &[3]),
        (ShardFilter::AfterShardId(ShardId::new(1)), &[2, 3]),
    ];
    for (filter, wanted) in cases {
        assert_eq!(
            shard_ids(&mut kinesis, now_ms, filter),
            wanted,
            "{filter:?}"
        );
    }
    // A day later the first shard is forgotten, and the horizon lies after its end.
    let later_ms = split_ms + 24 * HOUR_MS;
    assert_eq!(
        shard_ids(&mut kinesis, later_ms, ShardFilter::FromTrimHorizon),
        [1, 2, 3]
    );
    assert_eq!(
        shard_ids(&mut kinesis, later_ms, ShardFilter::AtTrimHorizon),
        [1, 2]
    );
    assert_eq!(
        shard_ids(&mut kinesis, later_ms + 500, ShardFilter::AtTimestamp(0)),
        [1, 2]
    );
    let gone =
        kinesis.get_shard_iterator(later_ms, "s", ShardId::new(0), IteratorStart::TrimHorizon);
    assert_eq!(kind(gone), ErrorKind::ResourceNotFound);
}

#[test]
fn a_reshard_within_one_millisecond_leaves_no_hole_at_any_time() {
    let mut kinesis = with_stream(3);
    kinesis.update_shard_count(NOW_MS, "s", 4).unwrap();
    kinesis.update_shard_count(NOW_MS, "s", 2).unwrap();
    assert_eq!(
        shard_ids(&mut kinesis, NOW_MS, ShardFilter::AtTrimHorizon),
        [0, 1, 2]
    );
    let query = |filter| ListShardsQuery::First {
        stream_name: "s",
        filter,
        exclusive_start: None,
    };
    for at_ms in NOW_MS..NOW_MS + 20 {
        let page = kinesis
            .list_shards(NOW_MS + 100, query(ShardFilter::AtTimestamp(at_ms)), None)
            .unwrap();
        let mut ranges: Vec<_> = page
            .shards
            .iter()
            .map(|shard| shard.hash_key_range)
            .collect();
        ranges.sort_by_key(|range| (range.start, range.end));
        let mut covered_to = 0u128;
        for range in ranges {
            assert!(
                range.start.0 <= covered_to,
                "hole at {at_ms} before {range:?}"
            );
            covered_to = covered_to.max(range.end.0.saturating_add(1));
        }
        assert_eq!(covered_to, u128::MAX, "at {at_ms}");
    }
}

#[test]
fn shards_come_in_pages() {
    let mut kinesis = with_stream(7);
    let filter = ShardFilter::FromTrimHorizon;
    let mut query = ListShardsQuery::First {
        stream_name: "s",
        filter,
        exclusive_start: Some(ShardId::new(0)),
    };
    let mut seen = Vec::new();
    let mut token;
    loop {
        let page = kinesis.list_shards(NOW_MS, query, Some(2)).unwrap();
        assert!(page.shards.len() <= 2);
        seen.extend(page.shards.iter().map(|shard| shard.shard_id.index()));
        match page.next_token {
            None => break,
            Some(next) => token = next,
        }
        query = ListShardsQuery::Next { next_token: &token };
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);

    let first = ListShardsQuery::First {
        stream_name: "s",
        filter,
        exclusive_start: None,
    };
    let token = kinesis
        .list_shards(NOW_MS, first, Some(1))
        .unwrap()
        .next_token
        .unwrap();
    let next = ListShardsQuery::Next { next_token: &token };
    let late_ms = NOW_MS + NEXT_TOKEN_LIFE_MS + 1;
    assert_eq!(
        kind(kinesis.list_shards(late_ms, next, None)),
        ErrorKind::ExpiredNextToken
    );
    let nonsense = ListShardsQuery::Next {
        next_token: "nonsense",
    };
    assert_eq!(
        kind(kinesis.list_shards(late_ms, nonsense, None)),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        kind(kinesis.list_shards(late_ms, first, Some(0))),
        ErrorKind::Validation
    );

    let page = kinesis
        .describe_stream_shards(NOW_MS, "s", Some(ShardId::new(2)), Some(3))
        .unwrap();
    assert_eq!(
        page.shards
            .iter()
            .map(|shard| shard.shard_id.index())
            .collect::<Vec<_>>(),
        [3, 4, 5]
    );
    assert!(page.has_more);
    let page = kinesis
        .describe_stream_shards(NOW_MS, "s", Some(ShardId::new(5)), None)
        .unwrap();
    assert!(!page.has_more && page.shards.len() == 1);
}

#[test]
fn streams_come_in_pages_by_name() {
    let mut kinesis = with_stream(1);
    for name in ["d", "b", "a", "c"] {
        kinesis
            .create_stream(NOW_MS, name, CreateStream::on_demand())
            .unwrap();
    }
    let first = kinesis
        .list_streams(
            NOW_MS,
            ListStreamsQuery {
                limit: Some(3),
                ..Default::default()
            },
        )
        .unwrap();
    assert_eq!(
        first
            .streams
            .iter()
            .map(|stream| &*stream.name)
            .collect::<Vec<_>>(),
        ["a", "b", "c"]
    );
    let next_token = first.next_token.as_deref();
    assert!(next_token.is_some());
    let second = kinesis
        .list_streams(
            NOW_MS,
            ListStreamsQuery {
                next_token,
                ..Default::default()
            },
        )
        .unwrap();
    assert_eq!(
        second
            .streams
            .iter()
            .map(|stream| &*stream.name)
            .collect::<Vec<_>>(),
        ["d", "s"]
    );
    assert_eq!(second.next_token, None);
    let after = ListStreamsQuery {
        exclusive_start: Some("c"),
        ..Default::default()
    };
    assert_eq!(kinesis.list_streams(NOW_MS, after).unwrap(), second);
}

#[test]
fn records_live_as_long_as_the_retention_says() {
    let mut kinesis = with_stream(1);
    put(&mut kinesis, NOW_MS, "old");
    put(&mut kinesis, NOW_MS + HOUR_MS, "new");
    let held = kinesis
        .describe_stream_summary(NOW_MS, "s")
        .unwrap()
        .retained_bytes;
    assert_eq!(held, 8);
    let day_ms = NOW_MS + 24 * HOUR_MS;
    assert_eq!(
        read(&mut kinesis, day_ms - 1, 0, IteratorStart::TrimHorizon),
        ["old", "new"]
    );
    let before = iterator(&mut kinesis, day_ms - 1, 0, IteratorStart::TrimHorizon);
    // An iterator on what is trimmed goes on with what is left.
    assert_eq!(
        texts(&kinesis.get_records(day_ms, &before, None).unwrap()),
        ["new"]
    );
    assert_eq!(
        kinesis
            .describe_stream_summary(day_ms, "s")
            .unwrap()
            .retained_bytes,
        4
    );

    kinesis.increase_retention(day_ms, "s", 48).unwrap();
    assert_eq!(
        read(
            &mut kinesis,
            day_ms + 20 * HOUR_MS,
            0,
            IteratorStart::TrimHorizon
        ),
        ["new"]
    );
    kinesis
        .decrease_retention(day_ms + 20 * HOUR_MS, "s", 24)
        .unwrap();
    assert!(
        read(
            &mut kinesis,
            day_ms + 20 * HOUR_MS,
            0,
            IteratorStart::TrimHorizon
        )
        .is_empty()
    );
    for hours in [0, 23, 24, 8_761] {
        assert_eq!(
            kind(kinesis.increase_retention(day_ms, "s", hours)),
            ErrorKind::InvalidArgument,
            "{hours}"
        );
        assert_eq!(
            kind(kinesis.decrease_retention(day_ms, "s", hours)),
            ErrorKind::InvalidArgument,
            "{hours}"
        );
    }
}

#[test]
fn a_sequence_number_stays_valid_after_its_record_is_trimmed() {
    let mut kinesis = with_stream(1);
    let old = put(&mut kinesis, NOW_MS, "old").sequence_number.to_string();
    let later_ms = NOW_MS + 25 * HOUR_MS;
    put(&mut kinesis, later_ms, "new");
    assert_eq!(
        read(
            &mut kinesis,
            later_ms,
            0,
            IteratorStart::AfterSequenceNumber(&old)
        ),
        ["new"]
    );
}

#[test]
fn writes_over_a_shards_limit_fail_alone() {
    let config = ModelConfig {
        write_limits: Some(WriteLimits::default()),
        ..Default::default()
    };
    let mut kinesis = with_config(2, config);
    let to = |hash_key: HashKey, bytes| {
        NewRecord::new("k", Some(&hash_key.to_string()), vec![0; bytes]).unwrap()
    };
    let records = vec![
        to(HashKey::MIN, MIB - 1),
        to(HashKey::MIN, 1),
        to(HashKey::MAX, 1),
        to(HashKey::MIN, 0),
    ];
    let answers = kinesis.put_records(NOW_MS, "s", records).unwrap();
    let kinds: Vec<_> = answers
        .iter()
        .map(|answer| answer.as_ref().err().map(|error| error.kind))
        .collect();
    let throttled = Some(ErrorKind::ProvisionedThroughputExceeded);
    assert_eq!(kinds, [None, throttled, None, throttled]);
    assert!(put_at(&mut kinesis, NOW_MS + 999, HashKey::MIN, 0).is_err());
    assert!(put_at(&mut kinesis, NOW_MS + 1_000, HashKey::MIN, 0).is_ok());

    for n in 0..998 {
        assert!(
            put_at(&mut kinesis, NOW_MS + 1_000, HashKey::MAX, 0).is_ok(),
            "{n}"
        );
    }
    assert!(put_at(&mut kinesis, NOW_MS + 1_999, HashKey::MAX, 0).is_ok());
    assert!(put_at(&mut kinesis, NOW_MS + 1_999, HashKey::MAX, 0).is_ok());
    assert!(
        put_at(&mut kinesis, NOW_MS + 1_999, HashKey::MAX, 0).is_err(),
        "1,000 in this second"
    );
    assert!(put_at(&mut kinesis, NOW_MS + 2_000, HashKey::MAX, 0).is_ok());
}

#[test]
fn reads_over_a_shards_limit_are_refused() {
    let config = ModelConfig {
        read_limits: Some(ReadLimits::default()),
        ..Default::default()
    };
    let mut kinesis = with_config(1, config);
    let start = iterator(&mut kinesis, NOW_MS, 0, IteratorStart::TrimHorizon);
    for _ in 0..5 {
        assert!(kinesis.get_records(NOW_MS, &start, None).is_ok());
    }
    assert_eq!(
        kind(kinesis.get_records(NOW_MS + 999, &start, None)),
        ErrorKind::ProvisionedThroughputExceeded
    );
    assert!(kinesis.get_records(NOW_MS + 1_000, &start, None).is_ok());

    // 10 MiB at once are allowed, and paid for with five seconds.
    for _ in 0..20 {
        put_at(&mut kinesis, NOW_MS + 2_000, HashKey::MIN, MIB - 1).unwrap();
    }
    let full = kinesis.get_records(NOW_MS + 2_000, &start, None).unwrap();
    assert_eq!(full.records.len(), 10);
    let next = full.next_shard_iterator.unwrap();
    assert_eq!(
        kind(kinesis.get_records(NOW_MS + 6_999, &next, None)),
        ErrorKind::ProvisionedThroughputExceeded
    );
    assert_eq!(
        kinesis
            .get_records(NOW_MS + 7_000, &next, Some(1))
            .unwrap()
            .records
            .len(),
        1
    );
    // What is left of this second's 2 MiB is one record.
    assert_eq!(
        kinesis
            .get_records(NOW_MS + 7_000, &next, None)
            .unwrap()
            .records
            .len(),
        1
    );
    assert_eq!(
        kind(kinesis.get_records(NOW_MS + 7_000, &next, None)),
        ErrorKind::ProvisionedThroughputExceeded
    );
}

#[test]
fn puts_are_bounded() {
    let mut kinesis = with_stream(1);
    let record = |bytes: usize| NewRecord::new("k", None, vec![0; bytes]).unwrap();
    assert_eq!(
        kind(kinesis.put_records(NOW_MS, "s", vec![])),
        ErrorKind::Validation
    );
    assert_eq!(
        kind(kinesis.put_records(NOW_MS, "s", vec![record(1); 501])),
        ErrorKind::Validation
    );
    assert_eq!(
        kind(kinesis.put_records(NOW_MS, "none", vec![record(1)])),
        ErrorKind::ResourceNotFound
    );
    assert!(
        kinesis
            .put_records(NOW_MS, "s", vec![record(0), record(MIB - 1)])
            .is_ok()
    );
    assert_eq!(
        kind(kinesis.put_records(NOW_MS, "s", vec![record(MIB)])),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        kind(kinesis.put_records(NOW_MS, "s", vec![record(MIB - 1); 11])),
        ErrorKind::InvalidArgument
    );

    kinesis.update_max_record_size(NOW_MS, "s", 10_240).unwrap();
    assert!(
        kinesis
            .put_records(NOW_MS, "s", vec![record(10 * MIB - 1)])
            .is_ok()
    );
    assert_eq!(
        kind(kinesis.put_records(NOW_MS, "s", vec![record(10 * MIB)])),
        ErrorKind::Validation
    );
    for kib in [0, 1_023, 10_241] {
        assert_eq!(
            kind(kinesis.update_max_record_size(NOW_MS, "s", kib)),
            ErrorKind::Validation,
            "{kib}"
        );
    }
    let start = iterator(&mut kinesis, NOW_MS, 0, IteratorStart::TrimHorizon);
    let sizes: Vec<_> = kinesis.get_records(NOW_MS, &start, None).unwrap().records;
    assert_eq!(sizes.len(), 2, "the third would pass 10 MiB");
    for limit in [0, 10_001] {
        assert_eq!(
            kind(kinesis.get_records(NOW_MS, &start, Some(limit))),
            ErrorKind::InvalidArgument
        );
    }

    for key in ["", &"k".repeat(257)] {
        assert_eq!(kind(NewRecord::new(key, None, "x")), ErrorKind::Validation);
    }
    assert!(NewRecord::new(&"ü".repeat(256), None, "x").is_ok());
    assert_eq!(
        kind(NewRecord::new("k", Some("-1"), "x")),
        ErrorKind::InvalidArgument
    );
}

#[test]
fn a_stream_holds_no_more_than_it_may() {
    let config = ModelConfig {
        max_retained_bytes_per_stream: Some(100),
        ..Default::default()
    };
    let mut kinesis = with_config(1, config);
    put_at(&mut kinesis, NOW_MS, HashKey::MIN, 98).unwrap();
    let error = put_at(&mut kinesis, NOW_MS, HashKey::MIN, 1).unwrap_err();
    assert_eq!(error.kind, ErrorKind::LimitExceeded);
    assert!(
        error.message.contains("100") && error.message.contains("99"),
        "{error}"
    );
    // Room comes back with the retention.
    put_at(&mut kinesis, NOW_MS + 24 * HOUR_MS, HashKey::MIN, 1).unwrap();
}

#[test]
fn shard_counts_change_within_the_bounds_of_the_api() {
    let mut kinesis = with_stream(5);
    let cases = [
        (0, ErrorKind::Validation),
        (2, ErrorKind::InvalidArgument),
        (11, ErrorKind::InvalidArgument),
        (10_001, ErrorKind::LimitExceeded),
    ];
    for (target, wanted) in cases {
        assert_eq!(
            kind(kinesis.update_shard_count(NOW_MS, "s", target)),
            wanted,
            "{target}"
        );
    }
    for target in [3, 4, 8, 5, 5, 10] {
        let change = kinesis.update_shard_count(NOW_MS, "s", target).unwrap();
        assert_eq!(change.target, target);
        let open = shard_ids(&mut kinesis, NOW_MS, ShardFilter::AtLatest);
        assert_eq!(open.len(), target as usize);
    }
    // Doubling needs no merge: every child has one parent.
    let mut kinesis = with_stream(2);
    kinesis.update_shard_count(NOW_MS, "s", 4).unwrap();
    assert_eq!(
        shard_ids(&mut kinesis, NOW_MS, ShardFilter::FromTrimHorizon),
        [0, 1, 2, 3, 4, 5]
    );
}

#[test]
fn only_open_shards_that_adjoin_can_be_resharded() {
    let mut kinesis = with_stream(3);
    let id = ShardId::new;
    let distant = kinesis.merge_shards(NOW_MS, "s", id(0), id(2));
    assert_eq!(kind(distant), ErrorKind::InvalidArgument);
    assert_eq!(
        kind(kinesis.merge_shards(NOW_MS, "s", id(1), id(1))),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        kind(kinesis.merge_shards(NOW_MS, "s", id(0), id(9))),
        ErrorKind::ResourceNotFound
    );
    for outside in ["0", "1", &half(), "nonsense"] {
        assert_eq!(
            kind(kinesis.split_shard(NOW_MS, "s", id(0), outside)),
            ErrorKind::InvalidArgument,
            "{outside}"
        );
    }
    kinesis.merge_shards(NOW_MS, "s", id(1), id(0)).unwrap();
    assert_eq!(
        kind(kinesis.merge_shards(NOW_MS, "s", id(1), id(2))),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        kind(kinesis.split_shard(NOW_MS, "s", id(0), "5")),
        ErrorKind::InvalidArgument
    );
}

#[test]
fn on_demand_streams_refuse_to_be_resharded() {
    let mut kinesis = Kinesis::<Event>::new(ModelConfig::default(), 1);
    kinesis
        .create_stream(NOW_MS, "s", CreateStream::on_demand())
        .unwrap();
    assert_eq!(
        shard_ids(&mut kinesis, NOW_MS, ShardFilter::AtLatest).len(),
        4
    );
    let id = ShardId::new;
    assert_eq!(
        kind(kinesis.update_shard_count(NOW_MS, "s", 5)),
        ErrorKind::Validation
    );
    assert_eq!(
        kind(kinesis.split_shard(NOW_MS, "s", id(0), "5")),
        ErrorKind::Validation
    );
    assert_eq!(
        kind(kinesis.merge_shards(NOW_MS, "s", id(0), id(1))),
        ErrorKind::Validation
    );
    kinesis
        .update_stream_mode(NOW_MS, "s", StreamMode::Provisioned)
        .unwrap();
    assert!(kinesis.update_shard_count(NOW_MS, "s", 5).is_ok());
}

#[test]
fn streams_go_through_their_states_if_told_to() {
    let config = ModelConfig {
        transition_ms: 500,
        ..Default::default()
    };
    let mut kinesis = with_config(2, config);
    let status = |kinesis: &mut Kinesis, now_ms| {
        kinesis
            .describe_stream_summary(now_ms, "s")
            .map(|s| s.status)
    };
    assert_eq!(
        status(&mut kinesis, NOW_MS + 499),
        Ok(StreamStatus::Creating)
    );
    let early = put_at(&mut kinesis, NOW_MS + 499, HashKey::MIN, 1);
    assert_eq!(kind(early), ErrorKind::ResourceNotFound);
    assert_eq!(
        kind(kinesis.update_shard_count(NOW_MS + 499, "s", 4)),
        ErrorKind::ResourceInUse
    );
    assert_eq!(status(&mut kinesis, NOW_MS + 500), Ok(StreamStatus::Active));
    kinesis.update_shard_count(NOW_MS + 500, "s", 4).unwrap();
    assert_eq!(
        status(&mut kinesis, NOW_MS + 501),
        Ok(StreamStatus::Updating)
    );
    assert!(put_at(&mut kinesis, NOW_MS + 501, HashKey::MIN, 1).is_ok());
    kinesis.delete_stream(NOW_MS + 1_000, "s").unwrap();
    assert_eq!(
        status(&mut kinesis, NOW_MS + 1_001),
        Ok(StreamStatus::Deleting)
    );
    let again = kinesis.create_stream(NOW_MS + 1_001, "s", CreateStream::provisioned(1));
    assert_eq!(kind(again), ErrorKind::ResourceInUse);
    assert_eq!(
        kind(status(&mut kinesis, NOW_MS + 1_500)),
        ErrorKind::ResourceNotFound
    );
}

#[test]
fn names_and_sizes_of_streams_are_checked() {
    let mut kinesis = with_stream(1);
    for name in ["", "a b", "ü", &"a".repeat(129)] {
        let answer = kinesis.create_stream(NOW_MS, name, CreateStream::provisioned(1));
        assert_eq!(kind(answer), ErrorKind::Validation, "`{name}`");
    }
    let mut create = |shard_count, max_record_kib| {
        let create = CreateStream {
            mode: StreamMode::Provisioned,
            shard_count,
            max_record_kib,
        };
        kind(kinesis.create_stream(NOW_MS, "t", create))
    };
    assert_eq!(create(None, None), ErrorKind::InvalidArgument);
    assert_eq!(create(Some(0), None), ErrorKind::Validation);
    assert_eq!(create(Some(10_001), None), ErrorKind::LimitExceeded);
    assert_eq!(create(Some(1), Some(1)), ErrorKind::Validation);
    assert_eq!(
        kind(kinesis.create_stream(NOW_MS, "s", CreateStream::provisioned(1))),
        ErrorKind::ResourceInUse
    );
    assert_eq!(
        kind(kinesis.delete_stream(NOW_MS, "t")),
        ErrorKind::ResourceNotFound
    );
}

#[test]
fn time_never_runs_backwards() {
    let mut kinesis = with_stream(1);
    put(&mut kinesis, NOW_MS + 1_000, "a");
    put(&mut kinesis, NOW_MS, "b");
    let start = iterator(
        &mut kinesis,
        NOW_MS,
        0,
        IteratorStart::AtTimestamp(NOW_MS + 1_000),
    );
    assert_eq!(
        texts(&kinesis.get_records(NOW_MS, &start, None).unwrap()),
        ["a", "b"]
    );
}
