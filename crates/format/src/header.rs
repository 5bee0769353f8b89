//! The header section of an envelope or item: what it holds, without the payload.

use std::ops::Range;

use crate::error::{Cursor, DecodeError};
use crate::origin::ChainLink;
use crate::sequence::Position;

/// First bytes of every header section.
pub const MAGIC: [u8; 3] = *b"MPE";

/// Version written by this build, and the newest one that it reads.
pub const VERSION: u8 = 1;

/// What the frames of an envelope hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Whole events.
    Events,
    /// A slice of one event that is too large for one item.
    Part(Part),
    /// One event that could not be packed, with the reason; for the dead-letter queue.
    Reject(Reject),
}

/// Place of a slice in its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Index of this part, from 0.
    pub index: u32,
    /// Parts of the event, at least 1.
    pub count: u32,
    /// Bytes of the whole event.
    pub event_bytes: u64,
    /// CRC-32C of the whole event.
    pub event_crc32c: u32,
}

impl Part {
    /// True for the part that completes the event, the one that is counted.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.index + 1 == self.count
    }
}

/// Why an event was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// The group pointer needs JSON and the event is not JSON.
    NotJson,
    /// The event has no value at the group pointer.
    GroupMissing,
    /// The value at the group pointer is no string, number or boolean, or is empty.
    GroupInvalid,
    /// The group key is longer than [`crate::limits::MAX_GROUP_BYTES`].
    GroupTooLong,
    /// The event has no time at the event-time pointer.
    EventTimeMissing,
    /// The value at the event-time pointer is no time between 1970 and 9999.
    EventTimeInvalid,
    /// The record key is no origin.
    OriginInvalid,
    /// The event is larger than [`crate::limits::MAX_EVENT_BYTES`].
    TooLarge,
}

impl RejectReason {
    const ALL: [(u8, Self, &'static str); 8] = [
        (1, Self::NotJson, "not-json"),
        (2, Self::GroupMissing, "group-missing"),
        (3, Self::GroupInvalid, "group-invalid"),
        (4, Self::GroupTooLong, "group-too-long"),
        (5, Self::EventTimeMissing, "event-time-missing"),
        (6, Self::EventTimeInvalid, "event-time-invalid"),
        (7, Self::OriginInvalid, "origin-invalid"),
        (8, Self::TooLarge, "too-large"),
    ];

    /// Stable name, as written to dead-letter entries.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, reason, _)| *reason == self)
            .map_or("unknown", |(_, _, name)| name)
    }

    pub(crate) fn code(self) -> u8 {
        Self::ALL
            .iter()
            .find(|(_, reason, _)| *reason == self)
            .map_or(0, |(code, _, _)| *code)
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(known, _, _)| *known == code)
            .map(|(_, reason, _)| *reason)
    }
}

/// A rejected event's reason and record key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// Why it was rejected.
    pub reason: RejectReason,
    /// What exactly was wrong; at most [`crate::limits::MAX_DETAIL_BYTES`] bytes.
    pub detail: String,
    /// Its record key as it stood in the topic.
    pub record_key: Option<Vec<u8>>,
}

/// How the frames are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Not compressed.
    Stored,
    /// Independent zstd frames (RFC 8878) with content checksum; dictionary 0 means none. Only items
    /// of a chain have one.
    Zstd {
        /// Dictionary id, 0 for none.
        dictionary: u64,
    },
}

impl Codec {
    /// The dictionary that its frames need, if they need one.
    #[must_use]
    pub fn dictionary(self) -> Option<u64> {
        match self {
            Self::Stored | Self::Zstd { dictionary: 0 } => None,
            Self::Zstd { dictionary } => Some(dictionary),
        }
    }
}

/// Where an envelope stands among its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// One of the envelopes that a stored batch became.
    Batch {
        /// Index among them, from 0.
        index: u32,
        /// Their number.
        total: u32,
    },
    /// An item in the chain of its partition key.
    Chain(ChainTotals),
}

/// Totals over a chain of items, up to and including the item that carries them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChainTotals {
    /// Items.
    pub items: u64,
    /// Events; an event in parts counts with its last part.
    pub events: u64,
    /// Bytes of the events as they were produced.
    pub event_bytes: u64,
    /// Bytes of the packed frames.
    pub packed_bytes: u64,
}

/// Events of one shard, within one numbering, that are in an envelope.
///
/// Other groups' events may lie between them: the range is a span, `count` says how many are here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRange {
    /// Stream name.
    pub stream: String,
    /// Shard id.
    pub shard: String,
    /// Numbering of the ordinals.
    pub epoch: u64,
    /// First ordinal.
    pub first_ordinal: u64,
    /// Last ordinal.
    pub last_ordinal: u64,
    /// Position of the first event; a lower bound once events before it were trimmed off.
    pub first: Position,
    /// Position of the last event.
    pub last: Position,
    /// Events here.
    pub count: u64,
}

impl SourceRange {
    /// First link of the range.
    #[must_use]
    pub fn first_link(&self) -> ChainLink {
        ChainLink {
            epoch: self.epoch,
            ordinal: self.first_ordinal,
        }
    }

    /// True when both describe the same shard and numbering.
    #[must_use]
    pub fn same_chain(&self, other: &Self) -> bool {
        self.epoch == other.epoch && self.shard == other.shard && self.stream == other.stream
    }

    /// Takes in a later or earlier range of the same chain.
    pub fn extend(&mut self, other: &Self) {
        if other.first_ordinal < self.first_ordinal {
            self.first_ordinal = other.first_ordinal;
            self.first = other.first.clone();
        }
        if other.last_ordinal > self.last_ordinal {
            self.last_ordinal = other.last_ordinal;
            self.last = other.last.clone();
        }
        self.count += other.count;
    }
}

/// One frame in the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameInfo {
    /// Bytes as stored.
    pub packed_bytes: u32,
    /// Bytes after decompression, columns included.
    pub raw_bytes: u32,
    /// Events that are counted here (a part of an event counts only when it is the last one).
    pub event_count: u32,
    /// Bytes of the event values.
    pub event_bytes: u32,
    /// Earliest event time, milliseconds since the Unix epoch.
    pub first_time_ms: i64,
    /// Latest event time.
    pub last_time_ms: i64,
    /// CRC-32C of the packed bytes.
    pub crc32c: u32,
    /// The frame's own source numbers, each as an index into [`Header::sources`].
    pub sources: Vec<u32>,
}

/// Header section of an envelope or item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What the frames hold.
    pub kind: Kind,
    /// How the frames are compressed.
    pub codec: Codec,
    /// Group key; empty for a rejected event.
    pub group: String,
    /// First topic offset of the stored batches that this came from.
    pub base_offset: u64,
    /// Last topic offset of them, inclusive.
    pub last_offset: u64,
    /// Place among the neighbours.
    pub place: Place,
    /// Shards that the events came from.
    pub sources: Vec<SourceRange>,
    /// Frame index, in order.
    pub frames: Vec<FrameInfo>,
}

impl Header {
    /// Events, each counted once.
    #[must_use]
    pub fn event_count(&self) -> u64 {
        self.frames.iter().map(|f| u64::from(f.event_count)).sum()
    }

    /// Bytes of the events as they were produced.
    #[must_use]
    pub fn event_bytes(&self) -> u64 {
        self.frames.iter().map(|f| u64::from(f.event_bytes)).sum()
    }

    /// Bytes of the frames as stored.
    #[must_use]
    pub fn packed_bytes(&self) -> usize {
        self.frames.iter().map(|f| f.packed_bytes as usize).sum()
    }

    /// Earliest event time in milliseconds since the Unix epoch; 0 without frames.
    #[must_use]
    pub fn first_time_ms(&self) -> i64 {
        let times = self.frames.iter().map(|f| f.first_time_ms);
        times.min().unwrap_or(0)
    }

    /// Latest event time in milliseconds since the Unix epoch; 0 without frames.
    #[must_use]
    pub fn last_time_ms(&self) -> i64 {
        let times = self.frames.iter().map(|f| f.last_time_ms);
        times.max().unwrap_or(0)
    }

    /// Bytes that [`Header::encode`] appends.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        // Encoding into a counter would be a second description of the same layout.
        let mut scratch = Vec::new();
        self.encode(&mut scratch);
        scratch.len()
    }

    /// Checks the length and checksum of every frame against the index.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] or [`DecodeError::Corrupt`] for a wrong length,
    /// [`DecodeError::ChecksumMismatch`] for changed bytes.
    pub fn check_frames(&self, frames: &[u8]) -> Result<(), DecodeError> {
        let mut cursor = Cursor { rest: frames };
        for frame in &self.frames {
            frame.check(cursor.slice(frame.packed_bytes as usize, "frame")?)?;
        }
        if !cursor.rest.is_empty() {
            return Err(DecodeError::Corrupt {
                what: "payload length",
            });
        }
        Ok(())
    }

    /// Byte range of every frame within the payload, in order.
    pub fn frame_ranges(&self) -> impl Iterator<Item = (&FrameInfo, Range<usize>)> {
        let mut start = 0;
        self.frames.iter().map(move |frame| {
            let range = start..start + frame.packed_bytes as usize;
            start = range.end;
            (frame, range)
        })
    }

    /// The frames that hold these events, counted from 0 over the whole item: of each its byte range within the
    /// payload, and which of its own events are among them. Nothing else has to be decoded for them.
    pub fn frames_of(
        &self,
        events: Range<u64>,
    ) -> impl Iterator<Item = (&FrameInfo, Range<usize>, Range<usize>)> {
        let mut first = 0;
        self.frame_ranges().filter_map(move |(frame, bytes)| {
            let begin = first;
            first += u64::from(frame.event_count);
            // Both are at most the frame's own count, which is 32 bits.
            let from = events.start.clamp(begin, first) - begin;
            let to = events.end.clamp(begin, first) - begin;
            (from < to).then_some((frame, bytes, from as usize..to as usize))
        })
    }
}

impl FrameInfo {
    /// Checks the packed bytes of this frame.
    ///
    /// # Errors
    /// [`DecodeError::ChecksumMismatch`] when they were changed.
    pub fn check(&self, packed: &[u8]) -> Result<(), DecodeError> {
        let computed = crc32c::crc32c(packed);
        if computed == self.crc32c {
            return Ok(());
        }
        Err(DecodeError::ChecksumMismatch {
            what: "frame",
            stored: self.crc32c,
            computed,
        })
    }

    /// True when an event of the half-open time range may be in the frame.
    #[must_use]
    pub fn overlaps(&self, from_ms: i64, to_ms: i64) -> bool {
        self.first_time_ms < to_ms && self.last_time_ms >= from_ms
    }
}
