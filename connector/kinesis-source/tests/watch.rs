//! The clock on data loss and what is done about it: on a stopped clock, and over the wire.

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use millpond_connector::connector::Source;
use millpond_connector::stream_clock::LossLevel;
use millpond_kinesis_local::model::{ModelConfig, NewRecord};
use millpond_kinesis_local::{Server, ServerConfig};
use millpond_kinesis_source::KinesisSource;
use millpond_kinesis_source::admin::{StreamAdmin, StreamShape};
use millpond_kinesis_source::checkpoint_memory::MemoryCheckpoints;
use millpond_kinesis_source::config::SourceConfig;
use millpond_kinesis_source::retention_guard::{GuardAction, GuardSettings};
use millpond_kinesis_source::sdk_admin::SdkAdmin;
use millpond_kinesis_source::shard_scaling::{ScalingMode, ScalingSettings};
use support::admin::ModelAdmin;
use support::service::sdk_config;
use support::stream::{ModelStream, service, unreachable};
use support::topic::MemoryTopic;
use support::{Running, check, context, spawn, until};
use tokio::time::sleep;

const HOUR: Duration = Duration::from_secs(3_600);

struct World {
    stream: Arc<ModelStream>,
    admin: Arc<ModelAdmin>,
    topic: Arc<MemoryTopic>,
    config: SourceConfig,
}

impl World {
    fn new(shards: u32, config: ModelConfig) -> Self {
        let mut source = SourceConfig::default();
        source.pace.idle_interval = Duration::from_secs(5);
        let topic = Arc::new(MemoryTopic::new(2));
        topic.held_for_hours.store(true, Ordering::Relaxed);
        let stream = ModelStream::new(shards, config);
        Self {
            admin: ModelAdmin::new(&stream),
            stream,
            topic,
            config: source,
        }
    }

    fn run(&self) -> Running {
        let store = Arc::new(MemoryCheckpoints::default());
        let source = KinesisSource::new(self.stream.clone(), self.config, store)
            .with_clock(self.stream.clock())
            .with_admin(self.admin.clone());
        let source: Box<dyn Source> = Box::new(source);
        spawn(source, context(&self.topic))
    }

    async fn shape(&self) -> StreamShape {
        self.admin.shape().await.expect("a shape")
    }

    fn verify(&self) -> usize {
        let put = self.stream.put.lock().expect("not poisoned");
        check(&self.topic, &put, &self.stream.parents())
    }
}

#[tokio::test(start_paused = true)]
async fn the_clocks_say_how_far_behind_and_how_long_there_is() {
    let world = World::new(2, ModelConfig::default());
    world.stream.put_many(40);
    let running = world.run();
    running.caught_up().await;
    let metrics = running.metrics.clone();
    sleep(Duration::from_secs(60)).await;
    let clock = metrics.stream_clock().expect("read");
    assert_eq!((clock.shards.len(), clock.retention_hours), (2, 24));
    assert_eq!(clock.open_shards, None);
    let worst = clock.worst().expect("a shard");
    assert_eq!(worst.level, LossLevel::Fine);
    assert!(worst.seconds_until_trim > 86_300, "{worst:?}");
    assert_eq!(
        (worst.drain_seconds, worst.seconds_until_loss),
        (Some(0), None)
    );
    // Nothing gets into the topic any more: the oldest event that is not there ages.
    world.topic.held.store(true, Ordering::Relaxed);
    world.stream.put_many(40);
    sleep(20 * HOUR).await;
    let clock = metrics.stream_clock().expect("read");
    let worst = clock.worst().expect("a shard");
    assert_eq!(worst.level, LossLevel::Urgent);
    assert!(
        (14_000..=14_500).contains(&worst.seconds_until_trim),
        "{worst:?}"
    );
    sleep(3 * HOUR).await;
    let clock = metrics.stream_clock().expect("read");
    assert_eq!(
        clock.worst().map(|worst| worst.level),
        Some(LossLevel::Critical)
    );
    // Somebody else makes the period longer: it is read again within a minute.
    let longer = world.admin.change_retention(GuardAction::Extend(72)).await;
    longer.expect("extended");
    sleep(Duration::from_secs(90)).await;
    let clock = metrics.stream_clock().expect("read");
    assert_eq!(clock.retention_hours, 72);
    assert_eq!(
        clock.worst().map(|worst| worst.level),
        Some(LossLevel::Fine)
    );
    world.topic.held.store(false, Ordering::Relaxed);
    until("all is there", || world.topic.len() == 80).await;
    running.drained().await;
    assert_eq!(metrics.retention_changes.get(), 0);
    assert_eq!(world.verify(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_guard_extends_before_anything_is_lost_and_gives_back_when_told_to() {
    let mut world = World::new(1, ModelConfig::default());
    world.config.batching.max_buffered_bytes = 100;
    world.config.guard = GuardSettings {
        max_hours: Some(60),
        give_back_hours: Some(24),
    };
    world.topic.held.store(true, Ordering::Relaxed);
    world.stream.put_many(600);
    let running = world.run();
    sleep(17 * HOUR).await;
    assert_eq!(world.shape().await.retention_hours, 24);
    sleep(2 * HOUR).await;
    assert_eq!(world.shape().await.retention_hours, 48);
    sleep(22 * HOUR).await;
    assert_eq!(world.shape().await.retention_hours, 48);
    sleep(2 * HOUR).await;
    assert_eq!(world.shape().await.retention_hours, 60);
    // The most it may do; and nothing is lost yet.
    sleep(8 * HOUR).await;
    assert_eq!(world.shape().await.retention_hours, 60);
    world.topic.held.store(false, Ordering::Relaxed);
    running.caught_up().await;
    assert_eq!(world.topic.len(), 600);
    sleep(HOUR / 2).await;
    assert_eq!(world.shape().await.retention_hours, 60);
    sleep(HOUR).await;
    assert_eq!(world.shape().await.retention_hours, 24);
    assert_eq!(running.metrics.retention_changes.get(), 3);
    running.drained().await;
    assert_eq!(world.verify(), 0);
}

fn scaling(mode: ScalingMode) -> ScalingSettings {
    ScalingSettings {
        mode,
        min_shards: 1,
        max_shards: 4,
        ..ScalingSettings::default()
    }
}

/// 950 events a second on one shard, which takes 1,000.
async fn busy(world: &World, seconds: u64) {
    for second in 0..seconds {
        for n in 0..950u32 {
            let key = format!("key-{}", n % 40);
            let event = format!("{second}/{n}").into_bytes();
            let record = NewRecord::new(&key, None, event).expect("a record");
            world
                .stream
                .with_model(|model, now| model.put_record(now, "events", record, None))
                .expect("accepted");
        }
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_stream_gets_shards_when_told_to_and_advice_else() {
    for mode in [ScalingMode::Advise, ScalingMode::Auto] {
        let mut world = World::new(1, ModelConfig::default());
        world.config.scaling = scaling(mode);
        world.config.pace.idle_interval = Duration::from_millis(500);
        let running = world.run();
        busy(&world, 330).await;
        let metrics = running.metrics.clone();
        until("all is there", || world.topic.len() == 330 * 950).await;
        let open = world.shape().await.open_shards;
        let clock = metrics.stream_clock().expect("read");
        if mode == ScalingMode::Auto {
            assert_eq!((open, metrics.shard_count_changes.get()), (2, 1));
        } else {
            assert_eq!((open, clock.advised_shards), (1, Some(2)), "{clock:?}");
            assert_eq!(metrics.shard_count_changes.get(), 0);
        }
        assert_eq!(clock.open_shards, Some(open));
        running.drained().await;
    }
}

/// Events of 20 hours, ten a minute; those that a first read may take together are small.
async fn hours_of_events(stream: &ModelStream, key: &str) {
    for n in 0..12_000u32 {
        stream.put(key, vec![b'x'; if n < 20 { 8 } else { 100 }]);
        sleep(Duration::from_secs(6)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_backlog_that_drains_in_time_is_no_reason_to_extend() {
    let mut world = World::new(1, ModelConfig::default());
    hours_of_events(&world.stream, "key").await;
    // Twelve times as fast as time: 100 bytes are 6 s.
    world.config.pace.bytes_per_second = 200;
    world.config.pace.target_bytes = 1;
    world.config.guard = GuardSettings {
        max_hours: Some(96),
        give_back_hours: None,
    };
    let running = world.run();
    sleep(HOUR / 6).await;
    let clock = running.metrics.stream_clock().expect("read");
    let worst = clock.worst().expect("a shard");
    assert_eq!(worst.level, LossLevel::Urgent, "{worst:?}");
    assert_eq!(worst.seconds_until_loss, None);
    assert!(
        worst.drain_seconds.is_some_and(|seconds| seconds < 8_000),
        "{worst:?}"
    );
    sleep(3 * HOUR).await;
    assert_eq!(world.shape().await.retention_hours, 24);
    assert!(running.is_caught_up());
    running.drained().await;
    assert_eq!(world.verify(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_failed_is_made_again_at_the_next_look() {
    let mut world = World::new(1, ModelConfig::default());
    world.config.guard = GuardSettings {
        max_hours: Some(96),
        give_back_hours: None,
    };
    let failures = [
        service("LimitExceededException", 400),
        unreachable(),
        service("AccessDeniedException", 400),
    ];
    world.admin.fail(failures.to_vec());
    world.topic.held.store(true, Ordering::Relaxed);
    world.stream.put_many(40);
    let running = world.run();
    sleep(19 * HOUR).await;
    assert_eq!(world.shape().await.retention_hours, 48);
    let waits = world.admin.waits();
    assert_eq!(waits.len(), 3, "{waits:?}");
    assert!(
        waits.iter().all(|wait| (60..=80).contains(wait)),
        "{waits:?}"
    );
    assert_eq!(running.metrics.retention_changes.get(), 1);
    running.killed().await;
}

#[tokio::test(start_paused = true)]
async fn a_resize_that_got_no_answer_is_decided_anew_and_one_that_is_refused_rests() {
    for (failure, waits) in [
        (unreachable(), 60..=80),
        (service("ResourceInUseException", 400), 60..=80),
        (service("LimitExceededException", 400), 3_600..=3_620),
    ] {
        let mut world = World::new(8, ModelConfig::default());
        world.config.scaling = scaling(ScalingMode::Auto);
        world.admin.fail(vec![failure.clone()]);
        let running = world.run();
        // More shards than there may be: half as many, and half again.
        sleep(2 * HOUR).await;
        assert_eq!(world.shape().await.open_shards, 4, "{failure}");
        let found = world.admin.waits();
        assert_eq!(found.len(), 1, "{failure}: {found:?}");
        assert!(waits.contains(&found[0]), "{failure}: {found:?}");
        running.drained().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_loses_shards_and_no_event() {
    let mut world = World::new(4, ModelConfig::default());
    world.config.scaling = scaling(ScalingMode::Auto);
    world.stream.put_many(400);
    let running = world.run();
    sleep(6 * HOUR - HOUR / 6).await;
    assert_eq!(world.shape().await.open_shards, 4);
    let by_turns = async {
        for _ in 0..60 {
            world.stream.put_many(40);
            sleep(Duration::from_secs(60)).await;
        }
    };
    by_turns.await;
    assert_eq!(world.shape().await.open_shards, 1);
    assert_eq!(running.metrics.shard_count_changes.get(), 2);
    until("all is there", || world.topic.len() == 2_800).await;
    running.drained().await;
    assert_eq!(world.verify(), 0);
}

#[tokio::test]
async fn the_calls_that_change_a_stream_do_so_over_the_wire() {
    let server = Server::start(ServerConfig::default())
        .await
        .expect("serves");
    let config = sdk_config(server.endpoint_url()).await;
    let client = Client::new(&config);
    let create = client.create_stream().stream_name("events").shard_count(2);
    create.send().await.expect("created");
    let admin = SdkAdmin::new(&config, "events");
    let shape = StreamShape {
        retention_hours: 24,
        open_shards: 2,
        is_provisioned: true,
        is_active: true,
    };
    assert_eq!(admin.shape().await, Ok(shape));
    let change = admin.change_retention(GuardAction::Extend(72)).await;
    change.expect("extended");
    assert_eq!(
        admin.shape().await.map(|shape| shape.retention_hours),
        Ok(72)
    );
    let change = admin.change_retention(GuardAction::GiveBack(48)).await;
    change.expect("given back");
    admin.change_shard_count(4).await.expect("doubled");
    let changed = StreamShape {
        retention_hours: 48,
        open_shards: 4,
        ..shape
    };
    assert_eq!(admin.shape().await, Ok(changed));
    let refused = admin.change_shard_count(9).await.expect_err("too many");
    assert_eq!(refused.code.as_deref(), Some("InvalidArgumentException"));
    let refused = admin.change_retention(GuardAction::Extend(30)).await;
    assert!(refused.is_err(), "longer is not shorter");
    let other = SdkAdmin::new(&config, "evnets").shape().await;
    let missing = other.expect_err("no such stream").code;
    assert_eq!(missing.as_deref(), Some("ResourceNotFoundException"));
    server.shutdown().await;
}
