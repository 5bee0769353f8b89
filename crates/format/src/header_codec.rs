//! Bytes of the header section; layout in `FORMAT.md`.

use crate::error::{Cursor, DecodeError};
use crate::header::{
    ChainTotals, Codec, FrameInfo, Header, Kind, MAGIC, Part, Place, Reject, RejectReason,
    SourceRange, VERSION,
};
use crate::limits;
use crate::origin::{MAX_SHARD_ID_BYTES, MAX_STREAM_NAME_BYTES};
use crate::sequence::{MAX_SEQUENCE_DIGITS, Position, SequenceNumber};
use crate::varint;

/// Bytes before the header body: magic, version, body length.
const PREFIX_BYTES: usize = 8;

/// Bytes after the header body: CRC-32C.
const SUFFIX_BYTES: usize = 4;

impl Header {
    /// The codec that a header section names, without reading the rest of it and without its checksum; `None` for what
    /// is none of this version. What it says is a claim until the section is decoded.
    #[must_use]
    pub fn peek_codec(section: &[u8]) -> Option<Codec> {
        let rest = section.strip_prefix(&MAGIC)?;
        let rest = rest.strip_prefix(&[VERSION])?.get(4..)?;
        let mut cursor = Cursor { rest };
        take_kind(&mut cursor).ok()?;
        take_codec(&mut cursor).ok()
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

fn take_codec(cursor: &mut Cursor<'_>) -> Result<Codec, DecodeError> {
    match cursor.byte("codec")? {
        0 => Ok(Codec::Stored),
        1 => Ok(Codec::Zstd {
            dictionary: cursor.bounded("dictionary", limits::MAX_DICTIONARY_ID as usize)? as u64,
        }),
        _ => Err(DecodeError::Corrupt { what: "codec" }),
    }
}

fn take_body(cursor: &mut Cursor<'_>) -> Result<Header, DecodeError> {
    let kind = take_kind(cursor)?;
    let codec = take_codec(cursor)?;
    let group = cursor.text("group", limits::MAX_GROUP_BYTES)?.to_owned();
    let base_offset = cursor.varint("base offset")?;
    let last_offset = base_offset
        .checked_add(cursor.varint("last offset")?)
        .ok_or(DecodeError::Corrupt {
            what: "last offset",
        })?;
    let place = take_place(cursor)?;
    if let (Place::Batch { .. }, Codec::Zstd { dictionary: 1.. }) = (place, codec) {
        // What goes through a topic is readable without a table.
        return Err(DecodeError::Corrupt {
            what: "dictionary of an envelope",
        });
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn position() -> impl Strategy<Value = Position> {
        ("0|[1-9][0-9]{0,55}", any::<u32>()).prop_map(|(digits, sub_sequence)| Position {
            sequence: digits.into(),
            sub_sequence,
        })
    }

    fn kind() -> impl Strategy<Value = Kind> {
        let part = (
            0..limits::MAX_PARTS - 1,
            any::<u32>(),
            0..limits::MAX_EVENT_BYTES as u64,
        );
        let part = part.prop_map(|(index, event_crc32c, event_bytes)| {
            Kind::Part(Part {
                index,
                count: index + 1,
                event_bytes,
                event_crc32c,
            })
        });
        let key = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..60));
        let reject = (1u8..=8, ".{0,40}", key).prop_map(|(code, detail, record_key)| {
            Kind::Reject(Reject {
                reason: RejectReason::from_code(code).unwrap_or(RejectReason::NotJson),
                detail,
                record_key,
            })
        });
        prop_oneof![Just(Kind::Events), part, reject]
    }

    fn place() -> impl Strategy<Value = Place> {
        prop_oneof![
            (0..u32::MAX).prop_map(|index| Place::Batch {
                index,
                total: index + 1
            }),
            any::<[u64; 4]>().prop_map(|[items, events, event_bytes, packed_bytes]| {
                Place::Chain(ChainTotals {
                    items,
                    events,
                    event_bytes,
                    packed_bytes,
                })
            })
        ]
    }

    fn source() -> impl Strategy<Value = SourceRange> {
        let names = ("[a-z]{1,8}", "shardId-[0-9]{12}");
        let numbers = (any::<u64>(), any::<u32>(), any::<u32>(), any::<u64>());
        (names, numbers, position(), position()).prop_map(
            |((stream, shard), (epoch, first, span, count), from, to)| SourceRange {
                stream,
                shard,
                epoch,
                first_ordinal: first.into(),
                last_ordinal: u64::from(first) + u64::from(span),
                count,
                first: from,
                last: to,
            },
        )
    }

    fn frame(sources: usize) -> impl Strategy<Value = FrameInfo> {
        let limit = limits::MAX_FRAME_BYTES as u32;
        let sizes = (any::<u32>(), 0..limit, 0..limit, 0..limit);
        let times = (0..limits::MAX_TIME_MS, 0..limits::MAX_TIME_MS);
        let numbers = proptest::collection::vec(0..sources as u32, 0..4);
        (sizes, times, any::<u32>(), numbers).prop_map(
            |((packed_bytes, raw_bytes, event_count, event_bytes), (a, b), crc32c, sources)| {
                FrameInfo {
                    packed_bytes,
                    raw_bytes,
                    event_count,
                    event_bytes,
                    first_time_ms: a.min(b),
                    last_time_ms: a.max(b),
                    crc32c,
                    sources,
                }
            },
        )
    }

    fn header() -> impl Strategy<Value = Header> {
        let offsets = (any::<u32>(), any::<u32>());
        let sources = proptest::collection::vec(source(), 1..5);
        (kind(), place(), ".{1,30}", offsets, sources)
            .prop_flat_map(|(kind, place, group, (base, span), sources)| {
                let frames = proptest::collection::vec(frame(sources.len()), 0..6);
                (Just((kind, place, group, base, span, sources)), frames)
            })
            .prop_map(
                |((kind, place, group, base, span, sources), frames)| Header {
                    kind,
                    codec: Codec::Zstd { dictionary: 0 },
                    group,
                    base_offset: base.into(),
                    last_offset: u64::from(base) + u64::from(span),
                    place,
                    sources,
                    frames,
                },
            )
    }

    proptest! {
        #[test]
        fn round_trip_and_every_prefix_is_an_error(header in header()) {
            let mut bytes = Vec::new();
            header.encode(&mut bytes);
            let (decoded, length) = Header::decode(&bytes).expect("own encoding decodes");
            prop_assert_eq!(length, bytes.len());
            prop_assert_eq!(&decoded, &header);
            for cut in 0..bytes.len() {
                prop_assert!(
                    matches!(Header::decode(&bytes[..cut]), Err(DecodeError::Truncated { .. })),
                    "prefix of {} bytes", cut
                );
            }
        }

        #[test]
        fn a_flipped_bit_is_always_seen(header in header(), at in any::<prop::sample::Index>(), bit in 0..8) {
            let mut bytes = Vec::new();
            header.encode(&mut bytes);
            let index = at.index(bytes.len());
            bytes[index] ^= 1u8 << bit;
            prop_assert!(Header::decode(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Header::decode(&bytes);
            // The same body behind a valid prefix and checksum reaches the inner decoder.
            let mut framed = MAGIC.to_vec();
            framed.push(VERSION);
            framed.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            framed.extend_from_slice(&bytes);
            let crc = crc32c::crc32c(&framed);
            framed.extend_from_slice(&crc.to_le_bytes());
            if let Ok((header, _)) = Header::decode(&framed) {
                let mut again = Vec::new();
                header.encode(&mut again);
                prop_assert!(Header::decode(&again).is_ok());
            }
        }
    }
}
