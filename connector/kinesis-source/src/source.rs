//! The source: finds out where it stands, then runs a session.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use millpond_connector::connector::{ConnectorContext, Source};
use millpond_connector::metrics::Metrics;
use millpond_connector::topic::Topic;

use crate::admin::StreamAdmin;
use crate::checkpoint::{CheckpointStore, PinnedStart, StreamCheckpoint};
use crate::classify::Operation;
use crate::client::{StreamApi, StreamState, StreamSummary};
use crate::config::{CheckpointAfter, SourceConfig, Start};
use crate::consumer::Consumer;
use crate::delivery::Delivery;
use crate::error::SourceError;
use crate::fan_out::FanOut;
use crate::limits::ANEW_POLL;
use crate::listing::list_all;
use crate::loss::{OnLoss, tell};
use crate::reader::WallClock;
use crate::retention::Retention;
use crate::retry::{Phase, Retry};
use crate::roster::Roster;
use crate::session::losses::unseen_gap;
use crate::session::sharing::{Shared, Worker};
use crate::session::watch::WatchSettings;
use crate::session::{Parts, Session};
use crate::shard_table::{Alone, ShardTable, StreamHead};

/// Time between two looks at a stream that is being created.
const CREATION_POLL: Duration = Duration::from_secs(1);

/// Reads one stream into a topic.
pub struct KinesisSource {
    api: Arc<dyn StreamApi>,
    config: SourceConfig,
    table: Arc<dyn ShardTable>,
    /// Who this process is among those that share the shards.
    worker: Option<Worker>,
    admin: Option<Arc<dyn StreamAdmin>>,
    /// Shards are read by fan-out.
    fan_out: Option<FanOut>,
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
            table: Arc::new(Alone::new(checkpoints)),
            worker: None,
            admin: None,
            fan_out: None,
            clock: Arc::new(system_clock),
        }
    }

    /// Reads those shards of the stream behind `api` whose leases in `table` this worker comes to hold.
    #[must_use]
    pub fn shared(
        api: Arc<dyn StreamApi>,
        config: SourceConfig,
        table: Arc<dyn ShardTable>,
        worker: Worker,
    ) -> Self {
        Self {
            api,
            config,
            table,
            worker: Some(worker),
            admin: None,
            fan_out: None,
            clock: Arc::new(system_clock),
        }
    }

    /// Has the shards pushed by enhanced fan-out, instead of polling them.
    #[must_use]
    pub fn with_fan_out(mut self, fan_out: FanOut) -> Self {
        self.fan_out = Some(fan_out);
        self
    }

    async fn consumer(&self) -> Result<Option<Arc<Consumer>>, SourceError> {
        let Some(fan_out) = self.fan_out.clone() else {
            return Ok(None);
        };
        let consumer = Consumer::register(fan_out, self.api.target()).await?;
        Ok(consumer.map(Arc::new))
    }

    /// Takes the time of day from elsewhere, milliseconds since the Unix epoch: for simulation.
    #[must_use]
    pub fn with_clock(mut self, clock: WallClock) -> Self {
        self.clock = clock;
        self
    }

    /// Lets the source change its stream, as its settings say.
    #[must_use]
    pub fn with_admin(mut self, admin: Arc<dyn StreamAdmin>) -> Self {
        self.admin = Some(admin);
        self
    }

    fn awaits_release(&self) -> bool {
        self.config.checkpoint_after == CheckpointAfter::Table
    }

    /// Looks at stream and checkpoint; answers the roster with a first listing, saved.
    async fn prepare(
        &self,
        topic: &Arc<dyn Topic>,
        metrics: &Metrics,
    ) -> Result<(Roster, StreamSummary), SourceError> {
        let summary = self.wait_for_stream().await?;
        let target = self.api.target();
        let stream = &target.stream;
        let found = self.table.load(stream).await?;
        // With rows and no head, the rows are another program's.
        let is_take_over = found.head.is_none() && !found.shards.is_empty();
        let head = match found.head {
            Some(head) => head,
            None => StreamHead {
                stream: stream.clone(),
                stream_created_ms: summary.created_ms,
                start: self.pin_start(&summary)?,
            },
        };
        self.check_stream(&head, &summary)?;
        let aggregated = self.config.numbering();
        let numbered_as = match &self.worker {
            // One choice holds for all shards; where they are shared, each is looked at when it is taken.
            None => found.shards.values().next().map(|row| row.aggregated),
            Some(_) => None,
        };
        let shards = found.shards.into_iter();
        let checkpoint = StreamCheckpoint {
            stream: stream.clone(),
            stream_created_ms: head.stream_created_ms,
            start: head.start,
            aggregated: numbered_as.unwrap_or(aggregated),
            shards: shards.map(|(id, row)| (id, row.checkpoint)).collect(),
        };
        let partition_count = topic.partition_count();
        let mut roster = Roster::resume(checkpoint, aggregated, partition_count, (self.clock)());
        let ticket = roster.begin_listing();
        let listing = list_all(self.api.as_ref(), roster.scope()).await?;
        if is_take_over {
            // Before the head is there: a start that was cut off here must do it again.
            roster.take_over(&listing.shards);
            self.table.save(&roster.take_writes(|_| None)).await?;
            tracing::info!(stream = %stream, "lease table taken over from another program");
        }
        let holds = self.table.begin(head).await?;
        self.check_stream(&holds, &summary)?;
        roster.set_start(holds.start);
        // A listing may be stale: whether a shard is gone its reader finds out.
        let _ = roster.listed(ticket, &listing.shards, listing.pages);
        if roster.needs_listing() {
            // Several pages are no picture of one moment. What they leave open is settled before
            // anything is saved.
            let ticket = roster.begin_listing();
            let listing = list_all(self.api.as_ref(), roster.scope()).await?;
            let _ = roster.listed(ticket, &listing.shards, listing.pages);
        }
        self.tell_unseen(&mut roster, topic, metrics, summary.retention_ms)
            .await?;
        // Where reading began, and numberings begun anew, must outlive a crash before any event is sent.
        let epoch = self.worker.is_none().then_some(0);
        self.table.save(&roster.take_writes(|_| epoch)).await?;
        tracing::info!(
            stream = %stream,
            region = %target.region,
            endpoint = target.endpoint.as_deref(),
            start = ?roster.checkpoint().start,
            shards = roster.shards().count(),
            retention_hours = summary.retention_ms / 3_600_000,
            worker = self.worker.as_ref().map(|worker| worker.id.as_str()),
            "source started"
        );
        Ok((roster, summary))
    }

    /// Shards that nobody heard of were closed and removed: said before their children are saved, which would be
    /// all that is left of them.
    async fn tell_unseen(
        &self,
        roster: &mut Roster,
        topic: &Arc<dyn Topic>,
        metrics: &Metrics,
        retention_ms: i64,
    ) -> Result<(), SourceError> {
        let target = self.api.target();
        for shard in roster.take_unseen() {
            if self.config.on_loss == OnLoss::Fail {
                return Err(SourceError::ShardGone {
                    shard,
                    target: Box::new(target.clone()),
                });
            }
            let now_ms = (self.clock)();
            let gap = unseen_gap(&target.stream, &shard, now_ms - retention_ms);
            // Before anything is read there is nothing else to do: the sinks bring it to safety meanwhile.
            tell(topic.clone(), gap.clone(), now_ms, self.awaits_release()).await?;
            tracing::error!(%gap, "recorded as a gap");
            metrics.stream_gaps.add(1);
        }
        Ok(())
    }

    fn check_stream(&self, head: &StreamHead, summary: &StreamSummary) -> Result<(), SourceError> {
        if head.stream_created_ms == summary.created_ms {
            return Ok(());
        }
        Err(SourceError::OtherStream {
            target: Box::new(self.api.target().clone()),
            checkpoint_ms: head.stream_created_ms,
            stream_ms: summary.created_ms,
        })
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

/// A partition that ends before what its consumers have released of it: the topic was made anew, or lost its last
/// records.
async fn shorter(topic: &dyn Topic) -> Result<Option<String>, SourceError> {
    let released = topic.released().await?;
    for (partition, released) in (0..).zip(released) {
        let end = topic.bounds(partition).await?.end;
        if let Some(released) = released.filter(|released| *released > end) {
            return Ok(Some(format!(
                "topic `{}` partition {partition} ends at offset {end}, and its consumers have released it up to \
                 {released}: it was made anew or lost records",
                topic.name()
            )));
        }
    }
    Ok(None)
}

/// What consumers released of a log that is gone says nothing of this one. Where the checkpoint follows that, nothing
/// is sent before they have noticed, too, and their offsets are those of this topic.
async fn wait_for_consumers(topic: &dyn Topic) -> Result<(), SourceError> {
    let mut looks = 0u32;
    while let Some(what) = shorter(topic).await? {
        if looks.is_power_of_two() || looks == 0 {
            tracing::warn!(
                "{what}. The source waits until they have noticed: a sink does when it is started. The offsets of a \
                 consumer that is gone for good have to be deleted (`fluvio consumer delete`)"
            );
        }
        looks = looks.saturating_add(1);
        tokio::time::sleep(ANEW_POLL).await;
    }
    Ok(())
}

/// Says that events are lost where the checkpoint is past what a topic had acknowledged.
async fn tell_of_loss(topic: &dyn Topic) {
    match shorter(topic).await {
        Ok(None) => {}
        Ok(Some(what)) => tracing::error!(
            "{what}. With `checkpoint-after: topic` the checkpoint is past what it had acknowledged: what its sinks \
             had not committed is lost to them; they find it missing. See \"When the topic is lost\" in the README of \
             `kinesis-source`"
        ),
        Err(error) => {
            tracing::debug!(%error, "the topic does not say what its consumers have released");
        }
    }
}

pub(crate) fn system_clock() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

#[async_trait]
impl Source for KinesisSource {
    async fn run(self: Box<Self>, context: ConnectorContext) -> anyhow::Result<()> {
        let partition_count = context.topic.partition_count();
        let prepare = async {
            let (roster, summary) = self.prepare(&context.topic, &context.metrics).await?;
            Ok::<_, SourceError>((roster, summary, self.consumer().await?))
        };
        let (roster, summary, consumer) = tokio::select! {
            biased;
            prepared = prepare => prepared?,
            // Nothing was read yet: there is nothing to bring to safety.
            () = context.drain.cancelled() => return Ok(()),
        };
        let stream = self.api.target().stream.clone();
        let awaits_release = self.awaits_release();
        if awaits_release {
            tokio::select! {
                biased;
                noticed = wait_for_consumers(context.topic.as_ref()) => noticed?,
                () = context.drain.cancelled() => return Ok(()),
            }
        } else {
            tell_of_loss(context.topic.as_ref()).await;
        }
        let delivery = Delivery::new(
            &stream,
            partition_count,
            self.config.batching,
            self.config.numbering(),
        );
        let delivery = match awaits_release {
            true => delivery.awaiting_release(),
            false => delivery,
        };
        let parts = Parts {
            api: self.api,
            table: self.table.clone(),
            topic: context.topic,
            metrics: context.metrics.clone(),
            retention: Retention::new(summary.retention_ms, self.clock.clone()),
            clock: self.clock,
            pace: self.config.pace,
            on_loss: self.config.on_loss,
            awaits_release,
            watch: WatchSettings {
                guard: self.config.guard,
                scaling: self.config.scaling,
                admin: self.admin,
            },
            decompress: self.config.decompress,
            consumer: consumer.clone(),
        };
        let shared = self.worker.as_ref().and_then(|worker| {
            let sharing = self.table.sharing()?;
            Some(Shared::start(sharing, worker, context.metrics.clone()))
        });
        Session::new(parts, roster, delivery, shared)
            .run(context.drain)
            .await?;
        if let Some(consumer) = consumer {
            consumer.leave().await;
        }
        Ok(())
    }
}
