//! Asks for the records of one shard, at its pace: one call at a time.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use millpond_connector::metrics::Metrics;
use millpond_connector::random;
use millpond_format::sequence::SequenceNumber;

use crate::classify::Operation;
use crate::client::{Continuation, ReadAnswer, ReadFrom, ShardIterator, StreamApi, StreamRecord};
use crate::error::SourceError;
use crate::feed::{FeedAnswer, ShardFeed};
use crate::pacing::{AnswerSize, Pace, Pacer};
use crate::progress::Rest;
use crate::reader::WallClock;
use crate::retry::{LONGEST_RETRY_AFTER, Retry, Step};
use crate::shard::ShardId;

/// One shard by `GetShardIterator` and `GetRecords`.
pub(crate) struct PollingFeed {
    api: Arc<dyn StreamApi>,
    shard: ShardId,
    clock: WallClock,
    metrics: Arc<Metrics>,
    pacer: Pacer,
    rest: Rest,
    retry: Retry,
    iterator: Option<ShardIterator>,
}

impl PollingFeed {
    pub(crate) fn new(
        api: Arc<dyn StreamApi>,
        shard: ShardId,
        pace: Pace,
        rest: Rest,
        clock: WallClock,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            pacer: Pacer::new(pace),
            rest,
            retry: Retry::for_shard(Operation::Read, api.target(), &shard),
            api,
            shard,
            clock,
            metrics,
            iterator: None,
        }
    }

    /// Forgets where it is.
    pub(crate) fn close(&mut self) {
        self.iterator = None;
    }

    fn take_in(&mut self, answer: ReadAnswer, since_ms: i64) -> FeedAnswer {
        let end = match answer.continuation {
            Continuation::Next(next) => {
                self.iterator = Some(next);
                None
            }
            Continuation::End(children) => Some(children),
        };
        FeedAnswer {
            records: answer.records,
            caught_up: answer.millis_behind_latest <= 0,
            since_ms,
            millis_behind_latest: answer.millis_behind_latest,
            end,
        }
    }
}

#[async_trait]
impl ShardFeed for PollingFeed {
    fn is_open(&self) -> bool {
        self.iterator.is_some()
    }

    async fn open(&mut self, from: &ReadFrom) -> Result<(), SourceError> {
        let mut retry = Retry::for_shard(Operation::ShardIterator, self.api.target(), &self.shard);
        while self.iterator.is_none() {
            let call = || self.api.shard_iterator(&self.shard, from);
            self.iterator = retry.call(call).await?;
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<FeedAnswer>, SourceError> {
        while let Some(current) = self.iterator.clone() {
            self.rest.until(self.pacer.rests_until());
            tokio::time::sleep_until(self.pacer.next_read(now()).into()).await;
            let began = now();
            let began_ms = (self.clock)();
            match self.api.read(&current, self.pacer.limit()).await {
                Ok(answer) => {
                    self.retry.succeeded();
                    self.metrics.source_reads.add(1);
                    self.pacer.answered(began, size(&answer));
                    self.iterator = None;
                    return Ok(Some(self.take_in(answer, began_ms)));
                }
                Err(failure) => match self.retry.failed(&failure)? {
                    Step::Wait { wait, throttled } => {
                        if throttled {
                            self.metrics.source_throttles.add(1);
                            let asked = failure.retry_after.unwrap_or_default();
                            let asked = asked.min(LONGEST_RETRY_AFTER);
                            self.pacer.throttled(now(), asked, random::unit());
                        } else {
                            self.pacer.failed(began, now(), wait);
                        }
                    }
                    Step::Refresh(wait) => {
                        self.metrics.source_iterators_refreshed.add(1);
                        self.pacer.failed(began, now(), wait);
                        self.iterator = None;
                    }
                },
            }
        }
        Ok(None)
    }

    async fn is_kept(&mut self, position: &str) -> Result<bool, SourceError> {
        let wanted = SequenceNumber::parse(position);
        let from = ReadFrom::At(position.to_owned());
        let target = self.api.target();
        let mut opens = Retry::for_shard(Operation::ShardIterator, target, &self.shard);
        let mut reads = Retry::for_shard(Operation::Read, target, &self.shard);
        let mut iterator = None;
        loop {
            let Some(current) = iterator.clone() else {
                let call = || self.api.shard_iterator(&self.shard, &from);
                iterator = opens.call(call).await?;
                continue;
            };
            tokio::time::sleep_until(self.pacer.next_look(now()).into()).await;
            let began = now();
            let call = || self.api.read(&current, 1);
            let Some(answer) = reads.call(call).await? else {
                iterator = None;
                continue;
            };
            self.metrics.source_reads.add(1);
            self.pacer.looked(began, size(&answer).bytes);
            if let Some(first) = answer.records.first() {
                return Ok(SequenceNumber::parse(&first.sequence) <= wanted);
            }
            // An empty answer says nothing as long as there is something behind it.
            match answer.continuation {
                Continuation::Next(next) if answer.millis_behind_latest > 0 => {
                    iterator = Some(next);
                }
                Continuation::Next(_) | Continuation::End(_) => return Ok(false),
            }
        }
    }
}

/// The clock of timers, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn size(answer: &ReadAnswer) -> AnswerSize {
    let bytes = |record: &StreamRecord| record.data.as_ref().len() + record.partition_key.len();
    AnswerSize {
        records: u32::try_from(answer.records.len()).unwrap_or(u32::MAX),
        bytes: answer
            .records
            .iter()
            .map(|record| bytes(record) as u64)
            .sum(),
        caught_up: answer.millis_behind_latest <= 0,
    }
}
