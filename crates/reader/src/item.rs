//! An item of a chain, checked.

use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use millpond_format::error::DecodeError;
use millpond_format::header::{ChainTotals, Codec, Header, Kind, Place};
use millpond_format::keys::SortKey;
use millpond_format::origin::Origin;

use crate::damage::Check;
use crate::event::{Event, EventOrigin, ItemKey};
use crate::table::{Attributes, integer};

/// Header section.
pub(crate) const HEADER: &str = "h";
/// Frames.
pub(crate) const FRAMES: &str = "d";
/// Number of events.
pub(crate) const EVENT_COUNT: &str = "n";
/// First event time.
pub(crate) const FIRST_TIME: &str = "t0";
/// Last event time.
pub(crate) const LAST_TIME: &str = "t1";
/// Event of a plain item.
pub(crate) const VALUE: &str = "v";
/// Origin of a plain item.
pub(crate) const ORIGIN: &str = "o";

/// A header that passed its checks, without the frames.
#[derive(Debug, Clone)]
pub(crate) struct ItemHeader {
    pub(crate) sort_key: SortKey,
    pub(crate) header: Header,
    pub(crate) totals: ChainTotals,
}

/// An item of packed events or a part of one.
#[derive(Debug)]
pub(crate) struct PackedItem {
    pub(crate) key: ItemKey,
    pub(crate) header: Header,
    pub(crate) frames: Bytes,
}

/// An item of either form.
#[derive(Debug)]
pub(crate) enum StoredItem {
    Packed(PackedItem),
    Plain(Event),
}

/// True for an item that holds one event as it is.
pub(crate) fn is_plain(item: &Attributes) -> bool {
    item.contains_key(VALUE) && !item.contains_key(HEADER)
}

/// What an item's frames are compressed with, as far as it can be told without reading it.
pub(crate) fn codec_of(item: &Attributes) -> Codec {
    let section = binary(item, HEADER).ok();
    let codec = section.and_then(Header::peek_codec);
    // What cannot be told is damage, and told as that where the item is read.
    codec.unwrap_or(Codec::Stored)
}

/// Reads an item that was queried with all its attributes.
pub(crate) fn read_item(
    mut item: Attributes,
    key: &ItemKey,
    group: &str,
    topic_partition: u32,
) -> Result<StoredItem, Check> {
    if is_plain(&item) {
        return read_plain(item, key, topic_partition).map(StoredItem::Plain);
    }
    let header = read_header(&item, key, group)?.header;
    let frames = take_binary(&mut item, FRAMES)?;
    let expected = header.packed_bytes();
    if frames.len() != expected {
        return Err(Check::PayloadLength {
            found: frames.len(),
            expected,
        });
    }
    Ok(StoredItem::Packed(PackedItem {
        key: key.clone(),
        header,
        frames: frames.into(),
    }))
}

/// Reads the header of an item and holds it against the other attributes.
pub(crate) fn read_header(
    item: &Attributes,
    key: &ItemKey,
    group: &str,
) -> Result<ItemHeader, Check> {
    let sort_key = SortKey::parse(&key.sk).ok_or(Check::SortKey)?;
    let section = binary(item, HEADER)?;
    let (header, length) = Header::decode(section).map_err(Check::Header)?;
    if length != section.len() {
        return Err(Check::Header(DecodeError::Corrupt {
            what: "header length",
        }));
    }
    if header.group != group {
        return Err(Check::Group {
            found: header.group,
        });
    }
    let Place::Chain(totals) = header.place else {
        return Err(Check::NotAnItem {
            found: "an envelope in a batch",
        });
    };
    if matches!(header.kind, Kind::Reject(_)) {
        return Err(Check::NotAnItem {
            found: "a rejected event",
        });
    }
    let last_time_ms = header.last_time_ms();
    for (name, by_header) in [
        (EVENT_COUNT, header.event_count() as i64),
        (FIRST_TIME, header.first_time_ms()),
        (LAST_TIME, last_time_ms),
    ] {
        // They serve other readers of the table; one that was removed harms nobody here.
        match integer(item, name) {
            Some(stored) if stored != by_header => {
                return Err(Check::AttributeMismatch {
                    name,
                    stored,
                    header: by_header,
                });
            }
            _ => {}
        }
    }
    if sort_key.sort_time_ms < last_time_ms {
        return Err(Check::SortTime { last_time_ms });
    }
    Ok(ItemHeader {
        sort_key,
        header,
        totals,
    })
}

/// Reads an item of one event.
fn read_plain(mut item: Attributes, key: &ItemKey, topic_partition: u32) -> Result<Event, Check> {
    SortKey::parse(&key.sk).ok_or(Check::SortKey)?;
    let value = take_binary(&mut item, VALUE)?.into();
    if !item.contains_key(FIRST_TIME) {
        return Err(Check::MissingAttribute { name: FIRST_TIME });
    }
    let time_ms = integer(&item, FIRST_TIME).ok_or(Check::AttributeType {
        name: FIRST_TIME,
        expected: 'N',
    })?;
    let origin = match item.get(ORIGIN) {
        None => return Err(Check::MissingAttribute { name: ORIGIN }),
        Some(AttributeValue::S(text)) => Origin::parse(text.as_bytes()).map_err(Check::Origin)?,
        Some(_) => {
            return Err(Check::AttributeType {
                name: ORIGIN,
                expected: 'S',
            });
        }
    };
    Ok(Event {
        value,
        time_ms,
        topic_partition,
        origin: EventOrigin {
            stream: origin.stream.into(),
            shard: Arc::from(origin.shard),
            epoch: origin.chain.epoch,
            ordinal: origin.chain.ordinal,
        },
        item: key.clone(),
    })
}

/// A binary attribute.
pub(crate) fn binary<'a>(item: &'a Attributes, name: &'static str) -> Result<&'a [u8], Check> {
    match item.get(name) {
        None => Err(Check::MissingAttribute { name }),
        Some(AttributeValue::B(bytes)) => Ok(bytes.as_ref()),
        Some(_) => Err(Check::AttributeType {
            name,
            expected: 'B',
        }),
    }
}

fn take_binary(item: &mut Attributes, name: &'static str) -> Result<Vec<u8>, Check> {
    match item.remove(name) {
        None => Err(Check::MissingAttribute { name }),
        Some(AttributeValue::B(bytes)) => Ok(bytes.into_inner()),
        Some(_) => Err(Check::AttributeType {
            name,
            expected: 'B',
        }),
    }
}
