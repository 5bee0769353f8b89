//! A pure model of Kinesis data streams.
//!
//! Time and randomness are arguments: every operation takes `now_ms`, and the
//! seed is given once to [`Kinesis::new`]. The same calls in the same order give
//! the same answers, to the last character of a token. The model never lets
//! time run backwards: an earlier `now_ms` than one already seen counts as the
//! latest seen.

mod config;
mod consumers;
mod error;
mod hash_key;
mod kinesis;
mod limits;
mod listing;
mod reading;
mod record;
mod reshard;
mod sequence_number;
mod settings;
mod shard;
mod stream;
mod subscription;
mod throughput;
mod token;
mod writing;

pub use config::{ModelConfig, ReadLimits, WriteLimits};
pub use consumers::{Consumer, ConsumerName, ConsumerStatus, ConsumersPage};
pub use error::{ErrorKind, KinesisError};
pub use hash_key::{HashKey, HashKeyRange, ParseHashKeyError};
pub use kinesis::{CreateStream, Kinesis};
pub use limits::*;
pub use listing::{
    ListShardsPage, ListShardsQuery, ListStreamsPage, ListStreamsQuery, ShardDescription,
    ShardFilter, ShardsPage, StreamSummary,
};
pub use reading::{ChildShard, GetRecordsPage, IteratorStart};
pub use record::{Event, NewRecord, Record};
pub use reshard::ShardCountChange;
pub use sequence_number::{ParseSequenceNumberError, SequenceNumber};
pub use shard::{ParseShardIdError, ShardId};
pub use stream::{StreamMode, StreamStatus};
pub use subscription::{HalfOpen, Push, PushedEvent, Subscription};
pub use writing::Placement;
