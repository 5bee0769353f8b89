//! Puts a sink together from fakes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use millpond_connector::metrics::Metrics;
use millpond_connector::topic::Transform;
use millpond_s3_sink::client::ObjectApi;
use millpond_s3_sink::client::Verdict;
use millpond_s3_sink::client::directory::Directory;
use millpond_s3_sink::client::memory::{Fault, MemoryBucket};
use millpond_s3_sink::encode::Format;
use millpond_s3_sink::store::ObjectSettings;
use millpond_sink::conformance::storm::shared;
use millpond_sink::conformance::topic::{self, KeyValue, MemoryTopic};
use millpond_sink::conformance::{PIPELINE, Subject, draining};
use millpond_sink::partition;
use millpond_sink::store::{OpenStore, Place, Store};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::reader::read_events;

pub const NDJSON: Format = Format::Ndjson { level: 1 };
pub const PARQUET: Format = Format::Parquet { level: 1 };

/// Small, so that plans make several objects of an hour.
pub const MAX_OBJECT_BYTES: u64 = 4_096;

/// The store of one process.
pub async fn open(
    objects: Arc<dyn ObjectApi>,
    format: Format,
    max_object_bytes: u64,
    metrics: Arc<Metrics>,
) -> Arc<dyn Store> {
    let settings = Box::new(ObjectSettings {
        objects,
        prefix: "lake".into(),
        format,
        max_object_bytes,
    });
    let place = Place {
        pipeline: PIPELINE.into(),
        topic: topic::NAME.into(),
        metrics,
    };
    settings.open(place).await.expect("opens")
}

/// A bucket in memory.
pub struct InMemory {
    pub bucket: MemoryBucket,
    pub format: Format,
}

impl InMemory {
    pub fn new(format: Format) -> Self {
        Self {
            bucket: MemoryBucket::default(),
            format,
        }
    }
}

#[async_trait]
impl Subject for InMemory {
    async fn open(&self, metrics: Arc<Metrics>) -> Arc<dyn Store> {
        let bucket = Arc::new(self.bucket.clone());
        open(bucket, self.format, MAX_OBJECT_BYTES, metrics).await
    }

    fn inject(&self, seed: u64, percent: u32) {
        let mut random = SmallRng::seed_from_u64(seed);
        let faults = (0..400).map(|_| {
            let one = match random.random_range(0..4) {
                0 => Fault::Fail(Verdict::Throttled),
                1 => Fault::Fail(Verdict::Transient),
                2 => Fault::Fail(Verdict::Expired),
                _ => Fault::LoseAnswer,
            };
            (random.random_range(0..100) < percent).then_some(one)
        });
        self.bucket.inject(faults.collect::<Vec<_>>());
    }

    async fn events(&self) -> BTreeMap<String, Vec<Vec<u8>>> {
        read_events(&self.bucket.objects())
    }
}

/// Any bucket or folder, of which `objects` tells what is in it; nothing fails there.
pub struct Real<F> {
    pub api: Arc<dyn ObjectApi>,
    pub format: Format,
    pub objects: F,
}

#[async_trait]
impl<F: Fn() -> Vec<(String, Bytes)> + Send + Sync> Subject for Real<F> {
    async fn open(&self, metrics: Arc<Metrics>) -> Arc<dyn Store> {
        open(self.api.clone(), self.format, MAX_OBJECT_BYTES, metrics).await
    }

    fn inject(&self, _: u64, _: u32) {}

    async fn events(&self) -> BTreeMap<String, Vec<Vec<u8>>> {
        read_events(&(self.objects)())
    }
}

/// A folder as a bucket.
pub fn folder(path: &Path) -> Arc<dyn ObjectApi> {
    Arc::new(Directory::open(path).expect("opens"))
}

/// Every file below a folder, as somebody sees it who looks at the disk.
pub fn files(root: &Path) -> Vec<(String, Bytes)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(root).expect("below").to_str();
            let bytes = std::fs::read(&path).expect("readable");
            found.push((name.expect("text").to_owned(), bytes.into()));
        }
    }
    found.sort();
    found
}

/// Runs one process over what is in the topic, until it is drained.
pub async fn run(
    api: Arc<dyn ObjectApi>,
    (format, max_object_bytes): (Format, u64),
    topic: &MemoryTopic,
    transforms: Vec<Transform>,
    folder: &Path,
) -> Arc<Metrics> {
    let metrics = Arc::new(Metrics::default());
    let store = open(api, format, max_object_bytes, metrics.clone()).await;
    let process = shared("o", store, metrics.clone(), topic, transforms, folder);
    let ran = partition::run(Arc::new(process), 0, draining()).await;
    ran.unwrap_or_else(|error| panic!("{error}"));
    metrics
}

/// A record with an origin.
pub fn record(ordinal: u64, arrival_ms: i64, key: &str, value: &[u8]) -> KeyValue {
    let sequence = 4_959_033 + ordinal;
    let key = format!(
        "mp1/events/shardId-000000000003/{sequence}/0/{arrival_ms}/1763885999000.{ordinal}/{key}"
    );
    (key, value.to_vec())
}
