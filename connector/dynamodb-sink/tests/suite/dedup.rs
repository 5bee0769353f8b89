//! What was delivered before is dropped, a hole is an error.

use std::borrow::Cow;

use millpond_connector::topic::ConsumedRecord;
use millpond_format::record::BatchBuilder;
use millpond_pack::{Packer, Params};
use millpond_sink::contiguity::{Entry, PlainRecord, units};
use millpond_sink::dedup::{Admitted, DedupError, Outcome, Workbench, admit};
use millpond_sink::marks::Marks;
use millpond_sink::origins::Cutoffs;

/// A run of one shard: numbering, first ordinal, first sequence number, events.
#[derive(Clone, Copy)]
struct Run {
    shard: &'static str,
    epoch: u64,
    ordinal: u64,
    sequence: u64,
    count: u64,
}

fn run(epoch: u64, ordinal: u64, sequence: u64, count: u64) -> Run {
    let shard = "shardId-000000000000";
    Run {
        shard,
        epoch,
        ordinal,
        sequence,
        count,
    }
}

fn keys(runs: &[Run]) -> Vec<(String, String)> {
    let one = |run: &Run, index: u64| {
        let Run {
            shard,
            epoch,
            ordinal,
            sequence,
            ..
        } = *run;
        let (ordinal, sequence) = (ordinal + index, sequence + index);
        // Two groups that take turns.
        let key = format!(
            "mp1/s/{shard}/{sequence}/0/1/{epoch}.{ordinal}/g{}",
            index % 2
        );
        (key, sequence.to_string())
    };
    runs.iter()
        .flat_map(|run| (0..run.count).map(move |index| one(run, index)))
        .collect()
}

fn packed(base: u64, runs: &[Run]) -> Vec<Entry> {
    let mut builder = BatchBuilder::new();
    for (key, value) in keys(runs) {
        builder.push(Some(key.as_bytes()), value.as_bytes(), 1);
    }
    let mut packer = Packer::new(Params::default()).expect("zstd");
    let records = packer.pack(&builder.finish(), base, 1).expect("packs");
    let decode = |record: millpond_pack::PackedRecord| {
        Entry::decode(ConsumedRecord {
            offset: None,
            key: None,
            value: record.value.into(),
            timestamp_ms: None,
        })
    };
    records
        .into_iter()
        .map(|record| decode(record).expect("envelope"))
        .collect()
}

fn plain(base: u64, runs: &[Run]) -> Vec<Entry> {
    let record = |(index, (key, value)): (usize, (String, String))| {
        Entry::Plain(PlainRecord {
            offset: base + index as u64,
            key: Some(key.into()),
            value: value.into(),
        })
    };
    keys(runs).into_iter().enumerate().map(record).collect()
}

/// Values that come through, sorted by number, and how many were dropped.
fn values(entries: &[Admitted<'_>]) -> Vec<u64> {
    let mut decoder = millpond_format::frame::FrameDecoder::new().expect("zstd");
    let mut values = Vec::new();
    let mut number = |bytes: &[u8]| {
        values.push(
            std::str::from_utf8(bytes)
                .expect("text")
                .parse()
                .expect("number"),
        );
    };
    for entry in entries {
        match entry {
            Admitted::Envelope(envelope) => {
                for (info, range) in envelope.header.frame_ranges() {
                    let frame =
                        decoder.decode(envelope.header.codec, info, &envelope.frames[range]);
                    let frame = frame.expect("frame");
                    frame
                        .events
                        .iter()
                        .for_each(|event| number(frame.value(event)));
                }
            }
            Admitted::Plain(record, _) => number(&record.value),
            Admitted::Unknown(..) => panic!("unknown"),
        }
    }
    values.sort_unstable();
    values
}

type Step = Result<(Vec<u64>, u64), DedupError>;

/// Sends batches one after the other, each as one plan; `form` makes the entries.
fn deliver(batches: &[&[Run]], form: fn(u64, &[Run]) -> Vec<Entry>, whole: bool) -> Vec<Step> {
    let mut marks = Marks::default();
    let mut base = 0;
    let mut steps = Vec::new();
    for runs in batches {
        let entries = form(base, runs);
        let end = base + runs.iter().map(|run| run.count).sum::<u64>();
        let units = units(&entries, base..end).expect("no hole in offsets");
        let mut cutoffs = Cutoffs::new();
        let mut tools = Workbench::default();
        let step = loop {
            match admit(&units, 0, &marks, whole, &cutoffs, &mut tools) {
                Err(error) => break Err(error),
                Ok(Outcome::NeedsOrigins(question)) => {
                    assert_eq!(
                        (question.base_offset, question.last_offset),
                        (base, end - 1)
                    );
                    let keys = keys(runs);
                    let keys = keys.iter().map(|(key, _)| key.as_bytes());
                    let answer = question.answer(keys).expect("beyond");
                    assert_eq!(cutoffs.insert(question.chain, answer), None, "asked twice");
                }
                Ok(Outcome::Admitted(admission)) => {
                    marks = Marks::decode(&admission.marks.encode().expect("few")).expect("marks");
                    break Ok((values(&admission.entries), admission.duplicates));
                }
            }
        };
        steps.push(step);
        base = end;
    }
    steps
}

fn both(batches: &[&[Run]]) -> Vec<Step> {
    let packed = deliver(batches, packed, true);
    let plain = deliver(batches, plain, true);
    assert_eq!(packed, plain, "packed and plain must agree");
    packed
}

fn got(values: std::ops::Range<u64>, dropped: u64) -> Step {
    Ok((values.collect(), dropped))
}

#[test]
fn whole_and_partial_repetitions_are_dropped() {
    let steps = both(&[
        &[run(1, 0, 1_000, 10)],
        &[run(1, 10, 1_010, 10)],
        // The source went back to ordinal 5: all old, then partly old, then new.
        &[run(1, 5, 1_005, 10)],
        &[run(1, 15, 1_015, 10)],
        &[run(1, 25, 1_025, 5)],
    ]);
    let expected = [
        got(1_000..1_010, 0),
        got(1_010..1_020, 0),
        got(0..0, 10),
        got(1_020..1_025, 5),
        got(1_025..1_030, 0),
    ];
    assert_eq!(steps, expected);
}

#[test]
fn a_new_numbering_repeats_by_position() {
    let steps = both(&[
        &[run(1, 0, 1_000, 20)],
        // Again from 1005 on under a new number: old, across the mark, new.
        &[run(2, 0, 1_005, 10)],
        &[run(2, 10, 1_015, 10)],
        &[run(2, 20, 1_025, 5)],
        // And once more, the end of the repetition exactly at a batch's end.
        &[run(3, 0, 1_020, 10)],
        &[run(3, 10, 1_030, 5), run(4, 0, 1_033, 4)],
    ]);
    let expected = [
        got(1_000..1_020, 0),
        got(0..0, 10),
        got(1_020..1_025, 5),
        got(1_025..1_030, 0),
        got(0..0, 10),
        got(1_030..1_037, 2),
    ];
    assert_eq!(steps, expected);
}

#[test]
fn what_a_replaced_source_sent_late_is_dropped_when_all_of_it_is_old() {
    let steps = both(&[
        &[run(5, 0, 1_000, 20)],
        &[run(9, 0, 1_010, 20)],
        &[run(5, 20, 1_020, 5)],
        &[run(9, 20, 1_030, 5)],
    ]);
    let expected = [
        got(1_000..1_020, 0),
        got(1_020..1_030, 10),
        got(0..0, 5),
        got(1_030..1_035, 0),
    ];
    assert_eq!(steps, expected);
}

#[test]
fn shards_are_independent() {
    let other = |ordinal, sequence, count| Run {
        shard: "shardId-000000000001",
        ..run(1, ordinal, sequence, count)
    };
    let steps = both(&[
        &[run(1, 0, 1_000, 3), other(0, 2_000, 3)],
        &[other(1, 2_001, 3), run(1, 3, 1_003, 3)],
    ]);
    assert_eq!(steps[1], Ok((vec![1_003, 1_004, 1_005, 2_003], 2)));
}

#[test]
fn every_hole_in_a_chain_is_found() {
    let first = [run(1, 0, 1_000, 10)];
    for (second, expected, found) in [
        ([run(1, 11, 1_011, 5)], 10, 11),
        ([run(2, 1, 1_010, 5)], 0, 1),
        ([run(2, 1, 1_000, 5)], 0, 1),
    ] {
        let steps = both(&[&first, &second]);
        match &steps[1] {
            Err(DedupError::Gap {
                expected: e,
                found: f,
                base_offset: 10,
                shard,
                ..
            }) => {
                assert_eq!(
                    (*e, *f, shard.as_str()),
                    (expected, found, "shardId-000000000000")
                );
            }
            other => panic!("{other:?}"),
        }
    }
    // A shard that is new to a pipeline that read from the first record on begins at 0.
    assert!(matches!(
        both(&[&[run(1, 3, 1_003, 5)]])[0],
        Err(DedupError::Gap { expected: 0, .. })
    ));
    let later = deliver(&[&[run(1, 3, 1_003, 5)]], packed, false);
    assert_eq!(later[0], got(1_003..1_008, 0));
    // Inside one packed batch.
    let inside = deliver(&[&[run(1, 0, 1_000, 5), run(1, 6, 1_006, 5)]], packed, true);
    assert!(matches!(
        inside[0],
        Err(DedupError::Inside {
            count: 10,
            first: 0,
            last: 10,
            ..
        })
    ));
}

#[test]
fn untouched_envelopes_are_not_copied() {
    let entries = packed(0, &[run(1, 0, 1_000, 10)]);
    let units = units(&entries, 0..10).expect("whole");
    let outcome = admit(
        &units,
        0,
        &Marks::default(),
        true,
        &Cutoffs::new(),
        &mut Workbench::default(),
    );
    let Ok(Outcome::Admitted(admission)) = outcome else {
        panic!("{outcome:?}");
    };
    let borrowed = |entry: &Admitted<'_>| matches!(entry, Admitted::Envelope(Cow::Borrowed(_)));
    assert!(admission.entries.iter().all(borrowed));
}
