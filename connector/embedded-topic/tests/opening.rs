//! Opening a directory that is not what the configuration says.

use std::path::Path;

use millpond_connector::topic::{Topic, TopicError};
use millpond_embedded_topic::{EmbeddedTopic, TopicConfig, conformance};

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
