//! Dead letters of records that no store can take, and the names of all dead letters.

use bytes::Bytes;
use millpond_connector::topic::{Offset, PartitionId};
use millpond_format::header::Reject;
use millpond_format::limits::MAX_GROUP_BYTES;
use millpond_format::origin::{Origin, OriginError};

use crate::contiguity::{Envelope, PlainRecord};
use crate::dead_letters::{DeadLetter, Payload};

/// Whose letters these are.
#[derive(Debug, Clone, Copy)]
pub struct Letters<'a> {
    /// Pipeline name.
    pub pipeline: &'a str,
    /// Topic name.
    pub topic: &'a str,
    /// Topic partition.
    pub partition: PartitionId,
}

impl Letters<'_> {
    /// The id of a letter: the same for the same record, however often it is planned.
    #[must_use]
    pub fn id(&self, offset: Offset, index: u32) -> String {
        let Self {
            pipeline,
            topic,
            partition,
        } = self;
        format!("{pipeline}/{topic}/{partition}/{offset}/{index}")
    }

    /// An event that the SmartModule rejected; `index` is that of its envelope in the batch.
    #[must_use]
    pub fn rejected(&self, envelope: &Envelope, reject: &Reject, index: u32) -> DeadLetter {
        let header = &envelope.header;
        DeadLetter {
            id: self.id(header.base_offset, index),
            offset: header.base_offset,
            time_ms: header.first_time_ms(),
            reason: reject.reason.name().to_owned(),
            detail: reject.detail.clone(),
            group: (!header.group.is_empty()).then(|| header.group.clone()),
            record_key: reject.record_key.clone().map(Bytes::from),
            payload: Payload::Frames {
                header: Box::new(header.clone()),
                frames: envelope.frames.clone(),
            },
        }
    }

    /// A plain record whose key is no origin: it has no group and no place in a chain.
    #[must_use]
    pub fn without_origin(&self, record: &PlainRecord, error: OriginError) -> DeadLetter {
        DeadLetter {
            id: self.id(record.offset, 0),
            offset: record.offset,
            time_ms: 0,
            reason: "origin-invalid".into(),
            detail: error.to_string(),
            group: None,
            record_key: record.key.clone(),
            payload: Payload::Raw(record.value.clone()),
        }
    }

    /// A plain event, with the reason why it cannot be written.
    #[must_use]
    pub fn plain(
        &self,
        record: &PlainRecord,
        origin: &Origin<'_>,
        reason: &str,
        detail: String,
    ) -> DeadLetter {
        DeadLetter {
            id: self.id(record.offset, 0),
            offset: record.offset,
            time_ms: origin.arrival_ms,
            reason: reason.to_owned(),
            detail,
            group: Some(origin.partition_key.to_owned()),
            record_key: record.key.clone(),
            payload: Payload::Raw(record.value.clone()),
        }
    }

    /// The letter of a plain event whose Kinesis partition key is no group.
    #[must_use]
    pub fn without_group(&self, record: &PlainRecord, origin: &Origin<'_>) -> Option<DeadLetter> {
        let bytes = origin.partition_key.len();
        if (1..=MAX_GROUP_BYTES).contains(&bytes) {
            return None;
        }
        let detail = format!("group of {bytes} bytes, allowed are 1 to {MAX_GROUP_BYTES}");
        Some(self.plain(record, origin, "group-too-long", detail))
    }
}
