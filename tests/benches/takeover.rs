//! How long the topic partitions of a dead sink wait: two sinks share a pipeline under load, at default
//! settings, and one of them is killed and started again, many times.
//!
//! `cargo bench -p millpond-tests --bench takeover [-- --kills N]`. For each partition of the dead one: from
//! the kill until another process has claimed its ledger row, and until something of it is committed that was not at the kill.
//! Sinks and stand-ins are processes on loopback; the cluster is the scripted one, in this process. There is no
//! SmartModule, which each new stream would have to compile first: that time is the SPU's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use millpond_tests::config;
use millpond_tests::on_cluster::Binaries;
use millpond_tests::on_scripted::{OnScripted, shared};
use millpond_tests::pipeline::EVENTS;
use millpond_tests::process::Running;
use rustix::process::Signal;

const BUILT: Binaries = millpond_tests::binaries!();
const PARTITIONS: u32 = 4;
/// Between two looks at the ledger.
const LOOK: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(120);

#[derive(Parser)]
struct Arguments {
    /// Sinks killed
    #[arg(long, default_value_t = 30)]
    kills: usize,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// Owner and committed offset by topic partition.
type Ledger = BTreeMap<String, (String, u64)>;

async fn ledger(on: &OnScripted) -> Result<Ledger> {
    let answer = on
        .pipeline
        .aws
        .dynamodb
        .query()
        .table_name(EVENTS)
        .key_condition_expression("pk = :pk")
        .expression_attribute_values(
            ":pk",
            aws_sdk_dynamodb::types::AttributeValue::S("millpond:ledger/events-sink/events".into()),
        )
        .consistent_read(true)
        .send()
        .await?;
    let rows = answer.items().iter().map(|row| {
        let text = |name: &str| row.get(name).and_then(|value| value.as_s().ok().cloned());
        let committed = row.get("committed").and_then(|value| value.as_n().ok());
        let committed = committed.and_then(|text| text.parse().ok());
        let owner = text("owner").context("an owner")?;
        Ok((
            text("sk").context("a key")?,
            (owner, committed.context("an offset")?),
        ))
    });
    rows.collect()
}

/// Waits until one process has all partitions and has committed something of each that was another's.
async fn watch(
    on: &OnScripted,
    before: &Ledger,
    killed: Instant,
    (claimed, committed): (&mut Vec<Duration>, &mut Vec<Duration>),
) -> Result<()> {
    let mut claims = BTreeMap::new();
    let mut commits = BTreeMap::new();
    loop {
        let now = ledger(on).await?;
        let at = killed.elapsed();
        for (partition, (owner, offset)) in &now {
            let (owner_before, offset_before) = &before[partition];
            if owner != owner_before {
                claims.entry(partition.clone()).or_insert(at);
                if offset > offset_before {
                    commits.entry(partition.clone()).or_insert(at);
                }
            }
        }
        if owners(&now) == 1 && commits.len() == claims.len() {
            break;
        }
        ensure!(at < LIMIT, "in vain: {now:?}, before {before:?}");
        tokio::time::sleep(LOOK).await;
    }
    ensure!(!claims.is_empty(), "the dead one had nothing: {before:?}");
    claimed.extend(claims.into_values());
    committed.extend(commits.into_values());
    Ok(())
}

fn owners(ledger: &Ledger) -> usize {
    let owners: BTreeSet<&String> = ledger.values().map(|(owner, _)| owner).collect();
    owners.len()
}

/// Waits until two processes have committed something of every partition since the call.
async fn both_at_work(on: &OnScripted) -> Result<Ledger> {
    let before = ledger(on).await?;
    let start = Instant::now();
    loop {
        let now = ledger(on).await?;
        let has_moved = |(partition, (_, offset)): (&String, &(String, u64))| {
            before
                .get(partition)
                .is_some_and(|(_, before)| offset > before)
        };
        if owners(&now) == 2 && now.len() == PARTITIONS as usize && now.iter().all(has_moved) {
            return Ok(now);
        }
        ensure!(start.elapsed() < LIMIT, "no load or no balance: {now:?}");
        tokio::time::sleep(LOOK).await;
    }
}

fn show(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: f64| {
        let index = ((times.len() as f64 * share).ceil() as usize).clamp(1, times.len()) - 1;
        times[index].as_secs_f64()
    };
    #[expect(clippy::print_stdout, reason = "the figures")]
    {
        println!(
            "{what:34} {:>4} partitions   p50 {:5.2} s   p99 {:5.2} s   max {:5.2} s",
            times.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let text = config::pipeline().replace(
        "start: trim-horizon",
        &format!("start: trim-horizon\n  topic-partitions: {PARTITIONS}"),
    );
    let (before, sink) = text.split_once("transforms:").context("a SmartModule")?;
    let (_, sink) = sink.split_once("dynamodb:").context("a section")?;
    let text = format!("{before}dynamodb:{sink}");
    let on = OnScripted::new(BUILT, PARTITIONS, &text).await?;
    let source = on.source()?;
    let mut sinks = [on.sink("one")?, on.sink("two")?];
    shared(&[&sinks[0], &sinks[1]], &[2, 2]).await?;
    // Long enough, and ended with its handle.
    let mut command =
        on.pipeline
            .command(&["emit", "--stream", EVENTS, "--rate=0.1", "--events=300000"]);
    let emitter = Running::start(&mut command)?;
    let (mut claimed, mut committed) = (Vec::new(), Vec::new());
    for kill in 0..arguments.kills {
        let index = kill % 2;
        let before = both_at_work(&on).await?;
        sinks[index].process.signal(Signal::KILL)?;
        let times = (&mut claimed, &mut committed);
        watch(&on, &before, Instant::now(), times).await?;
        let name = ["one", "two"][index];
        sinks[index] = on.sink(name)?;
        shared(&[&sinks[0], &sinks[1]], &[2, 2]).await?;
    }
    drop((emitter, source));
    show("kill to claimed by another", &mut claimed);
    show("kill to committed by another", &mut committed);
    Ok(())
}
