//! Takes entries of the topic apart into events, one after the other; puts events in parts together.

use bytes::Bytes;
use millpond_format::error::DecodeError;
use millpond_format::frame::FrameDecoder;
use millpond_format::header::{Header, Kind, Part};
use millpond_sink::contiguity::PlainRecord;

use crate::names::EventPlace;

/// What is known of an event besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source<'a> {
    /// Stream name; empty when the event had no origin.
    pub stream: &'a str,
    /// Shard id.
    pub shard: &'a str,
    /// Numbering of the ordinal.
    pub epoch: u64,
    /// Place in its shard's chain.
    pub ordinal: u64,
    /// Sequence number and sub-sequence number, where they are known for each event.
    pub sequence: Option<(&'a str, u32)>,
}

/// An event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// Where it comes from in the topic.
    pub place: EventPlace,
    /// Event time in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// Where it comes from in the stream.
    pub source: Source<'a>,
    /// Its bytes as they were produced.
    pub value: &'a [u8],
}

/// Something that holds events of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// An envelope.
    Envelope {
        /// Its header.
        header: Header,
        /// Its frames.
        frames: Bytes,
        /// Its index among those of its batch.
        index: u32,
    },
    /// A plain record, whose key is an origin.
    Record(PlainRecord),
}

impl Piece {
    /// Parts that are taken one by one: the frames of an envelope, or the record.
    #[must_use]
    pub fn parts(&self) -> usize {
        match self {
            Self::Envelope { header, .. } => header.frames.len(),
            Self::Record(_) => 1,
        }
    }
}

/// One frame of an envelope.
#[derive(Debug, Clone)]
pub struct Frame<'a> {
    /// Header of the envelope.
    pub header: &'a Header,
    /// Index of the envelope among those of its batch.
    pub index: u32,
    /// Number of the frame.
    pub number: usize,
    /// Its bytes as stored.
    pub packed: Bytes,
    /// Number of its first event in the envelope.
    pub first: u64,
}

impl Frame<'_> {
    /// Events that it should hold, at least one.
    #[must_use]
    pub fn events(&self) -> u64 {
        let info = self.header.frames.get(self.number);
        info.map_or(1, |info| u64::from(info.event_count.max(1)))
    }
}

/// Bytes in which no event could be found, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// Place of the first event that should be there.
    pub place: EventPlace,
    /// Event time, as far as it is known.
    pub time_ms: i64,
    /// The bytes as they are.
    pub bytes: Bytes,
    /// The failed check.
    pub error: DecodeError,
}

/// An event of which parts are missing yet.
#[derive(Debug)]
struct Partial {
    place: EventPlace,
    part: Part,
    bytes: Vec<u8>,
}

/// Takes the envelopes of one group apart, in order.
#[derive(Default)]
pub struct Unpacker {
    frames: Option<FrameDecoder>,
    partial: Option<Partial>,
}

impl Unpacker {
    /// An unpacker for the next group.
    ///
    /// # Errors
    /// [`DecodeError`] when zstd cannot allocate its context.
    pub fn new() -> Result<Self, DecodeError> {
        Ok(Self {
            frames: Some(FrameDecoder::new()?),
            partial: None,
        })
    }

    /// Hands every event of a frame to `take`; answers the number after its last.
    ///
    /// What cannot be read is answered as it is, and nothing of the frame is handed on.
    ///
    /// # Errors
    /// What `take` says.
    pub fn frame<E>(
        &mut self,
        frame: &Frame<'_>,
        mut take: impl FnMut(&Event<'_>) -> Result<(), E>,
    ) -> Result<Result<u64, Damaged>, E> {
        let header = frame.header;
        let (Some(info), Some(decoder)) = (header.frames.get(frame.number), &mut self.frames)
        else {
            return Ok(Ok(frame.first));
        };
        let place = |event| EventPlace {
            offset: header.base_offset,
            envelope: frame.index,
            event,
        };
        let damaged = |bytes: Bytes, error| Damaged {
            place: place(frame.first),
            time_ms: info.first_time_ms,
            bytes,
            error,
        };
        let decoded = match decoder.decode(header.codec, info, &frame.packed) {
            Ok(decoded) => decoded,
            Err(error) => return Ok(Err(damaged(frame.packed.clone(), error))),
        };
        let mut next = frame.first;
        for event in &decoded.events {
            // The header was checked: every event has its source.
            let range = header.sources.get(event.source as usize);
            let mut whole = Event {
                place: place(next),
                time_ms: event.time_ms,
                source: Source {
                    stream: range.map_or("", |range| &range.stream),
                    shard: range.map_or("", |range| &range.shard),
                    epoch: range.map_or(0, |range| range.epoch),
                    ordinal: event.ordinal,
                    sequence: None,
                },
                value: decoded.value(event),
            };
            next += 1;
            let Kind::Part(part) = header.kind else {
                take(&whole)?;
                continue;
            };
            match self.put_together(part, whole.place, whole.value) {
                Ok(None) => {}
                Ok(Some(partial)) => {
                    whole.place = partial.place;
                    whole.value = &partial.bytes;
                    take(&whole)?;
                }
                Err((bytes, error)) => return Ok(Err(damaged(bytes.into(), error))),
            }
        }
        Ok(Ok(next))
    }

    /// Adds a part; answers the event once it is whole, or the bytes that make none.
    fn put_together(
        &mut self,
        part: Part,
        place: EventPlace,
        value: &[u8],
    ) -> Result<Option<Partial>, (Vec<u8>, DecodeError)> {
        let partial = match self.partial.take() {
            Some(partial) if part.index > 0 => Some(partial),
            _ if part.index == 0 => Some(Partial {
                place,
                part,
                bytes: Vec::new(),
            }),
            _ => None,
        };
        let corrupt = |what| DecodeError::Corrupt { what };
        let Some(mut partial) = partial else {
            return Err((
                value.to_vec(),
                corrupt("parts of an event: the first is missing"),
            ));
        };
        partial.bytes.extend_from_slice(value);
        let is_next = part.index == 0 || part.index == partial.part.index + 1;
        let is_same = part.event_crc32c == partial.part.event_crc32c
            && part.event_bytes == partial.part.event_bytes;
        // The whole is bounded by what the header may declare, and the header was checked.
        if !is_next || !is_same || partial.bytes.len() as u64 > part.event_bytes {
            return Err((
                partial.bytes,
                corrupt("parts of an event: they do not follow each other"),
            ));
        }
        partial.part = part;
        if !part.is_last() {
            self.partial = Some(partial);
            return Ok(None);
        }
        let computed = crc32c::crc32c(&partial.bytes);
        if partial.bytes.len() as u64 != part.event_bytes {
            return Err((partial.bytes, corrupt("event length")));
        }
        if computed != part.event_crc32c {
            let error = DecodeError::ChecksumMismatch {
                what: "event",
                stored: part.event_crc32c,
                computed,
            };
            return Err((partial.bytes, error));
        }
        Ok(Some(partial))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: EventPlace = EventPlace {
        offset: 5,
        envelope: 1,
        event: 0,
    };

    fn parts(value: &[u8], count: u32) -> Vec<Part> {
        let part = |index| Part {
            index,
            count,
            event_bytes: value.len() as u64,
            event_crc32c: crc32c::crc32c(value),
        };
        (0..count).map(part).collect()
    }

    #[test]
    fn parts_are_put_together_and_what_does_not_fit_is_given_back() {
        let value = b"abcdefgh";
        let parts = parts(value, 3);
        let mut unpacker = Unpacker::new().expect("zstd");
        let mut put = |part: Part, value: &[u8]| {
            let put = unpacker.put_together(part, PLACE, value);
            put.map(|whole| whole.map(|whole| whole.bytes))
                .map_err(|(bytes, _)| bytes)
        };
        assert_eq!(put(parts[0], b"abc"), Ok(None));
        assert_eq!(put(parts[1], b"def"), Ok(None));
        assert_eq!(put(parts[2], b"gh"), Ok(Some(value.to_vec())));
        // Without a beginning, with one left out, with other bytes, with too many.
        assert_eq!(put(parts[1], b"def"), Err(b"def".to_vec()));
        assert_eq!(put(parts[0], b"abc"), Ok(None));
        assert_eq!(put(parts[2], b"gh"), Err(b"abcgh".to_vec()));
        assert_eq!(put(parts[0], b"abc"), Ok(None));
        assert_eq!(put(parts[1], b"dxf"), Ok(None));
        assert_eq!(put(parts[2], b"gh"), Err(b"abcdxfgh".to_vec()));
        assert_eq!(put(parts[0], b"abcdefghi"), Err(b"abcdefghi".to_vec()));
        assert_eq!(put(parts[0], b"abc"), Ok(None));
        assert_eq!(put(parts[1], b"def"), Ok(None));
        assert_eq!(put(parts[2], b"gh"), Ok(Some(value.to_vec())));
    }
}
