//! What is refused, and how.

use aws_sdk_kinesis::{
    Client,
    primitives::Blob,
    types::{PutRecordsRequestEntry, ShardIteratorType},
};

use crate::common::{code, create, entry, iterator};

const FIRST: &str = "shardId-000000000000";

pub async fn what_does_not_exist_is_not_found(client: Client) {
    const NOT_FOUND: &str = "ResourceNotFoundException";
    create(&client, "exists", 1).await;
    assert_eq!(
        code(
            client
                .put_records()
                .stream_name("none")
                .records(entry("k", b"x"))
                .send()
                .await
        ),
        NOT_FOUND
    );
    let record = client
        .put_record()
        .stream_name("none")
        .partition_key("k")
        .data(Blob::new("x"));
    assert_eq!(code(record.send().await), NOT_FOUND);
    assert_eq!(
        code(client.list_shards().stream_name("none").send().await),
        NOT_FOUND
    );
    assert_eq!(
        code(client.describe_stream().stream_name("none").send().await),
        NOT_FOUND
    );
    assert_eq!(
        code(client.delete_stream().stream_name("none").send().await),
        NOT_FOUND
    );
    for (stream, shard) in [("none", FIRST), ("exists", "shardId-000000000007")] {
        let request = client
            .get_shard_iterator()
            .stream_name(stream)
            .shard_id(shard);
        let refused = request
            .shard_iterator_type(ShardIteratorType::Latest)
            .send()
            .await;
        assert_eq!(code(refused), NOT_FOUND, "{stream} {shard}");
    }
    let split = client
        .split_shard()
        .stream_name("exists")
        .shard_to_split("shardId-000000000007");
    assert_eq!(
        code(split.new_starting_hash_key("100").send().await),
        NOT_FOUND
    );
}

/// Which of the two exceptions AWS names for a bad value differs between its own pages.
fn is_bad_value(code: &str) -> bool {
    code == "InvalidArgumentException" || code == "ValidationException"
}

pub async fn arguments_are_checked(client: Client) {
    let stream = "arguments";
    create(&client, stream, 2).await;
    let put = |entries: Vec<PutRecordsRequestEntry>| {
        client
            .put_records()
            .stream_name(stream)
            .set_records(Some(entries))
            .send()
    };
    assert!(is_bad_value(&code(
        put(vec![entry(&"k".repeat(257), b"x")]).await
    )));
    let hash_key = |text: &str| {
        let entry = PutRecordsRequestEntry::builder()
            .partition_key("k")
            .data(Blob::new("x"))
            .explicit_hash_key(text);
        vec![entry.build().unwrap()]
    };
    assert!(is_bad_value(&code(
        put(hash_key("340282366920938463463374607431768211456")).await
    )));
    let start = iterator(&client, stream, FIRST, ShardIteratorType::TrimHorizon).await;
    assert!(is_bad_value(&code(
        client
            .get_records()
            .shard_iterator(start)
            .limit(10_001)
            .send()
            .await
    )));

    let request = client
        .get_shard_iterator()
        .stream_name(stream)
        .shard_id(FIRST);
    let refused = request
        .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
        .starting_sequence_number("nonsense")
        .send()
        .await;
    assert!(is_bad_value(&code(refused)));
    for name in ["", "with space"] {
        assert!(
            is_bad_value(&code(
                client
                    .create_stream()
                    .stream_name(name)
                    .shard_count(1)
                    .send()
                    .await
            )),
            "`{name}`"
        );
    }
    let both = client
        .list_shards()
        .stream_name(stream)
        .next_token("nonsense")
        .send()
        .await;
    assert!(is_bad_value(&code(both)));
}

pub async fn reshards_are_checked(client: Client) {
    let stream = "reshards";
    create(&client, stream, 3).await;
    let split = client
        .split_shard()
        .stream_name(stream)
        .shard_to_split(FIRST);
    let refused = split
        .new_starting_hash_key(u128::MAX.to_string())
        .send()
        .await;
    assert_eq!(code(refused), "InvalidArgumentException");
    let merge = client
        .merge_shards()
        .stream_name(stream)
        .shard_to_merge(FIRST);
    let refused = merge
        .adjacent_shard_to_merge("shardId-000000000002")
        .send()
        .await;
    assert_eq!(code(refused), "InvalidArgumentException");
}
