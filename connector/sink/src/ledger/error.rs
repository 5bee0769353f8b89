//! Why a ledger does not allow to go on.

use millpond_connector::topic::Offset;

/// Why the ledger does not allow to go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Another process took the partition.
    #[error(
        "fenced: `{owner}` took this partition with epoch {theirs}, ours is {ours}; \
         it goes on there, and this process has stopped writing it"
    )]
    Fenced {
        /// Our epoch.
        ours: u64,
        /// The epoch found.
        theirs: u64,
        /// Who holds it now.
        owner: String,
    },
    /// The row was changed by something that is no sink.
    #[error("the ledger row was changed or removed while this process held it")]
    Changed,
    /// The configuration changed while a plan was open.
    #[error(
        "offsets {from} to {to} were being written with configuration `{recorded}` when the sink \
         stopped; it is `{ours}` now, and the old one cannot be used to finish them: {why}. \
         Start once with the SmartModule, its parameters, and the sink's `pipeline`, names, sizes and \
         format as they were, let it drain, then change them"
    )]
    Fingerprint {
        /// First offset of the open plan.
        from: Offset,
        /// Its end.
        to: Offset,
        /// Fingerprint in the ledger.
        recorded: String,
        /// Fingerprint now.
        ours: String,
        /// Why the recorded configuration is of no use here.
        why: &'static str,
    },
    /// The topic lost records that were not committed.
    #[error(
        "the ledger stands at offset {committed}, but the topic begins at {earliest}: \
         offsets {committed} to {earliest} are gone. Restore the topic's data, or set \
         `on-gap: record` to record the loss and go on with what is left"
    )]
    Gone {
        /// First offset that is not committed.
        committed: Offset,
        /// First offset that is stored.
        earliest: Offset,
    },
    /// A plan made anew misses other data than when it was begun.
    #[error(
        "offsets {from} to {to} were being written when the sink stopped, and the topic gives \
         something else for them now ({found}; then: {recorded}): restore the topic's data"
    )]
    OtherGaps {
        /// First offset of the open plan.
        from: Offset,
        /// Its end.
        to: Offset,
        /// What is missing now.
        found: String,
        /// What was missing when the plan was begun.
        recorded: String,
    },
    /// A plan was open when its topic was lost, and the store cannot take it back.
    #[error(
        "offsets {from} to {to} were being written when their topic was lost, and what of them is in the store \
         cannot be found there: items under keys with `{{position}}`. What the source sends again comes under other keys, so \
         some of it could be there twice. Set `on-gap: record` to record these offsets as a gap and go on all the same"
    )]
    NotTakenBack {
        /// First offset of the plan.
        from: Offset,
        /// Its end.
        to: Offset,
    },
    /// More is missing than a ledger row can record.
    #[error("offsets {from} to {to}: {gaps} gaps are more than one plan can record")]
    TooManyGaps {
        /// First offset of the plan.
        from: Offset,
        /// Its end.
        to: Offset,
        /// Gaps found.
        gaps: usize,
    },
    /// The topic ends before the ledger, though it was just looked at.
    #[error(
        "the ledger stands at offset {committed}, but the topic ends at {end}: it became shorter while the \
         partition was taken; start again"
    )]
    Ahead {
        /// First offset that is not committed, or the end of the open plan.
        committed: Offset,
        /// One past the last stored offset.
        end: Offset,
    },
}
