//! The topic against a real cluster of one SC and one SPU.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use millpond_connector::meta::TopicSettings;
use millpond_connector::topic::{PartitionReader, Topic, TopicError, Transform};
use millpond_embedded_topic::conformance;
use millpond_fluvio_topic::testing::LocalCluster;
use millpond_fluvio_topic::{Cluster, FluvioTopic, TopicOptions};

static TOPICS: AtomicU32 = AtomicU32::new(0);

struct Ground {
    local: LocalCluster,
    cluster: Cluster,
}

async fn ground() -> Ground {
    let local = LocalCluster::start().await.expect("a cluster");
    let cluster = Cluster::connect(&local.settings()).await.expect("connects");
    Ground { local, cluster }
}

async fn fresh(cluster: &Cluster, partitions: u32, options: TopicOptions) -> FluvioTopic {
    let name = format!("events-{}", TOPICS.fetch_add(1, Ordering::Relaxed));
    let mut settings = TopicSettings::named(name.clone());
    settings.partitions = Some(partitions);
    cluster.create_topic(&settings).await.expect("created");
    cluster.open_topic(&name, options).await.expect("opens")
}

async fn fill(topic: &dyn Topic, batches: u64, count: u32) -> u64 {
    for number in 0..batches {
        let first = number * u64::from(count);
        let range = topic.append(0, conformance::batch(0, first, count)).await;
        assert_eq!(range.expect("stored").start, first);
    }
    batches * u64::from(count)
}

async fn reader(topic: &dyn Topic, from: u64, uses: &[Transform]) -> Box<dyn PartitionReader> {
    topic.reader(0, from, uses).await.expect("opens")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_topic_on_a_cluster_conforms() {
    if !LocalCluster::is_available("the_topic_on_a_cluster_conforms") {
        return;
    }
    let ground = ground().await;
    conformance::all(|| async {
        Arc::new(fresh(&ground.cluster, 2, TopicOptions::default()).await) as Arc<dyn Topic>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_however_small_the_answers() {
    if !LocalCluster::is_available("nothing_is_lost_however_small_the_answers") {
        return;
    }
    let ground = ground().await;
    for max_bytes in [1, 500, 9_000, 100_000] {
        let options = TopicOptions {
            max_bytes,
            ..TopicOptions::default()
        };
        let topic = fresh(&ground.cluster, 1, options).await;
        let end = fill(&topic, 20, 100).await;
        let mut reader = reader(&topic, 0, &[]).await;
        conformance::read_to(&mut *reader, 0, 0, end).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_spu_that_comes_back_is_read_and_written_on() {
    if !LocalCluster::is_available("an_spu_that_comes_back_is_read_and_written_on") {
        return;
    }
    let mut ground = ground().await;
    let topic = fresh(&ground.cluster, 1, TopicOptions::default()).await;
    let end = fill(&topic, 5, 10).await;
    let mut reader = reader(&topic, 0, &[]).await;
    conformance::read_to(&mut *reader, 0, 0, end).await;
    ground.local.kill_spu().expect("killed");
    let waiting = reader.next(Duration::from_millis(200)).await;
    assert!(waiting.expect("patient").is_none());
    ground.local.restart_spu().await.expect("restarted");
    let mut attempts = 0;
    loop {
        // The first may meet the dead connection, and says so.
        match topic.append(0, conformance::batch(0, end, 10)).await {
            Ok(range) => break assert_eq!(range, end..end + 10),
            Err(TopicError::Storage {
                retryable: true, ..
            }) => attempts += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(attempts < 10, "append never succeeds");
    }
    conformance::read_to(&mut *reader, 0, end, end + 10).await;
    ground.local.restart_sc().await.expect("restarted");
    let found = ground.cluster.topic_description(topic.name()).await;
    assert_eq!(found.expect("reconnects").expect("kept").partitions, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn released_offsets_are_seen() {
    if !LocalCluster::is_available("released_offsets_are_seen") {
        return;
    }
    let ground = ground().await;
    let topic = fresh(&ground.cluster, 2, TopicOptions::default()).await;
    let end = fill(&topic, 3, 10).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        topic.release(0, "sink", end - 3).await.expect("stored");
        let offsets = ground.cluster.consumer_offsets().await.expect("listed");
        if let [only] = offsets.as_slice() {
            assert_eq!((only.topic.as_str(), only.partition), (topic.name(), 0));
            assert_eq!((only.consumer.as_str(), only.offset), ("sink", end - 3));
            break;
        }
        assert!(
            Instant::now() < deadline,
            "no offset is ever kept: {offsets:?}"
        );
    }
}

/// Reads with transforms to `end`: contiguous chunks; answers how many records came.
async fn count_to(reader: &mut dyn PartitionReader, end: u64) -> usize {
    let (mut position, mut records) = (0, 0);
    while position < end {
        let chunk = conformance::next_chunk(reader).await;
        assert_eq!(chunk.offsets.start, position, "chunks join up");
        position = chunk.offsets.end;
        records += chunk.records.len();
    }
    assert_eq!(position, end);
    records
}

fn step(uses: &str) -> Transform {
    Transform {
        uses: uses.into(),
        with: BTreeMap::new(),
    }
}

/// A module that hands back no record, or `copies` records of `bytes` zero bytes, for a batch.
fn module(copies: u32, bytes: u32) -> Vec<u8> {
    // Record: preamble (attributes, two varints), no key, value length and value, header count.
    let text = include_str!("records.wat")
        .replace("COPIES", &copies.to_string())
        .replace("BYTES", &bytes.to_string());
    wat::parse_str(text).expect("a module")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_smartmodules_drop_or_blow_up_is_accounted_for() {
    if !LocalCluster::is_available("what_smartmodules_drop_or_blow_up_is_accounted_for") {
        return;
    }
    let ground = ground().await;
    for (name, copies, bytes) in [("none", 0, 0), ("large", 3, 100_000)] {
        let wasm = module(copies, bytes);
        let uploaded = ground.cluster.upload_smartmodule(name, &wasm).await;
        uploaded.expect("uploaded");
        let found = ground.cluster.smartmodule(name).await.expect("listed");
        let found = found.expect("there");
        assert_eq!(found.digest, millpond_fluvio_topic::digest(&wasm));
    }
    let options = TopicOptions {
        max_bytes: 50_000,
        ..TopicOptions::default()
    };
    let topic = fresh(&ground.cluster, 1, options).await;
    let end = fill(&topic, 6, 10).await;
    let mut large = reader(&topic, 0, &[step("large")]).await;
    assert_eq!(count_to(&mut *large, end).await, 6 * 3);
    let mut none = reader(&topic, 0, &[step("none")]).await;
    assert_eq!(count_to(&mut *none, end).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_fails_is_an_error_and_stays_one() {
    if !LocalCluster::is_available("a_module_that_fails_is_an_error_and_stays_one") {
        return;
    }
    let ground = ground().await;
    let wasm = wat::parse_str(
        r#"(module
          (import "env" "copy_records" (func $copy_records (param i32 i32)))
          (memory (export "memory") 64)
          (func (export "alloc") (param i32) (result i32) (i32.const 65536))
          (func (export "array_map") (param i32 i32 i32) (result i32) unreachable))"#,
    );
    let wasm = wasm.expect("a module");
    let uploaded = ground.cluster.upload_smartmodule("traps", &wasm).await;
    uploaded.expect("uploaded");
    let topic = fresh(&ground.cluster, 1, TopicOptions::default()).await;
    fill(&topic, 2, 10).await;
    let mut reader = reader(&topic, 10, &[step("traps")]).await;
    for _ in 0..2 {
        let failed = reader.next(Duration::from_secs(20)).await.err();
        assert!(
            matches!(&failed, Some(TopicError::Transform { uses, offset: Some(10), .. }) if uses == "traps"),
            "{failed:?}"
        );
    }
}
