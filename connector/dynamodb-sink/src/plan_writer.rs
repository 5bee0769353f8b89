//! Plans of one topic partition, made and written: chains of items, their directory, their rows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use futures_util::stream::FuturesUnordered;
use millpond_connector::metrics::Metrics;
use millpond_connector::topic::Offset;
use millpond_format::header::ChainTotals;
use millpond_format::keys::{self, SortKey};
use millpond_sink::dead_letters::DeadLetter;
use millpond_sink::store::{PlanInput, PlanWriter, StoreError};
use tokio::time::Instant;
use tracing::{error, info};

use crate::chain::{ChainState, Chains, last_before};
use crate::client::Condition;
use crate::error::DynamoError;
use crate::letter_rows::refused_item;
use crate::limits::{MAX_CHAINS, MAX_IN_FLIGHT_LOOKUPS, MAX_TAIL_ITEMS, MAX_WRITE_SHARDS};
use crate::plan::{Listing, Plan, PlanConfig, PlanError, PlannedItem, groups, plan};
use crate::row::{Key, Row, Value, names};
use crate::spread::{Spread, WriteShards, note, parse_note};
use crate::writer::TableWriter;

/// Over how many partition keys chains are spread, in all topic partitions of a sink.
#[derive(Debug, Clone)]
pub struct Spreading {
    /// The setting.
    pub write_shards: WriteShards,
    /// Chains that need more of them.
    pub hot: Arc<Mutex<Spread>>,
    /// Since when time is counted.
    pub made: Instant,
}

impl Default for Spreading {
    fn default() -> Self {
        Self::new(WriteShards::default())
    }
}

impl Spreading {
    /// No chain is hot.
    #[must_use]
    pub fn new(write_shards: WriteShards) -> Self {
        Self {
            write_shards,
            hot: Arc::default(),
            made: Instant::now(),
        }
    }

    /// A partition key of the table is at its limit; `prefix` is what those of items begin with.
    pub fn is_hot(&self, prefix: &str, pipeline: &str, pk: &str) {
        let chain = pk.strip_prefix(prefix).and_then(keys::parse_chain_pk);
        let chain = chain.filter(|chain| chain.pipeline == pipeline);
        if let (Some(chain), WriteShards::Auto) = (chain, self.write_shards) {
            let now = self.made.elapsed();
            self.with(|hot| hot.hot(chain.partition, chain.group, now));
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Spread) -> T) -> T {
        act(&mut self.hot.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Writes the plans of one topic partition.
pub struct TablePlans {
    table: TableWriter,
    config: PlanConfig,
    spreading: Spreading,
    metrics: Arc<Metrics>,
    chains: Chains,
    plan: Plan,
    /// Of the plan: what it says of write shards, and the groups that it gives more.
    note: String,
    grown: Vec<(String, u32)>,
}

#[async_trait]
impl PlanWriter for TablePlans {
    async fn plan(&mut self, input: PlanInput<'_>) -> Result<(), StoreError> {
        self.plan = self.planned(input).await?;
        Ok(())
    }

    fn note(&self) -> String {
        self.note.clone()
    }

    async fn write(&mut self) -> Result<Vec<DeadLetter>, StoreError> {
        let plan = std::mem::take(&mut self.plan);
        self.grown();
        self.list(&plan.directory).await?;
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
    pub fn new(
        table: TableWriter,
        config: PlanConfig,
        spreading: Spreading,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            table,
            config,
            spreading,
            metrics,
            chains: Chains::default(),
            plan: Plan::default(),
            note: String::new(),
            grown: Vec::new(),
        }
    }

    async fn planned(&mut self, input: PlanInput<'_>) -> Result<Plan, DynamoError> {
        let wanted: Vec<String> = groups(input.entries)
            .into_iter()
            .map(str::to_owned)
            .collect();
        let states = self
            .chain_states(wanted.clone(), input.from, input.is_first)
            .await?;
        let numbers = self.numbers(&wanted, &states, &input)?;
        let numbers = wanted.into_iter().zip(numbers).collect();
        let PlanInput { entries, tools, .. } = input;
        Ok(plan(entries, &states, &numbers, &self.config, tools)?)
    }

    /// Write shards of each group: those that the intent names, or what they have now, or twice that.
    fn numbers(
        &mut self,
        groups: &[String],
        states: &BTreeMap<String, ChainState>,
        input: &PlanInput<'_>,
    ) -> Result<Vec<u32>, PlanError> {
        (self.note, self.grown) = Default::default();
        if let WriteShards::Fixed(number) = self.spreading.write_shards {
            return Ok(vec![number; groups.len()]);
        }
        if let Some(recorded) = input.note {
            self.note = recorded.to_owned();
            return parse_note(recorded, groups.len()).ok_or_else(|| PlanError::Note {
                offset: input.from,
                note: recorded.to_owned(),
            });
        }
        let partition = self.config.partition;
        let present = |group: &String| {
            let state = states.get(group);
            state.map_or(1, |state| state.write_shards.max(state.listed).max(1))
        };
        let mut numbers: Vec<u32> = self.spreading.with(|hot| {
            let number = |group: &String| hot.number(partition, group, present(group));
            groups.iter().map(number).collect()
        });
        self.note = note(&mut numbers);
        let grown = groups.iter().zip(&numbers);
        let grown = grown.filter(|(group, number)| **number > present(group));
        self.grown = grown.map(|(group, n)| (group.clone(), *n)).collect();
        Ok(numbers)
    }

    /// The plan is in an intent: what it gives more write shards has them.
    fn grown(&mut self) {
        let (partition, now) = (self.config.partition, self.spreading.made.elapsed());
        for (group, write_shards) in std::mem::take(&mut self.grown) {
            info!(
                partition,
                group, write_shards, "a group at the limit of its keys is spread over more"
            );
            self.metrics.chains_spread.add(1);
            self.spreading.with(|hot| hot.grown(partition, &group, now));
        }
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
        let mut state = ChainState::default();
        let Some(listed) = self.listed(&group).await? else {
            // The directory is written before the first item.
            return Ok((group, state));
        };
        // Those that a raise did not reach are raised again if need be.
        state.late_ms = listed.iter().copied().min();
        state.listed = listed.len() as u32;
        let shards = (0..state.listed).map(|shard| self.last_of_shard(&group, shard, from));
        let last = try_join_all(shards).await?.into_iter().flatten();
        if let Some((key, totals)) = last.max_by_key(|(key, _)| *key) {
            state.totals = totals;
            state.sort_time_ms = key.sort_time_ms;
        }
        Ok((group, state))
    }

    /// Lateness bounds of the write shards that the directory lists, from the first to the last before one that is
    /// missing; `None` for a chain that was never written.
    async fn listed(&self, group: &str) -> Result<Option<Vec<i64>>, DynamoError> {
        let late = |shard| async move {
            let row = self.table.get(&self.directory_key(group, shard)).await?;
            Ok::<_, DynamoError>(row.map(|row| row.integer(names::LATE).unwrap_or_default()))
        };
        // Most chains have one.
        let (first, second) = tokio::try_join!(late(0), late(1))?;
        let (Some(first), Some(second)) = (first, second) else {
            return Ok(first.map(|late| vec![late]));
        };
        let others = try_join_all((2..MAX_WRITE_SHARDS).map(late)).await?;
        let others = others.into_iter().map_while(|late| late);
        Ok(Some([first, second].into_iter().chain(others).collect()))
    }

    /// Key and totals of the last item of a write shard that lies before `from`.
    async fn last_of_shard(
        &self,
        group: &str,
        shard: u32,
        from: Offset,
    ) -> Result<Option<(SortKey, ChainTotals)>, DynamoError> {
        let pk = self.config.shard_pk(group, shard);
        let header = self.config.name(names::HEADER);
        let mut before: Option<String> = None;
        let mut seen = 0;
        // Items at or beyond `from` belong to the plan that is written again.
        let mut limit = 1;
        loop {
            let page = self.table.tail(&pk, before.as_deref(), limit, header);
            let page = page.await?;
            if let Some(found) = last_before(&page.rows, from, header) {
                return Ok(Some(found));
            }
            seen += page.rows.len();
            let Some(last) = page.rows.last().filter(|_| page.more) else {
                return Ok(None);
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
    }

    fn directory_key(&self, group: &str, shard: u32) -> Key {
        Key {
            pk: keys::directory_pk(&self.config.pipeline, group),
            sk: keys::directory_sk(group, self.config.partition, shard),
        }
    }

    /// Lists write shards, and raises lateness bounds, before the items that need it. A bound never sinks and a row
    /// never goes, so a process that lost the partition can take nothing back.
    async fn list(&self, listings: &[Listing]) -> Result<(), DynamoError> {
        let mut rows = listings.iter().flat_map(|of| {
            let shards = of.write_shards.clone();
            shards.map(|shard| (self.directory_key(&of.group, shard), of.late_ms))
        });
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < MAX_IN_FLIGHT_LOOKUPS
                && let Some((key, late)) = rows.next()
            {
                let row = Row::new(key).with(names::LATE, Value::N(late));
                under_way.push(async move {
                    let condition = Condition::AbsentOrBelow(names::LATE, late);
                    self.table.put(&row, &condition).await
                });
            }
            match under_way.next().await {
                Some(listed) => listed?,
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
