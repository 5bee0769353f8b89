//! What is done when the stream removed events before they were read. Pure but for the last function.
//!
//! With `gap-and-continue` a loss is told to the topic, as a record of its own (see
//! [`millpond_format::stream_gap`]), before anything behind it is sent and before the checkpoint passes it.
//! From there on the shard's events are numbered anew: some that were sent before the loss may be behind
//! the checkpoint, and others must not get their ordinals.

use std::sync::Arc;
use std::time::Duration;

use millpond_connector::backoff::{Backoff, BackoffPolicy};
use millpond_connector::random;
use millpond_connector::topic::{Offset, PartitionId, StoredBatch, Topic, TopicError};
use millpond_format::record::BatchBuilder;
use millpond_format::stream_gap::{StreamGap, StreamGapKind};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::delivery::topic_partition;
use crate::limits::RELEASE_INTERVAL;

/// Waits between tries to tell the topic of a loss.
const TELLING: BackoffPolicy =
    BackoffPolicy::endless(Duration::from_millis(100), Duration::from_secs(5));

/// What to do when events were removed from the stream before they were read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnLoss {
    /// The source ends with an error that names the shard.
    #[default]
    Fail,
    /// The gap is recorded in the topic with its bounds, counted, and reading goes on behind it.
    GapAndContinue,
}

/// The first record behind a loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstLeft {
    /// Its sequence number.
    pub sequence: String,
    /// Its arrival, milliseconds since the Unix epoch.
    pub arrival_ms: Option<i64>,
}

/// What is missing of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// How it was noticed.
    pub kind: StreamGapKind,
    /// What is lost arrived at this time or later, milliseconds since the Unix epoch.
    pub from_ms: Option<i64>,
    /// What is lost arrived at this time or earlier, milliseconds since the Unix epoch.
    pub to_ms: i64,
    /// The first record that is left, where there is one.
    pub first: Option<FirstLeft>,
    /// What is still unread arrived at this time or later, milliseconds since the Unix epoch.
    pub unread_since_ms: Option<i64>,
}

/// The batch of one record that tells a topic of a gap.
#[must_use]
pub fn marker(gap: &StreamGap, now_ms: i64) -> StoredBatch {
    let value = serde_json::json!({
        "gap": gap.kind.name(),
        "stream": gap.stream,
        "shard": gap.shard,
        "after": gap.after,
        "before": gap.before,
        "from_ms": gap.from_ms,
        "to_ms": gap.to_ms,
    })
    .to_string();
    let mut batch = BatchBuilder::new();
    batch.push(Some(gap.key().as_bytes()), value.as_bytes(), now_ms);
    let (record_count, base_timestamp_ms) = (batch.record_count(), batch.base_timestamp_ms());
    StoredBatch {
        raw: batch.finish().into(),
        record_count,
        base_timestamp_ms,
    }
}

/// Tells the topic of a gap, and answers when that is durable: in the topic, or with `awaits_release` where its
/// consumers put it. The topic partition follows from the shard.
///
/// # Errors
/// [`TopicError`] when waiting cannot help.
pub async fn tell(
    topic: Arc<dyn Topic>,
    gap: StreamGap,
    now_ms: i64,
    awaits_release: bool,
) -> Result<(), TopicError> {
    let partition = topic_partition(&gap.shard, topic.partition_count());
    let mut backoff = Backoff::new(TELLING);
    loop {
        match topic.append(partition, marker(&gap, now_ms)).await {
            Ok(offsets) if awaits_release => {
                return released(topic.as_ref(), partition, offsets.end).await;
            }
            Ok(_) => return Ok(()),
            Err(
                error @ TopicError::Storage {
                    retryable: true, ..
                },
            ) => {
                let wait = backoff.next_wait(random::unit()).unwrap_or(TELLING.cap);
                tracing::warn!(%gap, %error, "the topic cannot be told of a gap, it will be repeated");
                tokio::time::sleep(wait).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Waits until every consumer has what lies before an offset in safety.
async fn released(
    topic: &dyn Topic,
    partition: PartitionId,
    end: Offset,
) -> Result<(), TopicError> {
    loop {
        match topic.released().await {
            Ok(released) => {
                let found = released.get(partition as usize).copied().flatten();
                if found >= Some(end) {
                    return Ok(());
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the topic does not say how far its consumers are, it will be asked again");
            }
        }
        tokio::time::sleep(RELEASE_INTERVAL).await;
    }
}
