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
pub(super) struct Log {
    batches: Vec<Stored>,
    /// Bytes at which a segment is full.
    segment_bytes: usize,
    /// Index of the first batch of each segment.
    segments: Vec<usize>,
}

impl Log {
    /// An empty log.
    pub(super) fn new(segment_bytes: usize) -> Self {
        Self {
            batches: Vec::new(),
            segment_bytes,
            segments: vec![0],
        }
    }

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
            let first = self.segments.last().copied().unwrap_or_default();
            let open = self.batches[first..].iter();
            let bytes: usize = open.map(|stored| stored.encoded.len()).sum();
            if bytes > 0 && bytes + encoded.len() > self.segment_bytes {
                self.segments.push(self.batches.len());
            }
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

    /// To the end of the segment: an answer is of one.
    fn from(&self, from: Offset) -> impl Iterator<Item = &Stored> {
        let first = self
            .batches
            .partition_point(|stored| stored.batch.get_last_offset() < from);
        let next = self.segments.iter().find(|start| **start > first);
        let end = next.copied().unwrap_or(self.batches.len());
        self.batches[first..end].iter()
    }
}
