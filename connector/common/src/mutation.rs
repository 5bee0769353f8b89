//! Deliberate mistakes: what the simulation is held to find.
//!
//! Each is one line where the right thing is done. Without the feature `mutations` [`is`] is
//! `false` at compile time and nothing of this is left; with it, a mistake is made only
//! on the thread that has selected it.

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// The source's checkpoint moves before its events are durable in the topic.
    CheckpointBeforeProduce,
    /// A failed append counts as a good one.
    AppendErrorIgnored,
    /// A shard starts before its parents are delivered.
    ChildBeforeParent,
    /// A shard counts as finished with its first answer.
    FinishedTooEarly,
    /// Reading goes on with the last delivered record, not after it.
    PositionOneOff,
    /// After an expired iterator the shard is read from its beginning.
    ExpiredIteratorRewinds,
    /// A restarted source counts its ordinals from 0 again.
    OrdinalsForgotten,
    /// The topic partition follows from the shard, not from the partition key.
    RoutedByShard,
    /// Missing offsets and ordinals are not looked for.
    GapCheckOff,
    /// The last event below the high-water mark counts as new.
    HighWaterOneOff,
    /// Events that were delivered before are written again.
    DuplicatesKept,
    /// A commit leaves the marks as they were.
    MarksNotCommitted,
    /// Items are written without an intent.
    NoIntent,
    /// A plan is committed before it is written.
    CommitBeforeWrite,
    /// A commit leaves the row's number as it was, so that a claim may undo it.
    CommitNotNumbered,
    /// An open intent is not written again, reading starts anew at its beginning.
    ReplaySkipped,
    /// The ledger row is replaced whoever holds it.
    FenceSkipped,
    /// Who was fenced goes on as if its step had succeeded.
    FencedGoesOn,
    /// Taking a partition leaves the epoch as it was.
    EpochNotRaised,
    /// What a batch left unprocessed counts as written.
    UnprocessedIgnored,
    /// A write without an answer counts as written.
    TimeoutIsSuccess,
    /// The key of an item differs from try to try.
    KeyNotIdempotent,
    /// Dead letters are not put away.
    DeadLettersDropped,
    /// The topic may forget what is planned but not committed.
    ReleasedTooFar,
    /// The write budget is not waited for.
    BudgetIgnored,
    /// A gap is in its intent only, and forgotten with it.
    GapNotRecorded,
    /// An event that comes after its place was recorded as a gap is dropped as one that was written.
    LateDropped,
    /// What was recorded as a gap is not known to later plans.
    GapsForgotten,
    /// What is missing at the first look counts as gone.
    GapAtFirstSight,
    /// How many records SmartModules removed is not counted.
    RemovedNotCounted,
    /// An open plan is finished with the present configuration, whatever it was begun with.
    OldConfigurationIgnored,
    /// An open plan is finished with the dictionary of today, whichever it was begun with.
    ChoiceMadeAnew,
    /// A shard's row is replaced whoever has its lease.
    ShardFenceSkipped,
    /// An intent does not say how many write shards its plan goes round.
    WriteShardsNotRecorded,
    /// The directory does not list the write shards that a chain gets later.
    ShardNotListed,
    /// What was written of a plan whose topic is lost stays where it is.
    UndoSkipped,
    /// Such a plan is taken back at once, though what its writer sent may still arrive.
    UndoNotAwaited,
    /// A writer sends whatever has become of its ledger row since it last knew.
    LookSkipped,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 38] = [
        Self::CheckpointBeforeProduce,
        Self::AppendErrorIgnored,
        Self::ChildBeforeParent,
        Self::FinishedTooEarly,
        Self::PositionOneOff,
        Self::ExpiredIteratorRewinds,
        Self::OrdinalsForgotten,
        Self::RoutedByShard,
        Self::GapCheckOff,
        Self::HighWaterOneOff,
        Self::DuplicatesKept,
        Self::MarksNotCommitted,
        Self::NoIntent,
        Self::CommitBeforeWrite,
        Self::CommitNotNumbered,
        Self::ReplaySkipped,
        Self::FenceSkipped,
        Self::FencedGoesOn,
        Self::EpochNotRaised,
        Self::UnprocessedIgnored,
        Self::TimeoutIsSuccess,
        Self::KeyNotIdempotent,
        Self::DeadLettersDropped,
        Self::ReleasedTooFar,
        Self::BudgetIgnored,
        Self::GapNotRecorded,
        Self::LateDropped,
        Self::GapsForgotten,
        Self::GapAtFirstSight,
        Self::RemovedNotCounted,
        Self::OldConfigurationIgnored,
        Self::ChoiceMadeAnew,
        Self::ShardFenceSkipped,
        Self::WriteShardsNotRecorded,
        Self::ShardNotListed,
        Self::UndoSkipped,
        Self::UndoNotAwaited,
        Self::LookSkipped,
    ];
}

#[cfg(feature = "mutations")]
thread_local! {
    static SELECTED: std::cell::Cell<Option<Mutation>> = const { std::cell::Cell::new(None) };
}

/// From now on this thread makes the mistake; `None` makes none.
#[cfg(feature = "mutations")]
pub fn select(mutation: Option<Mutation>) {
    SELECTED.set(mutation);
}

/// True where the mistake is to be made.
#[cfg(feature = "mutations")]
#[must_use]
pub fn is(mutation: Mutation) -> bool {
    SELECTED.get() == Some(mutation)
}

/// True where the mistake is to be made: never in this build.
#[cfg(not(feature = "mutations"))]
#[inline(always)]
#[must_use]
pub const fn is(_: Mutation) -> bool {
    false
}
