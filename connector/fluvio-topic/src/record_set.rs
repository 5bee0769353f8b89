//! Stored batches in Fluvio's own form, to and from the wire.

use bytes::Bytes;
use fluvio_compression::Compression;
use fluvio_protocol::record::{Batch, RawRecords, RecordSet};
use millpond_connector::topic::StoredBatch;

/// A batch that did not come as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Its first offset.
    pub base_offset: i64,
    /// The failed check.
    pub reason: String,
}

/// One stored batch as a produce request carries it.
pub(crate) fn encode(
    batch: StoredBatch,
    compression: Compression,
) -> Result<RecordSet<RawRecords>, String> {
    let raw = match compression {
        Compression::None => batch.raw,
        other => other.compress(&batch.raw).map_err(|e| e.to_string())?,
    };
    let count = i32::try_from(batch.record_count).map_err(|_| "too many records".to_owned())?;
    let mut stored = Batch::<RawRecords>::default();
    stored.header.last_offset_delta = count - 1;
    stored.header.first_timestamp = batch.base_timestamp_ms;
    stored.header.max_time_stamp = batch.base_timestamp_ms;
    stored.header.set_compression(compression);
    *stored.mut_records() = RawRecords(raw);
    Ok(RecordSet::default().add(stored))
}

/// True when a batch was cut short on its way: the SPU cuts its answer at `max_bytes`.
pub(crate) fn is_cut(batch: &Batch<RawRecords>) -> bool {
    !batch.validate_decoding()
}

/// The uncompressed records of a whole batch, count first, its checksum checked.
///
/// CRC-32C over everything from the attributes on: `fluvio_protocol::record::Batch::encode`.
pub(crate) fn decode(batch: &Batch<RawRecords>) -> Result<Bytes, Damage> {
    let damage = |reason: String| Damage {
        base_offset: batch.base_offset,
        reason,
    };
    let header = &batch.header;
    if !header.has_schema() {
        let mut head = Vec::with_capacity(40);
        head.extend_from_slice(&header.attributes.to_be_bytes());
        head.extend_from_slice(&header.last_offset_delta.to_be_bytes());
        head.extend_from_slice(&header.first_timestamp.to_be_bytes());
        head.extend_from_slice(&header.max_time_stamp.to_be_bytes());
        head.extend_from_slice(&header.producer_id.to_be_bytes());
        head.extend_from_slice(&header.producer_epoch.to_be_bytes());
        head.extend_from_slice(&header.first_sequence.to_be_bytes());
        let found = crc32c::crc32c_append(crc32c::crc32c(&head), &batch.records().0);
        if found != header.crc {
            return Err(damage(format!(
                "its checksum is {found:08x}, its header says {:08x}",
                header.crc
            )));
        }
    }
    let compression = batch.get_compression().map_err(|e| damage(e.to_string()))?;
    let raw = batch.records().0.clone();
    match compression {
        Compression::None => Ok(raw),
        other => match other.uncompress(&raw) {
            Ok(Some(bytes)) => Ok(bytes.into()),
            Ok(None) => Ok(raw),
            Err(error) => Err(damage(error.to_string())),
        },
    }
}
