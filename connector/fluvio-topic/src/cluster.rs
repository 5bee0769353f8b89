//! Administration: objects of the SC, and what only SPUs can tell.

use std::fmt::Debug;
use std::sync::Arc;

use fluvio::FluvioClusterConfig;
use fluvio_controlplane_metadata::partition::PartitionSpec;
use fluvio_controlplane_metadata::smartmodule::{SmartModuleSpec, SmartModuleWasm};
use fluvio_controlplane_metadata::spu::SpuSpec;
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::{Decoder, Encoder};
use fluvio_sc_schema::objects::{
    CommonCreateRequest, CreateRequest, DeleteRequest, ListRequest, ListResponse, Metadata,
    ObjectApiCreateRequest, ObjectApiDeleteRequest, ObjectApiListRequest,
};
use fluvio_sc_schema::{
    AdminSpec, CreatableAdminSpec, DeletableAdminSpec, Status, TryEncodableFrom as _,
};
use fluvio_spu_schema::server::consumer_offset::FetchConsumerOffsetsRequest;
use tokio::sync::Mutex;

use crate::connection::Connection;
use crate::description::{ConsumerOffset, PartitionDescription, SmartModuleDescription};
use crate::error::ClusterError;
use crate::limits::REQUEST;
use crate::settings::ClusterSettings;
use crate::smart_module::digest;
use crate::tls::Tls;
use crate::topic::{FluvioTopic, TopicOptions};

/// A Fluvio cluster; cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

impl Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("endpoint", &self.inner.config.endpoint)
            .finish()
    }
}

/// An SPU as the SC lists it.
pub(crate) struct Spu {
    pub id: i32,
    /// Its object's name, the first label of its certificate's name.
    pub name: String,
    /// `host:port`.
    pub address: String,
}

struct Inner {
    config: FluvioClusterConfig,
    tls: Option<Tls>,
    sc: Mutex<Option<Connection>>,
}

impl Cluster {
    /// Connects to the SC and checks that it speaks what is needed. Takes at most 10 s.
    ///
    /// # Errors
    /// No profile, TLS settings that cannot be used or are not accepted, nothing that answers, or a
    /// server of another version.
    pub async fn connect(settings: &ClusterSettings) -> Result<Self, ClusterError> {
        let config = settings.resolve()?;
        let tls = Tls::new(&config.tls).map_err(|reason| ClusterError::TlsSettings {
            address: config.endpoint.clone(),
            reason,
        })?;
        let sc = Connection::open(tls.as_ref(), &config.endpoint, None).await?;
        sc.version::<ObjectApiListRequest>("object list")?;
        sc.version::<ObjectApiCreateRequest>("object create")?;
        sc.version::<ObjectApiDeleteRequest>("object delete")?;
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                tls,
                sc: Mutex::new(Some(sc)),
            }),
        })
    }

    /// `host:port` of the SC.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.inner.config.endpoint
    }

    /// The partitions of a topic in order; empty while it is being made.
    ///
    /// # Errors
    /// When the SC cannot be reached or refuses.
    pub async fn partitions(&self, topic: &str) -> Result<Vec<PartitionDescription>, ClusterError> {
        let found = self.list::<PartitionSpec>(topic, true).await?;
        let mut partitions: Vec<_> = found
            .into_iter()
            .filter_map(|partition| {
                // Named `topic-3`; a filter also finds those of `topic-x`.
                let (of, index) = partition.name.rsplit_once('-')?;
                let id = index.parse().ok().filter(|_| of == topic)?;
                let status = &partition.status;
                Some(PartitionDescription {
                    id,
                    leader: partition.spec.leader,
                    base_offset: status.base_offset.try_into().unwrap_or_default(),
                    high_watermark: status.leader.hw.try_into().unwrap_or_default(),
                    log_end: status.leader.leo.try_into().unwrap_or_default(),
                    online: status.is_online(),
                })
            })
            .collect();
        partitions.sort_unstable_by_key(|partition| partition.id);
        Ok(partitions)
    }

    /// A SmartModule by the name it is kept under, if it is there.
    ///
    /// # Errors
    /// When the SC cannot be reached, or what it holds cannot be read.
    pub async fn smartmodule(
        &self,
        name: &str,
    ) -> Result<Option<SmartModuleDescription>, ClusterError> {
        let found = self.list::<SmartModuleSpec>(name, false).await?;
        let Some(module) = found.into_iter().find(|module| module.name == name) else {
            return Ok(None);
        };
        let wasm = module.spec.wasm.as_raw_wasm();
        let wasm = wasm.map_err(|error| ClusterError::Refused {
            what: format!("show SmartModule `{name}`"),
            reason: format!("its WebAssembly cannot be unpacked: {error}"),
        })?;
        Ok(Some(SmartModuleDescription {
            name: module.name,
            digest: digest(&wasm),
        }))
    }

    /// Creates a SmartModule, or puts another in its place.
    ///
    /// # Errors
    /// When the SC cannot be reached or refuses.
    pub async fn upload_smartmodule(&self, name: &str, wasm: &[u8]) -> Result<(), ClusterError> {
        let what = format!("upload SmartModule `{name}`");
        let wasm = SmartModuleWasm::from_raw_wasm_bytes(wasm);
        let wasm = wasm.map_err(|error| ClusterError::Refused {
            what: what.clone(),
            reason: error.to_string(),
        })?;
        let spec = SmartModuleSpec {
            wasm,
            ..Default::default()
        };
        self.create(name, spec, what).await
    }

    /// Deletes a SmartModule.
    ///
    /// # Errors
    /// When it is not there or the SC cannot be reached.
    pub async fn delete_smartmodule(&self, name: &str) -> Result<(), ClusterError> {
        let request = DeleteRequest::<SmartModuleSpec>::new(name.to_owned());
        self.delete(request, format!("delete SmartModule `{name}`"))
            .await
    }

    /// How far every consumer has said to be, [`millpond_connector::topic::Topic::release`]
    /// among them.
    ///
    /// # Errors
    /// When no SPU that keeps them can be reached.
    pub async fn consumer_offsets(&self) -> Result<Vec<ConsumerOffset>, ClusterError> {
        // Only the leader of their topic has them; another SPU may be away.
        let mut away = None;
        for spu in self.spus().await? {
            match self.offsets_of(&spu).await {
                Ok(Some(offsets)) => return Ok(offsets),
                Ok(None) => {}
                Err(error) if error.is_transient() => away = Some(error),
                Err(error) => return Err(error),
            }
        }
        // Nobody has stored any: the topic of consumer offsets is made by the first.
        away.map_or_else(|| Ok(Vec::new()), Err)
    }

    /// `None`: it does not keep them.
    async fn offsets_of(&self, spu: &Spu) -> Result<Option<Vec<ConsumerOffset>>, ClusterError> {
        let connection = self.open(spu).await?;
        let version = connection.offset_version("fetch consumer offsets")?;
        let request = FetchConsumerOffsetsRequest::default();
        let answer = connection.request_as(request, version, REQUEST).await?;
        match answer.error_code {
            ErrorCode::None => {}
            ErrorCode::PartitionNotLeader => return Ok(None),
            code => {
                return Err(ClusterError::Refused {
                    what: "list consumer offsets".into(),
                    reason: code.to_string(),
                });
            }
        }
        let offsets = answer.consumers.into_iter().map(|consumer| ConsumerOffset {
            topic: consumer.replica_id.topic,
            partition: consumer.replica_id.partition,
            consumer: consumer.consumer_id,
            // Fluvio keeps the last offset that is done with.
            offset: u64::try_from(consumer.offset.saturating_add(1)).unwrap_or_default(),
        });
        Ok(Some(offsets.collect()))
    }

    /// Opens a topic for reading and writing.
    ///
    /// # Errors
    /// When it does not exist, has no partitions in time, or the SC cannot be reached.
    pub async fn open_topic(
        &self,
        name: &str,
        options: TopicOptions,
    ) -> Result<FluvioTopic, ClusterError> {
        FluvioTopic::open(self.clone(), name, options).await
    }

    /// Connects to an SPU.
    pub(crate) async fn open(&self, spu: &Spu) -> Result<Connection, ClusterError> {
        Connection::open(self.inner.tls.as_ref(), &spu.address, Some(&spu.name)).await
    }

    /// The SPUs, whether online or not.
    pub(crate) async fn spus(&self) -> Result<Vec<Spu>, ClusterError> {
        let local = self.inner.config.use_spu_local_address;
        let spus = self.list::<SpuSpec>("", true).await?;
        Ok(spus
            .into_iter()
            .map(|spu| {
                let spec = spu.spec;
                let address = match &spec.public_endpoint_local {
                    Some(endpoint) if local => format!("{}:{}", endpoint.host, endpoint.port),
                    _ => spec.public_endpoint.addr(),
                };
                Spu {
                    id: spec.id,
                    name: spu.name,
                    address,
                }
            })
            .collect())
    }

    /// The SPU that leads a partition now.
    pub(crate) async fn leader(&self, topic: &str, partition: u32) -> Result<Spu, ClusterError> {
        let partitions = self.partitions(topic).await?;
        if partitions.is_empty() {
            return Err(ClusterError::NoTopic {
                topic: topic.to_owned(),
            });
        }
        let no_leader = || ClusterError::NoLeader {
            topic: topic.to_owned(),
            partition,
        };
        let leader = partitions
            .iter()
            .find(|found| found.id == partition)
            .ok_or_else(no_leader)?
            .leader;
        let mut spus = self.spus().await?.into_iter();
        spus.find(|spu| spu.id == leader).ok_or_else(no_leader)
    }

    /// The SC's connection, made anew when it is broken.
    async fn sc(&self) -> Result<Connection, ClusterError> {
        let mut slot = self.inner.sc.lock().await;
        if let Some(open) = slot.as_ref().filter(|open| !open.is_stale()) {
            return Ok(open.clone());
        }
        let tls = self.inner.tls.as_ref();
        let fresh = Connection::open(tls, &self.inner.config.endpoint, None).await?;
        *slot = Some(fresh.clone());
        Ok(fresh)
    }

    /// Objects of one kind whose name contains `name`; listing changes nothing, so that a broken
    /// connection is tried once more.
    pub(crate) async fn list<S>(
        &self,
        name: &str,
        summary: bool,
    ) -> Result<Vec<Metadata<S>>, ClusterError>
    where
        S: AdminSpec + Encoder + Decoder + Debug + Send + Sync,
        S::Status: Encoder + Decoder + Debug,
    {
        match self.list_once(name, summary).await {
            Err(ClusterError::Unreachable { .. }) => self.list_once(name, summary).await,
            other => other,
        }
    }

    async fn list_once<S>(
        &self,
        name: &str,
        summary: bool,
    ) -> Result<Vec<Metadata<S>>, ClusterError>
    where
        S: AdminSpec + Encoder + Decoder + Debug + Send + Sync,
        S::Status: Encoder + Decoder + Debug,
    {
        let sc = self.sc().await?;
        let unreadable = |reason: String| ClusterError::Refused {
            what: format!("list objects of type {}", S::LABEL),
            reason,
        };
        let version = sc.version::<ObjectApiListRequest>("object list")?;
        let request = ListRequest::<S>::new(name, summary);
        let request = ObjectApiListRequest::try_encode_from(request, version)
            .map_err(|error| unreadable(error.to_string()))?;
        let answer = sc.request_as(request, version, REQUEST).await?;
        let objects: Option<ListResponse<S>> = answer
            .downcast()
            .map_err(|error| unreadable(error.to_string()))?;
        objects
            .map(ListResponse::inner)
            .ok_or_else(|| unreadable("the answer is of another type".into()))
    }

    pub(crate) async fn create<S>(
        &self,
        name: &str,
        spec: S,
        what: String,
    ) -> Result<(), ClusterError>
    where
        S: CreatableAdminSpec + Encoder + Decoder + Debug + Send + Sync,
    {
        let sc = self.sc().await?;
        let version = sc.version::<ObjectApiCreateRequest>("object create")?;
        let common = CommonCreateRequest {
            name: name.to_owned(),
            ..Default::default()
        };
        let request = CreateRequest::new(common, spec);
        let request = ObjectApiCreateRequest::try_encode_from(request, version);
        let request = request.map_err(|error| ClusterError::Refused {
            what: what.clone(),
            reason: error.to_string(),
        })?;
        let status = sc.request_as(request, version, REQUEST).await?;
        accepted(status, what)
    }

    pub(crate) async fn delete<S>(
        &self,
        request: DeleteRequest<S>,
        what: String,
    ) -> Result<(), ClusterError>
    where
        S: DeletableAdminSpec + Debug + Send + Sync,
        DeleteRequest<S>: Encoder + Decoder + Debug,
    {
        let sc = self.sc().await?;
        let version = sc.version::<ObjectApiDeleteRequest>("object delete")?;
        let request = ObjectApiDeleteRequest::try_encode_from(request, version);
        let request = request.map_err(|error| ClusterError::Refused {
            what: what.clone(),
            reason: error.to_string(),
        })?;
        let status = sc.request_as(request, version, REQUEST).await?;
        accepted(status, what)
    }

    /// Registers an SPU, as a test cluster needs it.
    #[cfg(feature = "testing")]
    pub(crate) async fn register_spu(
        &self,
        id: i32,
        public: u16,
        private: u16,
    ) -> Result<(), ClusterError> {
        use fluvio_controlplane_metadata::spu::{CustomSpuSpec, Endpoint, IngressPort};
        let host = "127.0.0.1".to_owned();
        let spec = CustomSpuSpec {
            id,
            public_endpoint: IngressPort::from_port_host(public, host.clone()),
            private_endpoint: Endpoint::from_port_host(private, host),
            rack: None,
            public_endpoint_local: None,
        };
        let what = format!("register SPU {id}");
        self.create(&format!("custom-spu-{id}"), spec, what).await
    }

    /// True once an SPU says that it is there.
    #[cfg(feature = "testing")]
    pub(crate) async fn is_spu_online(&self, id: i32) -> Result<bool, ClusterError> {
        let spus = self.list::<SpuSpec>("", true).await?;
        Ok(spus
            .iter()
            .any(|spu| spu.spec.id == id && spu.status.is_online()))
    }
}

fn accepted(status: Status, what: String) -> Result<(), ClusterError> {
    match status.error_code {
        ErrorCode::None => Ok(()),
        code => Err(ClusterError::Refused {
            what,
            reason: status.error_message.unwrap_or_else(|| code.to_string()),
        }),
    }
}
