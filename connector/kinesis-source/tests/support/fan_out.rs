//! Fan-out over the pure model of the stand-in.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use millpond_kinesis_local::model::{self, ConsumerName, ConsumerStatus, Push};
use millpond_kinesis_source::classify::{Failure, Operation};
use millpond_kinesis_source::client::ReadFrom;
use millpond_kinesis_source::fan_out::{
    ConsumerInfo, ConsumerState, FallBack, FanOut, FanOutApi, PushedEvent, Subscription,
};
use millpond_kinesis_source::shard::ShardId;

use super::stream::{ModelStream, child_info, refused, start, stream_record};

/// The stream's calls of fan-out.
pub struct ModelFanOut(pub Arc<ModelStream>);

/// Fan-out without a way back to polling.
pub fn fan_out(stream: &Arc<ModelStream>) -> FanOut {
    FanOut {
        api: Arc::new(ModelFanOut(stream.clone())),
        consumer_name: "source".to_owned(),
        fall_back: FallBack::None,
        removes_consumer: false,
    }
}

fn info(consumer: model::Consumer) -> ConsumerInfo {
    ConsumerInfo {
        arn: consumer.arn,
        state: match consumer.status {
            ConsumerStatus::Creating => ConsumerState::Creating,
            ConsumerStatus::Active => ConsumerState::Active,
            ConsumerStatus::Deleting => ConsumerState::Deleting,
        },
    }
}

#[async_trait]
impl FanOutApi for ModelFanOut {
    async fn describe_consumer(&self, name: &str) -> Result<ConsumerInfo, Failure> {
        self.0.called(Operation::DescribeConsumer)?;
        let name = ConsumerName::InStream {
            stream_name: "events",
            name,
        };
        let found = self.0.ask(|model, now| model.describe_consumer(now, name));
        found.map(info).map_err(refused)
    }

    async fn register_consumer(&self, name: &str) -> Result<ConsumerInfo, Failure> {
        self.0.called(Operation::RegisterConsumer)?;
        let made = self
            .0
            .ask(|model, now| model.register_consumer(now, "events", name));
        made.map(info).map_err(refused)
    }

    async fn deregister_consumer(&self, arn: &str) -> Result<(), Failure> {
        let removed = self
            .0
            .ask(|model, now| model.deregister_consumer(now, ConsumerName::Arn(arn)));
        removed.map_err(refused)
    }

    async fn subscribe(
        &self,
        consumer_arn: &str,
        shard: &ShardId,
        from: &ReadFrom,
    ) -> Result<Box<dyn Subscription>, Failure> {
        self.0.called(Operation::Subscribe)?;
        let shard = shard.as_str().parse().expect("a shard id");
        let subscription = self
            .0
            .ask(|model, now| model.subscribe(now, consumer_arn, shard, start(from)))
            .map_err(refused)?;
        Ok(Box::new(ModelSubscription {
            stream: self.0.clone(),
            subscription,
        }))
    }
}

struct ModelSubscription {
    stream: Arc<ModelStream>,
    subscription: model::Subscription,
}

#[async_trait]
impl Subscription for ModelSubscription {
    async fn next(&mut self) -> Result<Option<PushedEvent>, Failure> {
        loop {
            let changed = self.stream.changed.notified();
            let broken = self
                .stream
                .broken_pushes
                .lock()
                .expect("not poisoned")
                .pop_front();
            if let Some(failure) = broken {
                return Err(failure);
            }
            let subscription = &mut self.subscription;
            let push = self
                .stream
                .ask(|model, now| Ok(model.push(now, subscription)));
            let event = match push.expect("no error") {
                Push::Event(event) => event,
                Push::Nothing => {
                    // Time alone changes something, too: an event that says that there is nothing, or room
                    // below a limit.
                    let _ = tokio::time::timeout(Duration::from_secs(5), changed).await;
                    continue;
                }
                Push::Refused(error) => return Err(refused(error)),
                Push::Closed => return Ok(None),
            };
            let children = match self.stream.silent_ends {
                true => Vec::new(),
                false => event.child_shards.iter().map(child_info).collect(),
            };
            return Ok(Some(PushedEvent {
                records: event.records.into_iter().map(stream_record).collect(),
                continuation: event.continuation,
                millis_behind_latest: event.millis_behind_latest as i64,
                children,
            }));
        }
    }
}
