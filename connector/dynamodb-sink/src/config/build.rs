//! Makes the sink of its configuration.

use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use millpond_connector::aws::endpoint;
use millpond_connector::aws_http::is_loopback;
use millpond_connector::meta::PartitionChoice;
use millpond_connector::registry::{BuiltConnector, ValidConnector};
use millpond_leases::DynamoStore;
use millpond_sink::claim::StaleWrites;
use millpond_sink::fingerprint::module_digests;
use millpond_sink::sharing::Share;
use millpond_sink::sink::{self, SinkSettings, StoreSink};

use super::{DeadLetterTarget, SinkConfig};
use crate::client::TableApi;
use crate::client::aws::AwsTable;
use crate::limits::SIGNATURE_LIFE;
use crate::plan_writer::Spreading;
use crate::store::{self, LeasesOf, TableSettings, Tables};

#[async_trait]
impl ValidConnector for SinkConfig {
    fn shared_work(&self) -> Option<String> {
        let shares = self.sharing.share != Share::Never && self.partitions == PartitionChoice::All;
        shares.then(|| format!("pipeline `{}` in table `{}`", self.pipeline, self.table))
    }

    fn dead_letter_topic(&self) -> Option<&str> {
        match &self.dead_letters {
            DeadLetterTarget::Topic(name) => Some(name),
            _ => None,
        }
    }

    async fn build(mut self: Box<Self>) -> anyhow::Result<BuiltConnector> {
        self.digests = module_digests(&self.transforms);
        let context = || format!("table `{}`", self.table);
        let sdk = self.aws.load().await.with_context(context)?;
        self.aws
            .check_credentials(&sdk)
            .await
            .with_context(context)?;
        let client = Client::new(&sdk);
        let table = |name: &str| -> Arc<dyn TableApi> {
            Arc::new(AwsTable::new(
                client.clone(),
                name.to_owned(),
                self.keys.clone(),
            ))
        };
        let data = table(&self.table);
        let dead_letters = match &self.dead_letters {
            DeadLetterTarget::Table(name) => Some(table(name)),
            DeadLetterTarget::Default | DeadLetterTarget::File(_) | DeadLetterTarget::Topic(_) => {
                None
            }
        };
        let ledger = self.ledger_table.as_deref().map(table);
        let leases: LeasesOf = {
            let name = self.ledger_table.as_ref().unwrap_or(&self.table).clone();
            let keys = self.keys.clone();
            let client = client.clone();
            Box::new(move |place| {
                let (pk, sk) = (&keys.partition, &keys.sort);
                let (pipeline, topic) = (&place.pipeline, &place.topic);
                Arc::new(DynamoStore::new(client, &name, pk, sk, pipeline, topic))
            })
        };
        let tables = Tables {
            data,
            dead_letters,
            ledger,
            leases: Some(leases),
            stale_writes: stale_writes(endpoint(&sdk, "DynamoDB").as_deref()),
        };
        Ok(BuiltConnector::Sink(Box::new(self.sink_on(tables))))
    }
}

/// By the endpoint that is spoken to, `None` being the service's own.
fn stale_writes(endpoint: Option<&str>) -> StaleWrites {
    match endpoint.is_some_and(is_loopback) {
        true => StaleWrites::LOCAL,
        false => StaleWrites::signed(SIGNATURE_LIFE),
    }
}

impl SinkConfig {
    /// The sink on these tables, the second one for dead letters, without leases.
    #[must_use]
    pub fn sink(
        self,
        table: Arc<dyn TableApi>,
        dead_letters: Option<Arc<dyn TableApi>>,
    ) -> StoreSink {
        self.sink_on(Tables {
            data: table,
            dead_letters,
            ledger: None,
            leases: None,
            stale_writes: stale_writes(None),
        })
    }

    /// The sink on these tables.
    #[must_use]
    pub fn sink_on(self, tables: Tables) -> StoreSink {
        let fingerprint = store::settings(
            &self.keys,
            self.max_item_bytes,
            &self.form,
            self.write_shards,
        );
        let shared = SinkSettings {
            pipeline: self.pipeline,
            max_age: self.max_age,
            dead_letters: match self.dead_letters {
                DeadLetterTarget::Default => sink::DeadLetterTarget::Default,
                DeadLetterTarget::File(path) => sink::DeadLetterTarget::File(path),
                DeadLetterTarget::Table(_) => sink::DeadLetterTarget::Store,
                DeadLetterTarget::Topic(name) => sink::DeadLetterTarget::Topic(name),
            },
            on_gap: self.on_gap,
            beside: self.beside,
            partitions: self.partitions,
            transforms: self.transforms,
            digests: self.digests,
            fingerprint,
        };
        let sharing = self.sharing;
        let table = TableSettings {
            stale_writes: tables.stale_writes,
            table: tables.data,
            dead_letters: tables.dead_letters,
            ledger: tables.ledger,
            leases: tables.leases,
            create: self.create,
            keys: self.keys,
            max_item_bytes: self.max_item_bytes,
            pace: self.pace,
            form: self.form,
            training: self.training,
            // Without a limit no key is ever hot.
            spreading: Spreading::new(self.write_shards, self.pace.key_units.unwrap_or(0)),
        };
        StoreSink::new(shared, Box::new(table)).sharing(sharing)
    }
}
