//! Several sources share the shards of a stream on a real cluster; they are killed, added and drained under load.

use anyhow::Result;
use millpond_fluvio_topic::testing::LocalCluster;
use millpond_tests::fleet::{Fleet, drain};
use rustix::process::Signal;

use crate::BUILT;

/// I1 to I4: one emission, so that the order within its partition keys can be checked at the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_share_a_stream_on_a_cluster() -> Result<()> {
    if !LocalCluster::is_available("sources_share_a_stream_on_a_cluster") {
        return Ok(());
    }
    let mut cluster = LocalCluster::start().await?;
    let fleet = Fleet::new(BUILT, cluster.endpoint(), 4).await?;
    let sink = fleet.sink()?;
    let first = fleet.source()?;
    fleet.shared_as(&[4]).await?;
    let mut emitter = fleet.pipeline.start_emit(6_000, 71, 0.15)?;
    let second = fleet.source()?;
    fleet.shared_as(&[2, 2]).await?;
    first.process.signal(Signal::KILL)?;
    cluster.restart_spu().await?;
    let third = fleet.source()?;
    fleet.shared_as(&[2, 2]).await?;
    drain(second.process)?;
    fleet.shared_as(&[4]).await?;
    emitter.wait()?;
    fleet.arrived(6_000).await?;
    drain(third.process)?;
    drain(sink)?;
    fleet.pipeline.verify(6_000, 71)
}
