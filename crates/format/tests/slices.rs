//! Slices by index and by time: through the frame index, and no frame decoded that is not needed.
#![allow(missing_docs, reason = "tests")]

use std::ops::Range;

use millpond_format::frame::{FrameBuilder, FrameDecoder, FrameEncoder};
use millpond_format::header::{Codec, FrameInfo, Header, Kind, Place, SourceRange};
use millpond_format::sequence::{Position, SequenceNumber};

/// Events of each frame.
const COUNTS: [usize; 5] = [3, 1, 7, 2, 4];

fn value(index: u64) -> Vec<u8> {
    format!("event {index}").into_bytes()
}

/// Two events of each time, so that frames share one at their borders.
fn time_ms(index: u64) -> i64 {
    1_763_886_000_000 + i64::try_from(index / 2).expect("small")
}

fn total() -> u64 {
    COUNTS.iter().sum::<usize>() as u64
}

fn source() -> SourceRange {
    let sequence = SequenceNumber::parse("495").expect("canonical");
    let position = Position::new(sequence, 0);
    SourceRange {
        stream: "events".to_owned(),
        shard: "shardId-000000000000".to_owned(),
        epoch: 1,
        first_ordinal: 0,
        last_ordinal: total() - 1,
        first: position.clone(),
        last: position,
        count: total(),
    }
}

fn item() -> (Header, Vec<u8>) {
    let (mut frames, mut payload) = (Vec::new(), Vec::new());
    let mut encoder = FrameEncoder::new(1).expect("an encoder");
    let mut index = 0;
    for count in COUNTS {
        let mut builder = FrameBuilder::default();
        for _ in 0..count {
            builder.push(&value(index), time_ms(index), 0, index);
            index += 1;
        }
        let (info, packed) = encoder.encode(builder.take()).expect("compresses");
        frames.push(info);
        payload.extend_from_slice(&packed);
    }
    let header = Header {
        kind: Kind::Events,
        codec: Codec::Zstd { dictionary: 0 },
        group: "job".to_owned(),
        base_offset: 0,
        last_offset: 0,
        place: Place::Batch { index: 0, total: 1 },
        sources: vec![source()],
        frames,
    };
    (header, payload)
}

/// The values of some events of a frame.
fn decoded(header: &Header, info: &FrameInfo, packed: &[u8], events: Range<usize>) -> Vec<Vec<u8>> {
    let mut decoder = FrameDecoder::new().expect("a decoder");
    let frame = decoder.decode(header.codec, info, packed).expect("whole");
    let events = &frame.events[events];
    events
        .iter()
        .map(|event| frame.value(event).to_vec())
        .collect()
}

#[test]
fn a_slice_by_index_is_its_events_and_needs_their_frames_alone() {
    let (header, payload) = item();
    for start in 0..=total() + 2 {
        for end in 0..=total() + 2 {
            let mut found = Vec::new();
            let mut frames = 0;
            for (info, bytes, events) in header.frames_of(start..end) {
                assert!(!events.is_empty());
                frames += 1;
                found.extend(decoded(&header, info, &payload[bytes], events));
            }
            let wanted = start.min(total())..end.min(total());
            let expected: Vec<_> = wanted.clone().map(value).collect();
            assert_eq!(found, expected, "{start}..{end}");
            let mut first = 0;
            let needed = COUNTS.iter().filter(|count| {
                let frame = first..first + **count as u64;
                first = frame.end;
                frame.start.max(wanted.start) < frame.end.min(wanted.end)
            });
            assert_eq!(frames, needed.count(), "{start}..{end}");
        }
    }
}

#[test]
fn a_slice_by_time_is_its_events_and_passes_frames_without_any() {
    let (header, payload) = item();
    let times = time_ms(0) - 1..=time_ms(total() - 1) + 2;
    for from in times.clone() {
        for to in times.clone() {
            let mut found = Vec::new();
            for (info, bytes) in header.frame_ranges() {
                if !info.overlaps(from, to) {
                    continue;
                }
                let mut decoder = FrameDecoder::new().expect("a decoder");
                let frame = decoder.decode(header.codec, info, &payload[bytes]);
                let frame = frame.expect("whole");
                let within = frame
                    .events
                    .iter()
                    .filter(|event| (from..to).contains(&event.time_ms));
                found.extend(within.map(|event| frame.value(event).to_vec()));
            }
            let expected = (0..total()).filter(|index| (from..to).contains(&time_ms(*index)));
            assert_eq!(
                found,
                expected.map(value).collect::<Vec<_>>(),
                "{from}..{to}"
            );
        }
    }
    let passed = header
        .frames
        .iter()
        .filter(|info| !info.overlaps(time_ms(0), time_ms(2)));
    assert_eq!(passed.count(), COUNTS.len() - 1);
}
