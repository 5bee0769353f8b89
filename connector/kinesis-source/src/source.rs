//! The source: finds out where it stands, then runs a session.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use millpond_connector::connector::{ConnectorContext, Source};

use crate::checkpoint::{CheckpointStore, PinnedStart};
use crate::classify::Operation;
use crate::client::{StreamApi, StreamState, StreamSummary};
use crate::config::{SourceConfig, Start};
use crate::delivery::Delivery;
use crate::error::SourceError;
use crate::listing::list_all;
use crate::reader::WallClock;
use crate::retry::{Phase, Retry};
use crate::roster::Roster;
use crate::session::{Parts, Session};

/// Time between two looks at a stream that is being created.
const CREATION_POLL: Duration = Duration::from_secs(1);

/// Reads one stream into a topic.
pub struct KinesisSource {
    api: Arc<dyn StreamApi>,
    config: SourceConfig,
    checkpoints: Arc<dyn CheckpointStore>,
    clock: WallClock,
}

impl KinesisSource {
    /// Reads the stream behind `api`, remembering in `checkpoints` how far it is.
    #[must_use]
    pub fn new(
        api: Arc<dyn StreamApi>,
        config: SourceConfig,
        checkpoints: Arc<dyn CheckpointStore>,
    ) -> Self {
        Self {
            api,
            config,
            checkpoints,
            clock: Arc::new(system_clock),
        }
    }

    /// Takes the time of day from elsewhere, milliseconds since the Unix epoch: for simulation.
    #[must_use]
    pub fn with_clock(mut self, clock: WallClock) -> Self {
        self.clock = clock;
        self
    }

    /// Looks at stream and checkpoint; answers the roster with a first listing, saved.
    async fn prepare(&self, partition_count: u32) -> Result<(Roster, StreamSummary), SourceError> {
        let summary = self.wait_for_stream().await?;
        let target = self.api.target();
        let stream = &target.stream;
        let aggregated = self.config.aggregated;
        let mut roster = match self.checkpoints.load(stream).await? {
            Some(found) if found.stream_created_ms != summary.created_ms => {
                return Err(SourceError::OtherStream {
                    target: Box::new(target.clone()),
                    checkpoint_ms: found.stream_created_ms,
                    stream_ms: summary.created_ms,
                });
            }
            Some(found) => Roster::resume(found, aggregated, partition_count, (self.clock)()),
            None => {
                let start = self.pin_start(&summary)?;
                Roster::fresh(
                    stream,
                    summary.created_ms,
                    start,
                    aggregated,
                    partition_count,
                )
            }
        };
        let ticket = roster.begin_listing();
        let listing = list_all(self.api.as_ref(), roster.scope()).await?;
        let vanished = roster.listed(ticket, &listing.shards, listing.pages);
        if let Some(shard) = vanished.into_iter().next() {
            return Err(SourceError::ShardGone {
                shard,
                target: Box::new(target.clone()),
            });
        }
        // Where reading began, and numberings begun anew, must outlive a crash before any event is sent.
        self.checkpoints.save(roster.checkpoint()).await?;
        roster.take_dirty();
        tracing::info!(
            stream = %stream,
            region = %target.region,
            endpoint = target.endpoint.as_deref(),
            start = ?roster.checkpoint().start,
            shards = roster.shards().count(),
            retention_hours = summary.retention_ms / 3_600_000,
            "source started"
        );
        Ok((roster, summary))
    }

    async fn wait_for_stream(&self) -> Result<StreamSummary, SourceError> {
        let target = self.api.target();
        let mut retry = Retry::new(Operation::Describe, target, Phase::Start);
        loop {
            match retry.call(|| self.api.describe()).await? {
                Some(summary) if summary.state == StreamState::Readable => return Ok(summary),
                Some(summary) if summary.state == StreamState::Deleting => {
                    return Err(SourceError::StreamDeleting {
                        target: Box::new(target.clone()),
                    });
                }
                _ => {
                    tracing::info!(stream = %target.stream, "stream is being created");
                    tokio::time::sleep(CREATION_POLL).await;
                }
            }
        }
    }

    /// Turns the configured start into one that does not move.
    fn pin_start(&self, summary: &StreamSummary) -> Result<PinnedStart, SourceError> {
        // The service's own clock decides which records are new: ours may be ahead of it,
        // and would skip them.
        let now_ms = summary.server_time_ms.unwrap_or_else(|| (self.clock)());
        let from_ms = match self.config.start {
            Start::TrimHorizon => return Ok(PinnedStart::TrimHorizon),
            Start::Latest => now_ms,
            Start::AtTimestamp(ms) => ms,
        };
        if from_ms > now_ms.max((self.clock)()) {
            return Err(SourceError::StartInFuture {
                target: Box::new(self.api.target().clone()),
                start_ms: from_ms,
                now_ms,
            });
        }
        if from_ms <= summary.created_ms {
            return Ok(PinnedStart::TrimHorizon);
        }
        Ok(PinnedStart::Timestamp { ms: from_ms })
    }
}

fn system_clock() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

#[async_trait]
impl Source for KinesisSource {
    async fn run(self: Box<Self>, context: ConnectorContext) -> anyhow::Result<()> {
        let partition_count = context.topic.partition_count();
        let (roster, summary) = tokio::select! {
            biased;
            prepared = self.prepare(partition_count) => prepared?,
            // Nothing was read yet: there is nothing to bring to safety.
            () = context.drain.cancelled() => return Ok(()),
        };
        let stream = self.api.target().stream.clone();
        let delivery = Delivery::new(
            &stream,
            partition_count,
            self.config.batching,
            self.config.aggregated,
        );
        let parts = Parts {
            api: self.api,
            store: self.checkpoints,
            topic: context.topic,
            metrics: context.metrics,
            clock: self.clock,
            pace: self.config.pace,
            retention_ms: summary.retention_ms,
        };
        Session::new(parts, roster, delivery)
            .run(context.drain)
            .await?;
        Ok(())
    }
}
