//! The log of one partition, in memory.

use bytes::{Bytes, BytesMut};
use fluvio_protocol::Encoder as _;
use fluvio_protocol::record::{Batch, Offset, RawRecords, RecordSet};

/// One stored batch.
struct Stored {
    batch: Batch<RawRecords>,
    /// As it lies in a segment file.
    encoded: Bytes,
}

/// Stored batches in order; everything in it is committed.
#[derive(Default)]
pub(super) struct Log {
    batches: Vec<Stored>,
}

impl Log {
    /// One past the last record.
    pub(super) fn end(&self) -> Offset {
        self.batches
            .last()
            .map_or(0, |stored| stored.batch.get_last_offset() + 1)
    }

    /// Stores batches and answers the offset of the first record.
    pub(super) fn append(&mut self, records: RecordSet<RawRecords>) -> std::io::Result<Offset> {
        let base = self.end();
        for mut batch in records.batches {
            batch.set_base_offset(self.end());
            let mut encoded = BytesMut::new();
            batch.encode(&mut encoded, 0)?;
            let encoded = encoded.freeze();
            self.batches.push(Stored { batch, encoded });
        }
        Ok(base)
    }

    /// The bytes of the log from the batch that holds `from`, cut at `max_bytes` wherever that is.
    pub(super) fn slice(&self, from: Offset, max_bytes: usize) -> Bytes {
        let mut slice = BytesMut::new();
        for stored in self.from(from) {
            if slice.len() >= max_bytes {
                break;
            }
            slice.extend_from_slice(&stored.encoded);
        }
        slice.truncate(max_bytes);
        slice.freeze()
    }

    /// Whole batches from the one that holds `from`.
    pub(super) fn batches_from(&self, from: Offset) -> Vec<Batch<RawRecords>> {
        self.from(from).map(|stored| stored.batch.clone()).collect()
    }

    fn from(&self, from: Offset) -> impl Iterator<Item = &Stored> {
        let first = self
            .batches
            .partition_point(|stored| stored.batch.get_last_offset() < from);
        self.batches[first..].iter()
    }
}
