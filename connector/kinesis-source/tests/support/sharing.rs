//! Several sources on one table, each behind a gate that stalls everything it does.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use millpond_connector::connector::ConnectorContext;
use millpond_connector::metrics::Metrics;
use millpond_connector::topic::{
    ConsumedRecord, Offset, OffsetBounds, PartitionId, PartitionReader, StoredBatch, Topic,
    TopicError, Transform,
};
use millpond_format::origin::Origin;
use millpond_format::record::Records;
use millpond_kinesis_source::checkpoint::CheckpointError;
use millpond_kinesis_source::classify::Failure;
use millpond_kinesis_source::client::{
    ReadAnswer, ReadFrom, ShardIterator, ShardPage, ShardScope, StreamApi, StreamSummary,
    StreamTarget,
};
use millpond_kinesis_source::config::{DEFAULT_LEASE_DURATION, SourceConfig};
use millpond_kinesis_source::memory_table::MemoryTable;
use millpond_kinesis_source::shard::ShardId;
use millpond_kinesis_source::shard_table::{
    Found, ShardRow, ShardTable, ShardWrite, Sharing, StreamHead,
};
use millpond_kinesis_source::{KinesisSource, Worker};
use millpond_leases::{Change, LeaseStore, Outcome, Settings, StoreError, View, WorkerId};
use millpond_pack::{Packer, Params};
use millpond_sink::contiguity::{Entry, PlainRecord, Unit, units};
use millpond_sink::dedup::{Admitted, Outcome as Admission, Workbench, admit};
use millpond_sink::marks::Marks;
use millpond_sink::origins::Cutoffs;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::support::stream::ModelStream;
use crate::support::topic::MemoryTopic;
use crate::support::{Running, spawn};

/// While closed, nothing that passes it gets on.
#[derive(Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Gate {
    pub fn close(&self) {
        self.0.send_replace(true);
    }

    pub fn open(&self) {
        self.0.send_replace(false);
    }

    pub fn is_closed(&self) -> bool {
        *self.0.borrow()
    }

    async fn pass(&self) {
        let mut state = self.0.subscribe();
        state.wait_for(|is_closed| !is_closed).await.expect("held");
    }
}

/// The topic as one source reaches it: it may be out of reach for this one alone.
struct GatedTopic {
    gates: [Gate; 2],
    inner: Arc<MemoryTopic>,
}

impl GatedTopic {
    async fn pass(&self) {
        for gate in &self.gates {
            gate.pass().await;
        }
    }
}

/// The stream has a gate of its own, too: a connection that is half open.
struct GatedStream {
    gates: [Gate; 2],
    inner: Arc<ModelStream>,
}

impl GatedStream {
    async fn pass(&self) {
        for gate in &self.gates {
            gate.pass().await;
        }
    }
}

#[async_trait]
impl StreamApi for GatedStream {
    fn target(&self) -> &StreamTarget {
        self.inner.target()
    }

    async fn describe(&self) -> Result<StreamSummary, Failure> {
        self.pass().await;
        self.inner.describe().await
    }

    async fn list_shards(
        &self,
        scope: ShardScope,
        next: Option<String>,
    ) -> Result<ShardPage, Failure> {
        self.pass().await;
        self.inner.list_shards(scope, next).await
    }

    async fn shard_iterator(
        &self,
        shard: &ShardId,
        from: &ReadFrom,
    ) -> Result<ShardIterator, Failure> {
        self.pass().await;
        self.inner.shard_iterator(shard, from).await
    }

    async fn read(&self, iterator: &ShardIterator, limit: u32) -> Result<ReadAnswer, Failure> {
        self.pass().await;
        self.inner.read(iterator, limit).await
    }
}

#[async_trait]
impl Topic for GatedTopic {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn partition_count(&self) -> u32 {
        self.inner.partition_count()
    }

    async fn append(
        &self,
        partition: PartitionId,
        batch: StoredBatch,
    ) -> Result<Range<Offset>, TopicError> {
        self.pass().await;
        let stored = self.inner.append(partition, batch).await;
        self.pass().await;
        stored
    }

    async fn reader(
        &self,
        partition: PartitionId,
        from: Offset,
        transforms: &[Transform],
    ) -> Result<Box<dyn PartitionReader>, TopicError> {
        self.inner.reader(partition, from, transforms).await
    }

    async fn bounds(&self, partition: PartitionId) -> Result<OffsetBounds, TopicError> {
        self.inner.bounds(partition).await
    }

    async fn released(&self) -> Result<Vec<Option<Offset>>, TopicError> {
        self.inner.released().await
    }

    async fn release(
        &self,
        partition: PartitionId,
        consumer: &str,
        offset: Offset,
    ) -> Result<(), TopicError> {
        self.inner.release(partition, consumer, offset).await
    }
}

/// Calls wait before and after they take effect.
#[derive(Clone)]
struct GatedTable {
    gate: Gate,
    inner: MemoryTable,
}

#[async_trait]
impl ShardTable for GatedTable {
    async fn load(&self, stream: &str) -> Result<Found, CheckpointError> {
        self.gate.pass().await;
        self.inner.load(stream).await
    }

    async fn begin(&self, head: StreamHead) -> Result<StreamHead, CheckpointError> {
        self.gate.pass().await;
        self.inner.begin(head).await
    }

    async fn save(&self, writes: &[ShardWrite]) -> Result<Vec<ShardId>, CheckpointError> {
        self.gate.pass().await;
        let answer = self.inner.save(writes).await;
        self.gate.pass().await;
        answer
    }

    async fn claim(
        &self,
        shard: &ShardId,
        epoch: u64,
    ) -> Result<Option<ShardRow>, CheckpointError> {
        self.gate.pass().await;
        let answer = self.inner.claim(shard, epoch).await;
        self.gate.pass().await;
        answer
    }

    fn sharing(&self) -> Option<Sharing> {
        Some(Sharing {
            leases: Arc::new(self.clone()),
            ..self.inner.sharing()?
        })
    }
}

#[async_trait]
impl LeaseStore for GatedTable {
    async fn view(&self) -> Result<View, StoreError> {
        self.gate.pass().await;
        let answer = self.inner.view().await;
        self.gate.pass().await;
        answer
    }

    async fn change(&self, change: &Change) -> Result<Outcome, StoreError> {
        self.gate.pass().await;
        let answer = self.inner.change(change).await;
        self.gate.pass().await;
        answer
    }
}

/// One source among several.
pub struct Instance {
    pub id: WorkerId,
    pub running: Running,
    /// Of everything.
    pub gate: Gate,
    /// Of the stream alone.
    pub reads: Gate,
    /// Of the topic alone.
    pub appends: Gate,
}

impl Instance {
    pub fn start(
        id: &str,
        stream: &Arc<ModelStream>,
        config: SourceConfig,
        table: &MemoryTable,
        topic: &Arc<MemoryTopic>,
    ) -> Self {
        let gate = Gate::default();
        let id = WorkerId::new(id);
        let shared = GatedTable {
            gate: gate.clone(),
            inner: table.of(id.clone()),
        };
        let (reads, appends) = (Gate::default(), Gate::default());
        let api = Arc::new(GatedStream {
            gates: [gate.clone(), reads.clone()],
            inner: stream.clone(),
        });
        let worker = Worker {
            id: id.clone(),
            settings: Settings::new(DEFAULT_LEASE_DURATION.get()).expect("in range"),
        };
        let source =
            KinesisSource::shared(api, config, Arc::new(shared), worker).with_clock(stream.clock());
        let context = ConnectorContext {
            name: id.as_str().to_owned(),
            topic: Arc::new(GatedTopic {
                gates: [gate.clone(), appends.clone()],
                inner: topic.clone(),
            }),
            data_dir: "/nonexistent".into(),
            drain: CancellationToken::new(),
            metrics: Arc::new(Metrics::default()),
        };
        Self {
            id,
            running: spawn(Box::new(source), context),
            gate,
            reads,
            appends,
        }
    }
}

/// How many shards each worker holds.
pub fn held(table: &MemoryTable, worker: &WorkerId) -> usize {
    let (_, leases) = table.snapshot();
    let ours = |owner: &&WorkerId| *owner == worker;
    let owners = leases.values().filter_map(|row| row.owner.as_ref());
    owners.filter(ours).count()
}

/// Events in the topic, repetitions once.
pub fn delivered(topic: &MemoryTopic) -> usize {
    let keys = topic.records().into_iter().map(|(_, _, key, _)| key);
    keys.collect::<BTreeSet<_>>().len()
}

/// Runs every batch through what the sink does with repetitions, packed and not. Answers the number of events
/// that are left, which must be each once.
pub fn through_the_sink(topic: &MemoryTopic) -> usize {
    let mut positions = BTreeSet::new();
    let mut packed = 0;
    for partition in 0..topic.partition_count() {
        packed += packed_events(topic, partition);
        let mut marks = Marks::default();
        let mut base = 0;
        for batch in topic.batches(partition) {
            let records = Records::new(&batch.raw).expect("a batch");
            let plain: Vec<PlainRecord> = records
                .zip(base..)
                .map(|(record, offset)| {
                    let record = record.expect("a record");
                    PlainRecord {
                        offset,
                        key: record.key.map(|key| key.to_vec().into()),
                        value: record.value.to_vec().into(),
                    }
                })
                .collect();
            let units: Vec<Unit<'_>> = plain.iter().map(Unit::Plain).collect();
            let outcome = admit(
                &units,
                0,
                &marks,
                true,
                &Cutoffs::new(),
                &mut Workbench::default(),
            );
            let Admission::Admitted(admission) = outcome.expect("no hole") else {
                panic!("a numbering began anew");
            };
            for entry in &admission.entries {
                let Admitted::Plain(_, origin) = entry else {
                    panic!("no origin");
                };
                assert!(positions.insert(position(origin)), "{origin:?} twice");
            }
            marks = admission.marks;
            base += u64::from(batch.record_count);
        }
    }
    assert_eq!(packed, positions.len(), "packed and not");
    positions.len()
}

fn position(origin: &Origin<'_>) -> (String, String, u32) {
    (
        origin.shard.to_owned(),
        origin.sequence.as_str().to_owned(),
        origin.sub_sequence,
    )
}

fn packed_events(topic: &MemoryTopic, partition: PartitionId) -> usize {
    let mut packer = Packer::new(Params::default()).expect("zstd");
    let mut marks = Marks::default();
    let mut base = 0;
    let mut events = 0;
    for batch in topic.batches(partition) {
        let end = base + u64::from(batch.record_count);
        let records = packer.pack(&batch.raw, base, 1).expect("packs");
        let entries: Vec<Entry> = records
            .into_iter()
            .map(|record| {
                let record = ConsumedRecord {
                    offset: None,
                    key: None,
                    value: record.value.into(),
                    timestamp_ms: None,
                };
                Entry::decode(record).expect("an envelope")
            })
            .collect();
        let units = units(&entries, base..end).expect("whole");
        let mut tools = Workbench::default();
        let outcome = admit(&units, 0, &marks, true, &Cutoffs::new(), &mut tools);
        let Admission::Admitted(admission) = outcome.expect("no hole") else {
            panic!("a numbering began anew");
        };
        for entry in &admission.entries {
            let Admitted::Envelope(envelope) = entry else {
                panic!("not packed");
            };
            events += envelope.header.event_count() as usize;
        }
        marks = admission.marks;
        base = end;
    }
    events
}
