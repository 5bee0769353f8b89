//! Limits of the sink, in one place.

use std::time::Duration;

/// Most puts of one `BatchWriteItem` (DynamoDB API reference, `BatchWriteItem`, read 2026-11-23).
pub const MAX_BATCH_ITEMS: usize = 25;

/// Most bytes of one `BatchWriteItem` (same page: 16 MB of requests).
pub const SERVICE_BATCH_BYTES: usize = 16_000_000;

/// Bytes at which we close a request. Far below the service's limit: an item grows by a third
/// on the wire (base64), and smaller requests overlap better and cost less memory.
pub const MAX_BATCH_BYTES: usize = 2 << 20;

/// Bytes of all requests of a sink that are under way at one time, before base64.
pub const MAX_IN_FLIGHT_BYTES: usize = 8 << 20;

/// Requests of one topic partition that are under way at one time.
pub const MAX_IN_FLIGHT_REQUESTS: usize = 4;

/// Reads of chain states that are under way at one time, per topic partition.
pub const MAX_IN_FLIGHT_LOOKUPS: usize = 16;

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

/// Chains whose state is kept per topic partition; others are read back from the table.
pub const MAX_CHAINS: usize = 20_000;

/// Most items of a chain that are looked at for its last committed one. A plan holds at most
/// [`PLAN_BYTES`] and a chunk, so this many items of one group cannot be reached by one intent.
pub const MAX_TAIL_ITEMS: usize = 200_000;

/// A plan is committed without waiting for the next one after this long without data.
pub const IDLE_COMMIT: Duration = Duration::from_millis(500);

/// Longest wait for data in one read of the topic.
pub const READ_WAIT: Duration = Duration::from_secs(1);

/// Least lateness bound of a chain: a smaller one would be raised again and again,
/// and each raise is a write.
pub const MIN_LATE_MS: i64 = 1 << 16;

/// Shards that one ledger row can mark (1,000 shards and many generations of reshards).
pub const MAX_MARKS: usize = 8_192;

/// Dead-letter bytes in one row of a dead-letter table; a longer entry takes several rows.
pub const DEAD_LETTER_ROW_BYTES: usize = 350_000;

/// How long a new table may take to become active before it is an error.
pub const TABLE_ACTIVE_WITHIN: Duration = Duration::from_secs(600);
