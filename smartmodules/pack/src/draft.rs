//! An envelope in the making: frames and sources of one group, never larger than its limit.

use millpond_format::frame::{CompressError, FrameBuilder, FrameEncoder};
use millpond_format::header::{Codec, FrameInfo, Header, Kind, Place, SourceRange};
use millpond_format::limits;
use millpond_format::sequence::{MAX_SEQUENCE_DIGITS, Position};

use crate::batch::{Chain, Event};

/// Longest encoding of a number below 2^32.
const U32_BYTES: usize = 5;

/// Longest encoding of any number.
const U64_BYTES: usize = 10;

/// Upper bound of a header without kind, group, sources and frames: magic, version, length,
/// checksum, codec, offsets, place, and the counts of group, sources and frames.
const HEADER_BYTES: usize =
    8 + 4 + (1 + U64_BYTES) + 2 * U64_BYTES + (1 + 2 * U32_BYTES) + 3 * U32_BYTES;

/// Upper bound of the kind of a header that holds a part.
const PART_KIND_BYTES: usize = 1 + 3 * U32_BYTES + 4;

/// Upper bound of the columns of a frame with one event, its event count included.
const SINGLE_COLUMNS_BYTES: usize = 1 + U32_BYTES + 2 * U64_BYTES + 1;

/// Bytes that zstd may add to what it cannot compress, besides one in 256: frame header,
/// block headers of the up to four blocks of an item, and checksum (`ZSTD_compressBound`
/// in zstd 1.5.7's `zstd.h` adds at most 64 for small inputs).
const ZSTD_FIXED_BYTES: usize = 128;

/// A compressed frame with its sources, which are numbered as in the batch.
#[derive(Debug)]
pub struct Frame<'a> {
    info: FrameInfo,
    packed: Vec<u8>,
    spans: Vec<Span<'a>>,
}

/// Events of one chain in a frame.
#[derive(Debug, Clone, Copy)]
struct Span<'a> {
    chain: u32,
    first: (u64, &'a str, u32),
    last: (u64, &'a str, u32),
    count: u64,
}

/// Builds and compresses frames one after the other.
#[derive(Debug)]
pub struct FramePacker {
    encoder: FrameEncoder,
    builder: FrameBuilder,
}

impl FramePacker {
    /// A packer at a zstd level.
    pub fn new(level: i32) -> Result<Self, CompressError> {
        Ok(Self {
            encoder: FrameEncoder::new(level)?,
            builder: FrameBuilder::default(),
        })
    }

    /// Codec of its frames.
    pub fn codec(&self) -> Codec {
        self.encoder.codec()
    }

    /// Makes a frame of whole events; `events` is not empty.
    pub fn pack<'a>(&mut self, events: &[&Event<'a>]) -> Result<Frame<'a>, CompressError> {
        let mut spans: Vec<Span<'a>> = Vec::new();
        for event in events {
            self.builder
                .push(event.value, event.time_ms, event.chain, event.ordinal);
            match spans.iter_mut().find(|span| span.chain == event.chain) {
                Some(span) => span.extend(event),
                None => spans.push(Span::of(event, 1)),
            }
        }
        let (info, packed) = self.encoder.encode(self.builder.take())?;
        Ok(Frame {
            info,
            packed,
            spans,
        })
    }

    /// Makes a frame of one slice of an event; the last slice counts as the event.
    pub fn pack_slice<'a>(
        &mut self,
        event: &Event<'a>,
        slice: &[u8],
        is_last: bool,
    ) -> Result<Frame<'a>, CompressError> {
        self.builder
            .push(slice, event.time_ms, event.chain, event.ordinal);
        let (mut info, packed) = self.encoder.encode(self.builder.take())?;
        info.event_count = u32::from(is_last);
        Ok(Frame {
            info,
            packed,
            spans: vec![Span::of(event, u64::from(is_last))],
        })
    }
}

impl<'a> Span<'a> {
    fn of(event: &Event<'a>, count: u64) -> Self {
        let end = (event.ordinal, event.sequence, event.sub_sequence);
        Self {
            chain: event.chain,
            first: end,
            last: end,
            count,
        }
    }

    fn extend(&mut self, event: &Event<'a>) {
        let end = (event.ordinal, event.sequence, event.sub_sequence);
        if end.0 < self.first.0 {
            self.first = end;
        }
        if end.0 > self.last.0 {
            self.last = end;
        }
        self.count += 1;
    }

    fn to_range(self, chain: &Chain<'_>) -> SourceRange {
        SourceRange {
            stream: chain.stream.to_owned(),
            shard: chain.shard.to_owned(),
            epoch: chain.epoch,
            first_ordinal: self.first.0,
            last_ordinal: self.last.0,
            first: position(self.first),
            last: position(self.last),
            count: self.count,
        }
    }
}

fn position((_, sequence, sub_sequence): (u64, &str, u32)) -> Position {
    // The sequence number was checked when the origin was read.
    Position {
        sequence: sequence.into(),
        sub_sequence,
    }
}

/// An envelope in the making.
#[derive(Debug)]
pub struct Draft {
    kind: Kind,
    group: String,
    sources: Vec<SourceRange>,
    /// Chain of each source.
    chains: Vec<u32>,
    frames: Vec<FrameInfo>,
    packed: Vec<u8>,
    /// Upper bound of the header as it is now.
    header_bytes: usize,
}

impl Draft {
    /// An envelope without frames.
    pub fn new(kind: Kind, group: &str) -> Self {
        let kind_bytes = match &kind {
            Kind::Events => 1,
            Kind::Part(_) => PART_KIND_BYTES,
            Kind::Reject(reject) => {
                let key = reject.record_key.as_ref().map_or(0, Vec::len);
                3 + 2 * U32_BYTES + reject.detail.len() + key
            }
        };
        Self {
            kind,
            group: group.to_owned(),
            sources: Vec::new(),
            chains: Vec::new(),
            frames: Vec::new(),
            packed: Vec::new(),
            header_bytes: HEADER_BYTES + kind_bytes + group.len(),
        }
    }

    /// True before the first frame.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Appends a frame if the envelope then has at most `limit` bytes; gives it back if not.
    pub fn try_push<'a>(
        &mut self,
        frame: Frame<'a>,
        chains: &[Chain<'_>],
        limit: usize,
    ) -> Result<(), Frame<'a>> {
        let growth = frame_bytes(frame.spans.len()) + self.new_source_bytes(&frame, chains);
        let fits = self.header_bytes + growth + self.packed.len() + frame.packed.len() <= limit
            && self.frames.len() < limits::MAX_FRAMES
            && self.sources.len() + frame.spans.len() <= limits::MAX_SOURCES;
        if !fits {
            return Err(frame);
        }
        self.header_bytes += growth;
        self.push(frame, chains);
        Ok(())
    }

    /// Appends a frame whatever the size.
    pub fn push(&mut self, frame: Frame<'_>, chains: &[Chain<'_>]) {
        let mut info = frame.info;
        // Spans and the frame's own sources are in the same order, that of appearance.
        for (source, span) in info.sources.iter_mut().zip(frame.spans) {
            let range = span.to_range(&chains[span.chain as usize]);
            let known = self.chains.iter().position(|chain| *chain == span.chain);
            let number = match known {
                Some(number) => {
                    self.sources[number].extend(&range);
                    number
                }
                None => {
                    self.sources.push(range);
                    self.chains.push(span.chain);
                    self.sources.len() - 1
                }
            };
            *source = number as u32;
        }
        self.frames.push(info);
        self.packed.extend_from_slice(&frame.packed);
    }

    /// Upper bound of what a frame adds to the sources.
    fn new_source_bytes(&self, frame: &Frame<'_>, chains: &[Chain<'_>]) -> usize {
        let new = |span: &&Span<'_>| !self.chains.contains(&span.chain);
        let bytes = |span: &Span<'_>| source_bytes(&chains[span.chain as usize]);
        frame.spans.iter().filter(new).map(bytes).sum()
    }

    /// The finished envelope: header section and frames.
    pub fn finish(self, codec: Codec, offsets: (u64, u64), place: Place) -> (String, Vec<u8>) {
        let header = Header {
            kind: self.kind,
            codec,
            group: self.group,
            base_offset: offsets.0,
            last_offset: offsets.1,
            place,
            sources: self.sources,
            frames: self.frames,
        };
        let mut bytes = Vec::with_capacity(self.header_bytes + self.packed.len());
        header.encode(&mut bytes);
        bytes.extend_from_slice(&self.packed);
        (header.group, bytes)
    }
}

/// Upper bound of a source range in a header, whatever positions it will have.
fn source_bytes(chain: &Chain<'_>) -> usize {
    let names = 2 * U32_BYTES + chain.stream.len() + chain.shard.len();
    let position = U32_BYTES + MAX_SEQUENCE_DIGITS + U32_BYTES;
    names + 4 * U64_BYTES + 2 * position
}

/// Upper bound of the index entry of a frame with events of that many chains.
fn frame_bytes(chains: usize) -> usize {
    4 * U32_BYTES + 2 * U64_BYTES + 4 + U32_BYTES + 2 * chains
}

/// Bytes of an event that fit one part envelope of at most `limit` bytes, whatever they are.
pub fn slice_bytes(group: &str, chain: &Chain<'_>, limit: usize) -> usize {
    let header =
        HEADER_BYTES + PART_KIND_BYTES + group.len() + source_bytes(chain) + frame_bytes(1);
    let packed = limit.saturating_sub(header + SINGLE_COLUMNS_BYTES + ZSTD_FIXED_BYTES);
    (packed - packed / 256).max(1)
}
