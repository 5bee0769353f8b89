//! Plans of one topic partition, made and written: chains of items, their directory, their rows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use futures_util::stream::FuturesUnordered;
use millpond_connector::metrics::Metrics;
use millpond_connector::mutation::{self, Mutation};
use millpond_connector::topic::{Offset, PartitionId};
use millpond_format::header::ChainTotals;
use millpond_format::keys::{self, SortKey};
use millpond_sink::claim::Claim;
use millpond_sink::dead_letters::DeadLetter;
use millpond_sink::store::{PlanInput, PlanWriter, StoreError};
use tokio::time::Instant;
use tracing::{error, info};

use crate::chain::{ChainState, Chains, last_before};
use crate::client::Condition;
use crate::dictionaries::{Dictionaries, joined_note, split_note};
use crate::error::DynamoError;
use crate::letter_rows::refused_item;
use crate::limits::{MAX_CHAINS, MAX_IN_FLIGHT_LOOKUPS, MAX_TAIL_ITEMS, MAX_WRITE_SHARDS};
use crate::plan::repack::{Repack, dictionary_named, self_contained};
use crate::plan::{Listing, Plan, PlanConfig, PlanError, PlannedItem, groups, plan_anew};
use crate::row::{Key, Row, Value, names};
use crate::spread::{Spread, WriteShards, note, parse_note};
use crate::writer::TableWriter;

/// What DynamoDB gives a partition key.
const DEFAULT_KEY_UNITS: u64 = 1_000;

/// Over how many partition keys chains are spread, in all topic partitions of a sink.
#[derive(Debug, Clone)]
pub struct Spreading {
    /// The setting.
    pub write_shards: WriteShards,
    /// Chains that need more of them.
    hot: Arc<Mutex<Spread>>,
    /// Since when time is counted.
    made: Instant,
}

impl Default for Spreading {
    fn default() -> Self {
        Self::new(WriteShards::default(), DEFAULT_KEY_UNITS)
    }
}

impl Spreading {
    /// No chain is hot. `key_units` is what a partition key takes in a second.
    #[must_use]
    pub fn new(write_shards: WriteShards, key_units: u64) -> Self {
        Self {
            write_shards,
            hot: Arc::new(Mutex::new(Spread::new(key_units))),
            made: Instant::now(),
        }
    }

    /// The same with another setting.
    #[must_use]
    pub fn with_setting(self, write_shards: WriteShards) -> Self {
        Self {
            write_shards,
            ..self
        }
    }

    /// Write shards for the next plan of a chain that has `present` now.
    #[must_use]
    pub fn number(&self, partition: PartitionId, group: &str, present: u32) -> u32 {
        let now = self.made.elapsed();
        match self.write_shards {
            WriteShards::Fixed(number) => number,
            WriteShards::Auto => self.with(|hot| hot.number(partition, group, present, now)),
        }
    }

    /// A chain has as many as [`Spreading::number`] said: that is in an intent.
    pub fn grown(&self, partition: PartitionId, group: &str) {
        let now = self.made.elapsed();
        self.with(|hot| hot.grown(partition, group, now));
    }

    /// Items were written; their partition keys begin with `prefix`.
    pub fn written(&self, prefix: &str, items: &[PlannedItem]) {
        self.with(|hot| {
            if hot.is_calm() {
                return;
            }
            for item in items {
                let pk = item.row.key.pk.strip_prefix(prefix);
                if let Some(chain) = pk.and_then(keys::parse_chain_pk) {
                    hot.written(chain.partition, chain.group, item.units);
                }
            }
        });
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
    dictionaries: Arc<Dictionaries>,
    spreading: Spreading,
    metrics: Arc<Metrics>,
    chains: Chains,
    plan: Plan,
    /// Of the plan: what it says of dictionary and write shards, and the groups that it gives more.
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

    async fn write(&mut self, claim: &Arc<Claim>) -> Result<Vec<DeadLetter>, StoreError> {
        let plan = std::mem::take(&mut self.plan);
        self.grown();
        self.list(&plan.directory).await?;
        let spread = plan.spread();
        let mut letters = plan.dead_letters;
        letters.extend(self.write_items(&plan.items, claim).await?);
        self.spreading
            .written(&self.config.form.key_prefix, &plan.items);
        let partitions = &self.metrics.partitions;
        partitions.update(self.config.partition, |at| at.spread = Some(spread));
        for (group, state) in plan.chains {
            self.chains.set(group, state);
        }
        self.chains.next_round(MAX_CHAINS);
        self.metrics.items_repacked.add(plan.repacked_items);
        self.metrics.units_saved_repacking.add(plan.repacked_units);
        self.dictionaries.learn().await;
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
        dictionaries: Arc<Dictionaries>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            table,
            config,
            spreading,
            dictionaries,
            metrics,
            chains: Chains::default(),
            plan: Plan::default(),
            note: String::new(),
            grown: Vec::new(),
        }
    }

    async fn planned(&mut self, input: PlanInput<'_>) -> Result<Plan, DynamoError> {
        let recorded = match input.note {
            None => None,
            Some(note) => Some(split_note(note).ok_or_else(|| PlanError::Note {
                offset: input.from,
                note: note.to_owned(),
            })?),
        };
        let choice = match recorded {
            Some((choice, _)) if !mutation::is(Mutation::ChoiceMadeAnew) => choice,
            _ => self.dictionaries.newest(),
        };
        let dictionary = match choice {
            None | Some(0) => None,
            Some(id) => Some(self.dictionaries.get(id).await?),
        };
        let wanted: Vec<String> = groups(input.entries)
            .into_iter()
            .map(str::to_owned)
            .collect();
        let states = self
            .chain_states(wanted.clone(), input.from, input.is_first)
            .await?;
        let shards = recorded.map(|(_, shards)| shards);
        let numbers = self.numbers(&wanted, &states, (input.from, shards))?;
        if let Some(id) = choice {
            self.note = joined_note(id, &self.note);
        }
        let numbers = wanted.into_iter().zip(numbers).collect();
        let PlanInput { entries, tools, .. } = input;
        let offer = |raw: &[u8]| self.dictionaries.offer(raw);
        let repack = choice.map(|_| Repack {
            dictionary: dictionary.as_deref(),
            offer: &offer,
        });
        let config = &self.config;
        Ok(plan_anew(
            entries, &states, &numbers, config, tools, repack,
        )?)
    }

    /// Write shards of each group: those that the intent names, or what they have now, or twice that.
    fn numbers(
        &mut self,
        groups: &[String],
        states: &BTreeMap<String, ChainState>,
        (from, recorded): (Offset, Option<&str>),
    ) -> Result<Vec<u32>, PlanError> {
        (self.note, self.grown) = Default::default();
        if let WriteShards::Fixed(number) = self.spreading.write_shards {
            return Ok(vec![number; groups.len()]);
        }
        if let Some(recorded) = recorded {
            self.note = recorded.to_owned();
            return parse_note(recorded, groups.len()).ok_or_else(|| PlanError::Note {
                offset: from,
                note: recorded.to_owned(),
            });
        }
        let partition = self.config.partition;
        let present = |group: &String| {
            let state = states.get(group);
            state.map_or(1, |state| state.write_shards.max(state.listed).max(1))
        };
        let number = |group: &String| self.spreading.number(partition, group, present(group));
        let mut numbers: Vec<u32> = groups.iter().map(number).collect();
        self.note = note(&mut numbers);
        let grown = groups.iter().zip(&numbers);
        let grown = grown.filter(|(group, number)| **number > present(group));
        self.grown = grown.map(|(group, n)| (group.clone(), *n)).collect();
        Ok(numbers)
    }

    /// The plan is in an intent: what it gives more write shards has them.
    fn grown(&mut self) {
        let partition = self.config.partition;
        for (group, write_shards) in std::mem::take(&mut self.grown) {
            info!(
                partition,
                group, write_shards, "a group at the limit of its keys is spread over more"
            );
            self.metrics.chains_spread.add(1);
            self.spreading.grown(partition, &group);
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
    async fn write_items(
        &self,
        items: &[PlannedItem],
        claim: &Arc<Claim>,
    ) -> Result<Vec<DeadLetter>, DynamoError> {
        let rejected = self.table.write_items_under(items, claim).await?;
        let mut letters = Vec::with_capacity(rejected.len());
        for rejected in rejected {
            let row = &items[rejected.index].row;
            error!(
                partition = self.config.partition,
                pk = row.key.pk,
                sk = row.key.sk,
                error = rejected.message,
                "the table refuses an item, it goes to the dead-letter queue"
            );
            let row = self.readable_alone(row).await?;
            letters.push(refused_item(&row, rejected.message, &self.config));
        }
        Ok(letters)
    }

    /// The item in a form for which no dictionary is needed.
    async fn readable_alone(&self, row: &Arc<Row>) -> Result<Arc<Row>, DynamoError> {
        let Some(id) = dictionary_named(row, &self.config) else {
            return Ok(row.clone());
        };
        let dictionary = self.dictionaries.get(id).await?;
        // What this process packed itself can be read.
        let alone = self_contained(row, &dictionary, &self.config).map(Arc::new);
        Ok(alone.unwrap_or_else(|_| row.clone()))
    }
}
