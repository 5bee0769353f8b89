//! The sink: its tables are made ready, then every topic partition runs on its own.

use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use millpond_connector::connector::{ConnectorContext, Sink};
use millpond_connector::meta::PartitionChoice;
use tokio::task::JoinSet;
use tracing::{error, info};

use crate::client::TableApi;
use crate::config::{DeadLetterTarget, SinkConfig};
use crate::dead_letters::DeadLetterFile;
use crate::error::SinkError;
use crate::fingerprint::{Ingredients, fingerprint};
use crate::flush::Shared;
use crate::letter_queue::DeadLetters;
use crate::limits::plan_bytes;
use crate::partition;
use crate::table::{prepare, register};
use crate::writer::{Budget, TableWriter};

/// Name of the dead-letter file in the data directory.
const DEAD_LETTER_FILE: &str = "dead-letters.jsonl";

/// The sink, ready to run.
pub struct DynamoSink {
    config: SinkConfig,
    table: Arc<dyn TableApi>,
    dead_letter_table: Option<Arc<dyn TableApi>>,
}

impl DynamoSink {
    /// A sink on a table, and on another for dead letters if the configuration names one.
    #[must_use]
    pub fn new(
        config: SinkConfig,
        table: Arc<dyn TableApi>,
        dead_letter_table: Option<Arc<dyn TableApi>>,
    ) -> Self {
        Self {
            config,
            table,
            dead_letter_table,
        }
    }

    /// Makes the tables ready and registers the pipeline.
    async fn open(self, context: &ConnectorContext) -> Result<Arc<Shared>, SinkError> {
        let config = self.config;
        let metrics = context.metrics.clone();
        let budget = config
            .max_write_units_per_second
            .map(|units| Arc::new(Budget::new(units)));
        let writer = |api: Arc<dyn TableApi>| {
            TableWriter::new(api, config.keys.clone(), budget.clone(), metrics.clone())
        };
        let table = writer(self.table);
        prepare(&table, config.create).await?;
        let dead_letters = match (self.dead_letter_table, &config.dead_letters) {
            (Some(api), _) => {
                let table = writer(api);
                prepare(&table, config.create).await?;
                DeadLetters::Table(table)
            }
            (None, DeadLetterTarget::File(path)) => {
                DeadLetters::File(DeadLetterFile::new(path.clone()))
            }
            (None, _) => {
                let path = context.data_dir.join(DEAD_LETTER_FILE);
                DeadLetters::File(DeadLetterFile::new(path))
            }
        };
        let fingerprint = fingerprint(Ingredients {
            pipeline: &config.pipeline,
            keys: [&config.keys.partition, &config.keys.sort],
            max_item_bytes: config.max_item_bytes,
            transforms: &config.transforms,
            digests: &config.digests,
        });
        let topic = context.topic.clone();
        let partitions = topic.partition_count();
        let consumed = match &config.partitions {
            PartitionChoice::All => partitions as usize,
            PartitionChoice::Some(some) => some.len(),
        };
        register(
            &table,
            &config.pipeline,
            topic.name(),
            partitions,
            &fingerprint,
        )
        .await?;
        Ok(Arc::new(Shared {
            table,
            topic,
            transforms: config.transforms,
            metrics,
            dead_letters,
            pipeline: config.pipeline,
            keys: config.keys,
            max_item_bytes: config.max_item_bytes,
            max_age: config.max_age,
            plan_bytes: plan_bytes(consumed),
            owner: format!("{}/{:016x}", context.name, rand::random::<u64>()),
            fingerprint,
        }))
    }
}

#[async_trait]
impl Sink for DynamoSink {
    async fn run(self: Box<Self>, context: ConnectorContext) -> anyhow::Result<()> {
        let partitions: Vec<u32> = match &self.config.partitions {
            PartitionChoice::All => (0..context.topic.partition_count()).collect(),
            PartitionChoice::Some(some) => some.clone(),
        };
        let name = context.name.clone();
        let shared = self
            .open(&context)
            .await
            .with_context(|| format!("sink `{name}`"))?;
        info!(
            sink = name,
            table = shared.table.name(),
            pipeline = shared.pipeline,
            partitions = partitions.len(),
            "sink is ready"
        );
        let mut running = JoinSet::new();
        for partition in partitions {
            running.spawn(partition::run(
                shared.clone(),
                partition,
                context.drain.clone(),
            ));
        }
        while let Some(ended) = running.join_next().await {
            // The first failure ends the sink: its ledgers say where each partition stands,
            // and dropping the set stops the others.
            let result = ended.context("a topic partition's task")?;
            if let Err(failure) = &result {
                error!(sink = name, error = %failure, "sink stops");
            }
            result.with_context(|| format!("sink `{name}`"))?;
        }
        Ok(())
    }
}
