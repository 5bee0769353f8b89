//! What the wire tests share.

use aws_sdk_kinesis::{
    Client,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig},
    primitives::Blob,
    types::{PutRecordsRequestEntry, ShardIteratorType},
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

/// Partition keys and data of all records, shard by shard.
pub async fn read_all(client: &Client, stream: &str) -> Vec<(String, Vec<u8>)> {
    let shards = client
        .list_shards()
        .stream_name(stream)
        .send()
        .await
        .unwrap();
    let mut seen = Vec::new();
    for shard in shards.shards() {
        let start = client
            .get_shard_iterator()
            .stream_name(stream)
            .shard_id(shard.shard_id())
            .shard_iterator_type(ShardIteratorType::TrimHorizon)
            .send()
            .await
            .unwrap();
        let mut iterator = start.shard_iterator;
        while let Some(current) = iterator {
            let page = client
                .get_records()
                .shard_iterator(current)
                .send()
                .await
                .unwrap();
            let records = page.records();
            seen.extend(
                records
                    .iter()
                    .map(|r| (r.partition_key().unwrap().to_owned(), r.data().as_ref().to_vec())),
            );
            iterator = page
                .next_shard_iterator
                .filter(|_| page.millis_behind_latest != Some(0));
        }
    }
    seen
}
