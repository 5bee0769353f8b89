//! Dictionaries of runs: one that an earlier life of the pipeline left in the table, and how more are trained.

use std::sync::OnceLock;

use bytes::Bytes;
use millpond_dynamodb_sink::dictionaries::{Training, trained};
use millpond_dynamodb_sink::row::{Key, Pieces, Row, Value, names};
use millpond_format::dictionary::Dictionary;
use millpond_format::keys;

use crate::dice::mix;

/// A run is short, so little is enough.
pub const TRAINING: Training = Training {
    sample_bytes: 32 << 10,
    first_after_bytes: 4 << 10,
    longest_wait_bytes: 32 << 10,
    dictionary_bytes: 1 << 10,
};

/// Text of which events have a part in common, at most 300 bytes of it.
#[must_use]
pub fn common(start: u64, length: usize) -> String {
    const TEXT: &str = "the amount is far above the baseline of the last ninety days; first seen from this device; \
        several accounts share the address and were opened within one week; held by an analyst and released after a \
        second review; name similarity is below the threshold of the tenant; region=eu-west-1 model=risk-gbm-7.3.1; \
        lookup timed out and the previous value was used; ";
    let start = start as usize % TEXT.len();
    TEXT.chars().cycle().skip(start).take(length).collect()
}

/// Row of dictionary 1 of a pipeline, trained on events like those of a run.
#[must_use]
pub fn first_row(pipeline: &str) -> Row {
    static FIRST: OnceLock<Option<Dictionary>> = OnceLock::new();
    let first = FIRST.get_or_init(|| {
        let frame = |n: u64| {
            let pad = common(mix(n), 60 + n as usize % 200);
            format!("{{\"n\":{n},\"job\":\"job-{}\",\"pad\":\"{pad}\"}}", n % 3).into_bytes()
        };
        let frames: Vec<Vec<u8>> = (0..400).map(frame).collect();
        trained(&frames, None, 1, TRAINING.dictionary_bytes)
    });
    let row = Row::new(Key {
        pk: keys::dictionaries_pk(pipeline),
        sk: keys::dictionary_sk(1),
    });
    match first {
        Some(first) => row
            .with(
                names::DICTIONARY,
                Value::B(Bytes::copy_from_slice(first.bytes()).into()),
            )
            .with(names::CRC, Value::N(first.crc32c().into())),
        // Without its attributes it is damage, and every run that has it fails.
        None => row,
    }
}

/// The dictionary of a row, if it is one.
#[must_use]
pub fn of_row(row: &Row) -> Option<Dictionary> {
    let id = keys::parse_dictionary_sk(&row.key.sk)?;
    let bytes = row.binary(names::DICTIONARY).map(Pieces::concat)?;
    let crc = u32::try_from(row.integer(names::CRC)?).ok()?;
    Dictionary::checked(id, bytes, crc).ok()
}
