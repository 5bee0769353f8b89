//! Counters of a running pipeline: written by the connectors, read by whoever shows them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde::Serialize;

use crate::board::Board;
use crate::stream_clock::StreamClock;
use crate::topic::{Offset, PartitionId};

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

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Replaces the value.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
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

/// What is counted of one kind of thing: a struct of counters and gauges, and a plain copy of it,
/// from one list, so that nothing is counted and not shown.
macro_rules! counted {
    (
        $(#[$struct_doc:meta])* $name:ident,
        $(#[$copy_doc:meta])* $copy:ident,
        { $($(#[$doc:meta])* $field:ident: $kind:ty,)* }
        $({ $($(#[$more_doc:meta])* $more:vis $more_field:ident: $more_kind:ty,)* })?
    ) => {
        $(#[$struct_doc])*
        #[derive(Default)]
        pub struct $name {
            $($(#[$doc])* pub $field: $kind,)*
            $($($(#[$more_doc])* $more $more_field: $more_kind,)*)?
        }

        $(#[$copy_doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
        pub struct $copy {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl $name {
            /// The numbers now.
            #[must_use]
            pub fn copy(&self) -> $copy {
                $copy { $($field: self.$field.read(),)* }
            }
        }

        impl $copy {
            /// Names of the numbers.
            pub const FIELDS: &[&str] = &[$(stringify!($field)),*];

            /// One of the numbers by its name, to change it.
            pub fn field_mut(&mut self, name: &str) -> Option<&mut u64> {
                match name {
                    $(stringify!($field) => Some(&mut self.$field),)*
                    _ => None,
                }
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.copy().fmt(f)
            }
        }
    };
}

/// A number that can be read.
trait Readable {
    fn read(&self) -> u64;
}

impl Readable for Counter {
    fn read(&self) -> u64 {
        self.get()
    }
}

impl Readable for Gauge {
    fn read(&self) -> u64 {
        self.get()
    }
}

impl Readable for AtomicU64 {
    fn read(&self) -> u64 {
        self.load(Ordering::Acquire)
    }
}

counted! {
    /// What one connector counts.
    Metrics,
    /// [`Metrics`] at one moment.
    MetricsCopy,
    {
        /// Events read from the stream.
        source_events: Counter,
        /// Bytes of those events.
        source_bytes: Counter,
        /// Records that begin like aggregated ones and are none: dead letters.
        aggregates_broken: Counter,
        /// Compressed payloads that could not be opened: dead letters.
        payloads_unopened: Counter,
        /// Events of aggregated records that were dropped because they belong to another shard.
        aggregates_stray: Counter,
        /// Events durable in the topic.
        topic_events: Counter,
        /// Reads that the stream throttled.
        source_throttles: Counter,
        /// Reads that the stream answered, by polling.
        source_reads: Counter,
        /// Positions in a shard that had expired, and were taken anew.
        source_iterators_refreshed: Counter,
        /// Subscriptions to shards that the stream accepted, by fan-out.
        subscriptions: Counter,
        /// Those that ended before their time, or fell silent.
        subscriptions_broken: Counter,
        /// Times that a shard was polled because subscriptions to it did not work.
        source_fallbacks: Counter,
        /// Losses of the stream that were recorded as gaps: events removed before they were read.
        stream_gaps: Counter,
        /// Changes of the stream's retention period that a source made.
        retention_changes: Counter,
        /// Changes of the stream's number of shards that a source made.
        shard_count_changes: Counter,
        /// Shards that are read to the newest record (or to their end), of those known.
        shards_caught_up: AtomicU64,
        /// Shards known to the source.
        shards_known: AtomicU64,
        /// Set to 1 by the source once everything that was in the stream at start is durable in the topic.
        caught_up: AtomicU64,
        /// Events acknowledged by the table.
        sink_events: Counter,
        /// Raw bytes of those events.
        sink_event_bytes: Counter,
        /// Items acknowledged by the table.
        items: Counter,
        /// Bytes of those items by DynamoDB's sizing rules.
        item_bytes: Counter,
        /// Thousandths of write units that the server reported, every write included.
        write_units_reported_milli: Counter,
        /// Write units computed from item sizes, items with events only.
        write_units_items: Counter,
        /// Write units computed for ledger and directory rows.
        write_units_overhead: Counter,
        /// Those of them that went into ledger updates and their snapshots of marks.
        write_units_ledger: Counter,
        /// Microseconds that plans took from their decision to the last write, commits alone included.
        flush_micros: Counter,
        /// Those of them that were spent in ledger updates.
        ledger_micros: Counter,
        /// Small items that were packed anew.
        items_repacked: Counter,
        /// Write units that this saved.
        units_saved_repacking: Counter,
        /// Id of the dictionary that small items are packed with, 0 for none.
        dictionary: Gauge,
        /// Requests that the table throttled, in whole or in part.
        sink_throttles: Counter,
        /// Of those: over the capacity of the table, provisioned, or the maximum set for on-demand.
        throttles_table: Counter,
        /// Of those: over the capacity of an index.
        throttles_index: Counter,
        /// Of those: over that of a range of keys, a hot partition key or partitions that are too few.
        throttles_key_range: Counter,
        /// Of those: over a quota of the account.
        throttles_account: Counter,
        /// Of those: no reason was given.
        throttles_unnamed: Counter,
        /// Of those: batches of which the table left something unprocessed.
        throttles_unprocessed: Counter,
        /// Write requests that were sent to the tables of the items and of the dead letters, each try.
        sink_requests: Counter,
        /// Thousandths of write units a second that a sink may spend now.
        write_budget_milli: Gauge,
        /// Times that a partition key was found to be held back by its own limit.
        hot_keys: Counter,
        /// Times that a chain of items was given more write shards.
        chains_spread: Counter,
        /// Events put into the dead-letter queue.
        dead_letters: Counter,
        /// Events dropped because they were delivered before.
        duplicates_dropped: Counter,
        /// Events that another one of the same key has won over, where a mapping says which one is kept.
        events_superseded: Counter,
        /// Ledger commits.
        commits: Counter,
        /// Gaps that were recorded and passed over.
        gaps: Counter,
        /// Records that those gaps say are lost, at most.
        gap_records: Counter,
        /// Topic partitions that stopped because of what is in them, or because another process took them.
        partitions_halted: Counter,
        /// Topic partitions that a sink holds now, halted ones among them.
        partitions_held: AtomicU64,
        /// Leases that this process took.
        leases_taken: Counter,
        /// Leases that it lost without giving them up.
        leases_lost: Counter,
        /// Leases that it gave to another process, or back.
        leases_handed_over: Counter,
        /// Write units that one item per event would have cost for the events acknowledged, by the
        /// mean size of the events of each item.
        write_units_per_event: Counter,
    }
    {
        /// Where the topic partitions of a sink stand.
        pub partitions: Board<PartitionId, PartitionStanding>,
        stream_clock: Mutex<Option<Arc<StreamClock>>>,
        written_hook: Mutex<Option<WrittenHook>>,
    }
}

counted! {
    /// What an embedded topic counts.
    TopicMetrics,
    /// [`TopicMetrics`] at one moment.
    TopicMetricsCopy,
    {
        /// Batches made durable.
        appended_batches: Counter,
        /// Records of those batches.
        appended_records: Counter,
        /// Encoded bytes of those batches.
        appended_bytes: Counter,
        /// Batches that the SmartModules of readers were given.
        module_batches: Counter,
        /// Encoded bytes of those batches.
        module_input_bytes: Counter,
        /// Records that came out.
        module_output_records: Counter,
        /// Bytes of keys and values of those records.
        module_output_bytes: Counter,
        /// Time in SmartModules, microseconds.
        module_micros: Counter,
        /// Batches on which a SmartModule failed.
        module_failures: Counter,
    }
}

/// Where a sink stands in one topic partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PartitionStanding {
    /// First offset that is not in the store.
    pub written: Offset,
    /// Time of the oldest event that was read and is not in the store, milliseconds since the
    /// Unix epoch; `None` when nothing waits.
    pub oldest_waiting_ms: Option<i64>,
    /// Why it cannot go on.
    pub halted: Option<String>,
    /// Over what the groups of the last plan are spread, where a store spreads them.
    pub spread: Option<KeySpread>,
}

/// Groups of a plan, and the partition keys of the table that they have by now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct KeySpread {
    /// Groups.
    pub groups: u64,
    /// Partition keys of all of them: a group has one for each of its write shards.
    pub keys: u64,
    /// Partition keys of the group that has most.
    pub most: u64,
}

impl Metrics {
    /// Grows whenever a sink gets on: with each commit, and with each item on the way to one.
    pub fn steps(&self) -> u64 {
        self.commits.get() + self.items.get()
    }

    /// Registers the hook that sees every acknowledged item.
    pub fn on_written(&self, hook: WrittenHook) {
        if let Ok(mut slot) = self.written_hook.lock() {
            *slot = Some(hook);
        }
    }

    /// A source read its clocks on data loss.
    pub fn set_stream_clock(&self, clock: StreamClock) {
        if let Ok(mut slot) = self.stream_clock.lock() {
            *slot = Some(Arc::new(clock));
        }
    }

    /// The clocks as they were read last; `None` before that, and of a sink.
    #[must_use]
    pub fn stream_clock(&self) -> Option<Arc<StreamClock>> {
        self.stream_clock.lock().ok()?.clone()
    }

    /// A topic partition stopped, and why.
    pub fn halted(&self, partition: PartitionId, why: String) {
        self.partitions_halted.add(1);
        self.partitions
            .update(partition, |at| at.halted = Some(why));
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
