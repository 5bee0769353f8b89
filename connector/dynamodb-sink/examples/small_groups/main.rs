//! What small groups cost, and what helps: packing small items anew, dictionaries, a longer `max-age`, other cuts.
//!
//! `cargo run --release -p millpond-dynamodb-sink --example small_groups`. The events are those of `millpond demo`, 200
//! to 1,000 bytes of JSON; nothing is written anywhere. `-- cuts` prints the last table alone. Sizes are exact and do not depend on how it is built, CPU time does.
#![expect(clippy::print_stdout, reason = "it prints its figures")]

mod cuts;
mod events;
#[expect(
    dead_code,
    reason = "of the command line tool; the workload needs one of them"
)]
#[path = "../../../../crates/millpond/src/time.rs"]
mod time;
#[expect(
    dead_code,
    reason = "of the command line tool; not all of it is needed here"
)]
#[path = "../../../../crates/millpond/src/workload.rs"]
mod workload;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use millpond_dynamodb_sink::dictionaries::trained;
use millpond_dynamodb_sink::plan::repack::Repack;
use millpond_dynamodb_sink::plan::{Plan, PlanConfig, plan_anew};
use millpond_dynamodb_sink::row::KeyNames;
use millpond_format::dictionary::Dictionary;
use millpond_sink::contiguity::Envelope;
use millpond_sink::dedup::{Admitted, Workbench};
use rustix::time::{ClockId, clock_gettime};

use events::Stream;

/// Groups of a measurement.
pub const GROUPS: usize = 400;

/// Bytes of frames that a dictionary is trained on, as the sink does.
const SAMPLE_BYTES: usize = 4 << 20;

/// Most bytes of the sink's dictionaries.
const DICTIONARY_BYTES: usize = 32 << 10;

/// How small items are packed.
#[derive(Clone, Copy)]
enum Packing<'a> {
    AsTheyAre,
    Anew(Option<&'a Dictionary>),
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn config() -> PlanConfig {
    PlanConfig {
        pipeline: "events-sink".into(),
        topic: "events".into(),
        partition: 0,
        keys: KeyNames::default(),
        max_item_bytes: 409_600,
        form: Default::default(),
    }
}

/// The plan of these envelopes, and the CPU time that it took.
fn planned(envelopes: &[Envelope], packing: Packing<'_>) -> (Plan, Duration) {
    planned_as(envelopes, packing, &config())
}

fn planned_as(
    envelopes: &[Envelope],
    packing: Packing<'_>,
    config: &PlanConfig,
) -> (Plan, Duration) {
    let entries: Vec<_> = envelopes
        .iter()
        .map(|envelope| Admitted::Envelope(Cow::Borrowed(envelope)))
        .collect();
    let repack = match packing {
        Packing::AsTheyAre => None,
        Packing::Anew(dictionary) => Some(Repack {
            dictionary,
            offer: &|_| {},
        }),
    };
    let mut tools = Workbench::default();
    let began = cpu_time();
    let plan = plan_anew(
        &entries,
        &BTreeMap::new(),
        &BTreeMap::new(),
        config,
        &mut tools,
        repack,
    );
    (plan.expect("a plan"), cpu_time() - began)
}

/// Raw frames of the small items that these envelopes become, as the sink samples them.
fn samples(envelopes: &[Envelope]) -> Vec<Vec<u8>> {
    let kept = std::sync::Mutex::new((0, Vec::new()));
    let entries: Vec<_> = envelopes
        .iter()
        .map(|envelope| Admitted::Envelope(Cow::Borrowed(envelope)))
        .collect();
    let offer = |raw: &[u8]| {
        let mut kept = kept.lock().expect("one thread");
        if kept.0 + raw.len() <= SAMPLE_BYTES {
            kept.0 += raw.len();
            kept.1.push(raw.to_vec());
        }
    };
    let repack = Repack {
        dictionary: None,
        offer: &offer,
    };
    let mut tools = Workbench::default();
    plan_anew(
        &entries,
        &BTreeMap::new(),
        &BTreeMap::new(),
        &config(),
        &mut tools,
        Some(repack),
    )
    .expect("a plan");
    kept.into_inner().expect("one thread").1
}

/// A dictionary trained on other events of the stream: small items of 3, 10 and 30 events.
fn dictionary(stream: &mut Stream, most_bytes: usize) -> Dictionary {
    let mut frames = Vec::new();
    for (count, items) in [(3, 600), (10, 180), (30, 60)] {
        frames.extend(samples(&stream.envelopes(items, count, 1)));
    }
    trained(&frames, None, 1, most_bytes).expect("worth it")
}

fn mean(plan: &Plan, of: impl Fn(&millpond_dynamodb_sink::plan::PlannedItem) -> u64) -> f64 {
    plan.items.iter().map(of).sum::<u64>() as f64 / plan.items.len() as f64
}

fn by_events_per_item() {
    println!("\n## Events per item\n");
    println!(
        "| events per item, in so many stored batches | as they are: bytes | units | one frame: bytes | units | dictionary: bytes | units | saved | as they are: CPU µs per item | dictionary: CPU µs |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (count, batches) in [
        (1, 1),
        (3, 1),
        (3, 3),
        (10, 1),
        (10, 10),
        (30, 1),
        (30, 10),
        (100, 1),
        (100, 10),
    ] {
        let mut stream = Stream::default();
        let dictionary = dictionary(&mut stream, DICTIONARY_BYTES);
        let envelopes = stream.envelopes(GROUPS, count, batches);
        let (plain, plain_cpu) = planned(&envelopes, Packing::AsTheyAre);
        let (united, _) = planned(&envelopes, Packing::Anew(None));
        let (with, with_cpu) = planned(&envelopes, Packing::Anew(Some(&dictionary)));
        let bytes = |plan: &Plan| mean(plan, |item| item.bytes as u64);
        let units = |plan: &Plan| mean(plan, |item| item.units);
        let micros = |cpu: Duration| cpu.as_secs_f64() * 1e6 / plain.items.len() as f64;
        println!(
            "| {count} in {batches} | {:.0} | {:.2} | {:.0} | {:.2} | {:.0} | {:.2} | {:.0}% | {:.0} | {:.0} |",
            bytes(&plain),
            units(&plain),
            bytes(&united),
            units(&united),
            bytes(&with),
            units(&with),
            100.0 * (1.0 - units(&with) / units(&plain)),
            micros(plain_cpu),
            micros(with_cpu),
        );
    }
}

fn by_dictionary_size() {
    println!("\n## Size of the dictionary\n");
    println!(
        "| most KiB | its bytes | training, CPU ms | 3 events per item: units | 10 events | 30 events | 100 events |"
    );
    println!("|---|---|---|---|---|---|---|");
    for kib in [8, 16, 32, 64, 112] {
        let mut stream = Stream::default();
        let began = cpu_time();
        let dictionary = dictionary(&mut stream, kib << 10);
        let training = cpu_time() - began;
        print!(
            "| {kib} | {} | {:.0} |",
            dictionary.bytes().len(),
            training.as_secs_f64() * 1e3
        );
        for count in [3, 10, 30, 100] {
            let envelopes = stream.envelopes(GROUPS, count, 1);
            let (with, _) = planned(&envelopes, Packing::Anew(Some(&dictionary)));
            print!(" {:.2} |", mean(&with, |item| item.units));
        }
        println!();
    }
}

/// Groups that give an event every half second, in stored batches of 250 ms.
fn by_max_age() {
    println!("\n## `max-age`, {GROUPS} groups that give two events a second each\n");
    println!(
        "| max-age | events per item | units per 1,000 events | fill | with `dictionary: auto` | fill |"
    );
    println!("|---|---|---|---|---|---|");
    let mut stream = Stream::default();
    let dictionary = dictionary(&mut stream, DICTIONARY_BYTES);
    for seconds in [1, 5, 15, 30, 60, 120] {
        let count = 2 * seconds;
        let envelopes = stream.envelopes(GROUPS, count, count);
        print!("| {seconds} s | {count} |");
        for packing in [Packing::AsTheyAre, Packing::Anew(Some(&dictionary))] {
            let (plan, _) = planned(&envelopes, packing);
            let units: u64 = plan.items.iter().map(|item| item.units).sum();
            let bytes: usize = plan.items.iter().map(|item| item.bytes).sum();
            let events = (GROUPS * count) as f64;
            print!(
                " {:.0} | {:.3} |",
                1_000.0 * units as f64 / events,
                bytes as f64 / (1_024 * units) as f64
            );
        }
        println!();
    }
}

fn main() {
    if std::env::args().nth(1).as_deref() != Some("cuts") {
        by_events_per_item();
        by_dictionary_size();
        by_max_age();
    }
    cuts::print();
}
