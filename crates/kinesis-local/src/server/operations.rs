//! Everything that is neither put nor get.

use bytes::Bytes;
use serde::Deserialize;

use super::{
    State,
    fault::Fault,
    request::{self, Stream, one_of, unix_ms, unsigned},
    response::{self, Shard, StreamCommon},
};
use crate::model::{
    CreateStream, ListShardsQuery, ListStreamsQuery, ShardFilter, ShardId, StreamMode,
};

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Fault> {
    Ok(serde_json::from_slice(body)?)
}

fn shard_id(text: Option<&str>) -> Result<Option<ShardId>, Fault> {
    text.map(request::shard_id).transpose()
}

pub(crate) fn create_stream(state: &State, body: &[u8]) -> Result<Bytes, Fault> {
    let request: request::CreateStream<'_> = parse(body)?;
    let mode = request
        .stream_mode_details
        .map_or(Ok(StreamMode::Provisioned), |details| details.mode())?;
    let create = CreateStream {
        mode,
        shard_count: request
            .shard_count
            .map(|count| unsigned("ShardCount", count))
            .transpose()?,
        max_record_kib: request
            .max_record_kib
            .map(|kib| unsigned("MaxRecordSizeInKiB", kib))
            .transpose()?,
    };
    state
        .kinesis()
        .create_stream(state.now_ms(), &request.stream_name, create)?;
    Ok(response::empty())
}

pub(crate) fn delete_stream(state: &State, body: &[u8]) -> Result<Bytes, Fault> {
    let request: request::OneStream<'_> = parse(body)?;
    let mut kinesis = state.kinesis();
    let name = request.stream.name(&kinesis)?;
    kinesis.delete_stream(state.now_ms(), name)?;
    Ok(response::empty())
}

pub(crate) fn describe_stream(state: &State, body: &[u8]) -> Result<Bytes, Fault> {
    let request: request::DescribeStream<'_> = parse(body)?;
    let start = shard_id(request.exclusive_start_shard_id.as_deref())?;
    let limit = request
        .limit
        .map(|limit| unsigned("Limit", limit))
        .transpose()?;
    let (summary, page) = {
        let mut kinesis = state.kinesis();
        let name = request.stream.name(&kinesis)?;
        let now_ms = state.now_ms();
        (
            kinesis.describe_stream_summary(now_ms, name)?,
            kinesis.describe_stream_shards(now_ms, name, start, limit)?,
        )
    };
    response::encode(&response::DescribeStream::new(
        &summary,
        page.shards,
        page.has_more,
    ))
}

pub(crate) fn describe_stream_summary(state: &State, body: &[u8]) -> Result<Bytes, Fault> {
    let request: request::OneStream<'_> = parse(body)?;
    let summary = {
        let mut kinesis = state.kinesis();
        let name = request.stream.name(&kinesis)?;
        kinesis.describe_stream_summary(state.now_ms(), name)?
    };
    response::encode(&response::DescribeStreamSummary::from(&summary))
}

pub(crate) fn list_streams(state: &State, body: &[u8]) -> Result<Bytes, Fault> {
    let request: request::ListStreams<'_> = parse(body)?;
    let query = ListStreamsQuery {
        exclusive_start: request.exclusive_start_stream_name.as_deref(),
        next_token: request.next_token.as_deref(),
        limit: request
            .limit
            .map(|limit| unsigned("Limit", limit))
            .transpose()?,
    };
    let page = state.kinesis().list_streams(state.now_ms(), query)?;
    response::encode(&response::ListStreams {
        stream_names: page
            .streams
            .iter()
            .map(|stream| stream.name.clone())
            .collect(),
        stream_summaries: page.streams.iter().map(StreamCommon::from).collect(),
        has_more_streams: page.next_token.is_some(),
        next_token: page.next_token,
    })
}

pub(crate) fn list_shards(state: &State, body: &[u8]) -> Result<Bytes, Fault> {
    let request: request::ListShards<'_> = parse(body)?;
    let max_results = request
        .max_results
        .map(|limit| unsigned("MaxResults", limit))
        .transpose()?;
    let exclusive_start = shard_id(request.exclusive_start_shard_id.as_deref())?;
    let filter = request
        .shard_filter
        .as_ref()
        .map(|filter| filter.filter())
        .transpose()?;
    let mut kinesis = state.kinesis();
    let now_ms = state.now_ms();
    let query = match &request.next_token {
        Some(next_token) => {
            refuse_beside_token(&request)?;
            ListShardsQuery::Next { next_token }
        }
        None => {
            let stream_name = request.stream.name(&kinesis)?;
            if let Some(created) = request.stream_creation_timestamp {
                let actual_ms = kinesis
                    .describe_stream_summary(now_ms, stream_name)?
                    .created_ms;
                if unix_ms(created)? != actual_ms {
                    return Err(Fault::new(
                        "ResourceNotFoundException",
                        format!(
                            "stream `{stream_name}` was created at {}",
                            response::seconds(actual_ms)
                        ),
                    ));
                }
            }
            let filter = filter.unwrap_or(ShardFilter::FromTrimHorizon);
            ListShardsQuery::First {
                stream_name,
                filter,
                exclusive_start,
            }
        }
    };
    let page = kinesis.list_shards(now_ms, query, max_results)?;
    drop(kinesis);
    response::encode(&response::ListShards {
        shards: page.shards.into_iter().map(Shard::from).collect(),
        next_token: page.next_token,
    })
}

/// Source: API reference, `ListShards`: the token alone identifies the listing.
fn refuse_beside_token(request: &request::ListShards<'_>) -> Result<(), Fault> {
    let beside = request.stream.is_given()
        || request.stream_creation_timestamp.is_some()
        || request.exclusive_start_shard_id.is_some();
    if !beside {
        return Ok(());
    }
    Err(Fault::invalid(
        "`NextToken` cannot go with `StreamName`, `StreamARN`, `StreamCreationTimestamp` or `ExclusiveStartShardId`",
    ))
}

pub(crate) fn split_shard(state: &State, body: &[u8]) -> Result<Bytes, Fault> {
    let request: request::SplitShard<'_> = parse(body)?;
    let shard = request::shard_id(&request.shard_to_split)?;
    let mut kinesis = state.kinesis();
    let name = request.stream.name(&kinesis)?;
    kinesis.split_shard(state.now_ms(), name, shard, &request.new_starting_hash_key)?;
    Ok(response::empty())
}

pub(crate) fn merge_shards(state: &State, body: &[u8]) -> Result<Bytes, Fault> {
    let request: request::MergeShards<'_> = parse(body)?;
    let shard = request::shard_id(&request.shard_to_merge)?;
    let adjacent = request::shard_id(&request.adjacent_shard_to_merge)?;
    let mut kinesis = state.kinesis();
    let name = request.stream.name(&kinesis)?;
    kinesis.merge_shards(state.now_ms(), name, shard, adjacent)?;
    Ok(response::empty())
}

pub(crate) fn update_shard_count(state: &State, body: &[u8]) -> Result<Bytes, Fault> {
    let request: request::UpdateShardCount<'_> = parse(body)?;
    if request.scaling_type != "UNIFORM_SCALING" {
        return Err(one_of(
            "ScalingType",
            &request.scaling_type,
            "`UNIFORM_SCALING`",
        ));
    }
    let target = unsigned("TargetShardCount", request.target_shard_count)?;
    let mut kinesis = state.kinesis();
    let name = request.stream.name(&kinesis)?;
    let change = kinesis.update_shard_count(state.now_ms(), name, target)?;
    response::encode(&response::UpdateShardCount {
        stream_name: name.to_owned(),
        stream_arn: kinesis.arn(name),
        current_shard_count: change.current,
        target_shard_count: change.target,
    })
}

pub(crate) fn increase_retention(state: &State, body: &[u8]) -> Result<Bytes, Fault> {
    let (stream, hours) = retention(body)?;
    let mut kinesis = state.kinesis();
    let name = stream.name(&kinesis)?;
    kinesis.increase_retention(state.now_ms(), name, hours)?;
    Ok(response::empty())
}

pub(crate) fn decrease_retention(state: &State, body: &[u8]) -> Result<Bytes, Fault> {
    let (stream, hours) = retention(body)?;
    let mut kinesis = state.kinesis();
    let name = stream.name(&kinesis)?;
    kinesis.decrease_retention(state.now_ms(), name, hours)?;
    Ok(response::empty())
}

fn retention(body: &[u8]) -> Result<(Stream<'_>, u32), Fault> {
    let request: request::Retention<'_> = parse(body)?;
    let hours = unsigned("RetentionPeriodHours", request.retention_period_hours)?;
    Ok((request.stream, hours))
}

pub(crate) fn update_stream_mode(state: &State, body: &[u8]) -> Result<Bytes, Fault> {
    let request: request::UpdateStreamMode<'_> = parse(body)?;
    let mode = request.stream_mode_details.mode()?;
    let mut kinesis = state.kinesis();
    let name = request.stream.name(&kinesis)?;
    kinesis.update_stream_mode(state.now_ms(), name, mode)?;
    Ok(response::empty())
}

pub(crate) fn update_max_record_size(state: &State, body: &[u8]) -> Result<Bytes, Fault> {
    let request: request::UpdateMaxRecordSize<'_> = parse(body)?;
    let kib = unsigned("MaxRecordSizeInKiB", request.max_record_kib)?;
    let mut kinesis = state.kinesis();
    let name = request.stream.name(&kinesis)?;
    kinesis.update_max_record_size(state.now_ms(), name, kib)?;
    Ok(response::empty())
}
