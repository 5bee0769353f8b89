//! Appending: one batch at a time for each partition, its answer awaited.
//!
//! An append that was surely not stored (no connection, no leader) is tried again here, within the
//! topic's patience. One whose answer was lost is **not**: it may be stored. It fails with a
//! retryable error that says so, and with it every append of the partition that was called before
//! it failed: they have not been sent, so that a caller who begins again at the first failure
//! stores nothing out of order. What it stores twice is found by its origin, downstream.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fluvio_compression::Compression as Codec;
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::record::{RawRecords, RecordSet};
use fluvio_spu_schema::Isolation;
use fluvio_spu_schema::produce::{
    DefaultPartitionRequest, DefaultProduceRequest, DefaultTopicRequest,
};
use millpond_connector::meta::Compression;
use millpond_connector::topic::{Offset, PartitionId, StoredBatch, TopicError};
use tokio::sync::Mutex;

use crate::connection::Connection;
use crate::error::{Remedy, classify};
use crate::limits::{COMMIT, PRODUCE};
use crate::record_set::encode;
use crate::retry::Retry;
use crate::topic::Shared;

/// The appending end of one partition.
pub(crate) struct Producer {
    shared: Arc<Shared>,
    partition: PartitionId,
    /// Fair: appends get it in the order in which they were called.
    connection: Arc<Mutex<Option<Connection>>>,
    /// Number of failures so far.
    failures: Arc<AtomicU64>,
}

/// What became of one attempt.
enum Attempt {
    Stored(Offset),
    /// Surely not stored; another attempt may help.
    NotStored(String),
    /// It may be stored.
    Unknown(String),
    /// Refused for good.
    Refused(String),
}

impl Producer {
    pub(crate) fn new(shared: Arc<Shared>, partition: PartitionId) -> Self {
        Self {
            shared,
            partition,
            connection: Arc::default(),
            failures: Arc::default(),
        }
    }

    pub(crate) async fn append(&self, batch: StoredBatch) -> Result<Range<Offset>, TopicError> {
        let failures = self.failures.load(Ordering::Acquire);
        let mut slot = Arc::clone(&self.connection).lock_owned().await;
        if self.failures.load(Ordering::Acquire) != failures {
            return Err(self.failed(
                "it was not sent, because an append before it failed; append again from there",
                true,
            ));
        }
        let count = u64::from(batch.record_count);
        let codec = codec(self.shared.options.compression);
        let records = encode(batch, codec).map_err(|reason| self.failed(&reason, false))?;
        let (shared, partition) = (Arc::clone(&self.shared), self.partition);
        let counter = Arc::clone(&self.failures);
        // Its own task: once begun it goes on to its end, or a cancelled append would leave half a
        // request on the connection.
        let attempts = tokio::spawn(async move {
            let mut retry = Retry::new(shared.options.patience);
            loop {
                let attempt = attempt(&shared, partition, &mut slot, records.clone()).await;
                if let Attempt::NotStored(reason) = &attempt {
                    tracing::debug!(topic = shared.name, partition, reason, "append repeated");
                    *slot = None;
                    if retry.wait().await {
                        continue;
                    }
                }
                if !matches!(attempt, Attempt::Stored(_)) {
                    *slot = None;
                    counter.fetch_add(1, Ordering::AcqRel);
                }
                return attempt;
            }
        });
        match attempts.await {
            Ok(Attempt::Stored(base)) => Ok(base..base + count),
            Ok(Attempt::NotStored(reason)) => Err(self.failed(&reason, true)),
            Ok(Attempt::Unknown(reason)) => Err(self.failed(
                &format!("{reason}; the batch may or may not be stored, append it again"),
                true,
            )),
            Ok(Attempt::Refused(reason)) => Err(self.failed(&reason, false)),
            Err(_) => Err(TopicError::Closed(self.shared.name.clone())),
        }
    }

    fn failed(&self, reason: &str, retryable: bool) -> TopicError {
        TopicError::Storage {
            topic: self.shared.name.clone(),
            context: format!("append to partition {}: {reason}", self.partition),
            retryable,
        }
    }
}

async fn attempt(
    shared: &Shared,
    partition: PartitionId,
    slot: &mut Option<Connection>,
    records: RecordSet<RawRecords>,
) -> Attempt {
    let connection = match slot.as_ref().filter(|open| !open.is_stale()) {
        Some(open) => open.clone(),
        None => match shared.connect_leader(partition).await {
            Ok(fresh) => slot.insert(fresh).clone(),
            Err(error) if error.is_transient() => return Attempt::NotStored(error.to_string()),
            Err(error) => return Attempt::Refused(error.to_string()),
        },
    };
    if let Err(error) = connection.version::<DefaultProduceRequest>("produce") {
        return Attempt::Refused(error.to_string());
    }
    let request = DefaultProduceRequest {
        isolation: Isolation::ReadCommitted,
        timeout: COMMIT,
        topics: vec![DefaultTopicRequest {
            name: shared.name.clone(),
            partitions: vec![DefaultPartitionRequest {
                partition_index: partition,
                records,
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let answer = match connection.request("produce", request, PRODUCE).await {
        Ok(answer) => answer,
        Err(error) => return Attempt::Unknown(error.to_string()),
    };
    let Some(answer) = answer.find_partition_response(&shared.name, partition) else {
        return Attempt::Unknown("the answer names another partition".into());
    };
    match &answer.error_code {
        ErrorCode::None => match u64::try_from(answer.base_offset) {
            Ok(base) => Attempt::Stored(base),
            Err(_) => Attempt::Unknown("the answer has no offset".into()),
        },
        code => match classify(code) {
            // Said before anything is written (`handle_produce_topic` of the SPU).
            Remedy::FindLeader => Attempt::NotStored(code.to_string()),
            // The write was done, its replication not; or the disk failed half way.
            Remedy::Repeat => Attempt::Unknown(code.to_string()),
            _ => Attempt::Refused(code.to_string()),
        },
    }
}

fn codec(compression: Option<Compression>) -> Codec {
    match compression {
        None | Some(Compression::None | Compression::Any) => Codec::None,
        Some(Compression::Gzip) => Codec::Gzip,
        Some(Compression::Snappy) => Codec::Snappy,
        Some(Compression::Lz4) => Codec::Lz4,
        Some(Compression::Zstd) => Codec::Zstd,
    }
}
