//! What the source relies on in a stream of two shards, as assertions over its trait.

use millpond_kinesis_source::classify::{Fatal, Operation, Verdict, classify};
use millpond_kinesis_source::client::{
    Continuation, ReadAnswer, ReadFrom, ShardIterator, ShardScope, StreamApi, StreamRecord,
    StreamState,
};
use millpond_kinesis_source::shard::{ShardId, ShardInfo};

/// What the source cannot do itself.
pub trait Producer {
    async fn put(&self, key: &str, data: &[u8]);
    async fn split(&self, shard: &str, at: u128);
    async fn merge(&self, first: &str, second: &str);
}

const FIRST: &str = "shardId-000000000000";
const SECOND: &str = "shardId-000000000001";

/// Goes through every rule.
pub async fn assert_rules(stream: &dyn StreamApi, producer: &impl Producer) {
    let summary = stream.describe().await.expect("described");
    assert_eq!(summary.state, StreamState::Readable);
    assert_eq!(summary.retention_ms, 24 * 3_600_000);
    assert!(
        summary
            .server_time_ms
            .is_none_or(|now| now + 1_000 >= summary.created_ms)
    );
    let begun = list(stream).await;
    assert_eq!(ids(&begun), [FIRST, SECOND]);
    assert!(begun.iter().all(|shard| shard.parents.is_empty()));
    let ranges: Vec<_> = begun.iter().filter_map(|shard| shard.hash_keys).collect();
    assert_eq!((ranges[0].first, ranges[1].last), (0, u128::MAX));
    assert_eq!(ranges[0].last + 1, ranges[1].first);

    let shard = reading(stream, producer).await;
    positions(stream, &shard).await;
    refusals(stream).await;
    resharding(stream, producer).await;
}

fn ids(shards: &[ShardInfo]) -> Vec<&str> {
    shards.iter().map(|shard| shard.id.as_str()).collect()
}

async fn list(stream: &dyn StreamApi) -> Vec<ShardInfo> {
    let (mut shards, mut next) = (Vec::new(), None);
    loop {
        let page = stream
            .list_shards(ShardScope::All, next)
            .await
            .expect("listed");
        shards.extend(page.shards);
        next = page.next;
        if next.is_none() {
            return shards;
        }
    }
}

async fn iterator(stream: &dyn StreamApi, shard: &str, from: ReadFrom) -> ShardIterator {
    let iterator = stream.shard_iterator(&ShardId::from(shard), &from).await;
    iterator.expect("an iterator")
}

async fn read(stream: &dyn StreamApi, iterator: &ShardIterator, limit: u32) -> ReadAnswer {
    stream.read(iterator, limit).await.expect("read")
}

/// Everything of a shard up to now, two records at a time, and what follows.
async fn drain(stream: &dyn StreamApi, shard: &str) -> (Vec<StreamRecord>, Continuation) {
    let mut at = iterator(stream, shard, ReadFrom::TrimHorizon).await;
    let mut records = Vec::new();
    for _ in 0..1_000 {
        let answer = read(stream, &at, 2).await;
        assert!(answer.records.len() <= 2);
        let caught_up = answer.millis_behind_latest == 0;
        records.extend(answer.records);
        match answer.continuation {
            Continuation::Next(next) if caught_up => return (records, Continuation::Next(next)),
            Continuation::Next(next) => at = next,
            end => return (records, end),
        }
    }
    panic!("shard `{shard}` does not end");
}

/// Records come in order, as they were put; a position can be used again. Answers the shard of a key.
async fn reading(stream: &dyn StreamApi, producer: &impl Producer) -> String {
    for number in 0..7u8 {
        producer.put("one key", &[number; 3]).await;
    }
    producer.put("one key", b"").await;
    let (first, _) = drain(stream, FIRST).await;
    let (second, _) = drain(stream, SECOND).await;
    let (shard, records) = match first.is_empty() {
        true => (SECOND, second),
        false => (FIRST, first),
    };
    let values: Vec<Vec<u8>> = records
        .iter()
        .map(|record| record.data.clone().into_inner())
        .collect();
    let mut expected: Vec<Vec<u8>> = (0..7u8).map(|number| vec![number; 3]).collect();
    expected.push(Vec::new());
    assert_eq!(values, expected);
    assert!(
        records
            .iter()
            .all(|record| record.partition_key == "one key")
    );
    assert!(records.iter().all(|record| record.arrival_ms.is_some()));
    let at = iterator(stream, shard, ReadFrom::TrimHorizon).await;
    let (once, again) = (read(stream, &at, 3).await, read(stream, &at, 3).await);
    assert_eq!(once.records, again.records);
    shard.to_owned()
}

async fn positions(stream: &dyn StreamApi, shard: &str) {
    let (records, _) = drain(stream, shard).await;
    let from = |from| async move {
        let at = iterator(stream, shard, from).await;
        read(stream, &at, 1_000).await.records
    };
    let third = records[3].sequence.clone();
    assert_eq!(from(ReadFrom::At(third.clone())).await, records[3..]);
    assert_eq!(from(ReadFrom::After(third)).await, records[4..]);
    let last = records[7].sequence.clone();
    assert_eq!(from(ReadFrom::After(last)).await, []);
    let since = records[5].arrival_ms.expect("a time");
    let later = from(ReadFrom::Timestamp(since)).await;
    assert!(later.iter().all(|record| record.arrival_ms >= Some(since)));
    assert!(later.contains(&records[5]) && later.ends_with(&records[7..]));
}

async fn refusals(stream: &dyn StreamApi) {
    let unknown = ShardId::from("shardId-000000000099");
    let refused = stream
        .shard_iterator(&unknown, &ReadFrom::TrimHorizon)
        .await;
    let refused = refused.expect_err("no such shard");
    let verdict = classify(Operation::ShardIterator, &refused);
    assert_eq!(verdict, Verdict::Fatal(Fatal::NotFound), "{refused}");
    let foreign = ShardIterator("no iterator".to_owned());
    let refused = stream.read(&foreign, 1).await.expect_err("no iterator");
    // A new iterator is the cure.
    let verdict = classify(Operation::Read, &refused);
    assert_eq!(verdict, Verdict::Refresh, "{refused}");
}

/// A closed shard is read to its end, which names its children; they name their parents.
async fn resharding(stream: &dyn StreamApi, producer: &impl Producer) {
    let (before, _) = drain(stream, FIRST).await;
    producer.split(FIRST, 1 << 126).await;
    for number in 0..6 {
        producer.put(&format!("key {number}"), b"later").await;
    }
    let (records, end) = drain(stream, FIRST).await;
    assert_eq!(records, before, "a closed shard takes nothing");
    let Continuation::End(children) = end else {
        panic!("the shard is closed: {end:?}");
    };
    let (low, high) = ("shardId-000000000002", "shardId-000000000003");
    assert_eq!(ids(&children), [low, high]);
    assert!(
        children
            .iter()
            .all(|child| child.parents == [ShardId::from(FIRST)])
    );
    producer.merge(high, SECOND).await;
    let (_, end) = drain(stream, SECOND).await;
    let Continuation::End(children) = end else {
        panic!("the shard is closed: {end:?}");
    };
    assert_eq!(ids(&children), ["shardId-000000000004"]);
    let mut parents = children[0].parents.clone();
    parents.sort();
    assert_eq!(parents, [ShardId::from(SECOND), ShardId::from(high)]);
    let listed = list(stream).await;
    assert_eq!(ids(&listed).len(), 5);
    let merged = listed.last().expect("five");
    assert_eq!(merged.parents.len(), 2);
    // Every range of an open shard is known, and none is missing.
    let mut open: Vec<_> = [&listed[2], merged]
        .iter()
        .filter_map(|shard| shard.hash_keys)
        .collect();
    open.sort_by_key(|range| range.first);
    assert_eq!((open[0].first, open[1].last), (0, u128::MAX));
    assert_eq!(open[0].last + 1, open[1].first);
}
