use fluvio_protocol::link::smartmodule::SmartModuleTransformRuntimeError;
use fluvio_protocol::record::Batch;
use fluvio_protocol::{Decoder as _, Encoder as _};
use millpond_connector::topic::StoredBatch;
use millpond_format::record::BatchBuilder;

use super::*;

fn stored(base: i64, count: u32) -> Batch<RawRecords> {
    let mut builder = BatchBuilder::new();
    for number in 0..count {
        builder.push(None, &[number as u8; 50], 1_000);
    }
    let batch = StoredBatch {
        base_timestamp_ms: builder.base_timestamp_ms(),
        record_count: builder.record_count(),
        raw: builder.finish().into(),
    };
    let set = crate::record_set::encode(batch, fluvio_compression::Compression::None);
    let mut batch = set.expect("encodes").batches.remove(0);
    batch.base_offset = base;
    batch
}

/// Through the wire, cut `cut` bytes short, as the SPU cuts a slice.
fn answer(batches: Vec<Batch<RawRecords>>, cut: usize, hw: i64) -> Answer {
    let mut bytes = Vec::new();
    RecordSet { batches }
        .encode(&mut bytes, 0)
        .expect("encodes");
    bytes.truncate(bytes.len() - cut);
    let length = (bytes.len() - 4) as i32;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    let records = RecordSet::decode_from(&mut bytes.as_slice(), 0).expect("decodes");
    Answer {
        records,
        high_watermark: hw,
        ..Answer::default()
    }
}

fn at(next: u64, known_end: u64, transforms: bool) -> Position {
    Position {
        next,
        known_end,
        transforms,
    }
}

fn failed(code: ErrorCode) -> Meaning {
    at(5, 10, true).take(Answer {
        error_code: code,
        ..Answer::default()
    })
}

#[test]
fn a_cut_batch_is_dropped_and_asked_for_again() {
    let mut position = at(0, 30, false);
    let meaning = position.take(answer(vec![stored(0, 10), stored(10, 10)], 1, 30));
    assert!(matches!(meaning, Meaning::Chunk(chunk) if chunk.offsets == (0..10)));
    assert_eq!(position.next, 10);
    let whole = stored(10, 10).batch_len.max(0) as usize;
    let cut = answer(vec![stored(10, 10)], 1, 30);
    let needed = cut.records.batches[0].batch_len as u64 + BATCH_PREAMBLE;
    assert!(needed > whole as u64);
    let meaning = position.take(cut);
    assert!(matches!(meaning, Meaning::TooSmall(Some(bytes)) if bytes == needed));
    assert_eq!(position.next, 10);
    let meaning = position.take(answer(vec![stored(10, 10)], 600, 30));
    assert!(matches!(meaning, Meaning::TooSmall(_)), "{meaning:?}");
}

#[test]
fn every_cut_is_seen() {
    let whole = answer(vec![stored(0, 10)], 0, 10);
    let length = whole.records.batches[0].batch_len as usize + BATCH_PREAMBLE as usize;
    for cut in 1..length {
        let meaning = at(0, 10, false).take(answer(vec![stored(0, 10)], cut, 10));
        assert!(matches!(meaning, Meaning::TooSmall(_)), "cut {cut}");
    }
}

#[test]
fn a_start_inside_a_batch_leaves_out_what_is_before() {
    let meaning = at(4, 10, false).take(answer(vec![stored(0, 10)], 0, 10));
    let Meaning::Chunk(chunk) = meaning else {
        panic!("{meaning:?}");
    };
    assert_eq!(chunk.offsets, 4..10);
    let offsets: Vec<_> = chunk.records.iter().filter_map(|r| r.offset).collect();
    assert_eq!(offsets, (4..10).collect::<Vec<_>>());
    assert_eq!(chunk.records[0].value[0], 4);
}

#[test]
fn a_hole_or_a_changed_byte_in_the_log_is_damage() {
    let meaning = at(0, 30, false).take(answer(vec![stored(10, 10)], 0, 30));
    assert!(matches!(meaning, Meaning::Damaged(0, _)), "{meaning:?}");
    let mut good = answer(vec![stored(0, 10)], 0, 10);
    let mut raw = good.records.batches[0].records().0.to_vec();
    raw[20] ^= 1;
    *good.records.batches[0].mut_records() = RawRecords(raw.into());
    let meaning = at(0, 10, false).take(good);
    assert!(matches!(meaning, Meaning::Damaged(0, _)), "{meaning:?}");
}

#[test]
fn transformed_records_are_renumbered_and_cover_whole_batches() {
    let mut batch = stored(100, 2);
    batch.header.last_offset_delta = 49;
    // The checksum covers the delta: encode once more.
    let mut batch = answer(vec![batch], 0, 0).records.batches.remove(0);
    batch.base_offset = 100;
    let mut whole = answer(vec![batch], 0, 200);
    whole.next_filter_offset = 150;
    let mut position = at(90, 150, true);
    let meaning = position.take(whole);
    let Meaning::Chunk(chunk) = meaning else {
        panic!("{meaning:?}");
    };
    assert_eq!(chunk.offsets, 90..150);
    assert!(chunk.records.iter().all(|record| record.offset.is_none()));
    assert_eq!(position, at(150, 200, true));
}

#[test]
fn a_jump_past_what_was_known_is_a_gap() {
    let mut position = at(90, 100, true);
    let meaning = position.take(answer(vec![stored(100, 5)], 0, 105));
    let Meaning::Gap { base: 100, chunk } = meaning else {
        panic!("{meaning:?}");
    };
    assert_eq!(position, at(90, 100, true), "nothing is taken from it");
    position.believe(&chunk);
    assert_eq!(position, at(105, 105, true));
}

#[test]
fn error_codes_have_their_meaning() {
    let evicted = |offset| ErrorCode::OffsetEvicted {
        offset,
        next_available: 7,
    };
    assert!(matches!(failed(evicted(BARRIER)), Meaning::Barrier));
    assert!(matches!(failed(evicted(5)), Meaning::NotStored));
    assert!(matches!(
        failed(ErrorCode::NotLeaderForPartition),
        Meaning::Again(_)
    ));
    assert!(matches!(
        failed(ErrorCode::TopicDeleted),
        Meaning::Refused(_)
    ));
    let missing = failed(ErrorCode::SmartModuleNotFound {
        name: "gone".into(),
    });
    assert!(matches!(missing, Meaning::Module { missing: Some(name), .. } if name == "gone"));
    let error = SmartModuleTransformRuntimeError {
        offset: 6,
        ..Default::default()
    };
    let failure = failed(ErrorCode::SmartModuleRuntimeError(Box::new(error)));
    assert!(matches!(
        failure,
        Meaning::Module {
            offset: Some(6),
            ..
        }
    ));
}

#[test]
fn only_what_was_known_is_passed_over() {
    let batches = || vec![stored(0, 10), stored(10, 10), stored(20, 10)];
    for (known_end, cut, end, goes_on) in [
        (20, 0, 20, false),
        (5, 0, 0, false),
        (30, 0, 30, false),
        (30, 1, 30, true),
        (25, 1, 20, false),
    ] {
        let mut position = at(0, known_end, false);
        assert_eq!(position.look(&answer(batches(), cut, 30)), goes_on);
        assert_eq!(position.next, end, "known to {known_end}");
    }
}
