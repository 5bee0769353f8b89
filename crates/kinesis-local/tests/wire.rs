//! The server, spoken to with the real AWS SDK.

mod common;

use common::client;
use millpond_kinesis_local::{Server, ServerConfig};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_comes_out() {
    let server = Server::start(ServerConfig::default()).await.unwrap();
    let client = client(&server.endpoint_url());
    client
        .create_stream()
        .stream_name("events")
        .shard_count(2)
        .send()
        .await
        .unwrap();
    let entries =
        (0..100).map(|n| common::entry(&format!("key-{n}"), format!("value {n}").as_bytes()));
    let put = client
        .put_records()
        .stream_name("events")
        .set_records(Some(entries.collect()))
        .send()
        .await
        .unwrap();
    assert_eq!(put.failed_record_count(), Some(0));
    let summary = client
        .describe_stream_summary()
        .stream_name("events")
        .send()
        .await
        .unwrap();
    assert_eq!(
        summary
            .stream_description_summary()
            .unwrap()
            .open_shard_count(),
        2
    );
    let mut seen = common::read_all(&client, "events").await;
    seen.sort_by_key(|(key, _)| key["key-".len()..].parse::<u32>().unwrap());
    let wanted: Vec<_> = (0..100)
        .map(|n| (format!("key-{n}"), format!("value {n}").into_bytes()))
        .collect();
    assert_eq!(seen, wanted);
    server.shutdown().await;
}
