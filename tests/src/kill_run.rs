//! `millpond run` under load, killed with SIGKILL at random moments and started again, while the
//! stand-ins live on; then everything is read back.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use millpond::verify::Verifier;
use millpond::workload::Workload;
use millpond_fault_proxy::{Exchange, Plan, Proxy, Service};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::Signal;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use crate::DEADLINE;
use crate::checker::{ExpectedEvent, check};
use crate::pipeline::{EVENTS, JOBS, Pipeline, START_MS, workload_arguments};
use crate::process::Running;

/// Mean bytes of an event of the workload, roughly.
const EVENT_BYTES: f64 = 560.0;

/// What is put by one emitter, in seconds; the next one follows with the next seed.
const ROUND_SECONDS: f64 = 15.0;

/// Shards of the stream.
const SHARDS: i32 = 4;

/// Of all runs, how many are killed at a moment counted from their start, written or not; the others
/// from their first write on. Only those are measured: the first ones would leave out what is slow.
const BLIND: f64 = 1.0 / 3.0;

/// How a kill run goes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Kills.
    pub kills: u32,
    /// Seed of the moments and of the workload.
    pub seed: u64,
    /// MB (10^6 bytes) of events a second.
    pub rate: f64,
    /// The pipeline, from stream `events` to table `events`.
    pub config: String,
    /// Its name.
    pub pipeline: String,
    /// Longest time between a start, or its first write, and the kill.
    pub longest: Duration,
}

/// What a kill run found.
#[derive(Debug, Clone)]
pub struct Report {
    /// Events put, each read back once and in order.
    pub events: u64,
    /// From the start of the process to its first acknowledged write of items, in the runs that were
    /// not killed before it; sorted.
    pub recoveries: Vec<Duration>,
    /// Runs that were killed before they had written anything.
    pub silent: u32,
}

impl Report {
    /// A quantile of the recoveries, by nearest rank.
    ///
    /// # Errors
    /// When nothing was measured.
    pub fn recovery(&self, quantile: f64) -> Result<Duration> {
        let rank = (self.recoveries.len() as f64 * quantile).ceil() as usize;
        let at = self.recoveries.get(rank.saturating_sub(1));
        at.copied().context("nothing was measured")
    }
}

/// Runs, kills, and reads back.
///
/// # Errors
/// When a run ends by itself or does not write in time, or what is read back is not what was put.
pub async fn run(binary: &'static str, settings: &Settings) -> Result<Report> {
    let mut pipeline = Pipeline::new(binary, SHARDS, &settings.config).await?;
    let proxy = pipeline.proxy(Service::DynamoDb, Plan::none()).await?;
    let mut random = StdRng::seed_from_u64(settings.seed);
    let mut load = Load::start(&pipeline, settings)?;
    let mut report = Report {
        events: 0,
        recoveries: Vec::new(),
        silent: 0,
    };
    for kill in 0..settings.kills {
        let is_blind = random.random_bool(BLIND);
        let pause = random.random_range(Duration::ZERO..settings.longest);
        load.go_on(&pipeline)?;
        let cycle = cycle(&pipeline, &proxy, is_blind, pause).await;
        match cycle.with_context(|| format!("run {kill}"))? {
            Some(recovery) if !is_blind => report.recoveries.push(recovery),
            Some(_) => {}
            None => report.silent += 1,
        }
    }
    load.finish()?;
    pipeline.catch_up()?;
    report.events = read_back(&pipeline, &load)?;
    judge(&pipeline, &load, &settings.pipeline).await?;
    report.recoveries.sort_unstable();
    Ok(report)
}

/// Starts, kills; answers how long it took to the first write, if there was one.
async fn cycle(
    pipeline: &Pipeline,
    proxy: &Proxy,
    is_blind: bool,
    pause: Duration,
) -> Result<Option<Duration>> {
    let mut exchanges = proxy.exchanges();
    let started = Instant::now();
    let mut running = pipeline.start()?;
    let mut written = None;
    if !is_blind {
        let Ok(at) = timeout(DEADLINE, first_write(&mut exchanges)).await else {
            running.signal(Signal::KILL)?;
            running.wait()?;
            bail!("no item after {DEADLINE:?}:\n{}", running.rest().1);
        };
        written = Some(at?);
    }
    // The moment of the kill, not a wait for something.
    let looked = timeout(pause, async {
        if written.is_none() {
            written = Some(first_write(&mut exchanges).await?);
        }
        std::future::pending::<Result<()>>().await
    });
    if let Ok(failed) = looked.await {
        failed?;
    }
    ensure!(
        running.is_running()?,
        "it ended by itself:\n{}",
        running.rest().1
    );
    running.signal(Signal::KILL)?;
    running.wait()?;
    Ok(written.map(|at| at.saturating_duration_since(started)))
}

async fn first_write(exchanges: &mut Receiver<Exchange>) -> Result<Instant> {
    loop {
        match exchanges.recv().await {
            Ok(exchange) if exchange.operation == "BatchWriteItem" && exchange.status == 200 => {
                return Ok(exchange.at);
            }
            Ok(_) => {}
            Err(RecvError::Lagged(missed)) => bail!("{missed} exchanges were not looked at"),
            Err(RecvError::Closed) => bail!("the proxy is gone"),
        }
    }
}

/// Emitters, one after the other.
struct Load {
    emitter: Running,
    seed: u64,
    rate: f64,
    events: u64,
    rounds: u64,
}

impl Load {
    fn start(pipeline: &Pipeline, settings: &Settings) -> Result<Self> {
        let events = (settings.rate * 1e6 / EVENT_BYTES * ROUND_SECONDS) as u64;
        Ok(Self {
            emitter: emitter(pipeline, events, settings.seed, settings.rate)?,
            seed: settings.seed,
            rate: settings.rate,
            events,
            rounds: 1,
        })
    }

    /// Starts the next emitter when the last one has ended.
    fn go_on(&mut self, pipeline: &Pipeline) -> Result<()> {
        if self.emitter.is_running()? {
            return Ok(());
        }
        self.finish()?;
        let seed = self.seed.wrapping_add(self.rounds);
        self.emitter = emitter(pipeline, self.events, seed, self.rate)?;
        self.rounds += 1;
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        let status = self.emitter.wait()?;
        ensure!(status.success(), "emit: {}", self.emitter.rest().1);
        Ok(())
    }

    fn workloads(&self) -> impl Iterator<Item = Workload> {
        let seeds = (0..self.rounds).map(|round| self.seed.wrapping_add(round));
        seeds.map(|seed| Workload::new(seed, START_MS, JOBS))
    }
}

fn emitter(pipeline: &Pipeline, events: u64, seed: u64, rate: f64) -> Result<Running> {
    let [events, seed, start, jobs] = workload_arguments(events, seed);
    let rate = format!("--rate={rate}");
    let arguments = [
        "emit", "--stream", EVENTS, &rate, &events, &seed, &start, &jobs,
    ];
    Running::start(&mut pipeline.command(&arguments))
}

/// Reads the table and compares it with what was put; answers how many events that were.
fn read_back(pipeline: &Pipeline, load: &Load) -> Result<u64> {
    let mut rounds: Vec<(Workload, Verifier)> = load
        .workloads()
        .map(|workload| (workload, Verifier::new(workload, load.events)))
        .collect();
    for group in pipeline.groups()?.into_keys() {
        for (_, verifier) in &mut rounds {
            verifier.next_group(&group);
        }
        for event in pipeline.read(&group)? {
            let is_of = |workload: &Workload| {
                let index = workload.index_of(event.as_bytes());
                index
                    .is_some_and(|index| index < load.events && workload.event(index).data == event)
            };
            let round = rounds.iter_mut().find(|(workload, _)| is_of(workload));
            let (_, verifier) = round.with_context(|| format!("never put: {event}"))?;
            verifier.take(event.as_bytes());
        }
    }
    for (round, (_, verifier)) in rounds.into_iter().enumerate() {
        let counts = verifier.finish();
        ensure!(counts.is_exact(), "round {round}: {counts:?}");
    }
    Ok(load.events * load.rounds)
}

/// Two judges that share no code: the product's own proof, from table and stream, and a checker
/// that was written from the format's page and compares with the workload.
async fn judge(pipeline: &Pipeline, load: &Load, name: &str) -> Result<()> {
    let kinesis = pipeline.aws.kinesis_url();
    let arguments = ["verify", "--table", EVENTS, "--deep", "--stream", EVENTS];
    let endpoint = ["--kinesis-endpoint-url", kinesis];
    pipeline.succeed(&[arguments.as_slice(), &endpoint].concat())?;
    let items = pipeline.aws.scan(EVENTS).await?;
    let expected: Vec<ExpectedEvent> = load
        .workloads()
        .flat_map(|workload| (0..load.events).map(move |index| workload.event(index)))
        .map(|event| ExpectedEvent {
            partition_key: event.partition_key,
            value: event.data.into_bytes(),
        })
        .collect();
    let checked = check(&items, name);
    let differences = checked.compare(&expected);
    ensure!(
        differences.is_empty() && checked.len() == expected.len(),
        "the checker found {} of {} events and {differences:?}",
        checked.len(),
        expected.len()
    );
    Ok(())
}
