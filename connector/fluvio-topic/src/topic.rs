//! The topic: appends, bounds, releases, readers.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fluvio_protocol::link::ErrorCode;
use fluvio_spu_schema::server::fetch_offset::FetchOffsetsRequest;
use millpond_connector::meta::Compression;
use millpond_connector::topic::{
    Offset, OffsetBounds, PartitionId, PartitionReader, StoredBatch, Topic, TopicError, Transform,
};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::error::{ClusterError, Remedy, classify};
use crate::limits::{ANSWER, MODULE_QUIET, REQUEST};
use crate::producer::Producer;
use crate::reader;
use crate::release::Releases;
use crate::retry::Retry;

/// How a topic is used.
#[derive(Debug, Clone)]
pub struct TopicOptions {
    /// Bytes of one answer to a reader. One batch that is larger, or that a SmartModule makes
    /// larger, is asked for again with more room.
    pub max_bytes: u32,
    /// Compression of the batches appended; `None` and `Any`: what the topic asks for, else none.
    pub compression: Option<Compression>,
    /// What a `uses` is on this cluster, where it is not [`crate::smartmodule_name`] of it.
    pub modules: HashMap<String, ModuleSource>,
    /// How long SmartModules may be silent about what is there to read until the SPU is asked
    /// whether it has come to the end, which has it compile them anew.
    pub module_quiet: Duration,
    /// How long an operation may wait for a leader before it fails with a retryable error.
    pub patience: Duration,
}

impl Default for TopicOptions {
    fn default() -> Self {
        Self {
            max_bytes: ANSWER,
            compression: None,
            modules: HashMap::new(),
            module_quiet: MODULE_QUIET,
            patience: Duration::from_secs(30),
        }
    }
}

/// Where a SmartModule comes from.
#[derive(Debug, Clone)]
pub enum ModuleSource {
    /// Kept on the cluster under this name.
    Named(String),
    /// Sent along with every stream.
    Wasm(Arc<[u8]>),
}

/// A topic on a Fluvio cluster.
pub struct FluvioTopic {
    shared: Arc<Shared>,
    producers: Vec<Producer>,
    releases: Releases,
}

/// What the parts of an open topic know.
pub(crate) struct Shared {
    pub cluster: Cluster,
    pub name: String,
    pub options: TopicOptions,
    partitions: u32,
    control: Vec<Mutex<Option<Connection>>>,
    /// What is known of SmartModules. Whoever holds it may have an SPU compile some: it does so on
    /// the threads that answer everything else, and so is asked for one chain at a time.
    pub compiling: Mutex<Compiling>,
}

/// What is known of SmartModules.
#[derive(Debug, Default)]
pub(crate) struct Compiling {
    /// Chains that an SPU has taken.
    pub taken: Vec<Vec<Transform>>,
    /// How long it took for one of them.
    pub takes: Duration,
}

impl FluvioTopic {
    pub(crate) async fn open(
        cluster: Cluster,
        name: &str,
        mut options: TopicOptions,
    ) -> Result<Self, ClusterError> {
        let deadline = Instant::now() + options.patience;
        let mut retry = Retry::new(options.patience);
        let partitions = loop {
            let Some(topic) = cluster.topic_description(name).await? else {
                return Err(ClusterError::NoTopic {
                    topic: name.to_owned(),
                });
            };
            // A topic just created gets its partitions a moment later.
            let found = cluster.partitions(name).await?;
            if found.len() == topic.partitions as usize && !found.is_empty() {
                let chosen = options
                    .compression
                    .filter(|codec| *codec != Compression::Any);
                options.compression = chosen.or(topic.compression);
                break topic.partitions;
            }
            if Instant::now() >= deadline || !retry.wait().await {
                return Err(ClusterError::NoLeader {
                    topic: name.to_owned(),
                    partition: found.len() as u32,
                });
            }
        };
        let shared = Arc::new(Shared {
            cluster,
            name: name.to_owned(),
            options,
            partitions,
            control: (0..partitions).map(|_| Mutex::new(None)).collect(),
            compiling: Mutex::default(),
        });
        let producers = (0..partitions)
            .map(|partition| Producer::new(Arc::clone(&shared), partition))
            .collect();
        Ok(Self {
            releases: Releases::new(Arc::clone(&shared)),
            shared,
            producers,
        })
    }
}

impl Shared {
    /// Refuses a partition that the topic does not have.
    fn known(&self, partition: PartitionId) -> Result<(), TopicError> {
        if partition < self.partitions {
            return Ok(());
        }
        Err(TopicError::UnknownPartition {
            topic: self.name.clone(),
            partition,
        })
    }

    /// A fresh connection to the leader of a partition.
    pub(crate) async fn connect_leader(&self, partition: u32) -> Result<Connection, ClusterError> {
        let leader = self.cluster.leader(&self.name, partition).await?;
        self.cluster.open(&leader).await
    }

    /// First offset and committed end, from the leader; tried again within the topic's patience.
    pub(crate) async fn bounds(&self, partition: PartitionId) -> Result<OffsetBounds, TopicError> {
        let mut retry = Retry::new(self.options.patience);
        loop {
            match self.bounds_once(partition).await {
                Err(error) if error.is_transient() && retry.wait().await => {
                    tracing::debug!(topic = self.name, partition, %error, "offsets asked again");
                }
                other => return other.map_err(|error| error.on_topic(&self.name)),
            }
        }
    }

    /// The same, tried once.
    pub(crate) async fn bounds_once(
        &self,
        partition: PartitionId,
    ) -> Result<OffsetBounds, ClusterError> {
        let Some(slot) = self.control.get(partition as usize) else {
            return Err(ClusterError::NoLeader {
                topic: self.name.clone(),
                partition,
            });
        };
        let connection = {
            let mut slot = slot.lock().await;
            match slot.as_ref().filter(|open| !open.is_stale()) {
                Some(open) => open.clone(),
                None => {
                    let fresh = self.connect_leader(partition).await?;
                    *slot = Some(fresh.clone());
                    fresh
                }
            }
        };
        let request = FetchOffsetsRequest::new(self.name.clone(), partition);
        let answer = connection
            .request("fetch offsets", request, REQUEST)
            .await?;
        let found = answer
            .topics
            .into_iter()
            .flat_map(|topic| topic.partitions)
            .find(|found| found.partition_index == partition);
        let Some(found) = found else {
            return Err(connection.unreachable("its answer names another partition".into()));
        };
        match found.error_code {
            ErrorCode::None => Ok(OffsetBounds {
                earliest: found.start_offset.try_into().unwrap_or_default(),
                end: found.last_stable_offset.try_into().unwrap_or_default(),
            }),
            code if classify(&code) == Remedy::FindLeader => {
                *slot.lock().await = None;
                Err(ClusterError::NoLeader {
                    topic: self.name.clone(),
                    partition,
                })
            }
            code => Err(ClusterError::Refused {
                what: format!("tell the offsets of topic `{}`", self.name),
                reason: code.to_string(),
            }),
        }
    }

    /// The error for an offset that is not there.
    pub(crate) fn out_of_range(
        &self,
        partition: PartitionId,
        offset: Offset,
        bounds: OffsetBounds,
    ) -> TopicError {
        TopicError::OffsetOutOfRange {
            topic: self.name.clone(),
            partition,
            offset,
            earliest: bounds.earliest,
            end: bounds.end,
        }
    }
}

#[async_trait]
impl Topic for FluvioTopic {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn partition_count(&self) -> u32 {
        self.shared.partitions
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn other(&self, name: &str) -> Result<Arc<dyn Topic>, TopicError> {
        let options = TopicOptions {
            compression: self.shared.options.compression,
            ..TopicOptions::default()
        };
        match self.shared.cluster.open_topic(name, options).await {
            Ok(topic) => Ok(Arc::new(topic)),
            Err(error) => Err(TopicError::Storage {
                topic: name.to_owned(),
                context: error.to_string(),
                retryable: error.is_transient(),
            }),
        }
    }

    async fn append(
        &self,
        partition: PartitionId,
        batch: StoredBatch,
    ) -> Result<Range<Offset>, TopicError> {
        self.shared.known(partition)?;
        let Some(producer) = self.producers.get(partition as usize) else {
            return Err(TopicError::Closed(self.shared.name.clone()));
        };
        producer.append(batch).await
    }

    async fn reader(
        &self,
        partition: PartitionId,
        from: Offset,
        transforms: &[Transform],
    ) -> Result<Box<dyn PartitionReader>, TopicError> {
        self.shared.known(partition)?;
        let bounds = self.shared.bounds(partition).await?;
        if from < bounds.earliest || from > bounds.end {
            return Err(self.shared.out_of_range(partition, from, bounds));
        }
        let shared = Arc::clone(&self.shared);
        let reader = reader::open(shared, partition, from, transforms).await?;
        Ok(Box::new(reader))
    }

    async fn bounds(&self, partition: PartitionId) -> Result<OffsetBounds, TopicError> {
        self.shared.known(partition)?;
        self.shared.bounds(partition).await
    }

    /// Stores the offset as Fluvio's consumer offset of `consumer`, for `status` and
    /// `fluvio consumer list` to see. Retention belongs to the topic: nothing waits for a release
    /// and nothing is removed by one, so that failing to store it is logged and is no error.
    async fn release(
        &self,
        partition: PartitionId,
        consumer: &str,
        offset: Offset,
    ) -> Result<(), TopicError> {
        self.shared.known(partition)?;
        self.releases.store(partition, consumer, offset).await
    }

    /// From Fluvio's consumer offsets of this topic, whoever stored them.
    async fn released(&self) -> Result<Vec<Option<Offset>>, TopicError> {
        let name = &self.shared.name;
        let stored = self.shared.cluster.consumer_offsets().await;
        let stored = stored.map_err(|error| error.on_topic(name))?;
        let of = |partition: u32| {
            let here = stored
                .iter()
                .filter(|one| one.topic == *name && one.partition == partition);
            here.map(|one| one.offset).min()
        };
        Ok((0..self.shared.partitions).map(of).collect())
    }
}
