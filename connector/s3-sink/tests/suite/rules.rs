//! What the store relies on in a bucket: the fake, a folder, `object_store`'s own bucket in memory and
//! the wire pass the same assertions.

use std::sync::Arc;

use bytes::Bytes;
use millpond_s3_sink::client::memory::MemoryBucket;
use millpond_s3_sink::client::store::Bucket;
use millpond_s3_sink::client::{ObjectApi, Verdict, Version};
use object_store::memory::InMemory;
use tokio::task::JoinSet;

use crate::harness::{files, folder};

const LETTERS: &[u8] = b"letters";

/// Goes through every rule on a bucket where nothing is yet.
pub async fn assert_rules(api: &dyn ObjectApi) {
    let bytes = Bytes::from_static;
    let put = async |name: &str, text: &'static [u8]| api.put(name, bytes(text)).await;
    let create = async |name: &str, text: &'static [u8]| {
        api.create(name, bytes(text)).await.expect("answered")
    };
    let replace = async |name: &str, text: &'static [u8], seen: &Version| {
        api.replace(name, bytes(text), seen)
            .await
            .expect("answered")
    };
    let content = async |name: &str| {
        let found = api.get(name).await.expect("answered");
        found.map(|found| (found.bytes, found.version))
    };
    // Names with what must be escaped somewhere on the way, or must not be escaped twice.
    let odd = "a/group=x%2Fy%20%C3%BC~1/date=2025-11-23/f.json";
    assert_eq!(content(odd).await, None);
    put(odd, LETTERS).await.expect("put");
    put(odd, b"other").await.expect("put again");
    let (found, version) = content(odd).await.expect("there");
    assert_eq!(found, bytes(b"other"));

    assert_eq!(create(odd, LETTERS).await, None, "there is one");
    assert_eq!(content(odd).await, Some((bytes(b"other"), version.clone())));
    let made = create("a/new.json", LETTERS).await.expect("created");
    let (found, seen) = content("a/new.json").await.expect("there");
    assert_eq!(
        (found, &seen),
        (bytes(LETTERS), &made),
        "the version that was answered"
    );

    assert_eq!(
        replace("a/none.json", b"x", &seen).await,
        None,
        "nothing there"
    );
    assert_eq!(
        replace("none/none.json", b"x", &seen).await,
        None,
        "no folder"
    );
    assert_eq!(
        replace("a/new.json", b"x", &version).await,
        None,
        "another version"
    );
    assert_eq!(content("a/none.json").await, None);
    let next = replace("a/new.json", b"second", &seen)
        .await
        .expect("replaced");
    assert_ne!(next, seen);
    assert_eq!(replace("a/new.json", b"third", &seen).await, None, "stale");
    let current = content("a/new.json").await;
    assert_eq!(current, Some((bytes(b"second"), next.clone())));
    assert!(replace("a/new.json", b"third", &next).await.is_some());

    put("a/empty", b"").await.expect("put");
    assert_eq!(
        content("a/empty").await.map(|(found, _)| found),
        Some(Bytes::new())
    );
    let large = Bytes::from(vec![7; (4 << 20) + 1]);
    api.put("a/large", large).await.expect("put");
    let refused = api.get("a/large").await.expect_err("over the limit");
    assert!(matches!(refused.verdict, Verdict::Fatal(_)), "{refused}");
}

/// Writers that count up one object, each from what it read: a count that is lost was overwritten.
async fn assert_no_count_is_lost(api: Arc<dyn ObjectApi>) {
    const WRITERS: usize = 8;
    const COUNTS: usize = 20;
    let number = |bytes: &Bytes| -> usize {
        let text = std::str::from_utf8(bytes).expect("text");
        text.parse().expect("a number")
    };
    let created = api.create("a/count", Bytes::from_static(b"0")).await;
    assert!(created.expect("answered").is_some());
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let api = api.clone();
        writers.spawn(async move {
            let mut counted = 0;
            while counted < COUNTS {
                let found = api.get("a/count").await.expect("answered").expect("there");
                let next = Bytes::from((number(&found.bytes) + 1).to_string());
                let replaced = api.replace("a/count", next, &found.version).await;
                counted += usize::from(replaced.expect("answered").is_some());
            }
        });
    }
    writers.join_all().await;
    let found = api.get("a/count").await.expect("answered").expect("there");
    assert_eq!(number(&found.bytes), WRITERS * COUNTS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_at_the_same_time_do_not_overwrite_each_other() {
    let root = tempfile::tempdir().expect("tempdir");
    assert_no_count_is_lost(folder(root.path())).await;
    let bucket = Bucket::new(InMemory::new(), "bucket".into());
    assert_no_count_is_lost(Arc::new(bucket)).await;
    assert_no_count_is_lost(Arc::new(MemoryBucket::default())).await;
}

#[tokio::test]
async fn the_bucket_of_object_store_keeps_the_rules() {
    assert_rules(&Bucket::new(InMemory::new(), "bucket".into())).await;
}

#[tokio::test]
async fn a_folder_keeps_the_rules() {
    let root = tempfile::tempdir().expect("tempdir");
    assert_rules(&*folder(root.path())).await;
    let names: Vec<String> = files(root.path())
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let expected = [
        "a/empty",
        "a/group=x%2Fy%20%C3%BC~1/date=2025-11-23/f.json",
        "a/large",
        "a/new.json",
    ];
    assert_eq!(names, expected, "as they are called, and nothing left over");
}

#[tokio::test]
async fn the_fake_keeps_the_rules() {
    assert_rules(&MemoryBucket::default()).await;
}
