//! Counters of a running pipeline: written by the connectors, read by whoever shows them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One item that the table has acknowledged.
#[derive(Debug, Clone)]
pub struct WrittenItem {
    /// Partition key value.
    pub pk: String,
    /// Sort key value.
    pub sk: String,
    /// When the write was acknowledged, milliseconds since the Unix epoch.
    pub acknowledged_ms: i64,
}

/// Called for every acknowledged item; must be quick and must not block.
pub type WrittenHook = Box<dyn Fn(&WrittenItem) + Send + Sync>;

/// Counters of one pipeline.
#[derive(Default)]
pub struct Metrics {
    /// Events read from the stream.
    pub source_events: Counter,
    /// Bytes of those events.
    pub source_bytes: Counter,
    /// Records that begin like aggregated ones and are none.
    pub aggregates_broken: Counter,
    /// Events of aggregated records that were dropped because they belong to another shard.
    pub aggregates_stray: Counter,
    /// Events durable in the topic.
    pub topic_events: Counter,
    /// Reads that the stream throttled.
    pub source_throttles: Counter,
    /// Shards that are read to the newest record (or to their end), of those known.
    pub shards_caught_up: AtomicU64,
    /// Shards known to the source.
    pub shards_known: AtomicU64,
    /// Set to 1 by the source once everything that was in the stream at start is durable in the topic.
    pub caught_up: AtomicU64,
    /// Events acknowledged by the table.
    pub sink_events: Counter,
    /// Raw bytes of those events.
    pub sink_event_bytes: Counter,
    /// Items acknowledged by the table.
    pub items: Counter,
    /// Bytes of those items by DynamoDB's sizing rules.
    pub item_bytes: Counter,
    /// Thousandths of write units that the server reported, every write included.
    pub write_units_reported_milli: Counter,
    /// Write units computed from item sizes, items with events only.
    pub write_units_items: Counter,
    /// Write units computed for ledger and directory rows.
    pub write_units_overhead: Counter,
    /// Requests that the table throttled.
    pub sink_throttles: Counter,
    /// Events put into the dead-letter queue.
    pub dead_letters: Counter,
    /// Events dropped because they were delivered before.
    pub duplicates_dropped: Counter,
    /// Events that another one of the same key has won over, where a mapping says which one is kept.
    pub events_superseded: Counter,
    /// Ledger commits.
    pub commits: Counter,
    /// Gaps that were recorded and passed over.
    pub gaps: Counter,
    /// Records that those gaps say are lost, at most.
    pub gap_records: Counter,
    /// Topic partitions that stopped because of what is in them, or because another process took them.
    pub partitions_halted: Counter,
    /// Topic partitions that a sink holds now, halted ones among them.
    pub partitions_held: AtomicU64,
    written_hook: Mutex<Option<WrittenHook>>,
}

impl Metrics {
    /// Registers the hook that sees every acknowledged item.
    pub fn on_written(&self, hook: WrittenHook) {
        if let Ok(mut slot) = self.written_hook.lock() {
            *slot = Some(hook);
        }
    }

    /// Tells the hook, if there is one.
    pub fn item_written(&self, item: &WrittenItem) {
        if let Ok(slot) = self.written_hook.lock()
            && let Some(hook) = slot.as_ref()
        {
            hook(item);
        }
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
