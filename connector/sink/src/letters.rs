//! Dead letters of records that no store can take, and the names of all dead letters.

use bytes::Bytes;
use millpond_connector::topic::{ConsumedRecord, Offset, PartitionId};
use millpond_format::header::Reject;
use millpond_format::limits::MAX_GROUP_BYTES;
use millpond_format::origin::{ORIGIN_VERSION, Origin, OriginError};
use millpond_format::stream_gap::StreamGap;

use crate::contiguity::{Envelope, PlainRecord};
use crate::dead_letters::{DeadLetter, Payload};
use crate::recorded::Late;

/// Reason of a dead letter that no event stands behind: the source's word that the stream removed
/// events before they were read.
pub const STREAM_GAP: &str = "stream-gap";

/// Reason of a dead letter that the source could not take apart or open.
pub const RECORD_BROKEN: &str = "record-broken";

/// Reason of a dead letter that came after its ordinal was recorded as missing: it is not in the store.
pub const AFTER_GAP: &str = "after-gap";

/// The same where the gap does not say whether it was written.
pub const AFTER_GAP_IN_DOUBT: &str = "after-gap-in-doubt";

/// Reason and detail of a record by which a source says that the stream lost events, or that it could not
/// take one apart or open it (`FORMAT.md`, keys that begin like an origin and are none).
fn word_of_the_source(key: Option<&[u8]>) -> Option<(&'static str, String)> {
    let key = key?;
    if let Some(gap) = StreamGap::parse(key) {
        tracing::error!(%gap, "the source says that events are lost");
        return Some((STREAM_GAP, gap.to_string()));
    }
    let mut parts = std::str::from_utf8(key).ok()?.splitn(9, '/');
    let version = parts.next()?;
    let kind = parts.nth(2)?;
    let reason = parts.nth(3)?;
    let is_broken = version == ORIGIN_VERSION && kind == "broken" && parts.next().is_some();
    is_broken.then(|| {
        (
            RECORD_BROKEN,
            format!("the source passed it on as it was: {reason}"),
        )
    })
}

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
        let (reason, detail) = match word_of_the_source(reject.record_key.as_deref()) {
            Some(said) => said,
            None => (reject.reason.name(), reject.detail.clone()),
        };
        DeadLetter {
            id: self.id(header.base_offset, index),
            offset: header.base_offset,
            time_ms: header.first_time_ms(),
            reason: reason.to_owned(),
            detail,
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
        let (reason, detail) = match word_of_the_source(record.key.as_deref()) {
            Some(said) => said,
            None => ("origin-invalid", error.to_string()),
        };
        DeadLetter {
            id: self.id(record.offset, 0),
            offset: record.offset,
            time_ms: 0,
            reason: reason.to_owned(),
            detail,
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

    /// An event that came after its place was recorded as a gap, as it is stored in the topic. Named by the event:
    /// however often it comes, it is one entry.
    #[must_use]
    pub fn after_gap(
        &self,
        record: &ConsumedRecord,
        origin: &Origin<'_>,
        late: Late,
    ) -> DeadLetter {
        let Self {
            pipeline,
            topic,
            partition,
        } = self;
        let (reason, detail) = match late {
            Late::Missing => (
                AFTER_GAP,
                "came after its ordinal was recorded as missing: it is not in the store, unless an earlier \
                 numbering of its shard delivered it",
            ),
            Late::InDoubt => (
                AFTER_GAP_IN_DOUBT,
                "came after its place was recorded as a gap: it may be in the store, or not",
            ),
        };
        let Origin {
            stream,
            shard,
            sequence,
            sub_sequence,
            ..
        } = origin;
        DeadLetter {
            id: format!(
                "{pipeline}/{topic}/{partition}/{stream}/{shard}/{sequence}/{sub_sequence}"
            ),
            offset: record.offset.unwrap_or_default(),
            time_ms: origin.arrival_ms,
            reason: reason.to_owned(),
            detail: detail.to_owned(),
            group: None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_format::origin::Origin;

    #[test]
    fn what_a_source_says_is_named_so() {
        let key = "mp1/events/shardId-000000000003/gap/4959/4970/1763880000000/-/missing";
        let error = Origin::parse(key.as_bytes()).expect_err("no origin");
        let letters = Letters {
            pipeline: "p",
            topic: "t",
            partition: 2,
        };
        let record = |key: &'static str| PlainRecord {
            offset: 9,
            key: Some(Bytes::from_static(key.as_bytes())),
            value: Bytes::from_static(b"{}"),
        };
        let letter = letters.without_origin(&record(key), error);
        assert_eq!(letter.reason, STREAM_GAP);
        assert!(
            letter.detail.contains("after record 4959"),
            "{}",
            letter.detail
        );
        let key = "mp1/events/shardId-000000000003/broken/4959/0/1763880000000/aggregate/a/b";
        let letter = letters.without_origin(&record(key), error);
        assert_eq!(letter.reason, RECORD_BROKEN);
        assert!(letter.detail.ends_with("aggregate"), "{}", letter.detail);
        let letter = letters.without_origin(&record("mp1/other"), error);
        assert_eq!(letter.reason, "origin-invalid");
    }
}
