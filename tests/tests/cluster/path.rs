//! The way of an event on a real Fluvio cluster: connectors as processes under cdk, the SmartModule
//! on the SPU, stand-ins for Kinesis and DynamoDB, every event read back.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use millpond_tests::pipeline::{EVENTS, workload_arguments};
use millpond_tests::process::Running;
use millpond_tests::{config, dead_letter_file, eventually};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

use millpond_tests::on_cluster::{OnCluster, sorted};

use crate::BUILT;

/// Events of the demo's workload.
const DEMO_EVENTS: u64 = 116_000;

#[expect(
    clippy::print_stderr,
    reason = "a failing run is repeated from its seed"
)]
pub fn announce_seed(seed: u64) {
    eprintln!("MILLPOND_SEED={seed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_cross_a_cluster_once_and_unchanged() -> Result<()> {
    let Some(on) = OnCluster::new(BUILT, "events_cross_a_cluster", &config::pipeline()).await?
    else {
        return Ok(());
    };
    on.deploy()?;
    on.pipeline.emit(DEMO_EVENTS, 21)?;
    on.arrived(DEMO_EVENTS).await?;
    on.down()?;
    on.pipeline.verify(DEMO_EVENTS, 21)?;
    // Deployed again it goes on where it was.
    on.pipeline.emit(2_000, 22)?;
    on.deploy()?;
    on.arrived(DEMO_EVENTS + 2_000).await?;
    on.down()?;
    let mut expected = on.pipeline.expected(DEMO_EVENTS, 21)?;
    expected.extend(on.pipeline.expected(2_000, 22)?);
    let expected = sorted(expected);
    ensure!(on.pipeline.read_all()? == expected, "not what was emitted");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_answers_lose_nothing() -> Result<()> {
    let text = config::pipeline().replacen(
        "  topic: events\n  version: 0.1.0\ntransforms",
        "  topic: events\n  version: 0.1.0\n  consumer:\n    max-bytes: 64 KiB\ntransforms",
        1,
    );
    ensure!(text.contains("max-bytes"));
    let Some(on) = OnCluster::new(BUILT, "small_answers", &text).await? else {
        return Ok(());
    };
    on.pipeline.emit(6_000, 23)?;
    on.deploy()?;
    on.arrived(6_000).await?;
    on.down()?;
    on.pipeline.verify(6_000, 23)
}

/// The dead-letter file of the sink, wherever `deploy` let it keep its state.
fn dead_letters(dir: &Path) -> Result<String> {
    Ok(std::fs::read_to_string(dead_letter_file(dir)?)?)
}

/// A filter of the user's, sent along with each stream, and a mapping between it and the packer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn modules_of_the_user_work_before_the_packer() -> Result<()> {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../smartmodules/examples");
    let step = |module: &str, parameters: &str| {
        format!("  - uses: {examples}/{module}.wasm\n    with: {{{parameters}}}\n")
    };
    let chain = [
        "transforms:\n",
        &step("filter-events", "pointer: /event_type, drop: entity_scored"),
        &step("redact-json", "remove: tenant"),
    ];
    let text = config::pipeline().replacen("transforms:\n", &chain.concat(), 1);
    let Some(mut on) = OnCluster::new(BUILT, "modules_of_the_user", &text).await? else {
        return Ok(());
    };
    let wanted = |events: Vec<String>| -> Result<Vec<Value>> {
        let mut wanted = Vec::new();
        for event in events {
            let mut event: Value = serde_json::from_str(&event)?;
            if event["event_type"] != "entity_scored" {
                event.as_object_mut().context("an object")?.remove("tenant");
                wanted.push(event);
            }
        }
        wanted.sort_by_key(|event| event["event_id"].to_string());
        Ok(wanted)
    };
    on.deploy()?;
    on.pipeline.emit(6_000, 26)?;
    let mut expected = wanted(on.pipeline.expected(6_000, 26)?)?;
    on.arrived(expected.len() as u64).await?;
    on.kill("events-sink")?;
    on.cluster.restart_spu().await?;
    on.deploy()?;
    on.pipeline.emit(3_000, 27)?;
    expected.extend(wanted(on.pipeline.expected(3_000, 27)?)?);
    on.arrived(expected.len() as u64).await?;
    on.down()?;
    expected.sort_by_key(|event| event["event_id"].to_string());
    let read = on.pipeline.read_all()?;
    let read = read.iter().map(|event| serde_json::from_str(event));
    let mut read: Vec<Value> = read.collect::<Result<_, _>>()?;
    read.sort_by_key(|event| event["event_id"].to_string());
    ensure!(
        read.len() == expected.len() && read == expected,
        "not what was kept"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_costs_one_dead_letter() -> Result<()> {
    let Some(on) = OnCluster::new(BUILT, "poison", &config::pipeline()).await? else {
        return Ok(());
    };
    on.pipeline.emit(1_000, 24)?;
    on.pipeline.aws.put(EVENTS, "p", b"no json").await?;
    on.pipeline.emit(1_000, 25)?;
    on.deploy()?;
    on.arrived(2_000).await?;
    on.down()?;
    let letters = dead_letters(on.pipeline.dir())?;
    ensure!(letters.lines().count() == 1, "dead letters: {letters}");
    ensure!(letters.contains("job_id"), "without its reason: {letters}");
    let mut expected = on.pipeline.expected(1_000, 24)?;
    expected.extend(on.pipeline.expected(1_000, 25)?);
    assert_eq!(on.pipeline.read_all()?, sorted(expected));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_killed_nothing_is_lost_or_repeated() -> Result<()> {
    let Some(mut on) = OnCluster::new(BUILT, "whatever_is_killed", &config::pipeline()).await?
    else {
        return Ok(());
    };
    let seed = std::env::var("MILLPOND_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random::<u64>);
    announce_seed(seed);
    let mut random = StdRng::seed_from_u64(seed);
    on.deploy()?;
    let [events, of_seed, start, jobs] = workload_arguments(20_000, 31);
    let arguments = ["emit", "--stream", EVENTS, "--rate=1"];
    let mut command = on.pipeline.command(&arguments);
    let mut emitter = Running::start(command.args([events, of_seed, start, jobs]))?;
    for _ in 0..6 {
        let before = on.events();
        let more = random.random_range(1..1500);
        eventually("progress before the kill", async || {
            Ok((on.events() >= (before + more).min(20_000)).then_some(()))
        })
        .await
        .with_context(|| on.logs())?;
        match random.random_range(0..4) {
            0 => on.kill("events-source")?,
            1 => on.kill("events-sink")?,
            2 => on.cluster.restart_spu().await?,
            _ => on.cluster.restart_sc().await?,
        }
        on.deploy()?;
    }
    let emitted = emitter.wait()?;
    ensure!(emitted.success(), "{}", emitter.rest().1);
    on.arrived(20_000).await?;
    on.down()?;
    on.pipeline.verify(20_000, 31)
}
