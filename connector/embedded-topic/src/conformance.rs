//! What every implementation of the topic traits must hold, as assertions over `dyn Topic`.
//!
//! Each function takes a fresh, empty topic of at least two partitions, without transforms,
//! and panics on the first thing that is not as the traits say.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millpond_connector::topic::{
    Chunk, ConsumedRecord, Offset, PartitionId, PartitionReader, StoredBatch, Topic, TopicError,
    Transform,
};
use millpond_format::record::BatchBuilder;

/// How long a record that is there may take to arrive.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long is waited for what must not come.
const SHORT: Duration = Duration::from_millis(30);

/// Runs every function of this module, each on its own topic.
pub async fn all<F>(mut fresh: impl FnMut() -> F)
where
    F: Future<Output = Arc<dyn Topic>>,
{
    offsets_are_dense_and_per_partition(&*fresh().await).await;
    what_was_appended_is_read_back(&*fresh().await).await;
    a_reader_starts_anywhere(&*fresh().await).await;
    a_waiting_reader_is_woken(fresh().await).await;
    next_is_cancel_safe(fresh().await).await;
    readers_are_independent(&*fresh().await).await;
    concurrent_appends_keep_their_order(fresh().await).await;
    what_is_not_there_is_an_error(&*fresh().await).await;
    released_batches_may_go_and_others_stay(&*fresh().await).await;
}

/// A batch of `count` records, whose values name the partition, the first number and their own.
#[must_use]
pub fn batch(partition: PartitionId, first: u64, count: u32) -> StoredBatch {
    let mut builder = BatchBuilder::new();
    for number in first..first + u64::from(count) {
        let value = value(partition, number);
        let key = format!("key-{number}");
        let key = (!number.is_multiple_of(3)).then_some(key.as_bytes());
        builder.push(key, &value, 1_763_886_000_000 + number as i64);
    }
    StoredBatch {
        base_timestamp_ms: builder.base_timestamp_ms(),
        record_count: builder.record_count(),
        raw: Bytes::from(builder.finish()),
    }
}

/// The value of record `number` in [`batch`].
#[must_use]
pub fn value(partition: PartitionId, number: u64) -> Vec<u8> {
    let mut value = format!("p{partition} n{number} ").into_bytes();
    value.resize(value.len() + (number % 97) as usize, b'x');
    value
}

/// Reads until `end`, checking that chunks join up and records are those of [`batch`].
///
/// # Panics
/// When anything else comes, or nothing within 90 s.
pub async fn read_to(
    reader: &mut dyn PartitionReader,
    partition: PartitionId,
    from: Offset,
    end: Offset,
) {
    let mut position = from;
    while position < end {
        let chunk = next_chunk(reader).await;
        assert_eq!(chunk.offsets.start, position, "chunks join up");
        assert_eq!(
            chunk.records.len() as u64,
            chunk.offsets.end - chunk.offsets.start
        );
        for (offset, record) in chunk.offsets.clone().zip(&chunk.records) {
            check_record(record, partition, offset);
        }
        position = chunk.offsets.end;
    }
    assert_eq!(position, end, "batches end where they were appended");
}

/// The next chunk.
///
/// # Panics
/// When there is none within 90 s, or an error.
pub async fn next_chunk(reader: &mut dyn PartitionReader) -> Chunk {
    reader
        .next(PATIENCE)
        .await
        .expect("readable")
        .expect("data in time")
}

fn check_record(record: &ConsumedRecord, partition: PartitionId, offset: Offset) {
    assert_eq!(record.offset, Some(offset));
    assert_eq!(record.value, value(partition, offset), "value at {offset}");
    let key = (!offset.is_multiple_of(3)).then(|| Bytes::from(format!("key-{offset}")));
    assert_eq!(record.key, key, "key at {offset}");
}

async fn append(topic: &dyn Topic, partition: PartitionId, first: u64, count: u32) {
    let range = topic
        .append(partition, batch(partition, first, count))
        .await;
    assert_eq!(range.expect("stored"), first..first + u64::from(count));
}

/// Offsets start at 0 and count records, in each partition on its own.
pub async fn offsets_are_dense_and_per_partition(topic: &dyn Topic) {
    assert!(topic.partition_count() >= 2);
    for (first, count) in [(0, 3), (3, 1), (4, 100)] {
        append(topic, 0, first, count).await;
        append(topic, 1, first, count).await;
    }
    for partition in [0, 1] {
        let bounds = topic.bounds(partition).await.expect("known partition");
        assert_eq!((bounds.earliest, bounds.end), (0, 104));
    }
}

/// Keys, values and offsets come back as appended.
pub async fn what_was_appended_is_read_back(topic: &dyn Topic) {
    for first in [0, 50, 100] {
        append(topic, 1, first, 50).await;
    }
    let mut reader = topic.reader(1, 0, &[]).await.expect("open");
    read_to(&mut *reader, 1, 0, 150).await;
    assert!(reader.next(SHORT).await.expect("no error").is_none());
    append(topic, 1, 150, 5).await;
    read_to(&mut *reader, 1, 150, 155).await;
}

/// A reader may start at any stored offset and at the end; never past it.
pub async fn a_reader_starts_anywhere(topic: &dyn Topic) {
    append(topic, 0, 0, 10).await;
    append(topic, 0, 10, 10).await;
    for from in [0, 1, 9, 10, 15, 19] {
        let mut reader = topic.reader(0, from, &[]).await.expect("open");
        read_to(&mut *reader, 0, from, 20).await;
    }
    let mut reader = topic.reader(0, 20, &[]).await.expect("at the end");
    assert!(reader.next(SHORT).await.expect("no error").is_none());
    let past = topic.reader(0, 21, &[]).await.err();
    assert!(
        matches!(
            past,
            Some(TopicError::OffsetOutOfRange {
                offset: 21,
                end: 20,
                ..
            })
        ),
        "{past:?}"
    );
}

/// A reader that waits gets what is appended meanwhile, without waiting to the end.
pub async fn a_waiting_reader_is_woken(topic: Arc<dyn Topic>) {
    let mut reader = topic.reader(0, 0, &[]).await.expect("open");
    let waiting = tokio::spawn(async move {
        let started = Instant::now();
        let chunk = reader.next(PATIENCE).await.expect("no error");
        (chunk.expect("woken with data"), started.elapsed())
    });
    tokio::task::yield_now().await;
    append(&*topic, 0, 0, 2).await;
    let (chunk, waited) = waiting.await.expect("no panic");
    assert_eq!(chunk.offsets, 0..2);
    assert!(waited < PATIENCE / 2, "woken after {waited:?}");
}

/// A dropped `next` loses nothing.
pub async fn next_is_cancel_safe(topic: Arc<dyn Topic>) {
    let writer = Arc::clone(&topic);
    let writing = tokio::spawn(async move {
        for first in (0..400).step_by(4) {
            append(&*writer, 0, first, 4).await;
        }
    });
    let mut reader = topic.reader(0, 0, &[]).await.expect("open");
    let mut position = 0;
    let mut cancelled = 0;
    let deadline = Instant::now() + PATIENCE;
    while position < 400 {
        assert!(Instant::now() < deadline, "stuck at {position}");
        // Cancelled as soon as it waits: the yield wins whenever nothing is ready.
        tokio::select! {
            biased;
            chunk = reader.next(PATIENCE) => {
                let chunk = chunk.expect("no error").expect("data");
                assert_eq!(chunk.offsets.start, position);
                position = chunk.offsets.end;
            }
            () = tokio::task::yield_now() => cancelled += 1,
        }
    }
    writing.await.expect("no panic");
    assert!(cancelled > 0, "nothing was ever cancelled");
}

/// Two readers of a partition each get everything.
pub async fn readers_are_independent(topic: &dyn Topic) {
    append(topic, 0, 0, 5).await;
    append(topic, 0, 5, 5).await;
    let mut one = topic.reader(0, 0, &[]).await.expect("open");
    let mut other = topic.reader(0, 0, &[]).await.expect("open");
    read_to(&mut *one, 0, 0, 10).await;
    read_to(&mut *other, 0, 0, 10).await;
    let mut other_partition = topic.reader(1, 0, &[]).await.expect("open");
    assert!(other_partition.next(SHORT).await.expect("ok").is_none());
}

/// Appends called one after the other without waiting are stored in that order.
pub async fn concurrent_appends_keep_their_order(topic: Arc<dyn Topic>) {
    let mut waiting = Vec::new();
    for first in (0..200).step_by(2) {
        for partition in [0, 1] {
            let topic = Arc::clone(&topic);
            let mut appended = Box::pin(async move {
                let range = topic.append(partition, batch(partition, first, 2)).await;
                assert_eq!(range.expect("stored"), first..first + 2);
            });
            // Polled once here: called in this order, answered in any.
            tokio::select! {
                biased;
                () = &mut appended => {}
                () = std::future::ready(()) => waiting.push(appended),
            }
        }
    }
    let waiting: Vec<_> = waiting.into_iter().map(tokio::spawn).collect();
    for appended in waiting {
        appended.await.expect("in order");
    }
    for partition in [0, 1] {
        let mut reader = topic.reader(partition, 0, &[]).await.expect("open");
        read_to(&mut *reader, partition, 0, 200).await;
    }
}

/// A partition or offset that does not exist is a typed error, everywhere.
pub async fn what_is_not_there_is_an_error(topic: &dyn Topic) {
    let missing = topic.partition_count();
    let unknown = |error: Option<TopicError>| {
        assert!(
            matches!(error, Some(TopicError::UnknownPartition { partition, .. }) if partition == missing),
            "{error:?}"
        );
    };
    unknown(topic.append(missing, batch(0, 0, 1)).await.err());
    unknown(topic.bounds(missing).await.err());
    unknown(topic.reader(missing, 0, &[]).await.err());
    unknown(topic.release(missing, "sink", 0).await.err());
    let past = topic.release(0, "sink", 1).await.err();
    assert!(
        matches!(past, Some(TopicError::OffsetOutOfRange { .. })),
        "{past:?}"
    );
    let transforms = [Transform {
        uses: "no/such-module@9.9.9".into(),
        with: std::collections::BTreeMap::new(),
    }];
    let error = topic.reader(0, 0, &transforms).await.err();
    assert!(
        matches!(&error, Some(TopicError::Transform { uses, .. }) if uses == "no/such-module@9.9.9"),
        "{error:?}"
    );
}

/// What any consumer has not released stays readable, and offsets are not used again.
pub async fn released_batches_may_go_and_others_stay(topic: &dyn Topic) {
    topic.release(0, "slow", 0).await.expect("registered");
    for first in [0, 10, 20] {
        append(topic, 0, first, 10).await;
    }
    topic.release(0, "fast", 30).await.expect("released");
    topic.release(0, "slow", 20).await.expect("released");
    topic
        .release(0, "slow", 5)
        .await
        .expect("going back is no error");
    let mut reader = topic.reader(0, 20, &[]).await.expect("still there");
    read_to(&mut *reader, 0, 20, 30).await;
    topic.release(0, "slow", 30).await.expect("released");
    append(topic, 0, 30, 1).await;
    let bounds = topic.bounds(0).await.expect("known");
    assert_eq!(bounds.end, 31);
    assert!(bounds.earliest <= 30);
    read_to(&mut *reader, 0, 30, 31).await;
}
