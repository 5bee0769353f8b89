//! Rows without a condition: cut into requests, sent beside each other, again until none is left.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use std::vec;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use millpond_connector::backoff::Backoff;
use millpond_connector::metrics::WrittenItem;
use millpond_connector::mutation::{self, Mutation};
use millpond_sink::claim::Claim;
use tokio::sync::Semaphore;

use super::{Ended, RejectedRow, TableWriter, policy, wait};
use crate::batch::{BatchLimits, Lanes, RowSize, lanes};
use crate::budget::{Line, Reservation};
use crate::client::{ApiFailure, BatchOutcome, TableError, Throttle, Verdict};
use crate::limits::{
    CROWDED_KEY_UNITS, MAX_BATCH_BYTES, MAX_BATCH_ITEMS, MAX_IN_FLIGHT_BYTES,
    MAX_IN_FLIGHT_REQUESTS,
};
use crate::plan::PlannedItem;
use crate::row::Row;

/// Bytes of a plain item beside its event: names, keys, times and an origin of usual length.
const PLAIN_ITEM_OVERHEAD: u64 = 250;

/// What the rows of a call are counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    Items,
    Overhead,
}

/// Requests that wait to be written, by the indexes of their rows.
type Queue = Mutex<vec::IntoIter<Vec<usize>>>;

/// What the requests of one call share.
struct Way<'a> {
    slots: Semaphore,
    line: Line,
    claim: Option<&'a Arc<Claim>>,
}

impl TableWriter {
    /// Writes items with events; answers those that the table refuses.
    ///
    /// # Errors
    /// [`TableError`] when no try can succeed; some of the items may be written.
    pub async fn write_items(&self, items: &[PlannedItem]) -> Result<Vec<RejectedRow>, TableError> {
        self.write_all(items, Count::Items, None).await
    }

    /// The same, of a plan that may be taken back: each request is sent only while the claim stands.
    ///
    /// # Errors
    /// As [`Self::write_items`], and when it stands no more.
    pub async fn write_items_under(
        &self,
        items: &[PlannedItem],
        claim: &Arc<Claim>,
    ) -> Result<Vec<RejectedRow>, TableError> {
        self.write_all(items, Count::Items, Some(claim)).await
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
        match self.write_all(&rows, Count::Overhead, None).await?.pop() {
            None => Ok(()),
            Some(rejected) => Err(self.error("BatchWriteItem", rejected.message, None)),
        }
    }

    async fn write_all(
        &self,
        items: &[PlannedItem],
        count: Count,
        claim: Option<&Arc<Claim>>,
    ) -> Result<Vec<RejectedRow>, TableError> {
        let rows: Vec<RowSize<'_>> = items.iter().map(row_size).collect();
        let way = Way {
            slots: Semaphore::new(MAX_IN_FLIGHT_REQUESTS),
            line: Line::default(),
            claim,
        };
        let queues: Vec<Queue> = lanes(&rows, self.lanes())
            .into_iter()
            .map(|lane| Mutex::new(lane.into_iter()))
            .collect();
        let mut under_way = FuturesUnordered::new();
        for (number, queue) in queues.iter().enumerate() {
            let at_once = if number == 0 {
                MAX_IN_FLIGHT_REQUESTS
            } else {
                1
            };
            for _ in 0..at_once {
                under_way.push(self.write_queue(items, queue, &way, count));
            }
        }
        let mut rejected = Vec::new();
        while let Some(refused) = under_way.next().await {
            rejected.extend(refused?);
        }
        Ok(rejected)
    }

    fn lanes(&self) -> Lanes {
        let (units, key_units) = match &self.budget {
            Some(budget) => budget.request_units(),
            None => (u64::MAX, u64::MAX),
        };
        Lanes {
            limits: BatchLimits {
                items: MAX_BATCH_ITEMS,
                bytes: MAX_BATCH_BYTES,
                units,
            },
            crowded_units: match &self.budget {
                Some(_) => CROWDED_KEY_UNITS,
                None => u64::MAX,
            },
            key_units,
        }
    }

    /// Writes the requests of a queue, one after the other.
    async fn write_queue(
        &self,
        items: &[PlannedItem],
        queue: &Queue,
        way: &Way<'_>,
        count: Count,
    ) -> Result<Vec<RejectedRow>, TableError> {
        let mut rejected = Vec::new();
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(pending) = next else {
                return Ok(rejected);
            };
            rejected.extend(self.write_batch(items, pending, way, count).await?);
        }
    }

    /// Writes the rows at `pending` until none is left; a refused request is taken apart.
    async fn write_batch(
        &self,
        items: &[PlannedItem],
        pending: Vec<usize>,
        way: &Way<'_>,
        count: Count,
    ) -> Result<Vec<RejectedRow>, TableError> {
        let mut rejected = Vec::new();
        let mut stack = vec![pending];
        while let Some(mut pending) = stack.pop() {
            let mut backoff = Backoff::new(policy(Throttle::Table));
            while !pending.is_empty() {
                let outcome = self.send(items, &pending, way).await;
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
                    self.metrics.throttles_unprocessed.add(1);
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
    async fn send(
        &self,
        items: &[PlannedItem],
        pending: &[usize],
        way: &Way<'_>,
    ) -> Result<Vec<usize>, Ended> {
        let pending_items = || pending.iter().map(|index| &items[*index]);
        let rows: Vec<Arc<Row>> = pending_items().map(|item| item.row.clone()).collect();
        let sizes = |rows: &[usize]| {
            let rows = rows.iter().filter_map(|at| pending.get(*at));
            let sizes = rows.map(|index| (items[*index].row.key.pk.as_str(), items[*index].units));
            Reservation::new(sizes)
        };
        let of = sizes(&(0..pending.len()).collect::<Vec<_>>());
        let bytes: usize = pending_items().map(|item| item.bytes).sum();
        let permits = u32::try_from(bytes.div_ceil(1_024)).unwrap_or(u32::MAX);
        let permits = permits.min((MAX_IN_FLIGHT_BYTES >> 10) as u32);
        let (rows, of, sizes) = (rows.as_slice(), &of, &sizes);
        let call = || async move {
            // Whoever waits for a crowded key leaves the way to others.
            if let Some(budget) = &self.budget {
                budget.keys(of).await;
            }
            let _slot = way.slots.acquire().await;
            let _permit = self.in_flight.acquire_many(permits).await;
            let began = self.pace(of, Some(&way.line)).await;
            let mut outcome = match way.claim {
                None => self.api.batch_write(rows).await,
                Some(claim) => self.write_under(rows, claim).await,
            };
            if mutation::is(Mutation::TimeoutIsSuccess)
                && outcome
                    .as_ref()
                    .is_err_and(|failure| failure.verdict == Verdict::Transient)
            {
                outcome = Ok(BatchOutcome::default());
            }
            let left = match &outcome {
                Ok(outcome) => sizes(&outcome.unprocessed).keys,
                Err(_) => Vec::new(),
            };
            let consumed = outcome.as_ref().map(|outcome| outcome.units);
            self.settle(of, &consumed, &left, began);
            outcome
        };
        let outcome = self.retry("BatchWriteItem", call).await?;
        let left = outcome.unprocessed.iter();
        Ok(left.filter_map(|at| pending.get(*at).copied()).collect())
    }

    /// One try under a claim, which is looked at first if that is due.
    async fn write_under(
        &self,
        rows: &[Arc<Row>],
        claim: &Arc<Claim>,
    ) -> Result<BatchOutcome, ApiFailure> {
        let failure = |verdict, message: String| Err(ApiFailure { verdict, message });
        match claim.stands().await {
            Ok(true) => self.api.batch_write_under(rows, claim).await,
            Ok(false) => failure(
                Verdict::Fenced,
                "another process has taken the topic partition".to_owned(),
            ),
            // Whatever may pass was tried again there.
            Err(error) => failure(
                Verdict::Fatal("the ledger row cannot be read"),
                error.to_string(),
            ),
        }
    }

    pub(super) fn acknowledged<'a>(
        &self,
        written: impl Iterator<Item = &'a PlannedItem>,
        count: Count,
    ) {
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
            let one_by_one = units_one_by_one(item.events, item.event_bytes);
            self.metrics.write_units_per_event.add(one_by_one);
            self.metrics.item_written(&WrittenItem {
                pk: item.row.key.pk.clone(),
                sk: item.row.key.sk.clone(),
                acknowledged_ms,
            });
        }
    }
}

/// Write units of so many events of so many bytes together, one item each: of their mean size, with what a plain
/// item holds beside its event.
fn units_one_by_one(events: u64, event_bytes: u64) -> u64 {
    let events = events.max(1);
    let each = event_bytes / events + PLAIN_ITEM_OVERHEAD;
    events * each.div_ceil(1_024)
}

fn row_size(item: &PlannedItem) -> RowSize<'_> {
    RowSize {
        pk: &item.row.key.pk,
        bytes: item.bytes,
        units: item.units,
    }
}

/// Milliseconds since the Unix epoch.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}
