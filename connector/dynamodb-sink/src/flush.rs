//! One topic partition's place in the ledger, and the steps that move it: plan, intent, write.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use millpond_connector::metrics::Metrics;
use millpond_connector::topic::{Offset, PartitionId, Topic, Transform};
use millpond_format::keys;
use tracing::{error, info, warn};

use crate::chain::{ChainState, Chains, last_before};
use crate::client::Condition;
use crate::contiguity::{Coverage, Entry, filtered_units, units};
use crate::dead_letters::DeadLetter;
use crate::dedup::{Admission, DedupError, Outcome, Workbench, admit};
use crate::error::SinkError;
use crate::ledger::{Done, LedgerError, LedgerRow, Resume, Step};
use crate::letter_queue::{DeadLetters, refused_item};
use crate::limits::{MAX_CHAINS, MAX_IN_FLIGHT_LOOKUPS, MAX_TAIL_ITEMS};
use crate::marks::Marks;
use crate::origins::Cutoffs;
use crate::partition::{Input, Reading};
use crate::plan::{Plan, PlanConfig, groups, plan};
use crate::row::{Key, KeyNames, Row, Value, names};
use crate::writer::TableWriter;

/// What the topic partitions of a sink share.
pub struct Shared {
    /// The table.
    pub table: TableWriter,
    /// The topic.
    pub topic: Arc<dyn Topic>,
    /// Transform chain.
    pub transforms: Vec<Transform>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where dead letters go.
    pub dead_letters: DeadLetters,
    /// Pipeline name; also the name under which topic offsets are released.
    pub pipeline: String,
    /// Key attribute names.
    pub keys: KeyNames,
    /// Largest item.
    pub max_item_bytes: usize,
    /// Longest wait of data for its plan.
    pub max_age: std::time::Duration,
    /// Buffered packed bytes of one topic partition that make a plan.
    pub plan_bytes: usize,
    /// Names this process in the ledger.
    pub owner: String,
    /// Names the configuration in the ledger.
    pub fingerprint: String,
}

impl Shared {
    fn plan_config(&self, partition: PartitionId) -> PlanConfig {
        PlanConfig {
            pipeline: self.pipeline.clone(),
            topic: self.topic.name().to_owned(),
            partition,
            keys: self.keys.clone(),
            max_item_bytes: self.max_item_bytes,
        }
    }
}

/// One topic partition's place in the ledger.
pub struct Core {
    shared: Arc<Shared>,
    partition: PartitionId,
    key: Key,
    ledger: LedgerRow,
    done: Option<Done>,
    chains: Chains,
}

impl Core {
    /// Takes the partition, and finishes the plan that its last owner left open.
    ///
    /// # Errors
    /// [`SinkError`] when the ledger, the topic or the table does not allow it.
    pub async fn claim(shared: Arc<Shared>, partition: PartitionId) -> Result<Self, SinkError> {
        let key = Key {
            pk: keys::ledger_pk(&shared.pipeline, shared.topic.name()),
            sk: keys::ledger_sk(partition),
        };
        let bounds = Reading::new(shared.clone(), partition, 0).bounds().await?;
        let ledger_error = |source| SinkError::Ledger { partition, source };
        let mut core = Self {
            partition,
            key,
            ledger: LedgerRow::claim(None, &shared.owner, bounds.earliest).row,
            shared,
            done: None,
            chains: Chains::default(),
        };
        // The owner before may be writing still: then the row moves between our read and our
        // write, and the claim is made again. The last one to claim has the partition.
        loop {
            let found = core.ledger_row().await?;
            let step = LedgerRow::claim(found.as_ref(), &core.shared.owner, bounds.earliest);
            match core.step(step).await {
                Err(SinkError::Ledger {
                    source: LedgerError::Fenced { owner, .. },
                    ..
                }) => {
                    warn!(
                        partition,
                        owner, "another process holds this partition, takes it over"
                    );
                }
                Err(SinkError::Ledger {
                    source: LedgerError::Changed,
                    ..
                }) => {}
                other => break other?,
            }
        }
        // The owner before may have read further than the topic went at our first look.
        let bounds = Reading::new(core.shared.clone(), partition, 0)
            .bounds()
            .await?;
        let resume = core.ledger.resume(&core.shared.fingerprint, bounds);
        let resume = resume.map_err(ledger_error)?;
        core.release().await;
        match resume {
            Resume::Read { from } => {
                info!(
                    partition,
                    offset = from,
                    epoch = core.ledger.epoch,
                    "goes on"
                );
            }
            Resume::Replay { from, to } => {
                info!(
                    partition,
                    from,
                    to,
                    epoch = core.ledger.epoch,
                    "writes an open plan again"
                );
                let entries = core.read_again(from, to).await?;
                core.flush(Input { from, to, entries }, true).await?;
            }
        }
        Ok(core)
    }

    /// First offset that no plan covers.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.done
            .as_ref()
            .map_or(self.ledger.committed, |done| done.to)
    }

    /// True while a written plan is not committed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.done.is_some()
    }

    /// Commits the last plan without beginning another.
    ///
    /// # Errors
    /// [`SinkError`] when the table or the ledger refuses.
    pub async fn commit(&mut self) -> Result<(), SinkError> {
        if self.done.is_some() {
            let step = self.ledger.commit(self.done.as_ref());
            self.step(step).await?;
            self.committed().await;
        }
        Ok(())
    }

    /// Plans and writes `input`, and commits the plan before. With `replay` the intent is
    /// recorded already.
    ///
    /// # Errors
    /// [`SinkError`]; the ledger then says what to do again.
    pub async fn flush(&mut self, input: Input, replay: bool) -> Result<(), SinkError> {
        let (from, to) = (input.from, input.to);
        let mut entries = input.entries;
        let (plan, marks, duplicates) = match self.decide(&entries, from, to).await {
            Err(hole) if is_hole(&hole) => {
                warn!(partition = self.partition, from, to, %hole, "reads the records once more");
                entries = self.read_again(from, to).await?;
                self.decide(&entries, from, to).await?
            }
            other => other?,
        };
        if !replay {
            let step = self
                .ledger
                .begin(self.done.as_ref(), to, &self.shared.fingerprint);
            let commits = self.done.is_some();
            self.step(step).await?;
            if commits {
                self.committed().await;
            }
        }
        drop(entries);
        self.raise_bounds(&plan.directory).await?;
        let mut letters = plan.dead_letters;
        letters.extend(self.write_items(&plan.items).await?);
        let count = letters.len() as u64;
        let queue = &self.shared.dead_letters;
        queue
            .put_away(letters, &self.shared.pipeline, replay)
            .await?;
        self.shared.metrics.dead_letters.add(count);
        self.shared.metrics.duplicates_dropped.add(duplicates);
        for (group, state) in plan.chains {
            self.chains.set(group, state);
        }
        self.chains.next_round(MAX_CHAINS);
        self.done = Some(Done { to, marks });
        Ok(())
    }

    /// From what was read to a plan; asks the table for chains and the topic for origins.
    async fn decide(
        &mut self,
        entries: &[Entry],
        from: Offset,
        to: Offset,
    ) -> Result<(Plan, Marks, u64), SinkError> {
        let partition = self.partition;
        // Only SmartModules before the packer can remove records unseen.
        let covered = if self.shared.transforms.len() > 1 {
            filtered_units(entries, from..to)
        } else {
            units(entries, from..to).map(|units| Coverage { units, removed: 0 })
        };
        let Coverage {
            units: whole,
            removed,
        } = covered.map_err(|source| SinkError::Contiguity { partition, source })?;
        let mut tools = Workbench::default();
        let mut cutoffs = Cutoffs::new();
        let marks = self
            .done
            .as_ref()
            .map_or(&self.ledger.marks, |done| &done.marks);
        let admission = loop {
            let outcome = admit(
                &whole,
                removed,
                marks,
                self.ledger.start == 0,
                &cutoffs,
                &mut tools,
            )
            .map_err(|source| SinkError::Dedup { partition, source })?;
            let question = match outcome {
                Outcome::Admitted(admission) => break admission,
                Outcome::NeedsOrigins(question) => question,
            };
            let reading = Reading::new(self.shared.clone(), partition, question.base_offset);
            let keys = reading.stored_keys(question.last_offset + 1).await?;
            let keys = keys.iter().map(|key| key.as_deref().unwrap_or_default());
            let cutoff = question.answer(keys).ok_or_else(|| SinkError::Dedup {
                partition,
                source: DedupError::Origins {
                    stream: question.chain.stream.clone(),
                    shard: question.chain.shard.clone(),
                    base_offset: question.base_offset,
                },
            })?;
            cutoffs.insert(question.chain, cutoff);
        };
        let Admission {
            entries,
            marks,
            duplicates,
        } = admission;
        let wanted: Vec<String> = groups(&entries).into_iter().map(str::to_owned).collect();
        let states = self.chain_states(wanted, from).await?;
        let config = self.shared.plan_config(partition);
        let plan = plan(&entries, &states, &config, &mut tools)
            .map_err(|source| SinkError::Plan { partition, source })?;
        Ok((plan, marks, duplicates))
    }

    async fn step(&mut self, step: Step) -> Result<(), SinkError> {
        let partition = self.partition;
        let ledger_error = |source| SinkError::Ledger { partition, source };
        let row = step.row.encode(self.key.clone()).map_err(ledger_error)?;
        if !self.shared.table.put(&row, &step.condition).await? {
            let found = self.ledger_row().await?;
            step.judge(found.as_ref()).map_err(ledger_error)?;
        }
        self.ledger = step.row;
        Ok(())
    }

    async fn ledger_row(&self) -> Result<Option<LedgerRow>, SinkError> {
        let partition = self.partition;
        match self.shared.table.get(&self.key).await? {
            Some(row) => LedgerRow::decode(&row)
                .map(Some)
                .map_err(|source| SinkError::Ledger { partition, source }),
            None => Ok(None),
        }
    }

    async fn committed(&mut self) {
        self.done = None;
        self.shared.metrics.commits.add(1);
        self.release().await;
    }

    /// Tells the topic what it may forget. If that fails the topic keeps more than it needs to,
    /// and the next commit says it again.
    async fn release(&self) {
        let Shared {
            topic, pipeline, ..
        } = &*self.shared;
        let released = topic.release(self.partition, pipeline, self.ledger.committed);
        if let Err(error) = released.await {
            warn!(partition = self.partition, %error, "offsets cannot be released");
        }
    }

    async fn read_again(&self, from: Offset, to: Offset) -> Result<Vec<Entry>, SinkError> {
        Reading::new(self.shared.clone(), self.partition, from)
            .entries_to(to)
            .await
    }

    /// States of chains as of `from`: those known, and those read back from the table.
    async fn chain_states(
        &self,
        wanted: Vec<String>,
        from: Offset,
    ) -> Result<BTreeMap<String, ChainState>, SinkError> {
        let mut states = BTreeMap::new();
        let mut missing = Vec::new();
        for group in wanted {
            match self.chains.get(&group) {
                Some(state) => {
                    states.insert(group, *state);
                }
                // Before the first plan there is nothing to read back.
                None if self.ledger.plan == 0 => {}
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
    ) -> Result<(String, ChainState), SinkError> {
        let pk = keys::chain_pk(&self.shared.pipeline, &group, self.partition);
        let table = &self.shared.table;
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
            let page = table.tail(&pk, before.as_deref(), limit).await?;
            if let Some((totals, sort_time_ms)) = last_before(&page.rows, from) {
                state.totals = totals;
                state.sort_time_ms = sort_time_ms;
                break;
            }
            seen += page.rows.len();
            let Some(last) = page.rows.last().filter(|_| page.more) else {
                break;
            };
            if seen >= MAX_TAIL_ITEMS {
                return Err(SinkError::Row {
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
            pk: keys::directory_pk(&self.shared.pipeline, group),
            sk: keys::directory_sk(group, self.partition),
        }
    }

    /// Raises lateness bounds before the items that need them; a bound never sinks, so a
    /// process that lost the partition cannot lower one.
    async fn raise_bounds(&self, changes: &[(String, i64)]) -> Result<(), SinkError> {
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
                    self.shared.table.put(&row, &condition).await
                });
            }
            match under_way.next().await {
                Some(raised) => raised?,
                None => return Ok(()),
            };
        }
    }

    /// Writes the items; those that the table refuses become dead letters.
    async fn write_items(
        &self,
        items: &[crate::plan::PlannedItem],
    ) -> Result<Vec<DeadLetter>, SinkError> {
        let rejected = self.shared.table.write_items(items).await?;
        let letters = rejected.into_iter().map(|rejected| {
            let row = &items[rejected.index].row;
            error!(
                partition = self.partition,
                pk = row.key.pk,
                sk = row.key.sk,
                error = rejected.message,
                "the table refuses an item, it goes to the dead-letter queue"
            );
            refused_item(
                row,
                rejected.message,
                &self.shared.plan_config(self.partition),
            )
        });
        Ok(letters.collect())
    }
}

/// True for what a second read of the same records may mend.
fn is_hole(error: &SinkError) -> bool {
    matches!(
        error,
        SinkError::Contiguity { .. }
            | SinkError::Dedup {
                source: DedupError::Gap { .. } | DedupError::Inside { .. },
                ..
            }
    )
}
