//! The assertions that hold for every store, on a bucket: its rules, and storms of crashes.

use std::sync::Arc;

use bytes::Bytes;
use millpond_s3_sink::client::store::Bucket;
use millpond_s3_sink::encode::Format;
use millpond_sink::conformance::rules;
use millpond_sink::conformance::storm::{storm, storms};
use object_store::memory::InMemory as StoreInMemory;

use crate::harness::{InMemory, NDJSON, PARQUET, Real, files, folder};

#[tokio::test(start_paused = true)]
async fn the_rules_of_a_store_hold_in_memory() {
    rules::assert_rules(&InMemory::new(NDJSON)).await;
}

#[tokio::test]
async fn the_rules_of_a_store_hold_in_a_folder() {
    let root = tempfile::tempdir().expect("tempdir");
    let subject = Real {
        api: folder(root.path()),
        format: NDJSON,
        objects: || files(root.path()),
    };
    rules::assert_rules(&subject).await;
    let names = files(root.path()).into_iter().map(|(name, _)| name);
    let letters: Vec<String> = names
        .filter(|name| name.contains("/dead-letters/") && !name.ends_with("/gap.json"))
        .collect();
    let letter = |offset| format!("lake/p/_millpond/dead-letters/events/0/{offset}/0.json");
    assert_eq!(letters, [letter(1), letter(2), letter(3)]);
}

#[tokio::test]
async fn the_rules_of_a_store_hold_in_the_bucket_of_object_store() {
    let subject = Real {
        api: Arc::new(Bucket::new(StoreInMemory::new(), "bucket".into())),
        format: NDJSON,
        objects: Vec::<(String, Bytes)>::new,
    };
    rules::assert_rules(&subject).await;
}

async fn one(seed: u64, format: Format, packed: bool) {
    let folder = tempfile::tempdir().expect("tempdir");
    let subject = InMemory::new(format);
    // Without the packer, the lines are what looks into an event.
    let poison = packed || matches!(format, Format::Ndjson { .. });
    storm(seed, &subject, folder.path(), packed, poison).await;
    // A replay, and a rival that was fenced, wrote the same names and bytes.
    assert_eq!(subject.bucket.changed(), [""; 0], "seed {seed}");
}

#[test]
fn packed_lines_survive_a_storm_once_each() {
    storms(30, async |seed| one(seed, NDJSON, true).await);
}

#[test]
fn plain_lines_survive_a_storm_once_each() {
    storms(15, async |seed| one(seed, NDJSON, false).await);
}

#[test]
fn packed_columns_survive_a_storm_once_each() {
    storms(12, async |seed| one(seed, PARQUET, true).await);
}

#[test]
fn plain_columns_survive_a_storm_once_each() {
    storms(6, async |seed| one(seed, PARQUET, false).await);
}

/// Processes on a disk: real renames, real locks.
#[test]
fn files_survive_crashes_once_each() {
    storms(6, async |seed| {
        let root = tempfile::tempdir().expect("tempdir");
        let letters = tempfile::tempdir().expect("tempdir");
        let subject = Real {
            api: folder(root.path()),
            format: NDJSON,
            objects: || files(root.path()),
        };
        storm(seed, &subject, letters.path(), true, true).await;
    });
}
