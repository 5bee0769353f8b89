//! Sink processes that share a pipeline, on a scripted cluster: killed, stalled, added and drained under
//! load, with what each event's reader finds in the end.

use anyhow::{Result, ensure};
use millpond_tests::config;
use millpond_tests::eventually;
use millpond_tests::on_scripted::{OnScripted, shared};
use millpond_tests::pipeline::{EVENTS, workload_arguments};
use millpond_tests::process::Running;
use rustix::process::Signal;

use crate::{BUILT, MILLPOND};

/// Sinks that notice soon, so that a test of many deaths is short; the benchmark `takeover` measures the default.
fn quick(partitions: u32) -> String {
    let text = config::pipeline().replace("max-age: 500ms", "max-age: 300ms\n  lease-duration: 2s");
    text.replace(
        "start: trim-horizon",
        &format!("start: trim-horizon\n  topic-partitions: {partitions}"),
    )
}

fn emitter(on: &OnScripted, events: u64, seed: u64) -> Result<Running> {
    let mut command = on
        .pipeline
        .command(&["emit", "--stream", EVENTS, "--rate=0.2"]);
    Running::start(command.args(workload_arguments(events, seed)))
}

fn events(on: &OnScripted) -> u64 {
    let groups = on.pipeline.groups();
    groups.map_or(0, |groups| groups.values().sum())
}

async fn more_events(on: &OnScripted, more: u64, all: u64) -> Result<()> {
    let wanted = (events(on) + more).min(all);
    eventually("more events", async || {
        Ok((events(on) >= wanted).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sinks_killed_stalled_and_added_under_load_lose_and_repeat_nothing() -> Result<()> {
    const EVENTS: u64 = 9_000;
    let on = OnScripted::new(BUILT, 4, &quick(4)).await?;
    let source = on.source()?;
    let (one, two) = (on.sink("one")?, on.sink("two")?);
    shared(&[&one, &two], &[2, 2]).await?;
    let mut load = emitter(&on, EVENTS, 41)?;
    more_events(&on, 500, EVENTS).await?;

    // Dead: the other one takes its partitions, and goes on.
    one.kill()?;
    shared(&[&two], &[4]).await?;
    more_events(&on, 500, EVENTS).await?;

    // Back with its state, and a third one: each gets its share.
    let (one, three) = (on.sink("one")?, on.sink("three")?);
    shared(&[&one, &two, &three], &[1, 1, 2]).await?;
    more_events(&on, 500, EVENTS).await?;

    // Stopped for longer than its leases last, in the middle of its work; then it wakes.
    one.process.signal(Signal::STOP)?;
    shared(&[&two, &three], &[2, 2]).await?;
    more_events(&on, 500, EVENTS).await?;
    one.process.signal(Signal::CONT)?;
    shared(&[&one, &two, &three], &[1, 1, 2]).await?;

    let log = two.drain()?;
    ensure!(log.contains("drained"), "{log}");
    shared(&[&one, &three], &[2, 2]).await?;
    ensure!(load.wait()?.success(), "{}", load.rest().1);
    eventually("all events", async || {
        Ok((events(&on) >= EVENTS).then_some(()))
    })
    .await?;
    source.drain()?;
    for sink in [one, three] {
        sink.drain()?;
    }
    on.pipeline.verify(EVENTS, 41)
}

/// A sink that divides partitions by hand takes one from those that share: only that one stops there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_partition_stops_alone_and_comes_back_by_its_lease() -> Result<()> {
    const EVENTS: u64 = 4_000;
    let on = OnScripted::new(BUILT, 2, &quick(2)).await?;
    let (source, sink) = (on.source()?, on.sink("sharing")?);
    shared(&[&sink], &[2]).await?;
    let mut load = emitter(&on, EVENTS, 42)?;
    let by_hand = "  version: 0.1.0\n  consumer: {partition: 1}\n";
    let file = on.pipeline.dir().join("sink.yaml");
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, text.replacen("  version: 0.1.0\n", by_hand, 1))?;
    let mut rival = on.sink("rival")?;
    // It takes the partition, the lease brings it back, and then it is the rival that is fenced.
    let status = rival.process.wait()?;
    let (_, log) = rival.process.rest();
    ensure!(
        !status.success() && log.contains("fenced"),
        "{status}: {log}"
    );
    ensure!(load.wait()?.success(), "{}", load.rest().1);
    eventually("all events", async || {
        Ok((events(&on) >= EVENTS).then_some(()))
    })
    .await?;
    source.drain()?;
    let log = sink.drain()?;
    ensure!(log.contains("fenced"), "{log}");
    on.pipeline.verify(EVENTS, 42)
}

/// `run` has one process: the documents of sinks that would share its work are one sink there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_runs_one_of_the_sinks_that_share() -> Result<()> {
    let both = several_sinks();
    let pipeline = millpond_tests::pipeline::Pipeline::new(MILLPOND, 3, &both).await?;
    pipeline.emit(2_000, 43)?;
    let log = pipeline.catch_up()?;
    ensure!(log.contains("does the work of both"), "{log}");
    pipeline.verify(2_000, 43)
}

/// Items in one table, ledger in another: a reader is told only of the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_of_its_own_is_found_by_readers() -> Result<()> {
    let text = config::pipeline().replace(
        "max-age: 500ms",
        "max-age: 500ms\n  ledger-table: events-ledger\n  share-partitions: true",
    );
    let pipeline = millpond_tests::pipeline::Pipeline::new(MILLPOND, 3, &text).await?;
    pipeline.emit(1_500, 44)?;
    pipeline.catch_up()?;
    pipeline.emit(1_500, 45)?;
    pipeline.catch_up()?;
    let mut expected = pipeline.expected(1_500, 44)?;
    expected.extend(pipeline.expected(1_500, 45)?);
    expected.sort_unstable();
    ensure!(pipeline.read_all()? == expected, "not what was emitted");
    let of = async |table: &str, kind: &str| -> Result<usize> {
        let items = pipeline.aws.scan(table).await?;
        let keys = items.iter().filter_map(|item| item["pk"].as_s().ok());
        Ok(keys.filter(|pk| pk.starts_with(kind)).count())
    };
    for kind in ["millpond:ledger/", "millpond:leases/"] {
        assert_eq!(of(EVENTS, kind).await?, 0, "{kind}");
        ensure!(of("events-ledger", kind).await? >= 4, "{kind}");
    }
    Ok(())
}

/// The pipeline of the tests with a second sink document beside the first.
fn several_sinks() -> String {
    let text =
        config::pipeline().replace("  table: events\n", "  table: events\n  pipeline: events\n");
    let sinks = text.split_once("---\n").map_or("", |(_, sink)| sink);
    let second = sinks.replace("name: events-sink", "name: events-sink-2");
    format!("{text}---\n{second}")
}
