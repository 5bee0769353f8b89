//! Rows of the store: keys, batch headers and the small records of what is where.
//!
//! Three tables. `index`: (partition, base offset) to [`BatchHeader`]. `data`:
//! (partition, base offset, part) to a piece of the raw batch. `meta`: the topic, its
//! partitions and its consumers. Integers big endian, so that keys sort by position.
//! Every row is sealed, or carries a CRC-32C of its own.

use millpond_connector::topic::{Offset, PartitionId};
use millpond_store_file::{seal, unseal};

/// Version of the rows below; another one is refused.
pub(crate) const LAYOUT_VERSION: u32 = 1;

/// The store's page size, and what a row costs inside a page of its own (key included).
const PAGE_BYTES: usize = 4096;
const ROW_OVERHEAD: usize = 144;
/// Largest part of a batch, in pages. Values sit in blocks of a power of two pages: parts
/// that fill theirs waste nothing, where a whole 1 MiB batch would take (and write) 2 MiB.
const MAX_PART_PAGES: usize = 64;

/// Key of an `index` row.
pub(crate) fn index_key(partition: PartitionId, base: Offset) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&partition.to_be_bytes());
    key[4..].copy_from_slice(&base.to_be_bytes());
    key
}

/// Reads the base offset out of an `index` key.
pub(crate) fn index_key_base(key: &[u8]) -> Option<Offset> {
    let base: [u8; 8] = key.get(4..12)?.try_into().ok()?;
    Some(Offset::from_be_bytes(base))
}

/// Key of a `data` row.
pub(crate) fn data_key(partition: PartitionId, base: Offset, part: u32) -> [u8; 16] {
    let mut key = [0; 16];
    key[..12].copy_from_slice(&index_key(partition, base));
    key[12..].copy_from_slice(&part.to_be_bytes());
    key
}

/// Cuts a raw batch into parts, large ones first, each filling its block of pages.
pub(crate) fn parts(mut raw: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if raw.is_empty() {
            return None;
        }
        let (part, rest) = raw.split_at(part_len(raw.len()));
        raw = rest;
        Some(part)
    })
}

fn part_len(rest: usize) -> usize {
    let mut pages = MAX_PART_PAGES;
    while pages > 4 {
        let len = pages * PAGE_BYTES - ROW_OVERHEAD;
        if rest >= len {
            return len;
        }
        pages /= 2;
    }
    rest
}

/// What is known of a stored batch without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) record_count: u32,
    pub(crate) raw_len: u32,
    /// CRC-32C of the raw bytes.
    pub(crate) raw_crc: u32,
    pub(crate) base_timestamp_ms: i64,
    /// Wall clock at the append, for retention by age.
    pub(crate) appended_ms: i64,
}

const HEADER_LEN: usize = 28;

impl BatchHeader {
    /// Encodes the header with a CRC-32C over itself and its position.
    pub(crate) fn encode(&self, partition: PartitionId, base: Offset) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN + 4);
        out.extend_from_slice(&self.record_count.to_be_bytes());
        out.extend_from_slice(&self.raw_len.to_be_bytes());
        out.extend_from_slice(&self.raw_crc.to_be_bytes());
        out.extend_from_slice(&self.base_timestamp_ms.to_be_bytes());
        out.extend_from_slice(&self.appended_ms.to_be_bytes());
        seal(out, &index_key(partition, base))
    }

    /// Reads a header; `None` when it does not pass its CRC at this position.
    pub(crate) fn decode(row: &[u8], partition: PartitionId, base: Offset) -> Option<Self> {
        let body = unseal(row, &index_key(partition, base))?;
        let mut fields = Fields(body);
        let header = Self {
            record_count: fields.u32()?,
            raw_len: fields.u32()?,
            raw_crc: fields.u32()?,
            base_timestamp_ms: fields.i64()?,
            appended_ms: fields.i64()?,
        };
        fields.end().then_some(header)
    }
}

/// The topic's own row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicRow {
    pub(crate) layout_version: u32,
    pub(crate) partition_count: u32,
    pub(crate) name: String,
}

pub(crate) const TOPIC_KEY: &str = "topic";
/// What tells this topic from another one in the same place.
pub(crate) const IDENTITY_KEY: &str = "identity";
pub(crate) const CONSUMER_PREFIX: &str = "consumer/";
/// Sorts after every consumer key: `/` plus one.
pub(crate) const CONSUMER_END: &str = "consumer0";

pub(crate) fn partition_key(partition: PartitionId) -> String {
    format!("partition/{partition:010}")
}

pub(crate) fn consumer_key(consumer: &str) -> String {
    format!("{CONSUMER_PREFIX}{consumer}")
}

impl TopicRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.layout_version.to_be_bytes());
        out.extend_from_slice(&self.partition_count.to_be_bytes());
        out.extend_from_slice(self.name.as_bytes());
        seal(out, TOPIC_KEY.as_bytes())
    }

    pub(crate) fn decode(row: &[u8]) -> Option<Self> {
        let mut fields = Fields(unseal(row, TOPIC_KEY.as_bytes())?);
        Some(Self {
            layout_version: fields.u32()?,
            partition_count: fields.u32()?,
            name: std::str::from_utf8(fields.0).ok()?.to_owned(),
        })
    }
}

/// Encodes a list of offsets (a partition's bounds, a consumer's releases).
pub(crate) fn encode_offsets(key: &str, offsets: &[Offset]) -> Vec<u8> {
    let body = offsets.iter().flat_map(|o| o.to_be_bytes()).collect();
    seal(body, key.as_bytes())
}

/// Reads a list of offsets; `None` when the row does not pass its CRC.
pub(crate) fn decode_offsets(key: &str, row: &[u8]) -> Option<Vec<Offset>> {
    let body = unseal(row, key.as_bytes())?;
    let (offsets, rest) = body.as_chunks::<8>();
    rest.is_empty()
        .then(|| offsets.iter().map(|o| Offset::from_be_bytes(*o)).collect())
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }
    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }
    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_be_bytes)
    }
    fn end(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_put_together_are_the_batch() {
        for len in [
            1,
            100,
            4096,
            16_384,
            40_000,
            262_000,
            262_001,
            1 << 20,
            3_333_333,
        ] {
            let raw: Vec<u8> = (0..len).map(|i: usize| (i % 251) as u8).collect();
            let pieces: Vec<_> = parts(&raw).collect();
            assert_eq!(pieces.concat(), raw, "{len} bytes");
            let pages: usize = pieces
                .iter()
                .map(|p| {
                    (p.len() + ROW_OVERHEAD)
                        .div_ceil(PAGE_BYTES)
                        .next_power_of_two()
                })
                .sum();
            assert!(
                pages * PAGE_BYTES <= len + len / 20 + 32_768,
                "{len} bytes in {pages} pages"
            );
        }
    }

    #[test]
    fn a_header_fails_on_any_flipped_bit_and_at_any_other_position() {
        let header = BatchHeader {
            record_count: 7,
            raw_len: 1_000,
            raw_crc: 0xDEAD_BEEF,
            base_timestamp_ms: 1_763_886_000_123,
            appended_ms: 1_763_886_000_456,
        };
        let row = header.encode(3, 99);
        assert_eq!(BatchHeader::decode(&row, 3, 99), Some(header));
        assert_eq!(BatchHeader::decode(&row, 3, 100), None);
        assert_eq!(BatchHeader::decode(&row, 2, 99), None);
        for bit in 0..row.len() * 8 {
            let mut bad = row.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(BatchHeader::decode(&bad, 3, 99), None, "bit {bit}");
        }
    }

    #[test]
    fn meta_rows_come_back_and_fail_when_cut() {
        let row = TopicRow {
            layout_version: 1,
            partition_count: 4,
            name: "events".into(),
        };
        let bytes = row.encode();
        assert_eq!(TopicRow::decode(&bytes), Some(row));
        let offsets = encode_offsets("consumer/sink", &[1, u64::MAX, 3]);
        assert_eq!(
            decode_offsets("consumer/sink", &offsets),
            Some(vec![1, u64::MAX, 3])
        );
        assert_eq!(decode_offsets("consumer/other", &offsets), None);
        for cut in 0..bytes.len() {
            assert_eq!(TopicRow::decode(&bytes[..cut]), None);
        }
    }
}
