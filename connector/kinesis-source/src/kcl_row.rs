//! A lease row as the Kinesis Client Library keeps it, versions 2.x and 3.x, and what Millpond adds.
//!
//! Names, types and values are those of `DynamoDBLeaseSerializer`, `ExtendedSequenceNumber` and
//! `SentinelCheckpoint` of awslabs/amazon-kinesis-client 3.5.1 (read 2026-11-26). The library
//! updates named attributes and puts whole rows only where there are none, so what is added here
//! survives it:
//!
//! | attribute | what it is |
//! |---|---|
//! | `millpond` | text of a JSON object: what the columns cannot say, foremost the numbering of the events |
//! | `millpondWantedBy` | the worker that asked for the lease |
//! | `millpondFigures` | text of a JSON object: what the shard carries. Not in `millpond`, which earlier versions read strictly |
//!
//! `leaseCounter` is the lease's epoch: it is raised when the lease changes hands, and the library raises it
//! with every renewal. So either notices when the other took a lease. What is in `millpond` counts only
//! while it agrees with `checkpoint`: when the library moved that since, the library is right, and the
//! events are numbered anew from there.
//!
//! Pure.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use millpond_format::sequence::SequenceNumber;
use millpond_leases::{LeaseRow, WorkerId};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{ChainState, PinnedStart, Progress, ShardCheckpoint};
use crate::numbering::Numbering;
use crate::shard::{HashKeyRange, ShardId};
use crate::shard_table::ShardRow;

/// Attributes of an item.
pub type Attributes = HashMap<String, AttributeValue>;

/// Names of attributes.
#[allow(missing_docs, reason = "the names say it")]
pub mod names {
    pub const LEASE_KEY: &str = "leaseKey";
    pub const LEASE_OWNER: &str = "leaseOwner";
    pub const LEASE_COUNTER: &str = "leaseCounter";
    pub const OWNER_SWITCHES: &str = "ownerSwitchesSinceCheckpoint";
    pub const CHECKPOINT: &str = "checkpoint";
    pub const CHECKPOINT_SUB_SEQUENCE: &str = "checkpointSubSequenceNumber";
    pub const PENDING_CHECKPOINT: &str = "pendingCheckpoint";
    pub const PENDING_SUB_SEQUENCE: &str = "pendingCheckpointSubSequenceNumber";
    pub const PENDING_STATE: &str = "pendingCheckpointState";
    pub const PARENT_SHARD_IDS: &str = "parentShardId";
    pub const CHILD_SHARD_IDS: &str = "childShardIds";
    pub const STARTING_HASH_KEY: &str = "startingHashKey";
    pub const ENDING_HASH_KEY: &str = "endingHashKey";
    pub const THROUGHPUT: &str = "throughputKBps";
    pub const CHECKPOINT_OWNER: &str = "checkpointOwner";
    pub const ENTITY_TYPE: &str = "entityType";
    pub const STREAM_NAME: &str = "streamName";
    pub const MILLPOND: &str = "millpond";
    pub const WANTED_BY: &str = "millpondWantedBy";
    pub const FIGURES: &str = "millpondFigures";
}

/// `entityType` of a lease, where the table holds other things as well (3.5 and later).
const LEASE_ENTITY: &str = "LEASE";

const TRIM_HORIZON: &str = "TRIM_HORIZON";
const LATEST: &str = "LATEST";
const AT_TIMESTAMP: &str = "AT_TIMESTAMP";
const SHARD_END: &str = "SHARD_END";

/// Version of the attribute `millpond`.
const VERSION: u32 = 1;

/// What the columns cannot say.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Addition {
    version: u32,
    progress: Progress,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unread_since_ms: Option<i64>,
    aggregated: Numbering,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start: Option<PinnedStart>,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// What the words `LATEST` and `AT_TIMESTAMP` of another program mean here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meaning {
    /// `LATEST`, milliseconds since the Unix epoch: now.
    pub latest_ms: i64,
    /// `AT_TIMESTAMP`, milliseconds since the Unix epoch: the row does not say, only the settings do.
    pub timestamp_ms: Option<i64>,
}

/// Where reading begins, as a row that nothing was delivered of says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begins {
    /// Shards without parents begin where the stream does.
    pub stream: PinnedStart,
    /// The time that the settings say, which the library's own settings can say, too.
    pub timestamp_ms: Option<i64>,
}

/// A row that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KclRow {
    /// Which shard.
    pub shard: ShardId,
    /// Its lease.
    pub lease: LeaseRow,
    /// Its checkpoint.
    pub row: ShardRow,
}

/// Why a row cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("row `{key}` {reason}")]
pub struct RowError {
    /// Its key.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Refuses a lease of a table that holds those of several streams (`DynamoDBMultiStreamLeaseSerializer`).
///
/// # Errors
/// [`RowError`], which says what to do.
pub fn check_stream(item: &Attributes) -> Result<(), RowError> {
    let key = text(item, names::LEASE_KEY).unwrap_or_default();
    if !is_lease(item) || !(key.contains(':') || item.contains_key(names::STREAM_NAME)) {
        return Ok(());
    }
    Err(RowError {
        key: key.to_owned(),
        reason: "is of an application that reads several streams (its keys are \
                 `account:stream:epoch:shard`), and such a table cannot be taken over: name another one, \
                 which may be new, in `lease-table`; where to begin in the stream then says `start`"
            .to_owned(),
    })
}

fn is_lease(item: &Attributes) -> bool {
    text(item, names::ENTITY_TYPE).is_none_or(|entity| entity == LEASE_ENTITY)
}

/// Reads a row; `None` for one that is no lease.
///
/// # Errors
/// [`RowError`] for a lease that neither the library nor Millpond writes.
pub fn read(item: &Attributes, meaning: Meaning) -> Result<Option<KclRow>, RowError> {
    if !is_lease(item) {
        return Ok(None);
    }
    check_stream(item)?;
    let Some(key) = text(item, names::LEASE_KEY) else {
        return Ok(None);
    };
    let refuse = |reason: String| RowError {
        key: key.to_owned(),
        reason,
    };
    let counter = number(item, names::LEASE_COUNTER);
    let epoch = counter.ok_or_else(|| refuse("has no `leaseCounter`".to_owned()))?;
    let owner = text(item, names::CHECKPOINT_OWNER).or_else(|| text(item, names::LEASE_OWNER));
    let lease = LeaseRow {
        epoch,
        owner: owner.map(WorkerId::new),
        wanted_by: text(item, names::WANTED_BY).map(WorkerId::new),
    };
    let hash_keys = text(item, names::STARTING_HASH_KEY)
        .zip(text(item, names::ENDING_HASH_KEY))
        .and_then(|(first, last)| HashKeyRange::parse(first, last));
    let throughput = item.get(names::THROUGHPUT);
    let throughput = throughput.and_then(|value| value.as_n().ok()?.parse::<f64>().ok());
    let mut row = ShardRow {
        checkpoint: ShardCheckpoint::not_begun(set(item, names::PARENT_SHARD_IDS), None),
        aggregated: Numbering::default(),
        start: None,
        hash_keys,
        children: set(item, names::CHILD_SHARD_IDS),
        // The cast saturates, and 0 is what nobody measured.
        bytes_per_second: (throughput.unwrap_or(0.0) * 1_024.0) as u64,
        // Figures that cannot be read are as good as none: nothing but advice rests on them.
        figures: text(item, names::FIGURES).and_then(|json| serde_json::from_str(json).ok()),
        is_foreign: false,
    };
    let addition = addition(item).map_err(refuse)?;
    let numbering = match addition {
        Some(addition) if agrees(&addition.progress, item) => {
            row.checkpoint.progress = addition.progress;
            row.checkpoint.unread_since_ms = addition.unread_since_ms;
            row.aggregated = addition.aggregated;
            row.start = addition.start;
            return Ok(Some(KclRow {
                shard: key.into(),
                lease,
                row,
            }));
        }
        Some(addition) => addition.progress.chain().map_or(0, |chain| chain.epoch),
        None => 0,
    };
    row.is_foreign = true;
    match text(item, names::CHECKPOINT) {
        Some(SHARD_END) => row.checkpoint.progress = Progress::Finished,
        Some(TRIM_HORIZON) => row.start = Some(PinnedStart::TrimHorizon),
        Some(LATEST) => {
            row.start = Some(PinnedStart::Timestamp {
                ms: meaning.latest_ms,
            });
        }
        Some(AT_TIMESTAMP) => {
            let ms = meaning.timestamp_ms.ok_or_else(|| {
                refuse(
                    "begins at a time that only its own program knows: give the same to `start: \
                     {at-timestamp: …}`"
                        .to_owned(),
                )
            })?;
            row.start = Some(PinnedStart::Timestamp { ms });
        }
        Some(sequence) if SequenceNumber::parse(sequence).is_some() => {
            row.checkpoint.progress = Progress::Delivered {
                sequence: sequence.to_owned(),
                sub_sequence: sub_sequence(item),
                partial: true,
                // Of no topic's number of partitions: whoever takes the shard begins one anew.
                chain: ChainState {
                    epoch: numbering,
                    next_ordinals: Vec::new(),
                },
            };
        }
        Some(other) => return Err(refuse(format!("has the checkpoint `{other}`"))),
        None => return Err(refuse("has no `checkpoint`".to_owned())),
    }
    Ok(Some(KclRow {
        shard: key.into(),
        lease,
        row,
    }))
}

fn addition(item: &Attributes) -> Result<Option<Addition>, String> {
    let Some(json) = text(item, names::MILLPOND) else {
        return Ok(None);
    };
    let broken = |error: serde_json::Error| format!("has a broken attribute `millpond`: {error}");
    let Version { version } = serde_json::from_str(json).map_err(broken)?;
    if version > VERSION {
        return Err(format!(
            "has version {version} in attribute `millpond`, newer than {VERSION}, the newest known here: \
             upgrade Millpond"
        ));
    }
    serde_json::from_str(json).map(Some).map_err(broken)
}

/// True while nobody moved the checkpoint since `progress` was written with it.
fn agrees(progress: &Progress, item: &Attributes) -> bool {
    let column = text(item, names::CHECKPOINT);
    match progress {
        Progress::NotBegun | Progress::Begun { .. } => {
            matches!(column, Some(TRIM_HORIZON | LATEST | AT_TIMESTAMP))
        }
        Progress::Delivered {
            sequence,
            sub_sequence: sub,
            ..
        } => column == Some(sequence) && sub_sequence(item) == *sub,
        Progress::Finished => column == Some(SHARD_END),
    }
}

fn sub_sequence(item: &Attributes) -> u32 {
    let sub = number(item, names::CHECKPOINT_SUB_SEQUENCE).unwrap_or(0);
    // More events than a record can hold are all of them.
    u32::try_from(sub).unwrap_or(u32::MAX)
}

/// The columns that a checkpoint sets: a value to put, or `None` to remove the attribute.
///
/// `begins` names the checkpoint of a shard of which nothing is delivered.
#[must_use]
pub fn checkpoint_columns(
    row: &ShardRow,
    begins: Begins,
) -> Vec<(&'static str, Option<AttributeValue>)> {
    let checkpoint = &row.checkpoint;
    let (column, sub) = match &checkpoint.progress {
        Progress::Finished => (SHARD_END, 0),
        Progress::Delivered {
            sequence,
            sub_sequence,
            ..
        } => (sequence.as_str(), *sub_sequence),
        Progress::NotBegun | Progress::Begun { .. } => (first_checkpoint(row, begins), 0),
    };
    let addition = Addition {
        version: VERSION,
        progress: checkpoint.progress.clone(),
        unread_since_ms: checkpoint.unread_since_ms,
        aggregated: row.aggregated,
        start: row.start,
    };
    // A map of text, numbers and lists: nothing in it that JSON could not hold.
    let json = serde_json::to_string(&addition).unwrap_or_default();
    let mut columns = vec![
        (names::CHECKPOINT, Some(string(column))),
        (names::CHECKPOINT_SUB_SEQUENCE, Some(count(u64::from(sub)))),
        (names::OWNER_SWITCHES, Some(count(0))),
        (names::MILLPOND, Some(string(&json))),
        // As the library does with every checkpoint: what was prepared before it is moot.
        (names::PENDING_CHECKPOINT, None),
        (names::PENDING_SUB_SEQUENCE, None),
        (names::PENDING_STATE, None),
    ];
    if !row.children.is_empty() {
        let children = row.children.iter().map(|id| id.as_str().to_owned());
        columns.push((
            names::CHILD_SHARD_IDS,
            Some(AttributeValue::Ss(children.collect())),
        ));
    }
    if let Some(range) = row.hash_keys {
        columns.push((
            names::STARTING_HASH_KEY,
            Some(string(&range.first.to_string())),
        ));
        columns.push((
            names::ENDING_HASH_KEY,
            Some(string(&range.last.to_string())),
        ));
    }
    if row.bytes_per_second > 0 {
        let kib = row.bytes_per_second as f64 / 1_024.0;
        columns.push((
            names::THROUGHPUT,
            Some(AttributeValue::N(format!("{kib:.3}"))),
        ));
    }
    if let Some(figures) = &row.figures {
        let json = serde_json::to_string(figures).unwrap_or_default();
        columns.push((names::FIGURES, Some(string(&json))));
    }
    columns
}

/// The library looks up the time of `AT_TIMESTAMP` in its settings, and fails where they name none
/// (`IteratorBuilder.apply`). So the word is only for a time that settings said. A time that was pinned here is
/// known here alone: the library begins at the horizon, which loses nothing.
fn first_checkpoint(row: &ShardRow, begins: Begins) -> &'static str {
    let is_root = row.checkpoint.parents.is_empty();
    match row.start.or(is_root.then_some(begins.stream)) {
        Some(PinnedStart::Timestamp { ms }) if begins.timestamp_ms == Some(ms) => AT_TIMESTAMP,
        _ => TRIM_HORIZON,
    }
}

/// The whole row of a shard that nobody holds yet.
#[must_use]
pub fn new_row(shard: &ShardId, row: &ShardRow, begins: Begins) -> Attributes {
    let mut item = Attributes::from([
        (names::LEASE_KEY.to_owned(), string(shard.as_str())),
        (names::LEASE_COUNTER.to_owned(), count(0)),
    ]);
    let parents = &row.checkpoint.parents;
    if !parents.is_empty() {
        let parents = parents.iter().map(|id| id.as_str().to_owned());
        item.insert(
            names::PARENT_SHARD_IDS.to_owned(),
            AttributeValue::Ss(parents.collect()),
        );
    }
    let columns = checkpoint_columns(row, begins);
    item.extend(
        columns
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?))),
    );
    item
}

pub(crate) fn string(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

pub(crate) fn count(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub(crate) fn text<'a>(item: &'a Attributes, name: &str) -> Option<&'a str> {
    let value = item.get(name)?.as_s().ok()?;
    Some(value)
        .filter(|text| !text.is_empty())
        .map(String::as_str)
}

pub(crate) fn number(item: &Attributes, name: &str) -> Option<u64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

fn set(item: &Attributes, name: &str) -> Vec<ShardId> {
    let values = item.get(name).and_then(|value| value.as_ss().ok());
    let mut ids: Vec<ShardId> = values
        .into_iter()
        .flatten()
        .map(|id| ShardId::from(id.as_str()))
        .collect();
    // A set of DynamoDB has no order.
    ids.sort();
    ids
}

#[cfg(test)]
#[path = "kcl_row_tests.rs"]
mod tests;
