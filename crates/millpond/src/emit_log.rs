//! The emit log: when each event was sent first, compactly.
//!
//! `mpemit1\n`, then one block per `PutRecords` call: the time of the call in milliseconds
//! since the Unix epoch as `i64`, the number of events as `u32`, the index of the first event as
//! `u64`, and for each further one its distance from the one before as `u32`. Big endian.

use std::io::{self, Read, Write};

const MAGIC: &[u8; 8] = b"mpemit1\n";

/// Most events in one block (a `PutRecords` call has at most 500 records).
const MAX_BLOCK_EVENTS: u32 = 10_000;

/// Writes an emit log.
#[derive(Debug)]
pub struct EmitLogWriter<W: Write> {
    out: W,
}

impl<W: Write> EmitLogWriter<W> {
    /// Starts a log.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        Ok(Self { out })
    }

    /// Appends one call; `indices` must ascend.
    ///
    /// # Errors
    /// When `out` cannot be written, or `indices` do not ascend.
    pub fn append(&mut self, sent_ms: i64, indices: &[u64]) -> io::Result<()> {
        let Some(first) = indices.first() else {
            return Ok(());
        };
        let count = u32::try_from(indices.len()).map_err(io::Error::other)?;
        let mut block = Vec::with_capacity(20 + 4 * indices.len());
        block.extend_from_slice(&sent_ms.to_be_bytes());
        block.extend_from_slice(&count.to_be_bytes());
        block.extend_from_slice(&first.to_be_bytes());
        for pair in indices.windows(2) {
            let step = pair[1]
                .checked_sub(pair[0])
                .and_then(|step| u32::try_from(step).ok())
                .ok_or_else(|| io::Error::other("event indices of a call do not ascend"))?;
            block.extend_from_slice(&step.to_be_bytes());
        }
        self.out.write_all(&block)
    }

    /// Ends the log.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Reads a log and tells `each` the index and the time of every event.
///
/// # Errors
/// When the input cannot be read, or is no emit log.
pub fn read(mut input: impl Read, mut each: impl FnMut(u64, i64)) -> io::Result<()> {
    let mut magic = [0; MAGIC.len()];
    input.read_exact(&mut magic)?;
    if &magic != MAGIC {
        return Err(invalid("file does not start as an emit log"));
    }
    loop {
        let mut first_byte = [0; 1];
        if input.read(&mut first_byte)? == 0 {
            return Ok(());
        }
        let mut rest = [0; 7];
        input.read_exact(&mut rest)?;
        let mut time = [0; 8];
        time[..1].copy_from_slice(&first_byte);
        time[1..].copy_from_slice(&rest);
        let sent_ms = i64::from_be_bytes(time);
        let count = read_u32(&mut input)?;
        if count == 0 || count > MAX_BLOCK_EVENTS {
            return Err(invalid("a block has an impossible number of events"));
        }
        let mut index_bytes = [0; 8];
        input.read_exact(&mut index_bytes)?;
        let mut index = u64::from_be_bytes(index_bytes);
        each(index, sent_ms);
        for _ in 1..count {
            index = index
                .checked_add(u64::from(read_u32(&mut input)?))
                .ok_or_else(|| invalid("an event index is out of range"))?;
            each(index, sent_ms);
        }
    }
}

fn read_u32(input: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    input.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        let mut log = EmitLogWriter::new(&mut bytes).expect("start");
        log.append(1_000, &[0, 3, 4]).expect("block");
        log.append(1_001, &[]).expect("nothing");
        log.append(999, &[u64::from(u32::MAX) + 7]).expect("block");
        assert!(log.append(1, &[5, 4]).is_err());
        log.finish().expect("end");
        let mut seen = Vec::new();
        read(bytes.as_slice(), |index, ms| seen.push((index, ms))).expect("valid");
        assert_eq!(
            seen,
            [(0, 1_000), (3, 1_000), (4, 1_000), (4_294_967_302, 999)]
        );
        for cut in 9..bytes.len() {
            let whole_block = cut == 36;
            assert_eq!(read(&bytes[..cut], |_, _| ()).is_ok(), whole_block, "{cut}");
        }
    }
}
