//! From an HTTP request to an operation.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::State as Shared,
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;

use super::{State, consumers, fault::Fault, operations, push, read, response, write};

/// 10 MiB of data are 14 MiB of base64; 500 partition keys and hash keys, escaped, are 2 MiB.
const MAX_BODY_BYTES: usize = 20 * 1024 * 1024;
const TARGET_PREFIX: &str = "Kinesis_20131202.";

pub(crate) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/", post(serve).fallback(not_the_protocol))
        .fallback(not_the_protocol)
        .with_state(state)
}

async fn serve(Shared(state): Shared<Arc<State>>, headers: HeaderMap, body: Body) -> Response {
    let answer = async {
        let target = target(&headers)?;
        let body = axum::body::to_bytes(body, MAX_BODY_BYTES)
            .await
            .map_err(|error| {
                Fault::invalid(format!(
                    "cannot read the request, which has at most {MAX_BODY_BYTES} bytes: {error}"
                ))
            })?;
        if target == "SubscribeToShard" {
            return push::subscribe(&state, &body);
        }
        let answer = dispatch(&state, target, &body)?;
        Ok(response::json(StatusCode::OK, answer))
    };
    match answer.await {
        Ok(response) => response,
        Err(fault) => fault.into_response(),
    }
}

async fn not_the_protocol() -> Fault {
    Fault::new(
        "UnknownOperationException",
        "this server speaks AWS JSON 1.1: `POST /` with the header `X-Amz-Target: Kinesis_20131202.<Operation>`",
    )
}

/// The operation's name, of a request in the one protocol spoken here.
fn target(headers: &HeaderMap) -> Result<&str, Fault> {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    if text(CONTENT_TYPE.as_str()).contains("cbor") || text("smithy-protocol").contains("cbor") {
        return Err(Fault::serialization(
            "this server does not speak CBOR: make the client send JSON 1.1 (for the Java SDK set \
             `AWS_CBOR_DISABLE=true` or `-Daws.cborEnabled=false`)",
        ));
    }
    match text("x-amz-target") {
        "" => Err(Fault::new(
            "MissingActionException",
            "the header `X-Amz-Target` is missing",
        )),
        target => target
            .strip_prefix(TARGET_PREFIX)
            .ok_or_else(|| unknown(target)),
    }
}

fn unknown(target: &str) -> Fault {
    let target: String = target.chars().take(80).collect();
    Fault::new(
        "UnknownOperationException",
        format!(
            "`{target}` is not one of the operations that the local Kinesis knows; its README lists them"
        ),
    )
}

fn dispatch(state: &State, target: &str, body: &Bytes) -> Result<Bytes, Fault> {
    let answer = operate(state, target, body);
    if !target.starts_with("Get") && !target.starts_with("List") {
        state.changed.notify_waiters();
    }
    answer
}

fn operate(state: &State, target: &str, body: &Bytes) -> Result<Bytes, Fault> {
    match target {
        "PutRecords" => write::put_records(state, body),
        "PutRecord" => write::put_record(state, body),
        "GetRecords" => read::get_records(state, body),
        "GetShardIterator" => read::get_shard_iterator(state, body),
        "CreateStream" => operations::create_stream(state, body),
        "DeleteStream" => operations::delete_stream(state, body),
        "DescribeStream" => operations::describe_stream(state, body),
        "DescribeStreamSummary" => operations::describe_stream_summary(state, body),
        "ListStreams" => operations::list_streams(state, body),
        "ListShards" => operations::list_shards(state, body),
        "SplitShard" => operations::split_shard(state, body),
        "MergeShards" => operations::merge_shards(state, body),
        "UpdateShardCount" => operations::update_shard_count(state, body),
        "IncreaseStreamRetentionPeriod" => operations::increase_retention(state, body),
        "DecreaseStreamRetentionPeriod" => operations::decrease_retention(state, body),
        "UpdateStreamMode" => operations::update_stream_mode(state, body),
        "RegisterStreamConsumer" => consumers::register(state, body),
        "DeregisterStreamConsumer" => consumers::deregister(state, body),
        "DescribeStreamConsumer" => consumers::describe(state, body),
        "ListStreamConsumers" => consumers::list(state, body),
        "UpdateMaxRecordSize" => operations::update_max_record_size(state, body),
        other => Err(unknown(other)),
    }
}
