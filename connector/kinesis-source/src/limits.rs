//! Every limit of this source in one place, each with the page it comes from.

use std::time::Duration;

/// `GetRecords` calls a second that one shard answers, over all its polling consumers
/// (Kinesis developer guide, "Quotas and limits", read 2026-11-23).
pub const SHARD_READS_PER_SECOND: u32 = 5;

/// Bytes a second that one shard gives to all its polling consumers
/// (Kinesis API reference, `GetRecords`, read 2026-11-23: 2 MiB).
pub const SHARD_READ_BYTES_PER_SECOND: u64 = 2 << 20;

/// Bytes a second that one shard takes in (Kinesis developer guide, "Quotas and limits", read 2026-11-23: 1 MB).
pub const SHARD_WRITE_BYTES_PER_SECOND: u64 = 1_000_000;

/// Time between two readings of the clocks on data loss.
pub const CLOCK_INTERVAL: Duration = Duration::from_secs(10);

/// Time between two looks at the stream's retention period and shards; an account may make 20 calls of
/// `DescribeStreamSummary` a second (Kinesis API reference, read 2026-11-26).
pub const DESCRIBE_INTERVAL: Duration = Duration::from_secs(60);

/// A warning that still holds is said again after so long.
pub const WARNING_INTERVAL: Duration = Duration::from_secs(600);

/// Shortest and longest retention period, hours (Kinesis API reference, `IncreaseStreamRetentionPeriod`, read
/// 2026-11-26).
pub const RETENTION_HOURS: std::ops::RangeInclusive<u32> = 24..=8_760;

/// Younger than this a record is there, whatever is known of the period: the shortest is 24 hours, of which one is
/// left to clocks that differ.
pub const SURELY_KEPT_MS: i64 = 23 * 3_600_000;

/// Largest `Limit` of one `GetRecords` call (Kinesis API reference, `GetRecords`, read 2026-11-23).
pub const MAX_RECORDS_PER_READ: u32 = 10_000;

/// Largest answer of one `GetRecords` call, after which the shard throttles until the
/// bytes are paid for (Kinesis API reference, `GetRecords`, read 2026-11-23).
pub const MAX_BYTES_PER_READ: u64 = 10 << 20;

/// Shards asked for in one page of `ListShards`: the service's default, of at most 10,000
/// (Kinesis API reference, `ListShards`, read 2026-11-23).
pub const SHARDS_PER_PAGE: i32 = 1_000;

/// Most pages of one listing. A stream of 10 million shards does not exist: more pages
/// mean an endpoint that never ends its listing.
pub const MAX_PAGES: usize = 10_000;

/// Time between two listings of the shards. `GetRecords` names the children at a shard's end, so
/// that a listing only finds what was missed and forgets what has expired; the service
/// allows 1,000 `ListShards` calls a second and stream (Kinesis API reference, `ListShards`,
/// read 2026-11-23).
pub const LISTING_INTERVAL: Duration = Duration::from_secs(60);

/// Shortest time between two listings, whatever asks for one.
pub const LISTING_SPACING: Duration = Duration::from_secs(1);

/// Bytes that one answer is aimed at, by way of `Limit`: two reads a second then use up a
/// shard's 2 MiB/s and leave three reads a second to other consumers, and an answer that
/// waits to be delivered costs little memory.
pub const READ_TARGET_BYTES: u64 = 1 << 20;

/// `Limit` of a shard's first read, before its record size is known: few, so that large
/// records do not fill the memory when many shards start together.
pub const FIRST_READ_LIMIT: u32 = 20;

/// Longest time between two reads of a shard that others read, too, and that throttles: half a read
/// a second, so that nobody starves.
pub const LONGEST_THROTTLED_INTERVAL: Duration = Duration::from_secs(2);

/// Consumers that one stream can have (Kinesis API reference, `RegisterStreamConsumer`, read 2026-11-26; 50 with
/// on-demand advantage).
pub const MAX_CONSUMERS: usize = 20;

/// Longest name of a consumer (Kinesis API reference, `RegisterStreamConsumer`, read 2026-11-26).
pub const MAX_CONSUMER_NAME_BYTES: usize = 128;

/// How long the registration of a consumer is repeated while the service says that a limit is
/// reached: too many calls a second say the same as too many consumers.
pub const REGISTER_PATIENCE: Duration = Duration::from_secs(15);

/// Time between two looks at a consumer that is being made.
pub const CONSUMER_POLL: Duration = Duration::from_secs(1);

/// A consumer that is not active by then is worth a warning.
pub const CONSUMER_ACTIVE_WITHIN: Duration = Duration::from_secs(60);

/// A second subscription of the same consumer and shard within so long is refused (Kinesis API
/// reference, `SubscribeToShard`, read 2026-11-26: 5 s), and some for clocks and the way there.
pub const SUBSCRIBE_SPACING: Duration = Duration::from_millis(5_200);

/// Age at which a subscription is replaced. The service ends it after five minutes (Kinesis API
/// reference, `SubscribeToShard`, read 2026-11-26).
pub const RENEWAL_AGE: Duration = Duration::from_secs(285);

/// A call for a subscription that is not answered by then counts as failed.
pub const SUBSCRIBE_LIMIT: Duration = Duration::from_secs(10);

/// A subscription without an event, not even an empty one, for so long is half open. How often the service sends
/// empty ones is undocumented; emulators do it each five seconds. A false alarm costs a
/// new subscription. Below [`STALL_PATIENCE`], so that a shard is not given up for it.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(20);

/// With `fall-back: polling`, so many attempts must have failed, and for
pub const FALL_BACK_ATTEMPTS: u32 = 3;

/// so long, before a shard is polled,
pub const FALL_BACK_PATIENCE: Duration = Duration::from_secs(30);

/// for this time, after which a subscription is tried again.
pub const POLL_INSTEAD: Duration = Duration::from_secs(300);

/// Time between two saves of the checkpoint while something moves.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// The same where it is a table, which bills a write for each shard that moved: 720 an hour. What
/// was sent since the last one is sent again after a crash, and recognised.
pub const SHARED_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);

/// A shard of which no answer comes, or what was read of it does not get into the topic, for so long is given up to
/// others where shards are shared: longer than a read may hang before it is repeated on another connection. The
/// pauses between two reads of a silent shard come on top. A shard that is to be handed over is let go
/// after as long.
pub const STALL_PATIENCE: Duration = Duration::from_secs(30);

/// Time between two looks for shards that stand still.
pub const STALL_LOOK: Duration = Duration::from_secs(1);

/// How long a process that gave a shard up takes no other.
pub const STALL_REST: Duration = Duration::from_secs(60);

/// How often the patience with a shard is doubled that came back where it was given up: up to 16 minutes. What is slow
/// for everybody must not make leases wander.
pub const STALL_DOUBLINGS: u32 = 5;

/// A worker of the Kinesis Client Library counts as dead when it renewed none of its leases for so long. It renews each
/// third of its `failoverTimeMillis` (`LeaseCoordinator.getRenewerTakerIntervalMillis` of
/// awslabs/amazon-kinesis-client 3.5.1, read 2026-11-26; 10 s by default), which no row says: this is
/// good up to 90 s of it, with room for a renewal that fails.
pub const LIBRARY_SILENCE: Duration = Duration::from_secs(60);

/// Rows of a lease table written at the same time.
pub const TABLE_WRITES_AT_ONCE: usize = 32;

/// Rows that are read at the same time because their leases were just taken.
pub const CLAIMS_AT_ONCE: usize = 32;

/// A new table that is not active by then is worth a warning.
pub const TABLE_ACTIVE_WITHIN: Duration = Duration::from_secs(60);

/// Longest that giving back the leases may take at the end of a drain; others take them
/// over in any case, only later.
pub const LEAVE_LIMIT: Duration = Duration::from_secs(3);

/// How far the proof "read to the newest record at this time" may run ahead of the saved one
/// before it alone is worth a save.
pub const READ_THROUGH_GRANULARITY_MS: i64 = 60_000;

/// Longest that a drain may take before the source gives up and says so; below the 30 s
/// within which `millpond run` promises to end.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(25);

/// An open batch that has so many bytes will be filled, and is given room for all of it at once: grown by doubling, each
/// event would be copied once more. Below, a batch takes what its few events need.
pub const GROWN_BYTES: usize = 64 << 10;

/// Most shards of one stored batch, counted by turns: a sink keeps in its ledger how far each of them is in a plan that
/// is being written, at most 4,000, and a batch is never divided over plans.
pub const MAX_SHARDS_PER_BATCH: usize = 4_000;

/// Most records in one stored batch, whatever their size.
pub const MAX_RECORDS_PER_BATCH: u32 = 100_000;

/// Batches of a topic partition, and answers of a shard, that wait to be released by the topic's consumers before they
/// are known less finely.
pub const MAX_AWAITING: usize = 512;

/// Time between two questions how far the topic's consumers are.
pub const RELEASE_INTERVAL: Duration = Duration::from_secs(1);

/// Time between two looks whether consumers have noticed that the topic is another one.
pub const ANEW_POLL: Duration = Duration::from_secs(1);

/// Largest checkpoint file of an earlier version that is read: about 200 bytes a shard and 20 a topic partition.
pub const MAX_CHECKPOINT_BYTES: u64 = 64 << 20;
