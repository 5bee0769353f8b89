//! The plan: which envelopes make which item, with keys, totals and bytes. Pure: the same entries,
//! chain states and configuration give the same bytes, so a plan may be written any number of times.

mod chain_build;
mod closing;
mod cuts;
mod joined;
mod planner;
pub mod repack;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use millpond_connector::metrics::KeySpread;
use millpond_connector::topic::Offset;
use millpond_format::header::Kind;
use millpond_format::join::TrimError;
use millpond_format::keys;
use millpond_format::limits::MAX_GROUP_BYTES;
use millpond_format::sizing::ItemSize;

use crate::chain::ChainState;
use crate::form::ItemForm;
use crate::row::{KeyNames, Row, names};
use millpond_sink::dead_letters::DeadLetter;
use millpond_sink::dedup::{Admitted, Workbench};
use millpond_sink::letters::Letters;
use planner::Planner;
use repack::Repack;

/// Highest envelope index that a sort key holds in order.
const MAX_ENVELOPE_INDEX: u32 = 99_999;

/// Bytes that an integer attribute can take at most, without its name.
pub(crate) const MAX_INTEGER_BYTES: usize = 12;

/// Bytes of every sort key.
const SORT_KEY_BYTES: usize = 50;

/// What decides a plan besides its entries.
#[derive(Debug, Clone)]
pub struct PlanConfig {
    /// Pipeline name.
    pub pipeline: String,
    /// Topic name.
    pub topic: String,
    /// Topic partition.
    pub partition: u32,
    /// Key attribute names.
    pub keys: KeyNames,
    /// Largest item, names and keys included.
    pub max_item_bytes: usize,
    /// What items have besides.
    pub form: ItemForm,
}

/// An item of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedItem {
    /// The row.
    pub row: Arc<Row>,
    /// Its size by DynamoDB's rules.
    pub bytes: usize,
    /// Its write units.
    pub units: u64,
    /// Events in it, each counted once.
    pub events: u64,
    /// Bytes of those events as they were produced.
    pub event_bytes: u64,
}

/// Rows of the directory: write shards of one chain, with its lateness bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Group of the chain.
    pub group: String,
    /// Its write shards.
    pub write_shards: Range<u32>,
    /// Bound on sort time minus earliest event time, in ms.
    pub late_ms: i64,
}

/// A plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Items; those of one chain in order.
    pub items: Vec<PlannedItem>,
    /// What the directory must show before the items are written.
    pub directory: Vec<Listing>,
    /// Events for the dead-letter queue.
    pub dead_letters: Vec<DeadLetter>,
    /// States of the chains after the plan.
    pub chains: Vec<(String, ChainState)>,
    /// Items that were packed anew.
    pub repacked_items: u64,
    /// Write units that this saves.
    pub repacked_units: u64,
}

impl Plan {
    /// Over how many partition keys its groups are spread, once it is written.
    #[must_use]
    pub fn spread(&self) -> KeySpread {
        let keys = self.chains.iter().map(|(_, state)| state.listed.into());
        KeySpread {
            groups: self.chains.len() as u64,
            keys: keys.clone().sum(),
            most: keys.max().unwrap_or_default(),
        }
    }
}

/// Why no plan could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Something that cannot be cut does not fit an item.
    #[error(
        "{what} of group `{group}` at offset {offset} makes an item of {bytes} bytes, over \
         `dynamodb.max-item-bytes` of {limit}: give the SmartModule the same `max-item-bytes` \
         under `transforms[].with`, and feed it from the records on again"
    )]
    Oversize {
        /// What does not fit.
        what: &'static str,
        /// Its group.
        group: String,
        /// First offset of its batch.
        offset: Offset,
        /// Bytes of the item.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A batch became more envelopes than sort keys can number.
    #[error("the batch at offset {offset} became more than {MAX_ENVELOPE_INDEX} envelopes")]
    TooManyEnvelopes {
        /// First offset of the batch.
        offset: Offset,
    },
    /// An envelope without a usable group.
    #[error(
        "an envelope of the batch at offset {offset} has a group of {bytes} bytes, allowed are 1 to {MAX_GROUP_BYTES}"
    )]
    Group {
        /// First offset of the batch.
        offset: Offset,
        /// Bytes of its group.
        bytes: usize,
    },
    /// An envelope, where each event is to be mapped.
    #[error(
        "the batch at offset {offset} is packed, and `dynamodb.plain` maps events: take the \
         SmartModule out of `transforms`, or `plain` out of the section"
    )]
    Packed {
        /// First offset of the batch.
        offset: Offset,
    },
    /// The intent of a plan that is made again says of write shards what cannot be.
    #[error(
        "the intent at offset {offset} names write shards as `{note}`, which says nothing here"
    )]
    Note {
        /// First offset of the plan.
        offset: Offset,
        /// What it says.
        note: String,
    },
    /// An envelope could not be cut.
    #[error("envelope of the batch at offset {offset}: {source}")]
    Trim {
        /// First offset of the batch.
        offset: Offset,
        /// Why.
        source: TrimError,
    },
}

/// Groups whose chain states a plan needs, sorted.
#[must_use]
pub fn groups<'a>(entries: &'a [Admitted<'a>]) -> Vec<&'a str> {
    let group = |entry: &'a Admitted<'a>| match entry {
        Admitted::Envelope(envelope) => match envelope.header.kind {
            Kind::Reject(_) => None,
            _ => Some(envelope.header.group.as_str()),
        },
        Admitted::Plain(_, origin) => Some(origin.partition_key),
        Admitted::Unknown(..) => None,
    };
    let mut groups: Vec<&str> = entries.iter().filter_map(group).collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// Makes the plan; a group without a state begins a new chain, one without a number of write shards has one.
///
/// # Errors
/// [`PlanError`] for what does not fit the limits.
pub fn plan(
    entries: &[Admitted<'_>],
    states: &BTreeMap<String, ChainState>,
    write_shards: &BTreeMap<String, u32>,
    config: &PlanConfig,
    tools: &mut Workbench,
) -> Result<Plan, PlanError> {
    plan_anew(entries, states, write_shards, config, tools, None)
}

/// Makes the plan; small items are packed anew where that takes fewer write units.
///
/// # Errors
/// [`PlanError`] for what does not fit the limits.
pub fn plan_anew(
    entries: &[Admitted<'_>],
    states: &BTreeMap<String, ChainState>,
    write_shards: &BTreeMap<String, u32>,
    config: &PlanConfig,
    tools: &mut Workbench,
    repack: Option<Repack<'_>>,
) -> Result<Plan, PlanError> {
    let mut planner = Planner::new(config, states, write_shards, tools, repack);
    for entry in entries {
        match entry {
            Admitted::Envelope(envelope) => planner.envelope(envelope)?,
            Admitted::Plain(record, origin) => planner.plain(record, origin)?,
            Admitted::Unknown(record, error) => planner.unknown(record, *error),
        }
    }
    planner.finish()
}

impl PlanConfig {
    pub(crate) fn letters(&self) -> Letters<'_> {
        Letters {
            pipeline: &self.pipeline,
            topic: &self.topic,
            partition: self.partition,
        }
    }

    /// Partition key of the items of a group in a write shard of its chain.
    pub(crate) fn shard_pk(&self, group: &str, shard: u32) -> String {
        let pk = keys::shard_pk(&self.pipeline, group, self.partition, shard);
        format!("{}{pk}", self.form.key_prefix)
    }

    /// What items call the attribute that the layout calls `name`.
    pub(crate) fn name<'a>(&'a self, name: &'a str) -> &'a str {
        self.form.names.of(name)
    }

    /// Bytes of an item of `group` besides its header section and frames, at most, where its chain goes round
    /// so many write shards.
    #[must_use]
    pub fn fixed_bytes(&self, group: &str, write_shards: u32) -> usize {
        let pk = self.shard_pk(group, write_shards.saturating_sub(1));
        let numbers = [names::EVENTS, names::FIRST_TIME, names::LAST_TIME];
        ItemSize::new()
            .string(&self.keys.partition, &pk)
            .binary(&self.keys.sort, SORT_KEY_BYTES)
            .binary(self.name(names::HEADER), 0)
            .binary(self.name(names::FRAMES), 0)
            .bytes()
            + numbers
                .iter()
                .map(|name| self.name(name).len() + MAX_INTEGER_BYTES)
                .sum::<usize>()
            + self.form.bytes(group)
    }
}
