//! The connector kind `kinesis-source`, as a registry takes it.

use std::sync::Arc;

use async_trait::async_trait;
use aws_config::SdkConfig;
use millpond_connector::connector::{ConnectorContext, Source};
use millpond_connector::document::ConnectorDocument;
use millpond_connector::problem::Problems;
use millpond_connector::registry::{BuiltConnector, ConnectorKind, ValidConnector};
use millpond_connector::section::Section;
use schemars::{Schema, SchemaGenerator};

use crate::checkpoint_file::FileCheckpoints;
use crate::config::{KinesisConfig, LeaseConfig, RawKinesis, Start};
use crate::dynamo_table::{DynamoTable, TableSettings};
use crate::fan_out::FanOut;
use crate::sdk::SdkStream;
use crate::sdk_admin::SdkAdmin;
use crate::sdk_fan_out::SdkFanOut;
use crate::session::sharing::Worker;
use crate::source::{KinesisSource, system_clock};

/// The kind `kinesis-source` with its section `kinesis`.
#[derive(Debug, Clone, Copy, Default)]
pub struct KinesisKind;

/// The kind to register: `Registry::new().with(millpond_kinesis_source::kind())`.
#[must_use]
pub fn kind() -> KinesisKind {
    KinesisKind
}

impl ConnectorKind for KinesisKind {
    fn type_name(&self) -> &'static str {
        "kinesis-source"
    }

    fn section_name(&self) -> &'static str {
        "kinesis"
    }

    fn package_description(&self) -> Option<&'static str> {
        Some(include_str!("../Connector.toml"))
    }

    fn section_schema(&self, generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<RawKinesis>()
    }

    fn validate(
        &self,
        document: &ConnectorDocument,
        section: &Section<'_>,
        problems: &mut Problems,
    ) -> Option<Box<dyn ValidConnector>> {
        let config = KinesisConfig::validate(document, section, problems)?;
        Some(Box::new(config))
    }
}

#[async_trait]
impl ValidConnector for KinesisConfig {
    fn topic_partitions(&self) -> Option<u32> {
        Some(self.topic_partitions)
    }

    async fn build(self: Box<Self>) -> anyhow::Result<BuiltConnector> {
        let sdk = self.aws.load_with(self.switches).await?;
        self.aws.check_credentials(&sdk).await?;
        let lease_sdk = match &self.leases {
            Some(leases) => Some(leases.aws.load_with(self.switches).await?),
            None => None,
        };
        // With connections of its own.
        let fan_out_sdk = match &self.fan_out {
            Some(_) => Some(self.aws.load_with(self.switches).await?),
            None => None,
        };
        Ok(BuiltConnector::Source(Box::new(ConfiguredSource {
            config: *self,
            sdk,
            lease_sdk,
            fan_out_sdk,
        })))
    }
}

/// A source whose checkpoints, or whose worker's id, go into the data directory that it is run with.
struct ConfiguredSource {
    config: KinesisConfig,
    sdk: SdkConfig,
    lease_sdk: Option<SdkConfig>,
    fan_out_sdk: Option<SdkConfig>,
}

impl ConfiguredSource {
    fn fan_out(&self) -> Option<FanOut> {
        let (config, sdk) = self
            .config
            .fan_out
            .as_ref()
            .zip(self.fan_out_sdk.as_ref())?;
        Some(FanOut {
            api: Arc::new(SdkFanOut::new(sdk, &self.config.stream)),
            consumer_name: config.consumer_name.clone(),
            fall_back: config.fall_back,
            removes_consumer: config.removes_consumer,
        })
    }

    /// Opens the lease table.
    async fn share(
        config: &KinesisConfig,
        leases: &LeaseConfig,
        sdk: &SdkConfig,
        context: &ConnectorContext,
    ) -> anyhow::Result<(DynamoTable, Worker)> {
        let worker = Worker {
            id: millpond_leases::worker_id(&context.data_dir)?,
            settings: leases.settings,
        };
        let settings = TableSettings {
            table: leases.table.clone(),
            stream: config.stream.clone(),
            worker: worker.id.clone(),
            timestamp_ms: match config.source.start {
                Start::AtTimestamp(ms) => Some(ms),
                Start::TrimHorizon | Start::Latest => None,
            },
            clock: Arc::new(system_clock),
        };
        let table = DynamoTable::new(aws_sdk_dynamodb::Client::new(sdk), settings);
        table.prepare(leases.create).await?;
        Ok((table, worker))
    }
}

#[async_trait]
impl Source for ConfiguredSource {
    async fn run(self: Box<Self>, context: ConnectorContext) -> anyhow::Result<()> {
        let api = Arc::new(SdkStream::new(&self.sdk, &self.config.stream));
        let source = match self.config.leases.as_ref().zip(self.lease_sdk.as_ref()) {
            None => {
                let checkpoints = Arc::new(FileCheckpoints::new(&context.data_dir));
                KinesisSource::new(api, self.config.source, checkpoints)
            }
            Some((leases, sdk)) => {
                let (table, worker) = tokio::select! {
                    shared = Self::share(&self.config, leases, sdk, &context) => shared?,
                    () = context.drain.cancelled() => return Ok(()),
                };
                KinesisSource::shared(api, self.config.source, Arc::new(table), worker)
            }
        };
        let source = match self.config.source.changes_stream() {
            true => {
                let admin = SdkAdmin::new(&self.sdk, &self.config.stream);
                source.with_admin(Arc::new(admin))
            }
            false => source,
        };
        let source = match self.fan_out() {
            Some(fan_out) => source.with_fan_out(fan_out),
            None => source,
        };
        Box::new(source).run(context).await
    }
}
