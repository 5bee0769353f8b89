//! The one place where calls to a table are paced, counted and tried again.

mod batches;
pub mod put_item;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millpond_connector::aws::CREDENTIALS_PATIENCE;
use millpond_connector::backoff::{Backoff, BackoffPolicy};
use millpond_connector::metrics::{Counter, Metrics};
use millpond_connector::random;
use millpond_sink::retry::{Next, until_answered};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use crate::budget::{Budget, Line, Reservation};
use crate::client::classify::CREDENTIALS;
use crate::client::{
    ApiFailure, Capacity, Condition, PutOutcome, TableApi, TableDescription, TableError, TailPage,
    Throttle, Verdict,
};
use crate::limits::{LOOK_LIMIT, MAX_IN_FLIGHT_BYTES};
use crate::pacing::KeyUse;
use crate::row::{Key, KeyNames, Row};

/// A row that the table refuses for what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRow {
    /// Index among the rows of the call.
    pub index: usize,
    /// What the service said.
    pub message: String,
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
    /// The budget follows this table's capacity.
    is_watching: bool,
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
            is_watching: false,
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT_BYTES >> 10)),
            metrics,
            let_in: Arc::default(),
        }
    }

    /// The same; its budget follows the capacity of this table, which is asked for regularly while it is written to.
    #[must_use]
    pub fn watching(mut self) -> Self {
        self.is_watching = true;
        self
    }

    /// Its budget, if it has one.
    #[must_use]
    pub fn budget(&self) -> Option<&Arc<Budget>> {
        self.budget.as_ref()
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
        let found = self.call("DescribeTable", || self.api.describe()).await?;
        self.looked(found.as_ref());
        Ok(found)
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
        attribute: &str,
    ) -> Result<TailPage, TableError> {
        self.call("Query", || self.api.tail(pk, before, limit, attribute))
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
        let of = Reservation::new([(row.key.pk.as_str(), units)]);
        let call = || self.put_once(&of, row, condition);
        Ok(self.call("PutItem", call).await?.applied)
    }

    /// One try of a put, paced.
    async fn put_once(
        &self,
        of: &Reservation,
        row: &Row,
        condition: &Condition,
    ) -> Result<PutOutcome, ApiFailure> {
        let began = self.pace(of, None).await;
        let outcome = self.api.put(row, condition).await;
        let consumed = outcome.as_ref().map(|outcome| outcome.units);
        self.settle(of, &consumed, &[], began);
        outcome
    }

    /// Deletes a row, if it is there.
    ///
    /// # Errors
    /// [`TableError`] when no try can succeed.
    pub async fn delete(&self, key: &Key) -> Result<(), TableError> {
        // What it will cost is not known before: one unit now, and the rest is owed.
        let of = Reservation::new([(key.pk.as_str(), 1)]);
        let of = &of;
        let call = || async move {
            let began = self.pace(of, None).await;
            let outcome = self.api.delete(key).await;
            self.settle(of, &outcome.as_ref().copied(), &[], began);
            outcome
        };
        self.call("DeleteItem", call).await?;
        Ok(())
    }

    /// Waits until the request may start; answers when that was, by the clock of the budget.
    async fn pace(&self, of: &Reservation, line: Option<&Line>) -> Duration {
        let Some(budget) = &self.budget else {
            return Duration::ZERO;
        };
        if self.is_watching && budget.is_look_due() {
            // Others go on meanwhile, and do not ask, too.
            budget.looked(None);
            if let Ok(Ok(found)) = timeout(LOOK_LIMIT, self.api.describe()).await {
                self.looked(found.as_ref());
            }
        }
        let began = budget.start(of, line).await;
        self.metrics.sink_requests.add(1);
        began
    }

    fn looked(&self, found: Option<&TableDescription>) {
        if let Some(budget) = self.budget.as_ref().filter(|_| self.is_watching) {
            budget.looked(found.map(|found| found.capacity));
        }
    }

    /// Counts and believes what the service says it consumed, of which the units in `left` were not. A
    /// request that was throttled consumed nothing; one whose answer is lost may have consumed all of it.
    fn settle(
        &self,
        of: &Reservation,
        consumed: &Result<f64, &ApiFailure>,
        left: &[KeyUse],
        began: Duration,
    ) {
        let (consumed, left, refused) = match consumed {
            Ok(units) => {
                let milli = (units.max(0.0) * 1_000.0).round() as u64;
                self.metrics.write_units_reported_milli.add(milli);
                let refused = (!left.is_empty()).then_some(Throttle::Unknown);
                (*units, left, refused)
            }
            Err(failure) => match failure.verdict {
                Verdict::Throttled(why) => (0.0, of.keys.as_slice(), Some(why)),
                _ => return,
            },
        };
        if let Some(budget) = &self.budget {
            budget.settle(of, consumed, left);
            if let Some(why) = refused {
                budget.refused(why, of, left, began);
            }
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
                counter(&self.metrics, kind).add(1);
                Next::Again(policy(kind))
            }
            Verdict::Expired | Verdict::Credentials(_) if is_patient() => {
                Next::Again(policy(Throttle::Account))
            }
            Verdict::Transient | Verdict::InUse | Verdict::Unsent => {
                Next::Again(policy(Throttle::Unknown))
            }
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

fn counter(metrics: &Metrics, kind: Throttle) -> &Counter {
    match kind {
        Throttle::Unknown => &metrics.throttles_unnamed,
        Throttle::Table => &metrics.throttles_table,
        Throttle::Index => &metrics.throttles_index,
        Throttle::KeyRange => &metrics.throttles_key_range,
        Throttle::Account => &metrics.throttles_account,
    }
}

/// A narrow limit clears quickly, an account's does not.
fn policy(kind: Throttle) -> BackoffPolicy {
    let (first, cap) = match kind {
        Throttle::Unknown | Throttle::Table | Throttle::Index => (50, 5_000),
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
