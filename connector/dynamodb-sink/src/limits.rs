//! Limits of the table and of the calls to it, in one place.

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

/// Rows of one partition key with more units than this in a plan, a quarter of a second of the key's limit,
/// make requests of their own.
pub const CROWDED_KEY_UNITS: u64 = 250;

/// How long a write waits for the table to say its capacity; without an answer it goes on as before.
pub const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// Items of one topic partition that are put one by one, each under its condition, at one time.
pub const MAX_IN_FLIGHT_PUTS: usize = 32;

/// Reads of chain states that are under way at one time, per topic partition.
pub const MAX_IN_FLIGHT_LOOKUPS: usize = 16;

/// Chains whose state is kept per topic partition; others are read back from the table.
pub const MAX_CHAINS: usize = 20_000;

/// Most items of a chain that are looked at for its last committed one. A plan holds at most
/// [`millpond_sink::limits::PLAN_BYTES`] and a chunk, so this many items of one group cannot be reached by one intent.
pub const MAX_TAIL_ITEMS: usize = 200_000;

/// Least lateness bound of a chain. A smaller one would be raised again and again, and each raise is a write; a larger
/// one makes every slice read so many milliseconds of items more. An item of the default `max-age` fits it.
pub const MIN_LATE_MS: i64 = 1 << 13;

/// Most write shards of a chain: 64,000 units a second, more than the quota of a table (DynamoDB developer guide,
/// "Quotas": 40,000, read 2026-11-26). A reader asks each of them.
pub const MAX_WRITE_SHARDS: u32 = 64;

/// Bytes that an intent has for the numbers of write shards of its groups.
pub const MAX_NOTE_BYTES: usize = 8 << 10;

/// A request whose signature is older is refused, and so is one that is from further in the future (IAM user guide,
/// "AWS Signature Version 4 for API requests": "a request must reach AWS within five minutes of the time stamp in the
/// request"; the service's own words: `Signature expired: … is now earlier than … (… - 5 min.)`; read 2026-11-26).
pub const SIGNATURE_LIFE: Duration = Duration::from_secs(5 * 60);

/// Dead-letter bytes in one row of a dead-letter table; a longer entry takes several rows.
pub const DEAD_LETTER_ROW_BYTES: usize = 350_000;

/// How long a new table may take to become active before it is an error.
pub const TABLE_ACTIVE_WITHIN: Duration = Duration::from_secs(600);
