//! Opening a directory that is not what the configuration says.

#![expect(clippy::print_stdout, reason = "seed and tally of the random test")]

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use millpond_connector::topic::{Topic, TopicError};
use millpond_embedded_topic::{EmbeddedTopic, TopicConfig, conformance};
use rand::{Rng, SeedableRng, rngs::StdRng};

fn refusal(config: TopicConfig) -> (String, bool) {
    match EmbeddedTopic::open(config) {
        Err(TopicError::Storage {
            context, retryable, ..
        }) => (context, retryable),
        other => panic!("opened: {other:?}"),
    }
}

async fn filled(dir: &Path, batches: u64) {
    let topic = EmbeddedTopic::open(TopicConfig::new(dir, "events", 2)).expect("opens");
    for n in 0..batches {
        for partition in [0, 1] {
            let batch = conformance::batch(partition, n * 20, 20);
            topic.append(partition, batch).await.expect("stored");
        }
    }
    topic.close();
}

#[tokio::test]
async fn a_clean_close_keeps_everything() {
    let dir = tempfile::tempdir().expect("a directory");
    filled(dir.path(), 5).await;
    let topic = EmbeddedTopic::open(TopicConfig::new(dir.path(), "events", 2)).expect("opens");
    for partition in [0, 1] {
        let mut reader = topic.reader(partition, 0, &[]).await.expect("opens");
        conformance::read_to(&mut *reader, partition, 0, 100).await;
    }
}

#[tokio::test]
async fn another_count_name_or_owner_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    filled(dir.path(), 1).await;
    let file = dir.path().join("topic.redb").display().to_string();

    let (text, retryable) = refusal(TopicConfig::new(dir.path(), "events", 3));
    assert!(
        text.contains(&file) && text.contains("has 2 partitions"),
        "{text}"
    );
    assert!(!retryable);
    let (text, _) = refusal(TopicConfig::new(dir.path(), "other", 2));
    assert!(text.contains("holds topic `events`, not `other`"), "{text}");
    let (text, _) = refusal(TopicConfig::new(dir.path(), "events", 0));
    assert!(text.contains("at least 1 partition"), "{text}");

    let _open = EmbeddedTopic::open(TopicConfig::new(dir.path(), "events", 2)).expect("opens");
    let (text, retryable) = refusal(TopicConfig::new(dir.path(), "events", 2));
    assert!(text.contains(&file) && text.contains("in use"), "{text}");
    assert!(retryable);
}

#[tokio::test]
async fn a_file_that_is_no_store_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("topic.redb");
    let whole = {
        let other = tempfile::tempdir().expect("a directory");
        filled(other.path(), 20).await;
        std::fs::read(other.path().join("topic.redb")).expect("readable")
    };
    let mut zeroed = whole.clone();
    zeroed[..4096].fill(0);
    let mut scrambled = whole.clone();
    scrambled[64..4096].fill(0xA5);
    let cases: [(&str, &[u8]); 6] = [
        ("text", b"this is a text file, and not a short one at all\n"),
        ("one byte", b"x"),
        ("cut in half", &whole[..whole.len() / 2]),
        ("cut to its header", &whole[..4096]),
        ("zeroed header", &zeroed),
        ("scrambled header", &scrambled),
    ];
    for (what, bytes) in cases {
        std::fs::write(&file, bytes).expect("written");
        let (text, retryable) = refusal(TopicConfig::new(dir.path(), "events", 2));
        assert!(
            text.contains(&file.display().to_string()) && text.contains("move the file away"),
            "{what}: {text}"
        );
        assert!(!retryable, "{what}");
        let now = std::fs::read(&file).expect("still there");
        assert_eq!(now.len(), bytes.len(), "{what}: the file is left alone");
    }
}

/// A flipped bit anywhere is refused at opening, reported at its place, or in bytes that
/// nothing uses; a wrong record never comes out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bits_are_reported_not_invented() {
    let seed = 20_260_101;
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let master = tempfile::tempdir().expect("a directory");
    filled(master.path(), 40).await;
    let whole = std::fs::read(master.path().join("topic.redb")).expect("readable");
    let (mut refused, mut reported, mut unused) = (0, 0, 0);
    for round in 0..150 {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("topic.redb");
        std::fs::write(&path, &whole).expect("written");
        let at = rng.random_range(0..whole.len());
        let bit = rng.random_range(0..8);
        let file = OpenOptions::new().write(true).open(&path).expect("opens");
        file.write_all_at(&[whole[at] ^ (1 << bit)], at as u64)
            .expect("written");
        drop(file);
        let topic = match EmbeddedTopic::open(TopicConfig::new(dir.path(), "events", 2)) {
            Ok(topic) => topic,
            Err(TopicError::Storage { context, .. }) => {
                assert!(context.contains("topic.redb"), "{context}");
                refused += 1;
                continue;
            }
            Err(other) => panic!("round {round}, byte {at}: {other}"),
        };
        let mut damaged = false;
        for partition in [0, 1] {
            damaged |= !reads_back(&topic, partition, 800).await;
        }
        if damaged {
            reported += 1;
        } else {
            unused += 1;
        }
    }
    println!("{refused} refused, {reported} reported, {unused} in unused bytes");
    assert!(reported > 0, "no flip hit a batch");
}

/// True when all of a partition was there and right, false when damage was reported.
async fn reads_back(topic: &EmbeddedTopic, partition: u32, end: u64) -> bool {
    let bounds = topic.bounds(partition).await.expect("known");
    assert_eq!((bounds.earliest, bounds.end), (0, end));
    let mut reader = topic.reader(partition, 0, &[]).await.expect("opens");
    let mut position = 0;
    while position < end {
        match reader.next(std::time::Duration::from_secs(20)).await {
            Ok(chunk) => {
                let chunk = chunk.expect("data or an error");
                assert_eq!(chunk.offsets.start, position);
                for (offset, record) in chunk.offsets.clone().zip(&chunk.records) {
                    assert_eq!(record.value, conformance::value(partition, offset));
                }
                position = chunk.offsets.end;
            }
            Err(TopicError::Damaged { offset, .. }) => {
                assert_eq!(offset, position);
                return false;
            }
            Err(other) => panic!("{other}"),
        }
    }
    true
}
