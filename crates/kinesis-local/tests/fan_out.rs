//! Subscriptions on the wire, read with the real AWS SDK.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_sdk_kinesis::{
    Client,
    operation::subscribe_to_shard::SubscribeToShardOutput,
    primitives::Blob,
    types::{
        ConsumerStatus, ShardIteratorType, StartingPosition, SubscribeToShardEvent,
        SubscribeToShardEventStream,
    },
};
use common::{client, code, create};
use millpond_kinesis_local::{
    Server, ServerConfig, ServerHandle,
    model::{HalfOpen, IDLE_EVENT_MS, SUBSCRIPTION_LIFE_MS, SUBSCRIPTION_SPACING_MS},
};

const FIRST: &str = "shardId-000000000000";
const START_MS: u64 = 1_700_000_000_000;

struct Fan {
    server: ServerHandle,
    client: Client,
    now_ms: Arc<AtomicU64>,
    consumer: String,
}

impl Fan {
    async fn new() -> Self {
        let now_ms = Arc::new(AtomicU64::new(START_MS));
        let clock = now_ms.clone();
        let config = ServerConfig {
            clock: Arc::new(move || clock.load(Ordering::Relaxed)),
            ..ServerConfig::default()
        };
        let server = Server::start(config).await.unwrap();
        let client = client(&server.endpoint_url());
        create(&client, "events", 1).await;
        let consumer = register(&client, "fan").await;
        Self {
            server,
            client,
            now_ms,
            consumer,
        }
    }

    fn pass(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::Relaxed);
    }

    async fn put(&self, data: &[u8]) {
        let put = self.client.put_record().stream_name("events");
        let put = put.partition_key("k").data(Blob::new(data));
        put.send().await.unwrap();
    }

    async fn subscribe(&self, position: StartingPosition) -> SubscribeToShardOutput {
        let call = self.client.subscribe_to_shard().shard_id(FIRST);
        let call = call.consumer_arn(&self.consumer);
        call.starting_position(position).send().await.unwrap()
    }
}

async fn stream_arn(client: &Client) -> String {
    let summary = client.describe_stream_summary().stream_name("events");
    let summary = summary.send().await.unwrap();
    summary.stream_description_summary.unwrap().stream_arn
}

async fn register(client: &Client, name: &str) -> String {
    let call = client.register_stream_consumer().consumer_name(name);
    let made = call
        .stream_arn(stream_arn(client).await)
        .send()
        .await
        .unwrap();
    made.consumer.unwrap().consumer_arn
}

fn oldest() -> StartingPosition {
    let builder = StartingPosition::builder().r#type(ShardIteratorType::TrimHorizon);
    builder.build().unwrap()
}

fn after(sequence: &str) -> StartingPosition {
    let builder = StartingPosition::builder().r#type(ShardIteratorType::AfterSequenceNumber);
    builder.sequence_number(sequence).build().unwrap()
}

/// The next event; `None` at the end.
async fn event(of: &mut SubscribeToShardOutput) -> Option<SubscribeToShardEvent> {
    let next = tokio::time::timeout(Duration::from_secs(20), of.event_stream.recv());
    let event = next.await.expect("in time").expect("no exception")?;
    match event {
        SubscribeToShardEventStream::SubscribeToShardEvent(event) => Some(event),
        other => panic!("another event: {other:?}"),
    }
}

fn texts(event: &SubscribeToShardEvent) -> Vec<String> {
    let records = event.records().iter();
    records
        .map(|record| String::from_utf8(record.data.as_ref().to_vec()).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_is_described_listed_and_removed() {
    let fan = Fan::new().await;
    let arn = stream_arn(&fan.client).await;
    let by_name = || {
        let call = fan.client.describe_stream_consumer();
        call.stream_arn(&arn).consumer_name("fan").send()
    };
    let described = by_name().await.unwrap().consumer_description.unwrap();
    assert_eq!(described.consumer_status, ConsumerStatus::Active);
    assert_eq!(described.stream_arn, arn);
    assert_eq!(described.consumer_arn, fan.consumer);
    register(&fan.client, "other").await;
    let list = fan.client.list_stream_consumers().stream_arn(&arn);
    let page = list.max_results(1).send().await.unwrap();
    assert_eq!(page.consumers()[0].consumer_name, "fan");
    let list = fan.client.list_stream_consumers().stream_arn(&arn);
    let page = list.set_next_token(page.next_token).send().await.unwrap();
    assert_eq!(page.consumers()[0].consumer_name, "other");
    assert_eq!(page.next_token, None);
    let remove = fan.client.deregister_stream_consumer();
    remove.consumer_arn(&fan.consumer).send().await.unwrap();
    assert_eq!(code(by_name().await), "ResourceNotFoundException");
    fan.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_come_as_they_are_put_and_silence_is_said() {
    let fan = Fan::new().await;
    fan.put(b"a").await;
    let mut subscription = fan.subscribe(oldest()).await;
    assert_eq!(texts(&event(&mut subscription).await.unwrap()), ["a"]);
    for text in ["b", "c"] {
        fan.put(text.as_bytes()).await;
        assert_eq!(texts(&event(&mut subscription).await.unwrap()), [text]);
    }
    fan.pass(IDLE_EVENT_MS);
    let idle = event(&mut subscription).await.unwrap();
    assert_eq!(texts(&idle), [""; 0]);
    assert_eq!(idle.millis_behind_latest, 0);

    let second = fan.client.subscribe_to_shard().shard_id(FIRST);
    let second = second.consumer_arn(&fan.consumer);
    fan.pass(SUBSCRIPTION_LIFE_MS);
    assert!(event(&mut subscription).await.is_none());
    fan.put(b"d").await;
    let position = after(&idle.continuation_sequence_number);
    let mut renewed = fan.subscribe(position).await;
    assert_eq!(texts(&event(&mut renewed).await.unwrap()), ["d"]);
    let soon = second.starting_position(oldest()).send().await;
    assert_eq!(code(soon), "ResourceInUseException");
    fan.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_taken_over_hears_it() {
    let fan = Fan::new().await;
    let mut old = fan.subscribe(oldest()).await;
    assert!(event(&mut old).await.unwrap().records().is_empty());
    fan.pass(SUBSCRIPTION_SPACING_MS);
    let mut new = fan.subscribe(oldest()).await;
    let error = old.event_stream.recv().await.expect_err("taken over");
    let error = error.into_service_error();
    assert!(error.is_resource_in_use_exception(), "{error:?}");
    assert!(event(&mut new).await.is_some());
    fan.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_shard_ends_with_its_children_and_without_a_continuation() {
    let fan = Fan::new().await;
    let mut subscription = fan.subscribe(oldest()).await;
    event(&mut subscription).await.unwrap();
    let split = fan.client.split_shard().stream_name("events");
    let split = split.shard_to_split(FIRST);
    let split = split.new_starting_hash_key((1u128 << 127).to_string());
    split.send().await.unwrap();
    let end = event(&mut subscription).await.unwrap();
    assert_eq!(end.continuation_sequence_number, "");
    let children: Vec<&str> = end
        .child_shards()
        .iter()
        .map(|child| child.shard_id.as_str())
        .collect();
    assert_eq!(children, ["shardId-000000000001", "shardId-000000000002"]);
    assert_eq!(end.child_shards()[0].parent_shards, [FIRST]);
    assert!(event(&mut subscription).await.is_none());
    fan.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_one_stays_open_and_silent() {
    let fan = Fan::new().await;
    let mut subscription = fan.subscribe(oldest()).await;
    event(&mut subscription).await.unwrap();
    fan.server.half_open(HalfOpen::Existing);
    fan.put(b"a").await;
    fan.pass(SUBSCRIPTION_SPACING_MS);
    let mut second = fan.subscribe(oldest()).await;
    // The second one has it already, and the first one neither that nor its end.
    assert_eq!(texts(&event(&mut second).await.unwrap()), ["a"]);
    let silent = tokio::time::timeout(Duration::from_millis(200), subscription.event_stream.recv());
    assert!(silent.await.is_err());
    fan.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_of_ten_mebibytes_is_one_event() {
    let fan = Fan::new().await;
    let size = fan.client.update_max_record_size();
    let size = size.stream_arn(stream_arn(&fan.client).await);
    size.max_record_size_in_kib(10_240).send().await.unwrap();
    let data: Vec<u8> = (0..(10 << 20) - 1)
        .map(|n: usize| (n * 31 / 7) as u8)
        .collect();
    fan.put(&data).await;
    let mut subscription = fan.subscribe(oldest()).await;
    let event = event(&mut subscription).await.unwrap();
    assert!(event.records()[0].data.as_ref() == data);
    fan.server.shutdown().await;
}
