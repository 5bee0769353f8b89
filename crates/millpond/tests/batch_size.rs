//! What the size of a stored batch does to compression: the SmartModule sees one at a time.
//!
//! `cargo test -p millpond --test batch_size -- --nocapture` prints the table of `BENCHMARKS.md`.

use std::collections::BTreeMap;

use millpond::workload::Workload;
use millpond_connector::meta::DEFAULT_BATCH_BYTES;
use millpond_format::origin::{ChainLink, Origin};
use millpond_format::record::BatchBuilder;
use millpond_format::sequence::SequenceNumber;
use millpond_pack::{Packer, Params};

const TIME_MS: i64 = 1_763_886_000_000;
const EVENTS: u64 = 20_000;

/// Bytes of events by bytes of envelopes, when batches are closed at `batch_bytes` of events.
fn ratio(group_by: &str, batch_bytes: usize) -> f64 {
    let parameters = BTreeMap::from([("group-by".to_owned(), group_by.to_owned())]);
    let mut packer = Packer::new(Params::from_map(&parameters).expect("right")).expect("zstd");
    let workload = Workload::new(1, TIME_MS, 20);
    let (mut events, mut packed, mut in_batch) = (0, 0, 0);
    let mut builder = BatchBuilder::new();
    for index in 0..EVENTS {
        let event = workload.event(index);
        let sequence = (1_000_000_000 + index).to_string();
        let mut key = String::new();
        let origin = Origin {
            stream: "events",
            shard: "shardId-000000000000",
            sequence: SequenceNumber::parse(&sequence).expect("a number"),
            sub_sequence: 0,
            arrival_ms: TIME_MS,
            chain: ChainLink {
                epoch: 1,
                ordinal: index,
            },
            partition_key: &event.partition_key,
        };
        origin.write_to(&mut key);
        builder.push(Some(key.as_bytes()), event.data.as_bytes(), TIME_MS);
        events += event.data.len();
        in_batch += event.data.len();
        if in_batch >= batch_bytes {
            let full = std::mem::replace(&mut builder, BatchBuilder::new());
            let time = full.base_timestamp_ms();
            let records = packer.pack(&full.finish(), index, time).expect("packs");
            let bytes = records.iter().map(|record| record.value.len());
            packed += bytes.sum::<usize>();
            in_batch = 0;
        }
    }
    // What is left in the last batch is in neither.
    (events - in_batch) as f64 / packed as f64
}

#[expect(clippy::print_stdout, reason = "the table")]
#[test]
fn large_batches_pack_better_and_the_default_is_large() {
    println!("{:>10} {:>10} {:>10}", "batch", "one group", "/job_id");
    let mut one_group = Vec::new();
    let mut by_job = Vec::new();
    for kib in [16, 64, 256, 1024] {
        let ratios = ["constant:all", "/job_id"].map(|group_by| ratio(group_by, kib << 10));
        println!("{kib:>6} KiB {:>10.2} {:>10.2}", ratios[0], ratios[1]);
        one_group.push(ratios[0]);
        by_job.push(ratios[1]);
    }
    assert!(by_job.is_sorted(), "{by_job:?}");
    assert!(one_group[1] > one_group[0] * 1.1, "64 KiB against 16 KiB");
    assert!(by_job[3] > by_job[0] * 1.5, "1 MiB against 16 KiB, by job");
    assert_eq!(DEFAULT_BATCH_BYTES, 1 << 20);
}
