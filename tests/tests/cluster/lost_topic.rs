//! A topic that is deleted and made anew on a real cluster, in the middle of everything.

use anyhow::{Context as _, Result, ensure};
use millpond_tests::on_cluster::OnCluster;
use millpond_tests::pipeline::EVENTS;
use millpond_tests::{config, eventually};

use crate::BUILT;

const COUNT: u64 = 8_000;
const SEED: u64 = 51;

/// I1 and I2 with `checkpoint-after: table`, as `tests/suite/lost_topic.rs` has it for the embedded topic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_topic_costs_a_replay() -> Result<()> {
    let text = config::pipeline().replace(
        "  start: trim-horizon\n",
        "  start: trim-horizon\n  checkpoint-after: table\n",
    );
    ensure!(text.contains("checkpoint-after"));
    let Some(on) = OnCluster::new(BUILT, "a_deleted_topic_costs_a_replay", &text).await? else {
        return Ok(());
    };
    on.deploy()?;
    let mut emitter = on.pipeline.start_emit(COUNT, SEED, 0.3)?;
    on.pipeline.first_item().await?;
    on.kill("events-sink")?;
    on.kill("events-source")?;
    on.cluster.fluvio(&["topic", "delete", EVENTS])?;
    on.deploy()?;
    let sink = "events-sink";
    eventually("the sink finds the new topic", async || {
        Ok(on
            .log(sink)
            .contains("the topic was made anew")
            .then_some(()))
    })
    .await
    .with_context(|| on.logs())?;
    let emitted = emitter.wait()?;
    ensure!(emitted.success(), "emit: {}", emitter.rest().1);
    on.arrived(COUNT).await?;
    // Under connectors that run: whatever ends because of it is started again by the next `deploy`.
    on.cluster.fluvio(&["topic", "delete", EVENTS])?;
    on.pipeline.emit(2_000, SEED + 1)?;
    eventually("all events", async || {
        on.deploy()?;
        Ok((on.events() >= COUNT + 2_000).then_some(()))
    })
    .await
    .with_context(|| on.logs())?;
    on.down()?;
    let mut expected = on.pipeline.expected(COUNT, SEED)?;
    expected.extend(on.pipeline.expected(2_000, SEED + 1)?);
    expected.sort_unstable();
    let mut read = on.pipeline.read_all()?;
    read.sort_unstable();
    ensure!(
        read == expected,
        "not what was emitted: {} of {}",
        read.len(),
        expected.len()
    );
    let deep = ["verify", "--table", EVENTS, "--stream", EVENTS, "--deep"];
    on.pipeline.succeed(&deep).map(drop)
}
