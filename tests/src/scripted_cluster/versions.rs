//! What a server says that it speaks.

use fluvio_protocol::api::Request;
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::link::versions::{ApiVersionKey, ApiVersionsRequest, ApiVersionsResponse};
use fluvio_protocol::{Decoder as _, Encoder as _};
use fluvio_sc_schema::objects::{
    ObjectApiCreateRequest, ObjectApiDeleteRequest, ObjectApiListRequest,
};
use fluvio_spu_schema::produce::DefaultProduceRequest;
use fluvio_spu_schema::server::fetch_offset::FetchOffsetsRequest;
use fluvio_spu_schema::server::stream_fetch::DefaultStreamFetchRequest;
use fluvio_spu_schema::server::update_offset::UpdateOffsetsRequest;

use super::fault::{Fault, Server};
use super::state::State;

/// The version of the real servers that these are like.
const PLATFORM: &str = "0.50.1";

/// A version with a wholly other protocol.
const OTHER_PLATFORM: &str = "0.9.0";

/// Answers the first request of a connection.
pub(super) fn answer(
    server: Server,
    state: &State,
    _request: &ApiVersionsRequest,
) -> std::io::Result<ApiVersionsResponse> {
    if state.is_due(&Fault::OtherVersion(server)) {
        return response(Vec::new(), OTHER_PLATFORM);
    }
    let keys = match server {
        Server::Sc => vec![
            key::<ObjectApiCreateRequest>(ObjectApiCreateRequest::MIN_API_VERSION),
            key::<ObjectApiDeleteRequest>(ObjectApiDeleteRequest::MIN_API_VERSION),
            key::<ObjectApiListRequest>(ObjectApiListRequest::MIN_API_VERSION),
        ],
        // The real one answers requests about consumer offsets too, and does not say so here.
        Server::Spu => vec![
            key::<DefaultProduceRequest>(DefaultProduceRequest::MIN_API_VERSION),
            key::<FetchOffsetsRequest>(FetchOffsetsRequest::DEFAULT_API_VERSION),
            key::<DefaultStreamFetchRequest>(0),
            key::<UpdateOffsetsRequest>(0),
        ],
    };
    response(keys, PLATFORM)
}

fn key<R: Request>(min_version: i16) -> ApiVersionKey {
    ApiVersionKey {
        api_key: R::API_KEY.cast_signed(),
        min_version,
        max_version: R::MAX_API_VERSION,
    }
}

/// The platform version has no other maker than its decoder, without a crate for version numbers.
fn response(api_keys: Vec<ApiVersionKey>, platform: &str) -> std::io::Result<ApiVersionsResponse> {
    let mut response = ApiVersionsResponse {
        error_code: ErrorCode::None,
        api_keys,
        ..ApiVersionsResponse::default()
    };
    let mut encoded = Vec::new();
    platform.to_owned().encode(&mut encoded, 0)?;
    response
        .platform_version
        .decode(&mut encoded.as_slice(), 0)?;
    Ok(response)
}
