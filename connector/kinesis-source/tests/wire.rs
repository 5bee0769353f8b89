//! The same promises on the wire: the AWS SDK against the stand-in's server.

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::SdkConfig;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_kinesis::Client;
use millpond_kinesis_local::{Server, ServerConfig, ServerHandle};
use millpond_kinesis_source::KinesisSource;
use millpond_kinesis_source::checkpoint::CheckpointStore;
use millpond_kinesis_source::checkpoint_store::StoredCheckpoints;
use millpond_kinesis_source::classify::FailedStep;
use millpond_kinesis_source::client::{ReadFrom, ShardIterator, ShardScope, StreamApi as _};
use millpond_kinesis_source::config::{SourceConfig, Start};
use millpond_kinesis_source::fan_out::{FallBack, FanOut};
use millpond_kinesis_source::sdk::SdkStream;
use millpond_kinesis_source::sdk_fan_out::SdkFanOut;
use millpond_kinesis_source::shard::ShardId;
use support::service::{put_records, sdk_config};
use support::topic::MemoryTopic;
use support::{Running, check, context, spawn, start, until};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

struct Wire {
    server: ServerHandle,
    client: Client,
    config: SdkConfig,
    put: BTreeMap<String, Vec<Vec<u8>>>,
    topic: Arc<MemoryTopic>,
    store: Arc<dyn CheckpointStore>,
    dir: tempfile::TempDir,
    runs: AtomicU64,
}

/// True where these tests are those of fan-out: `wire_by_fan_out.rs` holds it to the same assertions.
fn is_pushed() -> bool {
    env!("CARGO_CRATE_NAME") == "wire_by_fan_out"
}

async fn create_stream(client: &Client, shards: i32) {
    let request = client.create_stream().stream_name("events");
    request
        .shard_count(shards)
        .max_record_size_in_kib(10_240)
        .send()
        .await
        .expect("created");
}

impl Wire {
    async fn new(shards: i32, server: ServerConfig) -> Self {
        let server = Server::start(server).await.expect("serves");
        let config = sdk_config(format!("http://{}", server.addr)).await;
        let client = Client::new(&config);
        create_stream(&client, shards).await;
        let dir = tempfile::tempdir().expect("directory");
        Self {
            server,
            client,
            config,
            put: BTreeMap::new(),
            topic: Arc::new(MemoryTopic::new(4)),
            store: Arc::new(StoredCheckpoints::new(dir.path())),
            dir,
            runs: AtomicU64::new(0),
        }
    }

    /// Its checkpoint is gone.
    fn forget(&mut self) {
        self.dir = tempfile::tempdir().expect("directory");
        self.store = Arc::new(StoredCheckpoints::new(self.dir.path()));
    }

    fn run(&self, config: SourceConfig) -> Running {
        let api = Arc::new(SdkStream::new(&self.config, "events"));
        let source = KinesisSource::new(api, config, self.store.clone());
        let source = match is_pushed() {
            true => source.with_fan_out(self.fan_out()),
            false => source,
        };
        spawn(Box::new(source), context(&self.topic))
    }

    /// Each run has a consumer of its own: a subscription that a killed run leaves behind cannot be taken
    /// over for five seconds.
    fn fan_out(&self) -> FanOut {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        FanOut {
            api: Arc::new(SdkFanOut::new(&self.config, "events")),
            consumer_name: format!("source-{run}"),
            fall_back: FallBack::None,
            removes_consumer: true,
        }
    }

    async fn put(&mut self, key: &str, event: Vec<u8>) {
        let request = self.client.put_record().stream_name("events");
        let data = event.clone().into();
        request
            .partition_key(key)
            .data(data)
            .send()
            .await
            .expect("accepted");
        self.put.entry(key.to_owned()).or_default().push(event);
    }

    async fn put_many(&mut self, count: usize) {
        let before: usize = self.put.values().map(Vec::len).sum();
        let numbers: Vec<usize> = (before..before + count).collect();
        for numbers in numbers.chunks(500) {
            let events = numbers.iter().map(|n| {
                let event = format!("event {n}").repeat(1 + n % 50).into_bytes();
                (format!("key-{}", n % 40), event)
            });
            let events: Vec<_> = events.collect();
            put_records(&self.client, &events).await;
            for (key, event) in events {
                self.put.entry(key).or_default().push(event);
            }
        }
    }

    async fn split(&self, shard: u32, at: u128) {
        let request = self.client.split_shard().stream_name("events");
        request
            .shard_to_split(format!("shardId-{shard:012}"))
            .new_starting_hash_key(at.to_string())
            .send()
            .await
            .expect("split");
    }

    async fn merge(&self, first: u32, second: u32) {
        let request = self.client.merge_shards().stream_name("events");
        request
            .shard_to_merge(format!("shardId-{first:012}"))
            .adjacent_shard_to_merge(format!("shardId-{second:012}"))
            .send()
            .await
            .expect("merged");
    }

    async fn verify(&self) -> usize {
        let request = self.client.list_shards().stream_name("events");
        let shards = request.send().await.expect("listed").shards;
        let parents = shards.unwrap_or_default().into_iter().map(|shard| {
            let parents = [shard.parent_shard_id, shard.adjacent_parent_shard_id];
            (shard.shard_id, parents.into_iter().flatten().collect())
        });
        check(&self.topic, &self.put, &parents.collect())
    }

    async fn end(self) {
        self.server.shutdown().await;
    }
}

/// Batches of 4 KiB, and no waiting for the limits of a real shard.
fn quick() -> SourceConfig {
    let mut config = SourceConfig::default();
    config.batching.batch_bytes = 4 << 10;
    config.pace.reads_per_second = 200;
    config.pace.bytes_per_second = 1 << 30;
    config.pace.target_bytes = 64 << 10;
    config.pace.idle_interval = Duration::from_millis(20);
    config
}

#[tokio::test]
async fn kills_and_restarts_repeat_the_same_origins() {
    let mut wire = Wire::new(3, ServerConfig::default()).await;
    wire.topic.delay_ms.store(40, Ordering::Relaxed);
    for round in 1..=6 {
        wire.put_many(600).await;
        let running = wire.run(quick());
        let enough = wire.topic.len() + 100 * round;
        until("some are stored", || wire.topic.len() >= enough).await;
        running.killed().await;
    }
    let running = wire.run(quick());
    running.caught_up().await;
    running.drained().await;
    let repeated = wire.verify().await;
    assert!(repeated > 0, "the kills came too late to matter");
    wire.end().await;
}

#[tokio::test]
async fn reshards_under_load_keep_their_order() {
    let mut wire = Wire::new(2, ServerConfig::default()).await;
    wire.topic.delay_ms.store(20, Ordering::Relaxed);
    wire.put_many(500).await;
    let running = wire.run(quick());
    wire.split(0, 1 << 120).await;
    wire.put_many(500).await;
    wire.merge(2, 3).await;
    wire.put_many(500).await;
    running.caught_up().await;
    wire.split(1, (1 << 127) + (1 << 126)).await;
    wire.put_many(500).await;
    until("all is stored", || wire.topic.len() >= 2_000).await;
    running.drained().await;
    assert_eq!(wire.verify().await, 0);
    wire.end().await;
}

#[tokio::test]
async fn events_of_ten_mebibytes_and_of_none_pass() {
    let mut wire = Wire::new(1, ServerConfig::default()).await;
    let largest = (10 << 20) - "large".len();
    let noise = |n: usize| (n.wrapping_mul(2_654_435_761) >> 13) as u8;
    wire.put("large", (0..largest).map(noise).collect()).await;
    wire.put("none", Vec::new()).await;
    wire.put("large", vec![7; largest]).await;
    wire.put("none", b"after".to_vec()).await;
    let mut config = SourceConfig::default();
    config.pace.bytes_per_second = 1 << 30;
    let running = wire.run(config);
    running.caught_up().await;
    running.drained().await;
    assert_eq!(wire.verify().await, 0);
    wire.end().await;
}

/// The system's clock, behind by as many milliseconds as the second one says.
fn late_clock() -> (ServerConfig, Arc<AtomicU64>) {
    let behind = Arc::new(AtomicU64::new(0));
    let shared = behind.clone();
    let clock = move || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_millis() as u64);
        now - shared.load(Ordering::Relaxed)
    };
    let config = ServerConfig {
        clock: Arc::new(clock),
        ..ServerConfig::default()
    };
    (config, behind)
}

#[tokio::test]
async fn each_start_begins_where_it_says() {
    let (server, behind) = late_clock();
    behind.store(3_600_000, Ordering::Relaxed);
    let mut wire = Wire::new(2, server).await;
    wire.put_many(100).await;
    behind.store(1_800_000, Ordering::Relaxed);
    let half_an_hour_ago = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_millis() as i64
        - 1_801_000;
    let hour_old = std::mem::take(&mut wire.put);
    wire.put_many(90).await;
    let half_old = wire.put.clone();
    behind.store(0, Ordering::Relaxed);

    let mut config = quick();
    config.start = Start::AtTimestamp(half_an_hour_ago);
    let running = wire.run(config);
    running.caught_up().await;
    running.drained().await;
    assert_eq!(wire.verify().await, 0);

    // Another start, another checkpoint, another topic.
    wire.forget();
    wire.topic = Arc::new(MemoryTopic::new(2));
    wire.put.clear();
    config.start = Start::Latest;
    let running = wire.run(config);
    running.caught_up().await;
    running.drained().await;
    wire.put_many(80).await;
    let newest = wire.put.clone();
    let running = wire.run(config);
    running.caught_up().await;
    running.drained().await;
    assert_eq!(wire.verify().await, 0);

    wire.forget();
    wire.topic = Arc::new(MemoryTopic::new(3));
    wire.put = hour_old;
    for (key, events) in half_old.into_iter().chain(newest) {
        wire.put.entry(key).or_default().extend(events);
    }
    let running = wire.run(quick());
    running.caught_up().await;
    running.drained().await;
    assert_eq!(wire.verify().await, 0);
    wire.end().await;
}

/// Passes connections on while it is up, and drops them while it is not.
struct Door {
    addr: SocketAddr,
    up: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Door {
    async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let addr = listener.local_addr().expect("an address");
        let up = Arc::new(AtomicBool::new(false));
        let refused = Arc::new(AtomicU64::new(0));
        let (is_up, count) = (up.clone(), refused.clone());
        let task = tokio::spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.expect("accepts");
                if !is_up.load(Ordering::Relaxed) {
                    count.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let is_up = is_up.clone();
                open.spawn(async move {
                    let mut server = TcpStream::connect(server).await.expect("connects");
                    let closed = until("the door is closed", || !is_up.load(Ordering::Relaxed));
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        () = closed => {}
                    }
                });
            }
        });
        Self {
            addr,
            up,
            refused,
            task,
        }
    }

    async fn refuse_some(&self) {
        self.up.store(false, Ordering::Relaxed);
        let before = self.refused.load(Ordering::Relaxed);
        let refused = || self.refused.load(Ordering::Relaxed);
        until("some tries", || refused() >= before + 3).await;
    }
}

#[tokio::test]
async fn an_endpoint_that_is_down_at_first_and_again_later_is_waited_for() {
    let mut wire = Wire::new(2, ServerConfig::default()).await;
    let door = Door::before(wire.server.addr).await;
    let direct = wire.config.clone();
    wire.config = sdk_config(format!("http://{}", door.addr)).await;
    wire.put_many(100).await;
    let running = wire.run(quick());
    door.refuse_some().await;
    assert_eq!(wire.topic.len(), 0);
    door.up.store(true, Ordering::Relaxed);
    running.caught_up().await;
    door.refuse_some().await;
    wire.put_many(100).await;
    assert!(!running.task.is_finished());
    door.up.store(true, Ordering::Relaxed);
    until("the rest", || wire.topic.len() == 200).await;
    running.drained().await;
    wire.config = direct;
    assert_eq!(wire.verify().await, 0);
    door.task.abort();
    wire.end().await;
}

#[tokio::test]
async fn a_stream_that_does_not_exist_is_named_with_its_place() {
    let wire = Wire::new(1, ServerConfig::default()).await;
    let api = Arc::new(SdkStream::new(&wire.config, "evnets"));
    let running = start(api, SourceConfig::default(), &wire.store, &wire.topic);
    let error = running.failed().await;
    let expected = format!(
        "stream `evnets` in region `eu-central-1` at endpoint `http://{}` does not exist",
        wire.server.addr
    );
    assert!(error.starts_with(&expected), "{error}");
    wire.end().await;
}

#[derive(Debug)]
struct NoCredentials;

impl ProvideCredentials for NoCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let error = CredentialsError::not_loaded("nothing is configured");
        future::ProvideCredentials::ready(Err(error))
    }
}

#[tokio::test]
async fn missing_credentials_end_the_start() {
    let mut wire = Wire::new(1, ServerConfig::default()).await;
    let builder = wire.config.to_builder();
    wire.config = builder
        .credentials_provider(SharedCredentialsProvider::new(NoCredentials))
        .build();
    let error = wire.run(SourceConfig::default()).failed().await;
    assert!(
        error.contains("credentials do not give access to stream `events`"),
        "{error}"
    );
    wire.end().await;
}

/// Answers every request with status 200 and no body.
async fn bodiless_server() -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // One answer for each piece of a request that is read: more than enough.
            let mut request = vec![0; 64 << 10];
            while tokio::io::AsyncReadExt::read(&mut stream, &mut request)
                .await
                .is_ok_and(|read| read > 0)
            {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await;
            }
        }
    });
    (url, task)
}

/// To the SDK an answer that lost its body is one that says nothing: no records and no iterator, which
/// is what the end of a shard looks like.
#[tokio::test]
async fn an_answer_that_lost_its_body_is_none() {
    let (url, server) = bodiless_server().await;
    let api = SdkStream::new(&sdk_config(url).await, "events");
    let shard = ShardId::from("shardId-000000000000".to_owned());
    let iterator = ShardIterator("i".to_owned());
    let answers = [
        api.describe().await.map(drop),
        api.list_shards(ShardScope::All, None).await.map(drop),
        api.shard_iterator(&shard, &ReadFrom::TrimHorizon)
            .await
            .map(drop),
        api.read(&iterator, 10).await.map(drop),
    ];
    for (call, answer) in answers.into_iter().enumerate() {
        let failure = answer.expect_err("nothing was said");
        assert_eq!(failure.step, FailedStep::Answer, "call {call}: {failure}");
    }
    server.abort();
}
