//! The one place where a failed call is waited for and repeated.

use std::future::Future;
use std::time::Duration;

use millpond_connector::aws::CREDENTIALS_PATIENCE;
use millpond_connector::backoff::{Backoff, BackoffPolicy};
use millpond_connector::random;
use tokio::time::Instant;

use crate::classify::{Failure, Fatal, Operation, Verdict, classify};
use crate::client::StreamTarget;
use crate::error::SourceError;
use crate::shard::ShardId;

/// Waits between two tries of one call. There is no last try: an endpoint that is down is waited for.
const CALLS: BackoffPolicy =
    BackoffPolicy::endless(Duration::from_millis(200), Duration::from_secs(10));

/// Longest wait that a service's own `Retry-After` is believed for.
pub(crate) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

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

/// Whether anything succeeded yet: before that, credentials that are refused or cannot be had are an
/// error of the set-up; afterwards they are an outage of whoever gives them out, and waited for.
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
    /// Since when credentials that worked before do not.
    locked_out: Option<Instant>,
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
            locked_out: None,
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
        self.locked_out = None;
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
            Verdict::Fatal(Fatal::Credentials) if self.may_be_renewed() => Ok(self.retry(failure)),
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

    fn may_be_renewed(&mut self) -> bool {
        let since = *self.locked_out.get_or_insert_with(Instant::now);
        self.phase == Phase::Running && since.elapsed() < CREDENTIALS_PATIENCE
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::FailedStep;

    fn target() -> StreamTarget {
        StreamTarget {
            stream: "events".to_owned(),
            region: "us-east-1".to_owned(),
            endpoint: None,
        }
    }

    /// Every way in which credentials fail.
    fn failures() -> Vec<Failure> {
        let service = |code: &str| Failure {
            step: FailedStep::Service,
            code: Some(code.to_owned()),
            status: Some(400),
            retry_after: None,
            message: code.to_owned(),
        };
        let unavailable = Failure {
            step: FailedStep::Credentials,
            code: None,
            ..service("")
        };
        let codes = [
            "ExpiredTokenException",
            "UnrecognizedClientException",
            "InvalidSignatureException",
        ];
        codes
            .map(service)
            .into_iter()
            .chain([unavailable])
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_that_never_worked_are_an_error_at_once() {
        for failure in failures() {
            let mut retry = Retry::new(Operation::Describe, &target(), Phase::Start);
            let error = retry.failed(&failure).expect_err("fatal").to_string();
            assert!(error.contains("credentials"), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_that_worked_are_waited_for_as_long_as_said() {
        for failure in failures() {
            let mut retry = Retry::new(Operation::Read, &target(), Phase::Running);
            for renewed in [true, false] {
                let begun = Instant::now();
                let error = loop {
                    match retry.failed(&failure) {
                        Ok(Step::Wait { wait, .. }) => tokio::time::sleep(wait).await,
                        Ok(step) => panic!("{step:?}"),
                        Err(error) => break error,
                    }
                    if renewed && begun.elapsed() > CREDENTIALS_PATIENCE / 2 {
                        retry.succeeded();
                        break SourceError::Task("renewed in time".to_owned());
                    }
                };
                let waited = begun.elapsed();
                if renewed {
                    assert!(waited < CREDENTIALS_PATIENCE, "{error}");
                } else {
                    assert!(matches!(error, SourceError::Credentials { .. }), "{error}");
                    assert!(waited >= CREDENTIALS_PATIENCE, "gave up after {waited:?}");
                    assert!(waited < CREDENTIALS_PATIENCE + CALLS.cap * 2);
                }
            }
        }
    }
}
