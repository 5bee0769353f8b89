//! Envelopes of every kind, built by the encoder, and their description as JSON.

use std::sync::Arc;

use millpond_format::dictionary::Dictionary;
use millpond_format::frame::{FrameBuilder, FrameDecoder, FrameEncoder};
use millpond_format::header::{
    ChainTotals, Codec, FrameInfo, Header, Kind, Part, Place, Reject, RejectReason, SourceRange,
};
use millpond_format::join::Joiner;
use millpond_format::sequence::{Position, SequenceNumber};
use serde_json::{Value, json};

pub const EPOCH: u64 = 1_763_885_999_000;
pub const START_MS: i64 = 1_763_886_000_123;

fn position(sequence: &str, sub_sequence: u32) -> Position {
    let sequence = SequenceNumber::parse(sequence).expect("canonical");
    Position::new(sequence, sub_sequence)
}

fn source(shard: u32, ordinals: (u64, u64), last_digits: (u32, u32), count: u64) -> SourceRange {
    let sequence =
        |digits: u32| format!("4959033827149025660855969253836157109592157598913658{digits:04}");
    SourceRange {
        stream: "events".into(),
        shard: format!("shardId-{shard:012}"),
        epoch: EPOCH,
        first_ordinal: ordinals.0,
        last_ordinal: ordinals.1,
        first: position(&sequence(last_digits.0), 0),
        last: position(&sequence(last_digits.1), 2),
        count,
    }
}

/// An event in the making: value, time, source number, ordinal.
type Row<'a> = (&'a [u8], i64, u32, u64);

fn frame(rows: &[Row<'_>]) -> (FrameInfo, Vec<u8>) {
    let mut builder = FrameBuilder::default();
    for (value, time_ms, source, ordinal) in rows {
        builder.push(value, *time_ms, *source, *ordinal);
    }
    FrameEncoder::new(1)
        .and_then(|mut encoder| encoder.encode(builder.take()))
        .expect("compresses")
}

/// Dictionary 1 of the golden pipeline.
pub fn dictionary() -> Dictionary {
    let bytes = include_bytes!("../golden/dictionary-1.zdict").to_vec();
    Dictionary::new(1, bytes).expect("a dictionary")
}

fn encode(header: &Header, frames: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    bytes.extend_from_slice(frames);
    bytes
}

/// The worked example of `FORMAT.md`: three events, two sources, one frame.
pub fn example() -> Vec<u8> {
    let (info, packed) = frame(&[
        (b"{\"n\":1}", START_MS, 0, 42),
        (b"{\"n\":2}", START_MS + 40, 1, 7),
        (b"{\"n\":30}", START_MS + 25, 0, 43),
    ]);
    let short = |shard: &str, first: u64, last: u64, sequences: (&str, &str)| SourceRange {
        stream: "events".into(),
        shard: shard.into(),
        epoch: EPOCH,
        first_ordinal: first,
        last_ordinal: last,
        first: position(sequences.0, 0),
        last: position(sequences.1, 0),
        count: last - first + 1,
    };
    let header = Header {
        kind: Kind::Events,
        codec: Codec::Zstd { dictionary: 0 },
        group: "job-17".into(),
        base_offset: 1_000,
        last_offset: 1_009,
        place: Place::Batch { index: 0, total: 2 },
        sources: vec![
            short("shardId-000000000003", 42, 43, ("4959033", "4959035")),
            short("shardId-000000000005", 7, 7, ("4959034", "4959034")),
        ],
        frames: vec![info],
    };
    encode(&header, &packed)
}

fn events_header() -> (Header, Vec<u8>) {
    let large = vec![b'z'; 3_000];
    let first = frame(&[
        (b"{\"n\":1}", START_MS, 0, 42),
        (b"", START_MS + 1, 1, 7),
        (large.as_slice(), START_MS - 5_000, 0, 44),
    ]);
    let second = frame(&[
        (b"\xff\xfe\x00", START_MS + 2, 1, 9),
        ("ü".as_bytes(), START_MS + 3, 1, 10),
    ]);
    let header = Header {
        kind: Kind::Events,
        codec: Codec::Zstd { dictionary: 0 },
        group: "job-17/ü#3".into(),
        base_offset: 1_000,
        last_offset: 1_999,
        place: Place::Batch { index: 1, total: 3 },
        sources: vec![
            source(3, (42, 44), (8898, 8900), 2),
            source(5, (7, 10), (12, 15), 3),
        ],
        frames: vec![first.0, second.0],
    };
    (header, [first.1, second.1].concat())
}

/// Every kind, by file name.
pub fn corpus() -> Vec<(&'static str, Vec<u8>)> {
    let (events, events_frames) = events_header();

    let event: Vec<u8> = (0..5_000u32).flat_map(|n| (n * n).to_le_bytes()).collect();
    let slice = &event[8_000..16_000];
    let (mut info, part_frames) = frame(&[(slice, START_MS, 0, 11)]);
    info.event_count = 0;
    let part = Header {
        kind: Kind::Part(Part {
            index: 1,
            count: 3,
            event_bytes: event.len() as u64,
            event_crc32c: crc32c::crc32c(&event),
        }),
        place: Place::Batch { index: 4, total: 6 },
        sources: vec![source(0, (11, 11), (1, 1), 0)],
        frames: vec![info],
        ..events.clone()
    };

    let (info, reject_frames) = frame(&[(b"not json", START_MS, 0, 3)]);
    let key = "mp1/events/shardId-000000000001/5/0/1763886000123/1763885999000.3/job-1";
    let reject = Header {
        kind: Kind::Reject(Reject {
            reason: RejectReason::NotJson,
            detail: "expected value at line 1 column 1".into(),
            record_key: Some(key.into()),
        }),
        group: String::new(),
        place: Place::Batch { index: 0, total: 1 },
        sources: vec![source(1, (3, 3), (5, 5), 1)],
        frames: vec![info],
        ..events
    };

    let mut joiner = Joiner::new(events.clone());
    let mut next = events.clone();
    next.base_offset = 2_000;
    next.last_offset = 2_999;
    next.sources = vec![
        source(5, (11, 14), (16, 20), 3),
        source(8, (0, 3), (1, 2), 2),
    ];
    assert!(joiner.try_push(&next, 409_600));
    let item = joiner.finish(Place::Chain(ChainTotals {
        items: 12,
        events: 34_567,
        event_bytes: 19_000_000,
        packed_bytes: 3_400_000,
    }));
    let item_frames = [events_frames.clone(), events_frames.clone()].concat();

    let mut builder = FrameBuilder::default();
    let value =
        |id: u32| format!("{{\"id\":{id},\"kind\":\"order-paid\",\"region\":\"eu-west-1\"}}");
    builder.push(value(17).as_bytes(), START_MS, 1, 7);
    builder.push(value(18).as_bytes(), START_MS + 9, 0, 42);
    let mut encoder = FrameEncoder::with_dictionary(3, &dictionary()).expect("context");
    let (info, dictionary_frames) = encoder.encode(builder.take()).expect("compresses");
    let with_dictionary = Header {
        codec: encoder.codec(),
        sources: vec![
            source(3, (42, 42), (8898, 8898), 1),
            source(5, (7, 7), (12, 12), 1),
        ],
        frames: vec![info],
        place: item.place,
        ..events.clone()
    };

    let mut builder = FrameBuilder::default();
    builder.push(b"as it is", START_MS, 0, 0);
    let raw = builder.take();
    let mut info = raw.info;
    info.packed_bytes = raw.raw.len() as u32;
    info.crc32c = crc32c::crc32c(&raw.raw);
    let packed_events = encode(&events, &events_frames);
    let stored = Header {
        codec: Codec::Stored,
        sources: vec![source(2, (0, 0), (0, 0), 1)],
        frames: vec![info],
        ..events
    };

    vec![
        ("dictionary", encode(&with_dictionary, &dictionary_frames)),
        ("events", packed_events),
        ("item", encode(&item, &item_frames)),
        ("part", encode(&part, &part_frames)),
        ("reject", encode(&reject, &reject_frames)),
        ("stored", encode(&stored, &raw.raw)),
    ]
}

/// Everything that an envelope says, as JSON; panics on one that cannot be read.
pub fn describe(bytes: &[u8]) -> Value {
    let (header, length) = Header::decode(bytes).expect("header");
    let payload = &bytes[length..];
    header.check_frames(payload).expect("frames");
    let mut decoder = FrameDecoder::new().expect("context");
    decoder.learn(Arc::new(dictionary()));
    let frames: Vec<_> = header
        .frame_ranges()
        .map(|(info, range)| {
            let frame = decoder
                .decode(header.codec, info, &payload[range])
                .expect("frame");
            let events: Vec<_> = frame
                .events
                .iter()
                .map(|event| {
                    json!({
                        "value_hex": hex(frame.value(event)),
                        "time_ms": event.time_ms,
                        "source": event.source,
                        "ordinal": event.ordinal,
                    })
                })
                .collect();
            json!({
                "packed_bytes": info.packed_bytes,
                "raw_bytes": info.raw_bytes,
                "event_count": info.event_count,
                "event_bytes": info.event_bytes,
                "first_time_ms": info.first_time_ms,
                "last_time_ms": info.last_time_ms,
                "crc32c": info.crc32c,
                "sources": info.sources,
                "events": events,
            })
        })
        .collect();
    let sources: Vec<_> = header
        .sources
        .iter()
        .map(|source| {
            json!({
                "stream": source.stream,
                "shard": source.shard,
                "epoch": source.epoch,
                "first_ordinal": source.first_ordinal,
                "last_ordinal": source.last_ordinal,
                "count": source.count,
                "first": [source.first.sequence, source.first.sub_sequence],
                "last": [source.last.sequence, source.last.sub_sequence],
            })
        })
        .collect();
    json!({
        "header_bytes": length,
        "kind": match &header.kind {
            Kind::Events => json!("events"),
            Kind::Part(part) => json!({"part": {
                "index": part.index,
                "count": part.count,
                "event_bytes": part.event_bytes,
                "event_crc32c": part.event_crc32c,
            }}),
            Kind::Reject(reject) => json!({"reject": {
                "reason": reject.reason.name(),
                "detail": reject.detail,
                "record_key_hex": reject.record_key.as_deref().map(hex),
            }}),
        },
        "codec": match header.codec {
            Codec::Stored => json!("stored"),
            Codec::Zstd { dictionary } => json!({"zstd": {"dictionary": dictionary}}),
        },
        "group": header.group,
        "base_offset": header.base_offset,
        "last_offset": header.last_offset,
        "place": match header.place {
            Place::Batch { index, total } => json!({"batch": {"index": index, "total": total}}),
            Place::Chain(totals) => json!({"chain": {
                "items": totals.items,
                "events": totals.events,
                "event_bytes": totals.event_bytes,
                "packed_bytes": totals.packed_bytes,
            }}),
        },
        "sources": sources,
        "frames": frames,
    })
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
