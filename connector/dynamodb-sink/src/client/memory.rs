//! A table in memory that keeps DynamoDB's rules on keys, sizes, conditions and units:
//! the fake of tests and simulations. Errors that the service would send are injected.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use millpond_format::limits::MAX_ITEM_BYTES;

use super::{
    ApiFailure, BatchOutcome, Capacity, Condition, PutOutcome, TableApi, TableDescription,
    TailPage, Verdict,
};
use crate::limits::{MAX_BATCH_ITEMS, SERVICE_BATCH_BYTES};
use crate::pacing::WriteCapacity;
use crate::row::{Key, KeyNames, Row};

/// What a call is made to answer in place of its own answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The call fails and has no effect.
    Fail(Verdict),
    /// The call takes effect, but the answer is lost.
    LoseAnswer,
    /// Of a batch, only every other row is written.
    Unprocessed,
}

/// A table in memory; clones share it.
#[derive(Debug, Clone)]
pub struct MemoryTable {
    name: String,
    keys: KeyNames,
    state: Arc<Mutex<State>>,
}

/// Told of every row as it is put: the row before, and the new one.
type Observer = Box<dyn Fn(Option<&Row>, &Row) + Send>;

/// Told of every row as it is deleted.
type RemovalObserver = Box<dyn Fn(&Row) + Send>;

#[derive(Default)]
struct State {
    exists: bool,
    /// `describe` calls that answer `CREATING` after a create.
    creating: u32,
    rows: BTreeMap<Key, Row>,
    faults: VecDeque<Option<Fault>>,
    units: f64,
    calls: u64,
    observer: Option<Observer>,
    removals: Option<RemovalObserver>,
    /// What `describe` answers, if it was said.
    capacity: Option<WriteCapacity>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("rows", &self.rows.len())
            .finish_non_exhaustive()
    }
}

impl MemoryTable {
    /// An existing, empty table.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let table = Self::absent(name);
        table.state().exists = true;
        table
    }

    /// A table that must be created first.
    #[must_use]
    pub fn absent(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            keys: KeyNames::default(),
            state: Arc::default(),
        }
    }

    /// Queues what the next calls answer; `None` lets one call through.
    pub fn inject(&self, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.state().faults.extend(faults);
    }

    /// From now on `observer` is told of every row that is put, at the moment it is. It must
    /// not call the table.
    pub fn observe(&self, observer: impl Fn(Option<&Row>, &Row) + Send + 'static) {
        self.state().observer = Some(Box::new(observer));
    }

    /// From now on `observer` is told of every row that is deleted, as [`Self::observe`].
    pub fn observe_removals(&self, observer: impl Fn(&Row) + Send + 'static) {
        self.state().removals = Some(Box::new(observer));
    }

    /// From now on `describe` answers this; nothing is refused for it.
    pub fn set_capacity(&self, capacity: WriteCapacity) {
        self.state().capacity = Some(capacity);
    }

    /// Every row in key order.
    #[must_use]
    pub fn scan(&self) -> Vec<Row> {
        self.state().rows.values().cloned().collect()
    }

    /// Puts a row as somebody else would.
    pub fn plant(&self, row: Row) {
        self.state().rows.insert(row.key.clone(), row);
    }

    /// Write units consumed so far.
    #[must_use]
    pub fn units(&self) -> f64 {
        self.state().units
    }

    /// Calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the call, gives other tasks a turn, and answers the fault to act on.
    async fn enter(&self) -> Result<Option<Fault>, ApiFailure> {
        let fault = {
            let mut state = self.state();
            state.calls += 1;
            state.faults.pop_front().flatten()
        };
        tokio::task::yield_now().await;
        match fault {
            Some(Fault::Fail(verdict)) => Err(injected(verdict)),
            other => Ok(other),
        }
    }

    /// Gives other tasks a turn after the effect, so that a caller can be dropped in between.
    async fn leave<T: Send>(&self, fault: Option<Fault>, answer: T) -> Result<T, ApiFailure> {
        tokio::task::yield_now().await;
        if fault == Some(Fault::LoseAnswer) {
            return Err(injected(Verdict::Transient));
        }
        Ok(answer)
    }
}

fn injected(verdict: Verdict) -> ApiFailure {
    ApiFailure {
        verdict,
        message: "injected".into(),
    }
}

fn rejected(message: String) -> ApiFailure {
    ApiFailure {
        verdict: Verdict::Rejected,
        message,
    }
}

impl State {
    /// Units of an overwrite: those of the larger of old and new.
    fn put(&mut self, row: &Row, keys: &KeyNames) -> f64 {
        let new = row.size(keys).write_units();
        let old = self.rows.get(&row.key);
        if let Some(observer) = &self.observer {
            observer(old, row);
        }
        let old = old.map_or(0, |old| old.size(keys).write_units());
        self.rows.insert(row.key.clone(), row.clone());
        let units = new.max(old) as f64;
        self.units += units;
        units
    }

    fn existing(&self) -> Result<(), ApiFailure> {
        if self.exists && self.creating == 0 {
            return Ok(());
        }
        Err(ApiFailure {
            verdict: Verdict::NoTable,
            message: "no such table".into(),
        })
    }
}

fn check_row(row: &Row, keys: &KeyNames) -> Result<(), ApiFailure> {
    let size = row.size(keys).bytes();
    if size > MAX_ITEM_BYTES {
        return Err(rejected(format!("item of {size} bytes")));
    }
    let key = &row.key;
    if key.pk.is_empty() || key.sk.is_empty() || key.pk.len() > 2_048 || key.sk.len() > 1_024 {
        return Err(rejected("key size".into()));
    }
    Ok(())
}

#[async_trait]
impl TableApi for MemoryTable {
    fn name(&self) -> &str {
        &self.name
    }

    async fn describe(&self) -> Result<Option<TableDescription>, ApiFailure> {
        let fault = self.enter().await?;
        let description = {
            let mut state = self.state();
            let active = state.creating == 0;
            state.creating = state.creating.saturating_sub(1);
            let key = |name: &str, role: &str| (name.to_owned(), role.to_owned(), "S".to_owned());
            state.exists.then(|| TableDescription {
                active,
                status: if active { "ACTIVE" } else { "CREATING" }.to_owned(),
                keys: vec![
                    key(&self.keys.partition, "HASH"),
                    key(&self.keys.sort, "RANGE"),
                ],
                capacity: state
                    .capacity
                    .unwrap_or(WriteCapacity::OnDemand { max: None }),
            })
        };
        self.leave(fault, description).await
    }

    async fn create(&self, _capacity: Capacity) -> Result<(), ApiFailure> {
        let fault = self.enter().await?;
        {
            let mut state = self.state();
            if !state.exists {
                state.exists = true;
                state.creating = 2;
            }
        }
        self.leave(fault, ()).await
    }

    async fn batch_write(&self, rows: &[Arc<Row>]) -> Result<BatchOutcome, ApiFailure> {
        let fault = self.enter().await?;
        let outcome = {
            let mut state = self.state();
            state.existing()?;
            let bytes: usize = rows.iter().map(|row| row.size(&self.keys).bytes()).sum();
            let mut seen: Vec<&Key> = rows.iter().map(|row| &row.key).collect();
            seen.sort_unstable();
            seen.dedup();
            if rows.is_empty()
                || rows.len() > MAX_BATCH_ITEMS
                || bytes > SERVICE_BATCH_BYTES
                || seen.len() != rows.len()
            {
                return Err(rejected(format!(
                    "batch of {} rows, {bytes} bytes",
                    rows.len()
                )));
            }
            for row in rows {
                check_row(row, &self.keys)?;
            }
            let mut outcome = BatchOutcome::default();
            for (index, row) in rows.iter().enumerate() {
                if fault == Some(Fault::Unprocessed) && index % 2 == 0 {
                    outcome.unprocessed.push(index);
                } else {
                    outcome.units += state.put(row, &self.keys);
                }
            }
            outcome
        };
        self.leave(fault, outcome).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Row>, ApiFailure> {
        let fault = self.enter().await?;
        let row = {
            let state = self.state();
            state.existing()?;
            state.rows.get(key).cloned()
        };
        self.leave(fault, row).await
    }

    async fn put(&self, row: &Row, condition: &Condition) -> Result<PutOutcome, ApiFailure> {
        let fault = self.enter().await?;
        check_row(row, &self.keys)?;
        let outcome = {
            let mut state = self.state();
            state.existing()?;
            let old = state.rows.get(&row.key);
            let applied = match (condition, old) {
                (Condition::Equals(_), None) => false,
                (_, None) => true,
                (Condition::Absent, Some(_)) => false,
                (Condition::AbsentOrAtMost(name, value), Some(old)) => {
                    old.string(name).is_some_and(|old| old <= value.as_str())
                }
                (Condition::AbsentOrSame(name, value), Some(old)) => {
                    old.string(name) == Some(value)
                }
                (Condition::AbsentOrBelow(name, value), Some(old)) => {
                    old.integer(name).is_some_and(|old| old < *value)
                }
                (Condition::Equals(pairs), Some(old)) => pairs
                    .iter()
                    .all(|(name, value)| old.integer(name) == Some(*value)),
            };
            let units = if applied {
                state.put(row, &self.keys)
            } else {
                let units = row.size(&self.keys).write_units() as f64;
                state.units += units;
                units
            };
            PutOutcome { applied, units }
        };
        self.leave(fault, outcome).await
    }

    async fn delete(&self, key: &Key) -> Result<f64, ApiFailure> {
        let fault = self.enter().await?;
        let units = {
            let mut state = self.state();
            state.existing()?;
            let removed = state.rows.remove(key);
            if let (Some(row), Some(observer)) = (&removed, &state.removals) {
                observer(row);
            }
            let units = removed.map_or(1, |row| row.size(&self.keys).write_units()) as f64;
            state.units += units;
            units
        };
        self.leave(fault, units).await
    }

    async fn tail(
        &self,
        pk: &str,
        before: Option<&str>,
        limit: usize,
        attribute: &str,
    ) -> Result<TailPage, ApiFailure> {
        let fault = self.enter().await?;
        let page = {
            let state = self.state();
            state.existing()?;
            let mut rows = state.rows.values().rev().filter(|row| {
                row.key.pk == pk && before.is_none_or(|before| row.key.sk.as_str() < before)
            });
            let page: Vec<Row> = rows
                .by_ref()
                .take(limit)
                .map(|row| {
                    let mut row = row.clone();
                    row.attributes.retain(|name, _| name == attribute);
                    row
                })
                .collect();
            TailPage {
                rows: page,
                more: rows.next().is_some(),
            }
        };
        self.leave(fault, page).await
    }
}
