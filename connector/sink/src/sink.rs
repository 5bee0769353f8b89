//! The sink: its store is opened, then every topic partition runs on its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use millpond_connector::connector::{ConnectorContext, Sink};
use millpond_connector::meta::PartitionChoice;
use millpond_connector::random;
use millpond_connector::topic::{PartitionId, Topic, Transform};
use millpond_leases::{LeaseStore, WorkerId};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::configuration::Configuration;
use crate::dead_letters::DeadLetterFile;
use crate::error::SinkError;
use crate::fingerprint::{Ingredients, fingerprint};
use crate::flush::Shared;
use crate::gaps::OnGap;
use crate::letter_queue::DeadLetters;
use crate::letter_topic::LetterTopic;
use crate::limits::plan_bytes;
use crate::partition;
use crate::registration::Registration;
use crate::sharing::{self, Share, Sharing};
use crate::store::{OpenStore, Place, StoreError};

/// Name of the dead-letter file in the data directory.
const DEAD_LETTER_FILE: &str = "dead-letters.jsonl";

/// Where dead letters go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadLetterTarget {
    /// `dead-letters.jsonl` in the data directory.
    Default,
    /// This file.
    File(PathBuf),
    /// The topic of this name.
    Topic(String),
    /// The store's own place for them.
    Store,
}

/// What any sink is told.
#[derive(Debug, Clone)]
pub struct SinkSettings {
    /// Pipeline name.
    pub pipeline: String,
    /// Longest wait for more data.
    pub max_age: Duration,
    /// Where dead letters go.
    pub dead_letters: DeadLetterTarget,
    /// What to do about data that is gone for good.
    pub on_gap: OnGap,
    /// Pipelines of the same topic in the same store that this one is meant to stand beside.
    pub beside: Vec<String>,
    /// Topic partitions to consume.
    pub partitions: PartitionChoice,
    /// Transform chain.
    pub transforms: Vec<Transform>,
    /// Digests of the SmartModules, where they are known.
    pub digests: Vec<String>,
    /// Settings of the store that decide names or bytes of what it writes.
    pub fingerprint: Vec<String>,
}

/// A sink on any store, ready to run.
pub struct StoreSink {
    settings: SinkSettings,
    store: Box<dyn OpenStore>,
    sharing: Sharing,
    worker: Option<WorkerId>,
}

impl StoreSink {
    /// A sink on a store.
    #[must_use]
    pub fn new(settings: SinkSettings, store: Box<dyn OpenStore>) -> Self {
        Self {
            settings,
            store,
            sharing: Sharing::default(),
            worker: None,
        }
    }

    /// The same, leasing under this id and not under the one that its data directory keeps.
    #[must_use]
    pub fn as_worker(mut self, worker: WorkerId) -> Self {
        self.worker = Some(worker);
        self
    }

    /// The same, sharing topic partitions with other sinks of the pipeline as it says.
    #[must_use]
    pub fn sharing(mut self, sharing: Sharing) -> Self {
        self.sharing = sharing;
        self
    }

    /// Opens the store and registers the pipeline.
    async fn open(self, context: &ConnectorContext) -> Result<Arc<Shared>, SinkError> {
        let settings = self.settings;
        let topic = context.topic.clone();
        let place = Place {
            pipeline: settings.pipeline.clone(),
            topic: topic.name().to_owned(),
            metrics: context.metrics.clone(),
        };
        let refused = |error| match error {
            StoreError::Plan(source) | StoreError::Refused(source) => SinkError::Store(source),
        };
        let store = self.store.open(place).await.map_err(refused)?;
        let dead_letters = match settings.dead_letters {
            DeadLetterTarget::Store => DeadLetters::Store(store.clone()),
            DeadLetterTarget::File(path) => DeadLetters::File(DeadLetterFile::new(path)),
            DeadLetterTarget::Topic(name) => {
                let opened = topic.other(&name).await;
                let opened = opened.map_err(|error| SinkError::DeadLetters(error.to_string()))?;
                DeadLetters::Topic(LetterTopic::new(opened))
            }
            DeadLetterTarget::Default => {
                let path = context.data_dir.join(DEAD_LETTER_FILE);
                DeadLetters::File(DeadLetterFile::new(path))
            }
        };
        let registration = Registration {
            topic: topic.name().to_owned(),
            partitions: topic.partition_count(),
            fingerprint: fingerprint(Ingredients {
                pipeline: &settings.pipeline,
                store: &settings.fingerprint,
                transforms: &settings.transforms,
                digests: &settings.digests,
            }),
        };
        let known = store.pipelines().await.map_err(refused)?;
        let (pipeline, name) = (&settings.pipeline, store.name());
        registration.check_new(&known, &settings.beside, pipeline, &name)?;
        if let Some(found) = store.register(&registration).await.map_err(refused)? {
            registration.check(&found, pipeline, &name)?;
        }
        let configuration = Configuration {
            transforms: settings.transforms.clone(),
            store: settings.fingerprint.clone(),
        };
        let text = configuration
            .text()
            .map_err(|error| SinkError::Registry(error.to_string()))?;
        let kept = store.keep_configuration(&registration.fingerprint, &text);
        kept.await.map_err(refused)?;
        let consumed = chosen(&settings.partitions, topic.partition_count()).len();
        Ok(Arc::new(Shared {
            store,
            topic,
            transforms: settings.transforms,
            metrics: context.metrics.clone(),
            dead_letters,
            pipeline: settings.pipeline,
            on_gap: settings.on_gap,
            max_age: settings.max_age,
            plan_bytes: plan_bytes(consumed),
            owner: format!("{}/{:016x}", context.name, random::number()),
            fingerprint: registration.fingerprint,
        }))
    }
}

fn chosen(choice: &PartitionChoice, count: u32) -> Vec<PartitionId> {
    match choice {
        PartitionChoice::All => (0..count).collect(),
        PartitionChoice::Some(some) => some.clone(),
    }
}

/// The place of the leases, when partitions are to be shared.
fn shared_by(
    share: Share,
    choice: &PartitionChoice,
    shared: &Shared,
) -> Result<Option<Arc<dyn LeaseStore>>, SinkError> {
    let is_open = shared.topic.is_shared() && *choice == PartitionChoice::All;
    match (share, shared.store.leases()) {
        (Share::Always, None) => Err(SinkError::Leases(format!(
            "{} has no place for them: topic partitions cannot be shared",
            shared.store.name()
        ))),
        (Share::Always, some) => Ok(some),
        (Share::Auto, some) if is_open => Ok(some),
        (Share::Auto | Share::Never, _) => Ok(None),
    }
}

#[async_trait]
impl Sink for StoreSink {
    async fn run(self: Box<Self>, context: ConnectorContext) -> anyhow::Result<()> {
        let choice = self.settings.partitions.clone();
        let partitions = chosen(&choice, context.topic.partition_count());
        let Sharing { share, timings } = self.sharing;
        let known = self.worker.clone();
        let name = context.name.clone();
        let named = || format!("sink `{name}`");
        let shared = tokio::select! {
            biased;
            opened = self.open(&context) => opened.with_context(named)?,
            () = drained_with_nothing_to_do(&context, &partitions) => return Ok(()),
        };
        info!(
            sink = name,
            store = shared.store.name(),
            pipeline = shared.pipeline,
            partitions = partitions.len(),
            "sink is ready"
        );
        let leases = shared_by(share, &choice, &shared).with_context(named)?;
        let drain = context.drain.clone();
        let ended = match leases {
            None => run_all(shared, partitions, drain).await,
            Some(leases) => {
                let worker = match known {
                    Some(worker) => worker,
                    None => {
                        let kept = sharing::worker(&context.data_dir).await;
                        kept.with_context(named)?
                    }
                };
                sharing::run(shared, leases, worker, timings, &partitions, drain).await
            }
        };
        let failures = ended
            .inspect_err(|failure| error!(sink = name, error = %failure, "sink stops"))
            .with_context(named)?;
        if failures.is_empty() {
            return Ok(());
        }
        bail!("sink `{name}`: {}", failures.join("; "))
    }
}

/// Time that a store has to open after a drain was asked for, when nothing waits to be written.
const OPENING_GRACE: Duration = Duration::from_secs(2);

/// Waits for the drain of a sink whose store did not answer yet, and returns if there is nothing to be written: what is in
/// the topic is waited for.
async fn drained_with_nothing_to_do(context: &ConnectorContext, partitions: &[PartitionId]) {
    context.drain.cancelled().await;
    // A store that answers is opened all the same: what it refuses is to be said.
    tokio::time::sleep(OPENING_GRACE).await;
    if !is_empty_for(context.topic.as_ref(), partitions).await {
        std::future::pending().await
    }
}

/// True when the topic holds nothing, in these partitions, that its consumers have not released.
async fn is_empty_for(topic: &dyn Topic, partitions: &[PartitionId]) -> bool {
    let Ok(released) = topic.released().await else {
        return false;
    };
    for partition in partitions {
        let Ok(bounds) = topic.bounds(*partition).await else {
            return false;
        };
        let released = released.get(*partition as usize).copied().flatten();
        if bounds.earliest.max(released.unwrap_or(0)) < bounds.end {
            return false;
        }
    }
    true
}

/// Runs all partitions until each is drained; answers why some did not go on.
async fn run_all(
    shared: Arc<Shared>,
    partitions: Vec<PartitionId>,
    drain: CancellationToken,
) -> Result<Vec<String>, SinkError> {
    let held = &shared.metrics.partitions_held;
    held.store(partitions.len() as u64, Ordering::Relaxed);
    let all = shared.topic.partition_count() as usize;
    shared.store.hold(partitions.len(), all);
    let mut running = JoinSet::new();
    for partition in partitions {
        let (shared, drain) = (shared.clone(), drain.clone());
        running.spawn(async move { (partition, partition::run(shared, partition, drain).await) });
    }
    let mut halted = BTreeMap::new();
    while let Some(ended) = running.join_next().await {
        let (partition, ended) = ended.map_err(|error| SinkError::Task(error.to_string()))?;
        match ended {
            Ok(()) => {}
            Err(failure) if failure.is_of_the_records() || failure.is_fenced() => {
                error!(partition, error = %failure, "topic partition halts");
                let why = failure.to_string();
                shared.metrics.halted(partition, why.clone());
                halted.insert(partition, why);
            }
            // Ledgers say where each partition stands; dropping the set stops the others.
            Err(failure) => return Err(failure),
        }
    }
    Ok(halted.into_values().collect())
}
