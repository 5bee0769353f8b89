//! Reads a table as somebody who knows the item format and nothing of the ledger.

use std::collections::{BTreeMap, HashMap};

use millpond_dynamodb_sink::row::{KeyNames, Row, names};
use millpond_format::frame::FrameDecoder;
use millpond_format::header::{ChainTotals, Header, Kind, Place};
use millpond_format::keys::{self, SortKey};
use millpond_sink::conformance::events;
pub use millpond_sink::conformance::events::read_letters;

use crate::workload::Workload;

/// Events of the table by partition key of the chain, in sort key order over its write shards.
pub fn read_table(rows: &[Row], max_item_bytes: usize) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut decoder = FrameDecoder::new().expect("zstd");
    let mut chains: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    let mut totals: HashMap<String, ChainTotals> = HashMap::new();
    let mut partial: Vec<u8> = Vec::new();
    let late = bounds(rows);
    let mut items: Vec<(String, &Row)> = Vec::new();
    for row in rows {
        if let Some(key) = keys::parse_chain_pk(&row.key.pk) {
            let chain = keys::chain_pk(key.pipeline, key.group, key.partition);
            items.push((chain, row));
        }
    }
    items.sort_by(|(one, a), (other, b)| (one, &a.key.sk).cmp(&(other, &b.key.sk)));
    for (of_chain, row) in items {
        let size = row.size(&KeyNames::default()).bytes();
        assert!(size <= max_item_bytes, "{:?}: {size} bytes", row.key);
        let key = SortKey::parse(&row.key.sk).expect("sort key");
        let chain = chains.entry(of_chain.clone()).or_default();
        let bound = late.get(&row.key.pk).copied();
        let first_time = row.integer(names::FIRST_TIME).expect("t0");
        let is_late = key.sort_time_ms - first_time;
        assert!(
            bound.is_some_and(|bound| is_late <= bound),
            "{:?}: {is_late} > {bound:?}",
            row.key
        );
        if let Some(value) = row.binary(names::VALUE) {
            chain.push(value.concat());
            continue;
        }
        let section = row.binary(names::HEADER).expect("h").concat();
        let frames = row.binary(names::FRAMES).expect("d").concat();
        let (header, length) = Header::decode(&section).expect("header");
        assert_eq!(length, section.len());
        header.check_frames(&frames).expect("frames");
        let total = totals.entry(of_chain).or_default();
        total.items += 1;
        total.events += header.event_count();
        total.event_bytes += header.event_bytes();
        total.packed_bytes += frames.len() as u64;
        assert_eq!(header.place, Place::Chain(*total), "{:?}", row.key);
        assert_eq!(
            row.integer(names::EVENTS),
            Some(header.event_count() as i64)
        );
        assert_eq!(first_time, header.first_time_ms());
        assert_eq!(key.base_offset, header.base_offset);
        for (info, range) in header.frame_ranges() {
            let frame = decoder
                .decode(header.codec, info, &frames[range])
                .expect("frame");
            for event in &frame.events {
                let value = frame.value(event);
                match header.kind {
                    Kind::Events => chain.push(value.to_vec()),
                    Kind::Part(part) => {
                        if part.index == 0 {
                            partial.clear();
                        }
                        partial.extend_from_slice(value);
                        if part.is_last() {
                            assert_eq!(partial.len() as u64, part.event_bytes);
                            assert_eq!(crc32c::crc32c(&partial), part.event_crc32c);
                            chain.push(std::mem::take(&mut partial));
                        }
                    }
                    Kind::Reject(_) => panic!("a rejected event in the table"),
                }
            }
        }
    }
    chains
}

/// Lateness bounds of the directory by partition key.
fn bounds(rows: &[Row]) -> HashMap<String, i64> {
    let rows = rows
        .iter()
        .filter(|row| row.key.pk.starts_with("millpond:groups/p/"));
    rows.map(|row| {
        let place = keys::parse_directory_sk(&row.key.sk).expect("directory");
        let (group, partition, shard) = place;
        assert_eq!(row.key.pk, keys::directory_pk("p", group));
        let late = row.integer(names::LATE).expect("late");
        (keys::shard_pk("p", group, partition, shard), late)
    })
    .collect()
}

/// Every event once, in the order of its partition key within its group; poison in the file.
pub fn check(workload: &Workload, rows: &[Row], letters: &[Vec<u8>], max_item_bytes: usize) {
    events::check(workload, &read_table(rows, max_item_bytes), letters);
}
