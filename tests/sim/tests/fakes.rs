//! The fakes pass the same assertions as what they stand for.

#[path = "../../../connector/dynamodb-sink/tests/suite/rules.rs"]
mod table_rules;

mod checkpoint_rules;
mod stream_rules;

use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_kinesis::Client;
use millpond_connector::aws::AwsSettings;
use millpond_connector::topic::Topic;
use millpond_dynamodb_sink::client::memory::MemoryTable;
use millpond_dynamodb_sink::spread::WriteShards;
use millpond_embedded_topic::conformance;
use millpond_kinesis_local::model::NewRecord;
use millpond_kinesis_local::{Server, ServerConfig};
use millpond_kinesis_source::checkpoint_store::StoredCheckpoints;
use millpond_kinesis_source::sdk::SdkStream;
use millpond_sim::checkpoints::FakeCheckpoints;
use millpond_sim::process::Process;
use millpond_sim::scenario::{Cuts, Scenario};
use millpond_sim::stream::FakeStream;
use millpond_sim::table::{FakeTable, Usage};
use millpond_sim::topic::FakeTopic;
use millpond_sim::world::{NAME, World};

/// A process in a world where nothing goes wrong and nothing takes time.
fn calm() -> Arc<Process> {
    let mut scenario = Scenario::of(0, &Cuts::default());
    scenario.rates.clear();
    (scenario.partitions, scenario.shards) = (2, 2);
    (scenario.checks_events, scenario.instant) = (false, true);
    scenario.budget = None;
    let world = World::of(scenario, &Cuts::default());
    Process::new(&world, "calm".to_owned(), false)
}

#[tokio::test(start_paused = true)]
async fn the_topic_is_one() {
    let fresh = || async { Arc::new(FakeTopic::new(calm())) as Arc<dyn Topic> };
    conformance::all(fresh).await;
}

#[tokio::test(start_paused = true)]
async fn the_table_is_one() {
    let usage = Arc::new(Usage::new(WriteShards::default()));
    let table = FakeTable::new(calm(), MemoryTable::absent("t"), usage);
    table_rules::assert_rules(&table).await;
}

#[tokio::test(start_paused = true)]
async fn the_checkpoints_are_kept_as_in_the_store() {
    checkpoint_rules::assert_rules(&FakeCheckpoints(calm())).await;
    let dir = tempfile::tempdir().expect("directory");
    checkpoint_rules::assert_rules(&StoredCheckpoints::new(dir.path())).await;
}

/// The model's stream, moved by hand.
struct InWorld(Arc<Process>);

impl stream_rules::Producer for InWorld {
    async fn put(&self, key: &str, data: &[u8]) {
        // Records are told apart by time, which only moves when told to.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let record = NewRecord::new(key, None, data.to_vec()).expect("a record");
        let world = &self.0.world;
        let put = world.with_stream(|model, now| model.put_record(now, NAME, record, None));
        put.expect("accepted");
    }

    async fn split(&self, shard: &str, at: u128) {
        let id = shard.parse().expect("an id");
        let world = &self.0.world;
        let split =
            world.with_stream(|model, now| model.split_shard(now, NAME, id, &at.to_string()));
        split.expect("split");
    }

    async fn merge(&self, first: &str, second: &str) {
        let (first, second) = (
            first.parse().expect("an id"),
            second.parse().expect("an id"),
        );
        let world = &self.0.world;
        let merged = world.with_stream(|model, now| model.merge_shards(now, NAME, first, second));
        merged.expect("merged");
    }
}

#[tokio::test(start_paused = true)]
async fn the_stream_is_one() {
    let process = calm();
    let stream = FakeStream::new(process.clone());
    stream_rules::assert_rules(&stream, &InWorld(process)).await;
}

/// The stand-in behind the AWS SDK.
struct OnTheWire(Client);

impl stream_rules::Producer for OnTheWire {
    async fn put(&self, key: &str, data: &[u8]) {
        let request = self.0.put_record().stream_name(NAME).partition_key(key);
        let put = request.data(data.to_vec().into()).send().await;
        put.expect("accepted");
    }

    async fn split(&self, shard: &str, at: u128) {
        let request = self.0.split_shard().stream_name(NAME).shard_to_split(shard);
        let split = request.new_starting_hash_key(at.to_string()).send().await;
        split.expect("split");
    }

    async fn merge(&self, first: &str, second: &str) {
        let request = self
            .0
            .merge_shards()
            .stream_name(NAME)
            .shard_to_merge(first);
        let merged = request.adjacent_shard_to_merge(second).send().await;
        merged.expect("merged");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_on_the_wire_is_the_same() {
    let server = Server::start(ServerConfig::default())
        .await
        .expect("serves");
    let settings = AwsSettings {
        region: Some("us-east-1".to_owned()),
        endpoint: Some(server.endpoint_url()),
        profile: None,
    };
    let credentials = Credentials::new("test", "test", None, None, "test");
    let config = settings.load().await.expect("configured").into_builder();
    let config = config
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build();
    let client = Client::new(&config);
    let request = client.create_stream().stream_name(NAME).shard_count(2);
    request.send().await.expect("created");
    let stream = SdkStream::new(&config, NAME);
    stream_rules::assert_rules(&stream, &OnTheWire(client)).await;
    server.shutdown().await;
}
