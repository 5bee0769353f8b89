//! What the best choice of cuts between the items of a plan would save, by trying all of them.

use std::collections::BTreeMap;

use millpond_format::header::{ChainTotals, Place};
use millpond_format::join::Joiner;
use millpond_format::sizing::write_units;
use millpond_sink::contiguity::Envelope;

use crate::events::Stream;
use crate::{Packing, config, planned};

/// Fewest units of the items of one group, whatever envelopes each of them holds.
fn fewest_units(envelopes: &[&Envelope], fixed: usize, limit: usize) -> u64 {
    let mut fewest = vec![u64::MAX; envelopes.len() + 1];
    fewest[0] = 0;
    for (first, envelope) in envelopes.iter().enumerate() {
        let mut joiner = Joiner::new(envelope.header.clone());
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
            let units = fewest[first] + write_units(bytes);
            fewest[last + 1] = fewest[last + 1].min(units);
        }
    }
    fewest[envelopes.len()]
}

pub fn print() {
    println!("\n## Cuts: items as they are against the best cuts of all, within each plan\n");
    println!(
        "| jobs | plan, MB of events | items | units | fill | units with the best cuts | saved |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (jobs, megabytes) in [(1, 40), (12, 10), (12, 40), (100, 40), (400, 40)] {
        let envelopes = Stream::demo(jobs, megabytes << 20);
        let (plan, _) = planned(&envelopes, Packing::AsTheyAre);
        let units: u64 = plan.items.iter().map(|item| item.units).sum();
        let bytes: usize = plan.items.iter().map(|item| item.bytes).sum();
        let mut groups: BTreeMap<&str, Vec<&Envelope>> = BTreeMap::new();
        for envelope in &envelopes {
            groups
                .entry(&envelope.header.group)
                .or_default()
                .push(envelope);
        }
        let config = config();
        let best: u64 = groups
            .iter()
            .map(|(group, envelopes)| {
                // An integer takes 12 bytes at most, and 3 to 8 as these are.
                let fixed = config.fixed_bytes(group, 1);
                fewest_units(envelopes, fixed - 18, config.max_item_bytes - fixed)
            })
            .sum();
        println!(
            "| {jobs} | {megabytes} | {} | {units} | {:.4} | {best} | {:.3}% |",
            plan.items.len(),
            bytes as f64 / (1_024 * units) as f64,
            100.0 * (1.0 - best as f64 / units as f64)
        );
    }
}
