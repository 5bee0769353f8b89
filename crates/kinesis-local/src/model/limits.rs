//! Every limit that the model knows, with where it comes from.
//!
//! Sources, read 2026-11-23 as quoted in the documentation of `aws-sdk-kinesis` 1.130:
//! the API reference of the operation named at each constant, and the page
//! "Quotas and limits" (`docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html`).

/// Records in one `PutRecords` request. Source: API reference, `PutRecords`.
pub const MAX_PUT_RECORDS: usize = 500;
/// Bytes of data and partition keys in one `PutRecords` request. Source: API reference, `PutRecords`.
pub const MAX_PUT_BYTES: usize = 10 * MIB;
/// Characters of a partition key. Source: API reference, `PutRecord`.
pub const MAX_PARTITION_KEY_CHARS: usize = 256;
/// Smallest setting of a stream's largest record, in KiB, and the default. Source: API reference, `UpdateMaxRecordSize`.
pub const MIN_MAX_RECORD_KIB: u32 = 1_024;
/// Largest setting of a stream's largest record, in KiB. Source: API reference, `UpdateMaxRecordSize`.
pub const MAX_MAX_RECORD_KIB: u32 = 10_240;
/// Records in one `GetRecords` answer, and the default. Source: API reference, `GetRecords`.
pub const MAX_GET_RECORDS: usize = 10_000;
/// Bytes of data and partition keys in one `GetRecords` answer. Source: API reference, `GetRecords`.
pub const MAX_GET_BYTES: usize = 10 * MIB;
/// Life of a shard iterator, in milliseconds. Source: API reference, `GetShardIterator`.
pub const ITERATOR_LIFE_MS: u64 = 300_000;
/// Life of a `NextToken`, in milliseconds. Source: API reference, `ListShards`.
pub const NEXT_TOKEN_LIFE_MS: u64 = 300_000;
/// Default and smallest retention, in hours. Source: API reference, `DecreaseStreamRetentionPeriod`.
pub const MIN_RETENTION_HOURS: u32 = 24;
/// Largest retention, in hours: 365 days. Source: API reference, `IncreaseStreamRetentionPeriod`.
pub const MAX_RETENTION_HOURS: u32 = 8_760;
/// Open shards of one stream. Source: API reference, `UpdateShardCount` (the default quota).
pub const MAX_SHARDS_PER_STREAM: u32 = 10_000;
/// Shards of a new on-demand stream. Source: developer guide, "Choose the data stream capacity mode".
pub const ON_DEMAND_INITIAL_SHARDS: u32 = 4;
/// Shards in one page of `ListShards` unless fewer are asked for, and the most. Source: API reference, `ListShards`.
pub const LIST_SHARDS_PAGE: usize = 1_000;
/// Largest accepted `MaxResults` or `Limit` of a listing. Source: API reference, `ListShards`, `DescribeStream`.
pub const MAX_LISTING_LIMIT: usize = 10_000;
/// Shards in one page of `DescribeStream` unless told otherwise. Source: API reference, `DescribeStream`.
pub const DESCRIBE_STREAM_PAGE: usize = 100;
/// Streams in one page of `ListStreams` unless told otherwise. Source: API reference, `ListStreams`.
pub const LIST_STREAMS_PAGE: usize = 100;
/// Characters of a stream name. Source: API reference, `CreateStream`.
pub const MAX_STREAM_NAME_CHARS: usize = 128;
/// Bytes a second that one shard takes in, partition keys included. Source: quotas page.
pub const SHARD_WRITE_BYTES_PER_SECOND: u64 = MIB as u64;
/// Records a second that one shard takes in. Source: quotas page.
pub const SHARD_WRITE_RECORDS_PER_SECOND: u64 = 1_000;
/// Bytes a second that one shard gives out. Source: quotas page; API reference, `GetRecords`.
pub const SHARD_READ_BYTES_PER_SECOND: u64 = 2 * MIB as u64;
/// `GetRecords` calls a second on one shard. Source: quotas page.
pub const SHARD_READ_CALLS_PER_SECOND: u64 = 5;
/// Consumers of one stream. Source: API reference, `RegisterStreamConsumer` (50 with on-demand advantage, which is not modelled).
pub const MAX_CONSUMERS: usize = 20;
/// Consumers of one stream that may be `CREATING` at once. Source: API reference, `RegisterStreamConsumer`.
pub const MAX_CONSUMERS_IN_THE_MAKING: usize = 5;
/// Characters of a consumer's name. Source: API reference, `RegisterStreamConsumer`.
pub const MAX_CONSUMER_NAME_CHARS: usize = 128;
/// Consumers in one page of `ListStreamConsumers` unless told otherwise. Source: API reference, `ListStreamConsumers`.
pub const LIST_CONSUMERS_PAGE: usize = 100;
/// Life of a subscription, in milliseconds. Source: API reference, `SubscribeToShard`.
pub const SUBSCRIPTION_LIFE_MS: u64 = 300_000;
/// After a subscription, so long no other one of the same consumer and shard, in milliseconds.
/// Source: API reference, `SubscribeToShard`.
pub const SUBSCRIPTION_SPACING_MS: u64 = 5_000;
/// Time between two events of a subscription without news, in milliseconds. Undocumented; other
/// emulators do it so.
pub const IDLE_EVENT_MS: u64 = 5_000;
/// Bytes of data and partition keys in one pushed event; a larger record has its own. Undocumented.
pub const MAX_PUSH_BYTES: usize = MIB;

pub(crate) const MIB: usize = 1024 * 1024;
pub(crate) const HOUR_MS: u64 = 3_600_000;
