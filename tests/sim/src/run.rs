//! One run: processes are started, die, and are started again; then everything calms down, the
//! rest is brought to its end, and what is in the tables is compared with what was put.

use std::sync::Arc;
use std::time::Duration;

use millpond_connector::{mutation, random, wall};
use millpond_leases::WorkerId;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::actors;
use crate::lives::{is_told_gone, sinks, sources};
use crate::process::Process;
use crate::read_back::{Reads, read_back};
use crate::scenario::Cuts;
use crate::world::{Violation, World, lock};

/// How long, in virtual time, the end of a run may take to be reached once nothing goes wrong.
const END_WITHIN: Duration = Duration::from_secs(600);

/// How long faults go on after the last event was put.
const AFTER_LAST: Duration = Duration::from_secs(4);

/// The same where the topic may be lost: long enough for whoever was paused then to wake.
const AFTER_LOSSES: Duration = Duration::from_secs(40);

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
    /// Those of them that came after a gap.
    pub late: usize,
    /// Gaps recorded.
    pub gaps: usize,
    /// Intents that chains went round more write shards with than they were told to.
    pub spread: usize,
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
        late: 0,
        gaps: 0,
        spread: 0,
    }
}

fn run_here(seed: u64, cuts: &Cuts) -> Outcome {
    random::seed_this_thread(seed);
    mutation::select(cuts.mutation);
    // It would notice a machine that sleeps, and this one's sleep is no part of a run.
    wall::set_on_this_thread(std::time::SystemTime::UNIX_EPOCH);
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
            late: oracle.items.late(),
            gaps: oracle.items.gaps(),
            spread: oracle.items.noted(),
        }
    })
}

async fn live(world: Arc<World>) {
    let work = async {
        crate::producer::produce(world.clone()).await;
        sleep(match world.scenario.loses_topic {
            true => AFTER_LOSSES,
            false => AFTER_LAST,
        })
        .await;
        world.note("calm");
        world.calm.cancel();
    };
    let looks = async {
        while reads_back(&world) && !world.calm.is_cancelled() {
            let ms = world.dice.between("looks after", 1_000, 5_000);
            sleep(Duration::from_millis(ms)).await;
            // What is taken back is there at first, and then is not.
            if lock(&world.oracle).items.has_given_up() || world.scenario.loses_topic {
                continue;
            }
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

/// A sink beside the last source, where that waits for what the table has. It ends as one that dies.
async fn beside(world: &Arc<World>) -> anyhow::Result<()> {
    if !world.scenario.loses_topic {
        std::future::pending::<()>().await;
    }
    let process = Process::new(world, "sink beside".to_owned(), false);
    let worker = world
        .scenario
        .sharing_sinks
        .map(|_| WorkerId::new("beside"));
    let drain = CancellationToken::new();
    let ended = actors::sink(process, drain, Arc::default(), worker).await;
    ended.and_then(|()| anyhow::bail!("the sink beside it ended"))
}

/// Nothing goes wrong any more: everything must come to its end.
async fn finish(world: &Arc<World>) {
    let deadline = Instant::now() + END_WITHIN;
    let process = Process::new(world, "last source".to_owned(), false);
    let drain = CancellationToken::new();
    let worker = |share: Option<u32>| share.map(|_| WorkerId::new("last"));
    let worker_id = worker(world.scenario.sharing_sources);
    let run = actors::source(process.clone(), drain.clone(), worker_id);
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
        ended = beside(world) => ended,
        () = tokio::time::sleep_until(deadline) => Err(anyhow::anyhow!("no end")),
    };
    if let Err(error) = ended {
        return world.violate("progress", format!("the last source: {error:#}"));
    }
    let process = Process::new(world, "last sink".to_owned(), false);
    let drain = CancellationToken::new();
    let worker_id = worker(world.scenario.sharing_sinks);
    // One that shares drains what it holds: it must have come to hold everything.
    let committed = {
        let (drain, shares) = (drain.clone(), worker_id.is_some());
        async move {
            while shares && !lock(&world.oracle).all_committed() {
                sleep(Duration::from_millis(200)).await;
            }
            drain.cancel();
            std::future::pending::<()>().await;
        }
    };
    let run = actors::sink(process, drain, Arc::default(), worker_id);
    let ended = tokio::select! {
        biased;
        ended = run => ended,
        () = committed => Ok(()),
        () = tokio::time::sleep_until(deadline) => Err(anyhow::anyhow!("no end")),
    };
    let is_stuck = {
        let oracle = lock(&world.oracle);
        (0..world.scenario.partitions).any(|partition| oracle.is_stuck(partition))
    };
    match ended {
        Err(error) if !(is_stuck && is_told_gone(&format!("{error:#}"))) => {
            return world.violate("progress", format!("the last sink: {error:#}"));
        }
        // One that shares may not have come to hold a partition that is stuck.
        Ok(()) if is_stuck && world.scenario.sharing_sinks.is_none() => {
            return world.violate("I7", "data is gone, and the last sink does not say so");
        }
        _ => {}
    }
    sleep(LATE_EFFECTS).await;
    let complete = lock(&world.oracle).complete();
    world.judge(complete);
    if reads_back(world) && !lock(&world.oracle).items.has_given_up() {
        read_back(world, Reads::Consistent, true).await;
        read_back(world, Reads::Eventual, true).await;
    }
    world.note("the end");
}
