//! One run: processes are started, die, and are started again; then everything calms down, the
//! rest is brought to its end, and what is in the tables is compared with what was put.

use std::sync::Arc;
use std::time::Duration;

use millpond_connector::metrics::Metrics;
use millpond_connector::{mutation, random};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::actors;
use crate::process::Process;
use crate::read_back::{Reads, read_back};
use crate::scenario::{Cuts, Fault};
use crate::world::{Violation, World, lock};

/// How long, in virtual time, the end of a run may take to be reached once nothing goes wrong.
const END_WITHIN: Duration = Duration::from_secs(600);

/// How long faults go on after the last event was put.
const AFTER_LAST: Duration = Duration::from_secs(4);

/// Longer than any write that was given up can take to have its effect.
const LATE_EFFECTS: Duration = Duration::from_secs(30);

/// One seed of so many is read back by the real reader.
const READ_BACK_EVERY: u64 = 8;

/// What became of a seed.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What happened, line by line.
    pub trace: Vec<String>,
    /// The first rule that was broken.
    pub violation: Option<Violation>,
    /// Steps of all processes.
    pub steps: u64,
    /// Faults that the dice decided on.
    pub decided: u64,
    /// Faults that happened: all of those but the ones that were cut out.
    pub faults: u64,
    /// Events that were put.
    pub events: usize,
    /// Items with events in the table.
    pub items: usize,
    /// Dead letters.
    pub dead: usize,
}

/// Runs one seed, in a thread of its own, so that nothing of an earlier run is left in it.
#[must_use]
pub fn run(seed: u64, cuts: &Cuts) -> Outcome {
    let cuts = cuts.clone();
    let thread = std::thread::Builder::new().name(format!("seed {seed}"));
    let joined = thread
        .spawn(move || run_here(seed, &cuts))
        .map(std::thread::JoinHandle::join);
    match joined {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            failed(seed, "panic", text.unwrap_or_default())
        }
        Err(error) => failed(seed, "no thread", error.to_string()),
    }
}

fn failed(seed: u64, rule: &'static str, what: String) -> Outcome {
    Outcome {
        seed,
        trace: vec![format!("{rule}: {what}")],
        violation: Some(Violation { rule, what }),
        steps: 0,
        decided: 0,
        faults: 0,
        events: 0,
        items: 0,
        dead: 0,
    }
}

fn run_here(seed: u64, cuts: &Cuts) -> Outcome {
    random::seed_this_thread(seed);
    mutation::select(cuts.mutation);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(seed, "no runtime", error.to_string()),
    };
    runtime.block_on(async {
        let world = World::new(seed, cuts);
        world.note(format!("{:?}", world.scenario));
        tokio::select! {
            biased;
            () = world.stop.cancelled() => {}
            () = live(world.clone()) => {}
        }
        let (steps, decided, faults) = (world.steps(), world.decided(), world.faults());
        let (trace, violation) = world.finish();
        let oracle = lock(&world.oracle);
        Outcome {
            seed,
            trace,
            violation,
            steps,
            decided,
            faults,
            events: oracle.events.len(),
            items: oracle.items.len(),
            dead: oracle.items.dead(),
        }
    })
}

async fn live(world: Arc<World>) {
    let work = async {
        crate::producer::produce(world.clone()).await;
        sleep(AFTER_LAST).await;
        world.note("calm");
        world.calm.cancel();
    };
    let looks = async {
        while reads_back(&world) && !world.calm.is_cancelled() {
            let ms = world.dice.between("looks after", 1_000, 5_000);
            sleep(Duration::from_millis(ms)).await;
            let reads = world
                .dice
                .pick("reads", &[Reads::Consistent, Reads::Eventual]);
            read_back(&world, reads, false).await;
        }
    };
    tokio::join!(work, looks, sources(world.clone()), sinks(world.clone()));
    world.log.writer_died(&world);
    finish(&world).await;
}

/// True for the seeds whose table the real reader reads, while it is written and at the end. The
/// SDK takes several times as long as all the rest of a run.
fn reads_back(world: &World) -> bool {
    world.scenario.seed.is_multiple_of(READ_BACK_EVERY)
}

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

/// Sources, one after the other, until it is calm.
async fn sources(world: Arc<World>) {
    for number in 1u32.. {
        let process = Process::new(&world, format!("source{number}"), true);
        let drain = CancellationToken::new();
        let run = actors::source(process.clone(), drain.clone());
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
    let allowed = text.contains("the checkpoint `checkpoint`: no ")
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

/// Sinks: one at least, sometimes two that both believe, or one that starts while the other drains.
async fn sinks(world: Arc<World>) {
    let drains = Arc::new(Notify::new());
    let overlap = world.scenario.rate(Fault::Rival) > 0;
    let mut wanted = true;
    let mut running = tokio::task::JoinSet::new();
    let mut number = 0u32;
    loop {
        if wanted || running.is_empty() || world.fault(Fault::Rival, "sink") {
            number += 1;
            running.spawn(one_sink(world.clone(), number, drains.clone()));
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
            () = tick => {}
        }
    }
    running.shutdown().await;
}

async fn one_sink(world: Arc<World>, number: u32, drains: Arc<Notify>) {
    let process = Process::new(&world, format!("sink{number}"), true);
    let drain = CancellationToken::new();
    let metrics = Arc::new(Metrics::default());
    let run = actors::sink(process.clone(), drain.clone(), metrics.clone());
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
    let allowed = (text.contains("fenced: ") && can(Fault::Rival))
        || (text.contains("read twice with the same result") && trapped)
        || (text.contains("is not stored: it holds") && can(Fault::Rival) && can(Fault::Trimmed))
        || is_locked_out(&text);
    if !allowed {
        world.violate("stopped", format!("{}: {text}", process.name));
    }
}

/// Nothing goes wrong any more: everything must come to its end.
async fn finish(world: &Arc<World>) {
    let deadline = Instant::now() + END_WITHIN;
    let process = Process::new(world, "last source".to_owned(), false);
    let drain = CancellationToken::new();
    let run = actors::source(process.clone(), drain.clone());
    let delivered = async {
        while !lock(&world.oracle).all_durable() {
            sleep(Duration::from_millis(100)).await;
        }
        drain.cancel();
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        biased;
        ended = run => ended,
        () = delivered => Ok(()),
        () = tokio::time::sleep_until(deadline) => Err(anyhow::anyhow!("no end")),
    };
    if let Err(error) = ended {
        return world.violate("progress", format!("the last source: {error:#}"));
    }
    let process = Process::new(world, "last sink".to_owned(), false);
    let drain = CancellationToken::new();
    drain.cancel();
    let run = actors::sink(process, drain, Arc::default());
    let ended = tokio::select! {
        biased;
        ended = run => ended,
        () = tokio::time::sleep_until(deadline) => Err(anyhow::anyhow!("no end")),
    };
    if let Err(error) = ended {
        return world.violate("progress", format!("the last sink: {error:#}"));
    }
    sleep(LATE_EFFECTS).await;
    let complete = lock(&world.oracle).complete();
    world.judge(complete);
    if reads_back(world) {
        read_back(world, Reads::Consistent, true).await;
        read_back(world, Reads::Eventual, true).await;
    }
    world.note("the end");
}
