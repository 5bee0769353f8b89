//! What the tests on the wire share.
#![allow(dead_code, reason = "each test file uses its part")]

use std::time::{Duration, Instant};

use aws_sdk_kinesis::{
    Client,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig},
    error::{ProvideErrorMetadata, SdkError},
    operation::get_records::GetRecordsOutput,
    primitives::Blob,
    types::{PutRecordsRequestEntry, Shard, ShardIteratorType, StreamStatus},
};

/// A client without retries: a test wants to see every answer.
pub fn client(endpoint_url: &str) -> Client {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("local", "local", None, None, "test"))
        .endpoint_url(endpoint_url)
        .retry_config(RetryConfig::disabled())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Client::from_conf(config)
}

pub fn entry(partition_key: &str, data: &[u8]) -> PutRecordsRequestEntry {
    PutRecordsRequestEntry::builder()
        .partition_key(partition_key)
        .data(Blob::new(data))
        .build()
        .unwrap()
}

/// The exception's name.
pub fn code<T: std::fmt::Debug, E: ProvideErrorMetadata + std::fmt::Debug>(
    answer: Result<T, SdkError<E>>,
) -> String {
    answer
        .expect_err("this should be refused")
        .code()
        .unwrap_or("no code")
        .to_owned()
}

/// Asks again and again until it is so, within a deadline.
pub async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub async fn create(client: &Client, stream: &str, shards: i32) {
    until("the stream is made", async || {
        let create = client.create_stream().stream_name(stream);
        let Err(error) = create.shard_count(shards).send().await else {
            return true;
        };
        // Only five streams may be in the making at once (Kinesis API reference, `CreateStream`).
        let is_busy = error.code() == Some("LimitExceededException");
        assert!(is_busy, "`{stream}`: {error:?}");
        false
    })
    .await;
    wait_until_active(client, stream).await;
}

pub async fn wait_until_active(client: &Client, stream: &str) {
    until("the stream is active", async || {
        let answer = client
            .describe_stream_summary()
            .stream_name(stream)
            .send()
            .await
            .unwrap();
        answer.stream_description_summary().unwrap().stream_status() == &StreamStatus::Active
    })
    .await;
}

pub async fn shards(client: &Client, stream: &str) -> Vec<Shard> {
    client
        .list_shards()
        .stream_name(stream)
        .send()
        .await
        .unwrap()
        .shards
        .unwrap()
}

pub async fn iterator(
    client: &Client,
    stream: &str,
    shard: &str,
    start: ShardIteratorType,
) -> String {
    let request = client
        .get_shard_iterator()
        .stream_name(stream)
        .shard_id(shard)
        .shard_iterator_type(start);
    request.send().await.unwrap().shard_iterator.unwrap()
}

pub async fn read(client: &Client, iterator: &str) -> GetRecordsOutput {
    client
        .get_records()
        .shard_iterator(iterator)
        .send()
        .await
        .unwrap()
}

/// Partition keys and data of all records, shard by shard.
pub async fn read_all(client: &Client, stream: &str) -> Vec<(String, Vec<u8>)> {
    let mut seen = Vec::new();
    for shard in shards(client, stream).await {
        let mut next = Some(
            iterator(
                client,
                stream,
                shard.shard_id(),
                ShardIteratorType::TrimHorizon,
            )
            .await,
        );
        while let Some(current) = next {
            let page = read(client, &current).await;
            let pair = |record: &aws_sdk_kinesis::types::Record| {
                (
                    record.partition_key().unwrap().to_owned(),
                    record.data().as_ref().to_vec(),
                )
            };
            seen.extend(page.records().iter().map(pair));
            next = page
                .next_shard_iterator
                .filter(|_| page.millis_behind_latest != Some(0));
        }
    }
    seen
}
