//! What fan-out adds to the assertions that polling passes, too (`session_by_fan_out.rs`).

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use millpond_connector::connector::Source;
use millpond_kinesis_local::model::{ConsumerName, HalfOpen, MAX_CONSUMERS, ModelConfig, ShardId};
use millpond_kinesis_source::KinesisSource;
use millpond_kinesis_source::checkpoint::CheckpointStore;
use millpond_kinesis_source::checkpoint_memory::MemoryCheckpoints;
use millpond_kinesis_source::classify::{FailedStep, Operation};
use millpond_kinesis_source::config::SourceConfig;
use millpond_kinesis_source::fan_out::{FallBack, FanOut};
use support::fan_out::fan_out;
use support::stream::{ModelStream, service, unreachable};
use support::topic::MemoryTopic;
use support::{Running, check, context, spawn, until};
use tokio::time::{Instant, sleep};

struct Fan {
    stream: Arc<ModelStream>,
    topic: Arc<MemoryTopic>,
    store: Arc<dyn CheckpointStore>,
    fan_out: FanOut,
}

impl Fan {
    fn new(shards: u32, model: ModelConfig) -> Self {
        let stream = ModelStream::new(shards, model);
        Self {
            fan_out: fan_out(&stream),
            stream,
            topic: Arc::new(MemoryTopic::new(2)),
            store: Arc::new(MemoryCheckpoints::default()),
        }
    }

    fn falling_back(mut self) -> Self {
        self.fan_out.fall_back = FallBack::Polling;
        self
    }

    fn run(&self) -> Running {
        let mut config = SourceConfig::default();
        config.batching.batch_bytes = 2_000;
        let source = KinesisSource::new(self.stream.clone(), config, self.store.clone());
        let source = source.with_clock(self.stream.clock());
        let source: Box<dyn Source> = Box::new(source.with_fan_out(self.fan_out.clone()));
        spawn(source, context(&self.topic))
    }

    fn half_open(&self, which: HalfOpen) {
        let done = self.stream.with_model(|model, _| {
            model.half_open(which);
            Ok(())
        });
        done.expect("half open");
    }

    fn is_registered(&self) -> bool {
        let name = ConsumerName::InStream {
            stream_name: "events",
            name: "source",
        };
        self.stream
            .ask(|model, now| model.describe_consumer(now, name))
            .is_ok()
    }

    /// Waits until so many events are in the topic; answers how long that took.
    async fn until(&self, events: usize) -> Duration {
        let began = Instant::now();
        until("the events are there", || self.topic.len() >= events).await;
        began.elapsed()
    }

    fn verify(&self) -> usize {
        let put = self.stream.put.lock().expect("not poisoned");
        check(&self.topic, &put, &self.stream.parents())
    }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_is_waited_for_and_removed_only_when_that_is_wanted() {
    for removes in [false, true] {
        let mut fan = Fan::new(
            1,
            ModelConfig {
                transition_ms: 3_000,
                ..ModelConfig::default()
            },
        );
        fan.fan_out.removes_consumer = removes;
        // The stream itself is in the making at first.
        sleep(Duration::from_secs(4)).await;
        fan.stream.put_many(50);
        let running = fan.run();
        running.caught_up().await;
        assert!(fan.is_registered());
        assert!(
            fan.stream.count(Operation::DescribeConsumer) > 2,
            "it was not waited for"
        );
        running.drained().await;
        sleep(Duration::from_secs(4)).await;
        assert_eq!(fan.is_registered(), !removes);
        // A second life finds the consumer, or makes it anew.
        fan.stream.put_many(50);
        let running = fan.run();
        fan.until(100).await;
        running.drained().await;
        let registered = if removes { 2 } else { 1 };
        assert_eq!(fan.stream.count(Operation::RegisterConsumer), registered);
        assert_eq!(fan.verify(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn events_are_there_at_once() {
    let fan = Fan::new(4, ModelConfig::default());
    let running = fan.run();
    running.caught_up().await;
    for round in 1..=20 {
        fan.stream.put_many(100);
        // The linger of a batch is the most of it.
        let took = fan.until(100 * round).await;
        assert!(took < Duration::from_millis(300), "{took:?}");
    }
    running.drained().await;
    assert_eq!(fan.stream.count(Operation::Read), 0);
    assert_eq!(fan.verify(), 0);
}

#[tokio::test(start_paused = true)]
async fn renewals_lose_and_repeat_nothing() {
    let fan = Fan::new(2, ModelConfig::default());
    let running = fan.run();
    for _ in 0..400 {
        fan.stream.put_many(10);
        sleep(Duration::from_secs(3)).await;
    }
    fan.until(4_000).await;
    let metrics = running.metrics.clone();
    running.drained().await;
    // 20 minutes, two shards, and a subscription lives for less than five.
    assert!(
        (8..=12).contains(&metrics.subscriptions.get()),
        "{}",
        metrics.subscriptions.get()
    );
    assert_eq!(metrics.subscriptions_broken.get(), 0);
    assert_eq!(fan.verify(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_half_open_subscription_is_noticed_and_replaced() {
    let fan = Fan::new(2, ModelConfig::default());
    let running = fan.run();
    running.caught_up().await;
    fan.half_open(HalfOpen::Existing);
    fan.stream.put_many(100);
    let took = fan.until(100).await;
    assert!(
        took > Duration::from_secs(10) && took < Duration::from_secs(25),
        "{took:?}"
    );
    assert_eq!(running.metrics.subscriptions_broken.get(), 2);
    running.drained().await;
    assert_eq!(fan.verify(), 0);
}

#[tokio::test(start_paused = true)]
async fn while_subscriptions_are_silent_shards_are_polled_where_that_is_wanted() {
    let fan = Fan::new(2, ModelConfig::default()).falling_back();
    let running = fan.run();
    running.caught_up().await;
    fan.half_open(HalfOpen::All);
    fan.stream.put_many(100);
    let took = fan.until(100).await;
    assert!(took < Duration::from_secs(90), "{took:?}");
    assert_eq!(running.metrics.source_fallbacks.get(), 2);
    // Tried again each five minutes, and polled again at once.
    for round in 2..=20 {
        fan.stream.put_many(100);
        sleep(Duration::from_secs(60)).await;
        assert_eq!(fan.topic.len(), 100 * round);
    }
    let fallbacks = running.metrics.source_fallbacks.get();
    assert!((6..=10).contains(&fallbacks), "{fallbacks}");
    fan.half_open(HalfOpen::Existing);
    sleep(Duration::from_secs(330)).await;
    let reads = fan.stream.count(Operation::Read);
    fan.stream.put_many(100);
    fan.until(2_100).await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(
        fan.stream.count(Operation::Read),
        reads,
        "it is still polled"
    );
    running.drained().await;
    assert_eq!(fan.verify(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_a_way_back_silence_is_waited_out() {
    let fan = Fan::new(1, ModelConfig::default());
    let running = fan.run();
    running.caught_up().await;
    fan.half_open(HalfOpen::All);
    fan.stream.put_many(100);
    sleep(Duration::from_secs(600)).await;
    assert_eq!((fan.topic.len(), fan.stream.count(Operation::Read)), (0, 0));
    assert!(!running.task.is_finished());
    fan.half_open(HalfOpen::Existing);
    let took = fan.until(100).await;
    assert!(took < Duration::from_secs(40), "{took:?}");
    running.drained().await;
    assert_eq!(fan.verify(), 0);
}

fn fill_consumers(fan: &Fan) {
    for n in 0..MAX_CONSUMERS {
        let name = format!("other-{n}");
        let made = fan
            .stream
            .with_model(|model, now| model.register_consumer(now, "events", &name));
        made.expect("registered");
    }
}

#[tokio::test(start_paused = true)]
async fn too_many_consumers_end_the_start_or_are_read_around() {
    let fan = Fan::new(1, ModelConfig::default());
    fill_consumers(&fan);
    let error = fan.run().failed().await;
    assert!(
        error.contains("consumer `source` cannot be registered on stream `events`")
            && error.contains("`fall-back: polling`"),
        "{error}"
    );
    let fan = Fan::new(1, ModelConfig::default()).falling_back();
    fill_consumers(&fan);
    fan.stream.put_many(100);
    let running = fan.run();
    running.caught_up().await;
    running.drained().await;
    assert_eq!(fan.stream.count(Operation::Subscribe), 0);
    assert_eq!(fan.verify(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_passes_is_no_limit_of_consumers() {
    let fan = Fan::new(1, ModelConfig::default());
    let limit = service("LimitExceededException", 400);
    fan.stream.fail(Operation::RegisterConsumer, vec![limit; 3]);
    fan.stream.put_many(10);
    let running = fan.run();
    running.caught_up().await;
    running.drained().await;
    assert_eq!(fan.verify(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_permission_that_is_missing_is_named_or_read_around() {
    for call in [
        Operation::DescribeConsumer,
        Operation::RegisterConsumer,
        Operation::Subscribe,
    ] {
        let denied = || vec![service("AccessDeniedException", 400); 1_000];
        let fan = Fan::new(1, ModelConfig::default());
        fan.stream.fail(call, denied());
        let error = fan.run().failed().await;
        let said = format!("`kinesis:{}` is not allowed", call.name());
        assert!(error.contains(&said), "{error}");
        let fan = Fan::new(1, ModelConfig::default()).falling_back();
        fan.stream.fail(call, denied());
        fan.stream.put_many(100);
        let running = fan.run();
        running.caught_up().await;
        running.drained().await;
        assert_eq!(fan.verify(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_in_use_is_waited_for() {
    let fan = Fan::new(2, ModelConfig::default());
    fan.stream.put_many(100);
    // The one before died a moment ago: its subscriptions are too young to be taken over.
    let running = fan.run();
    fan.until(10).await;
    running.killed().await;
    let began = Instant::now();
    let running = fan.run();
    running.caught_up().await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    running.drained().await;
    fan.verify();
    assert!(
        fan.stream.count(Operation::Subscribe) > 4,
        "none was refused"
    );
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_somebody_removed_is_registered_again() {
    let fan = Fan::new(2, ModelConfig::default());
    fan.stream.put_many(100);
    let running = fan.run();
    running.caught_up().await;
    let removed = fan.stream.with_model(|model, now| {
        let name = ConsumerName::InStream {
            stream_name: "events",
            name: "source",
        };
        model.deregister_consumer(now, name)
    });
    removed.expect("removed");
    fan.stream.put_many(100);
    fan.until(200).await;
    assert!(fan.is_registered());
    running.drained().await;
    assert_eq!(fan.verify(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_takes_nothing_outlasts_subscriptions() {
    let fan = Fan::new(2, ModelConfig::default());
    fan.topic.held.store(true, Ordering::Relaxed);
    for n in 0..400 {
        fan.stream
            .put(&format!("key-{}", n % 8), vec![n as u8; 100_000]);
    }
    let running = fan.run();
    sleep(Duration::from_secs(60)).await;
    let taken = running.metrics.source_bytes.get();
    // `max-buffered`, and the event that crossed it.
    assert!(taken < (32 << 20) + (2 << 20), "{taken}");
    sleep(Duration::from_secs(900)).await;
    assert_eq!(running.metrics.source_bytes.get(), taken);
    fan.topic.held.store(false, Ordering::Relaxed);
    running.caught_up().await;
    running.drained().await;
    assert_eq!(fan.verify(), 0);
}

/// An end that is none would lose the rest of the shard.
#[tokio::test(start_paused = true)]
async fn events_that_cannot_be_read_are_asked_for() {
    let fan = Fan::new(1, ModelConfig::default());
    let running = fan.run();
    running.caught_up().await;
    let unreadable = || {
        let mut failure = unreachable();
        failure.step = FailedStep::Answer;
        failure
    };
    fan.stream.put_many(100);
    let half = (1u128 << 127).to_string();
    let split = fan
        .stream
        .with_model(|model, now| model.split_shard(now, "events", ShardId::new(0), &half));
    split.expect("split");
    for _ in 0..3 {
        let mut broken = fan.stream.broken_pushes.lock().expect("not poisoned");
        broken.push_back(unreadable());
    }
    fan.stream.put_many(100);
    let took = fan.until(200).await;
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert!(fan.stream.count(Operation::Read) > 0);
    running.drained().await;
    assert_eq!(fan.verify(), 0);
}
