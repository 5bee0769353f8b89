//! Several sinks of one pipeline in one process: a topic of many partitions, a table whose writes
//! may arrive late, leases in memory.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use millpond_connector::connector::{ConnectorContext, Sink};
use millpond_connector::metrics::Metrics;
use millpond_connector::topic::{
    Offset, OffsetBounds, PartitionId, PartitionReader, StoredBatch, Topic, TopicError, Transform,
};
use millpond_dynamodb_sink::client::memory::MemoryTable;
use millpond_dynamodb_sink::client::{
    ApiFailure, BatchOutcome, Capacity, Condition, PutOutcome, TableApi, TableDescription, TailPage,
};
use millpond_dynamodb_sink::config::DeadLetterTarget;
use millpond_dynamodb_sink::pacing::PaceSettings;
use millpond_dynamodb_sink::row::{Key, Row};
use millpond_dynamodb_sink::store::Tables;
use millpond_leases::{Change, LeaseStore, MemoryStore, Outcome, StoreError, View};
use millpond_sink::sink::StoreSink;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::harness::{QUICK, config};
use crate::topic::MemoryTopic;

/// A topic of several partitions that other processes can consume.
#[derive(Clone)]
pub struct SharedTopic(pub Vec<MemoryTopic>);

impl SharedTopic {
    pub fn new(seed: u64, partitions: u64, lag: Duration) -> Self {
        let one = |partition| MemoryTopic {
            lag,
            ..MemoryTopic::new(seed ^ (partition << 32))
        };
        Self((0..partitions).map(one).collect())
    }

    fn of(&self, partition: PartitionId) -> &MemoryTopic {
        &self.0[partition as usize]
    }
}

#[async_trait]
impl Topic for SharedTopic {
    fn name(&self) -> &str {
        "events"
    }

    fn partition_count(&self) -> u32 {
        self.0.len() as u32
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn append(
        &self,
        partition: PartitionId,
        batch: StoredBatch,
    ) -> Result<Range<Offset>, TopicError> {
        self.of(partition).append(0, batch).await
    }

    async fn reader(
        &self,
        partition: PartitionId,
        from: Offset,
        transforms: &[Transform],
    ) -> Result<Box<dyn PartitionReader>, TopicError> {
        self.of(partition).reader(0, from, transforms).await
    }

    async fn bounds(&self, partition: PartitionId) -> Result<OffsetBounds, TopicError> {
        self.of(partition).bounds(0).await
    }

    async fn release(
        &self,
        partition: PartitionId,
        consumer: &str,
        offset: Offset,
    ) -> Result<(), TopicError> {
        self.of(partition).release(0, consumer, offset).await
    }
}

/// The way from one process to its servers: it can stall, and what was sent arrives even when its
/// sender is gone.
#[derive(Clone)]
pub struct Wire {
    random: Arc<Mutex<SmallRng>>,
    stalled_until: Arc<Mutex<Instant>>,
}

impl Wire {
    pub fn new(seed: u64) -> Self {
        Self {
            random: Arc::new(Mutex::new(SmallRng::seed_from_u64(seed))),
            stalled_until: Arc::new(Mutex::new(Instant::now())),
        }
    }

    pub fn stall(&self, time: Duration) {
        *self.stalled_until.lock().expect("lock") = Instant::now() + time;
    }

    async fn pass(&self) {
        let (until, delay) = {
            let mut random = self.random.lock().expect("lock");
            let slow = random.random_range(0..40) == 0;
            let most = if slow { 800 } else { 12 };
            let delay = Duration::from_millis(random.random_range(1..most));
            (*self.stalled_until.lock().expect("lock"), delay)
        };
        sleep_until(until).await;
        sleep(delay).await;
    }

    async fn send<T: Send + 'static>(&self, call: impl Future<Output = T> + Send + 'static) -> T {
        let wire = self.clone();
        let arrives = tokio::spawn(async move {
            wire.pass().await;
            call.await
        });
        arrives.await.expect("a call")
    }
}

struct FarTable(MemoryTable, Wire);

#[async_trait]
impl TableApi for FarTable {
    fn name(&self) -> &str {
        self.0.name()
    }

    async fn describe(&self) -> Result<Option<TableDescription>, ApiFailure> {
        let table = self.0.clone();
        self.1.send(async move { table.describe().await }).await
    }

    async fn create(&self, capacity: Capacity) -> Result<(), ApiFailure> {
        let table = self.0.clone();
        self.1
            .send(async move { table.create(capacity).await })
            .await
    }

    async fn batch_write(&self, rows: &[Arc<Row>]) -> Result<BatchOutcome, ApiFailure> {
        let (table, rows) = (self.0.clone(), rows.to_vec());
        self.1
            .send(async move { table.batch_write(&rows).await })
            .await
    }

    async fn get(&self, key: &Key) -> Result<Option<Row>, ApiFailure> {
        let (table, key) = (self.0.clone(), key.clone());
        self.1.send(async move { table.get(&key).await }).await
    }

    async fn put(&self, row: &Row, condition: &Condition) -> Result<PutOutcome, ApiFailure> {
        let (table, row, condition) = (self.0.clone(), row.clone(), condition.clone());
        self.1
            .send(async move { table.put(&row, &condition).await })
            .await
    }

    async fn delete(&self, key: &Key) -> Result<f64, ApiFailure> {
        let (table, key) = (self.0.clone(), key.clone());
        self.1.send(async move { table.delete(&key).await }).await
    }

    async fn tail(
        &self,
        pk: &str,
        before: Option<&str>,
        limit: usize,
        attribute: &str,
    ) -> Result<TailPage, ApiFailure> {
        let (table, pk) = (self.0.clone(), pk.to_owned());
        let (before, attribute) = (before.map(str::to_owned), attribute.to_owned());
        self.1
            .send(async move { table.tail(&pk, before.as_deref(), limit, &attribute).await })
            .await
    }
}

/// Leases at the end of a wire; counts the calls.
struct FarLeases {
    rows: MemoryStore,
    wire: Wire,
    calls: Arc<LeaseCalls>,
}

/// Calls to the place of the leases so far.
#[derive(Default)]
pub struct LeaseCalls {
    pub views: AtomicU64,
    pub changes: AtomicU64,
}

#[async_trait]
impl LeaseStore for FarLeases {
    async fn view(&self) -> Result<View, StoreError> {
        self.calls.views.fetch_add(1, Ordering::Relaxed);
        let rows = self.rows.clone();
        self.wire.send(async move { rows.view().await }).await
    }

    async fn change(&self, change: &Change) -> Result<Outcome, StoreError> {
        self.calls.changes.fetch_add(1, Ordering::Relaxed);
        let (rows, change) = (self.rows.clone(), change.clone());
        self.wire
            .send(async move { rows.change(&change).await })
            .await
    }
}

/// What all sinks of the pipeline share.
#[derive(Clone)]
pub struct Pipeline {
    pub topic: SharedTopic,
    pub table: MemoryTable,
    pub leases: MemoryStore,
    pub calls: Arc<LeaseCalls>,
    /// How fast each sink writes.
    pub pace: PaceSettings,
}

/// One sink that runs.
pub struct Instance {
    pub metrics: Arc<Metrics>,
    drain: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Pipeline {
    pub fn new(seed: u64, partitions: u64, lag: Duration) -> Self {
        Self {
            topic: SharedTopic::new(seed, partitions, lag),
            table: MemoryTable::new("t"),
            leases: MemoryStore::default(),
            calls: Arc::default(),
            pace: PaceSettings::default(),
        }
    }

    /// Starts a sink on this wire whose state is in `folder`.
    pub fn start(&self, wire: &Wire, folder: &Path) -> Instance {
        let leases = FarLeases {
            rows: self.leases.clone(),
            wire: wire.clone(),
            calls: self.calls.clone(),
        };
        let tables = Tables {
            data: Arc::new(FarTable(self.table.clone(), wire.clone())),
            dead_letters: None,
            ledger: None,
            leases: Some(Box::new(move |_| Arc::new(leases))),
            stale_writes: QUICK,
        };
        let mut config = config(None);
        config.pace = self.pace;
        // In one place for all of them; without a table of its own it is the table itself.
        config.dead_letters = DeadLetterTarget::Table("t".into());
        Instance::start(config.sink_on(tables), &self.topic, folder)
    }
}

impl Instance {
    /// Starts a sink whose state is in `folder`.
    pub fn start(sink: StoreSink, topic: &SharedTopic, folder: &Path) -> Self {
        let metrics = Arc::new(Metrics::default());
        let drain = CancellationToken::new();
        let context = ConnectorContext {
            name: "sink".into(),
            topic: Arc::new(topic.clone()),
            data_dir: folder.to_owned(),
            drain: drain.clone(),
            metrics: metrics.clone(),
        };
        Self {
            metrics,
            drain,
            task: tokio::spawn(Box::new(sink).run(context)),
        }
    }

    pub fn held(&self) -> u64 {
        self.metrics.partitions_held.load(Ordering::Relaxed)
    }

    pub fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    /// Drains it; it must end well and soon.
    pub async fn drain(self, what: &str) {
        self.drain.cancel();
        let limit = Duration::from_secs(60);
        let ended = tokio::time::timeout(limit, self.task).await;
        let ended = ended.unwrap_or_else(|_| panic!("{what}: drains for more than {limit:?}"));
        if let Err(error) = ended.expect("a task") {
            panic!("{what}: {error:#}");
        }
    }

    /// What it ends with by itself.
    pub async fn failure(self) -> String {
        let ended = self.task.await.expect("a task");
        format!("{:#}", ended.expect_err("a failure"))
    }

    /// Ends it between any two awaits.
    pub async fn crash(self, what: &str) {
        self.task.abort();
        match self.task.await {
            Err(aborted) => assert!(aborted.is_cancelled(), "{what}: {aborted}"),
            Ok(ended) => panic!("{what}: it had ended: {ended:?}"),
        }
    }
}

/// A folder for the state of a sink.
pub fn folder() -> TempDir {
    tempfile::tempdir().expect("tempdir")
}

/// The rows of one topic partition, as the sink of that one alone would have written them.
pub fn of_partition(rows: &[Row], partition: usize) -> Vec<Row> {
    let chain = format!("#{partition}");
    let is_its =
        |row: &&Row| row.key.pk.starts_with("millpond:groups/") || row.key.pk.ends_with(&chain);
    rows.iter().filter(is_its).cloned().collect()
}
