//! Which topic offset, and which origin, a record has that is no envelope.
//!
//! A record that no SmartModule touched has its offset; if another producer than a source of
//! Millpond wrote it, that is also its origin ([`topic_origin`]).
//!
//! What SmartModules leave has no offset: an engine hands out bare records, a cluster numbers them
//! anew. Envelopes say themselves where they come from. A plain event that was filtered or mapped
//! still has its origin for a key, and the same key is stored in the topic: reading the stored
//! keys beside it tells its offset ([`locate`]). So the same records have the same offsets, however
//! a reader's answers are cut (I2), and what has no offset of its own was removed.

use std::ops::Range;

use bytes::Bytes;
use millpond_connector::topic::{ConsumedRecord, Offset, PartitionId, Transform};
use millpond_format::header::{Header, MAGIC};
use millpond_format::origin::{ChainLink, Origin};
use millpond_format::sequence::SequenceNumber;
use millpond_format::stream_gap::StreamGap;

/// Shard of an origin that is a topic offset, before the number of the topic partition.
const TOPIC_SHARD: &str = "partition-";

/// Numbering of such an origin.
const TOPIC_EPOCH: u64 = 0;

/// Why a record has no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// A record that was transformed has no origin for a key.
    #[error(
        "a record that the SmartModules left has {key} and is no envelope: nothing tells which \
         topic offset it had. Let them keep the record keys, which are the origins of the events, \
         or end the chain with `millpond/pack@0.1.0`"
    )]
    NoOrigin {
        /// Its key, cut.
        key: String,
    },
    /// A key that is not stored there, or was taken by a record before.
    #[error(
        "the SmartModules left a record with key `{key}`, which is not stored there, or was taken \
         by a record before: they may remove and change records, not make more or put them in \
         another order"
    )]
    NotStored {
        /// Its key, cut.
        key: String,
    },
    /// Stored records do not have the offsets that were asked for.
    #[error("{found} stored records where there should be {expected}")]
    Stored {
        /// Records found.
        found: usize,
        /// Offsets asked for.
        expected: u64,
    },
}

/// True for a step that packs: what it makes are envelopes, at least one of each stored batch.
#[must_use]
pub fn is_packer(step: &Transform) -> bool {
    let file = step.uses.rsplit(['/', '\\']).next().unwrap_or_default();
    step.uses.starts_with("millpond/pack@") || file == "pack.wasm"
}

/// True for what a packer made.
///
/// The key of an envelope is its group, which could look like an origin; an event could begin
/// like an envelope. Only what fails both ways is decided by its key.
#[must_use]
pub fn is_envelope(record: &ConsumedRecord) -> bool {
    record.offset.is_none()
        && record.value.starts_with(&MAGIC)
        && (origin(record.key.as_ref()).is_none() || Header::decode(&record.value).is_ok())
}

/// True when the offsets of some of these records must be found out.
#[must_use]
pub fn is_unplaced(records: &[ConsumedRecord]) -> bool {
    let unplaced = |record: &ConsumedRecord| record.offset.is_none() && !is_envelope(record);
    records.iter().any(unplaced)
}

/// Gives every record that is no envelope the offset at which its key is stored; `stored` are the
/// keys of `offsets`, one for each.
///
/// # Errors
/// [`PlacementError`] for a record that is none of the stored ones, in their order.
pub fn locate(
    records: &mut [ConsumedRecord],
    offsets: Range<Offset>,
    stored: &[Option<Bytes>],
) -> Result<(), PlacementError> {
    let (found, expected) = (stored.len(), offsets.end.saturating_sub(offsets.start));
    if found as u64 != expected {
        return Err(PlacementError::Stored { found, expected });
    }
    let mut offsets = offsets.zip(stored);
    for record in records {
        if record.offset.is_some() || is_envelope(record) {
            continue;
        }
        let key = record.key.as_ref();
        // What a source says of events that it could not read has a place, and no origin.
        let is_gap = |key: &Bytes| StreamGap::parse(key).is_some();
        if origin(key).is_none() && !key.is_some_and(is_gap) {
            return Err(PlacementError::NoOrigin {
                key: key.map_or("no key".to_owned(), |key| format!("key `{}`", shown(key))),
            });
        }
        let Some((offset, _)) = offsets.find(|(_, stored)| stored.as_ref() == key) else {
            return Err(PlacementError::NotStored {
                key: key.map_or(String::new(), shown),
            });
        };
        record.offset = Some(offset);
    }
    Ok(())
}

/// The key that says where a stored record comes from: its own if that is, or claims to be, an
/// origin, else one made of topic, topic partition and offset. There the record's key takes the
/// place of the Kinesis partition key, or the topic's name where it has none.
///
/// A key that is not UTF-8 text stays as it is: it cannot be a group.
#[must_use]
pub fn topic_origin(topic: &str, partition: PartitionId, record: &ConsumedRecord) -> Option<Bytes> {
    let own = || record.key.clone();
    let Some(offset) = record.offset else {
        return own();
    };
    let key = record.key.as_deref().unwrap_or_default();
    let Ok(text) = std::str::from_utf8(key) else {
        return own();
    };
    if claims_origin(key) {
        return own();
    }
    let number = offset.to_string();
    let Some(sequence) = SequenceNumber::parse(&number) else {
        return own();
    };
    let mut origin = String::new();
    Origin {
        stream: topic,
        shard: &format!("{TOPIC_SHARD}{partition}"),
        sequence,
        sub_sequence: 0,
        arrival_ms: record.timestamp_ms.unwrap_or_default().max(0),
        chain: ChainLink {
            epoch: TOPIC_EPOCH,
            ordinal: offset,
        },
        partition_key: if text.is_empty() { topic } else { text },
    }
    .write_to(&mut origin);
    Some(origin.into())
}

/// True for an origin that [`topic_origin`] made: the offset says all that a chain would.
#[must_use]
pub fn is_topic_origin(origin: &Origin<'_>, offset: Offset) -> bool {
    origin.chain.epoch == TOPIC_EPOCH
        && origin.chain.ordinal == offset
        && origin.shard.starts_with(TOPIC_SHARD)
}

/// True for a key that begins like an origin of this or a later version (`mp1/`): whoever wrote
/// it meant one.
fn claims_origin(key: &[u8]) -> bool {
    let Some(rest) = key.strip_prefix(b"mp") else {
        return false;
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    digits > 0 && rest.get(digits) == Some(&b'/')
}

fn origin(key: Option<&Bytes>) -> Option<Origin<'_>> {
    key.and_then(|key| Origin::parse(key).ok())
}

/// A key for a message.
fn shown(key: &Bytes) -> String {
    const SHOWN_BYTES: usize = 200;
    let text = String::from_utf8_lossy(&key[..key.len().min(SHOWN_BYTES)]);
    let dots = if key.len() > SHOWN_BYTES { "..." } else { "" };
    format!("{text}{dots}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_format::header::{Codec, Kind, Place};

    fn key(ordinal: u64) -> String {
        format!("mp1/s/a/{}/0/1/1.{ordinal}/k", 100 + ordinal)
    }

    fn left(key: Option<&str>, value: &[u8]) -> ConsumedRecord {
        ConsumedRecord {
            offset: None,
            key: key.map(|key| Bytes::from(key.to_owned())),
            value: value.to_vec().into(),
            timestamp_ms: None,
        }
    }

    fn envelope() -> Vec<u8> {
        let mut bytes = Vec::new();
        Header {
            kind: Kind::Events,
            codec: Codec::Stored,
            group: "g".into(),
            base_offset: 0,
            last_offset: 0,
            place: Place::Batch { index: 0, total: 1 },
            sources: vec![],
            frames: vec![],
        }
        .encode(&mut bytes);
        bytes
    }

    #[test]
    fn an_envelope_is_told_from_an_event_whatever_its_key() {
        let text = key(1);
        for (record, expected) in [
            (left(Some("g"), &envelope()), true),
            (left(None, &envelope()), true),
            (left(Some(&text), &envelope()), true),
            (left(Some("g"), b"MPE is cut"), true),
            (left(Some(&text), b"MPE began an event"), false),
            (left(Some("g"), b"{}"), false),
        ] {
            assert_eq!(is_envelope(&record), expected, "{record:?}");
        }
        let stored = ConsumedRecord {
            offset: Some(1),
            ..left(None, &envelope())
        };
        assert!(!is_envelope(&stored) && !is_unplaced(&[stored]));
    }

    #[test]
    fn offsets_are_found_by_keys_in_order() {
        // Ordinals 1 and 2 twice: a source repeated them.
        let stored: Vec<Option<Bytes>> = [0, 1, 2, 1, 2, 3]
            .map(|ordinal| Some(Bytes::from(key(ordinal))))
            .into();
        let place = |ordinals: &[u64]| {
            let mut records: Vec<_> = ordinals
                .iter()
                .map(|ordinal| left(Some(&key(*ordinal)), b"x"))
                .collect();
            assert!(is_unplaced(&records));
            locate(&mut records, 10..16, &stored)?;
            Ok(records.iter().filter_map(|record| record.offset).collect())
        };
        assert_eq!(place(&[0, 1, 2, 1, 2, 3]), Ok(vec![10, 11, 12, 13, 14, 15]));
        assert_eq!(place(&[2, 2, 3]), Ok(vec![12, 14, 15]));
        for bad in [&[0, 0][..], &[3, 1], &[7]] {
            let placed: Result<Vec<Offset>, _> = place(bad);
            assert!(matches!(placed, Err(PlacementError::NotStored { .. })));
        }
    }

    #[test]
    fn a_transformed_record_without_its_origin_is_an_error_that_says_what_to_do() {
        for bad in [None, Some("job-1")] {
            let mut records = [left(bad, b"{}")];
            let error = locate(&mut records, 0..1, &[bad.map(Bytes::from)]).expect_err("no place");
            let text = error.to_string();
            assert!(text.contains("keep the record keys") && text.contains("millpond/pack"));
        }
    }

    #[test]
    fn the_offset_is_the_origin_of_another_producers_record() {
        let record = |key: Option<&[u8]>| ConsumedRecord {
            offset: Some(42),
            key: key.map(Bytes::copy_from_slice),
            value: Bytes::new(),
            timestamp_ms: Some(1_763_886_000_123),
        };
        let made = |key: Option<&[u8]>| topic_origin("orders", 3, &record(key));
        let head = "mp1/orders/partition-3/42/0/1763886000123/0.42/";
        assert_eq!(made(Some(b"a/b")), Some(format!("{head}a/b").into()));
        assert_eq!(made(None), Some(format!("{head}orders").into()));
        assert_eq!(made(Some(b"")), made(None));
        let bytes = made(None).expect("a key");
        let origin = Origin::parse(&bytes).expect("an origin");
        assert!(is_topic_origin(&origin, 42) && !is_topic_origin(&origin, 41));
        // What claims to be an origin is judged as one, and text is needed for a group.
        for own in [&b"mp1/broken"[..], b"mp2/later", b"\xff", key(1).as_bytes()] {
            assert_eq!(made(Some(own)).as_deref(), Some(own));
        }
    }

    #[test]
    fn a_packer_is_known_by_its_name() {
        let step = |uses: &str| Transform {
            uses: uses.into(),
            with: Default::default(),
        };
        for uses in ["millpond/pack@0.1.0", "pack.wasm", "/opt/pack.wasm"] {
            assert!(is_packer(&step(uses)), "{uses}");
        }
        for uses in ["filter.wasm", "unpack.wasm", "pack"] {
            assert!(!is_packer(&step(uses)), "{uses}");
        }
    }
}
