//! A topic that is lost while a plan is under way, and made anew: every event is in the bucket once.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use millpond_connector::metrics::Metrics;
use millpond_s3_sink::client::memory::MemoryBucket;
use millpond_s3_sink::client::{ApiFailure, Found, ObjectApi, Version, Wanted};
use millpond_s3_sink::encode::Format;
use millpond_sink::claim::{Claim, StaleWrites};
use millpond_sink::conformance::events::check;
use millpond_sink::conformance::lost_topic::{drain, nothing_is_left_twice, sent};
use millpond_sink::conformance::storm::storms;
use millpond_sink::conformance::wait::until;
use tokio::time::sleep;

use crate::harness::{InMemory, MAX_OBJECT_BYTES, NDJSON, PARQUET, Real, files, folder, open};
use crate::reader::read_events;

async fn one(seed: u64, format: Format, packed: bool) {
    let letters = tempfile::tempdir().expect("tempdir");
    let fresh = || InMemory::new(format);
    let tried = nothing_is_left_twice(seed, fresh, packed, letters.path()).await;
    assert!(tried.open > 5, "{tried:?}");
}

#[test]
fn objects_of_a_plan_whose_topic_is_lost_are_removed() {
    storms(1, async |seed| {
        one(seed, NDJSON, true).await;
        one(seed, NDJSON, false).await;
        one(seed, PARQUET, true).await;
    });
}

/// The lock of the folder, real lists and removals.
#[test]
fn files_of_a_plan_whose_topic_is_lost_are_removed() {
    storms(1, async |seed| {
        let letters = tempfile::tempdir().expect("tempdir");
        let root = tempfile::tempdir().expect("tempdir");
        let api = folder(root.path());
        let (first, _) = sent("first", seed, 6);
        let store = open(api.clone(), NDJSON, MAX_OBJECT_BYTES, Arc::default()).await;
        let dying = {
            let letters = letters.path().to_owned();
            tokio::spawn(async move { drain("a", store, &first, true, &letters).await })
        };
        until("some objects are there", || objects(root.path()) >= 3).await;
        dying.abort();
        let _ = dying.await;
        let (again, workload) = sent("again", seed, 12);
        let subject = Real {
            api,
            format: NDJSON,
            objects: || files(root.path()),
        };
        let store = millpond_sink::conformance::Subject::open(&subject, Arc::default()).await;
        let drained = drain("b", store, &again, true, letters.path()).await;
        drained.expect("drains");
        check(&workload, &read_events(&files(root.path())), &[]);
    });
}

/// Objects so far, without a look into files that are being written.
fn objects(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let entries = entries.flatten().map(|entry| entry.path());
    entries
        .map(|path| match path.is_dir() {
            true => objects(&path),
            false => usize::from(path.extension().is_some_and(|ending| ending == "zst")),
        })
        .sum()
}

/// A bucket as one process sees it that is paused before its first object is signed.
struct Paused {
    bucket: MemoryBucket,
    time: Duration,
    way: Duration,
    is_paused: Arc<AtomicBool>,
}

#[async_trait]
impl ObjectApi for Paused {
    fn name(&self) -> &str {
        self.bucket.name()
    }

    async fn get(&self, name: &str) -> Result<Option<Found>, ApiFailure> {
        self.bucket.get(name).await
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), ApiFailure> {
        self.bucket.put(name, bytes).await
    }

    async fn put_under(
        &self,
        name: &str,
        bytes: Bytes,
        claim: &Arc<Claim>,
    ) -> Result<(), ApiFailure> {
        if !self.is_paused.swap(true, Ordering::Relaxed) {
            sleep(self.time).await;
        }
        if !claim.is_fresh() {
            return Err(ApiFailure::unsent());
        }
        sleep(self.way).await;
        self.bucket.put(name, bytes).await
    }

    fn stale_writes(&self) -> StaleWrites {
        self.bucket.stale_writes()
    }

    async fn list(&self, folder: &str, is_wanted: &Wanted<'_>) -> Result<Vec<String>, ApiFailure> {
        self.bucket.list(folder, is_wanted).await
    }

    async fn delete(&self, name: &str) -> Result<(), ApiFailure> {
        self.bucket.delete(name).await
    }

    async fn create(&self, name: &str, bytes: Bytes) -> Result<Option<Version>, ApiFailure> {
        self.bucket.create(name, bytes).await
    }

    async fn replace(
        &self,
        name: &str,
        bytes: Bytes,
        seen: &Version,
    ) -> Result<Option<Version>, ApiFailure> {
        self.bucket.replace(name, bytes, seen).await
    }
}

#[test]
fn a_writer_that_wakes_puts_nothing_twice_whenever_it_does() {
    let instant = Duration::from_millis(1);
    storms(3, async |seed| {
        let bucket = MemoryBucket::default();
        let StaleWrites {
            look_again,
            arrives_within,
        } = bucket.stale_writes();
        let end = look_again + arrives_within;
        for wake in [
            instant,
            look_again - instant,
            look_again + instant,
            end + instant,
            end * 9,
        ] {
            let letters = tempfile::tempdir().expect("tempdir");
            let bucket = MemoryBucket::default();
            let is_paused = Arc::new(AtomicBool::new(false));
            let paused = Arc::new(Paused {
                bucket: bucket.clone(),
                time: wake,
                way: arrives_within - instant,
                is_paused: is_paused.clone(),
            });
            let store = open(
                paused,
                NDJSON,
                MAX_OBJECT_BYTES,
                Arc::new(Metrics::default()),
            )
            .await;
            let (first, _) = sent("first", seed, 6);
            let process = {
                let letters = letters.path().to_owned();
                tokio::spawn(async move { drain("a", store, &first, true, &letters).await })
            };
            until("it is paused", || is_paused.load(Ordering::Relaxed)).await;
            let (again, workload) = sent("again", seed, 12);
            let api = Arc::new(bucket.clone());
            let store = open(api, NDJSON, MAX_OBJECT_BYTES, Arc::new(Metrics::default())).await;
            let drained = drain("b", store, &again, true, letters.path()).await;
            drained.expect("drains");
            let ended = process.await.expect("no panic");
            assert!(ended.is_err_and(|error| error.is_fenced()), "seed {seed}");
            check(&workload, &read_events(&bucket.objects()), &[]);
        }
    });
}
