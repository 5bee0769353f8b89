//! What an item holds: every event unchanged, under its own link (I12).

use millpond_connector::topic::PartitionId;
use millpond_dynamodb_sink::row::{Row, names};
use millpond_format::frame::FrameDecoder;
use millpond_format::header::{ChainTotals, Header, Kind, Part, Place};
use millpond_format::keys::SortKey;
use millpond_format::origin::Origin;

use super::Items;
use crate::oracle::{Oracle, broken};
use crate::world::Violation;

/// One event, or a part of one, in an item.
pub(super) struct Held {
    pub(super) index: usize,
    pub(super) part: Option<Part>,
    pub(super) value: Vec<u8>,
}

/// An item's content.
pub(super) struct Item {
    pub(super) held: Vec<Held>,
    /// Its own, and those of its chain up to it; none of an item of plain mode.
    pub(super) totals: Option<(ChainTotals, ChainTotals)>,
}

impl Items {
    pub(super) fn packed(
        &mut self,
        oracle: &Oracle,
        row: &Row,
        partition: PartitionId,
        sort: SortKey,
    ) -> Result<Item, Violation> {
        let damaged = |what: String| broken("I12", format!("item {:?}: {what}", row.key));
        let bytes = |name| {
            row.binary(name)
                .map(|pieces| pieces.concat())
                .unwrap_or_default()
        };
        let (section, frames) = (bytes(names::HEADER), bytes(names::FRAMES));
        let header = match Header::decode(&section) {
            Ok((header, _)) => header,
            Err(error) => return damaged(error.to_string()),
        };
        let Place::Chain(totals) = header.place else {
            return damaged("is no item of a chain".to_owned());
        };
        if header.base_offset != sort.base_offset
            || row.integer(names::FIRST_TIME) != Some(header.first_time_ms())
            || row.integer(names::EVENTS) != Some(header.event_count() as i64)
        {
            return damaged("attributes and header differ".to_owned());
        }
        if self.decoder.is_none() {
            self.decoder = FrameDecoder::new().ok();
        }
        let Some(decoder) = &mut self.decoder else {
            return damaged("no decoder".to_owned());
        };
        let mut held = Vec::new();
        for (info, range) in header.frame_ranges() {
            let frame = match decoder.decode(header.codec, info, &frames[range]) {
                Ok(frame) => frame,
                Err(error) => return damaged(error.to_string()),
            };
            for event in &frame.events {
                let source = &header.sources[event.source as usize];
                let link = (
                    partition,
                    source.shard.to_string(),
                    source.epoch,
                    event.ordinal,
                );
                let Some(index) = oracle.links.get(&link).copied() else {
                    return damaged(format!("no event has the link {link:?}"));
                };
                let part = match header.kind {
                    Kind::Events => None,
                    Kind::Part(part) => Some(part),
                    Kind::Reject(_) => return damaged("a rejected event".to_owned()),
                };
                let value = frame.value(event).to_vec();
                if part.is_none() && oracle.events[index].value != value {
                    return damaged(format!("event {index} was changed"));
                }
                held.push(Held { index, part, value });
            }
        }
        let own = ChainTotals {
            items: 1,
            events: header.event_count(),
            event_bytes: header.event_bytes(),
            packed_bytes: frames.len() as u64,
        };
        Ok(Item {
            held,
            totals: Some((own, totals)),
        })
    }
}

pub(super) fn plain(oracle: &Oracle, row: &Row, value: Vec<u8>) -> Result<Item, Violation> {
    let origin = row.string(names::ORIGIN).unwrap_or_default();
    let Ok(origin) = Origin::parse(origin.as_bytes()) else {
        return broken("I12", format!("item {:?} has no origin", row.key));
    };
    let index = oracle.event_of(&origin)?;
    if oracle.events[index].value != value {
        return broken("I12", format!("event {index} was changed"));
    }
    let held = vec![Held {
        index,
        part: None,
        value: Vec::new(),
    }];
    Ok(Item { held, totals: None })
}
