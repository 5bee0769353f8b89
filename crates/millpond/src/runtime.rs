//! Runs the connectors of a file in this process, on the embedded topic: used by `run` and `demo`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use millpond_connector::connector::{ConnectorContext, Sink, Source};
use millpond_connector::manifest::{Pipeline, PipelineConnector};
use millpond_connector::meta::{PartitionChoice, TopicSettings};
use millpond_connector::metrics::Metrics;
use millpond_connector::registry::{BuiltConnector, Direction};
use millpond_connector::topic::{PartitionId, Topic};
use millpond_embedded_topic::{EmbeddedTopic, Retention, TopicConfig};
use millpond_observe::{Connector, LocalTopic, Process};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::connectors::smart_modules;
use crate::consumer_topic::{ConsumerTopic, OpenedPartitions};
use crate::data_dir::DataDir;

/// A drain on a signal ends within this time: what is not committed by then stays in the topic
/// and is committed after the next start.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// After a failure the others get so long to finish what they have in flight.
const FAILURE_LIMIT: Duration = Duration::from_secs(10);

const CAUGHT_UP_CHECK: Duration = Duration::from_millis(100);

/// Counters of one connector.
#[derive(Debug, Clone)]
pub struct Watched {
    /// `meta.name`.
    pub name: String,
    /// `meta.type`.
    pub type_name: String,
    /// Source or sink.
    pub direction: Direction,
    /// Its counters.
    pub metrics: Arc<Metrics>,
    /// What a sink reads: the partitions, and those of them that it has opened.
    reads: Option<(Vec<PartitionId>, OpenedPartitions)>,
}

impl Watched {
    /// True once a source has read every shard to its newest record, or a sink has opened
    /// every partition that it reads, which compiles the transforms.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match &self.reads {
            Some((partitions, opened)) => opened.has_all(partitions.iter().copied()),
            None => self.is_caught_up(),
        }
    }

    /// True once a source has found its shards, or a sink is ready.
    fn is_at_work(&self) -> bool {
        match self.direction {
            Direction::Source => self.metrics.shards_known.load(Ordering::Relaxed) > 0,
            Direction::Sink => self.is_ready(),
        }
    }

    fn is_caught_up(&self) -> bool {
        self.metrics.caught_up.load(Ordering::Acquire) == 1
    }
}

/// How a run may end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Only when told.
    Told,
    /// When all that was in the streams at start is committed.
    CaughtUp,
}

/// How a run ended, if it did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All that was read is committed.
    Drained,
    /// The limit ran out while the sinks were getting on: the rest is safe in the topic.
    LimitReached,
}

/// A pipeline that is ready to run.
pub struct Runtime {
    sources: Vec<(ConnectorContext, Box<dyn Source>)>,
    sinks: Vec<(ConnectorContext, Box<dyn Sink>)>,
    topics: Vec<Arc<EmbeddedTopic>>,
    watched: Vec<Watched>,
    _data_dir: DataDir,
}

impl Runtime {
    /// Opens the topics and builds the connectors.
    ///
    /// # Errors
    /// What cannot be opened, reached or had, with the connector's name.
    pub async fn build(pipeline: Pipeline, data_dir: DataDir) -> Result<Self> {
        let connectors = one_of_each(pipeline.connectors);
        let consumers: Vec<(String, String)> = connectors
            .iter()
            .filter(|connector| connector.document.direction() == Direction::Sink)
            .map(|connector| &connector.document.meta)
            .map(|meta| (meta.topic.name.clone(), meta.name.clone()))
            .collect();
        let mut topics = Vec::new();
        for settings in &pipeline.topics {
            let config = topic_config(settings, &data_dir);
            let topic = tokio::task::spawn_blocking(move || EmbeddedTopic::open(config)).await??;
            let names = consumers
                .iter()
                .filter(|(topic, _)| *topic == settings.name);
            register_consumers(&topic, names.map(|(_, name)| name.as_str()).collect())?;
            topics.push(Arc::new(topic));
        }
        let others = letter_topics(&connectors, &mut topics, &data_dir).await?;
        let mut runtime = Self {
            sources: Vec::new(),
            sinks: Vec::new(),
            topics,
            watched: Vec::new(),
            _data_dir: data_dir,
        };
        for connector in connectors {
            let meta = connector.document.meta.clone();
            let direction = connector.document.direction();
            let topic = runtime
                .topics
                .iter()
                .find(|topic| topic.name() == meta.topic.name)
                .with_context(|| format!("connector `{}` has no topic", meta.name))?;
            let metrics = Arc::new(Metrics::default());
            let opened = OpenedPartitions::default();
            let reads = (direction == Direction::Sink).then(|| {
                let partitions = match &meta.consumer.partitions {
                    PartitionChoice::All => (0..topic.partition_count()).collect(),
                    PartitionChoice::Some(partitions) => partitions.clone(),
                };
                (partitions, opened.clone())
            });
            let context = ConnectorContext {
                name: meta.name.clone(),
                topic: Arc::new(ConsumerTopic {
                    topic: Arc::clone(topic) as Arc<dyn Topic>,
                    consumer: meta.name.clone(),
                    opened,
                    others: others.clone(),
                }),
                data_dir: runtime._data_dir.connector(&meta.name)?,
                // Replaced when the run begins.
                drain: CancellationToken::new(),
                metrics: Arc::clone(&metrics),
            };
            let built = connector
                .config
                .build()
                .await
                .with_context(|| format!("connector `{}`", meta.name))?;
            match built {
                BuiltConnector::Source(source) => runtime.sources.push((context, source)),
                BuiltConnector::Sink(sink) => runtime.sinks.push((context, sink)),
            }
            runtime.watched.push(Watched {
                name: meta.name,
                type_name: meta.type_name,
                direction,
                metrics,
                reads,
            });
        }
        Ok(runtime)
    }

    /// Puts the connectors and topics into what the process shows.
    pub fn show_in(&self, process: &Process) {
        let connectors = self.sources.iter().map(|(context, _)| context);
        let connectors: Vec<_> = connectors
            .chain(self.sinks.iter().map(|(context, _)| context))
            .collect();
        for watched in &self.watched {
            let Some(context) = connectors.iter().find(|c| c.name == watched.name) else {
                continue;
            };
            let seen = watched.clone();
            process.add_connector(Connector {
                name: watched.name.clone(),
                type_name: watched.type_name.clone(),
                direction: watched.direction,
                metrics: Arc::clone(&watched.metrics),
                topic: Arc::clone(&context.topic),
                is_ready: Box::new(move || seen.is_at_work()),
            });
        }
        for topic in &self.topics {
            process.add_topic(LocalTopic {
                name: topic.name().to_owned(),
                metrics: topic.metrics(),
            });
        }
    }

    /// The connectors' counters, in the order of the file.
    #[must_use]
    pub fn watched(&self) -> &[Watched] {
        &self.watched
    }

    /// Runs until `drain` is cancelled or `until` is reached, then drains: sources first,
    /// then sinks to the end of their topics. From `drain` on it takes at most `drain_limit`.
    ///
    /// # Errors
    /// The first failure of a connector, once all others have ended; nothing is left running.
    pub async fn run(
        self,
        drain: CancellationToken,
        until: Until,
        drain_limit: Option<Duration>,
    ) -> Result<Ended> {
        let topics = self.topics;
        let sources_drain = CancellationToken::new();
        let sinks_drain = CancellationToken::new();
        let mut run = Run {
            watched: self.watched,
            sources: JoinSet::new(),
            sinks: JoinSet::new(),
            sources_drain: sources_drain.clone(),
            sinks_drain: sinks_drain.clone(),
            failure: None,
            drain_limit,
            limit: None,
            steps_at_drain: 0,
        };
        for (mut context, source) in self.sources {
            context.drain = sources_drain.clone();
            let name = context.name.clone();
            run.sources
                .spawn(async move { (name, source.run(context).await) });
        }
        for (mut context, sink) in self.sinks {
            context.drain = sinks_drain.clone();
            let name = context.name.clone();
            run.sinks
                .spawn(async move { (name, sink.run(context).await) });
        }
        let ended = run.drive(&drain, until).await;
        tokio::task::spawn_blocking(move || {
            for topic in topics {
                topic.close();
            }
        })
        .await
        .context("cannot close the topics")?;
        ended
    }
}

type Connectors = JoinSet<(String, Result<()>)>;

struct Run {
    watched: Vec<Watched>,
    sources: Connectors,
    sinks: Connectors,
    sources_drain: CancellationToken,
    sinks_drain: CancellationToken,
    failure: Option<anyhow::Error>,
    drain_limit: Option<Duration>,
    limit: Option<Instant>,
    steps_at_drain: u64,
}

impl Run {
    async fn drive(&mut self, drain: &CancellationToken, until: Until) -> Result<Ended> {
        let mut told = false;
        while !(self.sources.is_empty() && self.sinks.is_empty()) {
            if self.sources.is_empty() {
                self.sinks_drain.cancel();
            }
            let watching = until == Until::CaughtUp && !self.sources_drain.is_cancelled();
            let limit = self.limit.unwrap_or_else(Instant::now);
            tokio::select! {
                () = drain.cancelled(), if !told => {
                    told = true;
                    self.steps_at_drain = self.steps();
                    self.stop_within(self.drain_limit);
                }
                () = sleep(CAUGHT_UP_CHECK), if watching => {
                    if self.is_caught_up() {
                        tracing::info!("caught up: what is in the topic is committed, then this ends");
                        self.sources_drain.cancel();
                    }
                }
                Some(ended) = self.sources.join_next() => {
                    let is_early = !self.sources_drain.is_cancelled();
                    self.note(ended, is_early);
                }
                Some(ended) = self.sinks.join_next() => {
                    let is_early = !self.sinks_drain.is_cancelled();
                    self.note(ended, is_early);
                }
                () = sleep_until(limit), if self.limit.is_some() => return self.over_limit(),
            }
        }
        self.failure.take().map_or(Ok(Ended::Drained), Err)
    }

    fn stop_within(&mut self, limit: Option<Duration>) {
        self.sources_drain.cancel();
        if let Some(limit) = limit {
            let limit = Instant::now() + limit;
            self.limit = Some(self.limit.map_or(limit, |earlier| earlier.min(limit)));
        }
    }

    /// Notes how a connector ended; a failure stops the others, too.
    fn note(
        &mut self,
        ended: std::result::Result<(String, Result<()>), tokio::task::JoinError>,
        is_early: bool,
    ) {
        let failure = match ended {
            Ok((name, Ok(()))) if is_early => {
                anyhow!("connector `{name}` ended without being told")
            }
            Ok((name, Ok(()))) => {
                tracing::info!(connector = name, "drained");
                return;
            }
            Ok((name, Err(error))) => error.context(format!("connector `{name}` failed")),
            Err(error) => anyhow!("a connector broke off: {error}"),
        };
        tracing::error!(error = %format!("{failure:#}"), "a connector failed, the others are drained");
        self.failure.get_or_insert(failure);
        self.stop_within(Some(FAILURE_LIMIT));
    }

    fn over_limit(&mut self) -> Result<Ended> {
        let left = self.sources.len() + self.sinks.len();
        let is_getting_on = self.sources.is_empty() && self.steps() > self.steps_at_drain;
        // Nothing is left running; ledger and checkpoint say where to go on.
        self.sources.abort_all();
        self.sinks.abort_all();
        match self.failure.take() {
            Some(failure) => Err(failure),
            None if is_getting_on => Ok(Ended::LimitReached),
            None => Err(anyhow!(
                "{left} connectors did not drain within {} s and wrote nothing meanwhile; what was read is safe in the topic, start again to go on",
                self.drain_limit.unwrap_or_default().as_secs()
            )),
        }
    }

    /// Sources have read what there was. Sinks have opened what they read, too, or cannot go on: a module that
    /// cannot be loaded is told though the stream be empty.
    fn is_caught_up(&self) -> bool {
        self.watched.iter().all(|watched| match watched.direction {
            Direction::Source => watched.is_caught_up(),
            Direction::Sink => watched.is_ready() || watched.metrics.partitions_halted.get() > 0,
        })
    }

    fn steps(&self) -> u64 {
        self.watched
            .iter()
            .map(|watched| watched.metrics.steps())
            .sum()
    }
}

/// Of connectors that would share one work among processes, the first: in this process it does all.
fn one_of_each(connectors: Vec<PipelineConnector>) -> Vec<PipelineConnector> {
    let mut kept: Vec<PipelineConnector> = Vec::new();
    for connector in connectors {
        let meta = &connector.document.meta;
        let work = connector.config.shared_work();
        let same = kept.iter().find(|kept| {
            work.is_some()
                && kept.config.shared_work() == work
                && kept.document.meta.topic.name == meta.topic.name
        });
        if let (Some(same), Some(work)) = (same, work) {
            tracing::info!(
                connector = meta.name,
                work,
                "left out: in one process `{}` does the work of both",
                same.document.meta.name
            );
            continue;
        }
        kept.push(connector);
    }
    kept
}

/// Opens the topics that sinks put their dead letters into, one partition each; nothing is removed from them.
async fn letter_topics(
    connectors: &[PipelineConnector],
    topics: &mut Vec<Arc<EmbeddedTopic>>,
    data_dir: &DataDir,
) -> Result<Vec<Arc<dyn Topic>>> {
    let mut others: Vec<Arc<dyn Topic>> = Vec::new();
    for connector in connectors {
        let Some(name) = connector.config.dead_letter_topic() else {
            continue;
        };
        if others.iter().any(|topic| topic.name() == name) {
            continue;
        }
        if topics.iter().any(|topic| topic.name() == name) {
            let sink = &connector.document.meta.name;
            bail!("`{sink}` puts dead letters into `{name}`, which is a topic of events");
        }
        let config = letter_topic_config(data_dir.topic(name), name);
        let topic = tokio::task::spawn_blocking(move || EmbeddedTopic::open(config)).await??;
        let topic = Arc::new(topic);
        topics.push(topic.clone());
        others.push(topic);
    }
    Ok(others)
}

/// An embedded topic for dead letters: one partition, and nothing is removed for its size.
#[must_use]
pub fn letter_topic_config(dir: PathBuf, name: &str) -> TopicConfig {
    TopicConfig {
        retention: Retention {
            max_bytes: u64::MAX,
            ..Retention::default()
        },
        ..TopicConfig::new(dir, name, 1)
    }
}

fn topic_config(settings: &TopicSettings, data_dir: &DataDir) -> TopicConfig {
    let partitions = settings.partitions.unwrap_or(1);
    let defaults = Retention::default();
    TopicConfig {
        retention: Retention {
            max_bytes: settings
                .max_partition_bytes
                .map_or(defaults.max_bytes, |bytes| {
                    bytes.saturating_mul(partitions.into())
                }),
            max_age: settings.retention_time.or(defaults.max_age),
        },
        modules: smart_modules(),
        ..TopicConfig::new(
            data_dir.topic(&settings.name),
            settings.name.as_str(),
            partitions,
        )
    }
}

/// Makes the sinks of the file known before anything is stored, and forgets those that are no
/// longer in it, for which the topic would keep everything.
fn register_consumers(topic: &EmbeddedTopic, names: Vec<&str>) -> Result<()> {
    for name in &names {
        topic.register_consumer(name)?;
    }
    for (known, _) in topic.consumers(0) {
        if !names.contains(&known.as_str()) {
            tracing::warn!(
                topic = topic.name(),
                sink = known,
                "sink is no longer in the file: forgotten"
            );
            topic.forget_consumer(&known)?;
        }
    }
    Ok(())
}
