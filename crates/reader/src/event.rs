//! An event as it comes out of the table.

use std::sync::Arc;

use bytes::Bytes;

/// One event, byte for byte as it was produced, with where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event. It shares memory with the rest of its frame (about 64 KiB): copy it to keep
    /// it long.
    pub value: Bytes,
    /// Event time, milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// Topic partition that it went through, which names its chain.
    pub topic_partition: u32,
    /// Where in the stream it was read.
    pub origin: EventOrigin,
    /// Item that holds it, or its last part.
    pub item: ItemKey,
}

/// Where in the stream an event was read, as far as items keep it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventOrigin {
    /// Stream name.
    pub stream: Arc<str>,
    /// Shard id.
    pub shard: Arc<str>,
    /// Numbering that the ordinal belongs to.
    pub epoch: u64,
    /// Place among the events that the shard sent to the topic partition in this numbering.
    pub ordinal: u64,
}

/// Key of an item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemKey {
    /// Partition key value.
    pub pk: Arc<str>,
    /// Sort key value.
    pub sk: Arc<str>,
}
