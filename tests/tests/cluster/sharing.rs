//! Several sinks of one pipeline on a real cluster, each a document of the file: deployed, killed, taken
//! away and added under load.

use anyhow::{Context as _, Result, ensure};
use millpond_tests::on_cluster::{OnCluster, patient};
use millpond_tests::pipeline::{EVENTS, workload_arguments};
use millpond_tests::process::Running;
use millpond_tests::{config, eventually};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

use crate::BUILT;

/// Events of the load; at the rate below they take about a minute.
const LOAD: u64 = 20_000;

/// A source, and sinks of these names with one pipeline.
fn pipeline_of(sinks: &[&str]) -> Result<String> {
    let text = config::pipeline();
    let (source, sink) = text.split_once("---\n").context("two documents")?;
    let sink = sink.replace("  table: events\n", "  table: events\n  pipeline: events\n");
    let mut all = source.to_owned();
    for name in sinks {
        all.push_str("---\n");
        all.push_str(&sink.replace("name: events-sink\n", &format!("name: {name}\n")));
    }
    Ok(all)
}

/// Waits until there are more events than now.
async fn progress(on: &OnCluster, more: u64) -> Result<()> {
    let wanted = (on.events() + more).min(LOAD);
    eventually("progress", async || {
        Ok((on.events() >= wanted).then_some(()))
    })
    .await
    .with_context(|| on.logs())
}

/// Waits until each partition has an owner, and these are as many.
async fn owners(on: &OnCluster, count: usize) -> Result<()> {
    eventually("owners", async || {
        let items = on.pipeline.aws.scan(EVENTS).await?;
        let text = |item: &std::collections::HashMap<String, _>, name: &str| {
            let value: Option<&aws_sdk_dynamodb::types::AttributeValue> = item.get(name);
            value.and_then(|value| value.as_s().ok().cloned())
        };
        let leases: Vec<_> = items
            .iter()
            .filter(|item| {
                text(item, "pk").is_some_and(|pk| pk.starts_with("millpond:leases/"))
                    && text(item, "sk").is_some_and(|sk| sk.starts_with("lease/"))
            })
            .collect();
        let owned: Vec<String> = leases
            .iter()
            .filter_map(|item| text(item, "owner"))
            .collect();
        let different: std::collections::BTreeSet<&String> = owned.iter().collect();
        let is_so = leases.len() == 4 && owned.len() == 4 && different.len() == count;
        Ok(is_so.then_some(()))
    })
    .await
    .with_context(|| on.logs())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sinks_share_a_topic_and_come_and_go_under_load() -> Result<()> {
    const NAMES: [&str; 3] = ["events-sink", "events-sink-2", "events-sink-3"];
    let text = pipeline_of(&NAMES[..2])?;
    let Some(on) = OnCluster::new(BUILT, "sinks_share_a_topic", &text).await? else {
        return Ok(());
    };
    let seed = std::env::var("MILLPOND_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random::<u64>);
    crate::path::announce_seed(seed);
    let mut random = StdRng::seed_from_u64(seed);
    on.deploy()?;
    owners(&on, 2).await?;
    let arguments = ["emit", "--stream", EVENTS, "--rate=0.2"];
    let mut command = on.pipeline.command(&arguments);
    let mut emitter = Running::start(command.args(workload_arguments(LOAD, 51)))?;
    progress(&on, 500).await?;

    // Dead: the other one does its work.
    on.kill("events-sink")?;
    owners(&on, 1).await?;
    progress(&on, 500).await?;

    // A third one in the file; `deploy` starts what does not run, and leaves the rest alone.
    on.pipeline.set_config(&patient(&pipeline_of(&NAMES)?))?;
    on.deploy()?;
    owners(&on, 3).await?;
    progress(&on, 500).await?;

    for _ in 0..3 {
        let name = NAMES[random.random_range(0..NAMES.len())];
        on.kill(name)?;
        progress(&on, random.random_range(1..800)).await?;
        on.deploy()?;
        owners(&on, 3).await?;
    }
    let emitted = emitter.wait()?;
    ensure!(emitted.success(), "{}", emitter.rest().1);
    on.arrived(LOAD).await?;

    // One consumer in `status`, whoever commits.
    let status = on.status()?;
    for partition in status["partitions"].as_array().context("partitions")? {
        let consumers = partition["consumers"].as_array().context("consumers")?;
        let names: Vec<&Value> = consumers.iter().map(|one| &one["consumer"]).collect();
        ensure!(names == ["events"], "{partition}");
    }
    on.down()?;
    on.pipeline.verify(LOAD, 51)
}
