//! Fluvio's record encoding, as a stored batch and a SmartModule see it.
//!
//! `i32` record count (big endian), then per record: zigzag length of the rest,
//! attributes `i8`, zigzag timestamp delta, zigzag offset delta, key as one
//! presence byte and (if 1) zigzag length and bytes, value as zigzag length and
//! bytes, zigzag header count. Read off `fluvio-protocol` 0.50.1
//! (`src/record/data.rs`); written by hand because Fluvio's own codec goes byte
//! by byte.

use crate::varint;

/// Why raw records could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The input ends inside a record.
    #[error("truncated in record {index}")]
    Truncated {
        /// Index of the record in its batch.
        index: u32,
    },
    /// A length is negative or points outside its record.
    #[error("corrupt length in record {index}")]
    BadLength {
        /// Index of the record in its batch.
        index: u32,
    },
    /// The record carries headers, which no known producer writes.
    #[error("record {index} has headers, which are not supported")]
    Headers {
        /// Index of the record in its batch.
        index: u32,
    },
    /// Bytes follow the last record.
    #[error("{count} bytes follow the last record")]
    TrailingBytes {
        /// Bytes left over.
        count: usize,
    },
}

/// One record, borrowed from its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Milliseconds after the batch's base timestamp.
    pub timestamp_delta_ms: i64,
    /// Position after the batch's base offset.
    pub offset_delta: i64,
    /// Key, if any.
    pub key: Option<&'a [u8]>,
    /// Value.
    pub value: &'a [u8],
}

/// Collects records into the raw form of one stored batch.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    raw: Vec<u8>,
    record_count: u32,
    base_timestamp_ms: i64,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self {
            raw: vec![0; 4],
            record_count: 0,
            base_timestamp_ms: 0,
        }
    }

    /// Appends a record; the first one sets the base timestamp.
    pub fn push(&mut self, key: Option<&[u8]>, value: &[u8], timestamp_ms: i64) {
        if self.record_count == 0 {
            self.base_timestamp_ms = timestamp_ms;
        }
        put_record(
            &mut self.raw,
            timestamp_ms.wrapping_sub(self.base_timestamp_ms),
            i64::from(self.record_count),
            key,
            value,
        );
        self.record_count += 1;
    }

    /// Makes room for a batch of so many bytes at once, where there is less.
    pub fn reserve(&mut self, raw_len: usize) {
        self.raw.reserve(raw_len.saturating_sub(self.raw.len()));
    }

    /// Bytes that [`BatchBuilder::finish`] would give now.
    #[must_use]
    pub fn raw_len(&self) -> usize {
        self.raw.len()
    }

    /// Records pushed so far.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    /// Milliseconds since the Unix epoch that the record timestamps are relative to.
    #[must_use]
    pub fn base_timestamp_ms(&self) -> i64 {
        self.base_timestamp_ms
    }

    /// The raw batch: record count, then the records.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.raw[..4].copy_from_slice(&self.record_count.to_be_bytes());
        self.raw
    }
}

/// Appends one record to `out`.
pub fn put_record(
    out: &mut Vec<u8>,
    timestamp_delta_ms: i64,
    offset_delta: i64,
    key: Option<&[u8]>,
    value: &[u8],
) {
    let key_size = key.map_or(0, |key| varint::size_signed(key.len() as i64) + key.len());
    let body = 1
        + varint::size_signed(timestamp_delta_ms)
        + varint::size_signed(offset_delta)
        + 1
        + key_size
        + varint::size_signed(value.len() as i64)
        + value.len()
        + 1;
    out.reserve(varint::MAX_VARINT_BYTES + body);
    varint::put_signed(out, body as i64);
    out.push(0);
    varint::put_signed(out, timestamp_delta_ms);
    varint::put_signed(out, offset_delta);
    match key {
        Some(key) => {
            out.push(1);
            varint::put_signed(out, key.len() as i64);
            out.extend_from_slice(key);
        }
        None => out.push(0),
    }
    varint::put_signed(out, value.len() as i64);
    out.extend_from_slice(value);
    out.push(0);
}

/// Reads the records of a raw batch in order; stops after the first error.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
    index: u32,
    count: u32,
}

impl<'a> Records<'a> {
    /// Opens a raw batch.
    ///
    /// # Errors
    /// [`RecordError::Truncated`] without a whole record count, [`RecordError::BadLength`]
    /// when the count is negative.
    pub fn new(raw: &'a [u8]) -> Result<Self, RecordError> {
        let Some((count, rest)) = raw.split_first_chunk::<4>() else {
            return Err(RecordError::Truncated { index: 0 });
        };
        let count = u32::try_from(i32::from_be_bytes(*count))
            .map_err(|_| RecordError::BadLength { index: 0 })?;
        Ok(Self {
            rest,
            index: 0,
            count,
        })
    }

    /// Records that the batch says it holds.
    #[must_use]
    pub fn declared_count(&self) -> u32 {
        self.count
    }

    fn read(&mut self) -> Result<Record<'a>, RecordError> {
        let index = self.index;
        let truncated = |_| RecordError::Truncated { index };
        let length = varint::take_signed(&mut self.rest).map_err(truncated)?;
        let length = usize::try_from(length).map_err(|_| RecordError::BadLength { index })?;
        if length > self.rest.len() {
            return Err(RecordError::Truncated { index });
        }
        let (mut body, rest) = self.rest.split_at(length);
        let record = read_body(&mut body, index)?;
        self.rest = rest;
        Ok(record)
    }
}

fn read_body<'a>(body: &mut &'a [u8], index: u32) -> Result<Record<'a>, RecordError> {
    let bad = |_| RecordError::BadLength { index };
    take_byte(body, index)?;
    let timestamp_delta_ms = varint::take_signed(body).map_err(bad)?;
    let offset_delta = varint::take_signed(body).map_err(bad)?;
    let key = match take_byte(body, index)? {
        0 => None,
        _ => Some(take_slice(body, index)?),
    };
    let value = take_slice(body, index)?;
    if varint::take_signed(body).map_err(bad)? != 0 {
        return Err(RecordError::Headers { index });
    }
    if !body.is_empty() {
        return Err(RecordError::BadLength { index });
    }
    Ok(Record {
        timestamp_delta_ms,
        offset_delta,
        key,
        value,
    })
}

fn take_byte(body: &mut &[u8], index: u32) -> Result<u8, RecordError> {
    let (&byte, rest) = body.split_first().ok_or(RecordError::BadLength { index })?;
    *body = rest;
    Ok(byte)
}

fn take_slice<'a>(body: &mut &'a [u8], index: u32) -> Result<&'a [u8], RecordError> {
    let bad = RecordError::BadLength { index };
    let length = varint::take_signed(body).map_err(|_| bad)?;
    let length = usize::try_from(length).map_err(|_| bad)?;
    let (slice, rest) = body.split_at_checked(length).ok_or(bad)?;
    *body = rest;
    Ok(slice)
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.count {
            let count = std::mem::take(&mut self.rest).len();
            return (count > 0).then_some(Err(RecordError::TrailingBytes { count }));
        }
        let record = self.read();
        if record.is_err() {
            self.index = self.count;
            self.rest = &[];
        } else {
            self.index += 1;
        }
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut batch = BatchBuilder::new();
        batch.push(Some(b"k"), b"value", 1_000);
        batch.push(None, b"", 990);
        batch.push(Some(b""), &[7; 300], 2_000);
        batch.finish()
    }

    #[test]
    fn what_was_pushed_comes_back() {
        let raw = sample();
        let records: Vec<_> = Records::new(&raw)
            .and_then(|records| records.collect::<Result<_, _>>())
            .expect("well-formed");
        assert_eq!(records.len(), 3);
        assert_eq!(records[0].key, Some(b"k".as_slice()));
        assert_eq!(records[0].value, b"value");
        assert_eq!(records[1].timestamp_delta_ms, -10);
        assert_eq!(records[1].key, None);
        assert_eq!(records[2].key, Some(b"".as_slice()));
        assert_eq!(records[2].offset_delta, 2);
        assert_eq!(records[2].value.len(), 300);
    }

    #[test]
    fn every_prefix_is_an_error() {
        let raw = sample();
        for cut in 0..raw.len() {
            let result = Records::new(&raw[..cut])
                .and_then(|records| records.collect::<Result<Vec<_>, _>>());
            assert!(result.is_err(), "prefix of {cut} bytes");
        }
        let mut longer = raw;
        longer.push(0);
        let result =
            Records::new(&longer).and_then(|records| records.collect::<Result<Vec<_>, _>>());
        assert_eq!(result, Err(RecordError::TrailingBytes { count: 1 }));
    }
}
