//! Answers, as the API reference spells them.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Response, StatusCode, header::CONTENT_TYPE},
};
use bytes::Bytes;
use serde::Serialize;

use super::fault::Fault;
use crate::model::{self, ChildShard, HashKeyRange, ShardDescription, StreamSummary};

const JSON_1_1: HeaderValue = HeaderValue::from_static("application/x-amz-json-1.1");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");

pub(crate) fn json(status: StatusCode, body: Bytes) -> Response<Body> {
    static REQUESTS: AtomicU64 = AtomicU64::new(1);
    let request = REQUESTS.fetch_add(1, Ordering::Relaxed);
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON_1_1);
    // Grouped as AWS does, so that a log reads as usual.
    if let Ok(id) = HeaderValue::from_str(&format!("00000000-0000-0000-0000-{request:012x}")) {
        headers.insert(REQUEST_ID, id);
    }
    response
}

pub(crate) fn encode(answer: &impl Serialize) -> Result<Bytes, Fault> {
    serde_json::to_vec(answer)
        .map(Bytes::from)
        .map_err(|error| Fault::new("InternalFailure", error.to_string()))
}

/// The answer of operations that have none.
pub(crate) const fn empty() -> Bytes {
    Bytes::from_static(b"{}")
}

/// Unix milliseconds as JSON 1.1 writes time: seconds, with a fraction.
pub(crate) fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Placed {
    pub(crate) shard_id: String,
    pub(crate) sequence_number: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PutRecords {
    pub(crate) failed_record_count: usize,
    pub(crate) records: Vec<PutResult>,
}

#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum PutResult {
    Placed(Placed),
    #[serde(rename_all = "PascalCase")]
    Refused {
        error_code: &'static str,
        error_message: String,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ShardIterator {
    pub(crate) shard_iterator: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Range {
    starting_hash_key: String,
    ending_hash_key: String,
}

impl From<HashKeyRange> for Range {
    fn from(range: HashKeyRange) -> Self {
        Self {
            starting_hash_key: range.start.to_string(),
            ending_hash_key: range.end.to_string(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct SequenceNumberRange {
    starting_sequence_number: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ending_sequence_number: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Shard {
    shard_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_shard_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adjacent_parent_shard_id: Option<String>,
    hash_key_range: Range,
    sequence_number_range: SequenceNumberRange,
}

impl From<ShardDescription> for Shard {
    fn from(shard: ShardDescription) -> Self {
        Self {
            shard_id: shard.shard_id.to_string(),
            parent_shard_id: shard.parent_shard_id.map(|id| id.to_string()),
            adjacent_parent_shard_id: shard.adjacent_parent_shard_id.map(|id| id.to_string()),
            hash_key_range: shard.hash_key_range.into(),
            sequence_number_range: SequenceNumberRange {
                starting_sequence_number: shard.starting_sequence_number.to_string(),
                ending_sequence_number: shard
                    .ending_sequence_number
                    .map(|number| number.to_string()),
            },
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Child {
    shard_id: String,
    parent_shards: Vec<String>,
    hash_key_range: Range,
}

impl From<ChildShard> for Child {
    fn from(child: ChildShard) -> Self {
        Self {
            shard_id: child.shard_id.to_string(),
            parent_shards: child
                .parent_shards
                .iter()
                .map(ToString::to_string)
                .collect(),
            hash_key_range: child.hash_key_range.into(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListShards {
    pub(crate) shards: Vec<Shard>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Consumer {
    consumer_name: String,
    #[serde(rename = "ConsumerARN")]
    consumer_arn: String,
    consumer_status: &'static str,
    consumer_creation_timestamp: f64,
    /// In a description only.
    #[serde(rename = "StreamARN", skip_serializing_if = "Option::is_none")]
    pub(crate) stream_arn: Option<String>,
}

impl From<model::Consumer> for Consumer {
    fn from(consumer: model::Consumer) -> Self {
        Self {
            consumer_name: consumer.name,
            consumer_arn: consumer.arn,
            consumer_status: consumer.status.name(),
            consumer_creation_timestamp: seconds(consumer.created_ms),
            stream_arn: None,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RegisterStreamConsumer {
    pub(crate) consumer: Consumer,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DescribeStreamConsumer {
    pub(crate) consumer_description: Consumer,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListStreamConsumers {
    pub(crate) consumers: Vec<Consumer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Mode {
    stream_mode: &'static str,
}

/// What summaries of a stream have in common.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct StreamCommon {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    stream_status: &'static str,
    stream_mode_details: Mode,
    stream_creation_timestamp: f64,
}

impl From<&StreamSummary> for StreamCommon {
    fn from(summary: &StreamSummary) -> Self {
        Self {
            stream_name: summary.name.clone(),
            stream_arn: summary.arn.clone(),
            stream_status: summary.status.name(),
            stream_mode_details: Mode {
                stream_mode: summary.mode.name(),
            },
            stream_creation_timestamp: seconds(summary.created_ms),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Monitoring {
    shard_level_metrics: [&'static str; 0],
}

const NO_MONITORING: [Monitoring; 1] = [Monitoring {
    shard_level_metrics: [],
}];

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DescribeStream {
    stream_description: StreamDescription,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct StreamDescription {
    #[serde(flatten)]
    common: StreamCommon,
    shards: Vec<Shard>,
    has_more_shards: bool,
    retention_period_hours: u32,
    enhanced_monitoring: [Monitoring; 1],
    encryption_type: &'static str,
}

impl DescribeStream {
    pub(crate) fn new(
        summary: &StreamSummary,
        shards: Vec<ShardDescription>,
        has_more_shards: bool,
    ) -> Self {
        Self {
            stream_description: StreamDescription {
                common: summary.into(),
                shards: shards.into_iter().map(Shard::from).collect(),
                has_more_shards,
                retention_period_hours: summary.retention_hours,
                enhanced_monitoring: NO_MONITORING,
                encryption_type: "NONE",
            },
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DescribeStreamSummary {
    stream_description_summary: StreamDescriptionSummary,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct StreamDescriptionSummary {
    #[serde(flatten)]
    common: StreamCommon,
    retention_period_hours: u32,
    enhanced_monitoring: [Monitoring; 1],
    encryption_type: &'static str,
    open_shard_count: usize,
    consumer_count: u32,
    #[serde(rename = "MaxRecordSizeInKiB")]
    max_record_kib: u32,
}

impl From<&StreamSummary> for DescribeStreamSummary {
    fn from(summary: &StreamSummary) -> Self {
        Self {
            stream_description_summary: StreamDescriptionSummary {
                common: summary.into(),
                retention_period_hours: summary.retention_hours,
                enhanced_monitoring: NO_MONITORING,
                encryption_type: "NONE",
                open_shard_count: summary.open_shard_count,
                consumer_count: 0,
                max_record_kib: summary.max_record_kib,
            },
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListStreams {
    pub(crate) stream_names: Vec<String>,
    pub(crate) stream_summaries: Vec<StreamCommon>,
    pub(crate) has_more_streams: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct UpdateShardCount {
    pub(crate) stream_name: String,
    #[serde(rename = "StreamARN")]
    pub(crate) stream_arn: String,
    pub(crate) current_shard_count: u32,
    pub(crate) target_shard_count: u32,
}
