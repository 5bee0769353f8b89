//! The whole pipeline through a proxy that fails as networks and services do: each family of faults
//! alone, and all of them together. Nothing is lost, nothing comes twice, the order holds, and the
//! process stays up.
//!
//! A failing run prints its seed; `MILLPOND_SEED=… cargo test -p millpond-tests --test suite fire` gives
//! each request the same fault again.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use millpond_fault_proxy::{Family, Plan, Proxy, Service};
use millpond_tests::pipeline::{EVENTS, Pipeline, workload_arguments};
use millpond_tests::process::{self, Running};
use millpond_tests::seed::{announce, seed};
use millpond_tests::{config, eventually};
use rustix::process::Signal;

use crate::MILLPOND;

/// Events of one run, put over several seconds so that there are many requests to fail.
const COUNT: u64 = 6_000;
/// MB (10^6 bytes) a second.
const RATE: &str = "0.7";

/// Requests that are let through first: credentials that never worked are an error.
const SPARED: u64 = 20;

/// Of all families together, how many must be met.
const FAMILIES_MET: usize = 6;

/// A silent connection costs a time limit of 8 or 12 s, and several may come in a row.
const LIMIT: Duration = Duration::from_secs(400);

struct Fire {
    pipeline: Pipeline,
    kinesis: Proxy,
    dynamodb: Proxy,
    running: Running,
    seed: u64,
}

impl Fire {
    async fn light(families: &[Family], spared: u64) -> Result<Self> {
        let seed = seed();
        announce(seed);
        // Refusals that have nothing to do with what is written would teach a pace that has not either.
        let config = config::pipeline() + "  max-write-units-per-second: 100000\n";
        let mut pipeline = Pipeline::new(MILLPOND, 3, &config).await?;
        let plan = |seed| Plan::new(seed, families).after(spared);
        let kinesis = pipeline.proxy(Service::Kinesis, plan(seed)).await?;
        // The two services need not fail in step.
        let dynamodb = pipeline
            .proxy(Service::DynamoDb, plan(seed.wrapping_add(1)))
            .await?;
        let running = pipeline.start()?;
        Ok(Self {
            pipeline,
            kinesis,
            dynamodb,
            running,
            seed,
        })
    }

    fn faults(&self, family: Family) -> [u64; 2] {
        [&self.kinesis, &self.dynamodb].map(|proxy| proxy.met().get(&family).copied().unwrap_or(0))
    }

    /// Emits, waits until all of it is in the table, ends the run, and reads everything back.
    async fn burn(mut self, families: &[Family]) -> Result<()> {
        let [events, seed, start, jobs] = workload_arguments(COUNT, self.seed);
        let emit = ["emit", "--stream", EVENTS, "--rate", RATE];
        let mut arguments = emit.to_vec();
        arguments.extend([&*events, &*seed, &*start, &*jobs]);
        self.pipeline.succeed(&arguments)?;
        let begun = Instant::now();
        loop {
            ensure!(
                self.running.is_running()?,
                "it ended: {}",
                self.running.rest().1
            );
            // There may be no table yet.
            let groups = self.pipeline.groups().unwrap_or_default();
            let events: u64 = groups.values().sum();
            if events >= COUNT && self.are_met(families) {
                break;
            }
            ensure!(
                begun.elapsed() < LIMIT,
                "{events} of {COUNT} events; Kinesis met {:?}, DynamoDB {:?}",
                self.kinesis.met(),
                self.dynamodb.met()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        for proxy in [&self.kinesis, &self.dynamodb] {
            proxy.set_plan(Plan::none());
        }
        self.running.signal(Signal::TERM)?;
        let status = self.running.wait()?;
        let (_, log) = self.running.rest();
        ensure!(status.code() == Some(0), "{status}\n{log}");
        ensure!(!log.contains("panicked"), "{log}");
        self.pipeline.verify(COUNT, self.seed)
    }

    /// A family alone must be met by every service that can meet it. Of many together some are rare
    /// and may not come before the work is done.
    fn are_met(&self, families: &[Family]) -> bool {
        let both = families
            .iter()
            .map(|family| (*family, self.faults(*family)));
        let is_met = |(family, [kinesis, dynamodb]): (Family, [u64; 2])| match family {
            Family::Unprocessed => dynamodb > 0,
            Family::ExpiredIterator => kinesis > 0,
            _ if families.len() > 1 => kinesis + dynamodb > 0,
            _ => kinesis > 0 && dynamodb > 0,
        };
        let met = both.filter(|family| is_met(*family)).count();
        met >= families.len().min(FAMILIES_MET)
    }
}

async fn under_fire(families: &[Family], spared: u64) -> Result<()> {
    let fire = Fire::light(families, spared).await?;
    let seed = fire.seed;
    let burnt = fire.burn(families).await;
    burnt.with_context(|| format!("{families:?}, MILLPOND_SEED={seed}"))
}

/// One test for each family alone.
macro_rules! alone {
    ($($name:ident: $family:ident after $spared:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() -> Result<()> {
                under_fire(&[Family::$family], $spared).await
            }
        )*

        #[test]
        fn every_family_burns_alone() {
            let alone = [$(Family::$family),*];
            assert!(Family::ALL.iter().all(|family| alone.contains(family)));
        }
    };
}

alone! {
    throttling_exceptions_with_every_reason: Throttled after 0;
    status_500: ServerError after 0;
    status_503: Unavailable after 0;
    unprocessed_items: Unprocessed after 0;
    stalled_answers: Stalled after 0;
    reset_connections: Reset after 0;
    half_open_connections: HalfOpen after 0;
    truncated_answers: Truncated after 0;
    slow_answers: Slow after 0;
    answers_lost_after_the_write_took_effect: LostAnswer after 0;
    credentials_that_expire_under_way: ExpiredCredentials after SPARED;
    expired_iterators: ExpiredIterator after 0;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_at_once() -> Result<()> {
    under_fire(&Family::ALL, SPARED).await
}

/// A drain is asked for while every call hangs, and none of those will ever be answered: each is given
/// up soon enough for the drain to come to its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_outlasts_calls_that_hang() -> Result<()> {
    let mut fire = Fire::light(&[], 0).await?;
    let rate = RATE.parse()?;
    let mut emitter = fire.pipeline.start_emit(COUNT, fire.seed, rate)?;
    fire.pipeline.first_item().await?;
    for proxy in [&fire.kinesis, &fire.dynamodb] {
        proxy.set_plan(Plan::always_half_open());
    }
    eventually("a call hangs on each side", async || {
        Ok((fire.faults(Family::HalfOpen).iter().all(|met| *met > 0)).then_some(()))
    })
    .await?;
    let asked = Instant::now();
    fire.running.signal(Signal::TERM)?;
    for proxy in [&fire.kinesis, &fire.dynamodb] {
        proxy.set_plan(Plan::none());
    }
    let status = fire.running.wait()?;
    let (_, log) = fire.running.rest();
    ensure!(
        status.code() == Some(0),
        "{status} after {:?}\n{log}",
        asked.elapsed()
    );
    ensure!(emitter.wait()?.success(), "{}", emitter.rest().1);
    fire.pipeline.catch_up()?;
    fire.pipeline.verify(COUNT, fire.seed)
}

/// Credentials that are expired from the start are an error of the set-up: nothing in this
/// process will renew them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_are_expired_at_start_are_named() -> Result<()> {
    for service in [Service::Kinesis, Service::DynamoDb] {
        let mut pipeline = Pipeline::new(MILLPOND, 1, &config::pipeline()).await?;
        let expired = Plan::always_expired();
        let proxy = pipeline.proxy(service, expired).await?;
        let output = pipeline.run()?;
        let log = process::stderr(&output);
        ensure!(output.status.code() == Some(1), "{}\n{log}", output.status);
        for text in ["credentials", "expired", "ExpiredTokenException"] {
            ensure!(log.contains(text), "no `{text}` in\n{log}");
        }
        ensure!(proxy.requests() > 0);
    }
    Ok(())
}

/// An answer that ends early is never taken for the end of a group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncated_answers_cost_a_reader_nothing() -> Result<()> {
    let seed = seed();
    announce(seed);
    let mut pipeline = Pipeline::new(MILLPOND, 1, &config::pipeline()).await?;
    pipeline.emit(1_000, seed)?;
    pipeline.catch_up()?;
    let plan = Plan::new(seed, &[Family::Truncated]);
    let proxy = pipeline.proxy(Service::DynamoDb, plan).await?;
    let by_proxy = |arguments: &[&str]| process::run(&mut pipeline.command_by_proxy(arguments));
    let groups = pipeline.groups()?;
    for (group, events) in &groups {
        let read = by_proxy(&["read", "--table", EVENTS, "--group", group])?;
        let lines = process::stdout(&read).lines().count() as u64;
        ensure!(
            read.status.success() && lines == *events,
            "MILLPOND_SEED={seed}, {group}: {lines} of {events} events\n{}",
            process::stderr(&read)
        );
    }
    ensure!(!proxy.met().is_empty() && !groups.is_empty());
    Ok(())
}
