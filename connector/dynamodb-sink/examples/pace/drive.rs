//! Drives the writer through a run, on virtual time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use millpond_connector::metrics::Metrics;
use millpond_connector::random;
use millpond_dynamodb_sink::budget::Budget;
use millpond_dynamodb_sink::client::{
    ApiFailure, BatchOutcome, Capacity, Condition, PutOutcome, TableApi, TableDescription,
    TailPage, Throttle, Verdict,
};
use millpond_dynamodb_sink::pacing::WriteCapacity;
use millpond_dynamodb_sink::plan::PlannedItem;
use millpond_dynamodb_sink::plan_writer::Spreading;
use millpond_dynamodb_sink::row::{Key, KeyNames, Row, Value, names};
use millpond_dynamodb_sink::writer::TableWriter;
use millpond_fault_proxy::capacity::model::{Mode, Model, Reason};
use millpond_format::keys;
use tokio::time::{Instant, sleep, sleep_until};

use crate::runs::{Known, Run};

/// Of the jitter of all waits.
pub const SEED: u64 = 20_261_126;

/// What a request takes there and back.
pub const LATENCY: Duration = Duration::from_millis(12);

/// Units of a full item.
const ITEM_UNITS: u64 = 390;

/// How long data waits for more, and the units that do not wait.
const MAX_AGE: Duration = Duration::from_secs(1);
const PLAN_UNITS: u64 = 8_192;

/// One second of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Second {
    /// Units that the load brought.
    pub offered: f64,
    /// Units that the table took, of requests that began in it.
    pub consumed: f64,
    /// Units that it refused.
    pub throttled: f64,
    pub requests: u64,
    pub throttled_requests: u64,
}

/// What happened in a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Course {
    pub seconds: Vec<Second>,
    /// Limit of each second.
    pub limits: Vec<f64>,
    /// Units by partition key and second.
    keys: BTreeMap<String, BTreeMap<usize, f64>>,
    /// Partition keys that the writer called hot, each once.
    pub hot: Vec<String>,
}

#[allow(dead_code, reason = "the test asks more than the plots")]
impl Course {
    /// Part of the limit that was used.
    pub fn used(&self, range: Range<usize>) -> f64 {
        let used: f64 = self.seconds[range.clone()].iter().map(|s| s.consumed).sum();
        used / self.limits[range].iter().sum::<f64>()
    }

    /// Units a second of one partition key.
    pub fn of_key(&self, key: &str, range: Range<usize>) -> f64 {
        let seconds = range.len() as f64;
        let of_key = self.keys[key].range(range);
        of_key.map(|(_, units)| units).sum::<f64>() / seconds
    }

    /// Partition keys of items.
    pub fn keys(&self) -> usize {
        let keys = self.keys.keys();
        keys.filter(|pk| keys::parse_chain_pk(pk).is_some()).count()
    }

    pub fn requests(&self) -> u64 {
        self.seconds.iter().map(|s| s.requests).sum()
    }

    /// Part of the requests that was throttled, in whole or in part.
    pub fn throttled(&self) -> f64 {
        let throttled: u64 = self.seconds.iter().map(|s| s.throttled_requests).sum();
        throttled as f64 / self.requests() as f64
    }

    /// The first second from `from` on by which everything offered was consumed, up to two seconds of load.
    pub fn drained_by(&self, from: usize) -> usize {
        let (mut offered, mut consumed) = (0.0, 0.0);
        for (second, of) in self.seconds.iter().enumerate() {
            offered += of.offered;
            consumed += of.consumed;
            if second >= from && consumed + 2.0 * of.offered >= offered {
                return second;
            }
        }
        self.seconds.len()
    }

    pub fn most_in_ten_seconds(&self) -> f64 {
        let sums = self.seconds.windows(10);
        let sums = sums.map(|window| window.iter().map(|s| s.consumed).sum::<f64>());
        sums.fold(0.0, f64::max)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A table that keeps nothing and takes what its capacity allows.
struct CappedTable {
    known: Known,
    begun: Instant,
    model: Mutex<Model>,
    course: Arc<Mutex<Course>>,
}

impl CappedTable {
    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Rows that do not fit, with why.
    fn admit(&self, rows: &[Arc<Row>]) -> Vec<(usize, Reason)> {
        let (now, mut model) = (self.now(), lock(&self.model));
        let mut course = lock(&self.course);
        let second = now.as_secs() as usize;
        let mut refused = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            let units = row.size(&KeyNames::default()).write_units() as f64;
            match model.admit(&row.key.pk, units, now) {
                Ok(()) => {
                    *course
                        .keys
                        .entry(row.key.pk.clone())
                        .or_default()
                        .entry(second)
                        .or_default() += units;
                    course.second(second).consumed += units;
                }
                Err(reason) => {
                    refused.push((index, reason));
                    course.second(second).throttled += units;
                }
            }
        }
        let of = course.second(second);
        of.requests += 1;
        of.throttled_requests += u64::from(!refused.is_empty());
        refused
    }
}

impl Course {
    fn second(&mut self, second: usize) -> &mut Second {
        if self.seconds.len() <= second {
            self.seconds.resize(second + 1, Second::default());
        }
        &mut self.seconds[second]
    }
}

fn throttled(reason: Reason) -> ApiFailure {
    let verdict = Verdict::Throttled(match reason {
        Reason::Provisioned | Reason::MaxOnDemand => Throttle::Table,
        Reason::KeyRange => Throttle::KeyRange,
        Reason::Account => Throttle::Account,
    });
    ApiFailure {
        verdict,
        message: reason.name().to_owned(),
    }
}

#[async_trait]
impl TableApi for CappedTable {
    fn name(&self) -> &str {
        "events"
    }

    async fn describe(&self) -> Result<Option<TableDescription>, ApiFailure> {
        sleep(LATENCY).await;
        let (provisioned, max) = lock(&self.model).described();
        Ok(Some(TableDescription {
            active: true,
            status: "ACTIVE".to_owned(),
            keys: Vec::new(),
            capacity: match self.known {
                Known::Provisioned if provisioned > 0 => WriteCapacity::Provisioned(provisioned),
                Known::Provisioned => WriteCapacity::OnDemand { max },
                Known::Hidden => WriteCapacity::OnDemand { max: None },
            },
        }))
    }

    async fn create(&self, _: Capacity) -> Result<(), ApiFailure> {
        Ok(())
    }

    async fn batch_write(&self, rows: &[Arc<Row>]) -> Result<BatchOutcome, ApiFailure> {
        sleep(LATENCY / 2).await;
        let refused = self.admit(rows);
        sleep(LATENCY / 2).await;
        if let Some((_, reason)) = refused.first()
            && refused.len() == rows.len()
        {
            return Err(throttled(*reason));
        }
        let unprocessed: Vec<usize> = refused.into_iter().map(|(index, _)| index).collect();
        let units =
            rows.iter()
                .enumerate()
                .map(|(index, row)| match unprocessed.contains(&index) {
                    true => 0.0,
                    false => row.size(&KeyNames::default()).write_units() as f64,
                });
        let units = units.sum();
        Ok(BatchOutcome { unprocessed, units })
    }

    async fn get(&self, _: &Key) -> Result<Option<Row>, ApiFailure> {
        Ok(None)
    }

    async fn put(&self, row: &Row, _: &Condition) -> Result<PutOutcome, ApiFailure> {
        sleep(LATENCY).await;
        match self.admit(&[Arc::new(row.clone())]).first() {
            Some((_, reason)) => Err(throttled(*reason)),
            None => Ok(PutOutcome {
                applied: true,
                units: row.size(&KeyNames::default()).write_units() as f64,
            }),
        }
    }

    async fn delete(&self, _: &Key) -> Result<f64, ApiFailure> {
        sleep(LATENCY).await;
        Ok(1.0)
    }

    async fn tail(
        &self,
        _: &str,
        _: Option<&str>,
        _: usize,
        _: &str,
    ) -> Result<TailPage, ApiFailure> {
        Ok(TailPage::default())
    }
}

/// Partition keys of a group's items, as the planner gives them.
struct Placed {
    pk: String,
    items: u64,
    write_shards: u32,
}

impl Placed {
    fn new(pk: &str) -> Self {
        Self {
            pk: pk.to_owned(),
            items: 0,
            write_shards: 1,
        }
    }

    /// Begins a plan.
    fn begin(&mut self, spreading: &Spreading) {
        let Some(chain) = keys::parse_chain_pk(&self.pk) else {
            return;
        };
        let before = self.write_shards;
        self.write_shards = spreading.number(chain.partition, chain.group, before);
        if self.write_shards > before {
            spreading.grown(chain.partition, chain.group);
        }
    }

    fn next(&mut self) -> String {
        let shard = (self.items % u64::from(self.write_shards)) as u32;
        self.items += 1;
        match keys::parse_chain_pk(&self.pk) {
            Some(chain) => keys::shard_pk(chain.pipeline, chain.group, chain.partition, shard),
            None => self.pk.clone(),
        }
    }
}

/// Rows of one group.
fn items(placed: &mut Placed, mut units: u64, payload: &Bytes) -> Vec<PlannedItem> {
    let mut items = Vec::new();
    while units > 0 {
        let of_item = units.min(ITEM_UNITS);
        units -= of_item;
        let key = Key {
            pk: placed.next(),
            sk: format!("{:050}", items.len()),
        };
        let frames = payload.slice(..(of_item as usize) * 1_024 - 200);
        let row = Row::new(key).with(names::FRAMES, Value::B(frames.into()));
        let size = row.size(&KeyNames::default());
        assert_eq!(size.write_units(), of_item);
        items.push(PlannedItem {
            bytes: size.bytes(),
            units: of_item,
            row: Arc::new(row),
            events: 1,
            event_bytes: 1,
        });
    }
    items
}

/// One topic partition: what has come since the last plan becomes the next one.
async fn partition(run: Run, number: usize, writer: TableWriter, spreading: Spreading) {
    let begun = Instant::now();
    let end = begun + Duration::from_secs(run.seconds as u64);
    let payload = Bytes::from(vec![0; ITEM_UNITS as usize * 1_024]);
    let ledger = Row::new(Key {
        pk: "ledger".to_owned(),
        sk: number.to_string(),
    });
    let mut waiting: Vec<f64> = vec![0.0; run.load[number].len()];
    let groups = run.load[number].iter();
    let mut placed: Vec<Placed> = groups.map(|(pk, _)| Placed::new(pk)).collect();
    let mut counted = 0;
    while Instant::now() < end {
        // What comes within a second is there at its end.
        let second = begun.elapsed().as_secs() as usize;
        for second in counted..second {
            for ((_, rate), waiting) in run.load[number].iter().zip(&mut waiting) {
                *waiting += rate(second);
            }
        }
        counted = second.max(counted);
        let mut plan = Vec::new();
        // A plan has of each group what its part of the topic has.
        let total: f64 = waiting.iter().sum();
        let part = (PLAN_UNITS as f64 / total.max(1.0)).min(1.0);
        for (placed, waiting) in placed.iter_mut().zip(&mut waiting) {
            let units = (*waiting * part) as u64;
            *waiting -= units as f64;
            placed.begin(&spreading);
            plan.extend(items(placed, units, &payload));
        }
        if plan.is_empty() {
            sleep_until(begun + MAX_AGE * (counted as u32 + 1)).await;
            continue;
        }
        let intent = writer.put(&ledger, &Condition::Absent).await;
        assert_eq!(intent, Ok(true));
        assert_eq!(writer.write_items(&plan).await, Ok(Vec::new()));
        spreading.written("", &plan);
    }
}

/// Changes the table's capacity when it is time.
async fn changes(run: Run, table: Arc<CappedTable>) {
    for (second, units) in run.changes {
        sleep_until(table.begun + Duration::from_secs(second as u64)).await;
        let now = table.now();
        lock(&table.model).set_mode(Mode::Provisioned(units), now);
    }
}

/// What happens in a run; the same for the same run.
pub fn drive(run: &Run) -> Course {
    random::seed_this_thread(SEED);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let mut course = runtime.block_on(async {
        let course: Arc<Mutex<Course>> = Arc::default();
        let table = Arc::new(CappedTable {
            known: run.known,
            begun: Instant::now(),
            model: Mutex::new(Model::new(run.limits)),
            course: course.clone(),
        });
        let metrics = Arc::new(Metrics::default());
        let budget = Arc::new(Budget::new(run.settings, metrics.clone()));
        let spreading = Spreading::new(run.write_shards, 1_000);
        let (hot, chains) = (course.clone(), spreading.clone());
        budget.on_hot_key(Box::new(move |key| {
            chains.is_hot("", "p", &key.pk);
            let mut course = lock(&hot);
            if !course.hot.contains(&key.pk) {
                course.hot.push(key.pk.clone());
            }
        }));
        let keys = KeyNames::default();
        let writer = TableWriter::new(table.clone(), keys, Some(budget), metrics).watching();
        let mut partitions = tokio::task::JoinSet::new();
        for number in 0..run.load.len() {
            let (writer, spreading) = (writer.clone(), spreading.clone());
            partitions.spawn(partition(run.clone(), number, writer, spreading));
        }
        let changes = tokio::spawn(changes(run.clone(), table));
        // A backlog may outlast the run.
        sleep(Duration::from_secs(run.seconds as u64)).await;
        partitions.shutdown().await;
        changes.abort();
        std::mem::take(&mut *lock(&course))
    });
    course.seconds.resize(run.seconds, Second::default());
    for (number, second) in course.seconds.iter_mut().enumerate() {
        let groups = run.load.iter().flatten();
        second.offered = groups.map(|(_, rate)| rate(number)).sum();
    }
    course.limits = (0..run.seconds)
        .map(|second| run.limit_at(second))
        .collect();
    course
}
