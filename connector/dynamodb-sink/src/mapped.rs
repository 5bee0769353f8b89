//! Plans of mapped events: one item per event, and of several events of one key the one that wins.
//!
//! Every write can be repeated at any time, by anyone who recorded its intent (I2, I11). Where keys are
//! unique, it puts the same bytes under a key that nobody else uses. Where not, a put carries the
//! event's *order* (event time, then place in the topic), which no two events have in common, and a
//! condition on the order of what is there: for `last-wins` at most its own, so that the item is in
//! the end that of the highest order, whatever sequence the puts arrive in; for
//! `first-wins` its own or nothing, so that what is there stays.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use millpond_connector::metrics::Metrics;
use millpond_format::origin::Origin;
use millpond_sink::claim::Claim;
use millpond_sink::contiguity::PlainRecord;
use millpond_sink::dead_letters::DeadLetter;
use millpond_sink::dedup::Admitted;
use millpond_sink::store::{PlanInput, PlanWriter, StoreError};
use tracing::error;

use crate::client::Condition;
use crate::error::DynamoError;
use crate::limits::MAX_IN_FLIGHT_PUTS;
use crate::mapping::settings::SameKey;
use crate::mapping::{Incoming, Mapping};
use crate::plan::{PlanConfig, PlanError, PlannedItem};
use crate::row::Key;
use crate::writer::TableWriter;
use crate::writer::put_item::Put;

/// What is to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MappedPlan {
    /// Items with different keys.
    pub items: Vec<PlannedItem>,
    /// For each item the record that it is made of, and its order where events compete.
    pub made_of: Vec<(PlainRecord, Option<String>)>,
    /// Events for the dead-letter queue.
    pub letters: Vec<DeadLetter>,
    /// Events that another one of the same key has won over.
    pub superseded: u64,
}

/// Makes the plan of these entries. Pure.
///
/// # Errors
/// [`PlanError::Packed`] for envelopes: they are no events.
pub fn plan(
    entries: &[Admitted<'_>],
    mapping: &Mapping,
    config: &PlanConfig,
) -> Result<MappedPlan, PlanError> {
    let mut plan = MappedPlan::default();
    let mut places = HashMap::new();
    for entry in entries {
        match entry {
            Admitted::Envelope(envelope) => {
                let offset = envelope.header.base_offset;
                return Err(PlanError::Packed { offset });
            }
            Admitted::Unknown(record, error) => {
                let letter = config.letters().without_origin(record, *error);
                plan.letters.push(letter);
            }
            Admitted::Plain(record, origin) => {
                plan.event(record, origin, mapping, config, &mut places);
            }
        }
    }
    Ok(plan)
}

impl MappedPlan {
    fn event(
        &mut self,
        record: &PlainRecord,
        origin: &Origin<'_>,
        mapping: &Mapping,
        config: &PlanConfig,
        places: &mut HashMap<Key, usize>,
    ) {
        let mapped = mapping.item(Incoming {
            value: &record.value,
            partition_key: origin.partition_key,
            arrival_ms: origin.arrival_ms,
            partition: config.partition,
            offset: record.offset,
        });
        let letters = config.letters();
        let mapped = match mapped {
            Ok(mapped) => mapped,
            Err(refusal) => {
                let letter = letters.plain(record, origin, refusal.reason, refusal.detail);
                return self.letters.push(letter);
            }
        };
        let row = config.form.add(mapped.row, mapped.time_ms);
        let size = row.size(&config.keys);
        let (bytes, limit) = (size.bytes(), config.max_item_bytes);
        if bytes > limit {
            let detail = format!("item of {bytes} bytes, `max-item-bytes` is {limit}");
            return self
                .letters
                .push(letters.plain(record, origin, "too-large", detail));
        }
        let item = PlannedItem {
            bytes,
            units: size.write_units(),
            events: 1,
            event_bytes: record.value.len() as u64,
            row: Arc::new(row),
        };
        let made_of = (record.clone(), mapped.order);
        let Some(same_key) = mapping.same_key() else {
            self.items.push(item);
            return self.made_of.push(made_of);
        };
        match places.get(&item.row.key) {
            None => {
                places.insert(item.row.key.clone(), self.items.len());
                self.items.push(item);
                self.made_of.push(made_of);
            }
            Some(place) => {
                self.superseded += 1;
                let is_later = made_of.1 > self.made_of[*place].1;
                if same_key == SameKey::LastWins && is_later {
                    self.items[*place] = item;
                    self.made_of[*place] = made_of;
                }
            }
        }
    }
}

/// Writes the plans of one topic partition.
pub struct MappedPlans {
    table: TableWriter,
    config: PlanConfig,
    mapping: Arc<Mapping>,
    metrics: Arc<Metrics>,
    plan: MappedPlan,
}

#[async_trait]
impl PlanWriter for MappedPlans {
    async fn plan(&mut self, input: PlanInput<'_>) -> Result<(), StoreError> {
        let planned = plan(input.entries, &self.mapping, &self.config);
        self.plan = planned.map_err(DynamoError::from)?;
        Ok(())
    }

    /// Nothing of it is taken back, so the claim need not be asked.
    async fn write(&mut self, _claim: &Arc<Claim>) -> Result<Vec<DeadLetter>, StoreError> {
        let plan = std::mem::take(&mut self.plan);
        let refused = match self.mapping.same_key() {
            None => {
                let rejected = self.table.write_items(&plan.items).await;
                let rejected = rejected.map_err(DynamoError::from)?.into_iter();
                rejected.map(|row| (row.index, row.message)).collect()
            }
            Some(same_key) => self.put_all(&plan, same_key).await?,
        };
        self.metrics.events_superseded.add(plan.superseded);
        let mut letters = plan.letters;
        for (index, message) in refused {
            letters.extend(self.refused(&plan.items[index], &plan.made_of[index].0, message));
        }
        Ok(letters)
    }
}

impl MappedPlans {
    /// A writer for the topic partition of `config`.
    #[must_use]
    pub fn new(
        table: TableWriter,
        config: PlanConfig,
        mapping: Arc<Mapping>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            table,
            config,
            mapping,
            metrics,
            plan: MappedPlan::default(),
        }
    }

    /// Puts each item under its condition; answers those that the table refuses.
    async fn put_all(
        &self,
        plan: &MappedPlan,
        same_key: SameKey,
    ) -> Result<Vec<(usize, String)>, DynamoError> {
        let mut waiting = plan.items.iter().zip(&plan.made_of).enumerate();
        let mut under_way = FuturesUnordered::new();
        let mut refused = Vec::new();
        loop {
            while under_way.len() < MAX_IN_FLIGHT_PUTS
                && let Some((index, (item, (_, order)))) = waiting.next()
            {
                let name = self.mapping.order_attribute().to_owned();
                let order = order.clone().unwrap_or_default();
                under_way.push(async move {
                    let condition = match same_key {
                        SameKey::FirstWins => Condition::AbsentOrSame(name, order),
                        SameKey::LastWins => Condition::AbsentOrAtMost(name, order),
                    };
                    (index, self.table.put_item(item, &condition).await)
                });
            }
            match under_way.next().await {
                None => return Ok(refused),
                Some((index, put)) => {
                    if let Put::Rejected(message) = put? {
                        refused.push((index, message));
                    }
                }
            }
        }
    }

    /// The letter of an event whose item the table refuses.
    fn refused(
        &self,
        item: &PlannedItem,
        record: &PlainRecord,
        message: String,
    ) -> Option<DeadLetter> {
        let key = &item.row.key;
        error!(
            partition = self.config.partition,
            pk = key.pk,
            sk = key.sk,
            error = message,
            "the table refuses an item, its event goes to the dead-letter queue"
        );
        let origin = Origin::parse(record.key.as_deref().unwrap_or_default()).ok()?;
        let letters = self.config.letters();
        Some(letters.plain(record, &origin, "item-refused", message))
    }
}
