//! Packing natively and through Fluvio's engine, on the same bytes in the same run.
//!
//! All figures are CPU time of the thread, so that a busy machine does not blur them.

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BatchSize, Criterion, Throughput};
use millpond_format::record::Records;
use rustix::time::{ClockId, clock_gettime};

use fluvio_smartmodule::dataplane::core::Encoder;
use support::{BASE_OFFSET, Module, START_MS, input, json_batch, packer};

const BATCHES: u64 = 8;
const BATCH_BYTES: usize = 1 << 20;
const EVENT_BYTES: usize = 550;
const GROUPS: u32 = 20;
const ROUNDS: usize = 15;

/// Ways of grouping that are measured: without and with a look into the event.
const GROUPINGS: [(&str, &[(&str, &str)]); 2] = [
    ("partition-key", &[]),
    (
        "/job_id",
        &[("group-by", "/job_id"), ("event-time", "/time")],
    ),
];

struct CpuTime;

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        cpu_time()
    }

    fn end(&self, start: Duration) -> Duration {
        cpu_time() - start
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn events_of(raw: &[u8]) -> Vec<u8> {
    let records = Records::new(raw).expect("well-formed");
    let values = records.map(|record| record.expect("well-formed").value);
    values.collect::<Vec<_>>().concat()
}

fn measure(work: impl FnOnce()) -> Duration {
    let start = cpu_time();
    work();
    cpu_time() - start
}

/// CPU time of `work` on all batches, without that of `hand_over`, which makes its input.
fn measure_each<T>(
    batches: &[Vec<u8>],
    hand_over: impl Fn(&Vec<u8>) -> T,
    mut work: impl FnMut(T),
) -> Duration {
    let one = |raw| {
        let input = hand_over(raw);
        measure(|| work(input))
    };
    batches.iter().map(one).sum()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Rounds of everything, one after the other, so that all meet the same disturbances.
#[expect(clippy::print_stderr, reason = "this is the report")]
fn report(batches: &[Vec<u8>]) {
    let events: Vec<Vec<u8>> = batches.iter().map(|raw| events_of(raw)).collect();
    let bytes: usize = events.iter().map(Vec::len).sum();
    let rate = |time: Duration| bytes as f64 / 1e6 / time.as_secs_f64();
    eprintln!(
        "{} batches, {bytes} bytes of events; MB per CPU second, medians of {ROUNDS} rounds",
        batches.len()
    );
    for level in ["1", "3"] {
        let zstd_level = level.parse().expect("a number");
        for (name, grouping) in GROUPINGS {
            let params = [grouping, &[("level", level)]].concat();
            let mut native = packer(&params);
            let mut module = Module::load(&params, 22, None).expect("loads");
            let mut zstd = zstd::bulk::Compressor::new(zstd_level).expect("context");
            let mut times = [const { Vec::new() }; 4];
            for _ in 0..ROUNDS {
                // A topic hands over the bytes that it has read, one batch at a time: copying
                // them is not packing, but whoever packs them also frees them.
                times[0].push(measure_each(batches, Vec::clone, |raw| {
                    black_box(native.pack(&raw, BASE_OFFSET, START_MS).expect("packs"));
                }));
                times[1].push(measure_each(
                    batches,
                    |raw| input(raw),
                    |input| {
                        black_box(module.call_with(input));
                    },
                ));
                times[3].push(measure_each(
                    batches,
                    |raw| input(raw),
                    |input| {
                        let mut encoded = Vec::new();
                        input.encode(&mut encoded, 22).expect("encodes");
                        black_box(encoded);
                    },
                ));
                times[2].push(measure(|| {
                    for values in &events {
                        black_box(zstd.compress(values).expect("compresses"));
                    }
                }));
            }
            let [native, module, zstd, codec] = times.map(median);
            eprintln!(
                "level {level}, group-by {name:<13}: native {:6.1}, engine {:6.1}, ratio {:.3}; engine's input codec alone {:6.1}; plain zstd {:6.1}",
                rate(native),
                rate(module),
                native.as_secs_f64() / module.as_secs_f64(),
                rate(codec),
                rate(zstd),
            );
        }
    }
}

fn main() {
    let batches: Vec<Vec<u8>> = (0..BATCHES)
        .map(|seed| json_batch(seed, BATCH_BYTES, EVENT_BYTES, GROUPS))
        .collect();
    report(&batches);
    if std::env::args().any(|argument| argument == "--report") {
        return;
    }
    let mut criterion = Criterion::default()
        .with_measurement(CpuTime)
        .sample_size(20)
        .configure_from_args();
    let raw = &batches[0];
    let events = events_of(raw);
    let mut group = criterion.benchmark_group("pack");
    group.throughput(Throughput::Bytes(events.len() as u64));
    for level in ["1", "3"] {
        let params = [
            ("group-by", "/job_id"),
            ("event-time", "/time"),
            ("level", level),
        ];
        let mut native = packer(&params);
        let mut module = Module::load(&params, 22, None).expect("loads");
        let mut zstd =
            zstd::bulk::Compressor::new(level.parse().expect("a number")).expect("context");
        group.bench_function(format!("native/{level}"), |bench| {
            bench.iter(|| native.pack(raw, BASE_OFFSET, START_MS));
        });
        group.bench_function(format!("engine/{level}"), |bench| {
            bench.iter_batched(
                || input(raw),
                |input| module.call_with(input),
                BatchSize::LargeInput,
            )
        });
        group.bench_function(format!("zstd/{level}"), |bench| {
            bench.iter(|| zstd.compress(&events))
        });
    }
    group.finish();
    criterion.final_summary();
}
