//! A lease is tied to progress, on a stopped clock: the topic takes nothing of one source, or of nobody, or
//! slowly, and its shards go to somebody else or stay.
#![allow(missing_docs, reason = "tests")]

#[path = "support/scene.rs"]
mod scene;
#[path = "support/sharing.rs"]
mod sources;
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use scene::Scene;
use sources::Instance;
use tokio::time::{Instant, sleep};

/// Longest until a shard that stands still is read by another: 31 s, a view, and the lease duration when it was not
/// the other one's turn.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(45);

/// Events that were put before the `count`th and are not in the topic.
fn missing(scene: &Scene, count: usize) -> usize {
    let records = scene.topic.records().into_iter();
    let values: BTreeSet<Vec<u8>> = records.map(|(_, _, _, value)| value).collect();
    let events = (0..count).map(|n| format!("event {n}").into_bytes());
    events.filter(|event| !values.contains(event)).count()
}

/// Events come one by one, so that every read has something to answer, until all that are there now are delivered.
async fn trickle(scene: &Scene, limit: Duration) -> Duration {
    let begun = Instant::now();
    let count = scene.put();
    loop {
        let missing = missing(scene, count);
        if missing == 0 {
            return begun.elapsed();
        }
        assert!(
            begun.elapsed() < limit,
            "{missing} of {count} are missing after {limit:?}"
        );
        scene.stream.put_many(2);
        sleep(Duration::from_millis(200)).await;
    }
}

/// What this one still has on its way arrives, and changes nothing (I2, I5, I11).
async fn late_ones_change_nothing(scene: &Scene, stale: &Instance) {
    scene.all_delivered().await;
    // What is delivered is checkpointed within five seconds.
    sleep(Duration::from_secs(10)).await;
    let (rows, _) = scene.table.snapshot();
    let before = scene.topic.len();
    stale.appends.open();
    support::until("what was late is stored", || scene.topic.len() > before).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(scene.table.snapshot().0, rows);
}

#[tokio::test(start_paused = true)]
async fn a_shard_is_given_up_by_whom_the_topic_takes_nothing_though_it_reads() {
    let scene = Scene::new(2, 2);
    let [stuck, other] = [scene.start("a"), scene.start("b")];
    scene.holds(&stuck, 1).await;
    scene.holds(&other, 1).await;
    scene.stream.put_many(100);
    scene.all_delivered().await;
    stuck.appends.close();
    scene.stream.put_many(50);
    let taken = trickle(&scene, GIVEN_UP_WITHIN).await;
    assert!(taken > Duration::from_secs(25), "not waited for: {taken:?}");
    scene.holds(&other, 2).await;
    // It takes nothing as long as its topic is silent.
    for _ in 0..30 {
        sleep(Duration::from_secs(10)).await;
        scene.stream.put_many(2);
        scene.holds(&other, 2).await;
    }
    late_ones_change_nothing(&scene, &stuck).await;
    scene.holds(&stuck, 1).await;
    scene.stream.put_many(100);
    scene.all_delivered().await;
    stuck.running.drained().await;
    other.running.drained().await;
    assert!(scene.verify() > 0, "nothing came late: this shows nothing");
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_cannot_be_handed_over_is_let_go() {
    let scene = Scene::new(2, 2);
    let stuck = scene.start("a");
    scene.holds(&stuck, 2).await;
    scene.stream.put_many(100);
    scene.all_delivered().await;
    stuck.appends.close();
    scene.stream.put_many(100);
    sleep(Duration::from_secs(2)).await;
    // It asks for a shard at once: what was read of it is on its way, and stays there.
    let other = scene.start("b");
    trickle(&scene, GIVEN_UP_WITHIN).await;
    scene.holds(&other, 2).await;
    late_ones_change_nothing(&scene, &stuck).await;
    scene.holds(&stuck, 1).await;
    stuck.running.drained().await;
    other.running.drained().await;
    assert!(scene.verify() > 0, "nothing came late: this shows nothing");
}

/// Alone there is nobody to give a shard up to.
#[tokio::test(start_paused = true)]
async fn one_alone_keeps_its_shards() {
    let scene = Scene::new(2, 1);
    let alone = scene.start("a");
    scene.holds(&alone, 2).await;
    let before = scene.changes_of_hands();
    alone.appends.close();
    scene.stream.put_many(100);
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(scene.changes_of_hands(), before);
    alone.appends.open();
    scene.all_delivered().await;
    alone.running.drained().await;
    assert_eq!(scene.verify(), 0);
}

/// A topic that is full for everybody: the leases do not wander, and all goes on when there is room again.
#[tokio::test(start_paused = true)]
async fn a_topic_that_takes_nothing_of_anybody_moves_no_shard_to_and_fro() {
    let scene = Scene::new(4, 2);
    let instances = ["a", "b", "c"].map(|id| scene.start(id));
    scene.stream.put_many(400);
    scene.all_delivered().await;
    sleep(Duration::from_secs(60)).await;
    let before = scene.changes_of_hands();
    instances.iter().for_each(|one| one.appends.close());
    for _ in 0..360 {
        scene.stream.put_many(4);
        sleep(Duration::from_secs(10)).await;
    }
    let moved = scene.changes_of_hands() - before;
    assert!(
        moved <= 4,
        "{moved} changes of hands of four shards in an hour"
    );
    instances.iter().for_each(|one| one.appends.open());
    trickle(&scene, Duration::from_secs(70)).await;
    scene.all_delivered().await;
    for one in instances {
        one.running.drained().await;
    }
    scene.verify();
}

/// Each batch takes longer than the patience: the patience grows until one comes through.
#[tokio::test(start_paused = true)]
async fn a_topic_that_is_slow_for_everybody_still_moves() {
    let scene = Scene::new(2, 1);
    let instances = ["a", "b"].map(|id| scene.start(id));
    scene.stream.put_many(100);
    scene.all_delivered().await;
    let before = scene.changes_of_hands();
    let begun = Instant::now();
    for _ in 0..120 {
        instances.iter().for_each(|one| one.appends.close());
        scene.stream.put_many(2);
        sleep(Duration::from_secs(45)).await;
        instances.iter().for_each(|one| one.appends.open());
        sleep(Duration::from_millis(500)).await;
    }
    let moved = scene.changes_of_hands() - before;
    assert!(
        moved <= 10,
        "{moved} changes of hands in {:?}",
        begun.elapsed()
    );
    let missing = missing(&scene, scene.put());
    assert!(
        missing <= 12,
        "{missing} events of the last minutes are missing"
    );
    scene.all_delivered().await;
    for one in instances {
        one.running.drained().await;
    }
    scene.verify();
}
