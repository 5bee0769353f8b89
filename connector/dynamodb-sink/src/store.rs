//! The table as a store of the sink.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use millpond_connector::topic::{Offset, PartitionId};
use millpond_format::gap::Gap;
use millpond_format::keys;
use millpond_format::marks::Marks;
use millpond_leases::LeaseStore;
use millpond_sink::claim::{Holder, StaleWrites};
use millpond_sink::dead_letters::DeadLetter;
use millpond_sink::gaps::PlanGaps;
use millpond_sink::ledger::LedgerRow;
use millpond_sink::registration::Registration;
use millpond_sink::store::{OpenStore, Place, PlanWriter, Store, StoreError, TakeBack};

use crate::budget::Budget;
use crate::client::{Capacity, Condition, TableApi};
use crate::dictionaries::{Dictionaries, Training};
use crate::error::DynamoError;
use crate::form::ItemForm;
use crate::ledger_row::{decode, encode, unchanged};
use crate::letter_rows;
use crate::mapped::MappedPlans;
use crate::pacing::PaceSettings;
use crate::plan::PlanConfig;
use crate::plan_writer::{Spreading, TablePlans};
use crate::resting::{Resting, SnapshotName};
use crate::row::{Key, KeyNames, Row, Value, names};
use crate::spread::WriteShards;
use crate::table::{Registered, prepare, register, registrations};
use crate::undo::Undo;
use crate::writer::TableWriter;

/// Makes the place of the leases of one pipeline.
pub type LeasesOf = Box<dyn FnOnce(&Place) -> Arc<dyn LeaseStore> + Send>;

/// Reads of a ledger row whose snapshot is being replaced.
const SNAPSHOT_TRIES: u32 = 5;

/// Gaps asked for at once.
const GAPS_PAGE: usize = 500;

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
    /// When what a stale writer sent to them has an end.
    pub stale_writes: StaleWrites,
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
    /// Pace of the first two together.
    pub pace: PaceSettings,
    /// What items look like.
    pub form: ItemForm,
    /// Packs small items anew, and trains dictionaries for them; `None` does not.
    pub training: Option<Training>,
    /// Over how many partition keys chains of items are spread.
    pub spreading: Spreading,
    /// When what a stale writer sent has an end.
    pub stale_writes: StaleWrites,
}

#[async_trait]
impl OpenStore for TableSettings {
    async fn open(self: Box<Self>, place: Place) -> Result<Arc<dyn Store>, StoreError> {
        let budget = Budget::new(self.pace, place.metrics.clone());
        // Until the sink says which topic partitions are its own.
        budget.hold(0, 1);
        let spreading = self.spreading;
        let (hot, pipeline) = (spreading.clone(), place.pipeline.clone());
        let prefix = self.form.key_prefix.clone();
        budget.on_hot_key(Box::new(move |key| hot.is_hot(&prefix, &pipeline, &key.pk)));
        let budget = Some(Arc::new(budget));
        let writer = |api, budget: &Option<Arc<Budget>>| {
            let (keys, metrics) = (self.keys.clone(), place.metrics.clone());
            TableWriter::new(api, keys, budget.clone(), metrics)
        };
        let table = writer(self.table, &budget).watching();
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
        let dictionaries = Dictionaries::new(
            table.clone(),
            place.pipeline.clone(),
            place.metrics.clone(),
            self.training,
        );
        dictionaries.resume().await?;
        Ok(Arc::new(TableStore {
            table,
            dictionaries: Arc::new(dictionaries),
            dead_letters,
            ledger,
            leases: self.leases.map(|leases| leases(&place)),
            max_item_bytes: self.max_item_bytes,
            form: self.form,
            spreading,
            stale_writes: self.stale_writes,
            place,
            resting: Mutex::default(),
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

    fn count_ledger(&self, row: &Row) {
        let units = row.size(self.ledger_table().keys()).write_units();
        self.place.metrics.write_units_ledger.add(units);
    }

    fn ledger_key(&self, partition: PartitionId) -> Key {
        Key {
            pk: keys::ledger_pk(&self.place.pipeline, &self.place.topic),
            sk: keys::ledger_sk(partition),
        }
    }

    fn marks_pk(&self) -> String {
        keys::marks_pk(&self.place.pipeline, &self.place.topic)
    }

    fn resting(&self, partition: PartitionId) -> Resting {
        let known = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&partition).cloned().unwrap_or_default()
    }

    fn set_resting(&self, partition: PartitionId, resting: Resting) {
        let mut known = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(partition, resting);
    }

    /// Marks of a snapshot; `None` when it was replaced since the ledger row was read.
    async fn snapshot(
        &self,
        partition: PartitionId,
        name: SnapshotName,
    ) -> Result<Option<Marks>, DynamoError> {
        let mut marks = Marks::default();
        let plan = i64::try_from(name.plan).unwrap_or(i64::MAX);
        for key in name.keys(&self.marks_pk(), partition) {
            let Some(row) = self.ledger_table().get(&key).await? else {
                return Ok(None);
            };
            if row.integer(names::PLAN) != Some(plan) {
                return Ok(None);
            }
            let bytes = row.binary(names::MARKS).map(|bytes| bytes.concat());
            let part = Marks::decode(&bytes.unwrap_or_default());
            let part = part.map_err(|error| row_error(key, &error))?;
            marks = marks.with(&part);
        }
        Ok(Some(marks))
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
        let key = self.ledger_key(partition);
        for _ in 0..SNAPSHOT_TRIES {
            let found = self
                .ledger_table()
                .get(&key)
                .await
                .map_err(DynamoError::from)?;
            let Some(row) = found else { return Ok(None) };
            let mut ledger = decode(&row).map_err(|error| row_error(key.clone(), &error))?;
            let Some(name) = row.string(names::RESTING) else {
                self.set_resting(partition, Resting::default());
                return Ok(Some(ledger));
            };
            let name = SnapshotName::parse(name)
                .ok_or_else(|| row_error(key.clone(), &"malformed `resting`"))?;
            // An owner that is still there may replace it between the two reads.
            if let Some(marks) = self.snapshot(partition, name).await? {
                ledger.marks = marks.with(&ledger.marks);
                self.set_resting(partition, Resting::of(name, marks));
                return Ok(Some(ledger));
            }
        }
        Err(row_error(key, &"the snapshot that `resting` names is not there").into())
    }

    async fn put_ledger(
        &self,
        partition: PartitionId,
        row: &LedgerRow,
        seen: Option<&LedgerRow>,
    ) -> Result<bool, StoreError> {
        let key = self.ledger_key(partition);
        let split = self.resting(partition).split(row, seen);
        if split.is_new {
            let rows = split.after.rows(&self.marks_pk(), partition);
            let rows = rows.map_err(|error| row_error(key.clone(), &error))?;
            rows.iter().for_each(|row| self.count_ledger(row));
            let written = self.ledger_table().write_rows(rows).await;
            written.map_err(DynamoError::from)?;
        }
        let ledger = LedgerRow {
            marks: split.recent,
            ..row.clone()
        };
        let stored = encode(&ledger, key.clone()).map_err(|error| row_error(key, &error))?;
        let stored = match split.after.name() {
            Some(name) => stored.with(names::RESTING, Value::S(name.text())),
            None => stored,
        };
        self.count_ledger(&stored);
        let put = self.ledger_table().put(&stored, &unchanged(seen)).await;
        let is_put = put.map_err(DynamoError::from)?;
        if is_put {
            self.set_resting(partition, split.after);
        }
        Ok(is_put)
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

/// Settings that decide names or bytes of what is written.
#[must_use]
pub fn settings(
    keys: &KeyNames,
    max_item_bytes: usize,
    form: &ItemForm,
    write_shards: WriteShards,
) -> Vec<String> {
    let mut settings = vec![
        keys.partition.clone(),
        keys.sort.clone(),
        max_item_bytes.to_string(),
    ];
    settings.extend(write_shards.text());
    settings.extend(form.text());
    settings
}

/// The largest item of the settings, the form of items and the write shards, for a table with the same keys.
fn parse_settings(settings: &[String], keys: &KeyNames) -> Option<(usize, ItemForm, WriteShards)> {
    let [partition, sort, max_item_bytes, rest @ ..] = settings else {
        return None;
    };
    let fixed = rest.first().and_then(|text| WriteShards::parse(text));
    let (write_shards, form) = match fixed {
        Some(fixed) => (fixed, &rest[1..]),
        None => (WriteShards::default(), rest),
    };
    let form = match form {
        [] => ItemForm::default(),
        [text] => ItemForm::parse(text, keys)?,
        _ => return None,
    };
    let is_same = *partition == keys.partition && *sort == keys.sort;
    is_same.then_some((max_item_bytes.parse().ok()?, form, write_shards))
}

fn row_error(key: Key, error: &dyn std::fmt::Display) -> DynamoError {
    DynamoError::Row {
        pk: key.pk,
        sk: key.sk,
        what: error.to_string(),
    }
}
