//! What the cuts between the items of a plan save, against full items and against the best cuts of all.

use std::collections::BTreeMap;

use millpond_dynamodb_sink::plan::PlanConfig;
use millpond_format::header::{ChainTotals, Place};
use millpond_format::join::Joiner;
use millpond_format::sizing::write_units;
use millpond_sink::contiguity::Envelope;

use crate::events::Stream;
use crate::{Packing, config, planned_as};

/// Units of the items of one group: of the fullest ones, and the fewest, whatever envelopes each of them holds.
fn units_of(envelopes: &[&Envelope], fixed: usize, limit: usize) -> (u64, u64) {
    let mut fewest = vec![u64::MAX; envelopes.len() + 1];
    fewest[0] = 0;
    let (mut fullest, mut next) = (0, 0);
    for (first, envelope) in envelopes.iter().enumerate() {
        let mut joiner = Joiner::new(envelope.header.clone());
        let mut alone = (first + 1, 0);
        for last in first..envelopes.len() {
            if last > first && !joiner.try_push(&envelopes[last].header, limit) {
                break;
            }
            let mut header = joiner.header().clone();
            let events = header.event_count();
            header.place = Place::Chain(ChainTotals {
                items: 9,
                events,
                event_bytes: header.event_bytes(),
                packed_bytes: header.packed_bytes() as u64,
            });
            let bytes = fixed + header.encoded_len() + header.packed_bytes();
            alone = (last + 1, write_units(bytes));
            fewest[last + 1] = fewest[last + 1].min(fewest[first] + alone.1);
        }
        if first == next {
            fullest += alone.1;
            next = alone.0;
        }
    }
    (fullest, fewest[envelopes.len()])
}

pub fn print() {
    println!(
        "\n## Cuts: full items, items as they are planned, and the best cuts of all, within each plan\n"
    );
    println!(
        "| max-item-bytes | jobs | plan, MB of events | items | fill | units, full items | as planned | best of all | saved | planning, CPU s/GB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let plans = [(1, 40), (12, 10), (12, 40), (100, 40), (400, 40)];
    let whole = plans.map(|(jobs, megabytes)| (400, jobs, megabytes));
    let small = [(64, 100, 40), (16, 100, 40), (16, 400, 40), (8, 400, 40)];
    for (kib, jobs, megabytes) in whole.into_iter().chain(small) {
        let envelopes = Stream::demo(jobs, megabytes << 20, kib << 10);
        let config = PlanConfig {
            max_item_bytes: kib << 10,
            ..config()
        };
        let (plan, cpu) = planned_as(&envelopes, Packing::AsTheyAre, &config);
        let units: u64 = plan.items.iter().map(|item| item.units).sum();
        let bytes: usize = plan.items.iter().map(|item| item.bytes).sum();
        let event_bytes: u64 = plan.items.iter().map(|item| item.event_bytes).sum();
        let mut groups: BTreeMap<&str, Vec<&Envelope>> = BTreeMap::new();
        for envelope in &envelopes {
            groups
                .entry(&envelope.header.group)
                .or_default()
                .push(envelope);
        }
        let (mut full, mut best) = (0, 0);
        for (group, envelopes) in &groups {
            // An integer takes 12 bytes at most, and 3 to 8 as these are.
            let fixed = config.fixed_bytes(group, 1);
            let of_group = units_of(envelopes, fixed - 18, config.max_item_bytes - fixed);
            full += of_group.0;
            best += of_group.1;
        }
        println!(
            "| {kib} KiB | {jobs} | {megabytes} | {} | {:.4} | {full} | {units} | {best} | {:.3}% | {:.3} |",
            plan.items.len(),
            bytes as f64 / (1_024 * units) as f64,
            100.0 * (1.0 - units as f64 / full as f64),
            cpu.as_secs_f64() * 1e9 / event_bytes as f64,
        );
    }
}
