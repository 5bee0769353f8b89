//! The header section of an envelope or item: what it holds, without the payload.

use crate::error::{Cursor, DecodeError};
use crate::limits;
use crate::origin::{ChainLink, MAX_SHARD_ID_BYTES, MAX_STREAM_NAME_BYTES};
use crate::sequence::{MAX_SEQUENCE_DIGITS, Position, SequenceNumber};
use crate::varint;

/// First bytes of every header section.
pub const MAGIC: [u8; 3] = *b"MPE";

/// Version written by this build, and the newest one that it reads.
pub const VERSION: u8 = 1;

/// Bytes before the header body: magic, version, body length.
const PREFIX_BYTES: usize = 8;

/// Bytes after the header body: CRC-32C.
const SUFFIX_BYTES: usize = 4;

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
    /// The group key is longer than [`limits::MAX_GROUP_BYTES`].
    GroupTooLong,
    /// The event has no time at the event-time pointer.
    EventTimeMissing,
    /// The value at the event-time pointer is no time between 1970 and 9999.
    EventTimeInvalid,
    /// The record key is no origin.
    OriginInvalid,
    /// The event is larger than [`limits::MAX_EVENT_BYTES`].
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

    fn code(self) -> u8 {
        Self::ALL
            .iter()
            .find(|(_, reason, _)| *reason == self)
            .map_or(0, |(code, _, _)| *code)
    }

    fn from_code(code: u8) -> Option<Self> {
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
    /// What exactly was wrong; at most [`limits::MAX_DETAIL_BYTES`] bytes.
    pub detail: String,
    /// Its record key as it stood in the topic.
    pub record_key: Option<Vec<u8>>,
}

/// How the frames are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Not compressed.
    Stored,
    /// Independent zstd frames (RFC 8878) with content checksum; dictionary 0 means none.
    Zstd {
        /// Dictionary id, 0 for none.
        dictionary: u64,
    },
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

    /// Appends the header section.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        out.extend_from_slice(&[0; 4]);
        self.put_body(out);
        let body = (out.len() - start - PREFIX_BYTES) as u32;
        out[start + 4..start + PREFIX_BYTES].copy_from_slice(&body.to_le_bytes());
        let crc = crc32c::crc32c(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }

    fn put_body(&self, out: &mut Vec<u8>) {
        put_kind(out, &self.kind);
        match self.codec {
            Codec::Stored => out.push(0),
            Codec::Zstd { dictionary } => {
                out.push(1);
                varint::put(out, dictionary);
            }
        }
        put_bytes(out, self.group.as_bytes());
        varint::put(out, self.base_offset);
        varint::put(out, self.last_offset.saturating_sub(self.base_offset));
        match self.place {
            Place::Batch { index, total } => {
                out.push(0);
                varint::put(out, index.into());
                varint::put(out, total.into());
            }
            Place::Chain(totals) => {
                out.push(1);
                for value in [
                    totals.items,
                    totals.events,
                    totals.event_bytes,
                    totals.packed_bytes,
                ] {
                    varint::put(out, value);
                }
            }
        }
        varint::put(out, self.sources.len() as u64);
        for source in &self.sources {
            put_source(out, source);
        }
        varint::put(out, self.frames.len() as u64);
        let mut previous = 0;
        for frame in &self.frames {
            put_frame(out, frame, previous);
            previous = frame.first_time_ms;
        }
    }

    /// Reads a header section from the front of `bytes`; answers its length too.
    ///
    /// # Errors
    /// Any input that [`Header::encode`] would not write is a [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), DecodeError> {
        let mut cursor = Cursor { rest: bytes };
        if cursor.slice(3, "magic")? != MAGIC {
            return Err(DecodeError::BadMagic);
        }
        match cursor.byte("version")? {
            VERSION => {}
            0 => return Err(DecodeError::Corrupt { what: "version" }),
            found => {
                return Err(DecodeError::NewerVersion {
                    found,
                    known: VERSION,
                });
            }
        }
        let body_len = cursor.u32("header length")? as usize;
        if body_len > limits::MAX_HEADER_BYTES {
            return Err(DecodeError::OverLimit {
                what: "header length",
                value: body_len as u64,
                limit: limits::MAX_HEADER_BYTES as u64,
            });
        }
        let body = cursor.slice(body_len, "header")?;
        let stored = cursor.u32("header checksum")?;
        let computed = crc32c::crc32c(&bytes[..PREFIX_BYTES + body_len]);
        if stored != computed {
            return Err(DecodeError::ChecksumMismatch {
                what: "header",
                stored,
                computed,
            });
        }
        let mut body = Cursor { rest: body };
        let header = take_body(&mut body)?;
        if !body.rest.is_empty() {
            return Err(DecodeError::Corrupt {
                what: "header length",
            });
        }
        Ok((header, PREFIX_BYTES + body_len + SUFFIX_BYTES))
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
    pub fn frame_ranges(&self) -> impl Iterator<Item = (&FrameInfo, std::ops::Range<usize>)> {
        let mut start = 0;
        self.frames.iter().map(move |frame| {
            let range = start..start + frame.packed_bytes as usize;
            start = range.end;
            (frame, range)
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

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_kind(out: &mut Vec<u8>, kind: &Kind) {
    match kind {
        Kind::Events => out.push(0),
        Kind::Part(part) => {
            out.push(1);
            varint::put(out, part.index.into());
            varint::put(out, part.count.into());
            varint::put(out, part.event_bytes);
            out.extend_from_slice(&part.event_crc32c.to_le_bytes());
        }
        Kind::Reject(reject) => {
            out.push(2);
            out.push(reject.reason.code());
            put_bytes(out, reject.detail.as_bytes());
            match &reject.record_key {
                Some(key) => {
                    out.push(1);
                    put_bytes(out, key);
                }
                None => out.push(0),
            }
        }
    }
}

fn put_source(out: &mut Vec<u8>, source: &SourceRange) {
    put_bytes(out, source.stream.as_bytes());
    put_bytes(out, source.shard.as_bytes());
    varint::put(out, source.epoch);
    varint::put(out, source.first_ordinal);
    varint::put(
        out,
        source.last_ordinal.saturating_sub(source.first_ordinal),
    );
    varint::put(out, source.count);
    for position in [&source.first, &source.last] {
        put_bytes(out, position.sequence.as_bytes());
        varint::put(out, position.sub_sequence.into());
    }
}

fn put_frame(out: &mut Vec<u8>, frame: &FrameInfo, previous_time_ms: i64) {
    varint::put(out, frame.packed_bytes.into());
    varint::put(out, frame.raw_bytes.into());
    varint::put(out, frame.event_count.into());
    varint::put(out, frame.event_bytes.into());
    varint::put_signed(out, frame.first_time_ms.wrapping_sub(previous_time_ms));
    varint::put(
        out,
        frame.last_time_ms.wrapping_sub(frame.first_time_ms) as u64,
    );
    out.extend_from_slice(&frame.crc32c.to_le_bytes());
    varint::put(out, frame.sources.len() as u64);
    for &source in &frame.sources {
        varint::put(out, source.into());
    }
}

fn take_body(cursor: &mut Cursor<'_>) -> Result<Header, DecodeError> {
    let kind = take_kind(cursor)?;
    let codec = match cursor.byte("codec")? {
        0 => Codec::Stored,
        1 => Codec::Zstd {
            dictionary: cursor.varint("dictionary")?,
        },
        _ => return Err(DecodeError::Corrupt { what: "codec" }),
    };
    let group = cursor.text("group", limits::MAX_GROUP_BYTES)?.to_owned();
    let base_offset = cursor.varint("base offset")?;
    let last_offset = base_offset
        .checked_add(cursor.varint("last offset")?)
        .ok_or(DecodeError::Corrupt {
            what: "last offset",
        })?;
    let place = take_place(cursor)?;
    let count = cursor.bounded("source count", limits::MAX_SOURCES)?;
    let sources = (0..count)
        .map(|_| take_source(cursor))
        .collect::<Result<Vec<_>, _>>()?;
    let count = cursor.bounded("frame count", limits::MAX_FRAMES)?;
    let mut previous = 0;
    let frames = (0..count)
        .map(|_| {
            let frame = take_frame(cursor, previous, sources.len())?;
            previous = frame.first_time_ms;
            Ok(frame)
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Header {
        kind,
        codec,
        group,
        base_offset,
        last_offset,
        place,
        sources,
        frames,
    })
}

fn take_kind(cursor: &mut Cursor<'_>) -> Result<Kind, DecodeError> {
    match cursor.byte("kind")? {
        0 => Ok(Kind::Events),
        1 => {
            let index = cursor.bounded("part index", limits::MAX_PARTS as usize)? as u32;
            let count = cursor.bounded("part count", limits::MAX_PARTS as usize)? as u32;
            if index >= count {
                return Err(DecodeError::Corrupt { what: "part index" });
            }
            let event_bytes = cursor.bounded("event size", limits::MAX_EVENT_BYTES)? as u64;
            Ok(Kind::Part(Part {
                index,
                count,
                event_bytes,
                event_crc32c: cursor.u32("event checksum")?,
            }))
        }
        2 => {
            let reason = RejectReason::from_code(cursor.byte("reject reason")?).ok_or(
                DecodeError::Corrupt {
                    what: "reject reason",
                },
            )?;
            let detail = cursor
                .text("reject detail", limits::MAX_DETAIL_BYTES)?
                .to_owned();
            let record_key = match cursor.byte("record key")? {
                0 => None,
                1 => Some(
                    cursor
                        .bytes("record key", limits::MAX_RECORD_KEY_BYTES)?
                        .to_vec(),
                ),
                _ => return Err(DecodeError::Corrupt { what: "record key" }),
            };
            Ok(Kind::Reject(Reject {
                reason,
                detail,
                record_key,
            }))
        }
        _ => Err(DecodeError::Corrupt { what: "kind" }),
    }
}

fn take_place(cursor: &mut Cursor<'_>) -> Result<Place, DecodeError> {
    match cursor.byte("place")? {
        0 => {
            let index = take_u32(cursor, "envelope index")?;
            let total = take_u32(cursor, "envelope total")?;
            if index >= total {
                return Err(DecodeError::Corrupt {
                    what: "envelope index",
                });
            }
            Ok(Place::Batch { index, total })
        }
        1 => Ok(Place::Chain(ChainTotals {
            items: cursor.varint("chain totals")?,
            events: cursor.varint("chain totals")?,
            event_bytes: cursor.varint("chain totals")?,
            packed_bytes: cursor.varint("chain totals")?,
        })),
        _ => Err(DecodeError::Corrupt { what: "place" }),
    }
}

fn take_u32(cursor: &mut Cursor<'_>, what: &'static str) -> Result<u32, DecodeError> {
    Ok(cursor.bounded(what, u32::MAX as usize)? as u32)
}

fn take_source(cursor: &mut Cursor<'_>) -> Result<SourceRange, DecodeError> {
    let stream = cursor.text("stream", MAX_STREAM_NAME_BYTES)?.to_owned();
    let shard = cursor.text("shard", MAX_SHARD_ID_BYTES)?.to_owned();
    let epoch = cursor.varint("chain epoch")?;
    let first_ordinal = cursor.varint("first ordinal")?;
    let last_ordinal = first_ordinal
        .checked_add(cursor.varint("last ordinal")?)
        .ok_or(DecodeError::Corrupt {
            what: "last ordinal",
        })?;
    let count = cursor.varint("source events")?;
    Ok(SourceRange {
        stream,
        shard,
        epoch,
        first_ordinal,
        last_ordinal,
        count,
        first: take_position(cursor)?,
        last: take_position(cursor)?,
    })
}

fn take_position(cursor: &mut Cursor<'_>) -> Result<Position, DecodeError> {
    const WHAT: &str = "sequence number";
    let text = cursor.text(WHAT, MAX_SEQUENCE_DIGITS)?;
    let sequence = SequenceNumber::parse(text).ok_or(DecodeError::Corrupt { what: WHAT })?;
    Ok(Position::new(
        sequence,
        take_u32(cursor, "sub-sequence number")?,
    ))
}

fn take_frame(
    cursor: &mut Cursor<'_>,
    previous_time_ms: i64,
    source_count: usize,
) -> Result<FrameInfo, DecodeError> {
    let packed_bytes = take_u32(cursor, "packed frame size")?;
    let raw_bytes = cursor.bounded("raw frame size", limits::MAX_FRAME_BYTES)? as u32;
    let event_count = cursor.bounded("frame events", limits::MAX_FRAME_BYTES)? as u32;
    let event_bytes = cursor.bounded("frame event bytes", limits::MAX_FRAME_BYTES)? as u32;
    let first_time_ms = previous_time_ms.wrapping_add(cursor.signed("frame time")?);
    let last_time_ms = first_time_ms.wrapping_add(cursor.varint("frame time")? as i64);
    if !(0..=limits::MAX_TIME_MS).contains(&first_time_ms)
        || !(first_time_ms..=limits::MAX_TIME_MS).contains(&last_time_ms)
    {
        return Err(DecodeError::Corrupt { what: "frame time" });
    }
    let crc32c = cursor.u32("frame checksum")?;
    let count = cursor.bounded("frame sources", limits::MAX_SOURCES)?;
    let mut sources = Vec::new();
    for _ in 0..count {
        let source = take_u32(cursor, "frame source")?;
        if source as usize >= source_count {
            return Err(DecodeError::Corrupt {
                what: "frame source",
            });
        }
        sources.push(source);
    }
    Ok(FrameInfo {
        packed_bytes,
        raw_bytes,
        event_count,
        event_bytes,
        first_time_ms,
        last_time_ms,
        crc32c,
        sources,
    })
}
