//! What the source remembers: how far each shard is durable in the topic.
//!
//! A store keeps one checkpoint for a stream and replaces it as a whole. Two processes
//! never share a store: the lock of the data directory sees to that. What they can share is a
//! [`crate::shard_table::ShardTable`], which has a row for each shard.

use std::collections::BTreeMap;

use async_trait::async_trait;
use millpond_format::sequence::{Position, SequenceNumber};
use millpond_store_file::FileError;
use serde::{Deserialize, Serialize};

use crate::numbering::Numbering;
use crate::shard::{ShardId, ShardInfo};

/// How far one stream is delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamCheckpoint {
    /// Stream name.
    pub stream: String,
    /// When the stream was created, milliseconds since the Unix epoch: tells it from
    /// a later stream of the same name.
    pub stream_created_ms: i64,
    /// Where reading began, pinned when it first did.
    pub start: PinnedStart,
    /// By which rules records became events: others number them otherwise.
    #[serde(default)]
    pub aggregated: Numbering,
    /// The shards known, finished ones included until they leave the stream.
    pub shards: BTreeMap<ShardId, ShardCheckpoint>,
}

/// What is made of records that hold many events (see [`crate::aggregate`]).
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregated {
    /// Each event in them is one event. Those outside of the shard's hash range are dropped, as by
    /// the Kinesis Client Library: their producer has sent them to their own shard as well.
    Auto,
    /// The same, but events outside of the hash range are kept: for producers that put what they
    /// like into one record.
    KeepStray,
    /// Nothing: the record is one event, as it is.
    #[default]
    Off,
}

/// Where reading of a stream began. Once saved it never moves, whatever the clock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum PinnedStart {
    /// With the oldest record of the stream.
    TrimHorizon,
    /// With the first record that arrived at this time or later, milliseconds since the Unix epoch.
    Timestamp {
        /// Milliseconds since the Unix epoch.
        ms: i64,
    },
}

/// How far one shard is delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardCheckpoint {
    /// The shards it was made from.
    pub parents: Vec<ShardId>,
    /// What is delivered.
    pub progress: Progress,
    /// Every record that is not delivered arrived at this time or later (milliseconds since the Unix
    /// epoch): while the stream keeps records that old, none was lost. `None`: nothing was
    /// promised yet.
    pub unread_since_ms: Option<i64>,
}

/// What of a shard is delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Progress {
    /// Nothing, and nothing was sent.
    NotBegun,
    /// Nothing for certain, but events from `first` on may have been sent.
    Begun {
        /// Sequence number of the first record that was read.
        first: String,
        /// The numbering of the events sent.
        chain: ChainState,
    },
    /// Everything up to and including this position.
    Delivered {
        /// Sequence number.
        sequence: String,
        /// Index within an aggregated record.
        sub_sequence: u32,
        /// The record may hold events behind this position: another program stopped in its middle. It
        /// is read again, and what is not behind the position is left out.
        #[serde(default, skip_serializing_if = "is_false")]
        partial: bool,
        /// The numbering of the events sent.
        chain: ChainState,
    },
    /// Everything, to the end of a closed shard.
    Finished,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// The numbering of a shard's events, at the position of the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainState {
    /// When the numbering was begun, milliseconds since the Unix epoch.
    pub epoch: u64,
    /// Ordinal of the next event for each topic partition.
    pub next_ordinals: Vec<u64>,
}

impl ShardCheckpoint {
    /// A shard of which nothing was read.
    #[must_use]
    pub fn not_begun(parents: Vec<ShardId>, unread_since_ms: Option<i64>) -> Self {
        Self {
            parents,
            progress: Progress::NotBegun,
            unread_since_ms,
        }
    }

    /// The shard as the lineage knows it.
    #[must_use]
    pub fn info(&self, id: &ShardId) -> ShardInfo {
        ShardInfo {
            id: id.clone(),
            parents: self.parents.clone(),
            hash_keys: None,
        }
    }

    /// The shard was delivered to its end.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.progress == Progress::Finished
    }
}

impl Progress {
    /// What is delivered up to `position` under `chain`.
    #[must_use]
    pub fn delivered(position: &Position, chain: ChainState) -> Self {
        Self::Delivered {
            sequence: position.sequence.as_ref().to_owned(),
            sub_sequence: position.sub_sequence,
            partial: false,
            chain,
        }
    }

    /// True for deliveries up to the same position under the same numbering.
    #[must_use]
    pub fn is_at(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Delivered {
                    sequence,
                    sub_sequence,
                    chain,
                    ..
                },
                Self::Delivered {
                    sequence: other,
                    sub_sequence: other_sub,
                    chain: other_chain,
                    ..
                },
            ) => (sequence, sub_sequence, chain) == (other, other_sub, other_chain),
            _ => false,
        }
    }

    /// The numbering to go on with, if there is one.
    #[must_use]
    pub fn chain(&self) -> Option<&ChainState> {
        match self {
            Self::Begun { chain, .. } | Self::Delivered { chain, .. } => Some(chain),
            Self::NotBegun | Self::Finished => None,
        }
    }
}

impl StreamCheckpoint {
    /// Checks what the encoding alone does not: sequence numbers must be numerals.
    ///
    /// # Errors
    /// Names the first shard whose position is none.
    pub fn check(&self) -> Result<(), String> {
        for (id, shard) in &self.shards {
            let text = match &shard.progress {
                Progress::Begun { first, .. } => first,
                Progress::Delivered { sequence, .. } => sequence,
                Progress::NotBegun | Progress::Finished => continue,
            };
            if SequenceNumber::parse(text).is_none() {
                return Err(format!(
                    "shard `{id}` has the position `{text}`, which is no sequence number"
                ));
            }
        }
        Ok(())
    }
}

/// Why a checkpoint could not be loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Reading or writing failed.
    #[error("cannot {action} the checkpoint `{place}`: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// Where the checkpoint is.
        place: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The store could not do it.
    #[error("cannot {action} the checkpoint: {source}")]
    Store {
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        source: FileError,
    },
    /// What is there was not written by this source.
    #[error(
        "`{place}` is no checkpoint of a Kinesis source ({reason}); move it away if the stream \
         should be read from its configured start"
    )]
    Foreign {
        /// Where the checkpoint should be.
        place: String,
        /// What was found.
        reason: String,
    },
    /// It was written by a later version.
    #[error(
        "checkpoint `{place}` has version {version}, and this program reads up to version {known}: \
         use the program that wrote it"
    )]
    TooNew {
        /// Where the checkpoint is.
        place: String,
        /// Its version.
        version: u32,
        /// The newest version known here.
        known: u32,
    },
    /// It was damaged after it was written.
    #[error(
        "checkpoint `{place}` is damaged ({reason}); restore it from a copy, or move it away to read \
         the stream from its configured start, which repeats events"
    )]
    Damaged {
        /// Where the checkpoint is.
        place: String,
        /// The failed check.
        reason: String,
    },
    /// The lease table did not do what it was asked.
    #[error("cannot {action} lease table `{table}`: {reason}")]
    Table {
        /// What was being done.
        action: &'static str,
        /// The table.
        table: String,
        /// Why it failed.
        reason: String,
    },
    /// A row of the lease table means nothing here.
    #[error("row `{row}` of lease table `{table}` {reason}")]
    Row {
        /// The table.
        table: String,
        /// Its key.
        row: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It belongs to another stream.
    #[error("checkpoint `{place}` belongs to the stream `{found}`, not to `{wanted}`")]
    OtherStream {
        /// Where the checkpoint is.
        place: String,
        /// Stream of the checkpoint.
        found: String,
        /// Stream asked for.
        wanted: String,
    },
}

/// Keeps the checkpoint of a stream.
#[async_trait]
pub trait CheckpointStore: Send + Sync {
    /// The checkpoint saved last; `None` when there never was one.
    async fn load(&self, stream: &str) -> Result<Option<StreamCheckpoint>, CheckpointError>;

    /// Replaces the checkpoint. Once it answers `Ok` the new one survives a power cut; until then,
    /// and after an error, a load gives the old or the new one whole.
    async fn save(&self, checkpoint: &StreamCheckpoint) -> Result<(), CheckpointError>;
}
