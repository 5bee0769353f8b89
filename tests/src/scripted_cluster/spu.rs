//! The SPU: produce, streams, offsets.

use std::collections::HashMap;
use std::sync::Arc;

use fluvio_compression::Compression;
use fluvio_controlplane_metadata::topic::CompressionAlgorithm;
use fluvio_protocol::Encoder;
use fluvio_protocol::api::{RequestHeader, ResponseMessage};
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::record::{Offset, RawRecords, RecordSet, ReplicaKey};
use fluvio_socket::{ExclusiveFlvSink, FluvioSocket};
use fluvio_spu_schema::produce::{
    DefaultPartitionRequest, DefaultProduceRequest, PartitionProduceResponse, ProduceResponse,
    TopicProduceResponse,
};
use fluvio_spu_schema::server::consumer_offset::{
    ConsumerOffset, FetchConsumerOffsetsResponse, UpdateConsumerOffsetRequest,
    UpdateConsumerOffsetResponse,
};
use fluvio_spu_schema::server::fetch_offset::{
    FetchOffsetPartitionResponse, FetchOffsetTopicResponse, FetchOffsetsRequest,
    FetchOffsetsResponse,
};
use fluvio_spu_schema::server::stream_fetch::{FileStreamFetchRequest, StreamFetchResponse};
use fluvio_spu_schema::server::update_offset::{
    OffsetUpdateStatus, UpdateOffsetsRequest, UpdateOffsetsResponse,
};
use fluvio_spu_schema::server::{SpuServerApiKey, SpuServerRequest};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::fault::{Fault, Server};
use super::slice::LogSlice;
use super::state::State;
use super::stream::Stream;
use super::versions;

/// A stream as its connection knows it.
struct Session {
    acknowledged: watch::Sender<Offset>,
    topic: String,
    partition: u32,
    consumer: Option<String>,
}

/// One connection.
struct Connection {
    state: Arc<State>,
    sink: ExclusiveFlvSink,
    sessions: HashMap<u32, Session>,
    /// Ended with the connection.
    streams: JoinSet<()>,
}

/// Whether a topic takes batches that are compressed so.
fn takes(taken: &CompressionAlgorithm, records: &RecordSet<RawRecords>) -> bool {
    let wanted = match taken {
        CompressionAlgorithm::Any => return true,
        CompressionAlgorithm::None => Compression::None,
        CompressionAlgorithm::Gzip => Compression::Gzip,
        CompressionAlgorithm::Snappy => Compression::Snappy,
        CompressionAlgorithm::Lz4 => Compression::Lz4,
        CompressionAlgorithm::Zstd => Compression::Zstd,
    };
    let mut batches = records.batches.iter();
    batches.all(|batch| batch.get_compression().is_ok_and(|sent| sent == wanted))
}

/// Answers the requests of one connection, one after the other.
pub(super) async fn serve(socket: FluvioSocket, state: &Arc<State>) -> anyhow::Result<()> {
    let (sink, mut stream) = socket.split();
    let mut connection = Connection {
        state: Arc::clone(state),
        sink: sink.as_shared(),
        sessions: HashMap::new(),
        streams: JoinSet::new(),
    };
    loop {
        let request = stream.next_api_item::<SpuServerRequest, SpuServerApiKey>();
        let Some(request) = request.await else {
            return Ok(());
        };
        if connection.answer(request?).await?.is_none() {
            return Ok(());
        }
    }
}

impl Connection {
    /// `None`: the connection is to be cut.
    async fn answer(&mut self, request: SpuServerRequest) -> anyhow::Result<Option<()>> {
        match request {
            SpuServerRequest::ApiVersionsRequest(request) => {
                let response = versions::answer(Server::Spu, &self.state, &request.request)?;
                self.send(&request.header, response).await?;
            }
            SpuServerRequest::ProduceRequest(request) => {
                let response = self.produce(request.request)?;
                if self.state.is_due(&Fault::AnswerLost) {
                    return Ok(None);
                }
                self.send(&request.header, response).await?;
            }
            SpuServerRequest::FileStreamFetchRequest(request) => {
                self.open(request.header, request.request).await?;
            }
            SpuServerRequest::UpdateOffsetsRequest(request) => {
                let response = self.acknowledge(&request.request);
                self.send(&request.header, response).await?;
            }
            SpuServerRequest::FetchOffsetsRequest(request) => {
                let response = self.offsets(&request.request);
                self.send(&request.header, response).await?;
            }
            SpuServerRequest::UpdateConsumerOffsetRequest(request) => {
                let response = self.commit(&request.request);
                self.send(&request.header, response).await?;
            }
            SpuServerRequest::FetchConsumerOffsetsRequest(request) => {
                let response = self.committed();
                self.send(&request.header, response).await?;
            }
            other => anyhow::bail!("the scripted SPU does not speak {other}"),
        }
        Ok(Some(()))
    }

    async fn send<P>(&self, header: &RequestHeader, response: P) -> anyhow::Result<()>
    where
        P: Encoder + Default + std::fmt::Debug,
    {
        let message = ResponseMessage::from_header(header, response);
        let mut sink = self.sink.lock().await;
        sink.send_response(&message, header.api_version()).await?;
        Ok(())
    }

    fn produce(&self, request: DefaultProduceRequest) -> anyhow::Result<ProduceResponse> {
        let mut response = ProduceResponse::default();
        for topic in request.topics {
            let mut answers = TopicProduceResponse::default();
            for partition in topic.partitions {
                let answer = self.store(&topic.name, partition)?;
                answers.partitions.push(answer);
            }
            answers.name = topic.name;
            response.responses.push(answers);
        }
        self.state.has_grown();
        Ok(response)
    }

    fn store(
        &self,
        topic: &str,
        request: DefaultPartitionRequest,
    ) -> anyhow::Result<PartitionProduceResponse> {
        let mut answer = PartitionProduceResponse {
            partition_index: request.partition_index,
            base_offset: -1,
            ..PartitionProduceResponse::default()
        };
        let mut contents = self.state.lock();
        answer.error_code = contents
            .script
            .take(|fault| match fault {
                Fault::ProduceError(code) => Some(code.clone()),
                Fault::ProduceNotLeader => Some(ErrorCode::NotLeaderForPartition),
                _ => None,
            })
            .unwrap_or(ErrorCode::None);
        if answer.error_code != ErrorCode::None {
            return Ok(answer);
        }
        let taken = contents
            .topics
            .get(topic)
            .map(|topic| topic.spec.get_compression_type());
        if taken.is_some_and(|taken| !takes(taken, &request.records)) {
            answer.error_code = ErrorCode::CompressionError;
            return Ok(answer);
        }
        match contents.log(topic, request.partition_index) {
            Some(log) => answer.base_offset = log.append(request.records)?,
            None => answer.error_code = ErrorCode::NotLeaderForPartition,
        }
        Ok(answer)
    }

    async fn open(
        &mut self,
        header: RequestHeader,
        request: FileStreamFetchRequest,
    ) -> anyhow::Result<()> {
        let leads = {
            let mut contents = self.state.lock();
            contents.streams += u64::from(!request.smartmodules.is_empty());
            let stored = contents.log(&request.topic, request.partition).is_some();
            stored && !contents.script.is_due(&Fault::StreamNotLeader)
        };
        if !leads {
            let mut response = StreamFetchResponse::<LogSlice> {
                topic: request.topic,
                ..StreamFetchResponse::default()
            };
            response.partition.partition_index = request.partition;
            response.partition.error_code = ErrorCode::NotLeaderForPartition;
            return self.send(&header, response).await;
        }
        if self.state.is_due(&Fault::SilentStream) {
            return Ok(());
        }
        let (acknowledged, acknowledgements) = watch::channel(-1);
        // The SPU counts the streams of a connection from 1.
        let id = u32::try_from(self.sessions.len())? + 1;
        let session = Session {
            acknowledged,
            topic: request.topic.clone(),
            partition: request.partition,
            consumer: request.consumer_id.clone(),
        };
        self.sessions.insert(id, session);
        let stream = Stream {
            state: Arc::clone(&self.state),
            sink: self.sink.clone(),
            header,
            id,
            acknowledgements,
        };
        self.streams.spawn(stream.run(request));
        Ok(())
    }

    fn acknowledge(&self, request: &UpdateOffsetsRequest) -> UpdateOffsetsResponse {
        let status = request.offsets.iter().map(|update| {
            let session = self.sessions.get(&update.session_id);
            let error = session.map_or(ErrorCode::FetchSessionNotFoud, |session| {
                session.acknowledged.send_replace(update.offset);
                ErrorCode::None
            });
            OffsetUpdateStatus {
                session_id: update.session_id,
                error,
            }
        });
        UpdateOffsetsResponse {
            status: status.collect(),
        }
    }

    fn offsets(&self, request: &FetchOffsetsRequest) -> FetchOffsetsResponse {
        let mut contents = self.state.lock();
        let mut response = FetchOffsetsResponse::default();
        for topic in &request.topics {
            let mut answers = FetchOffsetTopicResponse {
                name: topic.name.clone(),
                ..FetchOffsetTopicResponse::default()
            };
            for partition in &topic.partitions {
                let log = contents.log(&topic.name, partition.partition_index);
                let end = log.map(|log| log.end());
                answers.partitions.push(FetchOffsetPartitionResponse {
                    error_code: end.map_or(ErrorCode::PartitionNotLeader, |_| ErrorCode::None),
                    partition_index: partition.partition_index,
                    start_offset: 0,
                    last_stable_offset: end.unwrap_or_default(),
                });
            }
            response.topics.push(answers);
        }
        response
    }

    fn commit(&self, request: &UpdateConsumerOffsetRequest) -> UpdateConsumerOffsetResponse {
        let refused = |error_code| UpdateConsumerOffsetResponse {
            offset: 0,
            error_code,
        };
        let Some(session) = self.sessions.get(&request.session_id) else {
            return refused(ErrorCode::FetchSessionNotFoud);
        };
        let Some(consumer) = session.consumer.clone() else {
            return refused(ErrorCode::Other("stream without consumer id".into()));
        };
        let key = (session.topic.clone(), session.partition, consumer);
        let offset = request.offset;
        self.state.lock().consumer_offsets.insert(key, offset);
        UpdateConsumerOffsetResponse {
            offset,
            error_code: ErrorCode::None,
        }
    }

    fn committed(&self) -> FetchConsumerOffsetsResponse {
        let contents = self.state.lock();
        let consumers = contents.consumer_offsets.iter();
        let consumers = consumers.map(|((topic, partition, consumer), offset)| {
            let replica = ReplicaKey::new(topic.clone(), *partition);
            ConsumerOffset::new(consumer.clone(), replica, *offset, 0)
        });
        FetchConsumerOffsetsResponse {
            error_code: ErrorCode::None,
            consumers: consumers.collect(),
        }
    }
}
