//! A frame: events of one group as columns, compressed as one independent unit.
//!
//! Raw layout: event count; per column one varint an event (value lengths;
//! event times as zigzag deltas from the one before, the first from 0; source
//! numbers; ordinals as zigzag deltas from the last of the same source number,
//! the first from 0); then the values back to back.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use zstd::zstd_safe::{CParameter, DCtx};

use crate::dictionary::Dictionary;
use crate::error::{Cursor, DecodeError};
use crate::header::{Codec, FrameInfo};
use crate::limits;
use crate::varint;

/// Collects the events of one frame.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    lengths: Vec<u8>,
    times: Vec<u8>,
    numbers: Vec<u8>,
    ordinals: Vec<u8>,
    values: Vec<u8>,
    event_count: u32,
    previous_time_ms: i64,
    first_time_ms: i64,
    last_time_ms: i64,
    /// Source of each source number, with the last ordinal seen.
    sources: Vec<(u32, u64)>,
}

/// A frame ready to be compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    /// Columns, then values.
    pub raw: Vec<u8>,
    /// Its index entry; `packed_bytes` and `crc32c` are still 0.
    pub info: FrameInfo,
}

impl FrameBuilder {
    /// Appends one event that came from `source` (an index into the envelope's sources).
    pub fn push(&mut self, value: &[u8], time_ms: i64, source: u32, ordinal: u64) {
        if self.event_count == 0 {
            self.first_time_ms = time_ms;
            self.last_time_ms = time_ms;
        }
        self.first_time_ms = self.first_time_ms.min(time_ms);
        self.last_time_ms = self.last_time_ms.max(time_ms);
        varint::put(&mut self.lengths, value.len() as u64);
        varint::put_signed(&mut self.times, time_ms.wrapping_sub(self.previous_time_ms));
        self.previous_time_ms = time_ms;
        // Few sources feed one frame, and the same one again and again.
        let number = match self.sources.iter().position(|(known, _)| *known == source) {
            Some(number) => number,
            None => {
                self.sources.push((source, 0));
                self.sources.len() - 1
            }
        };
        varint::put(&mut self.numbers, number as u64);
        let last = &mut self.sources[number].1;
        varint::put_signed(&mut self.ordinals, ordinal.wrapping_sub(*last) as i64);
        *last = ordinal;
        self.values.extend_from_slice(value);
        self.event_count += 1;
    }

    /// Bytes that the raw frame would have now.
    #[must_use]
    pub fn raw_len(&self) -> usize {
        varint::size(self.event_count.into())
            + self.lengths.len()
            + self.times.len()
            + self.numbers.len()
            + self.ordinals.len()
            + self.values.len()
    }

    /// True before the first event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.event_count == 0
    }

    /// The raw frame; the builder is empty again and keeps its memory.
    pub fn take(&mut self) -> RawFrame {
        let mut raw = Vec::with_capacity(self.raw_len());
        varint::put(&mut raw, self.event_count.into());
        for column in [
            &mut self.lengths,
            &mut self.times,
            &mut self.numbers,
            &mut self.ordinals,
        ] {
            raw.extend_from_slice(column);
            column.clear();
        }
        raw.extend_from_slice(&self.values);
        let info = FrameInfo {
            packed_bytes: 0,
            raw_bytes: raw.len() as u32,
            event_count: self.event_count,
            event_bytes: self.values.len() as u32,
            first_time_ms: self.first_time_ms,
            last_time_ms: self.last_time_ms,
            crc32c: 0,
            sources: self.sources.iter().map(|(source, _)| *source).collect(),
        };
        self.values.clear();
        self.sources.clear();
        self.event_count = 0;
        self.previous_time_ms = 0;
        RawFrame { raw, info }
    }
}

/// One event of a decoded frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameEvent {
    /// Its bytes within [`DecodedFrame::raw`].
    pub value: Range<usize>,
    /// Event time, milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// Index into the sources of the envelope or item.
    pub source: u32,
    /// Place in the chain of that source.
    pub ordinal: u64,
}

/// A decompressed frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedFrame {
    /// Columns and values.
    pub raw: Vec<u8>,
    /// Events in order.
    pub events: Vec<FrameEvent>,
}

impl DecodedFrame {
    /// Bytes of one event.
    #[must_use]
    pub fn value(&self, event: &FrameEvent) -> &[u8] {
        &self.raw[event.value.clone()]
    }
}

/// Decompresses and reads frames; keeps its zstd context between them, and the dictionaries that it was given.
pub struct FrameDecoder {
    zstd: DCtx<'static>,
    dictionaries: BTreeMap<u64, Arc<Dictionary>>,
}

impl std::fmt::Debug for FrameDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameDecoder").finish_non_exhaustive()
    }
}

impl FrameDecoder {
    /// A decoder without dictionaries.
    ///
    /// # Errors
    /// [`DecodeError::Corrupt`] when zstd cannot allocate its context.
    pub fn new() -> Result<Self, DecodeError> {
        let zstd = DCtx::try_create().ok_or(DecodeError::Corrupt {
            what: "zstd context",
        })?;
        Ok(Self {
            zstd,
            dictionaries: BTreeMap::new(),
        })
    }

    /// Knows a dictionary of the pipeline from now on, in place of one with the same id.
    pub fn learn(&mut self, dictionary: Arc<Dictionary>) {
        self.dictionaries.insert(dictionary.id(), dictionary);
    }

    /// The dictionary that frames in this codec need and that this does not know.
    #[must_use]
    pub fn lacks(&self, codec: Codec) -> Option<u64> {
        let id = codec.dictionary()?;
        (!self.dictionaries.contains_key(&id)).then_some(id)
    }

    /// Checks, decompresses and reads one frame.
    ///
    /// # Errors
    /// A [`DecodeError`] for bytes that differ from what the index says of them.
    pub fn decode(
        &mut self,
        codec: Codec,
        info: &FrameInfo,
        packed: &[u8],
    ) -> Result<DecodedFrame, DecodeError> {
        if packed.len() != info.packed_bytes as usize {
            return Err(DecodeError::Truncated { what: "frame" });
        }
        info.check(packed)?;
        let raw = self.decompress(codec, info, packed)?;
        read_columns(raw, info)
    }

    fn decompress(
        &mut self,
        codec: Codec,
        info: &FrameInfo,
        packed: &[u8],
    ) -> Result<Vec<u8>, DecodeError> {
        let expected = info.raw_bytes as usize;
        if expected > limits::MAX_FRAME_BYTES {
            return Err(DecodeError::OverLimit {
                what: "raw frame size",
                value: expected as u64,
                limit: limits::MAX_FRAME_BYTES as u64,
            });
        }
        let mut raw = Vec::new();
        let read = match codec {
            Codec::Stored => {
                raw.extend_from_slice(packed);
                Ok(raw.len())
            }
            Codec::Zstd { dictionary: 0 } => {
                raw.reserve_exact(expected);
                self.zstd.decompress(&mut raw, packed)
            }
            Codec::Zstd { dictionary: id } => {
                let known = self.dictionaries.get(&id);
                let dictionary = known.ok_or(DecodeError::UnknownDictionary { id })?;
                raw.reserve_exact(expected);
                let prepared = dictionary.prepared();
                self.zstd.decompress_using_ddict(&mut raw, packed, prepared)
            }
        };
        read.map_err(|_| DecodeError::Corrupt { what: "zstd frame" })?;
        if raw.len() != expected {
            return Err(DecodeError::Corrupt {
                what: "raw frame size",
            });
        }
        Ok(raw)
    }
}

fn read_columns(raw: Vec<u8>, info: &FrameInfo) -> Result<DecodedFrame, DecodeError> {
    let mut cursor = Cursor { rest: &raw };
    // Every event takes at least four bytes of columns: a larger count cannot be true.
    let count = cursor.bounded("frame event count", raw.len() / 4)?;
    let mut events = Vec::with_capacity(count);
    for _ in 0..count {
        let length = cursor.bounded("event length", raw.len())?;
        events.push(FrameEvent {
            value: 0..length,
            time_ms: 0,
            source: 0,
            ordinal: 0,
        });
    }
    let mut previous = 0i64;
    for event in &mut events {
        previous = previous.wrapping_add(cursor.signed("event time")?);
        if !(info.first_time_ms..=info.last_time_ms).contains(&previous) {
            return Err(DecodeError::Corrupt { what: "event time" });
        }
        event.time_ms = previous;
    }
    let mut numbers = Vec::with_capacity(count);
    for event in &mut events {
        let number = cursor.varint("event source")? as usize;
        event.source = *info.sources.get(number).ok_or(DecodeError::Corrupt {
            what: "event source",
        })?;
        numbers.push(number);
    }
    let mut last = vec![0u64; info.sources.len()];
    for (event, number) in events.iter_mut().zip(numbers) {
        let ordinal = last[number].wrapping_add(cursor.signed("event ordinal")? as u64);
        last[number] = ordinal;
        event.ordinal = ordinal;
    }
    let mut start = raw.len() - cursor.rest.len();
    for event in &mut events {
        let end = start
            .checked_add(event.value.end)
            .filter(|end| *end <= raw.len())
            .ok_or(DecodeError::Truncated { what: "event" })?;
        event.value = start..end;
        start = end;
    }
    if start != raw.len() {
        return Err(DecodeError::Corrupt {
            what: "frame length",
        });
    }
    Ok(DecodedFrame { raw, events })
}

/// Compresses frames; keeps its zstd context between them.
pub struct FrameEncoder {
    zstd: zstd::bulk::Compressor<'static>,
    dictionary: u64,
}

impl std::fmt::Debug for FrameEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameEncoder").finish_non_exhaustive()
    }
}

/// Zstd could not be set up or refused a frame: out of memory, or a level that it does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("zstd: {0}")]
pub struct CompressError(String);

impl From<std::io::Error> for CompressError {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl FrameEncoder {
    /// An encoder at a zstd level, with content checksums.
    ///
    /// # Errors
    /// [`CompressError`] when zstd cannot allocate its context or refuses the level.
    pub fn new(level: i32) -> Result<Self, CompressError> {
        Self::made(level, 0, &[])
    }

    /// An encoder at a zstd level that uses a dictionary for every frame.
    ///
    /// # Errors
    /// As [`FrameEncoder::new`].
    pub fn with_dictionary(level: i32, dictionary: &Dictionary) -> Result<Self, CompressError> {
        Self::made(level, dictionary.id(), dictionary.bytes())
    }

    fn made(level: i32, dictionary: u64, bytes: &[u8]) -> Result<Self, CompressError> {
        let mut zstd = zstd::bulk::Compressor::with_dictionary(level, bytes)?;
        zstd.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok(Self { zstd, dictionary })
    }

    /// Codec of the frames that this makes.
    #[must_use]
    pub fn codec(&self) -> Codec {
        Codec::Zstd {
            dictionary: self.dictionary,
        }
    }

    /// Compresses the raw bytes of a frame.
    ///
    /// # Errors
    /// [`CompressError`] when zstd fails, which only a lack of memory explains.
    pub fn pack(&mut self, raw: &[u8]) -> Result<Vec<u8>, CompressError> {
        Ok(self.zstd.compress(raw)?)
    }

    /// Compresses a frame: its packed bytes and its finished index entry.
    ///
    /// # Errors
    /// [`CompressError`] when zstd fails, which only a lack of memory explains.
    pub fn encode(&mut self, frame: RawFrame) -> Result<(FrameInfo, Vec<u8>), CompressError> {
        let packed = self.pack(&frame.raw)?;
        let mut info = frame.info;
        info.packed_bytes = packed.len() as u32;
        info.crc32c = crc32c::crc32c(&packed);
        Ok((info, packed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (FrameInfo, Vec<u8>) {
        let mut builder = FrameBuilder::default();
        builder.push(b"{\"a\":1}", 1_700_000_000_000, 3, 10);
        builder.push(b"", 1_700_000_000_005, 5, 7);
        builder.push(&[0xff; 200], 1_699_999_999_000, 3, 12);
        let frame = builder.take();
        assert!(builder.is_empty());
        FrameEncoder::new(1)
            .and_then(|mut encoder| encoder.encode(frame))
            .expect("compresses")
    }

    #[test]
    fn events_survive_with_times_sources_and_ordinals() {
        let (info, packed) = sample();
        assert_eq!(info.sources, [3, 5]);
        assert_eq!(info.first_time_ms, 1_699_999_999_000);
        let mut decoder = FrameDecoder::new().expect("context");
        let frame = decoder
            .decode(Codec::Zstd { dictionary: 0 }, &info, &packed)
            .expect("decodes");
        assert_eq!(frame.value(&frame.events[0]), b"{\"a\":1}");
        assert_eq!(frame.value(&frame.events[1]), b"");
        assert_eq!(frame.value(&frame.events[2]), [0xff; 200]);
        let links: Vec<_> = frame.events.iter().map(|e| (e.source, e.ordinal)).collect();
        assert_eq!(links, [(3, 10), (5, 7), (3, 12)]);
    }

    #[test]
    fn any_changed_byte_is_seen() {
        let (info, packed) = sample();
        let mut decoder = FrameDecoder::new().expect("context");
        for index in 0..packed.len() {
            let mut changed = packed.clone();
            changed[index] ^= 1;
            let result = decoder.decode(Codec::Zstd { dictionary: 0 }, &info, &changed);
            assert!(
                matches!(result, Err(DecodeError::ChecksumMismatch { .. })),
                "byte {index}: {result:?}"
            );
        }
    }

    fn dictionary(id: u64) -> Dictionary {
        let bytes = include_bytes!("../tests/golden/dictionary-1.zdict").to_vec();
        Dictionary::new(id, bytes).expect("a dictionary")
    }

    #[test]
    fn a_frame_with_a_dictionary_is_read_by_who_knows_it() {
        let value = b"{\"id\":17,\"kind\":\"order-placed\",\"region\":\"eu-west-1\"}";
        let frame = || {
            let mut builder = FrameBuilder::default();
            builder.push(value, 1_700_000_000_000, 0, 1);
            builder.take()
        };
        let known = Arc::new(dictionary(7));
        let mut encoder = FrameEncoder::with_dictionary(3, &known).expect("context");
        let (info, packed) = encoder.encode(frame()).expect("compresses");
        let (_, alone) = FrameEncoder::new(3)
            .and_then(|mut encoder| encoder.encode(frame()))
            .expect("compresses");
        assert!(
            packed.len() < alone.len(),
            "{} {}",
            packed.len(),
            alone.len()
        );
        let codec = encoder.codec();
        assert_eq!(codec, Codec::Zstd { dictionary: 7 });
        let mut decoder = FrameDecoder::new().expect("context");
        assert_eq!(decoder.lacks(codec), Some(7));
        assert_eq!(
            decoder.decode(codec, &info, &packed),
            Err(DecodeError::UnknownDictionary { id: 7 })
        );
        decoder.learn(known);
        assert_eq!(decoder.lacks(codec), None);
        let read = decoder.decode(codec, &info, &packed).expect("decodes");
        assert_eq!(read.value(&read.events[0]), value);
        // The frame says which dictionary it needs: none is not it.
        let none = Codec::Zstd { dictionary: 0 };
        let refused = Err(DecodeError::Corrupt { what: "zstd frame" });
        assert_eq!(decoder.decode(none, &info, &packed), refused);
    }

    #[test]
    fn what_is_no_dictionary_is_refused() {
        let good = dictionary(1);
        let bytes = good.bytes().to_vec();
        assert!(Dictionary::checked(1, bytes.clone(), good.crc32c()).is_ok());
        assert!(matches!(
            Dictionary::checked(1, bytes.clone(), good.crc32c() ^ 1),
            Err(DecodeError::ChecksumMismatch { .. })
        ));
        assert!(Dictionary::new(0, bytes.clone()).is_err());
        assert!(Dictionary::new(limits::MAX_DICTIONARY_ID + 1, bytes.clone()).is_err());
        for cut in [0, 3, 8, 20] {
            assert!(Dictionary::new(1, bytes[..cut].to_vec()).is_err(), "{cut}");
        }
        let mut long = bytes;
        long.resize(limits::MAX_DICTIONARY_BYTES + 1, 0);
        assert!(matches!(
            Dictionary::new(1, long),
            Err(DecodeError::OverLimit { .. })
        ));
    }

    #[test]
    fn a_declared_size_is_never_trusted() {
        let (mut info, packed) = sample();
        info.raw_bytes -= 1;
        let mut decoder = FrameDecoder::new().expect("context");
        let codec = Codec::Zstd { dictionary: 0 };
        assert!(decoder.decode(codec, &info, &packed).is_err());
        info.raw_bytes = u32::MAX;
        assert!(matches!(
            decoder.decode(codec, &info, &packed),
            Err(DecodeError::OverLimit { .. })
        ));
    }
}
