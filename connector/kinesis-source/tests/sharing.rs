//! Several sources share the shards of a stream, on a stopped clock: they come, drain, die and stall while
//! shards split and merge. Each event is in the topic, and behind the sink's marks once and in order.
#![allow(missing_docs, reason = "tests")]

#[path = "support/scene.rs"]
mod scene;
#[path = "support/sharing.rs"]
mod sources;
mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use millpond_kinesis_source::checkpoint::{PinnedStart, Progress, ShardCheckpoint};
use millpond_kinesis_source::config::CheckpointAfter;
use millpond_kinesis_source::shard_table::{ShardTable, ShardWrite, WriteIf};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use scene::Scene;
use sources::{held, through_the_sink};
use support::until;
use tokio::time::{Instant, sleep};

#[tokio::test(start_paused = true)]
async fn shards_are_handed_over_gracefully_and_nothing_is_repeated() {
    let scene = Scene::new(4, 3);
    scene.stream.put_many(400);
    let first = scene.start("a");
    scene.holds(&first, 4).await;
    let second = scene.start("b");
    for _ in 0..40 {
        scene.stream.put_many(30);
        sleep(Duration::from_millis(250)).await;
    }
    // By load, not by number: one of them may do with fewer, and a shard may be on its way.
    until("both work, and no shard is free", || {
        let [one, other] = [&first, &second].map(|of| held(&scene.table, &of.id));
        one > 0 && other > 0 && one + other == 4
    })
    .await;
    assert!(second.running.metrics.source_events.get() > 0);
    first.running.drained().await;
    scene.stream.put_many(200);
    scene.holds(&second, 4).await;
    scene.all_delivered().await;
    second.running.drained().await;
    assert_eq!(scene.verify(), 0, "a hand-over repeated events");
    // A start right after finds nothing to wait for.
    let begun = Instant::now();
    let third = scene.start("c");
    scene.stream.put_many(50);
    scene.all_delivered().await;
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    third.running.drained().await;
    assert_eq!(scene.verify(), 0);
}

/// I2: where the checkpoint follows the sinks, the next owner sends again what they have not committed, under the
/// same origins.
#[tokio::test(start_paused = true)]
async fn what_was_not_released_is_sent_again_by_the_next_owner() {
    let mut scene = Scene::new(4, 3);
    scene.config.checkpoint_after = CheckpointAfter::Table;
    let first = scene.start("a");
    scene.holds(&first, 4).await;
    scene.stream.put_many(400);
    scene.all_delivered().await;
    let second = scene.start("b");
    until("both work", || held(&scene.table, &second.id) > 0).await;
    scene.stream.put_many(100);
    scene.all_delivered().await;
    until("the rest is sent again", || {
        second.running.metrics.source_events.get() > 100
    })
    .await;
    sleep(Duration::from_secs(5)).await;
    let repeated = scene.verify();
    assert!(repeated > 0, "nothing was repeated: this shows nothing");
    // What the sinks have is checkpointed, and then nothing is.
    scene.topic.release_all();
    sleep(Duration::from_secs(10)).await;
    first.running.drained().await;
    scene.holds(&second, 4).await;
    scene.stream.put_many(100);
    scene.all_delivered().await;
    second.running.drained().await;
    assert_eq!(scene.verify(), repeated, "released events were repeated");
}

#[tokio::test(start_paused = true)]
async fn the_shards_of_the_dead_are_taken_over_in_under_ten_seconds() {
    let mut times = Vec::new();
    for phase in 0..40 {
        let scene = Scene::new(4, 2);
        let dead = scene.start("a");
        scene.holds(&dead, 4).await;
        let other = scene.start("b");
        scene.holds(&other, 2).await;
        scene.stream.put_many(100);
        scene.all_delivered().await;
        sleep(Duration::from_millis(phase * 61)).await;
        dead.running.killed().await;
        let killed = Instant::now();
        scene.stream.put_many(100);
        scene.all_delivered().await;
        times.push(killed.elapsed());
        other.running.drained().await;
        scene.verify();
    }
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    assert!(
        worst < Duration::from_secs(10),
        "median {median:?}, worst {worst:?}"
    );
    assert!(
        median > Duration::from_secs(4),
        "death is not waited for: {median:?}"
    );
}

/// I2, I3, I4: the owner stalls in the middle of appends, another takes over, reads the shard to its
/// end and goes on with the children; then what was stalled happens.
#[tokio::test(start_paused = true)]
async fn a_stale_owner_changes_nothing() {
    let scene = Scene::new(1, 2);
    scene.stream.put_many(300);
    let stale = scene.start("a");
    until("something is stored", || scene.topic.len() > 20).await;
    stale.gate.close();
    scene.stream.put_many(300);
    scene.split(0, 1 << 100);
    scene.stream.put_many(300);
    let other = scene.start("b");
    scene.all_delivered().await;
    let before = scene.topic.len();
    stale.gate.open();
    until("what was stalled is stored", || scene.topic.len() > before).await;
    let (rows, _) = scene.table.snapshot();
    assert!(rows["shardId-000000000000"].checkpoint.is_finished());
    scene.stream.put_many(100);
    scene.all_delivered().await;
    other.running.drained().await;
    stale.running.drained().await;
    assert!(
        scene.verify() > 0,
        "nothing was repeated: this shows nothing"
    );
}

/// A lease is tied to progress: it is renewed all the time, and the shard goes to somebody who reads it.
#[tokio::test(start_paused = true)]
async fn a_shard_that_does_not_move_is_given_up() {
    let scene = Scene::new(2, 2);
    scene.stream.put_many(100);
    let stuck = scene.start("a");
    scene.holds(&stuck, 2).await;
    scene.all_delivered().await;
    let other = scene.start("b");
    scene.holds(&other, 1).await;
    stuck.reads.close();
    let begun = Instant::now();
    scene.stream.put_many(200);
    scene.all_delivered().await;
    assert!(
        begun.elapsed() < Duration::from_secs(50),
        "{:?}",
        begun.elapsed()
    );
    assert!(begun.elapsed() > Duration::from_secs(20), "not given up");
    scene.holds(&other, 2).await;
    stuck.reads.open();
    // After its rest it takes its share again.
    scene.holds(&stuck, 1).await;
    scene.stream.put_many(100);
    scene.all_delivered().await;
    stuck.running.drained().await;
    other.running.drained().await;
    scene.verify();
}

/// A silent shard is no stalled one, and one alone with its shards goes on with them.
#[tokio::test(start_paused = true)]
async fn silence_moves_no_shard() {
    let scene = Scene::new(3, 1);
    let instance = scene.start("a");
    scene.holds(&instance, 3).await;
    let (_, before) = scene.table.snapshot();
    sleep(Duration::from_secs(3_600)).await;
    let (_, after) = scene.table.snapshot();
    assert_eq!(before, after);
    scene.stream.put_many(50);
    scene.all_delivered().await;
    instance.running.drained().await;
    assert_eq!(scene.verify(), 0);
}

#[tokio::test(start_paused = true)]
async fn shards_are_balanced_by_what_they_give() {
    let scene = Scene::new(4, 2);
    let [first, second] = [scene.start("a"), scene.start("b")];
    scene.holds(&first, 2).await;
    scene.holds(&second, 2).await;
    let shares = || {
        let mut shares = [
            held(&scene.table, &first.id),
            held(&scene.table, &second.id),
        ];
        shares.sort_unstable();
        shares
    };
    let deadline = Instant::now() + Duration::from_secs(300);
    while shares() != [1, 3] {
        assert!(Instant::now() < deadline, "shares {:?}", shares());
        scene.stream.put("busy", vec![b'x'; 20_000]);
        scene.stream.put_many(2);
        sleep(Duration::from_millis(100)).await;
    }
    // And so it stays, but for a last shard that may be on its way.
    let mut moving = 0;
    for _ in 0..300 {
        scene.stream.put("busy", vec![b'x'; 20_000]);
        sleep(Duration::from_millis(100)).await;
        moving += u32::from(shares() != [1, 3]);
    }
    assert!(moving < 100, "shards go to and fro: {moving} of 300 looks");
    scene.all_delivered().await;
    first.running.drained().await;
    second.running.drained().await;
    assert_eq!(scene.verify(), 0, "a hand-over repeated events");
}

/// I1: a program that does not number events stopped in the middle of things.
#[tokio::test(start_paused = true)]
async fn another_programs_rows_are_taken_over_where_they_stand() {
    let scene = Scene::new(2, 2);
    scene.stream.put_many(200);
    scene.split(0, 1 << 100);
    scene.stream.put_many(200);
    let sequences = |shard: u32| {
        let page = scene.stream.with_model(|model, now| {
            let start = millpond_kinesis_local::model::IteratorStart::TrimHorizon;
            let iterator = model.get_shard_iterator(
                now,
                "events",
                millpond_kinesis_local::model::ShardId::new(shard),
                start,
            )?;
            model.get_records(now, &iterator, None)
        });
        let records = page.expect("read").records.into_iter();
        let all: Vec<String> = records
            .map(|record| record.sequence_number.to_string())
            .collect();
        all
    };
    // Shard 0 has no row: it was read and cleaned up. Shard 1 stands at its tenth record. Of the
    // children one was not begun, the other is at its end of now.
    let rows = [(1, Some(9)), (2, None), (3, Some(usize::MAX))];
    let mut expected = 0;
    let mut writes = Vec::new();
    for (shard, at) in rows {
        let all = sequences(shard);
        let at = at.map(|at| at.min(all.len() - 1));
        expected += all.len() - at.map_or(0, |at| at + 1);
        let parents = if shard == 1 {
            vec![]
        } else {
            vec!["shardId-000000000000".into()]
        };
        let mut row = foreign(parents, at.map(|at| all[at].clone()));
        row.start = at.is_none().then_some(PinnedStart::TrimHorizon);
        writes.push(ShardWrite {
            shard: format!("shardId-{shard:012}").into(),
            condition: WriteIf::Absent,
            row,
        });
    }
    scene.table.save(&writes).await.expect("saved");
    let instance = scene.start("a");
    until("the rest is read", || scene.topic.len() == expected).await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!(scene.topic.len(), expected, "more than was left");
    let (rows, _) = scene.table.snapshot();
    assert!(rows["shardId-000000000000"].checkpoint.is_finished());
    instance.running.drained().await;
    assert_eq!(through_the_sink(&scene.topic), expected);
    // And again by another instance: now they are our rows.
    let instance = scene.start("b");
    scene.stream.put_many(60);
    until("the new is read", || scene.topic.len() == expected + 60).await;
    instance.running.drained().await;
    assert_eq!(through_the_sink(&scene.topic), expected + 60);
}

fn foreign(
    parents: Vec<millpond_kinesis_source::shard::ShardId>,
    at: Option<String>,
) -> millpond_kinesis_source::shard_table::ShardRow {
    use millpond_kinesis_source::checkpoint::{Aggregated, ChainState};
    let progress = at.map_or(Progress::NotBegun, |sequence| Progress::Delivered {
        sequence,
        sub_sequence: 0,
        partial: true,
        chain: ChainState {
            epoch: 0,
            next_ordinals: Vec::new(),
        },
    });
    millpond_kinesis_source::shard_table::ShardRow {
        checkpoint: ShardCheckpoint {
            progress,
            ..ShardCheckpoint::not_begun(parents, None)
        },
        aggregated: Aggregated::Auto.into(),
        start: None,
        hash_keys: None,
        children: Vec::new(),
        bytes_per_second: 0,
        figures: None,
        is_foreign: true,
    }
}

/// Seeds in one run of the tests. One alone: `MILLPOND_SEED=n`.
const SEEDS: u64 = 40;

#[test]
#[expect(
    clippy::print_stderr,
    reason = "a failing run is repeated from its seed"
)]
fn whatever_instances_do_each_event_arrives_once_and_in_order() {
    let only = std::env::var("MILLPOND_SEED").ok();
    let only = only.map(|seed| seed.parse::<u64>().expect("a number"));
    let mut repeated = 0;
    for seed in only.map_or(0..SEEDS, |seed| seed..seed + 1) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("runtime");
        let life = std::panic::AssertUnwindSafe(|| runtime.block_on(life(seed)));
        match std::panic::catch_unwind(life) {
            Ok(count) => repeated += count,
            Err(panic) => {
                eprintln!("failed with MILLPOND_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(only.is_some() || repeated > 0, "no crash mattered");
}

async fn life(seed: u64) -> usize {
    let mut random = StdRng::seed_from_u64(seed);
    let scene = Scene::new(random.random_range(1..4), random.random_range(1..4));
    let mut instances = vec![scene.start("worker-0")];
    let mut started = 1;
    for _ in 0..30 {
        let pick = random.random_range(0..instances.len().max(1));
        match random.random_range(0..12) {
            0..=3 => scene.stream.put_many(random.random_range(1..150)),
            4 | 5 if instances.len() < 4 => {
                instances.push(scene.start(&format!("worker-{started}")));
                started += 1;
            }
            6 if instances.len() > 1 && !instances[pick].gate.is_closed() => {
                instances.swap_remove(pick).running.drained().await;
            }
            7 if !instances.is_empty() => {
                let dead = instances.swap_remove(pick);
                let id = dead.id.clone();
                dead.running.killed().await;
                // Some come back at once, as themselves.
                if random.random_bool(0.5) {
                    instances.push(scene.start(id.as_str()));
                }
            }
            8 if !instances.is_empty() => instances[pick].gate.close(),
            9 => instances.iter().for_each(|instance| instance.gate.open()),
            10 => {
                let target = random.random_range(1..6);
                // The API's limits on doubling and halving may refuse it.
                let _ = scene
                    .stream
                    .with_model(|model, now| model.update_shard_count(now, "events", target));
            }
            _ => {
                let failures = random.random_range(0..5);
                scene.topic.failures.store(failures, Ordering::Relaxed);
                let delay = random.random_range(0..600);
                scene.topic.delay_ms.store(delay, Ordering::Relaxed);
            }
        }
        sleep(Duration::from_millis(random.random_range(0..4_000))).await;
    }
    scene.topic.failures.store(0, Ordering::Relaxed);
    scene.topic.delay_ms.store(0, Ordering::Relaxed);
    instances.iter().for_each(|instance| instance.gate.open());
    if instances.is_empty() {
        instances.push(scene.start("last"));
    }
    scene.all_delivered().await;
    for instance in instances {
        instance.running.drained().await;
    }
    scene.verify()
}
