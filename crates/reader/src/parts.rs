//! Puts an event together that was too large for one item.

use millpond_format::header::Part;

use crate::damage::Check;
use crate::event::{EventOrigin, ItemKey};

/// A part as its item holds it.
#[derive(Debug)]
pub(crate) struct PartItem {
    pub(crate) key: ItemKey,
    pub(crate) part: Part,
    /// First topic offset of the item, which says whether its plan is committed.
    pub(crate) base_offset: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) time_ms: i64,
    pub(crate) origin: EventOrigin,
}

/// A whole event again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) bytes: Vec<u8>,
    pub(crate) time_ms: i64,
    pub(crate) origin: EventOrigin,
    pub(crate) item: ItemKey,
}

/// Parts that do not make up an event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) item: ItemKey,
    pub(crate) check: Check,
    pub(crate) base_offset: u64,
}

/// Collects the parts of one event, at most [`Part::event_bytes`].
#[derive(Debug, Default)]
pub(crate) struct PartCollector {
    open: Option<Open>,
    /// Event whose loss was told already; its further parts are passed over.
    lost: Option<(u32, u64, u32)>,
}

#[derive(Debug)]
struct Open {
    part: Part,
    key: ItemKey,
    base_offset: u64,
    bytes: Vec<u8>,
}

fn identity(part: &Part) -> (u32, u64, u32) {
    (part.count, part.event_bytes, part.event_crc32c)
}

impl PartCollector {
    /// True while an event is incomplete.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Gives the open event up, if there is one: no further part of it comes.
    pub(crate) fn give_up(&mut self) -> Option<Broken> {
        let open = self.open.take()?;
        self.lost = Some(identity(&open.part));
        Some(Broken {
            item: open.key,
            check: Check::PartsMissing {
                missing: open.part.index + 1,
                count: open.part.count,
            },
            base_offset: open.base_offset,
        })
    }

    /// Gives up the event of a part that could not be read and was told of already.
    pub(crate) fn lose(&mut self, part: &Part) {
        self.open = None;
        self.lost = Some(identity(part));
    }

    /// True when the part does not go on where the open event stands.
    pub(crate) fn interrupts(&self, part: &Part) -> bool {
        self.open
            .as_ref()
            .is_some_and(|open| part.index == 0 || identity(part) != identity(&open.part))
    }

    /// Takes the next part in: the event, when it is the last one.
    pub(crate) fn push(&mut self, item: PartItem) -> Result<Option<Whole>, Broken> {
        let identity_now = identity(&item.part);
        if item.part.index > 0 && self.lost == Some(identity_now) {
            return Ok(None);
        }
        self.lost = None;
        let expected = self.open.as_ref().map_or(0, |open| open.part.index + 1);
        if item.part.index != expected {
            self.open = None;
            self.lost = Some(identity_now);
            return Err(Broken {
                item: item.key,
                check: Check::PartOrder {
                    found: item.part.index,
                    expected,
                    count: item.part.count,
                },
                base_offset: item.base_offset,
            });
        }
        let mut bytes = self.open.take().map_or_else(Vec::new, |open| open.bytes);
        bytes.extend_from_slice(&item.bytes);
        let too_many = bytes.len() as u64 > item.part.event_bytes;
        if !item.part.is_last() && !too_many {
            self.open = Some(Open {
                part: item.part,
                key: item.key,
                base_offset: item.base_offset,
                bytes,
            });
            return Ok(None);
        }
        let computed = crc32c::crc32c(&bytes);
        if bytes.len() as u64 != item.part.event_bytes || computed != item.part.event_crc32c {
            self.lost = Some(identity_now);
            return Err(Broken {
                item: item.key,
                check: Check::PartsChanged {
                    count: item.part.count,
                    found: bytes.len() as u64,
                    expected: item.part.event_bytes,
                    computed,
                    stored: item.part.event_crc32c,
                },
                base_offset: item.base_offset,
            });
        }
        Ok(Some(Whole {
            bytes,
            time_ms: item.time_ms,
            origin: item.origin,
            item: item.key,
        }))
    }
}
