//! Processes that are started, die or drain, and are started again.

use std::sync::Arc;
use std::time::Duration;

use millpond_connector::metrics::Metrics;
use millpond_leases::WorkerId;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::actors;
use crate::process::Process;
use crate::scenario::Fault;
use crate::world::World;

/// How a process ended.
enum Ended {
    Killed,
    Calm,
    Result(anyhow::Result<()>),
}

/// One process until it ends, is told to drain, or is no longer needed.
async fn until_end(
    process: &Process,
    run: impl Future<Output = anyhow::Result<()>>,
    drain: &CancellationToken,
    drains: &Notify,
) -> Ended {
    let world = &process.world;
    let mut run = Box::pin(run);
    let restart = world.fault(Fault::Restart, &process.name);
    let after = Duration::from_millis(world.dice.between("restarts after", 100, 8_000));
    let restart = async {
        match restart {
            true => sleep(after).await,
            false => std::future::pending().await,
        }
    };
    tokio::pin!(restart);
    loop {
        tokio::select! {
            biased;
            () = process.killed() => return Ended::Killed,
            () = world.calm.cancelled() => return Ended::Calm,
            ended = &mut run => return Ended::Result(ended),
            () = &mut restart, if !drain.is_cancelled() => {
                world.note(format!("{} drains", process.name));
                drain.cancel();
                drains.notify_one();
            }
        }
    }
}

/// Sources until it is calm: one after the other, or several that share, each of which is started again.
pub(crate) async fn sources(world: Arc<World>) {
    let Some(count) = world.scenario.sharing_sources else {
        return source_after_source(world, None).await;
    };
    let all = (0..count).map(|slot| {
        let worker = WorkerId::new(format!("source-{slot}"));
        source_after_source(world.clone(), Some(worker))
    });
    side_by_side(&world, all).await;
}

/// Runs all of these to their ends.
async fn side_by_side<F>(world: &World, lives: impl Iterator<Item = F>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut running: JoinSet<()> = lives.collect();
    while let Some(ended) = running.join_next().await {
        if let Err(error) = ended {
            world.violate("panic", error.to_string());
        }
    }
}

fn name(worker: Option<&WorkerId>, kind: &str, number: u32) -> String {
    match worker {
        Some(worker) => format!("{worker}.{number}"),
        None => format!("{kind}{number}"),
    }
}

async fn source_after_source(world: Arc<World>, worker: Option<WorkerId>) {
    for number in 1u32.. {
        let process = Process::new(&world, name(worker.as_ref(), "source", number), true);
        let drain = CancellationToken::new();
        let run = actors::source(process.clone(), drain.clone(), worker.clone());
        let ended = until_end(&process, run, &drain, &Notify::new()).await;
        process.kill();
        world.log.writer_died(&world);
        match ended {
            Ended::Calm => return,
            Ended::Killed => {}
            Ended::Result(result) => judge_source(&process, result),
        }
        pause(&world).await;
    }
}

/// The time between the end of a process and its next start.
async fn pause(world: &World) {
    let ms = world.dice.between("down for", 0, 1_500);
    sleep(Duration::from_millis(ms)).await;
}

/// Credentials that had expired before anything succeeded with them: an error of the set-up, to be
/// told at once. Those that worked are waited for.
fn is_locked_out(text: &str) -> bool {
    text.contains("credentials")
}

fn judge_source(process: &Process, result: anyhow::Result<()>) {
    let Err(error) = result else {
        process.world.note(format!("{} is drained", process.name));
        return;
    };
    let text = format!("{error:#}");
    process.world.note(format!("{} ends: {text}", process.name));
    // Where it stands must be on disk before it reads; and a drain has an end.
    let stale = process.world.scenario.rate(Fault::StaleListing) > 0;
    let can_lose = process.world.scenario.loses_topic;
    let allowed = text.contains("the checkpoint `checkpoint`: no ")
        || (text.contains("topic `events` is closed") && can_lose)
        // It looks at the topic before it begins.
        || (text.contains("cannot be read") && can_lose)
        // Its first listing does not show a shard that it knows; the next start looks again.
        || (text.contains("is gone before it was read to its end") && stale)
        || text.contains("of the drain; it will be read again")
        || is_locked_out(&text);
    if !allowed {
        process
            .world
            .violate("stopped", format!("{}: {text}", process.name));
    }
}

/// Sinks until it is calm: several that share, each of which is started again, or such as take all.
pub(crate) async fn sinks(world: Arc<World>) {
    let Some(count) = world.scenario.sharing_sinks else {
        return rival_sinks(world).await;
    };
    let all = (0..count).map(|slot| {
        let worker = WorkerId::new(format!("sink-{slot}"));
        sink_after_sink(world.clone(), worker)
    });
    side_by_side(&world, all).await;
}

async fn sink_after_sink(world: Arc<World>, worker: WorkerId) {
    let drains = Arc::new(Notify::new());
    for number in 1u32.. {
        let name = name(Some(&worker), "", number);
        one_sink(world.clone(), name, drains.clone(), Some(worker.clone())).await;
        if world.calm.is_cancelled() {
            return;
        }
        pause(&world).await;
    }
}

/// One at least, sometimes two that both believe, or one that starts while the other drains.
async fn rival_sinks(world: Arc<World>) {
    let drains = Arc::new(Notify::new());
    let overlap = world.scenario.rate(Fault::Rival) > 0;
    let mut wanted = true;
    let mut running = JoinSet::new();
    let mut number = 0u32;
    loop {
        if wanted || running.is_empty() || world.fault(Fault::Rival, "sink") {
            number += 1;
            let name = name(None, "sink", number);
            running.spawn(one_sink(world.clone(), name, drains.clone(), None));
        }
        wanted = false;
        let tick = sleep(Duration::from_millis(700));
        tokio::select! {
            biased;
            () = world.calm.cancelled() => break,
            _ = running.join_next() => pause(&world).await,
            () = drains.notified(), if overlap => {
                let ms = world.dice.between("successor after", 0, 400);
                sleep(Duration::from_millis(ms)).await;
                wanted = true;
            }
            // Whoever lived on has a topic that is gone; it may stand still for long.
            () = world.topic_lost.notified() => wanted = true,
            () = tick => {}
        }
    }
    running.shutdown().await;
}

async fn one_sink(world: Arc<World>, name: String, drains: Arc<Notify>, worker: Option<WorkerId>) {
    let process = Process::new(&world, name, true);
    let drain = CancellationToken::new();
    let metrics = Arc::new(Metrics::default());
    let run = actors::sink(process.clone(), drain.clone(), metrics.clone(), worker);
    let run = async {
        tokio::pin!(run);
        loop {
            tokio::select! {
                biased;
                ended = &mut run => return ended,
                () = sleep(Duration::from_millis(900)) => {
                    if metrics.partitions_halted.get() > 0 {
                        // An operator would look, and start it anew.
                        drain.cancel();
                    }
                }
            }
        }
    };
    let ended = until_end(&process, run, &drain, &drains).await;
    process.kill();
    if let Ended::Result(result) = ended {
        judge_sink(&process, result);
    }
}

/// True for the words in which a sink says that the topic has lost what it needs.
pub(crate) fn is_told_gone(text: &str) -> bool {
    text.contains("is not stored: it holds")
        || text.contains(" are gone. Restore the topic's data")
        || text.contains("gives something else for them now")
}

fn judge_sink(process: &Process, result: anyhow::Result<()>) {
    let world = &process.world;
    let Err(error) = result else {
        world.note(format!("{} is drained", process.name));
        return;
    };
    let text = format!("{error:#}");
    world.note(format!("{} ends: {text}", process.name));
    let can = |fault: Fault| world.scenario.rate(fault) > 0;
    let trapped = can(Fault::BatchSkipped) || can(Fault::JumpToEnd) || can(Fault::TailCut);
    let overlap = can(Fault::Rival) || world.scenario.sharing_sinks.is_some();
    // After a loss a second one is started beside whoever lives on.
    let has_rivals = can(Fault::Rival) || can(Fault::TopicLost);
    let allowed = (text.contains("fenced: ") && has_rivals)
        || (text.contains("read twice with the same result") && trapped)
        || (text.contains("is not stored: it holds") && overlap && can(Fault::Trimmed))
        || (is_told_gone(&text) && can(Fault::Lost))
        || (text.contains("topic `events` is closed") && can(Fault::TopicLost))
        || (text.contains("pipeline `q` is new") && can(Fault::Renamed))
        || is_locked_out(&text);
    if !allowed {
        world.violate("stopped", format!("{}: {text}", process.name));
    }
}
