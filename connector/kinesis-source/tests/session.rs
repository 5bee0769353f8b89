//! The whole source over the pure model of a stream, on a stopped clock.

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use millpond_connector::connector::Source;
use millpond_kinesis_local::model::{ModelConfig, ReadLimits, ShardId};
use millpond_kinesis_source::KinesisSource;
use millpond_kinesis_source::checkpoint::CheckpointStore;
use millpond_kinesis_source::checkpoint_memory::MemoryCheckpoints;
use millpond_kinesis_source::checkpoint_store::StoredCheckpoints;
use millpond_kinesis_source::classify::{FailedStep, Failure, Operation};
use millpond_kinesis_source::config::{SourceConfig, Start};
use proptest::prelude::*;
use support::fan_out::fan_out;
use support::stream::{ModelStream, service, unreachable};
use support::topic::MemoryTopic;
use support::{Running, check, context, spawn, until};
use tokio::time::sleep;

fn memory() -> Arc<dyn CheckpointStore> {
    Arc::new(MemoryCheckpoints::default())
}

/// For tests that last days of simulated time.
fn unhurried() -> SourceConfig {
    let mut config = SourceConfig::default();
    config.pace.idle_interval = Duration::from_secs(60);
    config
}

fn small_batches() -> SourceConfig {
    let mut config = SourceConfig::default();
    config.batching.batch_bytes = 2_000;
    config
}

fn run(
    stream: &Arc<ModelStream>,
    config: SourceConfig,
    store: &Arc<dyn CheckpointStore>,
    topic: &Arc<MemoryTopic>,
) -> Running {
    let source =
        KinesisSource::new(stream.clone(), config, store.clone()).with_clock(stream.clock());
    let source = match is_pushed() {
        true => source.with_fan_out(fan_out(stream)),
        false => source,
    };
    let source: Box<dyn Source> = Box::new(source);
    spawn(source, context(topic))
}

/// True where these tests are those of fan-out: `session_by_fan_out.rs` holds it to the same assertions.
fn is_pushed() -> bool {
    env!("CARGO_CRATE_NAME") == "session_by_fan_out"
}

/// The call that begins to read at a position.
fn opening() -> Operation {
    match is_pushed() {
        true => Operation::Subscribe,
        false => Operation::ShardIterator,
    }
}

fn verify(stream: &ModelStream, topic: &MemoryTopic) -> usize {
    let put = stream.put.lock().expect("not poisoned");
    check(topic, &put, &stream.parents())
}

fn split(stream: &ModelStream, shard: u32, at: u128) {
    let at = at.to_string();
    stream
        .with_model(|model, now| model.split_shard(now, "events", ShardId::new(shard), &at))
        .expect("split");
}

fn merge(stream: &ModelStream, first: u32, second: u32) {
    stream
        .with_model(|model, now| {
            model.merge_shards(now, "events", ShardId::new(first), ShardId::new(second))
        })
        .expect("merged");
}

fn scale(stream: &ModelStream, count: u32) {
    stream
        .with_model(|model, now| model.update_shard_count(now, "events", count))
        .expect("scaled");
}

#[tokio::test(start_paused = true)]
async fn everything_is_read_once_and_a_restart_repeats_nothing() {
    let stream = ModelStream::new(4, ModelConfig::default());
    let topic = Arc::new(MemoryTopic::new(4));
    let store = memory();
    stream.put_many(1_000);
    let running = run(&stream, SourceConfig::default(), &store, &topic);
    running.caught_up().await;
    assert_eq!(topic.len(), 1_000);
    assert_eq!(running.metrics.source_events.get(), 1_000);
    assert_eq!(running.metrics.topic_events.get(), 1_000);
    assert_eq!(running.metrics.shards_known.load(Ordering::Relaxed), 4);
    assert_eq!(running.metrics.shards_caught_up.load(Ordering::Relaxed), 4);
    stream.put_many(100);
    until("later events", || topic.len() == 1_100).await;
    running.drained().await;
    stream.put_many(100);
    let running = run(&stream, SourceConfig::default(), &store, &topic);
    running.caught_up().await;
    running.drained().await;
    assert_eq!(verify(&stream, &topic), 0);
    assert_eq!(topic.largest_in_flight.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn an_empty_stream_is_caught_up() {
    let stream = ModelStream::new(2, ModelConfig::default());
    let topic = Arc::new(MemoryTopic::new(2));
    let running = run(&stream, SourceConfig::default(), &memory(), &topic);
    running.caught_up().await;
    running.drained().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_brings_to_safety_what_was_read() {
    let stream = ModelStream::new(2, ModelConfig::default());
    let topic = Arc::new(MemoryTopic::new(2));
    let store = memory();
    topic.delay_ms.store(900, Ordering::Relaxed);
    stream.put_many(500);
    let running = run(&stream, small_batches(), &store, &topic);
    let metrics = running.metrics.clone();
    until("something is read", || metrics.source_events.get() > 0).await;
    running.drained().await;
    assert_eq!(metrics.source_events.get(), metrics.topic_events.get());
    let running = run(&stream, small_batches(), &store, &topic);
    running.caught_up().await;
    running.drained().await;
    assert_eq!(verify(&stream, &topic), 0);
}

#[tokio::test(start_paused = true)]
async fn a_kill_at_any_time_loses_nothing_and_repeats_the_same_origins() {
    let stream = ModelStream::new(3, ModelConfig::default());
    let topic = Arc::new(MemoryTopic::new(4));
    let store = memory();
    topic.delay_ms.store(300, Ordering::Relaxed);
    let mut repeated = 0;
    for life_ms in (50..3_000).step_by(190) {
        stream.put_many(60);
        let running = run(&stream, small_batches(), &store, &topic);
        sleep(Duration::from_millis(life_ms)).await;
        running.killed().await;
        if life_ms == 1_000 {
            scale(&stream, 6);
        }
    }
    let running = run(&stream, small_batches(), &store, &topic);
    running.caught_up().await;
    running.drained().await;
    repeated += verify(&stream, &topic);
    assert!(repeated > 0, "the kills came too late to matter");
}

#[tokio::test(start_paused = true)]
async fn reshards_keep_parents_before_children_and_keys_in_order() {
    for silent_ends in [false, true] {
        let mut stream = ModelStream::bare(2, ModelConfig::default());
        stream.silent_ends = silent_ends;
        let stream = Arc::new(stream);
        let topic = Arc::new(MemoryTopic::new(3));
        let store = memory();
        topic.delay_ms.store(400, Ordering::Relaxed);
        // One generation has passed before the source is first started.
        stream.put_many(200);
        split(&stream, 0, 1 << 100);
        stream.put_many(200);
        let running = run(&stream, small_batches(), &store, &topic);
        until("the parent is read", || topic.len() > 20).await;
        merge(&stream, 2, 3);
        stream.put_many(200);
        scale(&stream, 4);
        stream.put_many(200);
        running.caught_up().await;
        scale(&stream, 2);
        stream.put_many(200);
        until("all is read", || topic.len() >= 1_000).await;
        running.drained().await;
        assert_eq!(verify(&stream, &topic), 0);
        // What has ended leaves the checkpoint with the stream's own memory of it.
        let before = store.load("events").await.expect("loads").expect("saved");
        assert!(before.shards.values().any(|shard| shard.is_finished()));
        sleep(Duration::from_secs(20 * 3_600)).await;
        let running = run(&stream, unhurried(), &store, &topic);
        sleep(Duration::from_secs(8 * 3_600)).await;
        running.drained().await;
        let after = store.load("events").await.expect("loads").expect("saved");
        assert!(after.shards.len() < before.shards.len(), "{after:?}");
        assert!(
            !after.shards.values().any(|shard| shard.is_finished()),
            "{after:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_ends_without_naming_its_children_is_followed_by_them() {
    let mut stream = ModelStream::bare(1, ModelConfig::default());
    stream.silent_ends = true;
    let stream = Arc::new(stream);
    stream.put_many(100);
    let topic = Arc::new(MemoryTopic::new(1));
    // The children are made after the first listing and hold events before the parent is read.
    topic.held.store(true, Ordering::Relaxed);
    let running = run(&stream, small_batches(), &memory(), &topic);
    until("the stream is listed", || {
        stream.count(Operation::ListShards) > 0
    })
    .await;
    split(&stream, 0, 1 << 100);
    stream.put_many(100);
    topic.held.store(false, Ordering::Relaxed);
    running.caught_up().await;
    // What was there at the start; the children's events came later.
    assert!(topic.len() >= 100, "{}", topic.len());
    until("the children are read", || topic.len() == 200).await;
    running.drained().await;
    assert_eq!(verify(&stream, &topic), 0);
}

#[tokio::test(start_paused = true)]
async fn faults_of_the_service_cost_time_and_no_events() {
    let stream = ModelStream::new(3, ModelConfig::default());
    let topic = Arc::new(MemoryTopic::new(2));
    stream.put_many(600);
    let throttle = service("ProvisionedThroughputExceededException", 400);
    let expired = service("ExpiredIteratorException", 400);
    stream.fail(Operation::Describe, vec![unreachable(); 5]);
    stream.fail(
        Operation::ListShards,
        vec![
            service("LimitExceededException", 400),
            service("ExpiredNextTokenException", 400),
            unreachable(),
        ],
    );
    stream.fail(opening(), vec![throttle.clone(); 4]);
    let in_the_middle = [
        throttle.clone(),
        expired.clone(),
        service("InternalFailureException", 500),
        expired.clone(),
        expired.clone(),
        expired,
        throttle,
        unreachable(),
    ];
    stream.break_reading(&in_the_middle);
    let running = run(&stream, SourceConfig::default(), &memory(), &topic);
    running.caught_up().await;
    let throttles = running.metrics.source_throttles.get();
    // Those of iterators are not of reading; those of subscriptions are.
    assert_eq!(throttles, if is_pushed() { 6 } else { 2 });
    running.drained().await;
    assert_eq!(verify(&stream, &topic), 0);
}

#[tokio::test(start_paused = true)]
async fn failed_appends_are_repeated_in_order() {
    let stream = ModelStream::new(3, ModelConfig::default());
    let topic = Arc::new(MemoryTopic::new(2));
    stream.put_many(800);
    topic.failures.store(12, Ordering::Relaxed);
    let running = run(&stream, small_batches(), &memory(), &topic);
    running.caught_up().await;
    running.drained().await;
    // Half of the failed appends were stored all the same.
    assert!(verify(&stream, &topic) > 0);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_fails_for_good_ends_the_source_with_its_error() {
    let stream = ModelStream::new(1, ModelConfig::default());
    let topic = Arc::new(MemoryTopic::new(1));
    stream.put_many(1);
    topic.broken.store(true, Ordering::Relaxed);
    let store = memory();
    let running = run(&stream, SourceConfig::default(), &store, &topic);
    let error = running.failed().await;
    assert!(error.contains("cannot append to the topic"), "{error}");
    topic.broken.store(false, Ordering::Relaxed);
    let running = run(&stream, SourceConfig::default(), &store, &topic);
    running.caught_up().await;
    running.drained().await;
    assert_eq!(verify(&stream, &topic), 0);
}

#[tokio::test(start_paused = true)]
async fn a_held_topic_stops_reading_and_expired_iterators_lose_nothing() {
    let stream = ModelStream::new(2, ModelConfig::default());
    let topic = Arc::new(MemoryTopic::new(2));
    for n in 0..400 {
        stream.put(&format!("key-{}", n % 8), vec![n as u8; 100_000]);
    }
    let mut config = SourceConfig::default();
    config.batching.max_buffered_bytes = 4 << 20;
    topic.held.store(true, Ordering::Relaxed);
    let running = run(&stream, config, &memory(), &topic);
    sleep(Duration::from_secs(30)).await;
    let taken = running.metrics.source_bytes.get();
    // The bound, and the answer that crossed it.
    assert!((4 << 20..(4 << 20) + (2 << 20)).contains(&taken), "{taken}");
    let reads = stream.count(Operation::Read);
    sleep(Duration::from_secs(1_000)).await;
    assert_eq!(running.metrics.source_bytes.get(), taken);
    assert_eq!(stream.count(Operation::Read), reads);
    topic.held.store(false, Ordering::Relaxed);
    let opened = stream.count(opening());
    running.caught_up().await;
    assert!(stream.count(opening()) > opened, "none had expired");
    running.drained().await;
    assert_eq!(verify(&stream, &topic), 0);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_stays_held_ends_the_drain_with_an_error() {
    let stream = ModelStream::new(1, ModelConfig::default());
    let topic = Arc::new(MemoryTopic::new(1));
    stream.put_many(10);
    topic.held.store(true, Ordering::Relaxed);
    let running = run(&stream, SourceConfig::default(), &memory(), &topic);
    let metrics = running.metrics.clone();
    until("read", || metrics.source_events.get() == 10).await;
    running.drain.cancel();
    let error = running.failed().await;
    assert!(error.contains("within 25 s of the drain"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_limits_of_a_shard_are_kept() {
    let config = ModelConfig {
        read_limits: Some(ReadLimits::default()),
        ..ModelConfig::default()
    };
    let stream = ModelStream::new(2, config);
    let topic = Arc::new(MemoryTopic::new(2));
    for n in 0..300 {
        stream.put(&format!("key-{}", n % 8), vec![n as u8; 100_000]);
    }
    let running = run(&stream, SourceConfig::default(), &memory(), &topic);
    running.caught_up().await;
    let throttles = running.metrics.source_throttles.get();
    running.drained().await;
    assert_eq!(verify(&stream, &topic), 0);
    assert_eq!(throttles, 0);
}

#[tokio::test(start_paused = true)]
async fn latest_is_pinned_at_the_first_start() {
    let stream = ModelStream::new(2, ModelConfig::default());
    let topic = Arc::new(MemoryTopic::new(2));
    let store = memory();
    stream.put_many(50);
    stream.put.lock().expect("not poisoned").clear();
    sleep(Duration::from_millis(5_500)).await;
    let config = SourceConfig {
        start: Start::Latest,
        ..SourceConfig::default()
    };
    let running = run(&stream, config, &store, &topic);
    running.caught_up().await;
    running.drained().await;
    // Nothing was read yet; what comes while the source is down is new all the same.
    sleep(Duration::from_secs(60)).await;
    for n in 0..40 {
        stream.put(&format!("new-{}", n % 7), vec![n]);
    }
    let running = run(&stream, config, &store, &topic);
    running.caught_up().await;
    running.drained().await;
    assert_eq!(verify(&stream, &topic), 0);
}

#[tokio::test(start_paused = true)]
async fn at_timestamp_begins_there_and_a_checkpoint_wins_over_start() {
    let stream = ModelStream::new(2, ModelConfig::default());
    let topic = Arc::new(MemoryTopic::new(2));
    let store = memory();
    stream.put_many(50);
    sleep(Duration::from_secs(100)).await;
    scale(&stream, 4);
    stream.put_many(50);
    sleep(Duration::from_secs(100)).await;
    stream.put.lock().expect("not poisoned").clear();
    let mut config = SourceConfig {
        start: Start::AtTimestamp(stream.now_ms()),
        ..SourceConfig::default()
    };
    for n in 0..40 {
        stream.put(&format!("new-{}", n % 7), vec![n]);
    }
    let running = run(&stream, config, &store, &topic);
    running.caught_up().await;
    running.drained().await;
    let running = run(&stream, SourceConfig::default(), &store, &topic);
    running.caught_up().await;
    running.drained().await;
    assert_eq!(verify(&stream, &topic), 0);

    config.start = Start::AtTimestamp(stream.now_ms() + 60_000);
    let error = run(&stream, config, &memory(), &topic).failed().await;
    assert!(error.contains("lies in the future"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_older_than_retention_is_refused() {
    let stream = ModelStream::new(2, ModelConfig::default());
    let topic = Arc::new(MemoryTopic::new(2));
    let store = memory();
    stream.put_many(50);
    let running = run(&stream, unhurried(), &store, &topic);
    running.caught_up().await;
    // Idle for days, but there: nothing is lost.
    sleep(Duration::from_secs(72 * 3_600)).await;
    running.drained().await;
    sleep(Duration::from_secs(20 * 3_600)).await;
    let running = run(&stream, unhurried(), &store, &topic);
    running.caught_up().await;
    running.drained().await;
    sleep(Duration::from_secs(25 * 3_600)).await;
    let running = run(&stream, unhurried(), &store, &topic);
    let error = running.failed().await;
    assert!(
        error.contains("the checkpoint is older than the stream's retention of 24 h"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_expired_unread_is_named() {
    let stream = ModelStream::new(1, ModelConfig::default());
    let topic = Arc::new(MemoryTopic::new(1));
    let store = memory();
    stream.put_many(50);
    let running = run(&stream, SourceConfig::default(), &store, &topic);
    running.caught_up().await;
    running.drained().await;
    stream.put_many(5);
    split(&stream, 0, 1 << 100);
    sleep(Duration::from_secs(26 * 3_600)).await;
    let error = run(&stream, SourceConfig::default(), &store, &topic)
        .failed()
        .await;
    assert!(
        error.contains("shard `shardId-000000000000`")
            && error.contains("set `on-loss: gap-and-continue`"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_stream_of_the_same_name_is_not_taken_for_the_old_one() {
    let stream = ModelStream::new(1, ModelConfig::default());
    let topic = Arc::new(MemoryTopic::new(1));
    let store = memory();
    let running = run(&stream, SourceConfig::default(), &store, &topic);
    running.caught_up().await;
    running.drained().await;
    stream
        .with_model(|model, now| {
            model.delete_stream(now, "events")?;
            let create = millpond_kinesis_local::model::CreateStream::provisioned(1);
            model.create_stream(now + 1, "events", create)
        })
        .expect("recreated");
    let error = run(&stream, SourceConfig::default(), &store, &topic)
        .failed()
        .await;
    assert!(
        error.contains("is about an earlier stream `events`"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_no_repetition_helps_is_said_at_once() {
    let credentials = Failure {
        step: FailedStep::Credentials,
        code: None,
        status: None,
        retry_after: None,
        message: "AWS credentials cannot be had: none loaded".to_owned(),
    };
    for (failure, said) in [
        (
            service("ResourceNotFoundException", 400),
            "stream `events` in region `us-east-1` does not exist",
        ),
        (
            service("UnrecognizedClientException", 400),
            "credentials do not give access to stream `events`",
        ),
        (credentials, "AWS credentials cannot be had"),
        (
            service("AccessDeniedException", 400),
            "`kinesis:DescribeStreamSummary` is not allowed on stream `events`",
        ),
    ] {
        let stream = ModelStream::new(1, ModelConfig::default());
        stream.fail(Operation::Describe, vec![failure]);
        let topic = Arc::new(MemoryTopic::new(1));
        let error = run(&stream, SourceConfig::default(), &memory(), &topic)
            .failed()
            .await;
        assert!(error.contains(said), "{error}");
        assert_eq!(stream.count(Operation::Describe), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_the_wait_for_an_endpoint_that_is_down() {
    let stream = ModelStream::new(1, ModelConfig::default());
    stream.fail(Operation::Describe, vec![unreachable(); 1_000]);
    let topic = Arc::new(MemoryTopic::new(1));
    let running = run(&stream, SourceConfig::default(), &memory(), &topic);
    sleep(Duration::from_secs(300)).await;
    assert!(stream.count(Operation::Describe) > 20);
    running.drained().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_source_asks_seldom_and_lists_once_a_minute() {
    let stream = ModelStream::new(1, ModelConfig::default());
    let topic = Arc::new(MemoryTopic::new(1));
    let running = run(&stream, SourceConfig::default(), &memory(), &topic);
    running.caught_up().await;
    let (reads, lists, opened) = (
        stream.count(Operation::Read),
        stream.count(Operation::ListShards),
        stream.count(opening()),
    );
    sleep(Duration::from_secs(600)).await;
    let reads = stream.count(Operation::Read) - reads;
    let lists = stream.count(Operation::ListShards) - lists;
    let opened = stream.count(opening()) - opened;
    match is_pushed() {
        // Renewed before five minutes are over.
        true => assert_eq!((reads, opened), (0, 2)),
        false => assert!((590..=630).contains(&reads) && opened == 0, "{reads}"),
    }
    assert!((9..=10).contains(&lists), "{lists}");
    running.drained().await;
}

/// `--until-caught-up` ends though producers are faster than the source may read: what counts is what was there.
#[tokio::test(start_paused = true)]
async fn what_was_there_at_the_start_is_reached_while_producers_are_faster() {
    const AT_START: usize = 500;
    let stream = ModelStream::new(1, ModelConfig::default());
    let topic = Arc::new(MemoryTopic::new(2));
    let store = memory();
    stream.put_many(AT_START);
    sleep(Duration::from_secs(5)).await;
    let mut config = small_batches();
    config.pace.target_bytes = 1_000;
    config.pace.bytes_per_second = 1_000;
    let running = run(&stream, config, &store, &topic);
    let mut rounds = 0;
    while !running.is_caught_up() {
        assert!(!running.task.is_finished());
        rounds += 1;
        assert!(rounds < 6_000, "it reads on and on");
        // Three times what is read.
        stream.put_many(30);
        sleep(Duration::from_millis(100)).await;
    }
    let stored = topic.records().len();
    assert!(stored >= AT_START, "{stored}");
    running.killed().await;
}

#[tokio::test(start_paused = true)]
async fn many_shards_start_together() {
    let stream = ModelStream::new(1_000, ModelConfig::default());
    let topic = Arc::new(MemoryTopic::new(4));
    let dir = tempfile::tempdir().expect("directory");
    let store: Arc<dyn CheckpointStore> = Arc::new(StoredCheckpoints::new(dir.path()));
    stream.put_many(100);
    let running = run(&stream, SourceConfig::default(), &store, &topic);
    running.caught_up().await;
    running.drained().await;
    assert_eq!(verify(&stream, &topic), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Random lives: reshards, faults, slow and failing appends, kills and drains.
    #[test]
    fn whatever_happens_nothing_is_lost_or_out_of_order(
        shards in 1u32..4,
        partitions in 1u32..5,
        steps in prop::collection::vec((0u8..8, any::<u16>()), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("runtime");
        runtime.block_on(async {
            let stream = ModelStream::new(shards, ModelConfig::default());
            let topic = Arc::new(MemoryTopic::new(partitions));
            let store = memory();
            let mut running = run(&stream, small_batches(), &store, &topic);
            for (step, pick) in steps {
                let open = || stream.parents().len() as u32;
                match step {
                    0 => stream.put_many(usize::from(pick % 300)),
                    1 => sleep(Duration::from_millis(u64::from(pick % 3_000))).await,
                    2 => topic.failures.store(u32::from(pick % 6), Ordering::Relaxed),
                    3 => topic.delay_ms.store(u64::from(pick % 800), Ordering::Relaxed),
                    4 => stream.break_reading(&[
                        service("ExpiredIteratorException", 400),
                        unreachable(),
                        service("ProvisionedThroughputExceededException", 400),
                    ]),
                    5 => {
                        running.killed().await;
                        running = run(&stream, small_batches(), &store, &topic);
                    }
                    6 => {
                        running.drained().await;
                        running = run(&stream, small_batches(), &store, &topic);
                    }
                    _ => {
                        // Doubling and halving are refused at the limits of the API: that is fine here.
                        let target = if pick % 2 == 0 { shards * 2 } else { shards };
                        let _ = stream.with_model(|model, now| {
                            model.update_shard_count(now, "events", target)
                        });
                    }
                }
                assert!(open() >= shards);
            }
            topic.delay_ms.store(0, Ordering::Relaxed);
            running.drained().await;
            let running = run(&stream, small_batches(), &store, &topic);
            running.caught_up().await;
            running.drained().await;
            verify(&stream, &topic);
        });
    }
}
