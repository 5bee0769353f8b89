//! Reading a group and one hundredth of it, against plain `Query` and decompression of every frame.
//!
//! The stand-in runs in this process and takes its share of the processors: trust ratios.

#![expect(clippy::print_stdout, reason = "a report is for whoever ran it")]

#[path = "../tests/support/mod.rs"]
#[expect(dead_code, reason = "each program uses a part of it")]
mod support;

use std::time::Instant;

use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
use millpond_format::header::Header;
use millpond_format::keys;
use millpond_reader::{ReadRequest, ReaderConfig};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use support::{ChainWriter, Item, Local, TABLE, Timed, ledger_row, s};

const CHAINS: u32 = 4;
const ITEMS: usize = 40;
const EVENTS_OF_FRAME: usize = 115;
const EVENT_BYTES: usize = 550;
/// The group's events are spread over ten minutes.
const SPAN_MS: i64 = 600_000;
const START_MS: i64 = 1_763_886_000_000;
const ROUNDS: usize = 5;

/// What a way of reading took.
#[derive(Debug, Default, Clone, Copy)]
struct Took {
    events: usize,
    bytes: usize,
    calls: u64,
    units: f64,
    decoded: u64,
    seconds: f64,
}

fn event(rng: &mut SmallRng) -> Vec<u8> {
    let mut value = Vec::with_capacity(EVENT_BYTES);
    while value.len() < EVENT_BYTES {
        let word: u32 = rng.random_range(0..60_000);
        value.extend(format!("\"field{}\":{word},", word % 40).bytes());
    }
    value.truncate(EVENT_BYTES);
    value
}

/// The items of one chain, full ones, and its directory row.
fn chain(partition: u32) -> (Vec<Item>, i64) {
    let mut rng = SmallRng::seed_from_u64(partition.into());
    let mut writer = ChainWriter::new("g", partition);
    let mut items = Vec::new();
    let mut clock = 0i64;
    while items.len() < ITEMS {
        let mut frames: Vec<Vec<Timed>> = Vec::new();
        // About 390 KB packed.
        for _ in 0..20 {
            let step = SPAN_MS / (ITEMS * 20 * EVENTS_OF_FRAME) as i64;
            let frame = (0..EVENTS_OF_FRAME).map(|index| {
                let spread =
                    clock + (index as i64 * SPAN_MS) / (ITEMS * 20 * EVENTS_OF_FRAME) as i64;
                (START_MS + spread.max(step), event(&mut rng))
            });
            frames.push(frame.collect());
            clock += SPAN_MS / (ITEMS * 20) as i64;
        }
        items.push(writer.item(&frames));
    }
    let late = writer
        .late_ms
        .cast_unsigned()
        .next_power_of_two()
        .cast_signed();
    (items, late)
}

/// Plain `Query` of every chain at the same time, and every frame of every item decompressed.
async fn plain(local: &Local, range: Option<(i64, i64)>, late_ms: i64) -> Took {
    let began = Instant::now();
    let chains = (0..CHAINS).map(|partition| {
        let client = local.client.clone();
        tokio::spawn(async move {
            let mut took = Took::default();
            let mut zstd = zstd::bulk::Decompressor::new().expect("a context");
            let mut query = client
                .query()
                .table_name(TABLE)
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .expression_attribute_values(":pk", s(keys::chain_pk("p", "g", partition)));
            query = match range {
                None => query.key_condition_expression("pk = :pk"),
                Some((from, to)) => query
                    .key_condition_expression("pk = :pk AND sk BETWEEN :from AND :to")
                    .expression_attribute_values(":from", s(keys::time_text(from)))
                    .expression_attribute_values(":to", s(keys::time_text(to + late_ms))),
            };
            let mut pages = query.into_paginator().send();
            while let Some(page) = pages.next().await {
                let page = page.expect("a page");
                took.calls += 1;
                let capacity = page.consumed_capacity().and_then(|c| c.capacity_units);
                took.units += capacity.unwrap_or(0.0);
                for item in page.items() {
                    let binary = |name: &str| item[name].as_b().expect("binary").as_ref();
                    let (header, _) = Header::decode(binary("h")).expect("a header");
                    for (info, place) in header.frame_ranges() {
                        let raw = zstd
                            .decompress(&binary("d")[place], info.raw_bytes as usize)
                            .expect("a frame");
                        took.decoded += 1;
                        took.events += info.event_count as usize;
                        took.bytes += raw.len();
                    }
                }
            }
            took
        })
    });
    let mut all = Took::default();
    for chain in chains.collect::<Vec<_>>() {
        let took = chain.await.expect("read");
        all.events += took.events;
        all.bytes += took.bytes;
        all.calls += took.calls;
        all.units += took.units;
        all.decoded += took.decoded;
    }
    all.seconds = began.elapsed().as_secs_f64();
    all
}

/// The reader, opened for this read alone.
async fn reader(local: &Local, range: Option<(i64, i64)>) -> Took {
    let began = Instant::now();
    let reader = local
        .reader_with(ReaderConfig::new(TABLE))
        .await
        .expect("opens");
    let request = ReadRequest {
        from_ms: range.map(|(from, _)| from),
        to_ms: range.map(|(_, to)| to),
        ..ReadRequest::group("g")
    };
    let mut read = reader.read(request).await.expect("reads");
    let mut took = Took::default();
    while let Some(event) = read.next().await.expect("an event") {
        took.events += 1;
        took.bytes += event.value.len();
    }
    let spent = reader.spent();
    took.calls = spent.calls;
    took.units = spent.read_units;
    took.decoded = read.stats().frames_decoded;
    took.seconds = began.elapsed().as_secs_f64();
    took
}

fn show(name: &str, mut took: Vec<Took>) {
    took.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
    let median = took[took.len() / 2];
    println!(
        "{name:<46} {:>9} {:>7} {:>9.1} {:>8} {:>8.3} {:>7.1}",
        median.events,
        median.calls,
        median.units,
        median.decoded,
        median.seconds,
        median.bytes as f64 / median.seconds / 1e6,
    );
}

#[tokio::main]
async fn main() {
    let local = Local::with_table().await;
    let mut packed = 0;
    let mut tight = 0;
    for partition in 0..CHAINS {
        let (items, late) = chain(partition);
        tight = tight.max(late);
        for item in items {
            packed += item["d"].as_b().map_or(0, |bytes| bytes.as_ref().len());
            local.put(item).await;
        }
        local.put(ledger_row("p", partition, u64::MAX >> 1)).await;
    }
    println!(
        "{CHAINS} chains of {ITEMS} items, {} MB packed",
        packed / 1_000_000
    );
    println!(
        "{:<46} {:>9} {:>7} {:>9} {:>8} {:>8} {:>7}",
        "", "events", "calls", "units", "frames", "s", "MB/s"
    );
    let slice = (
        START_MS + SPAN_MS / 2,
        START_MS + SPAN_MS / 2 + SPAN_MS / 100,
    );
    for late_ms in [1 << 16, tight] {
        for partition in 0..CHAINS {
            let mut row = ChainWriter::new("g", partition);
            row.late_ms = late_ms;
            local.put(row.directory_row()).await;
        }
        for (what, range) in [("whole group", None), ("1% slice", Some(slice))] {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                theirs.push(plain(&local, range, late_ms).await);
                ours.push(reader(&local, range).await);
            }
            show(
                &format!("{what}, late {late_ms} ms: query and decompress"),
                theirs,
            );
            show(&format!("{what}, late {late_ms} ms: reader"), ours);
        }
    }
    local.stop().await;
}
