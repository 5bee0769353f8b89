//! The stream: the pure model of `millpond-kinesis-local` behind the trait of the source.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use millpond_kinesis_local::model::{
    self, IteratorStart, Kinesis, KinesisError, ListShardsQuery, ShardFilter,
};
use millpond_kinesis_source::classify::{FailedStep, Failure};
use millpond_kinesis_source::client::{
    Continuation, ReadAnswer, ReadFrom, ShardIterator, ShardPage, ShardScope, StreamApi,
    StreamRecord, StreamState, StreamSummary, StreamTarget,
};
use millpond_kinesis_source::shard::{HashKeyRange, ShardId, ShardInfo};

use crate::oracle::ShardTruth;
use crate::process::Process;
use crate::scenario::Fault;
use crate::world::{NAME, lock};

/// Shards in one page: few, so that pages are turned.
const PAGE: usize = 3;

/// What a throttled call is answered.
const THROTTLES: [&str; 6] = [
    "ProvisionedThroughputExceededException",
    "LimitExceededException",
    "KMSThrottlingException",
    "ThrottlingException",
    "RequestLimitExceeded",
    "SlowDown",
];

/// What a call is answered that may succeed later.
const PASSING: [(FailedStep, Option<&str>); 5] = [
    (FailedStep::Connection, None),
    (FailedStep::Timeout, None),
    (FailedStep::Service, Some("InternalFailure")),
    (FailedStep::Service, Some("ServiceUnavailable")),
    (FailedStep::Service, Some("ExpiredTokenException")),
];

/// The stream as one process reads it.
pub struct FakeStream {
    target: StreamTarget,
    process: Arc<Process>,
    /// Bytes handed to the process.
    pub handed: Arc<AtomicU64>,
    /// Bytes of the largest answer.
    pub largest: Arc<AtomicU64>,
}

impl FakeStream {
    /// The stream for a process.
    #[must_use]
    pub fn new(process: Arc<Process>) -> Self {
        Self {
            target: StreamTarget {
                stream: NAME.to_owned(),
                region: "us-east-1".to_owned(),
                endpoint: None,
            },
            process,
            handed: Arc::default(),
            largest: Arc::default(),
        }
    }

    /// The way there: the call may end on it.
    async fn there(&self, expires: Option<&'static str>) -> Result<(), Failure> {
        self.process.step().await;
        let dice = &self.process.world.dice;
        if self.process.fault(Fault::Throttle) {
            let mut failure = service(dice.pick("stream throttle", &THROTTLES));
            if dice.chance("retry after", 300) {
                failure.retry_after = Some(Duration::from_millis(dice.between("after", 100, 900)));
            }
            return Err(failure);
        }
        if self.process.fault(Fault::Unreachable) {
            return Err(self.passing());
        }
        match expires {
            Some(code) if self.process.fault(Fault::Expired) => Err(service(code)),
            _ => Ok(()),
        }
    }

    /// The way back: the answer may be lost on it.
    async fn back<T>(&self, answer: T) -> Result<T, Failure> {
        self.process.step().await;
        match self.process.fault(Fault::LostAnswer) {
            true => Err(self.passing()),
            false => Ok(answer),
        }
    }

    fn passing(&self) -> Failure {
        let (step, code) = self.process.world.dice.pick("stream failure", &PASSING);
        match code {
            Some(code) => service(code),
            None => Failure {
                step,
                code: None,
                status: None,
                retry_after: None,
                message: "no answer".to_owned(),
            },
        }
    }

    fn ask<T>(
        &self,
        work: impl FnOnce(&mut Kinesis, u64) -> Result<T, KinesisError>,
    ) -> Result<T, Failure> {
        let answer = self.process.world.with_stream(work);
        answer.map_err(|error| Failure {
            message: error.to_string(),
            ..service(error.kind.name())
        })
    }
}

fn service(code: &str) -> Failure {
    Failure {
        step: FailedStep::Service,
        code: Some(code.to_owned()),
        status: Some(400),
        retry_after: None,
        message: format!("service answered `{code}`"),
    }
}

#[async_trait]
impl StreamApi for FakeStream {
    fn target(&self) -> &StreamTarget {
        &self.target
    }

    async fn describe(&self) -> Result<StreamSummary, Failure> {
        self.there(None).await?;
        let summary = self.ask(|model, now| model.describe_stream_summary(now, NAME))?;
        let now_ms = self.process.world.now_ms();
        self.back(StreamSummary {
            state: match summary.status {
                model::StreamStatus::Creating => StreamState::Creating,
                model::StreamStatus::Deleting => StreamState::Deleting,
                _ => StreamState::Readable,
            },
            created_ms: summary.created_ms as i64,
            retention_ms: i64::from(summary.retention_hours) * 3_600_000,
            server_time_ms: Some(now_ms / 1_000 * 1_000),
        })
        .await
    }

    async fn list_shards(
        &self,
        scope: ShardScope,
        next: Option<String>,
    ) -> Result<ShardPage, Failure> {
        let expires = next.as_ref().map(|_| "ExpiredNextTokenException");
        self.there(expires).await?;
        let before = lock(&self.process.world.shards_before).clone();
        if next.is_none() && !before.is_empty() && self.process.fault(Fault::StaleListing) {
            return self
                .back(ShardPage {
                    shards: before.iter().map(info).collect(),
                    next: None,
                })
                .await;
        }
        let page = self.ask(|model, now| {
            let query = match &next {
                Some(next_token) => ListShardsQuery::Next { next_token },
                None => ListShardsQuery::First {
                    stream_name: NAME,
                    filter: match scope {
                        ShardScope::All => ShardFilter::FromTrimHorizon,
                        ShardScope::OpenSince(ms) => ShardFilter::FromTimestamp(ms as u64),
                    },
                    exclusive_start: None,
                },
            };
            model.list_shards(now, query, Some(PAGE))
        })?;
        self.back(ShardPage {
            shards: page.shards.iter().map(info).collect(),
            next: page.next_token,
        })
        .await
    }

    async fn shard_iterator(
        &self,
        shard: &ShardId,
        from: &ReadFrom,
    ) -> Result<ShardIterator, Failure> {
        self.there(None).await?;
        let Ok(id) = shard.as_str().parse() else {
            return Err(service("InvalidArgumentException"));
        };
        let start = match from {
            ReadFrom::TrimHorizon => IteratorStart::TrimHorizon,
            ReadFrom::Timestamp(ms) => IteratorStart::AtTimestamp(*ms as u64),
            ReadFrom::At(sequence) => IteratorStart::AtSequenceNumber(sequence),
            ReadFrom::After(sequence) => IteratorStart::AfterSequenceNumber(sequence),
        };
        let iterator = self.ask(|model, now| model.get_shard_iterator(now, NAME, id, start))?;
        self.back(ShardIterator(iterator)).await
    }

    async fn read(&self, iterator: &ShardIterator, limit: u32) -> Result<ReadAnswer, Failure> {
        self.there(Some("ExpiredIteratorException")).await?;
        let mut limit = limit as usize;
        if self.process.fault(Fault::ShortAnswer) {
            limit = self.process.world.dice.below("short answer", 4) as usize;
        }
        if limit == 0 {
            // No records, and yet not the end: the iterator stays where it is.
            return self
                .back(ReadAnswer {
                    records: Vec::new(),
                    millis_behind_latest: 1_000,
                    continuation: Continuation::Next(iterator.clone()),
                })
                .await;
        }
        let page = self.ask(|model, now| model.get_records(now, &iterator.0, Some(limit)))?;
        let silent = page.next_shard_iterator.is_none() && self.process.fault(Fault::SilentEnd);
        let children = page.child_shards.iter().map(|child| ShardInfo {
            id: child.shard_id.to_string().into(),
            parents: child
                .parent_shards
                .iter()
                .map(|id| ShardId::from(id.to_string()))
                .collect(),
            hash_keys: hash_keys(child.hash_key_range),
        });
        let children = if silent {
            Vec::new()
        } else {
            children.collect()
        };
        let records: Vec<StreamRecord> = page
            .records
            .into_iter()
            .map(|record| StreamRecord {
                sequence: record.sequence_number.to_string(),
                partition_key: record.payload.partition_key,
                arrival_ms: Some(record.arrival_ms as i64),
                data: record.payload.data.to_vec().into(),
            })
            .collect();
        let bytes = |record: &StreamRecord| record.data.as_ref().len() as u64;
        let bytes: u64 = records.iter().map(bytes).sum();
        let answer = self
            .back(ReadAnswer {
                records,
                millis_behind_latest: page.millis_behind_latest as i64,
                continuation: match page.next_shard_iterator {
                    Some(next) => Continuation::Next(ShardIterator(next)),
                    None => Continuation::End(children),
                },
            })
            .await?;
        self.handed.fetch_add(bytes, Ordering::Relaxed);
        self.largest.fetch_max(bytes, Ordering::Relaxed);
        if !answer.records.is_empty() {
            let (name, count) = (&self.process.name, answer.records.len());
            let last = answer.records.last().map_or("", |record| &record.sequence);
            self.process
                .world
                .note(format!("{name} reads {count} records to {last}"));
        }
        Ok(answer)
    }
}

fn info(shard: &model::ShardDescription) -> ShardInfo {
    ShardInfo {
        id: shard.shard_id.to_string().into(),
        parents: parents(shard).map(ShardId::from).collect(),
        hash_keys: hash_keys(shard.hash_key_range),
    }
}

fn parents(shard: &model::ShardDescription) -> impl Iterator<Item = String> {
    let parents = [shard.parent_shard_id, shard.adjacent_parent_shard_id];
    parents.into_iter().flatten().map(|id| id.to_string())
}

fn hash_keys(range: model::HashKeyRange) -> Option<HashKeyRange> {
    Some(HashKeyRange {
        first: range.start.0,
        last: range.end.0,
    })
}

/// Every shard of the stream.
#[must_use]
pub fn descriptions(model: &mut Kinesis, now_ms: u64) -> Vec<model::ShardDescription> {
    let query = ListShardsQuery::First {
        stream_name: NAME,
        filter: ShardFilter::FromTrimHorizon,
        exclusive_start: None,
    };
    model
        .list_shards(now_ms, query, None)
        .map_or(Vec::new(), |page| page.shards)
}

/// Every shard of the stream, for the oracle.
#[must_use]
pub fn shards(model: &mut Kinesis, now_ms: u64) -> Vec<ShardTruth> {
    let listed = descriptions(model, now_ms);
    let truth = listed.into_iter().map(|shard| ShardTruth {
        id: shard.shard_id.to_string(),
        parents: parents(&shard).collect(),
        closed: shard.ending_sequence_number.is_some(),
    });
    truth.collect()
}
