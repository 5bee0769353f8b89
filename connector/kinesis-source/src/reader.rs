//! Reads one shard: one answer in flight, one waiting to be taken in.

use std::sync::Arc;
use std::time::Instant;

use millpond_connector::metrics::Metrics;
use millpond_connector::mutation::{self, Mutation};
use tokio::sync::{mpsc, oneshot};
use tracing::{Instrument as _, debug_span};

use crate::classify::Operation;
use crate::client::{Continuation, ReadAnswer, ReadFrom, ShardIterator, StreamApi, StreamRecord};
use crate::delivery::{AnswerEnd, ShardIndex};
use crate::error::SourceError;
use crate::pacing::{AnswerSize, Pace, Pacer};
use crate::retry::{Retry, Step};
use crate::shard::{ShardId, ShardInfo};

/// Milliseconds since the Unix epoch, as the source sees them.
pub type WallClock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What a reader tells the source.
pub(crate) enum FromReader {
    /// The first record of a shard that nothing was read of before: to be remembered
    /// durably before anything is sent, so that a restart begins with the same record.
    First {
        shard: ShardIndex,
        sequence: String,
        arrival_ms: Option<i64>,
        remembered: oneshot::Sender<()>,
    },
    /// An answer.
    Answer {
        shard: ShardIndex,
        records: Vec<StreamRecord>,
        end: AnswerEnd,
        children: Vec<ShardInfo>,
    },
}

/// Reads one shard to its end.
pub(crate) struct ShardReader {
    pub(crate) api: Arc<dyn StreamApi>,
    pub(crate) shard: ShardId,
    pub(crate) index: ShardIndex,
    /// Where to begin.
    pub(crate) from: ReadFrom,
    /// Nothing was read of this shard before.
    pub(crate) unpinned: bool,
    /// Every unread record arrived at this time or later.
    pub(crate) unread_since_ms: Option<i64>,
    /// How long the stream keeps records.
    pub(crate) retention_ms: i64,
    pub(crate) pace: Pace,
    pub(crate) clock: WallClock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) out: mpsc::Sender<FromReader>,
}

impl ShardReader {
    /// Ends with `Ok` at the shard's end, or when nobody listens any more.
    pub(crate) async fn run(mut self) -> Result<(), SourceError> {
        let mut pacer = Pacer::new(self.pace);
        let mut retry = Retry::for_shard(Operation::Read, self.api.target(), &self.shard);
        let mut iterator = None;
        loop {
            let current = match iterator.take() {
                Some(current) => current,
                None => self.open().await?,
            };
            tokio::time::sleep_until(pacer.next_read(now()).into()).await;
            let began = now();
            let began_ms = (self.clock)();
            let read = self.api.read(&current, pacer.limit());
            match read
                .instrument(debug_span!("read", shard = %self.shard))
                .await
            {
                Ok(answer) => {
                    retry.succeeded();
                    pacer.answered(began, size(&answer));
                    match self.hand_over(answer, began_ms).await? {
                        Some(next) => iterator = Some(next),
                        None => return Ok(()),
                    }
                }
                Err(failure) => match retry.failed(&failure)? {
                    Step::Wait { wait, throttled } => {
                        if throttled {
                            self.metrics.source_throttles.add(1);
                        }
                        pacer.failed(began, now(), wait);
                        iterator = Some(current);
                    }
                    Step::Refresh(wait) => {
                        pacer.failed(began, now(), wait);
                        if mutation::is(Mutation::ExpiredIteratorRewinds) {
                            self.from = ReadFrom::TrimHorizon;
                        }
                    }
                },
            }
        }
    }

    /// Takes a new iterator at the position reached.
    async fn open(&self) -> Result<ShardIterator, SourceError> {
        self.check_age()?;
        let target = self.api.target();
        let mut retry = Retry::for_shard(Operation::ShardIterator, target, &self.shard);
        loop {
            let call = || self.api.shard_iterator(&self.shard, &self.from);
            if let Some(iterator) = retry.call(call).await? {
                return Ok(iterator);
            }
        }
    }

    /// Where unread records may be older than the stream keeps them, some may be lost. Kinesis
    /// itself does not say so: it reads on at the oldest record kept.
    fn check_age(&self) -> Result<(), SourceError> {
        let Some(unread_since_ms) = self.unread_since_ms else {
            return Ok(());
        };
        let age_ms = (self.clock)().saturating_sub(unread_since_ms);
        if age_ms <= self.retention_ms {
            return Ok(());
        }
        Err(self.too_old(format!(
            "everything before {unread_since_ms} ms since 1970 was read, which is {} h ago",
            age_ms / 3_600_000
        )))
    }

    fn too_old(&self, reason: String) -> SourceError {
        SourceError::TooOld {
            shard: self.shard.clone(),
            target: Box::new(self.api.target().clone()),
            retention_hours: self.retention_ms / 3_600_000,
            reason,
        }
    }

    /// Gives an answer to the source, and waits until there is room for it.
    /// Answers the iterator to go on with.
    async fn hand_over(
        &mut self,
        answer: ReadAnswer,
        began_ms: i64,
    ) -> Result<Option<ShardIterator>, SourceError> {
        let ReadAnswer {
            records,
            millis_behind_latest,
            continuation,
        } = answer;
        if let Some(first) = records.first() {
            if let ReadFrom::At(wanted) = &self.from
                && *wanted != first.sequence
            {
                return Err(self.too_old(format!(
                    "record `{wanted}` should be next, and `{}` was answered",
                    first.sequence
                )));
            }
            if self.unpinned && !self.remember_first(first).await {
                return Ok(None);
            }
        }
        if let Some(last) = records.last() {
            self.from = ReadFrom::After(last.sequence.clone());
            self.unread_since_ms = self.unread_since_ms.max(last.arrival_ms);
        }
        let caught_up = millis_behind_latest <= 0;
        if caught_up {
            self.unread_since_ms = self.unread_since_ms.max(Some(began_ms));
        }
        let (next, children) = match continuation {
            Continuation::Next(next) => (Some(next), Vec::new()),
            Continuation::End(children) => (None, children),
        };
        let message = FromReader::Answer {
            shard: self.index,
            records,
            end: AnswerEnd {
                unread_since_ms: self.unread_since_ms,
                caught_up,
                closed: next.is_none(),
            },
            children,
        };
        let heard = self.out.send(message).await.is_ok();
        Ok(next.filter(|_| heard))
    }

    async fn remember_first(&mut self, first: &StreamRecord) -> bool {
        let (remembered, done) = oneshot::channel();
        let message = FromReader::First {
            shard: self.index,
            sequence: first.sequence.clone(),
            arrival_ms: first.arrival_ms,
            remembered,
        };
        self.unpinned = false;
        self.out.send(message).await.is_ok() && done.await.is_ok()
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
