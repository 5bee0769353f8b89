//! Appending and reading 1 MiB batches of 550-byte records, durable, four partitions.

#![expect(missing_docs, reason = "criterion's macro makes a public function")]
#![expect(clippy::print_stdout, reason = "CPU time is not criterion's business")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millpond_connector::topic::{StoredBatch, Topic};
use millpond_embedded_topic::{EmbeddedTopic, TopicConfig};
use millpond_format::record::BatchBuilder;

const PARTITIONS: u32 = 4;
const RECORD_BYTES: usize = 550;
const BATCH_BYTES: usize = 1 << 20;

fn batch() -> StoredBatch {
    let mut builder = BatchBuilder::new();
    let mut seed = 1u64;
    while builder.raw_len() < BATCH_BYTES {
        let value: Vec<u8> = (0..RECORD_BYTES)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                b'a' + (seed >> 60) as u8
            })
            .collect();
        builder.push(Some(b"key"), &value, 0);
    }
    StoredBatch {
        record_count: builder.record_count(),
        base_timestamp_ms: 0,
        raw: Bytes::from(builder.finish()),
    }
}

/// One batch through every partition: appended, read, released.
async fn round(topic: &Arc<EmbeddedTopic>, batch: &StoredBatch, count: u64) {
    let mut tasks = Vec::new();
    for partition in 0..PARTITIONS {
        let (topic, batch) = (Arc::clone(topic), batch.clone());
        tasks.push(tokio::spawn(async move {
            let from = topic.bounds(partition).await.expect("known").end;
            let writer = Arc::clone(&topic);
            let writing = tokio::spawn(async move {
                for _ in 0..count {
                    writer
                        .append(partition, batch.clone())
                        .await
                        .expect("stored");
                }
            });
            let mut reader = topic.reader(partition, from, &[]).await.expect("opens");
            for _ in 0..count {
                let chunk = reader.next(Duration::from_secs(60)).await;
                let chunk = chunk.expect("readable").expect("in time");
                topic
                    .release(partition, "sink", chunk.offsets.end)
                    .await
                    .expect("released");
            }
            writing.await.expect("no panic");
        }));
    }
    for task in tasks {
        task.await.expect("no panic");
    }
}

fn bench(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    let config = TopicConfig::new(dir.path(), "bench", PARTITIONS);
    let topic = Arc::new(EmbeddedTopic::open(config).expect("opens"));
    let batch = batch();
    let mut group = c.benchmark_group("topic");
    group.sample_size(10);
    group.measurement_time(Duration::from_secs(10));
    group.throughput(Throughput::Bytes(
        batch.raw.len() as u64 * u64::from(PARTITIONS),
    ));
    group.bench_function("append, read and release 1 MiB batches", |b| {
        b.iter_custom(|count| {
            let started = Instant::now();
            runtime.block_on(round(&topic, &batch, count));
            started.elapsed()
        });
    });
    group.finish();
    let rounds = 256;
    let cpu_before = cpu_seconds();
    runtime.block_on(round(&topic, &batch, rounds));
    let gigabytes = (batch.raw.len() as u64 * u64::from(PARTITIONS) * rounds) as f64 / 1e9;
    let cpu = (cpu_seconds() - cpu_before) / gigabytes;
    println!("CPU: {cpu:.2} s per GB appended, read and released ({gigabytes:.2} GB)");
}

/// User and system time of this process; Linux counts it in hundredths of a second.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    ticks.filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0
}

criterion_group!(benches, bench);
criterion_main!(benches);
