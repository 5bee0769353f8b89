//! A stream over the pure model of the stand-in, on the clock of the timers, with faults on demand.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use millpond_kinesis_local::model::{
    self, CreateStream, IteratorStart, Kinesis, KinesisError, ListShardsQuery, ModelConfig,
    NewRecord, ShardFilter,
};
use millpond_kinesis_source::WallClock;
use millpond_kinesis_source::classify::{FailedStep, Failure, Operation};
use millpond_kinesis_source::client::{
    Continuation, ReadAnswer, ReadFrom, ShardIterator, ShardPage, ShardScope, StreamApi,
    StreamRecord, StreamState, StreamSummary, StreamTarget,
};
use millpond_kinesis_source::shard::{HashKeyRange, ShardId, ShardInfo};
use tokio::time::Instant;

const BEGIN_MS: i64 = 1_763_880_000_000;

pub struct ModelStream {
    target: StreamTarget,
    begin: Instant,
    pub model: Mutex<Kinesis>,
    /// What was put, by partition key, in order.
    pub put: Mutex<BTreeMap<String, Vec<Vec<u8>>>>,
    /// Failures to come, for each call.
    pub faults: Mutex<Vec<(Operation, VecDeque<Failure>)>>,
    /// Calls made: what, when.
    pub calls: Mutex<Vec<(Operation, Instant)>>,
    /// The period that it says, where that is not the one after which it removes records.
    pub said_hours: Mutex<Option<u32>>,
    /// Children are not named by the last answer, as an emulator may do.
    pub silent_ends: bool,
    /// So many pages of listings to come leave out the first shard.
    pub stale_pages: AtomicU32,
    /// Told when a test changed the stream.
    pub changed: tokio::sync::Notify,
    /// Failures to come in open subscriptions.
    pub broken_pushes: Mutex<VecDeque<Failure>>,
}

pub fn service(code: &str, status: u16) -> Failure {
    Failure {
        step: FailedStep::Service,
        code: Some(code.to_owned()),
        status: Some(status),
        retry_after: None,
        message: format!("service answered `{code}`"),
    }
}

pub fn unreachable() -> Failure {
    Failure {
        step: FailedStep::Connection,
        code: None,
        status: None,
        retry_after: None,
        message: "endpoint cannot be reached: connection refused".to_owned(),
    }
}

pub fn refused(error: KinesisError) -> Failure {
    Failure {
        message: error.to_string(),
        ..service(error.kind.name(), 400)
    }
}

impl ModelStream {
    pub fn new(shards: u32, config: ModelConfig) -> Arc<Self> {
        Arc::new(Self::bare(shards, config))
    }

    pub fn bare(shards: u32, config: ModelConfig) -> Self {
        let mut create = CreateStream::provisioned(shards);
        create.max_record_kib = Some(10_240);
        let mut model = Kinesis::new(config, 7);
        model
            .create_stream(BEGIN_MS as u64, "events", create)
            .expect("created");
        Self {
            target: StreamTarget {
                stream: "events".to_owned(),
                region: "us-east-1".to_owned(),
                endpoint: None,
            },
            begin: Instant::now(),
            model: Mutex::new(model),
            put: Mutex::default(),
            faults: Mutex::default(),
            calls: Mutex::default(),
            said_hours: Mutex::default(),
            silent_ends: false,
            stale_pages: AtomicU32::new(0),
            changed: tokio::sync::Notify::new(),
            broken_pushes: Mutex::default(),
        }
    }

    pub fn now_ms(&self) -> i64 {
        BEGIN_MS + i64::try_from(self.begin.elapsed().as_millis()).expect("short")
    }

    pub fn clock(self: &Arc<Self>) -> WallClock {
        let stream = self.clone();
        Arc::new(move || stream.now_ms())
    }

    pub fn with_model<T>(
        &self,
        work: impl FnOnce(&mut Kinesis, u64) -> Result<T, KinesisError>,
    ) -> Result<T, KinesisError> {
        let done = self.ask(work);
        self.changed.notify_waiters();
        done
    }

    /// The same for what changes nothing.
    pub fn ask<T>(
        &self,
        work: impl FnOnce(&mut Kinesis, u64) -> Result<T, KinesisError>,
    ) -> Result<T, KinesisError> {
        let mut model = self.model.lock().expect("not poisoned");
        work(&mut model, self.now_ms() as u64)
    }

    /// Puts one event, which must be accepted.
    pub fn put(&self, key: &str, event: Vec<u8>) {
        let record = NewRecord::new(key, None, event.clone()).expect("a record");
        self.with_model(|model, now| model.put_record(now, "events", record, None))
            .expect("accepted");
        let mut put = self.put.lock().expect("not poisoned");
        put.entry(key.to_owned()).or_default().push(event);
    }

    /// Puts `count` small events over 40 keys.
    pub fn put_many(&self, count: usize) {
        let before: usize = self
            .put
            .lock()
            .expect("not poisoned")
            .values()
            .map(Vec::len)
            .sum();
        for n in before..before + count {
            self.put(
                &format!("key-{}", n % 40),
                format!("event {n}").into_bytes(),
            );
        }
    }

    pub fn fail(&self, operation: Operation, failures: Vec<Failure>) {
        let mut faults = self.faults.lock().expect("not poisoned");
        faults.push((operation, failures.into()));
    }

    /// Lets reading fail, asked for or pushed.
    pub fn break_reading(&self, failures: &[Failure]) {
        self.fail(Operation::Read, failures.to_vec());
        let mut broken = self.broken_pushes.lock().expect("not poisoned");
        broken.extend(failures.iter().cloned());
    }

    pub fn count(&self, operation: Operation) -> usize {
        let calls = self.calls.lock().expect("not poisoned");
        calls
            .iter()
            .filter(|(called, _)| *called == operation)
            .count()
    }

    pub fn parents(&self) -> BTreeMap<String, Vec<String>> {
        let query = ListShardsQuery::First {
            stream_name: "events",
            filter: ShardFilter::FromTrimHorizon,
            exclusive_start: None,
        };
        let page = self
            .with_model(|model, now| model.list_shards(now, query, None))
            .expect("listed");
        let shards = page.shards.into_iter();
        shards
            .map(|shard| {
                let info = info(&shard);
                let parents = info.parents.into_iter().map(String::from).collect();
                (String::from(info.id), parents)
            })
            .collect()
    }

    pub fn called(&self, operation: Operation) -> Result<(), Failure> {
        self.calls
            .lock()
            .expect("not poisoned")
            .push((operation, Instant::now()));
        let mut faults = self.faults.lock().expect("not poisoned");
        let due = faults
            .iter_mut()
            .filter(|(failing, _)| *failing == operation)
            .find_map(|(_, failures)| failures.pop_front());
        due.map_or(Ok(()), Err)
    }
}

fn info(shard: &model::ShardDescription) -> ShardInfo {
    let parents = [shard.parent_shard_id, shard.adjacent_parent_shard_id];
    ShardInfo {
        id: shard.shard_id.to_string().into(),
        parents: parents
            .into_iter()
            .flatten()
            .map(|id| ShardId::from(id.to_string()))
            .collect(),
        hash_keys: hash_keys(shard.hash_key_range),
    }
}

pub fn hash_keys(range: model::HashKeyRange) -> Option<HashKeyRange> {
    Some(HashKeyRange {
        first: range.start.0,
        last: range.end.0,
    })
}

pub fn child_info(child: &model::ChildShard) -> ShardInfo {
    let parents = child.parent_shards.iter();
    ShardInfo {
        id: child.shard_id.to_string().into(),
        parents: parents.map(|id| ShardId::from(id.to_string())).collect(),
        hash_keys: hash_keys(child.hash_key_range),
    }
}

pub fn stream_record(record: model::Record<model::Event>) -> StreamRecord {
    StreamRecord {
        sequence: record.sequence_number.to_string(),
        partition_key: record.payload.partition_key,
        arrival_ms: Some(record.arrival_ms as i64),
        data: record.payload.data.to_vec().into(),
    }
}

/// The model's word for a position.
pub fn start(from: &ReadFrom) -> IteratorStart<'_> {
    match from {
        ReadFrom::TrimHorizon => IteratorStart::TrimHorizon,
        ReadFrom::Timestamp(ms) => IteratorStart::AtTimestamp(*ms as u64),
        ReadFrom::At(sequence) => IteratorStart::AtSequenceNumber(sequence),
        ReadFrom::After(sequence) => IteratorStart::AfterSequenceNumber(sequence),
    }
}

#[async_trait]
impl StreamApi for ModelStream {
    fn target(&self) -> &StreamTarget {
        &self.target
    }

    async fn describe(&self) -> Result<StreamSummary, Failure> {
        self.called(Operation::Describe)?;
        let summary = self
            .ask(|model, now| model.describe_stream_summary(now, "events"))
            .map_err(refused)?;
        let said_hours = *self.said_hours.lock().expect("not poisoned");
        let hours = said_hours.unwrap_or(summary.retention_hours);
        Ok(StreamSummary {
            state: match summary.status {
                model::StreamStatus::Creating => StreamState::Creating,
                model::StreamStatus::Deleting => StreamState::Deleting,
                _ => StreamState::Readable,
            },
            created_ms: summary.created_ms as i64,
            retention_ms: i64::from(hours) * 3_600_000,
            server_time_ms: Some(self.now_ms() / 1_000 * 1_000),
        })
    }

    async fn list_shards(
        &self,
        scope: ShardScope,
        next: Option<String>,
    ) -> Result<ShardPage, Failure> {
        self.called(Operation::ListShards)?;
        let query = match &next {
            Some(next_token) => ListShardsQuery::Next { next_token },
            None => ListShardsQuery::First {
                stream_name: "events",
                filter: match scope {
                    ShardScope::All => ShardFilter::FromTrimHorizon,
                    ShardScope::OpenSince(ms) => ShardFilter::FromTimestamp(ms as u64),
                },
                exclusive_start: None,
            },
        };
        // Small pages, so that every test turns some.
        let page = self
            .ask(|model, now| model.list_shards(now, query, Some(3)))
            .map_err(refused)?;
        let less = |left: u32| left.checked_sub(1);
        let stale = &self.stale_pages;
        let is_stale = stale.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        let left_out = usize::from(is_stale.is_ok() && next.is_none());
        Ok(ShardPage {
            shards: page.shards.iter().skip(left_out).map(info).collect(),
            next: page.next_token,
        })
    }

    async fn shard_iterator(
        &self,
        shard: &ShardId,
        from: &ReadFrom,
    ) -> Result<ShardIterator, Failure> {
        self.called(Operation::ShardIterator)?;
        let shard = shard.as_str().parse().expect("a shard id");
        self.ask(|model, now| model.get_shard_iterator(now, "events", shard, start(from)))
            .map(ShardIterator)
            .map_err(refused)
    }

    async fn read(&self, iterator: &ShardIterator, limit: u32) -> Result<ReadAnswer, Failure> {
        self.called(Operation::Read)?;
        let page = self
            .ask(|model, now| model.get_records(now, &iterator.0, Some(limit as usize)))
            .map_err(refused)?;
        let children = page.child_shards.iter().map(child_info);
        Ok(ReadAnswer {
            records: page.records.into_iter().map(stream_record).collect(),
            millis_behind_latest: page.millis_behind_latest as i64,
            continuation: match page.next_shard_iterator {
                Some(next) => Continuation::Next(ShardIterator(next)),
                None if self.silent_ends => Continuation::End(Vec::new()),
                None => Continuation::End(children.collect()),
            },
        })
    }
}
