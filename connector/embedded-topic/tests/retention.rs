//! What is removed, what never is, and what appends do when there is no room.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond_connector::topic::{Offset, Topic, TopicError};
use millpond_embedded_topic::{EmbeddedTopic, Retention, TopicConfig, conformance};

const PATIENCE: Duration = Duration::from_secs(20);

fn open(dir: &std::path::Path, retention: Retention) -> EmbeddedTopic {
    let mut config = TopicConfig::new(dir, "events", 2);
    config.retention = retention;
    EmbeddedTopic::open(config).expect("opens")
}

fn bytes(first: u64) -> u64 {
    conformance::batch(0, first, 10).raw.len() as u64
}

async fn append(topic: &EmbeddedTopic, first: u64) {
    let batch = conformance::batch(0, first, 10);
    let range = topic.append(0, batch).await.expect("stored");
    assert_eq!(range, first..first + 10);
}

async fn earliest(topic: &EmbeddedTopic) -> Offset {
    topic.bounds(0).await.expect("known").earliest
}

async fn until_earliest(topic: &EmbeddedTopic, wanted: Offset) {
    let deadline = Instant::now() + PATIENCE;
    while earliest(topic).await != wanted {
        assert!(Instant::now() < deadline, "nothing removed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn released_by_all_is_removed_at_once_and_offsets_go_on_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let topic = open(dir.path(), Retention::default());
    topic.register_consumer("sink").expect("open");
    for first in [0, 10, 20] {
        append(&topic, first).await;
    }
    topic.release(0, "sink", 15).await.expect("released");
    until_earliest(&topic, 10).await;
    let gone = topic.reader(0, 9, &[]).await.err();
    assert!(
        matches!(
            gone,
            Some(TopicError::OffsetOutOfRange { earliest: 10, .. })
        ),
        "{gone:?}"
    );
    topic.release(0, "sink", 30).await.expect("released");
    until_earliest(&topic, 30).await;
    assert_eq!(topic.stored_bytes(), 0);
    topic.close();

    let topic = open(dir.path(), Retention::default());
    let bounds = topic.bounds(0).await.expect("known");
    assert_eq!((bounds.earliest, bounds.end), (30, 30));
    assert_eq!(topic.consumers(0), [("sink".to_owned(), 30)]);
    append(&topic, 30).await;
}

#[tokio::test]
async fn without_a_consumer_or_with_a_slow_one_nothing_is_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    let topic = open(dir.path(), Retention::default());
    append(&topic, 0).await;
    topic.close();
    let topic = open(dir.path(), Retention::default());
    append(&topic, 10).await;
    assert_eq!(earliest(&topic).await, 0, "no consumer yet");
    assert_eq!(topic.released().await.expect("open")[0], None);

    topic.register_consumer("slow").expect("open");
    topic.release(0, "fast", 20).await.expect("released");
    topic.close();
    let topic = open(dir.path(), Retention::default());
    append(&topic, 20).await;
    assert_eq!(earliest(&topic).await, 0, "`slow` has released nothing");
    let names: Vec<_> = topic.consumers(0).into_iter().map(|c| c.0).collect();
    assert_eq!(names, ["fast", "slow"], "both survive restarts");
    let released = topic.released().await.expect("open");
    assert_eq!(released[0], Some(0), "the slowest counts");

    topic.forget_consumer("slow").expect("open");
    until_earliest(&topic, 20).await;
    let released = topic.released().await.expect("open");
    assert_eq!(released[0], Some(20));
}

#[tokio::test]
async fn what_is_kept_for_its_age_goes_when_it_is_old_or_room_is_needed() {
    let dir = tempfile::tempdir().expect("a directory");
    let retention = Retention {
        max_bytes: bytes(0) + bytes(10) + bytes(20) + 20,
        max_age: Some(Duration::from_secs(3_600)),
    };
    let topic = open(dir.path(), retention);
    for first in [0, 10] {
        append(&topic, first).await;
    }
    topic.release(0, "sink", 20).await.expect("released");
    append(&topic, 20).await;
    assert_eq!(earliest(&topic).await, 0, "kept for an hour");
    append(&topic, 30).await;
    let kept = earliest(&topic).await;
    assert!((10..=20).contains(&kept), "made room, to {kept}");
    topic.release(0, "sink", 40).await.expect("released");
    topic.close();

    let topic = open(
        dir.path(),
        Retention {
            max_age: Some(Duration::ZERO),
            ..retention
        },
    );
    until_earliest(&topic, 40).await;
}

#[tokio::test]
async fn a_full_topic_holds_appends_until_a_consumer_releases() {
    let dir = tempfile::tempdir().expect("a directory");
    let topic = Arc::new(open(
        dir.path(),
        Retention {
            max_bytes: bytes(0) + bytes(10) + bytes(20) - 1,
            max_age: None,
        },
    ));
    topic.register_consumer("sink").expect("open");
    append(&topic, 0).await;
    append(&topic, 10).await;
    let writer = Arc::clone(&topic);
    let mut waiting = tokio::spawn(async move { append(&writer, 20).await });
    let early = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(early.is_err(), "the third batch has no room");
    assert_eq!(topic.bounds(0).await.expect("known").end, 20);

    // Part of a batch frees nothing.
    topic.release(0, "sink", 9).await.expect("released");
    let early = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(early.is_err(), "still no room");

    topic.release(0, "sink", 10).await.expect("released");
    let stored = tokio::time::timeout(PATIENCE, waiting).await;
    stored.expect("woken").expect("stored");
    assert_eq!(topic.bounds(0).await.expect("known").end, 30);
}

#[tokio::test]
async fn closing_answers_appends_that_wait_for_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let topic = Arc::new(open(
        dir.path(),
        Retention {
            max_bytes: 10,
            max_age: None,
        },
    ));
    // Larger than the limit: taken alone, or it could never be.
    append(&topic, 0).await;
    let writer = Arc::clone(&topic);
    let waiting = tokio::spawn(async move { writer.append(0, conformance::batch(0, 10, 1)).await });
    let reading = topic.reader(0, 10, &[]).await.expect("opens");
    let mut reading = reading;
    let reading = tokio::spawn(async move { reading.next(PATIENCE).await.map(|_| ()) });
    // Lets both begin to wait; closing first would have to give the same answers.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let closing = Arc::clone(&topic);
    tokio::task::spawn_blocking(move || closing.close())
        .await
        .expect("closes");
    let answer = waiting.await.expect("no panic");
    assert!(matches!(answer, Err(TopicError::Closed(_))), "{answer:?}");
    let answer = reading.await.expect("no panic");
    assert!(matches!(answer, Err(TopicError::Closed(_))), "{answer:?}");
    let late = topic.append(0, conformance::batch(0, 10, 1)).await;
    assert!(matches!(late, Err(TopicError::Closed(_))), "{late:?}");
}

#[tokio::test]
async fn the_file_stays_bounded_while_batches_flow_through() {
    let dir = tempfile::tempdir().expect("a directory");
    let topic = open(dir.path(), Retention::default());
    topic.register_consumer("sink").expect("open");
    let payload = vec![b'x'; 1_000];
    let batch = || {
        let mut builder = millpond_format::record::BatchBuilder::new();
        for _ in 0..256 {
            builder.push(None, &payload, 0);
        }
        millpond_connector::topic::StoredBatch {
            record_count: builder.record_count(),
            base_timestamp_ms: 0,
            raw: builder.finish().into(),
        }
    };
    let mut appended = 0;
    for _ in 0..400 {
        let range = topic.append(1, batch()).await.expect("stored");
        appended += 256 * 1_000;
        topic.release(1, "sink", range.end).await.expect("released");
    }
    let file = std::fs::metadata(dir.path().join("topic.redb")).expect("there");
    assert!(
        file.len() < appended / 2,
        "{appended} bytes went through, the file has {}",
        file.len()
    );
}
