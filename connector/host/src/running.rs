//! Building the connector, running it, and ending it in time.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use millpond_connector::connector::ConnectorContext;
use millpond_connector::data_dir::DataDir;
use millpond_connector::manifest::PipelineConnector;
use millpond_connector::registry::{BuiltConnector, Direction};
use millpond_connector::topic::Topic;
use millpond_fluvio_topic::FluvioTopic;
use millpond_observe::Phase;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::state::State;

/// A drain ends within this time: what is not committed by then is committed after the next start.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// Builds and runs the connector until `drain` is cancelled, and then for [`DRAIN_LIMIT`] at most.
pub(crate) async fn run(
    connector: PipelineConnector,
    topic: FluvioTopic,
    data_dir: DataDir,
    state: &State,
    drain: CancellationToken,
) -> Result<()> {
    let direction = connector.document.direction();
    let meta = &connector.document.meta;
    tracing::info!(
        connector = meta.name,
        topic = meta.topic.name,
        partitions = topic.partition_count(),
        data_dir = %data_dir.path().display(),
        "building"
    );
    let built = tokio::select! {
        biased;
        // Nothing is in flight yet.
        () = drain.cancelled() => return Ok(()),
        built = connector.config.build() => built?,
    };
    let topic: Arc<dyn Topic> = Arc::new(topic);
    state.connected(direction, Arc::clone(&topic));
    let context = ConnectorContext {
        name: meta.name.clone(),
        topic,
        data_dir: data_dir.path().to_owned(),
        drain: drain.clone(),
        metrics: Arc::clone(&state.metrics),
    };
    state.enter(Phase::Running);
    let mut task = tokio::spawn(async move {
        match built {
            BuiltConnector::Source(source) => source.run(context).await,
            BuiltConnector::Sink(sink) => sink.run(context).await,
        }
    });
    tokio::select! {
        ended = &mut task => {
            ended.context("the connector broke off")??;
            if drain.is_cancelled() {
                tracing::info!("drained");
                return Ok(());
            }
            bail!("the connector ended without being told");
        }
        () = drain.cancelled() => {}
    }
    state.enter(Phase::Draining);
    finish(task, state, direction, DRAIN_LIMIT).await
}

/// Waits for a connector that was told to drain.
async fn finish(
    mut task: JoinHandle<Result<()>>,
    state: &State,
    direction: Direction,
    limit: Duration,
) -> Result<()> {
    let before = state.metrics.steps();
    if let Ok(ended) = timeout(limit, &mut task).await {
        ended.context("the connector broke off")??;
        tracing::info!("drained");
        return Ok(());
    }
    // Nothing is left running; ledger and checkpoint say where to go on.
    task.abort();
    let steps = state.metrics.steps() - before;
    if direction == Direction::Sink && steps > 0 {
        tracing::info!(
            seconds = limit.as_secs(),
            steps,
            "drained for so long; the rest stays in the topic and is committed after the next start"
        );
        return Ok(());
    }
    bail!(
        "it did not drain within {} s and wrote nothing meanwhile; what was read is safe, start again to go on",
        limit.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn after(limit: Duration, commits: u64, direction: Direction) -> Result<()> {
        let state = State::new("out", "dynamodb-sink");
        let metrics = Arc::clone(&state.metrics);
        let (told, tell) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let _told = told;
            tokio::task::yield_now().await;
            metrics.commits.add(commits);
            std::future::pending::<()>().await;
            Ok(())
        });
        let ended = finish(task, &state, direction, limit).await;
        tell.await
            .expect_err("the connector is dropped, not left running");
        ended
    }

    #[tokio::test(start_paused = true)]
    async fn a_backlog_ends_a_drain_well_as_long_as_it_gets_on() {
        after(DRAIN_LIMIT, 1, Direction::Sink).await.expect("well");
        let stuck = after(DRAIN_LIMIT, 0, Direction::Sink).await;
        let stuck = stuck.expect_err("it wrote nothing").to_string();
        assert!(stuck.contains("within 30 s"), "{stuck}");
        // A source has no backlog to blame.
        let source = after(DRAIN_LIMIT, 1, Direction::Source).await;
        source.expect_err("it must end by itself");
    }
}
