//! The client against a server that nobody here wrote: the crate `ferrokinesis`, on a loopback listener
//! of the test's own, with a limit on what it reads of a request.
//!
//! Two things are not AWS's. A push names children together with a continuation, ahead of the records that are
//! still to come: the source asks by `GetRecords`. And a subscription begins with the shard whatever
//! position it names (0.7.0 drops the position when it checks the request): what was read is left out.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::StreamStatus;
use axum::extract::DefaultBodyLimit;
use ferrokinesis::store::StoreOptions;
use millpond_kinesis_source::KinesisSource;
use millpond_kinesis_source::checkpoint::CheckpointStore;
use millpond_kinesis_source::checkpoint_memory::MemoryCheckpoints;
use millpond_kinesis_source::config::SourceConfig;
use millpond_kinesis_source::fan_out::{ConsumerState, FallBack, FanOut, FanOutApi as _};
use millpond_kinesis_source::sdk::SdkStream;
use millpond_kinesis_source::sdk_fan_out::SdkFanOut;
use support::service::{put_records, sdk_config};
use support::topic::MemoryTopic;
use support::{Running, check, context, eventually, spawn, until};
use tokio::task::JoinHandle;

struct Ferro {
    server: JoinHandle<()>,
    config: SdkConfig,
    client: Client,
    store: Arc<dyn CheckpointStore>,
    topic: Arc<MemoryTopic>,
    put: BTreeMap<String, Vec<Vec<u8>>>,
}

impl Ferro {
    async fn new(shards: i32, session_ms: u64) -> Self {
        let options = StoreOptions {
            create_stream_ms: 10,
            update_stream_ms: 10,
            subscribe_to_shard_session_ms: session_ms,
            ..StoreOptions::default()
        };
        let (app, _) = ferrokinesis::create_app(options);
        let app = app.layer(DefaultBodyLimit::max(16 << 20));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("bound");
        let endpoint = format!("http://{}", listener.local_addr().expect("address"));
        let server = tokio::spawn(async move {
            axum::serve(listener, app).await.expect("serves");
        });
        let config = sdk_config(endpoint).await;
        let client = Client::new(&config);
        let create = client.create_stream().stream_name("events");
        create.shard_count(shards).send().await.expect("created");
        let ferro = Self {
            server,
            config,
            client,
            store: Arc::new(MemoryCheckpoints::default()),
            topic: Arc::new(MemoryTopic::new(3)),
            put: BTreeMap::new(),
        };
        ferro.active().await;
        ferro
    }

    async fn active(&self) {
        eventually("the stream is active", async || {
            let summary = self.client.describe_stream_summary().stream_name("events");
            let summary = summary.send().await.expect("described");
            let summary = summary.stream_description_summary.expect("a summary");
            summary.stream_status == StreamStatus::Active
        })
        .await;
    }

    fn fan_out(&self) -> FanOut {
        FanOut {
            api: Arc::new(SdkFanOut::new(&self.config, "events")),
            consumer_name: "source".to_owned(),
            fall_back: FallBack::None,
            removes_consumer: false,
        }
    }

    fn run(&self, is_pushed: bool) -> Running {
        let mut config = SourceConfig::default();
        config.batching.batch_bytes = 4 << 10;
        config.batching.linger = Duration::from_millis(20);
        config.pace.reads_per_second = 100;
        config.pace.idle_interval = Duration::from_millis(50);
        let api = Arc::new(SdkStream::new(&self.config, "events"));
        let source = KinesisSource::new(api, config, self.store.clone());
        let source = match is_pushed {
            true => source.with_fan_out(self.fan_out()),
            false => source,
        };
        spawn(Box::new(source), context(&self.topic))
    }

    async fn put_many(&mut self, count: usize) {
        let before: usize = self.put.values().map(Vec::len).sum();
        let events = (before..before + count).map(|n| {
            let event = format!("event {n}").into_bytes();
            (format!("key-{}", n % 40), event)
        });
        let events: Vec<_> = events.collect();
        put_records(&self.client, &events).await;
        for (key, event) in events {
            self.put.entry(key).or_default().push(event);
        }
    }

    async fn stored(&self) {
        let all: usize = self.put.values().map(Vec::len).sum();
        until("all is stored", || self.topic.len() >= all).await;
    }

    async fn parents(&self) -> BTreeMap<String, Vec<String>> {
        let request = self.client.list_shards().stream_name("events");
        let shards = request.send().await.expect("listed").shards;
        let shards = shards.unwrap_or_default().into_iter();
        shards
            .map(|shard| {
                let parents = [shard.parent_shard_id, shard.adjacent_parent_shard_id];
                (shard.shard_id, parents.into_iter().flatten().collect())
            })
            .collect()
    }

    async fn end(self) -> usize {
        let repeated = check(&self.topic, &self.put, &self.parents().await);
        self.server.abort();
        repeated
    }
}

#[tokio::test]
async fn a_consumer_becomes_active_and_goes() {
    let ferro = Ferro::new(1, 300_000).await;
    let api = SdkFanOut::new(&ferro.config, "events");
    let missing = api.describe_consumer("c").await.expect_err("none yet");
    assert_eq!(missing.code.as_deref(), Some("ResourceNotFoundException"));
    let made = api.register_consumer("c").await.expect("registered");
    assert_eq!(made.state, ConsumerState::Creating);
    let again = api.register_consumer("c").await.expect_err("taken");
    assert_eq!(again.code.as_deref(), Some("ResourceInUseException"));
    eventually("it is active", async || {
        let consumer = api.describe_consumer("c").await.expect("there");
        consumer.state == ConsumerState::Active
    })
    .await;
    api.deregister_consumer(&made.arn).await.expect("removed");
    eventually("it is gone", async || {
        api.describe_consumer("c").await.is_err()
    })
    .await;
    assert_eq!(ferro.end().await, 0);
}

#[tokio::test]
async fn both_ways_of_reading_bring_every_event_once_and_in_order() {
    for is_pushed in [false, true] {
        // Short sessions: the server ends a subscription, and the source goes on with another.
        let mut ferro = Ferro::new(2, 1_000).await;
        ferro.put_many(300).await;
        let running = ferro.run(is_pushed);
        ferro.stored().await;
        ferro.put_many(300).await;
        ferro.stored().await;
        running.drained().await;
        ferro.put_many(300).await;
        let running = ferro.run(is_pushed);
        ferro.stored().await;
        running.drained().await;
        assert_eq!(ferro.end().await, 0, "pushed: {is_pushed}");
    }
}

#[tokio::test]
async fn both_ways_of_reading_follow_a_split() {
    for is_pushed in [false, true] {
        let mut ferro = Ferro::new(1, 300_000).await;
        ferro.put_many(300).await;
        let running = ferro.run(is_pushed);
        ferro.stored().await;
        let split = ferro.client.split_shard().stream_name("events");
        let split = split.shard_to_split("shardId-000000000000");
        let split = split.new_starting_hash_key((1u128 << 127).to_string());
        split.send().await.expect("split");
        ferro.active().await;
        ferro.put_many(300).await;
        ferro.stored().await;
        running.drained().await;
        assert_eq!(ferro.end().await, 0, "pushed: {is_pushed}");
    }
}
