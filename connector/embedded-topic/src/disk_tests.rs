//! A disk that is full, or fails, and then works again: through the file hook, so that it
//! runs without privileges.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use millpond_connector::topic::{Topic, TopicError};

use crate::{EmbeddedTopic, TopicConfig, conformance};
use millpond_store_file::{DiskHook, FileOperation};

fn topic_on(dir: &std::path::Path, hook: DiskHook) -> EmbeddedTopic {
    let config = TopicConfig::new(dir, "events", 2);
    EmbeddedTopic::open_on(config, Some(hook)).expect("opens")
}

#[tokio::test]
async fn a_full_disk_is_said_and_survived() {
    const NO_SPACE: i32 = 28;
    let dir = tempfile::tempdir().expect("a directory");
    let room = Arc::new(AtomicU64::new(3 << 20));
    let limit = Arc::clone(&room);
    let topic = topic_on(
        dir.path(),
        Arc::new(move |operation| match operation {
            FileOperation::Write { end } if end > limit.load(Ordering::Relaxed) => {
                Err(io::Error::from_raw_os_error(NO_SPACE))
            }
            _ => Ok(()),
        }),
    );
    let mut ends = [0; 2];
    for round in 0..3 {
        let failure = loop {
            assert!(ends[0] < 1_000_000, "the disk never fills");
            let mut answers = Vec::new();
            for partition in [0, 1] {
                let first = ends[partition as usize];
                let batch = conformance::batch(partition, first, 2_000);
                answers.push(topic.append(partition, batch).await);
            }
            for (end, answer) in ends.iter_mut().zip(&answers) {
                if let Ok(range) = answer {
                    assert_eq!(range.start, *end);
                    *end = range.end;
                }
            }
            if let Some(Err(error)) = answers.into_iter().find(Result::is_err) {
                break error;
            }
        };
        let TopicError::Storage {
            context, retryable, ..
        } = &failure
        else {
            panic!("{failure}")
        };
        assert!(retryable, "{context}");
        let dir = dir.path().display().to_string();
        assert!(
            context.contains(&dir) && context.contains("free space"),
            "{context}"
        );
        // Everything acknowledged can be read while the disk is full.
        for partition in [0, 1] {
            let bounds = topic.bounds(partition).await.expect("known");
            assert_eq!(bounds.end, ends[partition as usize], "round {round}");
            let mut reader = topic.reader(partition, 0, &[]).await.expect("opens");
            conformance::read_to(&mut *reader, partition, 0, bounds.end).await;
        }
        room.fetch_add(3 << 20, Ordering::Relaxed);
    }
    let batch = conformance::batch(0, ends[0], 2_000);
    let range = topic.append(0, batch).await.expect("space is back");
    assert_eq!(range.start, ends[0]);
}

#[test]
fn a_store_whose_making_was_cut_short_is_made_anew() {
    let mut cut = 0;
    loop {
        let dir = tempfile::tempdir().expect("a directory");
        let left = Arc::new(AtomicU64::new(cut));
        let hook: DiskHook = Arc::new(move |_| {
            let more = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            });
            more.map(drop)
                .map_err(|_| io::Error::other("the process died"))
        });
        let config = || TopicConfig::new(dir.path(), "events", 2);
        let whole = EmbeddedTopic::open_on(config(), Some(hook)).is_ok();
        let opened = EmbeddedTopic::open_on(config(), None);
        assert!(opened.is_ok(), "after {cut} operations: {:?}", opened.err());
        if whole {
            break;
        }
        cut += 1;
    }
    assert!(cut > 3, "the hook was asked {cut} times");
}

#[tokio::test]
async fn a_failed_sync_is_no_acknowledgement() {
    const INPUT_OUTPUT: i32 = 5;
    let dir = tempfile::tempdir().expect("a directory");
    let failing = Arc::new(AtomicBool::new(false));
    let fails = Arc::clone(&failing);
    let topic = topic_on(
        dir.path(),
        Arc::new(move |operation| match operation {
            FileOperation::Sync if fails.load(Ordering::Relaxed) => {
                Err(io::Error::from_raw_os_error(INPUT_OUTPUT))
            }
            _ => Ok(()),
        }),
    );
    topic
        .append(0, conformance::batch(0, 0, 5))
        .await
        .expect("stored");
    failing.store(true, Ordering::Relaxed);
    let failure = topic.append(0, conformance::batch(0, 5, 5)).await;
    assert!(
        matches!(
            &failure,
            Err(TopicError::Storage {
                retryable: false,
                ..
            })
        ),
        "{failure:?}"
    );
    failing.store(false, Ordering::Relaxed);
    let bounds = topic.bounds(0).await.expect("known");
    let range = topic
        .append(0, conformance::batch(0, bounds.end, 5))
        .await
        .expect("stored");
    let mut reader = topic.reader(0, 0, &[]).await.expect("opens");
    conformance::read_to(&mut *reader, 0, 0, range.end).await;
}

/// A process must be able to end on a full disk: nothing that is still to be written keeps it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_closes_on_a_disk_that_stays_full() {
    const NO_SPACE: i32 = 28;
    let dir = tempfile::tempdir().expect("a directory");
    let full = Arc::new(AtomicBool::new(false));
    let fails = Arc::clone(&full);
    let asked = Arc::new(AtomicU64::new(0));
    let asks = Arc::clone(&asked);
    let topic = topic_on(
        dir.path(),
        Arc::new(move |_| {
            asks.fetch_add(1, Ordering::Relaxed);
            match fails.load(Ordering::Relaxed) {
                true => Err(io::Error::from_raw_os_error(NO_SPACE)),
                false => Ok(()),
            }
        }),
    );
    topic.register_consumer("sink").expect("registered");
    topic
        .append(0, conformance::batch(0, 0, 5))
        .await
        .expect("stored");
    full.store(true, Ordering::Relaxed);
    topic
        .append(0, conformance::batch(0, 5, 5))
        .await
        .expect_err("no room");
    topic.release(0, "sink", 5).await.expect("noted");
    let before = asked.load(Ordering::Relaxed);
    let closing = tokio::task::spawn_blocking(move || topic.close());
    let closed = tokio::time::timeout(std::time::Duration::from_secs(60), closing).await;
    if closed.is_err() {
        // The writer has to end for the test to.
        full.store(false, Ordering::Relaxed);
        panic!("it goes on trying");
    }
    let tries = asked.load(Ordering::Relaxed) - before;
    assert!(tries < 1_000, "{tries} operations");
}

/// Appends that wait for the queue fail with the one before them: stored, they would be
/// ahead of what the caller sends again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_append_fails_those_called_after_it() {
    const INPUT_OUTPUT: i32 = 5;
    let dir = tempfile::tempdir().expect("a directory");
    // While armed, a sync waits for the word, then fails.
    let armed = Arc::new(AtomicBool::new(false));
    let (word, heard) = std::sync::mpsc::channel::<()>();
    let heard = std::sync::Mutex::new(heard);
    let arms = Arc::clone(&armed);
    let topic = Arc::new(topic_on(
        dir.path(),
        Arc::new(move |operation| {
            if matches!(operation, FileOperation::Sync) && arms.swap(false, Ordering::AcqRel) {
                let _ = heard.lock().map(|heard| heard.recv());
                return Err(io::Error::from_raw_os_error(INPUT_OUTPUT));
            }
            Ok(())
        }),
    ));
    armed.store(true, Ordering::Release);
    let mut builder = millpond_format::record::BatchBuilder::new();
    builder.push(None, &vec![b'x'; 5 << 20], 0);
    let batch = millpond_connector::topic::StoredBatch {
        record_count: 1,
        base_timestamp_ms: 0,
        raw: builder.finish().into(),
    };
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let (topic, batch) = (Arc::clone(&topic), batch.clone());
        let mut append = Box::pin(async move { topic.append(0, batch).await });
        tokio::select! {
            biased;
            answer = &mut append => panic!("answered early: {answer:?}"),
            () = std::future::ready(()) => waiting.push(append),
        }
    }
    word.send(()).expect("the sync waits");
    let waiting: Vec<_> = waiting.into_iter().map(tokio::spawn).collect();
    for append in waiting {
        let answer = append.await.expect("no panic");
        assert!(
            matches!(answer, Err(TopicError::Storage { .. })),
            "{answer:?}"
        );
    }
    let range = topic.append(0, batch).await.expect("the disk works again");
    // The commit whose sync failed may have reached the file; nothing after it did.
    assert!(range.start <= 1, "{range:?}");
}
