//! What goes in comes out, where it should.

use aws_sdk_kinesis::{
    Client,
    primitives::{Blob, DateTime},
    types::{PutRecordsRequestEntry, ShardIteratorType},
};
use millpond_kinesis_local::model::HashKey;

use crate::common::{code, create, entry, iterator, read, read_all, shards, wait_until_active};

const FIRST: &str = "shardId-000000000000";

async fn put(client: &Client, stream: &str, data: &str) -> String {
    let request = client
        .put_record()
        .stream_name(stream)
        .partition_key("k")
        .data(Blob::new(data));
    request.send().await.unwrap().sequence_number().to_owned()
}

async fn texts(client: &Client, iterator: &str) -> Vec<String> {
    let page = read(client, iterator).await;
    page.records()
        .iter()
        .map(|record| String::from_utf8(record.data().as_ref().to_vec()).unwrap())
        .collect()
}

pub async fn what_is_put_is_read(client: Client) {
    create(&client, "round-trip", 3).await;
    let bytes: Vec<u8> = (0..=255).collect();
    let mut wanted = Vec::new();
    for length in [1, 2, 3, 4, 255, 256] {
        wanted.push((format!("key-{length}"), bytes[..length].to_vec()));
    }
    wanted.push(("\"quoted\" \\ ü 😀 \u{1}".to_owned(), b"key".to_vec()));
    let entries = wanted.iter().map(|(key, data)| entry(key, data)).collect();
    let answer = client
        .put_records()
        .stream_name("round-trip")
        .set_records(Some(entries))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.failed_record_count(), Some(0));
    assert_eq!(answer.records().len(), wanted.len());
    let mut seen = read_all(&client, "round-trip").await;
    seen.sort();
    wanted.sort();
    assert_eq!(seen, wanted);
}

pub async fn partition_keys_route_by_md5(client: Client) {
    create(&client, "md5", 5).await;
    let shards = shards(&client, "md5").await;
    let keys: Vec<_> = (0..50).map(|n| format!("key {n}")).collect();
    let entries = keys.iter().map(|key| entry(key, b"x")).collect();
    let answer = client
        .put_records()
        .stream_name("md5")
        .set_records(Some(entries))
        .send()
        .await
        .unwrap();
    for (key, placed) in keys.iter().zip(answer.records()) {
        let hash = HashKey::of_partition_key(key);
        let owner = shards.iter().find(|shard| {
            let range = shard.hash_key_range().unwrap();
            range.starting_hash_key().parse::<HashKey>().unwrap() <= hash
                && hash <= range.ending_hash_key().parse::<HashKey>().unwrap()
        });
        assert_eq!(
            placed.shard_id(),
            owner.map(|shard| shard.shard_id()),
            "{key}"
        );
    }
}

pub async fn explicit_hash_keys_override(client: Client) {
    create(&client, "explicit", 2).await;
    // kinesis-mock cuts the space one lower than AWS does, so the border is asked for.
    let border = shards(&client, "explicit").await[1]
        .hash_key_range()
        .unwrap()
        .starting_hash_key()
        .to_owned();
    let border: u128 = border.parse().unwrap();
    for (hash_key, shard) in [(0, 0), (border - 1, 0), (border, 1), (u128::MAX, 1)] {
        let entry = PutRecordsRequestEntry::builder()
            .partition_key("k")
            .explicit_hash_key(hash_key.to_string())
            .data(Blob::new("x"))
            .build()
            .unwrap();
        let answer = client
            .put_records()
            .stream_name("explicit")
            .records(entry)
            .send()
            .await
            .unwrap();
        let wanted = format!("shardId-{shard:012}");
        assert_eq!(answer.records()[0].shard_id(), Some(&*wanted), "{hash_key}");
    }
}

pub async fn every_iterator_type_starts_where_it_says(client: Client) {
    let stream = "iterators";
    create(&client, stream, 1).await;
    let mut numbers = Vec::new();
    for n in 0..4 {
        numbers.push(put(&client, stream, &n.to_string()).await);
    }
    let from = |start, number: usize| {
        let request = client
            .get_shard_iterator()
            .stream_name(stream)
            .shard_id(FIRST)
            .shard_iterator_type(start);
        request.starting_sequence_number(&numbers[number]).send()
    };
    let at = from(ShardIteratorType::AtSequenceNumber, 2)
        .await
        .unwrap()
        .shard_iterator
        .unwrap();
    assert_eq!(texts(&client, &at).await, ["2", "3"]);
    let after = from(ShardIteratorType::AfterSequenceNumber, 2)
        .await
        .unwrap()
        .shard_iterator
        .unwrap();
    assert_eq!(texts(&client, &after).await, ["3"]);
    let oldest = iterator(&client, stream, FIRST, ShardIteratorType::TrimHorizon).await;
    assert_eq!(texts(&client, &oldest).await, ["0", "1", "2", "3"]);
    let page = read(&client, &oldest).await;
    let arrival = page.records()[0].approximate_arrival_timestamp().unwrap();
    let at_time = client
        .get_shard_iterator()
        .stream_name(stream)
        .shard_id(FIRST)
        .shard_iterator_type(ShardIteratorType::AtTimestamp)
        .timestamp(DateTime::from_millis(arrival.to_millis().unwrap() - 60_000));
    let at_time = at_time.send().await.unwrap().shard_iterator.unwrap();
    assert_eq!(texts(&client, &at_time).await, ["0", "1", "2", "3"]);
    let latest = iterator(&client, stream, FIRST, ShardIteratorType::Latest).await;
    assert!(texts(&client, &latest).await.is_empty());
    put(&client, stream, "4").await;
    assert_eq!(texts(&client, &latest).await, ["4"]);
}

pub async fn pages_follow_each_other(client: Client) {
    create(&client, "pages", 1).await;
    let entries = (0..25).map(|n: u8| entry("k", &[n])).collect();
    client
        .put_records()
        .stream_name("pages")
        .set_records(Some(entries))
        .send()
        .await
        .unwrap();
    let mut next = iterator(&client, "pages", FIRST, ShardIteratorType::TrimHorizon).await;
    let mut seen = Vec::new();
    for wanted in [10, 10, 5, 0] {
        let page = client
            .get_records()
            .shard_iterator(next)
            .limit(10)
            .send()
            .await
            .unwrap();
        assert_eq!(page.records().len(), wanted);
        seen.extend(
            page.records()
                .iter()
                .map(|record| record.data().as_ref()[0]),
        );
        next = page.next_shard_iterator.unwrap();
    }
    assert_eq!(seen, (0..25).collect::<Vec<u8>>());
}

pub async fn millis_behind_latest_is_zero_at_the_tip(client: Client) {
    create(&client, "behind", 1).await;
    let start = iterator(&client, "behind", FIRST, ShardIteratorType::TrimHorizon).await;
    assert_eq!(read(&client, &start).await.millis_behind_latest(), Some(0));
    put(&client, "behind", "a").await;
    // Time passes between the two, so that even a whole millisecond's clock shows it.
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    put(&client, "behind", "b").await;
    let page = client
        .get_records()
        .shard_iterator(start)
        .limit(1)
        .send()
        .await
        .unwrap();
    assert!(page.millis_behind_latest().unwrap() > 0);
    let page = read(&client, &page.next_shard_iterator.unwrap()).await;
    assert_eq!(
        (page.records().len(), page.millis_behind_latest()),
        (1, Some(0))
    );
}

pub async fn sequence_numbers_order_records(client: Client) {
    create(&client, "order", 1).await;
    let mut previous = put(&client, "order", "0").await;
    for n in 1..10 {
        let request = client
            .put_record()
            .stream_name("order")
            .partition_key("k")
            .data(Blob::new(n.to_string()));
        let answer = request
            .sequence_number_for_ordering(&previous)
            .send()
            .await
            .unwrap();
        let number = answer.sequence_number().to_owned();
        assert_eq!(number.len(), previous.len());
        assert!(number > previous);
        previous = number;
    }
    let page = read(
        &client,
        &iterator(&client, "order", FIRST, ShardIteratorType::TrimHorizon).await,
    )
    .await;
    assert_eq!(
        page.records().last().map(|record| record.sequence_number()),
        Some(&*previous)
    );
    let times: Vec<_> = page
        .records()
        .iter()
        .map(|record| record.approximate_arrival_timestamp().unwrap())
        .collect();
    assert!(times.windows(2).all(|pair| pair[0] <= pair[1]));
}

pub async fn streams_may_take_records_of_10_mib(client: Client) {
    create(&client, "large", 1).await;
    let data: Vec<u8> = (0..2 * 1024 * 1024).map(|n| n as u8).collect();
    let request = || {
        client
            .put_record()
            .stream_name("large")
            .partition_key("k")
            .data(Blob::new(data.clone()))
            .send()
    };
    let refused = code(request().await);
    assert!(
        refused == "ValidationException" || refused == "InvalidArgumentException",
        "{refused}"
    );
    let summary = client
        .describe_stream_summary()
        .stream_name("large")
        .send()
        .await
        .unwrap();
    let arn = summary
        .stream_description_summary()
        .unwrap()
        .stream_arn()
        .to_owned();
    client
        .update_max_record_size()
        .stream_arn(arn)
        .max_record_size_in_kib(10_240)
        .send()
        .await
        .unwrap();
    wait_until_active(&client, "large").await;
    request().await.unwrap();
    let page = read(
        &client,
        &iterator(&client, "large", FIRST, ShardIteratorType::TrimHorizon).await,
    )
    .await;
    assert!(page.records()[0].data().as_ref() == data);
}
