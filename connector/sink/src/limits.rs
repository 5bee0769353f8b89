//! Limits of a sink, in one place.

use std::time::Duration;

/// Buffered packed bytes of one topic partition that make a plan, and at which reading pauses.
/// One plan may be under way while the next is being read, so a partition holds twice this.
pub const PLAN_BYTES: usize = 8 << 20;

/// What the plans of all topic partitions of a sink may hold together: with more than four of them
/// each gets less.
pub const ALL_PLANS_BYTES: usize = 32 << 20;

/// A plan is not made smaller than this for lack of memory: items would not get full.
pub const MIN_PLAN_BYTES: usize = 1 << 20;

/// Buffered packed bytes that make a plan, for a sink with this many topic partitions.
#[must_use]
pub fn plan_bytes(partitions: usize) -> usize {
    (ALL_PLANS_BYTES / partitions.max(1)).clamp(MIN_PLAN_BYTES, PLAN_BYTES)
}

/// Buffered records of one topic partition that make a plan: bounds headers and plain records,
/// which are small but not free.
pub const PLAN_RECORDS: usize = 100_000;

/// Marks that a plan moves at most, so that a ledger row stays below the limits of its store: a plan ends before it moves
/// more. One stored batch is not divided; those of Millpond's source have no more shards.
pub const MAX_MOVED_MARKS: usize = 4_000;

/// Stretches of ordinals of one shard that were recorded as gaps and are known one by one; above that the oldest
/// two become one. Some 200 bytes each, of shards with gaps only.
pub const MAX_STRETCHES_OF_SHARD: usize = 16;

/// Longest wait of data for the first plan of a process that has just taken a topic partition, if
/// `max-age` is not shorter. What it reads first has waited in stream and topic while nobody wrote, for longer
/// than it can know; one plan that is smaller than it could be is the price of a start.
pub const FIRST_PLAN_AGE: Duration = Duration::from_millis(500);

/// A plan is committed without waiting for the next one after this long without data.
pub const IDLE_COMMIT: Duration = Duration::from_millis(500);

/// Longest wait for data in one read of the topic.
pub const READ_WAIT: Duration = Duration::from_secs(1);

/// How often missing data is read again before it is taken for lost, where gaps are passed over.
pub const REREADS: u32 = 3;

/// Wait before the second of these, twice as long before the third: whatever hides the data may
/// need a moment.
pub const REREAD_WAIT: Duration = Duration::from_millis(500);

/// A hand-over to another sink is finished within this time; what is still being written then is
/// left to the other one, which writes it again. Far beyond what a plan takes, unless the store
/// throttles or does not answer.
pub const HAND_OVER_LIMIT: Duration = Duration::from_secs(10);

/// A sink that shares drains for so long; then it commits what it is writing and leaves the rest of a
/// backlog to the other sinks. Within the 30 s after which the process is ended, which would keep the
/// leases until they expire.
pub const SHARED_DRAIN: Duration = Duration::from_secs(20);

/// Longest wait, at the end of a sink, until the store knows that its leases are free. If that fails
/// others take them as those of a dead sink.
pub const LEAVE_LIMIT: Duration = Duration::from_secs(5);
