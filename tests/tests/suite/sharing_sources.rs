//! Sources as processes that share the shards of one stream, against the scripted cluster.

use anyhow::{Result, ensure};
use millpond_tests::fleet::{Fleet, Source, drain};
use millpond_tests::on_cluster::sorted;
use millpond_tests::scripted_cluster::ScriptedCluster;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::Signal;

use crate::BUILT;

#[expect(
    clippy::print_stderr,
    reason = "a failing run is repeated from its seed"
)]
fn announced_seed() -> u64 {
    let seed = std::env::var("MILLPOND_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random);
    eprintln!("MILLPOND_SEED={seed}");
    seed
}

async fn rescale(fleet: &Fleet, shards: i32) -> Result<()> {
    let call = fleet.pipeline.aws.kinesis.update_shard_count();
    call.stream_name("events")
        .target_shard_count(shards)
        .scaling_type(aws_sdk_kinesis::types::ScalingType::UniformScaling)
        .send()
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_sources_shards_are_taken_over_and_each_event_arrives_once() -> Result<()> {
    let servers = ScriptedCluster::start().await?;
    let fleet = Fleet::new(BUILT, servers.endpoint(), 4).await?;
    let sink = fleet.sink()?;
    let first = fleet.source()?;
    fleet.shared_as(&[4]).await?;
    let mut second = fleet.source()?;
    fleet.shared_as(&[2, 2]).await?;
    // What the killed one has sent since its last checkpoint is sent again, and must not count twice.
    fleet.pipeline.emit(3_000, 51)?;
    second.process.stderr_line("shard begun")?;
    first.process.signal(Signal::KILL)?;
    fleet.pipeline.emit(1_000, 52)?;
    rescale(&fleet, 8).await?;
    fleet.pipeline.emit(1_000, 53)?;
    fleet.arrived(5_000).await?;
    fleet.shared_as(&[8]).await?;
    drain(second.process)?;
    fleet.shared_as(&[]).await?;
    drain(sink)?;
    let mut expected = fleet.pipeline.expected(3_000, 51)?;
    expected.extend(fleet.pipeline.expected(1_000, 52)?);
    expected.extend(fleet.pipeline.expected(1_000, 53)?);
    let expected = sorted(expected);
    ensure!(
        fleet.pipeline.read_all()? == expected,
        "not what was emitted"
    );
    Ok(())
}

/// I1 to I4: one emission, so that the order within its partition keys can be checked at the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_come_and_go_under_load() -> Result<()> {
    let seed = announced_seed();
    let mut random = StdRng::seed_from_u64(seed);
    let servers = ScriptedCluster::start().await?;
    let fleet = Fleet::new(BUILT, servers.endpoint(), 2).await?;
    let mut sink = fleet.sink()?;
    let mut sources = vec![fleet.source()?];
    let mut emitter = fleet.pipeline.start_emit(4_000, 61, 0.15)?;
    let mut shards = 2;
    while emitter.is_running()? {
        let pick = random.random_range(0..sources.len().max(1));
        match random.random_range(0..5) {
            0 | 1 if sources.len() < 3 => sources.push(fleet.source()?),
            2 if !sources.is_empty() => {
                let Source { mut process, place } = sources.swap_remove(pick);
                process.signal(Signal::KILL)?;
                process.wait()?;
                if random.random_bool(0.5) {
                    sources.push(fleet.source_at(place)?);
                }
            }
            3 if sources.len() > 1 => drain(sources.swap_remove(pick).process)?,
            _ => {
                shards = if shards == 2 { 4 } else { 2 };
                // It may be refused while the last one is under way.
                let _ = rescale(&fleet, shards).await;
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(
            random.random_range(0..3_000),
        ))
        .await;
    }
    if sources.is_empty() {
        sources.push(fleet.source()?);
    }
    if let Err(error) = fleet.arrived(4_000).await {
        let mut said = format!("sink:\n{}", sink.stderr_so_far());
        for source in &mut sources {
            said += &format!("source:\n{}", source.process.stderr_so_far());
        }
        return Err(error.context(said));
    }
    for source in sources {
        drain(source.process)?;
    }
    drain(sink)?;
    fleet.pipeline.verify(4_000, 61)
}
