//! How a chain opens its items: those that hold events, and the parts of an event that fits no item.

use millpond_format::header::{Kind, Part};

use super::open_item::OpenItem;
use super::{Chain, Decoding, misplaced};
use crate::damage::Check;
use crate::error::ReadError;
use crate::event::Event;
use crate::item::{PackedItem, StoredItem, read_item};
use crate::parts::{Broken, PartItem};
use crate::table::Attributes;

impl Chain {
    /// Opens an item: its event at once if it holds one only.
    pub(super) fn open_item(
        &mut self,
        decoding: &mut Decoding<'_>,
        attributes: Attributes,
        dictionary: Result<(), Check>,
    ) -> Result<Option<Event>, ReadError> {
        let key = self.table.key_of(&attributes);
        let before = self.last_sk.replace(key.sk.to_string());
        let read = read_item(attributes, &key, &self.group, self.topic_partition);
        let item = match read.and_then(|item| dictionary.map(|()| item)) {
            Ok(item) => item,
            Err(check) => {
                self.resume = None;
                self.table.report(key, check)?;
                return Ok(None);
            }
        };
        if let Some((sk, within)) = &self.resume {
            let frames = match &item {
                StoredItem::Packed(packed) if packed.header.kind == Kind::Events => {
                    packed.header.frames.len()
                }
                _ => 0,
            };
            if **sk != *key.sk || within.frame >= frames {
                return Err(misplaced());
            }
        }
        let part = match &item {
            StoredItem::Packed(packed) => match &packed.header.kind {
                Kind::Part(part) => Some(*part),
                _ => None,
            },
            StoredItem::Plain(_) => None,
        };
        // Whatever is no further part of an open event ends it.
        let interrupted = part.map_or(self.parts.is_open(), |part| self.parts.interrupts(&part));
        if interrupted
            && let Some(broken) = self.parts.give_up()
            && self.parts_broken(broken)? == AfterBroken::ReadAgain
        {
            return Ok(None);
        }
        match (item, part) {
            (StoredItem::Plain(event), _) => Ok(self.times.holds(event.time_ms).then_some(event)),
            (StoredItem::Packed(item), None) => {
                self.item = Some(OpenItem::new(item));
                Ok(None)
            }
            (StoredItem::Packed(item), Some(part)) => {
                if !self.parts.is_open() {
                    self.before_parts = before;
                }
                self.push_part(decoding, item, part)
            }
        }
    }

    fn push_part(
        &mut self,
        decoding: &mut Decoding<'_>,
        item: PackedItem,
        part: Part,
    ) -> Result<Option<Event>, ReadError> {
        let header = &item.header;
        if !self.times.holds(header.first_time_ms()) {
            decoding.stats.frames_passed += header.frames.len() as u64;
            return Ok(None);
        }
        let key = item.key.clone();
        let open = OpenItem::new(item);
        let (bytes, event) = match open.decode_all(decoding) {
            Ok(decoded) => decoded,
            Err(check) => {
                self.parts.lose(&part);
                self.table.report(key, check)?;
                return Ok(None);
            }
        };
        let pushed = self.parts.push(PartItem {
            part,
            base_offset: open.item.header.base_offset,
            bytes,
            time_ms: event.time_ms,
            origin: open.origin(&event),
            key,
        });
        match pushed {
            Ok(whole) => Ok(whole.map(|whole| Event {
                value: whole.bytes.into(),
                time_ms: whole.time_ms,
                topic_partition: self.topic_partition,
                origin: whole.origin,
                item: whole.item,
            })),
            Err(broken) => {
                self.parts_broken(broken)?;
                Ok(None)
            }
        }
    }

    /// Judges parts that do not make up an event: still being written, seen too early by an
    /// eventually consistent read, or damage.
    pub(super) fn parts_broken(&mut self, broken: Broken) -> Result<AfterBroken, ReadError> {
        if self
            .committed
            .is_some_and(|offset| broken.base_offset >= offset)
        {
            return Ok(AfterBroken::GoOn);
        }
        if !self.gather.request.consistent {
            self.gather.request.consistent = true;
            self.parts.clear();
            self.last_sk = self.before_parts.take();
            self.gather.restart(self.last_sk.clone());
            return Ok(AfterBroken::ReadAgain);
        }
        self.table.report(broken.item, broken.check)?;
        Ok(AfterBroken::GoOn)
    }
}

/// How a chain goes on after parts that do not make up an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AfterBroken {
    /// From the event's first part, strongly consistent.
    ReadAgain,
    /// With the item at hand.
    GoOn,
}
