//! What a sink brings to its tables, and opening them.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use millpond_leases::LeaseStore;
use millpond_sink::claim::StaleWrites;
use millpond_sink::store::{OpenStore, Place, Store, StoreError};

use super::TableStore;
use crate::budget::Budget;
use crate::client::{Capacity, TableApi};
use crate::dictionaries::{Dictionaries, Training};
use crate::form::ItemForm;
use crate::pacing::PaceSettings;
use crate::plan_writer::Spreading;
use crate::row::KeyNames;
use crate::table::prepare;
use crate::writer::TableWriter;

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
