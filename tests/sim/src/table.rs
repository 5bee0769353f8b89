//! The table: the sink's own fake with DynamoDB's rules, behind a wire that fails.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use millpond_dynamodb_sink::client::memory::MemoryTable;
use millpond_dynamodb_sink::client::{
    ApiFailure, BatchOutcome, Capacity, Condition, PutOutcome, TableApi, TableDescription,
    TailPage, Throttle, Verdict,
};
use millpond_dynamodb_sink::limits::MAX_IN_FLIGHT_REQUESTS;
use millpond_dynamodb_sink::plan_writer::Spreading;
use millpond_dynamodb_sink::row::{Key, KeyNames, Row};
use millpond_dynamodb_sink::spread::WriteShards;
use millpond_sink::claim::Claim;
use tokio::time::Instant;

use crate::items::PIPELINE;
use crate::losing::{LATE_MS, LATE_MS_ELSEWHERE};
use crate::process::Process;
use crate::scenario::Fault;
use crate::world::lock;

/// What one process has asked of all its tables.
pub struct Usage {
    /// When writes began, and the units that they consumed.
    writes: Mutex<VecDeque<(Instant, f64)>>,
    batches: AtomicUsize,
    /// What its sink knows of hot keys.
    pub spreading: Spreading,
}

impl Usage {
    /// Nothing yet.
    #[must_use]
    pub fn new(write_shards: WriteShards) -> Self {
        Self {
            writes: Mutex::default(),
            batches: AtomicUsize::new(0),
            // A key takes nothing: every chain is busy, and called hot by the dice alone.
            spreading: Spreading::new(write_shards, 0),
        }
    }
}

/// A table as one process uses it.
pub struct FakeTable {
    process: Arc<Process>,
    table: MemoryTable,
    usage: Arc<Usage>,
}

/// Counts down when a batch ends, however it does.
struct Under<'a>(&'a AtomicUsize);

impl Drop for Under<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl FakeTable {
    /// A table for a process; `usage` is shared by all its tables.
    #[must_use]
    pub fn new(process: Arc<Process>, table: MemoryTable, usage: Arc<Usage>) -> Self {
        Self {
            process,
            table,
            usage,
        }
    }

    /// The way there: the call may end on it.
    async fn there(&self) -> Result<(), ApiFailure> {
        self.process.step().await;
        if self.process.fault(Fault::Throttle) {
            let kinds = [
                Throttle::Unknown,
                Throttle::Table,
                Throttle::KeyRange,
                Throttle::Account,
            ];
            let kind = self.process.world.dice.pick("table throttle", &kinds);
            return Err(failure(Verdict::Throttled(kind)));
        }
        if self.process.fault(Fault::Unreachable) {
            let verdicts = [Verdict::Transient, Verdict::Transient, Verdict::Expired];
            let verdict = self.process.world.dice.pick("table failure", &verdicts);
            return Err(failure(verdict));
        }
        Ok(())
    }

    /// The way back: the answer may be lost on it.
    async fn back<T>(&self, answer: T) -> Result<T, ApiFailure> {
        self.process.step().await;
        match self.process.fault(Fault::LostAnswer) {
            true => Err(failure(Verdict::Transient)),
            false => Ok(answer),
        }
    }

    /// Lets `effect` happen after the caller was told that there was no answer.
    async fn later<F>(&self, effect: F) -> ApiFailure
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let latest = match self.process.world.scenario.loses_topic {
            true => LATE_MS,
            false => LATE_MS_ELSEWHERE,
        };
        let ms = self.process.world.dice.between("effect after", 50, latest);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            effect.await;
        });
        let ms = self
            .process
            .world
            .dice
            .between("times out after", 20, 2_000);
        tokio::time::sleep(Duration::from_millis(ms)).await;
        failure(Verdict::Transient)
    }

    /// Writes rows, under a claim only while that is fresh.
    async fn write(
        &self,
        rows: &[Arc<Row>],
        claim: Option<&Arc<Claim>>,
    ) -> Result<BatchOutcome, ApiFailure> {
        let began = Instant::now();
        let world = self.process.world.clone();
        let _under = Under(&self.usage.batches);
        let under_way = self.usage.batches.fetch_add(1, Ordering::Relaxed) + 1;
        if under_way > MAX_IN_FLIGHT_REQUESTS * (world.scenario.partitions as usize) {
            world.violate("I9", format!("{under_way} batches under way"));
        }
        // The pacer would say so after seconds; its own reasons are rarer than what may come of it.
        if self.process.fault(Fault::HotKey)
            && let Some(row) = rows.first()
        {
            self.usage.spreading.is_hot("", PIPELINE, &row.key.pk);
        }
        self.there().await?;
        // It is signed here; what comes after that takes a bounded time.
        if claim.is_some_and(|claim| !claim.is_fresh()) {
            return Err(ApiFailure::unsent());
        }
        if self.process.fault(Fault::LateEffect) {
            // What it may consume was reserved already.
            let units = rows
                .iter()
                .map(|row| row.size(&KeyNames::default()).write_units());
            self.consumed(began, units.sum::<u64>() as f64);
            let (table, rows) = (self.table.clone(), rows.to_vec());
            let effect = async move {
                world.note(format!("table: a late batch of {} rows", rows.len()));
                let _ = table.batch_write(&rows).await;
            };
            return Err(self.later(effect).await);
        }
        let mut kept: Vec<usize> = (0..rows.len()).collect();
        if self.process.fault(Fault::Unprocessed) {
            kept.retain(|_| world.dice.chance("processed", 500));
        }
        let unprocessed = (0..rows.len())
            .filter(|index| !kept.contains(index))
            .collect();
        let kept: Vec<Arc<Row>> = kept.into_iter().map(|index| rows[index].clone()).collect();
        let units = match kept.is_empty() {
            true => 0.0,
            false => self.table.batch_write(&kept).await?.units,
        };
        self.consumed(began, units);
        let name = &self.process.name;
        world.note(format!(
            "{name} writes {} of {} rows",
            kept.len(),
            rows.len()
        ));
        self.back(BatchOutcome { unprocessed, units }).await
    }

    /// Counts what was consumed, by when its request began (I8).
    fn consumed(&self, began: Instant, units: f64) {
        let Some(budget) = self.process.world.scenario.budget else {
            return;
        };
        let mut writes = lock(&self.usage.writes);
        writes.push_back((began, units));
        // Within one second: what a second earns, a full bucket, and the request that was larger
        // than the bucket.
        let largest = writes.iter().map(|(_, units)| *units).fold(0.0, f64::max);
        let allowed = 2.0 * budget as f64 + largest;
        let second = Duration::from_secs(1);
        let used: f64 = writes
            .iter()
            .filter(|(at, _)| *at <= began && *at + second > began)
            .map(|(_, units)| units)
            .sum();
        if used > allowed {
            self.process.world.violate(
                "I8",
                format!(
                    "{} used {used} units in a second, of {budget}",
                    self.process.name
                ),
            );
        }
    }
}

fn failure(verdict: Verdict) -> ApiFailure {
    ApiFailure {
        verdict,
        message: "injected".to_owned(),
    }
}

#[async_trait]
impl TableApi for FakeTable {
    fn name(&self) -> &str {
        self.table.name()
    }

    async fn describe(&self) -> Result<Option<TableDescription>, ApiFailure> {
        self.there().await?;
        let answer = self.table.describe().await?;
        self.back(answer).await
    }

    async fn create(&self, capacity: Capacity) -> Result<(), ApiFailure> {
        self.there().await?;
        self.table.create(capacity).await?;
        self.back(()).await
    }

    async fn batch_write(&self, rows: &[Arc<Row>]) -> Result<BatchOutcome, ApiFailure> {
        self.write(rows, None).await
    }

    async fn batch_write_under(
        &self,
        rows: &[Arc<Row>],
        claim: &Arc<Claim>,
    ) -> Result<BatchOutcome, ApiFailure> {
        if self.process.fault(Fault::TopicLost) {
            self.process.world.lose_topic();
        }
        self.write(rows, Some(claim)).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Row>, ApiFailure> {
        self.there().await?;
        let answer = self.table.get(key).await?;
        self.back(answer).await
    }

    async fn put(&self, row: &Row, condition: &Condition) -> Result<PutOutcome, ApiFailure> {
        let began = Instant::now();
        self.there().await?;
        let world = self.process.world.clone();
        let what = format!("{} puts {}/{}", self.process.name, row.key.pk, row.key.sk);
        if self.process.fault(Fault::LateEffect) {
            let units = row.size(&KeyNames::default()).write_units() as f64;
            self.consumed(began, units);
            let (table, row, condition) = (self.table.clone(), row.clone(), condition.clone());
            let effect = async move {
                let outcome = table.put(&row, &condition).await;
                let applied = outcome.is_ok_and(|outcome| outcome.applied);
                world.note(format!("{what}, late: {applied}"));
            };
            return Err(self.later(effect).await);
        }
        let outcome = self.table.put(row, condition).await?;
        self.consumed(began, outcome.units);
        world.note(format!("{what}: {}", outcome.applied));
        self.back(outcome).await
    }

    async fn delete(&self, key: &Key) -> Result<f64, ApiFailure> {
        let began = Instant::now();
        self.there().await?;
        let units = self.table.delete(key).await?;
        self.consumed(began, units);
        let name = &self.process.name;
        let world = &self.process.world;
        world.note(format!("{name} deletes {}/{}", key.pk, key.sk));
        self.back(units).await
    }

    async fn tail(
        &self,
        pk: &str,
        before: Option<&str>,
        limit: usize,
        attribute: &str,
    ) -> Result<TailPage, ApiFailure> {
        self.there().await?;
        let answer = self.table.tail(pk, before, limit, attribute).await?;
        self.back(answer).await
    }
}
