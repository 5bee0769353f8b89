//! Why the source ends without having been asked to.

use millpond_connector::topic::TopicError;

use crate::checkpoint::CheckpointError;
use crate::classify::{Failure, Fatal, Operation};
use crate::client::StreamTarget;
use crate::delivery::BadSequence;
use crate::limits::MAX_CONSUMERS;
use crate::shard::ShardId;

/// Why the source ended. Each says what, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The stream does not exist.
    #[error(
        "{target} does not exist: create it, or correct `stream`, `region` or `endpoint` in section `kinesis`"
    )]
    StreamNotFound {
        /// The stream.
        target: Box<StreamTarget>,
    },
    /// The stream is being deleted.
    #[error("{target} is being deleted")]
    StreamDeleting {
        /// The stream.
        target: Box<StreamTarget>,
    },
    /// A shard does not exist any more.
    #[error(
        "shard `{shard}` of {target} is gone before it was read to its end: its unread events \
         are lost to retention; to record them as a gap and go on behind them, set `on-loss: gap-and-continue`"
    )]
    ShardGone {
        /// The shard.
        shard: ShardId,
        /// The stream.
        target: Box<StreamTarget>,
    },
    /// Credentials are missing or wrong.
    #[error(
        "credentials do not give access to {target}: {failure}; check the AWS profile or environment"
    )]
    Credentials {
        /// The stream.
        target: Box<StreamTarget>,
        /// What was said.
        failure: Box<Failure>,
    },
    /// The call is not allowed.
    #[error("`kinesis:{}` is not allowed on {target}: {failure}; add it to the policy of these credentials", .operation.name())]
    Permission {
        /// The call.
        operation: Operation,
        /// The stream.
        target: Box<StreamTarget>,
        /// What was said.
        failure: Box<Failure>,
    },
    /// The key that encrypts the stream cannot be used.
    #[error("the encryption key of {target} cannot be used: {failure}")]
    EncryptionKey {
        /// The stream.
        target: Box<StreamTarget>,
        /// What was said.
        failure: Box<Failure>,
    },
    /// The service refused the arguments.
    #[error("`{}` was refused on {target}{}: {failure}", .operation.name(), .shard.as_ref().map(|shard| format!(", shard `{shard}`")).unwrap_or_default())]
    Refused {
        /// The call.
        operation: Operation,
        /// The shard, where there is one.
        shard: Option<ShardId>,
        /// The stream.
        target: Box<StreamTarget>,
        /// What was said.
        failure: Box<Failure>,
    },
    /// Unread records may have been removed by retention.
    #[error(
        "shard `{shard}` of {target}: the checkpoint is older than the stream's retention of {retention_hours} h \
         ({reason}), so events may be lost; to record that as a gap and go on with what is left, set `on-loss: gap-and-continue`"
    )]
    TooOld {
        /// The shard.
        shard: ShardId,
        /// The stream.
        target: Box<StreamTarget>,
        /// Hours that the stream keeps records.
        retention_hours: i64,
        /// How it was noticed.
        reason: String,
    },
    /// The stream was deleted and created again.
    #[error(
        "the checkpoint is about an earlier {target}, created at {checkpoint_ms} ms, and this one was created at \
         {stream_ms} ms (since 1970): its positions mean nothing here; move the checkpoint away (or use another lease table) to read \
         the new stream from its configured start"
    )]
    OtherStream {
        /// The stream.
        target: Box<StreamTarget>,
        /// Creation time in the checkpoint.
        checkpoint_ms: i64,
        /// Creation time of the stream.
        stream_ms: i64,
    },
    /// Reading should begin at a time that is yet to come.
    #[error(
        "`start: at-timestamp` for {target} lies in the future: {start_ms} ms since 1970, and it is {now_ms} ms \
         there; use `latest`, or a time that has passed"
    )]
    StartInFuture {
        /// The stream.
        target: Box<StreamTarget>,
        /// Configured start.
        start_ms: i64,
        /// The service's clock.
        now_ms: i64,
    },
    /// No consumer can be registered.
    #[error(
        "consumer `{consumer}` cannot be registered on {target}: {failure}; a stream has at most {MAX_CONSUMERS} consumers (50 with on-demand \
         advantage), `aws kinesis list-stream-consumers` names them; remove one, name one of them in `consumer-name`, or set \
         `fall-back: polling` or `mode: polling`"
    )]
    ConsumerLimit {
        /// Name of the consumer.
        consumer: String,
        /// The stream.
        target: Box<StreamTarget>,
        /// What was said.
        failure: Box<Failure>,
    },
    /// A listing did not end.
    #[error("`ListShards` on {target} gave {pages} pages without an end")]
    EndlessListing {
        /// The stream.
        target: Box<StreamTarget>,
        /// Pages read.
        pages: usize,
    },
    /// A record has no usable sequence number.
    #[error(transparent)]
    BadSequence(#[from] BadSequence),
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The topic failed for good.
    #[error("cannot append to the topic: {0}")]
    Topic(#[from] TopicError),
    /// The topic gave an offset for the second time.
    #[error(
        "topic `{topic}` partition {partition} had acknowledged everything below offset {end}, and stores what comes next at {found}: \
         it was made anew or lost records while the source ran. {}; see \"When the topic is lost\" in the README of `kinesis-source`",
        match .awaits_release {
            true => "Start again: what the sinks have not committed is read from the stream again",
            false => "With `checkpoint-after: topic` the checkpoint is past them: what the sinks had not committed is lost to them, and \
                      they find it missing. Start again to go on",
        }
    )]
    TopicAnew {
        /// The topic.
        topic: String,
        /// Partition.
        partition: u32,
        /// End of the last append.
        end: u64,
        /// Where the next one was stored.
        found: u64,
        /// The checkpoint is behind what was lost.
        awaits_release: bool,
    },
    /// Another process with the same worker id takes part in sharing the shards.
    #[error(
        "another source with this worker's id is running: each needs a data directory of its own \
         (`worker-id` in it was copied)"
    )]
    Replaced,
    /// The drain took too long.
    #[error(
        "not everything that was read became durable and checkpointed within {limit_seconds} s of the drain; \
         it will be read again at the next start"
    )]
    DrainTooSlow {
        /// The limit.
        limit_seconds: u64,
    },
    /// A task of the source ended in a way that it must not.
    #[error("a task of the source failed: {0}")]
    Task(String),
}

impl SourceError {
    /// Puts a failure that no repetition helps into words.
    #[must_use]
    pub fn from_failure(
        fatal: Fatal,
        operation: Operation,
        shard: Option<&ShardId>,
        target: &StreamTarget,
        failure: &Failure,
    ) -> Self {
        let target = Box::new(target.clone());
        let failure = Box::new(failure.clone());
        match (fatal, shard) {
            (Fatal::NotFound, None) => Self::StreamNotFound { target },
            (Fatal::NotFound, Some(shard)) => Self::ShardGone {
                shard: shard.clone(),
                target,
            },
            (Fatal::Credentials, _) => Self::Credentials { target, failure },
            (Fatal::Permission, _) => Self::Permission {
                operation,
                target,
                failure,
            },
            (Fatal::EncryptionKey, _) => Self::EncryptionKey { target, failure },
            (Fatal::Refused, shard) => Self::Refused {
                operation,
                shard: shard.cloned(),
                target,
                failure,
            },
        }
    }
}
