//! The calls that change a stream, over the AWS SDK.

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::{ScalingType, StreamMode, StreamStatus};

use crate::admin::{StreamAdmin, StreamShape};
use crate::classify::Failure;
use crate::retention_guard::GuardAction;
use crate::sdk::{failure, unreadable};

/// One stream to be administered. The SDK's own retries must be off.
#[derive(Debug, Clone)]
pub struct SdkAdmin {
    client: Client,
    stream: String,
}

impl SdkAdmin {
    /// Administers `stream` wherever `config` points.
    #[must_use]
    pub fn new(config: &SdkConfig, stream: &str) -> Self {
        Self {
            client: Client::new(config),
            stream: stream.to_owned(),
        }
    }
}

fn hours(hours: u32) -> i32 {
    i32::try_from(hours).unwrap_or(i32::MAX)
}

#[async_trait]
impl StreamAdmin for SdkAdmin {
    async fn shape(&self) -> Result<StreamShape, Failure> {
        let call = self.client.describe_stream_summary();
        let answer = call.stream_name(&self.stream).send().await;
        let summary = answer
            .map_err(failure)?
            .stream_description_summary
            .filter(|summary| !summary.stream_name.is_empty())
            .ok_or_else(|| unreadable("no stream description"))?;
        let mode = summary.stream_mode_details.map(|mode| mode.stream_mode);
        Ok(StreamShape {
            retention_hours: u32::try_from(summary.retention_period_hours).unwrap_or(0),
            open_shards: u32::try_from(summary.open_shard_count).unwrap_or(0),
            is_provisioned: !matches!(mode, Some(StreamMode::OnDemand)),
            is_active: summary.stream_status == StreamStatus::Active,
        })
    }

    async fn change_retention(&self, action: GuardAction) -> Result<(), Failure> {
        match action {
            GuardAction::Extend(to) => {
                let call = self.client.increase_stream_retention_period();
                let call = call.stream_name(&self.stream);
                let sent = call.retention_period_hours(hours(to)).send().await;
                sent.map(drop).map_err(failure)
            }
            GuardAction::GiveBack(to) => {
                let call = self.client.decrease_stream_retention_period();
                let call = call.stream_name(&self.stream);
                let sent = call.retention_period_hours(hours(to)).send().await;
                sent.map(drop).map_err(failure)
            }
        }
    }

    async fn change_shard_count(&self, count: u32) -> Result<(), Failure> {
        let call = self.client.update_shard_count();
        let call = call
            .stream_name(&self.stream)
            .target_shard_count(i32::try_from(count).unwrap_or(i32::MAX))
            .scaling_type(ScalingType::UniformScaling);
        call.send().await.map(drop).map_err(failure)
    }
}
