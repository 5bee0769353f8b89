//! Enhanced fan-out as this source uses it: a consumer, and subscriptions that push.

use std::sync::Arc;

use async_trait::async_trait;

use crate::classify::Failure;
use crate::client::{ReadFrom, StreamRecord};
use crate::shard::{ShardId, ShardInfo};

/// What a registered consumer is going through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumerState {
    /// It can subscribe.
    Active,
    /// It is being made.
    Creating,
    /// It is being removed.
    Deleting,
}

/// A registered consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerInfo {
    /// Its ARN, which tells it from an earlier one of the name.
    pub arn: String,
    /// What it goes through.
    pub state: ConsumerState,
}

/// One event of a subscription.
#[derive(Debug, Clone, PartialEq)]
pub struct PushedEvent {
    /// Records, in order; none when the event only says that there is nothing new.
    pub records: Vec<StreamRecord>,
    /// The sequence number to go on after, also when nothing was read up to it; `None` at the end.
    pub continuation: Option<String>,
    /// Age of the newest record beyond this event; 0 when there is none.
    pub millis_behind_latest: i64,
    /// The shards that were made from this one, at the end.
    pub children: Vec<ShardInfo>,
}

/// A subscription to one shard, open.
#[async_trait]
pub trait Subscription: Send {
    /// The next event; `None` when the service closed the subscription. May be dropped before it is
    /// answered, and asked again: no event is lost by that.
    async fn next(&mut self) -> Result<Option<PushedEvent>, Failure>;
}

/// The calls. None retries by itself, and each may be dropped before it is answered.
#[async_trait]
pub trait FanOutApi: Send + Sync {
    /// `DescribeStreamConsumer`, by the consumer's name; a missing one is a failure with
    /// the code `ResourceNotFoundException`.
    async fn describe_consumer(&self, name: &str) -> Result<ConsumerInfo, Failure>;

    /// `RegisterStreamConsumer`.
    async fn register_consumer(&self, name: &str) -> Result<ConsumerInfo, Failure>;

    /// `DeregisterStreamConsumer`, by the consumer's ARN.
    async fn deregister_consumer(&self, arn: &str) -> Result<(), Failure>;

    /// `SubscribeToShard`, answered once the service has accepted.
    async fn subscribe(
        &self,
        consumer_arn: &str,
        shard: &ShardId,
        from: &ReadFrom,
    ) -> Result<Box<dyn Subscription>, Failure>;
}

/// What is done when a subscription, or the consumer for it, cannot be had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FallBack {
    /// Nothing else: it is tried again, or the source ends with the reason.
    #[default]
    None,
    /// Shards are read by polling.
    Polling,
}

/// How a source reads by fan-out.
#[derive(Clone)]
pub struct FanOut {
    /// The calls.
    pub api: Arc<dyn FanOutApi>,
    /// Name of the consumer: the same for all sources that share the shards.
    pub consumer_name: String,
    /// What is done when it cannot be had.
    pub fall_back: FallBack,
    /// The consumer is removed at the end of a drain.
    pub removes_consumer: bool,
}
