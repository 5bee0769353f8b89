//! Has the records of one shard pushed: one subscription after the other, each from where the last
//! one was read to. Where it is told to, it polls while subscriptions do not work.
//!
//! What was pushed and not taken waits in the connection, whose windows are bounded: who does not read on
//! makes it stall (I9). What is then lost with the connection is pushed again, since
//! the next subscription begins after the last event that was handed on.

use std::sync::Arc;

use async_trait::async_trait;
use millpond_connector::metrics::Metrics;
use tokio::time::{Instant, timeout};

use crate::classify::{FailedStep, Failure, Fatal, Operation, Verdict, classify};
use crate::client::{ReadFrom, StreamTarget};
use crate::consumer::{Consumer, Registration, is_about_fan_out};
use crate::error::SourceError;
use crate::fan_out::{FallBack, PushedEvent, Subscription};
use crate::feed::{FeedAnswer, ShardFeed};
use crate::limits::{SILENCE_LIMIT, SUBSCRIBE_LIMIT};
use crate::polling::PollingFeed;
use crate::reader::WallClock;
use crate::retry::{Retry, Step};
use crate::shard::{ShardId, ShardInfo};
use crate::subscription_watch::SubscriptionWatch;

/// What an event says beyond its records.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// More may come, after this sequence number.
    GoesOn(String),
    /// The shard is closed and read to its end.
    Ended(Vec<ShardInfo>),
    /// Neither for certain. An end that is none would lose the rest of the shard (I1), so it is
    /// believed only when both signs say so; `GetRecords` decides.
    Doubtful,
}

/// The signs are those that the Kinesis Client Library wants (`FanOutRecordsPublisher` of
/// awslabs/amazon-kinesis-client, read 2026-11-26): exactly one of continuation and children.
fn meaning(event: &mut PushedEvent) -> Meaning {
    let children = std::mem::take(&mut event.children);
    match event.continuation.take() {
        Some(continuation) if children.is_empty() => Meaning::GoesOn(continuation),
        None if !children.is_empty() => Meaning::Ended(children),
        _ => Meaning::Doubtful,
    }
}

/// Answers of `GetRecords` that are asked for when an event was doubtful.
const ASKED_ANSWERS: u32 = 5;

enum Source {
    Closed,
    Subscribed {
        subscription: Box<dyn Subscription>,
        /// With which it was opened.
        consumer: Registration,
        opened_ms: i64,
        is_heard: bool,
    },
    /// For some time, where that is wanted.
    Polling,
    /// For some answers: the end of a shard may come in one of its own, behind empty ones.
    Asking {
        left: u32,
    },
}

/// One shard by `SubscribeToShard`.
pub(crate) struct SubscribedFeed {
    consumer: Arc<Consumer>,
    shard: ShardId,
    clock: WallClock,
    metrics: Arc<Metrics>,
    polling: PollingFeed,
    watch: SubscriptionWatch,
    retry: Retry,
    source: Source,
    /// The position that the last event named: further than its last record.
    continuation: Option<String>,
    /// What came last could not be understood.
    in_doubt: bool,
}

impl SubscribedFeed {
    pub(crate) fn new(
        consumer: Arc<Consumer>,
        target: &StreamTarget,
        shard: ShardId,
        polling: PollingFeed,
        clock: WallClock,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            retry: Retry::for_shard(Operation::Subscribe, target, &shard),
            consumer,
            shard,
            clock,
            metrics,
            polling,
            watch: SubscriptionWatch::default(),
            source: Source::Closed,
            continuation: None,
            in_doubt: false,
        }
    }

    async fn subscribe(&mut self, from: &ReadFrom) -> Result<(), SourceError> {
        while matches!(self.source, Source::Closed) {
            if self.watch.is_polling(now()) {
                self.source = Source::Polling;
                return self.polling.open(from).await;
            }
            tokio::time::sleep_until(self.watch.opens_at(now()).into()).await;
            let position = match &self.continuation {
                Some(sequence) => &ReadFrom::After(sequence.clone()),
                None => from,
            };
            let consumer = self.consumer.registration();
            let opened_ms = (self.clock)();
            let api = self.consumer.fan_out.api.clone();
            let call = api.subscribe(&consumer.arn, &self.shard, position);
            match timeout(SUBSCRIBE_LIMIT, call).await {
                Ok(Ok(subscription)) => {
                    self.watch.opened(now());
                    self.metrics.subscriptions.add(1);
                    self.source = Source::Subscribed {
                        subscription,
                        consumer,
                        opened_ms,
                        is_heard: false,
                    };
                }
                Ok(Err(failure)) => self.failed(&failure, &consumer).await?,
                Err(_) => self.failed(&silence("SubscribeToShard"), &consumer).await?,
            }
        }
        Ok(())
    }

    /// A subscription could not be had, or ended before its time. Waits before the next one.
    async fn failed(
        &mut self,
        failure: &Failure,
        consumer: &Registration,
    ) -> Result<(), SourceError> {
        self.source = Source::Closed;
        self.watch.failed(now());
        let falls_back = self.consumer.fan_out.fall_back == FallBack::Polling;
        let step = match self.step(failure, consumer).await {
            Ok(Some(step)) => step,
            Ok(None) => return Ok(()),
            Err(error) if falls_back && is_about_fan_out(&error) => {
                self.fall_back(&error.to_string());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if falls_back && self.watch.is_hopeless(now()) {
            self.fall_back(&failure.to_string());
            return Ok(());
        }
        let (Step::Wait { wait, .. } | Step::Refresh(wait)) = step;
        if let Step::Wait {
            throttled: true, ..
        } = step
        {
            self.metrics.source_throttles.add(1);
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// What to do before the next try; `None` when the reason was removed.
    async fn step(
        &mut self,
        failure: &Failure,
        consumer: &Registration,
    ) -> Result<Option<Step>, SourceError> {
        match classify(Operation::Subscribe, failure) {
            Verdict::Fatal(Fatal::NotFound) if self.consumer.find_again(consumer).await? => {
                Ok(None)
            }
            // The position is the only argument that can be wrong, and of two the newer one.
            Verdict::Fatal(Fatal::Refused) if self.continuation.take().is_some() => Ok(None),
            _ => self.retry.failed(failure).map(Some),
        }
    }

    fn fall_back(&mut self, error: &str) {
        tracing::warn!(shard = %self.shard, error, "no subscription to the shard: polls it for some minutes");
        self.metrics.source_fallbacks.add(1);
        self.watch.fall_back(now());
    }

    /// The next answer of an open subscription; `None` when there is none any more.
    async fn pushed(&mut self) -> Result<Option<FeedAnswer>, SourceError> {
        let Source::Subscribed {
            subscription,
            consumer,
            opened_ms,
            is_heard,
        } = &mut self.source
        else {
            return Ok(None);
        };
        if now() >= self.watch.renews_at(now()) {
            self.source = Source::Closed;
            return Ok(None);
        }
        let failure = match timeout(SILENCE_LIMIT, subscription.next()).await {
            Ok(Ok(Some(event))) => {
                *is_heard = true;
                let since_ms = *opened_ms;
                self.watch.heard();
                self.retry.succeeded();
                return Ok(self.take_in(event, since_ms));
            }
            // Its time was over; without a single event it was no subscription.
            Ok(Ok(None)) if *is_heard => {
                self.source = Source::Closed;
                return Ok(None);
            }
            Ok(Ok(None)) => Failure {
                message: "the subscription ended without an event".to_owned(),
                step: FailedStep::Connection,
                ..silence("")
            },
            Ok(Err(failure)) => failure,
            Err(_) => silence("the subscription"),
        };
        self.metrics.subscriptions_broken.add(1);
        self.in_doubt = failure.step == FailedStep::Answer;
        let consumer = consumer.clone();
        self.failed(&failure, &consumer).await?;
        Ok(None)
    }

    fn take_in(&mut self, mut event: PushedEvent, since_ms: i64) -> Option<FeedAnswer> {
        let mut end = None;
        match meaning(&mut event) {
            Meaning::GoesOn(continuation) => self.continuation = Some(continuation),
            Meaning::Ended(children) => end = Some(children),
            Meaning::Doubtful => {
                self.in_doubt = true;
                self.continuation = None;
                self.source = Source::Closed;
            }
        }
        if self.in_doubt && event.records.is_empty() {
            return None;
        }
        Some(FeedAnswer {
            caught_up: event.millis_behind_latest <= 0 && !self.in_doubt,
            records: event.records,
            // Events may have waited in the connection: all that is certain is that they were made
            // after it was opened.
            since_ms,
            millis_behind_latest: match self.in_doubt {
                true => i64::MAX,
                false => event.millis_behind_latest,
            },
            end,
        })
    }
}

#[async_trait]
impl ShardFeed for SubscribedFeed {
    fn is_open(&self) -> bool {
        !matches!(self.source, Source::Closed)
    }

    async fn open(&mut self, from: &ReadFrom) -> Result<(), SourceError> {
        if std::mem::take(&mut self.in_doubt) {
            self.continuation = None;
            self.polling.open(from).await?;
            self.source = Source::Asking {
                left: ASKED_ANSWERS,
            };
            return Ok(());
        }
        self.subscribe(from).await
    }

    async fn next(&mut self) -> Result<Option<FeedAnswer>, SourceError> {
        match self.source {
            Source::Closed => Ok(None),
            Source::Subscribed { .. } => self.pushed().await,
            Source::Asking { left } => {
                let answer = self.polling.next().await?;
                self.source = Source::Asking { left: left - 1 };
                if left <= 1 || !self.polling.is_open() {
                    self.polling.close();
                    self.source = Source::Closed;
                }
                Ok(answer)
            }
            Source::Polling => {
                if !self.watch.is_polling(now()) {
                    self.polling.close();
                    self.source = Source::Closed;
                    return Ok(None);
                }
                let answer = self.polling.next().await?;
                if answer.is_none() {
                    self.source = Source::Closed;
                }
                // The position is known by its last record again.
                self.continuation = None;
                Ok(answer)
            }
        }
    }

    async fn is_kept(&mut self, position: &str) -> Result<bool, SourceError> {
        self.polling.is_kept(position).await
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

fn silence(of: &str) -> Failure {
    Failure {
        step: FailedStep::Timeout,
        code: None,
        status: None,
        retry_after: None,
        message: format!("{of} is silent"),
    }
}

#[cfg(test)]
#[path = "subscribing_tests.rs"]
mod tests;
