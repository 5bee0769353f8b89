//! The table as a store of the sink.

mod ledger;
mod open;
mod settings;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use millpond_connector::topic::{Offset, PartitionId};
use millpond_format::gap::Gap;
use millpond_format::keys;
use millpond_leases::LeaseStore;
use millpond_sink::claim::{Holder, StaleWrites};
use millpond_sink::dead_letters::DeadLetter;
use millpond_sink::gaps::PlanGaps;
use millpond_sink::ledger::LedgerRow;
use millpond_sink::registration::Registration;
use millpond_sink::store::{Place, PlanWriter, Store, StoreError, TakeBack};

use crate::client::Condition;
use crate::dictionaries::Dictionaries;
use crate::error::DynamoError;
use crate::form::ItemForm;
use crate::ledger_row::decode;
use crate::letter_rows;
use crate::mapped::MappedPlans;
use crate::plan::PlanConfig;
use crate::plan_writer::{Spreading, TablePlans};
use crate::resting::Resting;
use crate::row::{Key, Row, Value, names};
use crate::spread::WriteShards;
use crate::table::{Registered, register, registrations};
use crate::undo::Undo;
use crate::writer::TableWriter;

use settings::parse_settings;

pub use open::{LeasesOf, TableSettings, Tables};
pub use settings::settings;

/// Gaps asked for at once.
const GAPS_PAGE: usize = 500;

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
    /// What small items are packed with.
    pub dictionaries: Arc<Dictionaries>,
    /// Largest item in bytes.
    pub max_item_bytes: usize,
    /// What items look like.
    pub form: ItemForm,
    /// Over how many partition keys chains of items are spread.
    pub spreading: Spreading,
    /// When what a stale writer sent has an end.
    pub stale_writes: StaleWrites,
    /// Whose rows.
    pub place: Place,
    /// Marks that lie in rows of their own, as the ledger rows name them.
    pub resting: Mutex<BTreeMap<PartitionId, Resting>>,
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

    fn configuration_key(&self, fingerprint: &str) -> Key {
        Key {
            pk: keys::configurations_pk(&self.place.pipeline),
            sk: fingerprint.to_owned(),
        }
    }

    fn plans(
        &self,
        partition: PartitionId,
        max_item_bytes: usize,
        form: ItemForm,
        write_shards: WriteShards,
    ) -> Box<dyn PlanWriter> {
        let mapping = form.mapping.clone();
        let config = PlanConfig {
            pipeline: self.place.pipeline.clone(),
            topic: self.place.topic.clone(),
            partition,
            keys: self.table.keys().clone(),
            max_item_bytes,
            form,
        };
        let (table, metrics) = (self.table.clone(), self.place.metrics.clone());
        match mapping {
            None => {
                let spreading = self.spreading.clone().with_setting(write_shards);
                Box::new(TablePlans::new(
                    table,
                    config,
                    spreading,
                    self.dictionaries.clone(),
                    metrics,
                ))
            }
            Some(mapping) => Box::new(MappedPlans::new(table, config, mapping, metrics)),
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
        let of = Registered {
            pipeline: &self.place.pipeline,
            registration,
            form: &self.form,
        };
        let found = register(table, ledger.as_ref(), of);
        Ok(found.await?)
    }

    async fn ledger(&self, partition: PartitionId) -> Result<Option<LedgerRow>, StoreError> {
        Ok(self.read_ledger(partition).await?)
    }

    async fn put_ledger(
        &self,
        partition: PartitionId,
        row: &LedgerRow,
        seen: Option<&LedgerRow>,
    ) -> Result<bool, StoreError> {
        Ok(self.replace_ledger(partition, row, seen).await?)
    }

    fn writer(&self, partition: PartitionId) -> Box<dyn PlanWriter> {
        let write_shards = self.spreading.write_shards;
        self.plans(
            partition,
            self.max_item_bytes,
            self.form.clone(),
            write_shards,
        )
    }

    fn writer_as(
        &self,
        partition: PartitionId,
        settings: &[String],
    ) -> Option<Box<dyn PlanWriter>> {
        let (max_item_bytes, form, write_shards) = parse_settings(settings, self.table.keys())?;
        Some(self.plans(partition, max_item_bytes, form, write_shards))
    }

    async fn pipelines(&self) -> Result<Vec<(String, Registration)>, StoreError> {
        Ok(registrations(&self.table).await?)
    }

    async fn keep_configuration(&self, fingerprint: &str, text: &str) -> Result<(), StoreError> {
        let row = Row::new(self.configuration_key(fingerprint))
            .with(names::CONFIGURATION, Value::S(text.to_owned()));
        let put = self.table.put(&row, &Condition::Absent).await;
        put.map_err(DynamoError::from)?;
        Ok(())
    }

    async fn configuration(&self, fingerprint: &str) -> Result<Option<String>, StoreError> {
        let found = self.table.get(&self.configuration_key(fingerprint)).await;
        let found = found.map_err(DynamoError::from)?;
        let text = found
            .as_ref()
            .and_then(|row| row.string(names::CONFIGURATION));
        Ok(text.map(str::to_owned))
    }

    async fn holder(&self, partition: PartitionId) -> Result<Option<Holder>, StoreError> {
        let key = self.ledger_key(partition);
        let found = self.ledger_table().get(&key).await;
        let found = found.map_err(DynamoError::from)?;
        // Marks in rows of their own are of no interest.
        let row = found.as_ref().map(decode).transpose();
        let row = row.map_err(|error| row_error(key, &error))?;
        Ok(row.as_ref().map(Holder::from))
    }

    fn stale_writes(&self) -> StaleWrites {
        self.stale_writes
    }

    fn take_back(&self) -> TakeBack {
        match &self.form.mapping {
            None => TakeBack::Possible,
            // Items under keys of the user's cannot be found by their place in the topic; those whose keys do not
            // tell it need not be.
            Some(mapping) if mapping.names_positions() => TakeBack::Impossible,
            Some(_) => TakeBack::Needless,
        }
    }

    async fn undo(&self, partition: PartitionId, offsets: Range<Offset>) -> Result<(), StoreError> {
        let Range { start, end } = offsets;
        let undo = Undo {
            table: &self.table,
            pipeline: &self.place.pipeline,
            key_prefix: &self.form.key_prefix,
            partition,
            offsets,
        };
        let removed = undo.run().await.map_err(DynamoError::from)?;
        tracing::info!(
            partition,
            from = start,
            to = end,
            removed,
            "items of a plan that cannot be finished are removed"
        );
        Ok(())
    }

    async fn put_gaps(&self, of: PlanGaps<'_>) -> Result<(), StoreError> {
        let row = |(index, gap): (usize, &Gap)| {
            Row::new(Key {
                pk: keys::gaps_pk(of.pipeline, of.topic),
                sk: keys::gap_sk(of.partition, of.from, index),
            })
            .with(names::GAP, Value::S(gap.text()))
        };
        let rows = (of.first_index..).zip(of.gaps).map(row).collect();
        let written = self.table.write_rows(rows).await;
        Ok(written.map_err(DynamoError::from)?)
    }

    async fn gaps(&self, partition: PartitionId) -> Result<Vec<(Offset, Gap)>, StoreError> {
        let pk = keys::gaps_pk(&self.place.pipeline, &self.place.topic);
        let mut gaps = Vec::new();
        // Behind all of this partition, before any of the next.
        let mut before = format!("{partition:05}0");
        loop {
            let page = self.table.tail(&pk, Some(&before), GAPS_PAGE, names::GAP);
            let page = page.await.map_err(DynamoError::from)?;
            let is_empty = page.rows.is_empty();
            for row in page.rows {
                if keys::parse_gap_sk(&row.key.sk) != Some(partition) {
                    gaps.reverse();
                    return Ok(gaps);
                }
                let from = row
                    .key
                    .sk
                    .split('/')
                    .nth(1)
                    .and_then(|from| from.parse().ok());
                let gap = row.string(names::GAP).and_then(Gap::parse);
                let (Some(from), Some(gap)) = (from, gap) else {
                    return Err(row_error(row.key, &"is no gap of this version").into());
                };
                gaps.push((from, gap));
                before = row.key.sk;
            }
            if !page.more || is_empty {
                gaps.reverse();
                return Ok(gaps);
            }
        }
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

    fn hold(&self, held: usize, all: usize) {
        if let Some(budget) = self.table.budget() {
            budget.hold(held, all);
        }
    }
}

fn row_error(key: Key, error: &dyn std::fmt::Display) -> DynamoError {
    DynamoError::Row {
        pk: key.pk,
        sk: key.sk,
        what: error.to_string(),
    }
}
