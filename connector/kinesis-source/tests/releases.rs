//! The checkpoint follows what the topic's consumers have in safety: `checkpoint-after: table`.

mod support;

use std::sync::Arc;
use std::time::Duration;

use millpond_connector::connector::Source;
use millpond_kinesis_local::model::ShardId;
use millpond_kinesis_source::config::{CheckpointAfter, SourceConfig};
use support::topic::MemoryTopic;
use support::world::World;
use support::{Running, context, spawn, until};
use tokio::time::sleep;

impl World {
    fn run(&self, checkpoint_after: CheckpointAfter) -> Running {
        let mut config = SourceConfig {
            checkpoint_after,
            ..SourceConfig::default()
        };
        config.batching.batch_bytes = 2_000;
        let source: Box<dyn Source> = Box::new(self.source(config));
        spawn(source, context(&self.topic))
    }

    async fn is_begun(&self) -> bool {
        let saved = self.store.load("events").await.expect("loads");
        let saved = saved.expect("saved");
        saved
            .shards
            .values()
            .any(|shard| format!("{:?}", shard.progress).starts_with("Delivered"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_topic_costs_a_replay_of_what_was_not_released() {
    let mut world = World::new(3, 2);
    world.stream.put_many(500);
    let running = world.run(CheckpointAfter::Table);
    until("read", || world.topic.len() == 500).await;
    sleep(Duration::from_secs(60)).await;
    // In the topic, and nowhere else: the checkpoint has not moved.
    assert!(!world.is_begun().await);
    assert!(!running.is_caught_up());
    running.killed().await;
    world.topic = Arc::new(MemoryTopic::new(2));
    let running = world.run(CheckpointAfter::Table);
    until("read again", || world.topic.len() == 500).await;
    world.topic.release_all();
    running.caught_up().await;
    assert!(world.is_begun().await);
    // More comes, is not released, and is lost with the topic.
    world.stream.put_many(300);
    until("read", || world.topic.len() == 800).await;
    sleep(Duration::from_secs(30)).await;
    running.drained().await;
    assert_eq!(world.verify(), 0);
    let kept = world.topic.clone();
    world.topic = Arc::new(MemoryTopic::new(2));
    let running = world.run(CheckpointAfter::Table);
    until("the rest is read again", || world.topic.len() == 300).await;
    running.killed().await;
    // The same events under the same origins: whoever has some of them drops them.
    let before = kept.records().into_iter().map(|(_, _, key, _)| key);
    let before: std::collections::BTreeSet<String> = before.collect();
    let again = world.topic.records();
    assert!(again.iter().all(|(_, _, key, _)| before.contains(key)));
}

#[tokio::test(start_paused = true)]
async fn what_is_released_is_not_sent_again_and_memory_stays_bounded() {
    let world = World::new(2, 2);
    // Far more batches and answers than are known one by one.
    let running = world.run(CheckpointAfter::Table);
    for round in 0..30 {
        world.stream.put_many(1_500);
        until("read", || world.topic.len() == 1_500 * (round + 1)).await;
    }
    world.topic.release_all();
    running.caught_up().await;
    sleep(Duration::from_secs(10)).await;
    running.drained().await;
    let running = world.run(CheckpointAfter::Table);
    running.caught_up().await;
    running.drained().await;
    assert_eq!(world.verify(), 0);
}

#[tokio::test(start_paused = true)]
async fn children_wait_until_their_parents_are_released() {
    let world = World::new(1, 2);
    world.stream.put_many(100);
    let running = world.run(CheckpointAfter::Table);
    until("read", || world.topic.len() == 100).await;
    let (shard, at) = (ShardId::new(0), (1u128 << 100).to_string());
    world
        .stream
        .with_model(|model, now| model.split_shard(now, "events", shard, &at))
        .expect("split");
    world.stream.put_many(100);
    sleep(Duration::from_secs(120)).await;
    assert_eq!(world.topic.len(), 100);
    world.topic.release_all();
    until("children are read", || world.topic.len() == 200).await;
    world.topic.release_all();
    running.caught_up().await;
    running.drained().await;
    assert_eq!(world.verify(), 0);
}

#[tokio::test(start_paused = true)]
async fn beside_old_consumer_offsets_nothing_is_sent_until_the_consumers_have_noticed() {
    let mut world = World::new(1, 2);
    world.stream.put_many(100);
    let running = world.run(CheckpointAfter::Table);
    until("read", || world.topic.len() == 100).await;
    world.topic.release_all();
    running.caught_up().await;
    running.drained().await;
    world.stream.put_many(50);
    let released = world.topic.released.lock().expect("not poisoned").clone();
    world.topic = Arc::new(MemoryTopic::new(2));
    *world.topic.released.lock().expect("not poisoned") = released;
    let running = world.run(CheckpointAfter::Table);
    sleep(Duration::from_secs(300)).await;
    assert_eq!(world.topic.len(), 0);
    running.drained().await;
    // Nothing was passed over by waiting, nor by ending meanwhile.
    let running = world.run(CheckpointAfter::Table);
    sleep(Duration::from_secs(10)).await;
    world.topic.release_all();
    until("the rest is read", || world.topic.len() == 50).await;
    world.topic.release_all();
    running.caught_up().await;
    running.drained().await;
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_emptied_under_way_ends_the_source_and_costs_a_replay() {
    for after in [CheckpointAfter::Table, CheckpointAfter::Topic] {
        let world = World::new(1, 2);
        world.stream.put_many(100);
        let running = world.run(after);
        until("read", || world.topic.len() == 100).await;
        sleep(Duration::from_secs(10)).await;
        world.topic.empty();
        world.stream.put_many(10);
        let error = running.failed().await;
        assert!(
            error.contains("made anew or lost records while the source ran"),
            "{error}"
        );
        let says_lost = error.contains("the checkpoint is past them");
        assert_eq!(says_lost, after == CheckpointAfter::Topic, "{error}");
        let stored = world.topic.len();
        let running = world.run(after);
        let wanted = match after {
            CheckpointAfter::Table => stored + 110,
            CheckpointAfter::Topic => stored + 10,
        };
        until("read again", || world.topic.len() == wanted).await;
        world.topic.release_all();
        running.caught_up().await;
        running.drained().await;
    }
}
