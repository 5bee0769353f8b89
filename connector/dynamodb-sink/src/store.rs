//! The table as a store of the sink.

use std::sync::Arc;

use async_trait::async_trait;
use millpond_connector::topic::PartitionId;
use millpond_format::keys;
use millpond_leases::LeaseStore;
use millpond_sink::dead_letters::DeadLetter;
use millpond_sink::ledger::LedgerRow;
use millpond_sink::registration::Registration;
use millpond_sink::store::{OpenStore, Place, PlanWriter, Store, StoreError};

use crate::client::{Capacity, TableApi};
use crate::error::DynamoError;
use crate::ledger_row::{decode, encode, unchanged};
use crate::letter_rows;
use crate::plan::PlanConfig;
use crate::plan_writer::TablePlans;
use crate::row::{Key, KeyNames};
use crate::table::{prepare, register};
use crate::writer::{Budget, TableWriter};

/// Makes the place of the leases of one pipeline.
pub type LeasesOf = Box<dyn FnOnce(&Place) -> Arc<dyn LeaseStore> + Send>;

/// The tables of a sink.
pub struct Tables {
    /// For the items.
    pub data: Arc<dyn TableApi>,
    /// For dead letters, if they go to a table.
    pub dead_letters: Option<Arc<dyn TableApi>>,
    /// For the ledger, if it has one of its own.
    pub ledger: Option<Arc<dyn TableApi>>,
    /// Makes the place of the leases; without it, topic partitions cannot be shared.
    pub leases: Option<LeasesOf>,
}

/// A table that is to be opened.
pub struct TableSettings {
    /// The table.
    pub table: Arc<dyn TableApi>,
    /// Another one for dead letters, if they go to a table.
    pub dead_letters: Option<Arc<dyn TableApi>>,
    /// Another one for the ledger.
    pub ledger: Option<Arc<dyn TableApi>>,
    /// The place of the leases, if there is one.
    pub leases: Option<LeasesOf>,
    /// How to create a missing table; `None` does not.
    pub create: Option<Capacity>,
    /// Key attribute names.
    pub keys: KeyNames,
    /// Largest item in bytes.
    pub max_item_bytes: usize,
    /// Write budget of the first two.
    pub max_write_units_per_second: Option<u64>,
}

#[async_trait]
impl OpenStore for TableSettings {
    async fn open(self: Box<Self>, place: Place) -> Result<Arc<dyn Store>, StoreError> {
        let budget = self
            .max_write_units_per_second
            .map(|units| Arc::new(Budget::new(units)));
        let writer = |api, budget: &Option<Arc<Budget>>| {
            let (keys, metrics) = (self.keys.clone(), place.metrics.clone());
            TableWriter::new(api, keys, budget.clone(), metrics)
        };
        let table = writer(self.table, &budget);
        prepare(&table, self.create).await?;
        let dead_letters = self.dead_letters.map(|api| writer(api, &budget));
        if let Some(table) = &dead_letters {
            prepare(table, self.create).await?;
        }
        // A unit now and then: neither the budget nor the capacity of the items is meant for it.
        let ledger = self.ledger.map(|api| writer(api, &None));
        if let Some(table) = &ledger {
            prepare(table, self.create.map(|_| Capacity::OnDemand)).await?;
        }
        Ok(Arc::new(TableStore {
            table,
            dead_letters,
            ledger,
            leases: self.leases.map(|leases| leases(&place)),
            max_item_bytes: self.max_item_bytes,
            place,
        }))
    }
}

/// A table that is ready.
pub struct TableStore {
    /// The table.
    pub table: TableWriter,
    /// The table of dead letters.
    pub dead_letters: Option<TableWriter>,
    /// The table of the ledger, where that is another one.
    pub ledger: Option<TableWriter>,
    /// The place of the leases, if there is one.
    pub leases: Option<Arc<dyn LeaseStore>>,
    /// Largest item in bytes.
    pub max_item_bytes: usize,
    /// Whose rows.
    pub place: Place,
}

impl TableStore {
    fn ledger_table(&self) -> &TableWriter {
        self.ledger.as_ref().unwrap_or(&self.table)
    }

    fn ledger_key(&self, partition: PartitionId) -> Key {
        Key {
            pk: keys::ledger_pk(&self.place.pipeline, &self.place.topic),
            sk: keys::ledger_sk(partition),
        }
    }
}

#[async_trait]
impl Store for TableStore {
    fn name(&self) -> String {
        format!("table `{}`", self.table.name())
    }

    async fn register(
        &self,
        registration: &Registration,
    ) -> Result<Option<Registration>, StoreError> {
        let Self { table, ledger, .. } = self;
        let found = register(table, ledger.as_ref(), &self.place.pipeline, registration);
        Ok(found.await?)
    }

    async fn ledger(&self, partition: PartitionId) -> Result<Option<LedgerRow>, StoreError> {
        let key = self.ledger_key(partition);
        let found = self.ledger_table().get(&key).await;
        let found = found.map_err(DynamoError::from)?;
        let Some(row) = found else { return Ok(None) };
        let decoded = decode(&row).map_err(|error| row_error(key, &error))?;
        Ok(Some(decoded))
    }

    async fn put_ledger(
        &self,
        partition: PartitionId,
        row: &LedgerRow,
        seen: Option<&LedgerRow>,
    ) -> Result<bool, StoreError> {
        let key = self.ledger_key(partition);
        let row = encode(row, key.clone()).map_err(|error| row_error(key, &error))?;
        let put = self.ledger_table().put(&row, &unchanged(seen)).await;
        Ok(put.map_err(DynamoError::from)?)
    }

    fn writer(&self, partition: PartitionId) -> Box<dyn PlanWriter> {
        let config = PlanConfig {
            pipeline: self.place.pipeline.clone(),
            topic: self.place.topic.clone(),
            partition,
            keys: self.table.keys().clone(),
            max_item_bytes: self.max_item_bytes,
        };
        Box::new(TablePlans::new(self.table.clone(), config))
    }

    async fn put_dead_letters(&self, letters: &[DeadLetter]) -> Result<(), StoreError> {
        let table = self.dead_letters.as_ref().unwrap_or(&self.table);
        for letter in letters {
            let rows = letter_rows::rows(letter, &self.place.pipeline);
            let written = table.write_rows(rows).await;
            written.map_err(DynamoError::from)?;
        }
        Ok(())
    }

    fn leases(&self) -> Option<Arc<dyn LeaseStore>> {
        self.leases.clone()
    }
}

fn row_error(key: Key, error: &crate::ledger_row::LedgerRowError) -> DynamoError {
    DynamoError::Row {
        pk: key.pk,
        sk: key.sk,
        what: error.to_string(),
    }
}
