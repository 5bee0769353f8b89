//! Transactions on the tables: what is written together, and what is checked on reading.

use bytes::Bytes;
use millpond_connector::random;
use millpond_connector::topic::{Offset, PartitionId};
use millpond_store_file::redb::{Database, ReadableDatabase, TableDefinition, TableError};

use crate::config::MAX_BATCH_BYTES;
use crate::layout::{
    self, BatchHeader, CONSUMER_END, CONSUMER_PREFIX, IDENTITY_KEY, LAYOUT_VERSION, TOPIC_KEY,
    TopicRow,
};
use crate::store::{Change, PartitionState, PlacedBatch, ReadBatch, RemovableBatch, StoreState};

const INDEX: TableDefinition<&[u8; 12], &[u8]> = TableDefinition::new("index");
const DATA: TableDefinition<&[u8; 16], &[u8]> = TableDefinition::new("data");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

/// What is wrong with the store that is no fault of its file.
#[derive(Debug)]
pub(crate) enum Broken {
    /// A stored batch is damaged.
    Batch(PartitionId, Offset, String),
    /// The store is another topic's, or cannot take what it is given.
    Promise(String),
}

pub(crate) type Fault = millpond_store_file::Fault<Broken>;

fn mismatch(reason: String) -> Fault {
    Fault::Other(Broken::Promise(reason))
}

pub(crate) fn create_tables(db: &Database, topic: &TopicRow) -> Result<(), Fault> {
    let existing = {
        let tx = db.begin_read()?;
        match tx.open_table(META) {
            Ok(meta) => meta
                .get(TOPIC_KEY)?
                .map(|row| TopicRow::decode(row.value())),
            Err(TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(error.into()),
        }
    };
    match existing {
        Some(None) => {
            return Err(Fault::Corrupt(
                "the topic's own row fails its checksum".into(),
            ));
        }
        Some(Some(stored)) => return check_topic(&stored, topic),
        None => {}
    }
    let tx = db.begin_write()?;
    tx.open_table(INDEX)?;
    tx.open_table(DATA)?;
    {
        let mut meta = tx.open_table(META)?;
        meta.insert(TOPIC_KEY, topic.encode().as_slice())?;
        let identity = layout::encode_offsets(IDENTITY_KEY, &[random::number()]);
        meta.insert(IDENTITY_KEY, identity.as_slice())?;
    }
    tx.commit()?;
    Ok(())
}

fn check_topic(stored: &TopicRow, wanted: &TopicRow) -> Result<(), Fault> {
    if stored.layout_version != LAYOUT_VERSION {
        return Err(mismatch(format!(
            "has layout version {}, this program knows {LAYOUT_VERSION}; use the release that wrote it",
            stored.layout_version
        )));
    }
    if stored.name != wanted.name {
        return Err(mismatch(format!(
            "holds topic `{}`, not `{}`; give each topic a directory of its own",
            stored.name, wanted.name
        )));
    }
    if stored.partition_count != wanted.partition_count {
        return Err(mismatch(format!(
            "has {} partitions, the configuration says {}; the count of an existing topic cannot \
             change: set it back, or use another data directory",
            stored.partition_count, wanted.partition_count
        )));
    }
    Ok(())
}

pub(crate) fn commit(db: &Database, change: &Change) -> Result<(), Fault> {
    let mut tx = db.begin_write()?;
    tx.set_quick_repair(change.quick_repair);
    {
        let mut index = tx.open_table(INDEX)?;
        let mut data = tx.open_table(DATA)?;
        for (partition, batch) in &change.removals {
            index.remove(&layout::index_key(*partition, batch.base))?;
            let mut part = 0;
            while data
                .remove(&layout::data_key(*partition, batch.base, part))?
                .is_some()
            {
                part += 1;
            }
        }
        for placed in &change.appends {
            let (partition, base) = (placed.partition, placed.base);
            let raw = &placed.batch.raw;
            for (number, part) in (0..).zip(layout::parts(raw)) {
                let key = layout::data_key(partition, base, number);
                data.insert_reserve(&key, part.len())?
                    .as_mut()
                    .copy_from_slice(part);
            }
            let header = header_of(placed)?.encode(partition, base);
            index.insert(&layout::index_key(partition, base), header.as_slice())?;
        }
        let mut meta = tx.open_table(META)?;
        for (partition, state) in &change.partitions {
            let key = layout::partition_key(*partition);
            let row = layout::encode_offsets(&key, &[state.earliest, state.end]);
            meta.insert(key.as_str(), row.as_slice())?;
        }
        for (consumer, released) in &change.consumers {
            let key = layout::consumer_key(consumer);
            let row = layout::encode_offsets(&key, released);
            meta.insert(key.as_str(), row.as_slice())?;
        }
        for consumer in &change.forgotten {
            meta.remove(layout::consumer_key(consumer).as_str())?;
        }
    }
    tx.commit()?;
    Ok(())
}

fn header_of(placed: &PlacedBatch) -> Result<BatchHeader, Fault> {
    let raw: &Bytes = &placed.batch.raw;
    let raw_len = u32::try_from(raw.len())
        .map_err(|_| mismatch(format!("cannot hold a batch of {} bytes", raw.len())))?;
    Ok(BatchHeader {
        record_count: placed.batch.record_count,
        raw_len,
        raw_crc: crc32c::crc32c(raw),
        base_timestamp_ms: placed.batch.base_timestamp_ms,
        appended_ms: placed.appended_ms,
    })
}

pub(crate) fn read(
    db: &Database,
    partition: PartitionId,
    offset: Offset,
) -> Result<ReadBatch, Fault> {
    let damaged = |reason: String| Fault::Other(Broken::Batch(partition, offset, reason));
    let tx = db.begin_read()?;
    let index = tx.open_table(INDEX)?;
    let first = layout::index_key(partition, 0);
    let last = layout::index_key(partition, offset);
    let row = index
        .range::<&[u8; 12]>(&first..=&last)?
        .next_back()
        .transpose()?;
    let Some((key, row)) = row else {
        return Err(damaged("it is missing from the index".into()));
    };
    let base = layout::index_key_base(key.value()).unwrap_or_default();
    let Some(header) = BatchHeader::decode(row.value(), partition, base) else {
        return Err(damaged("its header fails its checksum".into()));
    };
    let end = base.saturating_add(u64::from(header.record_count));
    if end <= offset {
        return Err(damaged(format!(
            "it is missing from the index, where offset {end} should follow"
        )));
    }
    let raw_len = header.raw_len as usize;
    if raw_len > MAX_BATCH_BYTES {
        return Err(damaged(format!(
            "its header says {raw_len} bytes, the limit is {MAX_BATCH_BYTES}"
        )));
    }
    let mut raw = Vec::with_capacity(raw_len);
    let data = tx.open_table(DATA)?;
    let from = layout::data_key(partition, base, 0);
    let to = layout::data_key(partition, base, u32::MAX);
    for part in data.range::<&[u8; 16]>(&from..=&to)? {
        let (_, part) = part?;
        let part = part.value();
        if raw.len() + part.len() > raw_len {
            return Err(damaged(format!("more than its {raw_len} bytes are stored")));
        }
        raw.extend_from_slice(part);
    }
    if raw.len() != raw_len {
        return Err(damaged(format!(
            "{} of its {raw_len} bytes are stored",
            raw.len()
        )));
    }
    let crc = crc32c::crc32c(&raw);
    if crc != header.raw_crc {
        return Err(damaged(format!(
            "its CRC-32C is {crc:08x}, its header says {:08x}",
            header.raw_crc
        )));
    }
    Ok(ReadBatch {
        base,
        end,
        base_timestamp_ms: header.base_timestamp_ms,
        raw,
    })
}

pub(crate) fn removable(
    db: &Database,
    partition: PartitionId,
    state: PartitionState,
    to: Offset,
    max_bytes: u64,
) -> Result<Vec<RemovableBatch>, Fault> {
    let mut found: Vec<RemovableBatch> = Vec::new();
    let mut bytes = 0;
    let tx = db.begin_read()?;
    let index = tx.open_table(INDEX)?;
    let from = layout::index_key(partition, state.earliest);
    let last = layout::index_key(partition, to);
    for row in index.range::<&[u8; 12]>(&from..&last)? {
        let (key, row) = row?;
        let base = layout::index_key_base(key.value()).unwrap_or_default();
        // A damaged header must not keep its batch for ever once it is released.
        let header = BatchHeader::decode(row.value(), partition, base);
        let end = header.map_or(to, |h| base.saturating_add(u64::from(h.record_count)));
        if end > to || bytes >= max_bytes {
            break;
        }
        let raw_len = header.map_or(0, |h| u64::from(h.raw_len));
        bytes += raw_len;
        found.push(RemovableBatch {
            base,
            end: end.max(base + 1),
            raw_len,
            appended_ms: header.map_or(0, |h| h.appended_ms),
        });
        if header.is_none() {
            break;
        }
    }
    Ok(found)
}

pub(crate) fn load(db: &Database, partition_count: u32) -> Result<StoreState, Fault> {
    let tx = db.begin_read()?;
    let meta = tx.open_table(META)?;
    let index = tx.open_table(INDEX)?;
    let mut state = StoreState::default();
    if let Some(row) = meta.get(IDENTITY_KEY)? {
        let number = layout::decode_offsets(IDENTITY_KEY, row.value());
        let Some([number]) = number.as_deref() else {
            return Err(Fault::Corrupt(format!(
                "row `{IDENTITY_KEY}` fails its checksum"
            )));
        };
        state.identity = Some(format!("{number:016x}"));
    }
    for partition in 0..partition_count {
        let key = layout::partition_key(partition);
        let mut bounds = PartitionState::default();
        if let Some(row) = meta.get(key.as_str())? {
            let offsets = layout::decode_offsets(&key, row.value());
            let Some([earliest, end]) = offsets.as_deref() else {
                return Err(Fault::Corrupt(format!("row `{key}` fails its checksum")));
            };
            (bounds.earliest, bounds.end) = (*earliest, *end);
        }
        let first = layout::index_key(partition, 0);
        let last = layout::index_key(partition, Offset::MAX);
        for row in index.range::<&[u8; 12]>(&first..=&last)? {
            let (key, row) = row?;
            let base = layout::index_key_base(key.value()).unwrap_or_default();
            match BatchHeader::decode(row.value(), partition, base) {
                Some(header) => bounds.bytes += u64::from(header.raw_len),
                None => tracing::warn!(partition, offset = base, "a stored batch is damaged"),
            }
        }
        state.partitions.push(bounds);
    }
    for row in meta.range(CONSUMER_PREFIX..CONSUMER_END)? {
        let (key, row) = row?;
        let key = key.value();
        let released = layout::decode_offsets(key, row.value());
        let Some(released) = released.filter(|r| r.len() == partition_count as usize) else {
            return Err(Fault::Corrupt(format!("row `{key}` fails its checks")));
        };
        let name = key.strip_prefix(CONSUMER_PREFIX).unwrap_or(key).to_owned();
        state.consumers.insert(name, released);
    }
    Ok(state)
}
