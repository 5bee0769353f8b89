//! Consumer offsets: how far a sink says it has come, kept by the cluster.
//!
//! An SPU takes a consumer offset only on the connection of a stream that was opened under the
//! consumer's name (`handle_update` of its `consumer_handler.rs`). So one stream is opened for each
//! consumer and partition at the end of the log, with one byte of room: nothing is read through it.
//! Streams of a connection are numbered from 1 (`StreamPublishers::next_stream_id`), and requests
//! of a connection are worked off in order, so that its number is known without an answer.

use std::collections::HashMap;
use std::sync::Arc;

use fluvio_protocol::link::ErrorCode;
use fluvio_socket::AsyncResponse;
use fluvio_spu_schema::Isolation;
use fluvio_spu_schema::server::consumer_offset::UpdateConsumerOffsetRequest;
use fluvio_spu_schema::server::stream_fetch::DefaultStreamFetchRequest;
use millpond_connector::topic::{Offset, PartitionId, TopicError};
use tokio::sync::Mutex;

use crate::connection::Connection;
use crate::error::ClusterError;
use crate::limits::REQUEST;
use crate::topic::Shared;

const FIRST_STREAM: u32 = 1;

/// A consumer's session on one partition.
struct Session {
    connection: Connection,
    /// The stream ends when this is dropped.
    _stream: AsyncResponse<DefaultStreamFetchRequest>,
}

/// The sessions of a topic.
pub(crate) struct Releases {
    shared: Arc<Shared>,
    sessions: Mutex<HashMap<(PartitionId, String), Session>>,
}

impl Releases {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            sessions: Mutex::default(),
        }
    }

    pub(crate) async fn store(
        &self,
        partition: PartitionId,
        consumer: &str,
        offset: Offset,
    ) -> Result<(), TopicError> {
        let bounds = self.shared.bounds(partition).await?;
        if offset > bounds.end {
            return Err(self.shared.out_of_range(partition, offset, bounds));
        }
        // Fluvio keeps the last offset that is done with: before the first there is none.
        let Some(last) = offset
            .checked_sub(1)
            .and_then(|last| i64::try_from(last).ok())
        else {
            return Ok(());
        };
        let stored = self.update(partition, consumer, last, bounds.end).await;
        if let Err(error) = stored {
            let topic = &self.shared.name;
            tracing::warn!(topic, partition, consumer, %error, "consumer offset not stored");
        }
        Ok(())
    }

    async fn update(
        &self,
        partition: PartitionId,
        consumer: &str,
        last: i64,
        end: Offset,
    ) -> Result<(), ClusterError> {
        let key = (partition, consumer.to_owned());
        let mut sessions = self.sessions.lock().await;
        let open = sessions.remove(&key);
        let session = match open.filter(|open| !open.connection.is_stale()) {
            Some(open) => open,
            None => self.open(partition, consumer, end).await?,
        };
        let connection = &session.connection;
        let version = connection.offset_version("update consumer offset")?;
        let request = UpdateConsumerOffsetRequest::new(last, FIRST_STREAM);
        let answer = connection.request_as(request, version, REQUEST).await?;
        match answer.error_code {
            ErrorCode::None => {
                sessions.insert(key, session);
                Ok(())
            }
            code => Err(ClusterError::Refused {
                what: format!("store the offset of consumer `{consumer}`"),
                reason: code.to_string(),
            }),
        }
    }

    async fn open(
        &self,
        partition: PartitionId,
        consumer: &str,
        end: Offset,
    ) -> Result<Session, ClusterError> {
        let connection = self.shared.connect_leader(partition).await?;
        let request = DefaultStreamFetchRequest::builder()
            .topic(self.shared.name.clone())
            .partition(partition)
            .fetch_offset(i64::try_from(end).unwrap_or(i64::MAX))
            .max_bytes(1)
            .isolation(Isolation::ReadCommitted)
            .consumer_id(consumer.to_owned())
            .build()
            .map_err(|error| connection.unreachable(error.to_string()))?;
        let stream = connection.stream("stream fetch", request).await?;
        Ok(Session {
            connection,
            _stream: stream,
        })
    }
}
