//! The one place where calls to a table are paced, counted and tried again.

pub mod put_item;

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use millpond_connector::aws::CREDENTIALS_PATIENCE;
use millpond_connector::backoff::{Backoff, BackoffPolicy};
use millpond_connector::metrics::{Metrics, WrittenItem};
use millpond_connector::mutation::{self, Mutation};
use millpond_connector::random;
use millpond_sink::retry::{Next, until_answered};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::batch::{BatchLimits, cut};
use crate::client::classify::CREDENTIALS;
use crate::client::{
    ApiFailure, BatchOutcome, Capacity, Condition, TableApi, TableDescription, TableError,
    TailPage, Throttle, Verdict,
};
use crate::limits::{
    MAX_BATCH_BYTES, MAX_BATCH_ITEMS, MAX_IN_FLIGHT_BYTES, MAX_IN_FLIGHT_REQUESTS,
};
use crate::pacing::TokenBucket;
use crate::plan::PlannedItem;
use crate::row::{Key, KeyNames, Row};

/// Write units a second that a sink may use, shared by its topic partitions.
#[derive(Debug)]
pub struct Budget {
    bucket: Mutex<TokenBucket>,
    /// Held by the request that starts next: they start in the order in which they ask.
    turn: tokio::sync::Mutex<()>,
    units_per_second: u64,
    made: Instant,
}

impl Budget {
    /// A full bucket.
    #[must_use]
    pub fn new(units_per_second: u64) -> Self {
        Self {
            bucket: Mutex::new(TokenBucket::new(units_per_second)),
            turn: tokio::sync::Mutex::default(),
            units_per_second,
            made: Instant::now(),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut TokenBucket) -> T) -> T {
        act(&mut self.bucket.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A row that the table refuses for what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRow {
    /// Index among the rows of the call.
    pub index: usize,
    /// What the service said.
    pub message: String,
}

/// What the rows of a call are counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    Items,
    Overhead,
}

/// Why a call ended without an answer.
enum Ended {
    /// The request is refused for what is in it.
    Rejected(ApiFailure),
    Failed(TableError),
}

/// A table with pace, counters and retries; clones share them.
#[derive(Clone)]
pub struct TableWriter {
    api: Arc<dyn TableApi>,
    keys: KeyNames,
    budget: Option<Arc<Budget>>,
    in_flight: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    /// A call succeeded, so the credentials were good.
    let_in: Arc<AtomicBool>,
}

impl TableWriter {
    /// A writer with a budget, or without one.
    #[must_use]
    pub fn new(
        api: Arc<dyn TableApi>,
        keys: KeyNames,
        budget: Option<Arc<Budget>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            api,
            keys,
            budget,
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT_BYTES >> 10)),
            metrics,
            let_in: Arc::default(),
        }
    }

    /// Table name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.api.name()
    }

    /// Key attribute names.
    #[must_use]
    pub fn keys(&self) -> &KeyNames {
        &self.keys
    }

    /// Describes the table.
    ///
    /// # Errors
    /// [`TableError`] when no try can succeed.
    pub async fn describe(&self) -> Result<Option<TableDescription>, TableError> {
        self.call("DescribeTable", || self.api.describe()).await
    }

    /// Starts to create the table.
    ///
    /// # Errors
    /// [`TableError`] when no try can succeed.
    pub async fn create(&self, capacity: Capacity) -> Result<(), TableError> {
        self.call("CreateTable", || self.api.create(capacity)).await
    }

    /// Reads one row, strongly consistent.
    ///
    /// # Errors
    /// [`TableError`] when no try can succeed.
    pub async fn get(&self, key: &Key) -> Result<Option<Row>, TableError> {
        self.call("GetItem", || self.api.get(key)).await
    }

    /// Rows of a partition key, last first, strongly consistent.
    ///
    /// # Errors
    /// [`TableError`] when no try can succeed.
    pub async fn tail(
        &self,
        pk: &str,
        before: Option<&str>,
        limit: usize,
    ) -> Result<TailPage, TableError> {
        self.call("Query", || self.api.tail(pk, before, limit))
            .await
    }

    /// Puts a row under a condition; false when it did not hold. Since a try whose answer was
    /// lost may have taken effect, false can also mean that the row is there already.
    ///
    /// # Errors
    /// [`TableError`] when no try can succeed.
    pub async fn put(&self, row: &Row, condition: &Condition) -> Result<bool, TableError> {
        let units = row.size(&self.keys).write_units();
        self.metrics.write_units_overhead.add(units);
        let call = || async move {
            self.pace(units).await;
            let outcome = self.api.put(row, condition).await;
            self.settle(units, &outcome.as_ref().map(|outcome| outcome.units));
            outcome
        };
        Ok(self.call("PutItem", call).await?.applied)
    }

    /// Writes items with events; answers those that the table refuses.
    ///
    /// # Errors
    /// [`TableError`] when no try can succeed; some of the items may be written.
    pub async fn write_items(&self, items: &[PlannedItem]) -> Result<Vec<RejectedRow>, TableError> {
        self.write_all(items, Count::Items).await
    }

    /// Writes rows without a condition, counted as overhead.
    ///
    /// # Errors
    /// [`TableError`] when no try can succeed or a row is refused.
    pub async fn write_rows(&self, rows: Vec<Row>) -> Result<(), TableError> {
        let item = |row: Row| {
            let size = row.size(&self.keys);
            PlannedItem {
                bytes: size.bytes(),
                units: size.write_units(),
                events: 0,
                event_bytes: 0,
                row: Arc::new(row),
            }
        };
        let rows: Vec<PlannedItem> = rows.into_iter().map(item).collect();
        match self.write_all(&rows, Count::Overhead).await?.pop() {
            None => Ok(()),
            Some(rejected) => Err(self.error("BatchWriteItem", rejected.message, None)),
        }
    }

    async fn write_all(
        &self,
        items: &[PlannedItem],
        count: Count,
    ) -> Result<Vec<RejectedRow>, TableError> {
        let limits = BatchLimits {
            items: MAX_BATCH_ITEMS,
            bytes: MAX_BATCH_BYTES,
            units: self
                .budget
                .as_ref()
                .map_or(u64::MAX, |budget| budget.units_per_second),
        };
        let sizes: Vec<(usize, u64)> = items.iter().map(|item| (item.bytes, item.units)).collect();
        let mut waiting = cut(&sizes, limits).into_iter();
        let mut under_way = FuturesUnordered::new();
        let mut rejected = Vec::new();
        loop {
            while under_way.len() < MAX_IN_FLIGHT_REQUESTS
                && let Some(range) = waiting.next()
            {
                under_way.push(self.write_batch(items, range.collect(), count));
            }
            match under_way.next().await {
                Some(refused) => rejected.extend(refused?),
                None => return Ok(rejected),
            }
        }
    }

    /// Writes the rows at `pending` until none is left; a refused request is taken apart.
    async fn write_batch(
        &self,
        items: &[PlannedItem],
        pending: Vec<usize>,
        count: Count,
    ) -> Result<Vec<RejectedRow>, TableError> {
        let bytes: usize = pending.iter().map(|index| items[*index].bytes).sum();
        let permits = u32::try_from(bytes.div_ceil(1_024)).unwrap_or(u32::MAX);
        let permits = permits.min((MAX_IN_FLIGHT_BYTES >> 10) as u32);
        let _permit = self.in_flight.acquire_many(permits).await;
        let mut rejected = Vec::new();
        let mut stack = vec![pending];
        while let Some(mut pending) = stack.pop() {
            let mut backoff = Backoff::new(policy(Throttle::Table));
            while !pending.is_empty() {
                let outcome = self.send(items, &pending).await;
                let left = match outcome {
                    Ok(_) if mutation::is(Mutation::UnprocessedIgnored) => Vec::new(),
                    Ok(left) => left,
                    Err(Ended::Failed(error)) => return Err(error),
                    Err(Ended::Rejected(failure)) => {
                        match pending.as_slice() {
                            [index] => rejected.push(RejectedRow {
                                index: *index,
                                message: failure.message,
                            }),
                            _ => stack.extend(pending.iter().map(|index| vec![*index])),
                        }
                        break;
                    }
                };
                let written = pending.iter().filter(|index| !left.contains(index));
                self.acknowledged(written.map(|index| &items[*index]), count);
                if !left.is_empty() {
                    self.metrics.sink_throttles.add(1);
                    if left.len() < pending.len() {
                        backoff.reset();
                    }
                    wait(&mut backoff).await;
                }
                pending = left;
            }
        }
        Ok(rejected)
    }

    /// One request, until it is answered; the indexes that were not processed.
    async fn send(&self, items: &[PlannedItem], pending: &[usize]) -> Result<Vec<usize>, Ended> {
        let rows: Vec<Arc<Row>> = pending
            .iter()
            .map(|index| items[*index].row.clone())
            .collect();
        let units = pending.iter().map(|index| items[*index].units).sum();
        let rows = rows.as_slice();
        let call = || async move {
            self.pace(units).await;
            let mut outcome = self.api.batch_write(rows).await;
            if mutation::is(Mutation::TimeoutIsSuccess)
                && outcome
                    .as_ref()
                    .is_err_and(|failure| failure.verdict == Verdict::Transient)
            {
                outcome = Ok(BatchOutcome::default());
            }
            self.settle(units, &outcome.as_ref().map(|outcome| outcome.units));
            outcome
        };
        let outcome = self.retry("BatchWriteItem", call).await?;
        let left = outcome.unprocessed.iter();
        Ok(left.filter_map(|at| pending.get(*at).copied()).collect())
    }

    fn acknowledged<'a>(&self, written: impl Iterator<Item = &'a PlannedItem>, count: Count) {
        let acknowledged_ms = now_ms();
        for item in written {
            if count == Count::Overhead {
                self.metrics.write_units_overhead.add(item.units);
                continue;
            }
            self.metrics.items.add(1);
            self.metrics.item_bytes.add(item.bytes as u64);
            self.metrics.write_units_items.add(item.units);
            self.metrics.sink_events.add(item.events);
            self.metrics.sink_event_bytes.add(item.event_bytes);
            self.metrics.item_written(&WrittenItem {
                pk: item.row.key.pk.clone(),
                sk: item.row.key.sk.clone(),
                acknowledged_ms,
            });
        }
    }

    /// Waits until a request of so many units may start. What waits is nothing yet: after a pause
    /// of the process it is asked anew how much may start.
    async fn pace(&self, units: u64) {
        let Some(budget) = &self.budget else { return };
        let _turn = budget.turn.lock().await;
        loop {
            let wait = budget.with(|bucket| bucket.take(units, budget.made.elapsed()));
            if wait.is_zero() || mutation::is(Mutation::BudgetIgnored) {
                return;
            }
            sleep(wait).await;
        }
    }

    /// Counts and believes what the service says it consumed. A request that was throttled
    /// consumed nothing; one whose answer is lost may have consumed all of it.
    fn settle(&self, reserved: u64, consumed: &Result<f64, &ApiFailure>) {
        let consumed = match consumed {
            Ok(units) => {
                let milli = (units.max(0.0) * 1_000.0).round() as u64;
                self.metrics.write_units_reported_milli.add(milli);
                *units
            }
            Err(failure) if matches!(failure.verdict, Verdict::Throttled(_)) => 0.0,
            Err(_) => return,
        };
        if let Some(budget) = &self.budget {
            budget.with(|bucket| bucket.settle(reserved, consumed));
        }
    }

    async fn call<T, F>(
        &self,
        operation: &'static str,
        call: impl FnMut() -> F,
    ) -> Result<T, TableError>
    where
        F: Future<Output = Result<T, ApiFailure>>,
    {
        match self.retry(operation, call).await {
            Ok(answer) => Ok(answer),
            Err(Ended::Failed(error)) => Err(error),
            Err(Ended::Rejected(failure)) => Err(self.error(operation, failure.message, None)),
        }
    }

    /// Tries until there is an answer or no try can succeed.
    async fn retry<T, F>(
        &self,
        operation: &'static str,
        call: impl FnMut() -> F,
    ) -> Result<T, Ended>
    where
        F: Future<Output = Result<T, ApiFailure>>,
    {
        let mut locked_out: Option<Instant> = None;
        let mut is_patient = || {
            let since = locked_out.get_or_insert_with(Instant::now);
            self.let_in.load(Ordering::Relaxed) && since.elapsed() < CREDENTIALS_PATIENCE
        };
        let judge = |failure: &ApiFailure| match failure.verdict {
            Verdict::Throttled(kind) => {
                self.metrics.sink_throttles.add(1);
                Next::Again(policy(kind))
            }
            Verdict::Expired | Verdict::Credentials(_) if is_patient() => {
                Next::Again(policy(Throttle::Account))
            }
            Verdict::Transient | Verdict::InUse => Next::Again(policy(Throttle::Unknown)),
            _ => Next::GiveUp,
        };
        let answered = until_answered(self.name(), operation, call, judge).await;
        let answered = answered.map_err(|failure| {
            let help = match failure.verdict {
                Verdict::Rejected => return Ended::Rejected(failure),
                Verdict::ConditionFailed => Some("no condition was set: report this as a bug"),
                Verdict::NoTable => Some("create the table, or set `create-table: true`"),
                Verdict::Expired => Some(CREDENTIALS),
                Verdict::Credentials(help) | Verdict::Fatal(help) => Some(help),
                _ => None,
            };
            Ended::Failed(self.error(operation, failure.message, help))
        })?;
        self.let_in.store(true, Ordering::Relaxed);
        Ok(answered)
    }

    fn error(
        &self,
        operation: &'static str,
        message: String,
        help: Option<&'static str>,
    ) -> TableError {
        TableError {
            table: self.name().to_owned(),
            operation,
            message,
            help,
        }
    }
}

impl std::fmt::Debug for TableWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableWriter")
            .field("table", &self.name())
            .finish_non_exhaustive()
    }
}

impl From<TableError> for Ended {
    fn from(error: TableError) -> Self {
        Self::Failed(error)
    }
}

/// A narrow limit clears quickly, an account's does not.
fn policy(kind: Throttle) -> BackoffPolicy {
    let (first, cap) = match kind {
        Throttle::Unknown | Throttle::Table => (50, 5_000),
        Throttle::KeyRange => (100, 5_000),
        Throttle::Account => (1_000, 10_000),
    };
    BackoffPolicy::endless(Duration::from_millis(first), Duration::from_millis(cap))
}

async fn wait(backoff: &mut Backoff) {
    if let Some(wait) = backoff.next_wait(random::unit()) {
        sleep(wait).await;
    }
}

/// Milliseconds since the Unix epoch.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}
