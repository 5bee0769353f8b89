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

use crate::checkpoint_store::StoredCheckpoints;
use crate::config::{KinesisConfig, LeaseConfig, RawKinesis, Start};
use crate::dynamo_table::{DynamoTable, TableSettings};
use crate::fan_out::FanOut;
use crate::limits::LIBRARY_SILENCE;
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
        let source = ConfiguredSource::load(*self).await?;
        source.config.aws.check_credentials(&source.sdk).await?;
        Ok(BuiltConnector::Source(Box::new(source)))
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
    /// Every client is under the section's switches.
    async fn load(config: KinesisConfig) -> anyhow::Result<Self> {
        let switches = config.switches;
        Ok(Self {
            sdk: config.aws.load_with(switches).await?,
            lease_sdk: match &config.leases {
                Some(leases) => Some(leases.aws.load_with(switches).await?),
                None => None,
            },
            // With connections of its own.
            fan_out_sdk: match &config.fan_out {
                Some(_) => Some(config.aws.load_with(switches).await?),
                None => None,
            },
            config,
        })
    }

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
            library_silence: LIBRARY_SILENCE,
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
                let checkpoints = Arc::new(StoredCheckpoints::new(&context.data_dir));
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

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use millpond_connector::testing::validate_section;

    use super::*;

    /// The kind, which keeps what it found valid.
    #[derive(Clone, Default)]
    struct Keeps(Arc<Mutex<Option<KinesisConfig>>>);

    impl ConnectorKind for Keeps {
        fn type_name(&self) -> &'static str {
            KinesisKind.type_name()
        }
        fn section_name(&self) -> &'static str {
            KinesisKind.section_name()
        }
        fn section_schema(&self, generator: &mut SchemaGenerator) -> Schema {
            KinesisKind.section_schema(generator)
        }
        fn validate(
            &self,
            document: &ConnectorDocument,
            section: &Section<'_>,
            problems: &mut Problems,
        ) -> Option<Box<dyn ValidConnector>> {
            let found = KinesisConfig::validate(document, section, problems);
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = found;
            None
        }
    }

    #[tokio::test]
    async fn the_switches_hold_for_every_client() {
        for (switches, expected) in [
            ("fips: true\ndual-stack: true", (Some(true), Some(true))),
            ("dual-stack: true", (None, Some(true))),
            ("fips: false", (Some(false), None)),
        ] {
            let keeps = Keeps::default();
            let section = format!(
                "stream: events\nregion: us-east-1\nmode: fan-out\nconsumer-name: millpond\n\
                 lease-table: leases\n{switches}"
            );
            let (problems, _) = validate_section(keeps.clone(), &section);
            let config = keeps.0.lock().expect("no panic").take();
            let config = config.unwrap_or_else(|| panic!("{problems:?}"));
            let source = ConfiguredSource::load(config).await.expect("loads");
            let loaded = [
                Some(&source.sdk),
                source.lease_sdk.as_ref(),
                source.fan_out_sdk.as_ref(),
            ];
            for sdk in loaded {
                let sdk = sdk.expect("loaded");
                let found = (sdk.use_fips(), sdk.use_dual_stack());
                assert_eq!(found, expected, "{switches}");
            }
        }
    }
}
