//! Joining envelopes of one group into an item, and trimming what was delivered before.
//!
//! Joining lays frames side by side and merges headers: nothing is decompressed.

use crate::error::DecodeError;
use crate::frame::{CompressError, FrameBuilder, FrameDecoder, FrameEncoder, RawFrame};
use crate::header::{FrameInfo, Header, Kind, Place, SourceRange};
use crate::limits;

/// Merges the headers of envelopes whose frames will lie side by side.
#[derive(Debug, Clone)]
pub struct Joiner {
    header: Header,
    /// Exact encoded size at some earlier moment plus upper bounds of what came since.
    header_bound: usize,
    packed_bytes: usize,
}

/// Most bytes that varints of a header may grow by when totals replace a batch place.
const PLACE_SLACK: usize = 48;

impl Joiner {
    /// Starts an item with one envelope.
    #[must_use]
    pub fn new(first: Header) -> Self {
        let header_bound = first.encoded_len() + PLACE_SLACK;
        let packed_bytes = first.packed_bytes();
        Self {
            header: first,
            header_bound,
            packed_bytes,
        }
    }

    /// Upper bound of header section plus frames, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.header_bound + self.packed_bytes
    }

    /// The merged header so far.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Takes in the next envelope if both hold whole events of one group in one codec and
    /// header section plus frames stay within `limit` bytes; answers whether it did.
    pub fn try_push(&mut self, next: &Header, limit: usize) -> bool {
        let joinable = self.header.kind == Kind::Events
            && next.kind == Kind::Events
            && self.header.codec == next.codec
            && self.header.group == next.group
            && self.header.frames.len() + next.frames.len() <= limits::MAX_FRAMES
            && self.header.sources.len() + next.sources.len() <= limits::MAX_SOURCES;
        if !joinable {
            return false;
        }
        let packed = next.packed_bytes();
        // The next header alone is larger than what it adds, but for wider indexes and counts.
        let growth = next.encoded_len() + 2 * next.frames.len() + PLACE_SLACK;
        if self.header_bound + growth + self.packed_bytes + packed > limit {
            self.header_bound = self.header.encoded_len() + PLACE_SLACK;
        }
        if self.header_bound + growth + self.packed_bytes + packed > limit {
            return false;
        }
        self.header_bound += growth;
        self.packed_bytes += packed;
        self.merge(next);
        true
    }

    fn merge(&mut self, next: &Header) {
        let header = &mut self.header;
        header.base_offset = header.base_offset.min(next.base_offset);
        header.last_offset = header.last_offset.max(next.last_offset);
        let numbers: Vec<u32> = next
            .sources
            .iter()
            .map(|source| merge_source(&mut header.sources, source))
            .collect();
        header
            .frames
            .extend(next.frames.iter().map(|frame| FrameInfo {
                sources: frame.sources.iter().map(|s| numbers[*s as usize]).collect(),
                ..frame.clone()
            }));
    }

    /// The item's header, with its place in the chain.
    #[must_use]
    pub fn finish(self, place: Place) -> Header {
        Header {
            place,
            ..self.header
        }
    }
}

fn merge_source(sources: &mut Vec<SourceRange>, next: &SourceRange) -> u32 {
    let number = match sources.iter().position(|known| known.same_chain(next)) {
        Some(number) => {
            sources[number].extend(next);
            number
        }
        None => {
            sources.push(next.clone());
            sources.len() - 1
        }
    };
    number as u32
}

/// The events of all frames in few raw frames, closed as a packer closes them, in their order; their sources
/// are those of the header.
///
/// # Errors
/// [`DecodeError`] when a frame is damaged.
pub fn unite(
    header: &Header,
    frames: &[u8],
    decoder: &mut FrameDecoder,
) -> Result<Vec<RawFrame>, DecodeError> {
    let mut united = Vec::new();
    let mut builder = FrameBuilder::default();
    for (info, range) in header.frame_ranges() {
        let bytes = frames
            .get(range)
            .ok_or(DecodeError::Truncated { what: "frame" })?;
        let frame = decoder.decode(header.codec, info, bytes)?;
        for event in &frame.events {
            let value = frame.value(event);
            if !builder.is_empty() && builder.raw_len() + value.len() > limits::FRAME_TARGET_BYTES {
                united.push(builder.take());
            }
            builder.push(value, event.time_ms, event.source, event.ordinal);
        }
    }
    if !builder.is_empty() {
        united.push(builder.take());
    }
    Ok(united)
}

/// Why an envelope could not be trimmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrimError {
    /// Its frames could not be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Its frames could not be written anew.
    #[error(transparent)]
    Compress(#[from] CompressError),
}

/// Takes an envelope apart and keeps the events for which `keep` says so, by source and ordinal.
///
/// `None` when no event is left. The frames are compressed anew with `encoder`. Only envelopes
/// of whole events can be trimmed; parts and rejects hold one event and are kept or dropped whole.
///
/// # Errors
/// [`TrimError`] when the frames are damaged or zstd fails.
pub fn trim(
    header: &Header,
    frames: &[u8],
    decoder: &mut FrameDecoder,
    encoder: &mut FrameEncoder,
    keep: impl Fn(&SourceRange, u64) -> bool,
) -> Result<Option<(Header, Vec<u8>)>, TrimError> {
    let mut kept_ordinals: Vec<Option<(u64, u64, u64)>> = vec![None; header.sources.len()];
    let mut infos = Vec::new();
    let mut packed = Vec::new();
    for (info, range) in header.frame_ranges() {
        let bytes = frames
            .get(range)
            .ok_or(DecodeError::Truncated { what: "frame" })?;
        let frame = decoder.decode(header.codec, info, bytes)?;
        let mut builder = FrameBuilder::default();
        for event in &frame.events {
            let number = event.source as usize;
            if !keep(&header.sources[number], event.ordinal) {
                continue;
            }
            builder.push(
                frame.value(event),
                event.time_ms,
                event.source,
                event.ordinal,
            );
            let span = kept_ordinals[number].get_or_insert((event.ordinal, event.ordinal, 0));
            span.0 = span.0.min(event.ordinal);
            span.1 = span.1.max(event.ordinal);
            span.2 += 1;
        }
        if !builder.is_empty() {
            let (info, bytes) = encoder.encode(builder.take())?;
            infos.push(info);
            packed.extend_from_slice(&bytes);
        }
    }
    if infos.is_empty() {
        return Ok(None);
    }
    let mut numbers = vec![0; header.sources.len()];
    let mut sources = Vec::new();
    for (number, span) in kept_ordinals.into_iter().enumerate() {
        if let Some((first_ordinal, last_ordinal, count)) = span {
            numbers[number] = sources.len() as u32;
            sources.push(SourceRange {
                first_ordinal,
                last_ordinal,
                count,
                ..header.sources[number].clone()
            });
        }
    }
    for info in &mut infos {
        for source in &mut info.sources {
            *source = numbers[*source as usize];
        }
    }
    let trimmed = Header {
        codec: encoder.codec(),
        sources,
        frames: infos,
        ..header.clone()
    };
    Ok(Some((trimmed, packed)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::{ChainTotals, Codec};
    use crate::sequence::{Position, SequenceNumber};

    fn position(number: u64) -> Position {
        let text = number.to_string();
        Position::new(SequenceNumber::parse(&text).expect("canonical"), 0)
    }

    /// An envelope of shard `shard` with the given ordinals, one event each.
    fn envelope(shard: &str, ordinals: &[u64], offset: u64) -> (Header, Vec<u8>) {
        let mut builder = FrameBuilder::default();
        for ordinal in ordinals {
            let value = format!("{{\"ordinal\":{ordinal}}}");
            builder.push(value.as_bytes(), 1_000 + *ordinal as i64, 0, *ordinal);
        }
        let mut encoder = FrameEncoder::new(1).expect("context");
        let (info, packed) = encoder.encode(builder.take()).expect("compresses");
        let header = Header {
            kind: Kind::Events,
            codec: Codec::Zstd { dictionary: 0 },
            group: "g".into(),
            base_offset: offset,
            last_offset: offset + ordinals.len() as u64 - 1,
            place: Place::Batch { index: 0, total: 1 },
            sources: vec![SourceRange {
                stream: "s".into(),
                shard: shard.into(),
                epoch: 1,
                first_ordinal: ordinals[0],
                last_ordinal: ordinals[ordinals.len() - 1],
                first: position(100 + ordinals[0]),
                last: position(100 + ordinals[ordinals.len() - 1]),
                count: ordinals.len() as u64,
            }],
            frames: vec![info],
        };
        (header, packed)
    }

    #[test]
    fn a_joined_item_reads_like_its_envelopes_one_after_the_other() {
        let parts = [
            envelope("a", &[0, 2], 10),
            envelope("b", &[5], 20),
            envelope("a", &[3, 9], 30),
        ];
        let mut joiner = Joiner::new(parts[0].0.clone());
        let mut frames = parts[0].1.clone();
        for (header, packed) in &parts[1..] {
            assert!(joiner.try_push(header, 10_000));
            frames.extend_from_slice(packed);
        }
        let bound = joiner.bytes();
        let header = joiner.finish(Place::Chain(ChainTotals {
            items: u64::MAX,
            events: u64::MAX,
            event_bytes: u64::MAX,
            packed_bytes: u64::MAX,
        }));
        assert!(header.encoded_len() + frames.len() <= bound);
        header.check_frames(&frames).expect("frames agree");
        assert_eq!((header.base_offset, header.last_offset), (10, 31));
        assert_eq!(header.sources.len(), 2);
        assert_eq!(
            (header.sources[0].last_ordinal, header.sources[0].count),
            (9, 4)
        );
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        let (decoded, length) = Header::decode(&bytes).expect("decodes");
        assert_eq!((&decoded, length), (&header, bytes.len()));

        let mut decoder = FrameDecoder::new().expect("context");
        let mut links = Vec::new();
        for (info, range) in header.frame_ranges() {
            let frame = decoder
                .decode(header.codec, info, &frames[range])
                .expect("decodes");
            for event in &frame.events {
                let shard = header.sources[event.source as usize].shard.clone();
                links.push((shard, event.ordinal));
            }
        }
        let expected = [("a", 0), ("a", 2), ("b", 5), ("a", 3), ("a", 9)];
        assert_eq!(
            links,
            expected.map(|(shard, ordinal)| (shard.to_owned(), ordinal))
        );
    }

    #[test]
    fn united_frames_hold_the_same_events() {
        let (mut header, mut frames) = envelope("a", &[0, 2], 10);
        let mut joiner = Joiner::new(header);
        for (next, packed) in [envelope("b", &[5], 20), envelope("a", &[3, 9], 30)] {
            assert!(joiner.try_push(&next, 10_000));
            frames.extend_from_slice(&packed);
        }
        header = joiner.finish(Place::Batch { index: 0, total: 1 });
        let links = |header: &Header, frames: &[u8]| -> Vec<_> {
            let mut decoder = FrameDecoder::new().expect("context");
            let decoded = header.frame_ranges().flat_map(|(info, range)| {
                let frame = decoder.decode(header.codec, info, &frames[range]);
                let frame = frame.expect("decodes");
                let event = |e: &crate::frame::FrameEvent| {
                    let value = frame.value(e).to_vec();
                    (e.source, e.ordinal, e.time_ms, value)
                };
                frame.events.iter().map(event).collect::<Vec<_>>()
            });
            decoded.collect()
        };
        let mut decoder = FrameDecoder::new().expect("context");
        let mut raw = unite(&header, &frames, &mut decoder).expect("unites");
        assert_eq!(raw.len(), 1);
        let mut encoder = FrameEncoder::new(3).expect("context");
        let (info, packed) = encoder.encode(raw.remove(0)).expect("compresses");
        let united = Header {
            frames: vec![info],
            ..header.clone()
        };
        united.check_frames(&packed).expect("frames agree");
        assert_eq!(links(&united, &packed), links(&header, &frames));
        assert_eq!(united.event_count(), header.event_count());
        assert_eq!(united.event_bytes(), header.event_bytes());
        let cut = unite(&header, &frames[..frames.len() - 1], &mut decoder);
        assert_eq!(cut, Err(DecodeError::Truncated { what: "frame" }));
    }

    #[test]
    fn united_frames_are_closed_as_a_packer_closes_them() {
        let mut encoder = FrameEncoder::new(1).expect("context");
        let mut frames = Vec::new();
        let (mut header, _) = envelope("a", &[0], 0);
        header.frames.clear();
        for ordinal in 0..200u64 {
            let mut builder = FrameBuilder::default();
            let value = vec![ordinal as u8; if ordinal == 70 { 100_000 } else { 1_000 }];
            builder.push(&value, 1_000 + ordinal as i64, 0, ordinal);
            let (info, packed) = encoder.encode(builder.take()).expect("compresses");
            header.frames.push(info);
            frames.extend(packed);
        }
        let mut decoder = FrameDecoder::new().expect("context");
        let raw = unite(&header, &frames, &mut decoder).expect("unites");
        let events: u32 = raw.iter().map(|frame| frame.info.event_count).sum();
        assert_eq!(events, 200);
        for frame in &raw {
            let is_alone = frame.info.event_count == 1;
            assert!(is_alone || frame.raw.len() <= limits::FRAME_TARGET_BYTES + 16);
        }
        assert!(raw.len() < 8, "{}", raw.len());
    }

    #[test]
    fn an_item_never_outgrows_its_limit() {
        let (first, packed) = envelope("a", &[0], 0);
        let mut joiner = Joiner::new(first);
        let mut joined = 1;
        let mut bytes = packed.len();
        for ordinal in 1..1_000 {
            let (next, packed) = envelope("a", &[ordinal], ordinal);
            if !joiner.try_push(&next, 8_192) {
                break;
            }
            joined += 1;
            bytes += packed.len();
        }
        let total = joiner.header().encoded_len() + bytes;
        assert!(
            joined > 50 && total <= 8_192,
            "{joined} envelopes, {total} bytes"
        );
        assert!(total + 400 > 8_192, "stopped early at {total} bytes");
    }

    #[test]
    fn trimming_keeps_exactly_what_is_asked_for() {
        let (header, packed) = envelope("a", &[4, 5, 6, 7], 0);
        let mut decoder = FrameDecoder::new().expect("context");
        let mut encoder = FrameEncoder::new(1).expect("context");
        let (trimmed, frames) = trim(&header, &packed, &mut decoder, &mut encoder, |_, o| o > 5)
            .expect("trims")
            .expect("two left");
        assert_eq!(trimmed.event_count(), 2);
        assert_eq!(trimmed.sources[0].first_ordinal, 6);
        trimmed.check_frames(&frames).expect("frames agree");
        let none = trim(&header, &packed, &mut decoder, &mut encoder, |_, _| false);
        assert_eq!(none, Ok(None));
    }
}
