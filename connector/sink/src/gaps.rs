//! What a sink does about data that is gone for good.
//!
//! A hole in offsets or ordinals is read again first. What is still missing then is lost: it was
//! never stored, or the topic's retention took it. The operator chooses what follows. With `halt`
//! the topic partition stops and nothing after the hole is written. With `record` the plan that
//! goes past the hole carries it as a *gap* in its intent, so that it is durable before anything
//! past it is, and a replay decides the same; the store keeps it for good before the ledger
//! passes it.

use millpond_connector::topic::{Offset, PartitionId};
use millpond_format::gap::Gap;
use schemars::JsonSchema;
use serde::Deserialize;

/// What to do when events are missing from the topic and stay missing when read again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnGap {
    /// The topic partition stops; nothing after the hole is written.
    #[default]
    Halt,
    /// The gap is recorded with its bounds, counted, and writing goes on after it.
    Record,
}

/// The gaps that one plan passes over.
#[derive(Debug, Clone, Copy)]
pub struct PlanGaps<'a> {
    /// Pipeline name.
    pub pipeline: &'a str,
    /// Topic name.
    pub topic: &'a str,
    /// Topic partition.
    pub partition: PartitionId,
    /// First offset of the plan.
    pub from: Offset,
    /// Number of the first gap among those of the plan: those of a plan that was given up do not take the place of
    /// what it was begun with.
    pub first_index: usize,
    /// The gaps, in order.
    pub gaps: &'a [Gap],
}

/// [`PlanGaps::first_index`] where the plan was given up: more than the gaps that an intent can hold.
pub const GIVEN_UP_INDEX: usize = 50_000;
