//! Enhanced fan-out over the AWS SDK.

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardOutput;
use aws_sdk_kinesis::types::error::SubscribeToShardEventStreamError;
use aws_sdk_kinesis::types::{
    ConsumerStatus, ShardIteratorType, StartingPosition, SubscribeToShardEvent,
    SubscribeToShardEventStream,
};
use aws_smithy_types::DateTime;
use tokio::sync::OnceCell;

use crate::classify::{FailedStep, Failure};
use crate::client::ReadFrom;
use crate::fan_out::{ConsumerInfo, ConsumerState, FanOutApi, PushedEvent, Subscription};
use crate::sdk::{child_info, failed_step, failure, stream_record, unreadable};
use crate::shard::ShardId;

/// Consumers and subscriptions of one stream, spoken to through the AWS SDK.
///
/// It should have an HTTP client of its own: over HTTP/2 subscriptions share a connection and its
/// window, and one that is not read would hold up other calls.
#[derive(Debug)]
pub struct SdkFanOut {
    client: Client,
    stream: String,
    stream_arn: OnceCell<String>,
}

impl SdkFanOut {
    /// Speaks about `stream` to wherever `config` points.
    #[must_use]
    pub fn new(config: &SdkConfig, stream: &str) -> Self {
        Self {
            client: Client::new(config),
            stream: stream.to_owned(),
            stream_arn: OnceCell::new(),
        }
    }

    /// Consumers are asked for by the stream's ARN alone.
    async fn stream_arn(&self) -> Result<&String, Failure> {
        self.stream_arn
            .get_or_try_init(|| async {
                let summary = self.client.describe_stream_summary();
                let summary = summary.stream_name(&self.stream).send().await;
                summary
                    .map_err(failure)?
                    .stream_description_summary
                    .map(|summary| summary.stream_arn)
                    .filter(|arn| !arn.is_empty())
                    .ok_or_else(|| unreadable("no stream ARN"))
            })
            .await
    }
}

fn consumer_info(arn: String, status: &ConsumerStatus) -> Result<ConsumerInfo, Failure> {
    // For what an answer does not say the SDK makes something up.
    if arn.is_empty() {
        return Err(unreadable("no consumer ARN"));
    }
    let state = match status {
        ConsumerStatus::Active => ConsumerState::Active,
        ConsumerStatus::Deleting => ConsumerState::Deleting,
        _ => ConsumerState::Creating,
    };
    Ok(ConsumerInfo { arn, state })
}

#[async_trait]
impl FanOutApi for SdkFanOut {
    async fn describe_consumer(&self, name: &str) -> Result<ConsumerInfo, Failure> {
        let call = self.client.describe_stream_consumer();
        let call = call.stream_arn(self.stream_arn().await?);
        let answer = call.consumer_name(name).send().await.map_err(failure)?;
        let found = answer
            .consumer_description
            .ok_or_else(|| unreadable("no consumer description"))?;
        consumer_info(found.consumer_arn, &found.consumer_status)
    }

    async fn register_consumer(&self, name: &str) -> Result<ConsumerInfo, Failure> {
        let call = self.client.register_stream_consumer();
        let call = call.stream_arn(self.stream_arn().await?);
        let answer = call.consumer_name(name).send().await.map_err(failure)?;
        let made = answer.consumer.ok_or_else(|| unreadable("no consumer"))?;
        consumer_info(made.consumer_arn, &made.consumer_status)
    }

    async fn deregister_consumer(&self, arn: &str) -> Result<(), Failure> {
        let call = self.client.deregister_stream_consumer();
        let answer = call.consumer_arn(arn).send().await;
        answer.map(drop).map_err(failure)
    }

    async fn subscribe(
        &self,
        consumer_arn: &str,
        shard: &ShardId,
        from: &ReadFrom,
    ) -> Result<Box<dyn Subscription>, Failure> {
        let position = StartingPosition::builder();
        let position = match from {
            ReadFrom::TrimHorizon => position.r#type(ShardIteratorType::TrimHorizon),
            ReadFrom::Timestamp(ms) => position
                .r#type(ShardIteratorType::AtTimestamp)
                .timestamp(DateTime::from_millis(*ms)),
            ReadFrom::At(sequence) => position
                .r#type(ShardIteratorType::AtSequenceNumber)
                .sequence_number(sequence),
            ReadFrom::After(sequence) => position
                .r#type(ShardIteratorType::AfterSequenceNumber)
                .sequence_number(sequence),
        };
        let position = position.build().map_err(|error| Failure {
            step: FailedStep::Request,
            ..unreadable(&error.to_string())
        })?;
        let call = self.client.subscribe_to_shard();
        let call = call.consumer_arn(consumer_arn).shard_id(shard.as_str());
        let answer = call.starting_position(position).send().await;
        Ok(Box::new(SdkSubscription(answer.map_err(failure)?)))
    }
}

struct SdkSubscription(SubscribeToShardOutput);

#[async_trait]
impl Subscription for SdkSubscription {
    async fn next(&mut self) -> Result<Option<PushedEvent>, Failure> {
        loop {
            match self.0.event_stream.recv().await {
                Ok(Some(SubscribeToShardEventStream::SubscribeToShardEvent(event))) => {
                    return Ok(Some(pushed(event)));
                }
                // A kind of event that this SDK does not know: it tells nothing.
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                Err(error) => {
                    let step = failed_step(&error);
                    let code = error.as_service_error().and_then(code);
                    return Err(Failure {
                        step,
                        code: code.map(str::to_owned),
                        status: None,
                        retry_after: None,
                        message: millpond_connector::aws::describe(&error),
                    });
                }
            }
        }
    }
}

fn pushed(event: SubscribeToShardEvent) -> PushedEvent {
    let children = event.child_shards.unwrap_or_default();
    PushedEvent {
        records: event.records.into_iter().map(stream_record).collect(),
        continuation: Some(event.continuation_sequence_number).filter(|text| !text.is_empty()),
        millis_behind_latest: event.millis_behind_latest,
        children: children.into_iter().map(child_info).collect(),
    }
}

/// The exceptions of a stream carry their names in a header, which the SDK turns into these.
fn code(error: &SubscribeToShardEventStreamError) -> Option<&str> {
    use SubscribeToShardEventStreamError as Error;
    Some(match error {
        Error::ResourceNotFoundException(_) => "ResourceNotFoundException",
        Error::ResourceInUseException(_) => "ResourceInUseException",
        Error::InternalFailureException(_) => "InternalFailureException",
        Error::KmsAccessDeniedException(_) => "KMSAccessDeniedException",
        Error::KmsDisabledException(_) => "KMSDisabledException",
        Error::KmsInvalidStateException(_) => "KMSInvalidStateException",
        Error::KmsNotFoundException(_) => "KMSNotFoundException",
        Error::KmsOptInRequired(_) => "KMSOptInRequired",
        Error::KmsThrottlingException(_) => "KMSThrottlingException",
        other => return other.meta().code(),
    })
}
