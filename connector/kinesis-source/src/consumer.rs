//! The consumer of fan-out: registered, found again when it was removed, and removed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::classify::{Fatal, Operation, Verdict, classify};
use crate::client::StreamTarget;
use crate::error::SourceError;
use crate::fan_out::{ConsumerInfo, ConsumerState, FallBack, FanOut};
use crate::limits::{CONSUMER_ACTIVE_WITHIN, CONSUMER_POLL, LEAVE_LIMIT, REGISTER_PATIENCE};
use crate::retry::{Phase, Retry, Step};

/// A registration of the consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registration {
    /// The ARN to subscribe with.
    pub(crate) arn: String,
    /// How many there were before it: two within one second have the same ARN.
    number: u64,
}

/// A consumer that is registered and active.
pub(crate) struct Consumer {
    pub(crate) fan_out: FanOut,
    target: StreamTarget,
    registration: Mutex<Registration>,
    /// One task at a time looks after it.
    looking: tokio::sync::Mutex<()>,
}

impl Consumer {
    /// Registers the consumer, or finds it, and waits until it is active. `None` when it cannot be had
    /// and shards are to be polled then.
    pub(crate) async fn register(
        fan_out: FanOut,
        target: &StreamTarget,
    ) -> Result<Option<Self>, SourceError> {
        let falls_back = fan_out.fall_back == FallBack::Polling;
        match registered(&fan_out, target, Phase::Start).await {
            Ok((arn, _)) => {
                tracing::info!(stream = %target.stream, consumer = arn, "reads by fan-out");
                Ok(Some(Self {
                    fan_out,
                    target: target.clone(),
                    registration: Mutex::new(Registration { arn, number: 0 }),
                    looking: tokio::sync::Mutex::default(),
                }))
            }
            Err(error) if falls_back && is_about_fan_out(&error) => {
                tracing::warn!(%error, "no fan-out until the next start: reads by polling");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The registration to subscribe with.
    pub(crate) fn registration(&self) -> Registration {
        let registration = self.registration.lock();
        registration.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Somebody was told that there is no such consumer as `unknown`: looks, and registers it again if it
    /// was removed. False when it is there, so that something else is missing.
    pub(crate) async fn find_again(&self, unknown: &Registration) -> Result<bool, SourceError> {
        let _looking = self.looking.lock().await;
        let known = self.registration();
        if known != *unknown {
            return Ok(true);
        }
        let (found, is_new) = registered(&self.fan_out, &self.target, Phase::Running).await?;
        if !is_new && found == unknown.arn {
            return Ok(false);
        }
        tracing::warn!(
            consumer = found,
            "the consumer was removed by somebody, and is registered again"
        );
        let mut registration = self
            .registration
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *registration = Registration {
            arn: found,
            number: known.number + 1,
        };
        Ok(true)
    }

    /// Removes the consumer if that is wanted. What fails is said: the source has done its work.
    pub(crate) async fn leave(&self) {
        if !self.fan_out.removes_consumer {
            return;
        }
        let arn = self.registration().arn;
        let call = self.fan_out.api.deregister_consumer(&arn);
        let error = match tokio::time::timeout(LEAVE_LIMIT, call).await {
            Ok(Ok(())) => {
                tracing::info!(consumer = arn, "consumer removed");
                return;
            }
            Ok(Err(failure)) => failure.to_string(),
            Err(_) => format!("no answer within {} s", LEAVE_LIMIT.as_secs()),
        };
        tracing::warn!(
            consumer = arn,
            error,
            "the consumer was not removed and goes on to cost: remove it with `aws kinesis deregister-stream-consumer`"
        );
    }
}

/// True for what another way of reading gets around.
pub(crate) fn is_about_fan_out(error: &SourceError) -> bool {
    match error {
        SourceError::ConsumerLimit { .. } => true,
        SourceError::Permission { operation, .. } | SourceError::Refused { operation, .. } => {
            operation.is_fan_out()
        }
        _ => false,
    }
}

/// What is to be done about the consumer as it is.
#[derive(Debug, PartialEq, Eq)]
enum Act {
    Use(String),
    Wait,
    Register,
}

fn act(consumer: Option<ConsumerInfo>) -> Act {
    match consumer {
        None => Act::Register,
        Some(ConsumerInfo { arn, state }) => match state {
            ConsumerState::Active => Act::Use(arn),
            ConsumerState::Creating | ConsumerState::Deleting => Act::Wait,
        },
    }
}

/// The ARN of the consumer, once it is active, and whether it was registered here.
async fn registered(
    fan_out: &FanOut,
    target: &StreamTarget,
    phase: Phase,
) -> Result<(String, bool), SourceError> {
    let began = Instant::now();
    let (mut said, mut is_new) = (false, false);
    loop {
        match act(described(fan_out, target, phase).await?) {
            Act::Use(arn) => return Ok((arn, is_new)),
            Act::Register => {
                register(fan_out, target, phase).await?;
                is_new = true;
            }
            Act::Wait => tokio::time::sleep(CONSUMER_POLL).await,
        }
        if began.elapsed() > CONSUMER_ACTIVE_WITHIN && !said {
            said = true;
            tracing::warn!(
                consumer = fan_out.consumer_name,
                "the consumer is not active yet"
            );
        }
    }
}

async fn described(
    fan_out: &FanOut,
    target: &StreamTarget,
    phase: Phase,
) -> Result<Option<ConsumerInfo>, SourceError> {
    let mut retry = Retry::new(Operation::DescribeConsumer, target, phase);
    loop {
        let failure = match fan_out.api.describe_consumer(&fan_out.consumer_name).await {
            Ok(found) => return Ok(Some(found)),
            Err(failure) => failure,
        };
        let verdict = classify(Operation::DescribeConsumer, &failure);
        if verdict == Verdict::Fatal(Fatal::NotFound) {
            return Ok(None);
        }
        wait(retry.failed(&failure)?).await;
    }
}

/// Registers it; also `Ok` when somebody else just did.
async fn register(
    fan_out: &FanOut,
    target: &StreamTarget,
    phase: Phase,
) -> Result<(), SourceError> {
    let began = Instant::now();
    let mut retry = Retry::new(Operation::RegisterConsumer, target, phase);
    loop {
        let failure = match fan_out.api.register_consumer(&fan_out.consumer_name).await {
            Ok(_) => return Ok(()),
            Err(failure) => failure,
        };
        match failure.code.as_deref() {
            Some("ResourceInUseException") => return Ok(()),
            // The same code for too many calls, which pass, and for too many consumers.
            Some("LimitExceededException") if began.elapsed() >= REGISTER_PATIENCE => {
                return Err(SourceError::ConsumerLimit {
                    consumer: fan_out.consumer_name.clone(),
                    target: Box::new(target.clone()),
                    failure: Box::new(failure),
                });
            }
            _ => wait(retry.failed(&failure)?).await,
        }
    }
}

async fn wait(step: Step) {
    let wait = match step {
        Step::Wait { wait, .. } => wait,
        Step::Refresh(wait) => wait.max(Duration::from_millis(200)),
    };
    tokio::time::sleep(wait).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_active_consumer_is_used() {
        let consumer = |state| {
            Some(ConsumerInfo {
                arn: "a".to_owned(),
                state,
            })
        };
        for (found, expected) in [
            (None, Act::Register),
            (consumer(ConsumerState::Creating), Act::Wait),
            (consumer(ConsumerState::Deleting), Act::Wait),
            (consumer(ConsumerState::Active), Act::Use("a".to_owned())),
        ] {
            assert_eq!(act(found), expected);
        }
    }
}
