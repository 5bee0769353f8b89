//! Events that the stream removed before they were read, on a stopped clock.

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use millpond_connector::connector::Source;
use millpond_format::stream_gap::{StreamGap, StreamGapKind};
use millpond_kinesis_local::model::ShardId;
use millpond_kinesis_source::classify::Operation;
use millpond_kinesis_source::config::SourceConfig;
use millpond_kinesis_source::loss::OnLoss;
use support::stream::service;
use support::world::World;
use support::{Running, context, spawn};
use tokio::time::sleep;

const HOUR: Duration = Duration::from_secs(3_600);

impl World {
    fn run(&self, on_loss: OnLoss) -> Running {
        let mut config = SourceConfig {
            on_loss,
            ..SourceConfig::default()
        };
        config.pace.idle_interval = Duration::from_secs(30);
        let source: Box<dyn Source> = Box::new(self.source(config));
        spawn(source, context(&self.topic))
    }

    async fn read_all(&self, on_loss: OnLoss) -> u64 {
        let running = self.run(on_loss);
        running.caught_up().await;
        let gaps = running.metrics.stream_gaps.get();
        running.drained().await;
        gaps
    }

    fn gaps(&self) -> Vec<StreamGap> {
        let records = self.topic.records().into_iter();
        records
            .filter_map(|(_, _, key, _)| StreamGap::parse(key.as_bytes()))
            .collect()
    }

    /// What was put under this name is lost, and is not looked for.
    fn forget(&self, name: &str) {
        let mut put = self.stream.put.lock().expect("not poisoned");
        put.retain(|key, _| !key.starts_with(name));
    }

    /// What was put and not forgotten is in the topic, or was read before.
    fn split(&self, shard: u32, at: u128) {
        let (shard, at) = (ShardId::new(shard), at.to_string());
        self.stream
            .with_model(|model, now| model.split_shard(now, "events", shard, &at))
            .expect("split");
    }
}

/// Events under keys that no event before them had.
fn put_new(world: &World, count: u8, name: &str) {
    for n in 0..count {
        world.stream.put(&format!("{name}-{}", n % 9), vec![n; 8]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_older_than_retention_becomes_a_gap_with_its_bounds() {
    let world = World::new(2, 2);
    put_new(&world, 40, "read");
    assert_eq!(world.read_all(OnLoss::Fail).await, 0);
    let read_ms = world.stream.now_ms();
    put_new(&world, 40, "lost");
    world.forget("lost");
    sleep(26 * HOUR).await;
    put_new(&world, 40, "left");
    let error = world.run(OnLoss::Fail).failed().await;
    assert!(error.contains("on-loss: gap-and-continue"), "{error}");
    assert_eq!(world.gaps(), []);
    assert_eq!(world.read_all(OnLoss::GapAndContinue).await, 2);
    let gaps = world.gaps();
    assert_eq!(gaps.len(), 2, "{gaps:?}");
    for gap in &gaps {
        assert_eq!(gap.kind, StreamGapKind::Expired);
        assert!(gap.after.is_some() && gap.before.is_some(), "{gap:?}");
        assert!(
            gap.from_ms
                .is_some_and(|from| (from - read_ms).abs() < 60_000)
        );
        assert!(gap.to_ms >= Some(world.stream.now_ms() - 60_000), "{gap:?}");
    }
    // What was read before is there once, what is left, too; and a restart finds nothing more.
    assert_eq!(world.verify(), 0);
    assert_eq!(world.read_all(OnLoss::Fail).await, 0);
    put_new(&world, 10, "later");
    assert_eq!(world.read_all(OnLoss::Fail).await, 0);
    assert_eq!(world.verify(), 0);
    assert_eq!(world.gaps().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn events_sent_and_trimmed_before_they_were_checkpointed_keep_their_ordinals() {
    let world = World::new(1, 2);
    put_new(&world, 40, "sent");
    // Read and pinned, but the topic does not answer: they may be stored or not.
    world.topic.held.store(true, Ordering::Relaxed);
    let running = world.run(OnLoss::GapAndContinue);
    let metrics = running.metrics.clone();
    support::until("read", || metrics.source_events.get() > 0).await;
    sleep(Duration::from_secs(5)).await;
    running.killed().await;
    world.topic.held.store(false, Ordering::Relaxed);
    world.forget("sent");
    sleep(26 * HOUR).await;
    put_new(&world, 40, "left");
    assert_eq!(world.read_all(OnLoss::GapAndContinue).await, 1);
    let gaps = world.gaps();
    assert_eq!(gaps[0].kind, StreamGapKind::Missing, "{gaps:?}");
    assert_eq!(gaps[0].after, None);
    assert_eq!(world.verify(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_gap_without_anything_behind_it_is_recorded_once() {
    let world = World::new(1, 2);
    put_new(&world, 10, "read");
    world.read_all(OnLoss::Fail).await;
    sleep(30 * HOUR).await;
    assert_eq!(world.read_all(OnLoss::GapAndContinue).await, 1);
    assert_eq!(world.gaps()[0].before, None);
    sleep(HOUR).await;
    put_new(&world, 10, "later");
    assert_eq!(world.read_all(OnLoss::Fail).await, 0);
    assert_eq!(world.topic.len(), 21);
}

#[tokio::test(start_paused = true)]
async fn shards_closed_and_trimmed_are_recorded_those_never_seen_too() {
    let world = World::new(1, 2);
    put_new(&world, 20, "read");
    world.read_all(OnLoss::Fail).await;
    put_new(&world, 20, "lost");
    world.split(0, 1 << 126);
    sleep(HOUR).await;
    world.split(1, 1 << 100);
    world.forget("lost");
    sleep(28 * HOUR).await;
    put_new(&world, 40, "left");
    let error = world.run(OnLoss::Fail).failed().await;
    assert!(error.contains("lost to retention"), "{error}");
    world.read_all(OnLoss::GapAndContinue).await;
    let mut gaps = world.gaps();
    gaps.sort_by(|one, other| one.shard.cmp(&other.shard));
    let found: Vec<_> = gaps
        .iter()
        .map(|gap| (gap.shard.as_str(), gap.kind))
        .collect();
    // The shards that are left were open long before the oldest record that is left.
    assert_eq!(
        found,
        [
            ("shardId-000000000000", StreamGapKind::Gone),
            ("shardId-000000000001", StreamGapKind::Unseen),
            ("shardId-000000000002", StreamGapKind::Expired),
            ("shardId-000000000003", StreamGapKind::Expired),
            ("shardId-000000000004", StreamGapKind::Expired),
        ]
    );
    assert!(gaps[0].after.is_some() && gaps[0].before.is_none());
    assert_eq!(world.verify(), 0);
    assert_eq!(world.read_all(OnLoss::Fail).await, 0);
    assert_eq!(world.gaps().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_stale_costs_no_shard() {
    for on_loss in [OnLoss::Fail, OnLoss::GapAndContinue] {
        let world = World::new(2, 2);
        put_new(&world, 40, "read");
        world.read_all(on_loss).await;
        put_new(&world, 40, "more");
        // The listing at the start leaves a shard out, and its iterator is refused.
        world.stream.stale_pages.store(1, Ordering::Relaxed);
        world.stream.fail(
            Operation::ShardIterator,
            vec![service("ResourceNotFoundException", 400); 3],
        );
        assert_eq!(world.read_all(on_loss).await, 0);
        assert_eq!(world.gaps(), []);
        assert_eq!(world.verify(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_fails_is_told_again_and_a_kill_before_that_finds_the_loss_again() {
    let world = World::new(1, 2);
    put_new(&world, 20, "read");
    world.read_all(OnLoss::Fail).await;
    put_new(&world, 20, "lost");
    world.forget("lost");
    sleep(26 * HOUR).await;
    put_new(&world, 20, "left");
    world.topic.held.store(true, Ordering::Relaxed);
    let running = world.run(OnLoss::GapAndContinue);
    sleep(Duration::from_secs(20)).await;
    running.killed().await;
    world.topic.held.store(false, Ordering::Relaxed);
    world.topic.failures.store(4, Ordering::Relaxed);
    world.read_all(OnLoss::GapAndContinue).await;
    let keys: std::collections::BTreeSet<_> = world.gaps().iter().map(StreamGap::key).collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert_eq!(world.verify(), 0);
}
