//! The SmartModule call format: Fluvio's protocol encoding of inputs and outputs, big endian.
//!
//! Read off `fluvio-smartmodule` 0.50.1 (`src/input.rs`, `src/output.rs`) and `fluvio-protocol`
//! 0.50.1 (`src/core/encoder.rs`, `src/link/smartmodule.rs`). Written by hand because Fluvio's
//! own codec goes byte by byte.

use std::collections::BTreeMap;

use millpond_format::record::put_record;

use crate::packer::PackedRecord;

/// Last version in which an input carries parameters and a join record.
const LAST_VERSION_WITH_PARAMS: u32 = 22;

/// First version in which parameters carry a lookback.
const FIRST_VERSION_WITH_LOOKBACK: u32 = 20;

/// First version in which a lookback carries an age.
const FIRST_VERSION_WITH_AGE: u32 = 21;

/// First version in which an input carries a join record.
const FIRST_VERSION_WITH_JOIN: u32 = 16;

/// First version in which an input carries its base timestamp.
const FIRST_VERSION_WITH_TIMESTAMP: u32 = 22;

/// Tag of `ArrayMap` in Fluvio's `SmartModuleKind`.
const KIND_ARRAY_MAP: u8 = 2;

/// Longest message: a string's length is a `u16`.
const MAX_HINT_BYTES: usize = 16 << 10;

/// The input is not in the format that the engine's version says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadInput;

/// One stored batch as the engine passes it.
#[derive(Debug, PartialEq, Eq)]
pub struct Input<'a> {
    pub base_offset: i64,
    pub raw_records: &'a [u8],
    pub base_timestamp_ms: i64,
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn slice(&mut self, length: usize) -> Result<&'a [u8], BadInput> {
        let (slice, rest) = self.0.split_at_checked(length).ok_or(BadInput)?;
        self.0 = rest;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadInput> {
        let (array, rest) = self.0.split_first_chunk().ok_or(BadInput)?;
        self.0 = rest;
        Ok(*array)
    }

    fn i64(&mut self) -> Result<i64, BadInput> {
        self.array().map(i64::from_be_bytes)
    }

    /// A vector of bytes; Fluvio reads a negative length as none.
    fn bytes(&mut self) -> Result<&'a [u8], BadInput> {
        let length = self.array().map(i32::from_be_bytes)?;
        self.slice(usize::try_from(length).unwrap_or(0))
    }

    fn string(&mut self) -> Result<String, BadInput> {
        let length = self.array().map(u16::from_be_bytes)?;
        let bytes = self.slice(length.into())?;
        String::from_utf8(bytes.to_vec()).map_err(|_| BadInput)
    }

    fn option(&mut self) -> Result<bool, BadInput> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(BadInput),
        }
    }

    fn params(&mut self, version: u32) -> Result<BTreeMap<String, String>, BadInput> {
        let count = self.array().map(u16::from_be_bytes)?;
        let mut params = BTreeMap::new();
        for _ in 0..count {
            let name = self.string()?;
            params.insert(name, self.string()?);
        }
        if version >= FIRST_VERSION_WITH_LOOKBACK && self.option()? {
            self.slice(size_of::<u64>())?;
            if version >= FIRST_VERSION_WITH_AGE && self.option()? {
                self.slice(size_of::<u64>() + size_of::<u32>())?;
            }
        }
        Ok(params)
    }
}

/// Reads the input of `init`: the parameters.
pub fn read_init(input: &[u8], version: u32) -> Result<BTreeMap<String, String>, BadInput> {
    Reader(input).params(version)
}

/// Reads the input of a transform.
pub fn read_input(input: &[u8], version: u32) -> Result<Input<'_>, BadInput> {
    let mut reader = Reader(input);
    let base_offset = reader.i64()?;
    let raw_records = reader.bytes()?;
    if version <= LAST_VERSION_WITH_PARAMS {
        reader.params(version)?;
        if version >= FIRST_VERSION_WITH_JOIN {
            reader.bytes()?;
        }
    }
    let base_timestamp_ms = if version >= FIRST_VERSION_WITH_TIMESTAMP {
        reader.i64()?
    } else {
        0
    };
    Ok(Input {
        base_offset,
        raw_records,
        base_timestamp_ms,
    })
}

/// Writes the output of a transform: records, and no error.
pub fn put_output(out: &mut Vec<u8>, records: &[PackedRecord]) {
    out.extend_from_slice(&(records.len() as u32).to_be_bytes());
    for (index, record) in records.iter().enumerate() {
        put_record(out, 0, index as i64, Some(&record.key), &record.value);
    }
    out.push(0);
}

/// Writes the output of a transform that failed: no records, and why.
pub fn put_error(out: &mut Vec<u8>, hint: &str, base_offset: i64) {
    out.extend_from_slice(&0u32.to_be_bytes());
    out.push(1);
    put_string(out, hint);
    out.extend_from_slice(&base_offset.to_be_bytes());
    out.push(KIND_ARRAY_MAP);
    // No record key, and an empty record value.
    out.extend_from_slice(&[0, 0]);
}

/// Writes the output of an `init` that failed.
pub fn put_init_error(out: &mut Vec<u8>, hint: &str) {
    put_string(out, hint);
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    let text = &text[..text.floor_char_boundary(MAX_HINT_BYTES)];
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluvio_smartmodule::dataplane::core::{Decoder, Encoder};
    use fluvio_smartmodule::dataplane::smartmodule::{
        Lookback, SmartModuleExtraParams, SmartModuleInitInput, SmartModuleInitOutput,
        SmartModuleInput, SmartModuleKind, SmartModuleOutput,
    };
    use std::time::Duration;

    fn encoded(value: &impl Encoder, version: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        value.encode(&mut bytes, version as i16).expect("encodes");
        bytes
    }

    #[test]
    fn inputs_of_every_version_are_read_as_fluvio_writes_them() {
        for version in 13..=25 {
            let bytes = encoded(&SmartModuleInput::new(vec![1, 2, 3], 7, 9), version);
            let base_timestamp_ms = if version >= 22 { 9 } else { 0 };
            let input = Input {
                base_offset: 7,
                raw_records: &[1, 2, 3],
                base_timestamp_ms,
            };
            assert_eq!(read_input(&bytes, version), Ok(input), "version {version}");
            for cut in 0..bytes.len() {
                assert_eq!(read_input(&bytes[..cut], version), Err(BadInput));
            }
        }
    }

    #[test]
    fn parameters_of_every_version_are_read_as_fluvio_writes_them() {
        let map: BTreeMap<_, _> = [("group-by", "/a"), ("level", "3")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let lookback = Lookback::age(Duration::from_millis(1_500), Some(4));
        for lookback in [None, Some(Lookback::last(3)), Some(lookback)] {
            let params = SmartModuleExtraParams::new(map.clone(), lookback);
            for version in 13..=25 {
                let bytes = encoded(
                    &SmartModuleInitInput {
                        params: params.clone(),
                    },
                    version,
                );
                assert_eq!(read_init(&bytes, version), Ok(map.clone()));
                for cut in 0..bytes.len() {
                    assert_eq!(read_init(&bytes[..cut], version), Err(BadInput));
                }
            }
        }
    }

    #[test]
    fn outputs_are_what_fluvio_reads() {
        let records = [("g", &b"value"[..]), ("", b"")].map(|(key, value)| PackedRecord {
            key: key.into(),
            value: value.into(),
        });
        let mut bytes = Vec::new();
        put_output(&mut bytes, &records);
        let output: SmartModuleOutput = decoded(&bytes);
        assert_eq!(output.error, None);
        assert_eq!(output.successes.len(), 2);
        assert_eq!(output.successes[0].value.as_ref(), b"value");
        assert_eq!(output.successes[1].preamble.offset_delta(), 1);

        let mut bytes = Vec::new();
        put_error(&mut bytes, &"no\u{fc}".repeat(20_000), 42);
        let output: SmartModuleOutput = decoded(&bytes);
        let error = output.error.expect("an error");
        assert!(output.successes.is_empty() && error.hint.starts_with("no\u{fc}"));
        assert_eq!((error.offset, error.kind), (42, SmartModuleKind::ArrayMap));

        let mut bytes = Vec::new();
        put_init_error(&mut bytes, "bad");
        assert_eq!(decoded::<SmartModuleInitOutput>(&bytes).error.hint, "bad");
    }

    fn decoded<D: Decoder + Default>(bytes: &[u8]) -> D {
        let mut input = std::io::Cursor::new(bytes);
        let value = D::decode_from(&mut input, 25).expect("decodes");
        assert_eq!(input.position(), bytes.len() as u64, "all of it");
        value
    }
}
