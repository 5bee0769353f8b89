//! The one place where a failed call is waited for and repeated.

use std::future::Future;
use std::time::Duration;

use millpond_connector::backoff::{Backoff, BackoffPolicy};
use millpond_connector::random;

use crate::classify::{FailedStep, Failure, Operation, Verdict, classify};
use crate::client::StreamTarget;
use crate::error::SourceError;
use crate::shard::ShardId;

/// Waits between two tries of one call. There is no last try: an endpoint that is down is waited for.
const CALLS: BackoffPolicy =
    BackoffPolicy::endless(Duration::from_millis(200), Duration::from_secs(10));

/// Longest wait that a service's own `Retry-After` is believed for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Consecutive refreshes after which the next one waits as a failure does.
const FREE_REFRESHES: u32 = 2;

/// What to do before the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Wait this long. `throttled`: because too much was asked for.
    Wait { wait: Duration, throttled: bool },
    /// Take a new iterator or page token, after this wait.
    Refresh(Duration),
}

/// Whether anything succeeded yet: before that, credentials that cannot be had are an error of
/// the set-up; afterwards they are an outage of whoever gives them out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Start,
    Running,
}

/// The failures of one kind of call since its last success.
#[derive(Debug)]
pub(crate) struct Retry {
    operation: Operation,
    shard: Option<ShardId>,
    target: StreamTarget,
    phase: Phase,
    backoff: Backoff,
    refreshes: u32,
}

impl Retry {
    pub(crate) fn new(operation: Operation, target: &StreamTarget, phase: Phase) -> Self {
        Self {
            operation,
            shard: None,
            target: target.clone(),
            phase,
            backoff: Backoff::new(CALLS),
            refreshes: 0,
        }
    }

    pub(crate) fn for_shard(operation: Operation, target: &StreamTarget, shard: &ShardId) -> Self {
        Self {
            shard: Some(shard.clone()),
            ..Self::new(operation, target, Phase::Running)
        }
    }

    pub(crate) fn succeeded(&mut self) {
        if self.backoff.attempts() > 0 {
            tracing::debug!(
                operation = self.operation.name(),
                shard = self.shard.as_ref().map(ShardId::as_str),
                "call succeeded again"
            );
        }
        self.backoff.reset();
        self.refreshes = 0;
    }

    pub(crate) fn failed(&mut self, failure: &Failure) -> Result<Step, SourceError> {
        let verdict = classify(self.operation, failure);
        match verdict {
            Verdict::Throttled(asked) => {
                let asked = asked.unwrap_or_default().min(LONGEST_RETRY_AFTER);
                let wait = self.wait().max(asked);
                tracing::debug!(
                    operation = self.operation.name(),
                    shard = self.shard.as_ref().map(ShardId::as_str),
                    wait_ms = wait.as_millis() as u64,
                    "throttled"
                );
                Ok(Step::Wait {
                    wait,
                    throttled: true,
                })
            }
            Verdict::Retry => Ok(self.retry(failure)),
            Verdict::Fatal(_)
                if failure.step == FailedStep::Credentials && self.phase == Phase::Running =>
            {
                Ok(self.retry(failure))
            }
            Verdict::Refresh => {
                self.refreshes += 1;
                let wait = if self.refreshes > FREE_REFRESHES {
                    self.wait()
                } else {
                    Duration::ZERO
                };
                tracing::debug!(
                    operation = self.operation.name(),
                    shard = self.shard.as_ref().map(ShardId::as_str),
                    code = failure.code.as_deref(),
                    "iterator or page token refreshed"
                );
                Ok(Step::Refresh(wait))
            }
            Verdict::Fatal(fatal) => Err(SourceError::from_failure(
                fatal,
                self.operation,
                self.shard.as_ref(),
                &self.target,
                failure,
            )),
        }
    }

    fn retry(&mut self, failure: &Failure) -> Step {
        let wait = self.wait();
        tracing::warn!(
            operation = self.operation.name(),
            stream = self.target.stream,
            region = self.target.region,
            endpoint = self.target.endpoint.as_deref(),
            shard = self.shard.as_ref().map(ShardId::as_str),
            attempt = self.backoff.attempts(),
            wait_ms = wait.as_millis() as u64,
            error = %failure,
            "call failed, it will be repeated"
        );
        Step::Wait {
            wait,
            throttled: false,
        }
    }

    fn wait(&mut self) -> Duration {
        self.backoff.next_wait(random::unit()).unwrap_or(CALLS.cap)
    }

    /// Repeats a call until it succeeds or cannot.
    ///
    /// A refresh is left to the caller: `Ok(None)`.
    pub(crate) async fn call<T, F>(
        &mut self,
        mut call: impl FnMut() -> F,
    ) -> Result<Option<T>, SourceError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        loop {
            let failure = match call().await {
                Ok(answer) => {
                    self.succeeded();
                    return Ok(Some(answer));
                }
                Err(failure) => failure,
            };
            match self.failed(&failure)? {
                Step::Wait { wait, .. } => tokio::time::sleep(wait).await,
                Step::Refresh(wait) => {
                    tokio::time::sleep(wait).await;
                    return Ok(None);
                }
            }
        }
    }
}
