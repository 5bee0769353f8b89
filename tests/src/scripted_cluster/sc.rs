//! The SC: topics, partitions, SPUs and SmartModules, as objects to list, create and delete.

use fluvio_controlplane_metadata::partition::{
    PartitionResolution, PartitionSpec, PartitionStatus, ReplicaStatus,
};
use fluvio_controlplane_metadata::smartmodule::SmartModuleSpec;
use fluvio_controlplane_metadata::spu::{IngressPort, SpuSpec};
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_protocol::Encoder;
use fluvio_protocol::api::{RequestHeader, ResponseMessage};
use fluvio_protocol::link::ErrorCode;
use fluvio_sc_schema::objects::{
    CreateRequest, DeleteRequest, ListRequest, ListResponse, Metadata, ObjectApiCreateRequest,
    ObjectApiDeleteRequest, ObjectApiListRequest, ObjectApiListResponse,
};
use fluvio_sc_schema::{AdminPublicApiKey, AdminPublicDecodedRequest, Status, TryEncodableFrom};
use fluvio_socket::{FluvioSink, FluvioSocket};

use super::fault::Server;
use super::log::Log;
use super::state::{State, StoredTopic};
use super::versions;

/// The only SPU.
const SPU: i32 = 5001;

/// Answers the requests of one connection, one after the other.
pub(super) async fn serve(socket: FluvioSocket, state: &State) -> anyhow::Result<()> {
    let (mut sink, mut stream) = socket.split();
    loop {
        let request = stream.next_api_item::<AdminPublicDecodedRequest, AdminPublicApiKey>();
        let Some(request) = request.await else {
            return Ok(());
        };
        match request? {
            AdminPublicDecodedRequest::ApiVersionsRequest(request) => {
                let response = versions::answer(Server::Sc, state, &request.request)?;
                send(&mut sink, &request.header, response).await?;
            }
            AdminPublicDecodedRequest::ListRequest(request) => {
                let version = request.header.api_version();
                let response = list(state, &request.request, version)?;
                send(&mut sink, &request.header, response).await?;
            }
            AdminPublicDecodedRequest::CreateRequest(request) => {
                let response = create(state, &request.request)?;
                send(&mut sink, &request.header, response).await?;
            }
            AdminPublicDecodedRequest::DeleteRequest(request) => {
                let response = delete(state, &request.request)?;
                send(&mut sink, &request.header, response).await?;
            }
            other => anyhow::bail!("the scripted SC does not speak {other:?}"),
        }
    }
}

async fn send<P>(sink: &mut FluvioSink, header: &RequestHeader, response: P) -> anyhow::Result<()>
where
    P: Encoder + Default + std::fmt::Debug,
{
    let message = ResponseMessage::from_header(header, response);
    sink.send_response(&message, header.api_version()).await?;
    Ok(())
}

fn list(
    state: &State,
    request: &ObjectApiListRequest,
    version: i16,
) -> anyhow::Result<ObjectApiListResponse> {
    let contents = state.lock();
    let topic_list: Option<ListRequest<TopicSpec>> = request.downcast()?;
    if topic_list.is_some() {
        let topics = contents.topics.iter().map(|(name, topic)| Metadata {
            name: name.clone(),
            spec: topic.spec.clone(),
            ..Metadata::default()
        });
        let list: ListResponse<TopicSpec> = ListResponse::new(topics.collect());
        return ObjectApiListResponse::try_encode_from(list, version);
    }
    let partition_list: Option<ListRequest<PartitionSpec>> = request.downcast()?;
    if partition_list.is_some() {
        let partitions = contents.topics.iter().flat_map(|(name, topic)| {
            let logs = topic.partitions.iter().enumerate();
            logs.map(move |(index, log)| partition(format!("{name}-{index}"), log))
        });
        let list: ListResponse<PartitionSpec> = ListResponse::new(partitions.collect());
        return ObjectApiListResponse::try_encode_from(list, version);
    }
    let module_list: Option<ListRequest<SmartModuleSpec>> = request.downcast()?;
    if module_list.is_some() {
        let modules = contents.modules.iter().map(|(name, spec)| Metadata {
            name: name.clone(),
            spec: spec.clone(),
            ..Metadata::default()
        });
        let list: ListResponse<SmartModuleSpec> = ListResponse::new(modules.collect());
        return ObjectApiListResponse::try_encode_from(list, version);
    }
    let spu_list: Option<ListRequest<SpuSpec>> = request.downcast()?;
    anyhow::ensure!(spu_list.is_some(), "the scripted SC does not list that");
    let spu = Metadata {
        name: format!("custom-spu-{SPU}"),
        spec: SpuSpec {
            id: SPU,
            public_endpoint: IngressPort::from_port_host(contents.spu_port, "127.0.0.1".into()),
            ..SpuSpec::default()
        },
        ..Metadata::default()
    };
    let list: ListResponse<SpuSpec> = ListResponse::new(vec![spu]);
    ObjectApiListResponse::try_encode_from(list, version)
}

fn partition(name: String, log: &Log) -> Metadata<PartitionSpec> {
    let (hw, leo) = (log.end(), log.end());
    let leader = ReplicaStatus { spu: SPU, hw, leo };
    let mut status = PartitionStatus::leader(leader);
    status.resolution = PartitionResolution::Online;
    Metadata {
        name,
        spec: PartitionSpec::new(SPU, vec![SPU]),
        status,
    }
}

fn create(state: &State, request: &ObjectApiCreateRequest) -> anyhow::Result<Status> {
    let mut contents = state.lock();
    let topic: Option<CreateRequest<TopicSpec>> = request.downcast()?;
    if let Some(CreateRequest {
        common,
        request: spec,
    }) = topic
    {
        if contents.topics.contains_key(&common.name) {
            return Ok(refused(common.name, ErrorCode::TopicAlreadyExists));
        }
        let storage = spec.get_storage().and_then(|storage| storage.segment_size);
        let segment = usize::try_from(storage.unwrap_or(u32::MAX))?;
        let partitions = (0..spec.partitions()).map(|_| Log::new(segment)).collect();
        let topic = StoredTopic { spec, partitions };
        contents.topics.insert(common.name.clone(), topic);
        return Ok(Status::new_ok(common.name));
    }
    let module: Option<CreateRequest<SmartModuleSpec>> = request.downcast()?;
    let module = module.ok_or_else(|| anyhow::anyhow!("the scripted SC does not create that"))?;
    contents
        .modules
        .insert(module.common.name.clone(), module.request);
    Ok(Status::new_ok(module.common.name))
}

fn delete(state: &State, request: &ObjectApiDeleteRequest) -> anyhow::Result<Status> {
    let mut contents = state.lock();
    let topic: Option<DeleteRequest<TopicSpec>> = request.downcast()?;
    if let Some(topic) = topic {
        let name = topic.key();
        return Ok(match contents.topics.remove(&name) {
            Some(_) => Status::new_ok(name),
            None => refused(name, ErrorCode::TopicNotFound),
        });
    }
    let module: Option<DeleteRequest<SmartModuleSpec>> = request.downcast()?;
    let module = module.ok_or_else(|| anyhow::anyhow!("the scripted SC does not delete that"))?;
    let name = module.key();
    Ok(match contents.modules.remove(&name) {
        Some(_) => Status::new_ok(name),
        None => refused(name.clone(), ErrorCode::SmartModuleNotFound { name }),
    })
}

fn refused(name: String, code: ErrorCode) -> Status {
    let message = code.to_string();
    Status::new(name, code, Some(message))
}
