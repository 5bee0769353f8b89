//! The stream service over the AWS SDK: calls, and their failures reduced to what decides.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::{
    ChildShard, Record, Shard, ShardFilter, ShardFilterType, ShardIteratorType, StreamStatus,
};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::date_time::Format;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use millpond_connector::aws::{self, FailureKind};

use crate::classify::{FailedStep, Failure};
use crate::client::{
    Continuation, ReadAnswer, ReadFrom, ShardIterator, ShardPage, ShardScope, StreamApi,
    StreamRecord, StreamState, StreamSummary, StreamTarget,
};
use crate::limits::SHARDS_PER_PAGE;
use crate::shard::{HashKeyRange, ShardId, ShardInfo};

/// One stream, spoken to through the AWS SDK.
///
/// The SDK's own retries must be off (`millpond_connector::aws` configures it so).
#[derive(Debug, Clone)]
pub struct SdkStream {
    client: Client,
    target: StreamTarget,
}

impl SdkStream {
    /// Speaks about `stream` to wherever `config` points.
    #[must_use]
    pub fn new(config: &SdkConfig, stream: &str) -> Self {
        let region = config.region().map_or("unknown", |region| region.as_ref());
        Self {
            client: Client::new(config),
            target: StreamTarget {
                stream: stream.to_owned(),
                region: region.to_owned(),
                endpoint: config.endpoint_url().map(str::to_owned),
            },
        }
    }
}

#[async_trait]
impl StreamApi for SdkStream {
    fn target(&self) -> &StreamTarget {
        &self.target
    }

    async fn describe(&self) -> Result<StreamSummary, Failure> {
        let clock = ServerClock::default();
        let answer = self
            .client
            .describe_stream_summary()
            .stream_name(&self.target.stream)
            .customize()
            .interceptor(clock.clone())
            .send()
            .await
            .map_err(failure)?;
        // For a description that is missing the SDK makes one up, without a name.
        let summary = answer
            .stream_description_summary
            .filter(|summary| !summary.stream_name.is_empty())
            .ok_or_else(|| unreadable("no stream description"))?;
        Ok(StreamSummary {
            state: match summary.stream_status {
                StreamStatus::Creating => StreamState::Creating,
                StreamStatus::Deleting => StreamState::Deleting,
                _ => StreamState::Readable,
            },
            created_ms: millis(&summary.stream_creation_timestamp).unwrap_or(0),
            retention_ms: i64::from(summary.retention_period_hours) * 3_600_000,
            server_time_ms: clock.0.get().copied(),
        })
    }

    async fn list_shards(
        &self,
        scope: ShardScope,
        next: Option<String>,
    ) -> Result<ShardPage, Failure> {
        let request = self.client.list_shards().max_results(SHARDS_PER_PAGE);
        // A page token names the stream and the filter already: giving them again is an error.
        let request = match (next, scope) {
            (Some(token), _) => request.next_token(token),
            (None, ShardScope::All) => request.stream_name(&self.target.stream),
            (None, ShardScope::OpenSince(ms)) => request
                .stream_name(&self.target.stream)
                .shard_filter(open_since(ms)?),
        };
        let answer = request.send().await.map_err(failure)?;
        // A page without any shard is an empty list: without the list, the answer was cut.
        let shards = answer
            .shards
            .ok_or_else(|| unreadable("no list of shards"))?;
        Ok(ShardPage {
            shards: shards.into_iter().map(shard_info).collect(),
            next: answer.next_token,
        })
    }

    async fn shard_iterator(
        &self,
        shard: &ShardId,
        from: &ReadFrom,
    ) -> Result<ShardIterator, Failure> {
        let request = self
            .client
            .get_shard_iterator()
            .stream_name(&self.target.stream)
            .shard_id(shard.as_str());
        let request = match from {
            ReadFrom::TrimHorizon => request.shard_iterator_type(ShardIteratorType::TrimHorizon),
            ReadFrom::Timestamp(ms) => request
                .shard_iterator_type(ShardIteratorType::AtTimestamp)
                .timestamp(DateTime::from_millis(*ms)),
            ReadFrom::At(sequence) => request
                .shard_iterator_type(ShardIteratorType::AtSequenceNumber)
                .starting_sequence_number(sequence),
            ReadFrom::After(sequence) => request
                .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
                .starting_sequence_number(sequence),
        };
        let answer = request.send().await.map_err(failure)?;
        answer
            .shard_iterator
            .map(ShardIterator)
            .ok_or_else(|| unreadable("no shard iterator"))
    }

    async fn read(&self, iterator: &ShardIterator, limit: u32) -> Result<ReadAnswer, Failure> {
        let answer = self
            .client
            .get_records()
            .shard_iterator(&iterator.0)
            .limit(i32::try_from(limit).unwrap_or(i32::MAX))
            .send()
            .await
            .map_err(failure)?;
        // An answer that lost its body reads like the end of a shard (I1). A real end says how far
        // behind it is.
        if answer.next_shard_iterator.is_none() && answer.millis_behind_latest.is_none() {
            return Err(unreadable("neither an iterator nor an end"));
        }
        Ok(ReadAnswer {
            records: answer.records.into_iter().map(stream_record).collect(),
            millis_behind_latest: answer.millis_behind_latest.unwrap_or(i64::MAX),
            continuation: match answer.next_shard_iterator {
                Some(next) => Continuation::Next(ShardIterator(next)),
                None => Continuation::End(
                    answer
                        .child_shards
                        .unwrap_or_default()
                        .into_iter()
                        .map(child_info)
                        .collect(),
                ),
            },
        })
    }
}

fn open_since(ms: i64) -> Result<ShardFilter, Failure> {
    ShardFilter::builder()
        .r#type(ShardFilterType::FromTimestamp)
        .timestamp(DateTime::from_millis(ms))
        .build()
        .map_err(|error| Failure {
            step: FailedStep::Request,
            code: None,
            status: None,
            retry_after: None,
            message: error.to_string(),
        })
}

fn shard_info(shard: Shard) -> ShardInfo {
    let parents = [shard.parent_shard_id, shard.adjacent_parent_shard_id];
    ShardInfo {
        id: shard.shard_id.into(),
        parents: parents.into_iter().flatten().map(ShardId::from).collect(),
        hash_keys: shard.hash_key_range.and_then(hash_keys),
    }
}

pub(crate) fn child_info(child: ChildShard) -> ShardInfo {
    ShardInfo {
        id: child.shard_id.into(),
        parents: child.parent_shards.into_iter().map(ShardId::from).collect(),
        hash_keys: child.hash_key_range.and_then(hash_keys),
    }
}

fn hash_keys(range: aws_sdk_kinesis::types::HashKeyRange) -> Option<HashKeyRange> {
    HashKeyRange::parse(&range.starting_hash_key, &range.ending_hash_key)
}

pub(crate) fn stream_record(record: Record) -> StreamRecord {
    StreamRecord {
        arrival_ms: record
            .approximate_arrival_timestamp
            .as_ref()
            .and_then(millis),
        sequence: record.sequence_number,
        partition_key: record.partition_key.unwrap_or_default(),
        data: record.data,
    }
}

/// The nearest millisecond: the wire has seconds as a decimal fraction, and what is read of it may lie
/// a little below.
fn millis(time: &DateTime) -> Option<i64> {
    let rounded = (time.subsec_nanos() + 500_000) / 1_000_000;
    let whole = time.secs().checked_mul(1_000)?;
    whole.checked_add(rounded.into())
}

pub(crate) fn unreadable(what: &str) -> Failure {
    Failure {
        step: FailedStep::Answer,
        code: None,
        status: None,
        retry_after: None,
        message: format!("answer cannot be read: {what}"),
    }
}

pub(crate) fn failure<E>(error: SdkError<E, HttpResponse>) -> Failure
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    let response = error.raw_response();
    let retry_after = response
        .and_then(|response| response.headers().get("retry-after"))
        .and_then(|seconds| seconds.parse().ok())
        .map(Duration::from_secs);
    let code = error.as_service_error().and_then(|service| service.code());
    Failure {
        step: failed_step(&error),
        code: code.map(|code| {
            // Some services put a namespace in front: `com.amazonaws.kinesis#Code`.
            code.rsplit('#').next().unwrap_or(code).to_owned()
        }),
        status: response.map(|response| response.status().as_u16()),
        retry_after,
        message: aws::describe(&error),
    }
}

pub(crate) fn failed_step<E, R>(error: &SdkError<E, R>) -> FailedStep
where
    E: std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    match aws::failure_kind(error) {
        FailureKind::Unreachable => FailedStep::Connection,
        FailureKind::Timeout => FailedStep::Timeout,
        FailureKind::Credentials => FailedStep::Credentials,
        FailureKind::Service => FailedStep::Service,
        FailureKind::Answer => FailedStep::Answer,
        FailureKind::Request => FailedStep::Request,
    }
}

/// Reads the `Date` of an answer: the service's clock, cut to the second.
#[derive(Debug, Clone, Default)]
struct ServerClock(Arc<OnceLock<i64>>);

impl Intercept for ServerClock {
    fn name(&self) -> &'static str {
        "ServerClock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        let time = date.and_then(|date| DateTime::from_str(date, Format::HttpDate).ok());
        if let Some(ms) = time.as_ref().and_then(millis) {
            let _ = self.0.set(ms);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_that_of_the_wire_to_the_millisecond() {
        for ms in 1_763_886_000_000..1_763_886_001_000_i64 {
            let read: f64 = format!("{}.{:03}", ms / 1_000, ms % 1_000)
                .parse()
                .expect("a number");
            assert_eq!(millis(&DateTime::from_secs_f64(read)), Some(ms));
        }
    }
}
