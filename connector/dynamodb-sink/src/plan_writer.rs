//! Plans of one topic partition, made and written: chains of items, their directory, their rows.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use millpond_connector::topic::Offset;
use millpond_format::keys;
use millpond_sink::dead_letters::DeadLetter;
use millpond_sink::store::{PlanInput, PlanWriter, StoreError};
use tracing::error;

use crate::chain::{ChainState, Chains, last_before};
use crate::client::Condition;
use crate::error::DynamoError;
use crate::letter_rows::refused_item;
use crate::limits::{MAX_CHAINS, MAX_IN_FLIGHT_LOOKUPS, MAX_TAIL_ITEMS};
use crate::plan::{Plan, PlanConfig, PlannedItem, groups, plan};
use crate::row::{Key, Row, Value, names};
use crate::writer::TableWriter;

/// Writes the plans of one topic partition.
pub struct TablePlans {
    table: TableWriter,
    config: PlanConfig,
    chains: Chains,
    plan: Plan,
}

#[async_trait]
impl PlanWriter for TablePlans {
    async fn plan(&mut self, input: PlanInput<'_>) -> Result<(), StoreError> {
        self.plan = self.planned(input).await?;
        Ok(())
    }

    async fn write(&mut self) -> Result<Vec<DeadLetter>, StoreError> {
        let plan = std::mem::take(&mut self.plan);
        self.raise_bounds(&plan.directory).await?;
        let mut letters = plan.dead_letters;
        letters.extend(self.write_items(&plan.items).await?);
        for (group, state) in plan.chains {
            self.chains.set(group, state);
        }
        self.chains.next_round(MAX_CHAINS);
        Ok(letters)
    }
}

impl TablePlans {
    /// A writer for the topic partition of `config`.
    #[must_use]
    pub fn new(table: TableWriter, config: PlanConfig) -> Self {
        Self {
            table,
            config,
            chains: Chains::default(),
            plan: Plan::default(),
        }
    }

    async fn planned(&self, input: PlanInput<'_>) -> Result<Plan, DynamoError> {
        let wanted: Vec<String> = groups(input.entries)
            .into_iter()
            .map(str::to_owned)
            .collect();
        let states = self
            .chain_states(wanted, input.from, input.is_first)
            .await?;
        Ok(plan(input.entries, &states, &self.config, input.tools)?)
    }

    /// States of chains as of `from`: those known, and those read back from the table.
    async fn chain_states(
        &self,
        wanted: Vec<String>,
        from: Offset,
        is_first: bool,
    ) -> Result<BTreeMap<String, ChainState>, DynamoError> {
        let mut states = BTreeMap::new();
        let mut missing = Vec::new();
        for group in wanted {
            match self.chains.get(&group) {
                Some(state) => {
                    states.insert(group, *state);
                }
                // Before the first plan there is nothing to read back.
                None if is_first => {}
                None => missing.push(group),
            }
        }
        let mut missing = missing.into_iter();
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < MAX_IN_FLIGHT_LOOKUPS
                && let Some(group) = missing.next()
            {
                under_way.push(self.chain_state(group, from));
            }
            match under_way.next().await {
                Some(found) => {
                    let (group, state) = found?;
                    states.insert(group, state);
                }
                None => return Ok(states),
            }
        }
    }

    async fn chain_state(
        &self,
        group: String,
        from: Offset,
    ) -> Result<(String, ChainState), DynamoError> {
        let pk = self.config.chain_pk(&group);
        let header = self.config.name(names::HEADER);
        let table = &self.table;
        let mut state = ChainState::default();
        let directory = table.get(&self.directory_key(&group)).await?;
        let Some(directory) = directory else {
            // The directory is written before the first item.
            return Ok((group, state));
        };
        state.late_ms = directory.integer(names::LATE);
        let mut before: Option<String> = None;
        let mut seen = 0;
        // Items at or beyond `from` belong to the plan that is written again.
        let mut limit = 1;
        loop {
            let page = table.tail(&pk, before.as_deref(), limit, header).await?;
            if let Some((totals, sort_time_ms)) = last_before(&page.rows, from, header) {
                state.totals = totals;
                state.sort_time_ms = sort_time_ms;
                break;
            }
            seen += page.rows.len();
            let Some(last) = page.rows.last().filter(|_| page.more) else {
                break;
            };
            if seen >= MAX_TAIL_ITEMS {
                return Err(DynamoError::Row {
                    pk,
                    sk: last.key.sk.clone(),
                    what: format!(
                        "{seen} items lie beyond offset {from}: another pipeline writes here"
                    ),
                });
            }
            before = Some(last.key.sk.clone());
            limit = 16;
        }
        Ok((group, state))
    }

    fn directory_key(&self, group: &str) -> Key {
        Key {
            pk: keys::directory_pk(&self.config.pipeline, group),
            sk: keys::directory_sk(group, self.config.partition),
        }
    }

    /// Raises lateness bounds before the items that need them; a bound never sinks, so a
    /// process that lost the partition cannot lower one.
    async fn raise_bounds(&self, changes: &[(String, i64)]) -> Result<(), DynamoError> {
        let mut changes = changes.iter();
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < MAX_IN_FLIGHT_LOOKUPS
                && let Some((group, late)) = changes.next()
            {
                let row = Row::new(self.directory_key(group)).with(names::LATE, Value::N(*late));
                let late = *late;
                under_way.push(async move {
                    let condition = Condition::AbsentOrBelow(names::LATE, late);
                    self.table.put(&row, &condition).await
                });
            }
            match under_way.next().await {
                Some(raised) => raised?,
                None => return Ok(()),
            };
        }
    }

    /// Writes the items; those that the table refuses become dead letters.
    async fn write_items(&self, items: &[PlannedItem]) -> Result<Vec<DeadLetter>, DynamoError> {
        let rejected = self.table.write_items(items).await?;
        let letters = rejected.into_iter().map(|rejected| {
            let row = &items[rejected.index].row;
            error!(
                partition = self.config.partition,
                pk = row.key.pk,
                sk = row.key.sk,
                error = rejected.message,
                "the table refuses an item, it goes to the dead-letter queue"
            );
            refused_item(row, rejected.message, &self.config)
        });
        Ok(letters.collect())
    }
}
