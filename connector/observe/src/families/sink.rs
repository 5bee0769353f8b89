//! What sinks count, what follows from it, and what they say of their topic partitions.

use millpond_connector::metrics::MetricsCopy;

use super::{Family, Values, counter, gauge};

/// Bytes in the items over the bytes that the write units paid for could have held.
#[must_use]
pub fn fill(counted: &MetricsCopy) -> f64 {
    ratio(counted.item_bytes, counted.write_units_items * 1_024)
}

/// How many times the write units of one item per event would have been those computed for what was written.
#[must_use]
pub fn saving(counted: &MetricsCopy) -> f64 {
    let paid = counted.write_units_items + counted.write_units_overhead;
    ratio(counted.write_units_per_event, paid)
}

/// 0 while there is nothing to divide by.
fn ratio(above: u64, below: u64) -> f64 {
    if below == 0 {
        return 0.0;
    }
    above as f64 / below as f64
}

pub(super) const FAMILIES: &[Family] = &[
    counter(
        "millpond_sink_events",
        "Events acknowledged by the store",
        Values::Sink(|m| m.sink_events as f64),
    ),
    counter(
        "millpond_sink_event_bytes",
        "Bytes of those events, as they were produced",
        Values::Sink(|m| m.sink_event_bytes as f64),
    ),
    counter(
        "millpond_sink_items",
        "Items (or objects) acknowledged by the store",
        Values::Sink(|m| m.items as f64),
    ),
    counter(
        "millpond_sink_item_bytes",
        "Bytes of those items, by DynamoDB's sizing rules",
        Values::Sink(|m| m.item_bytes as f64),
    ),
    counter(
        "millpond_sink_write_units_consumed",
        "Write units that the table reported",
        Values::Sink(|m| m.write_units_reported_milli as f64 / 1_000.0),
    ),
    counter(
        "millpond_sink_write_units_items",
        "Write units computed for items with events",
        Values::Sink(|m| m.write_units_items as f64),
    ),
    counter(
        "millpond_sink_write_units_overhead",
        "Write units computed for ledger and directory rows",
        Values::Sink(|m| m.write_units_overhead as f64),
    ),
    counter(
        "millpond_sink_write_units_ledger",
        "Those of the overhead that went into the ledger and its snapshots of marks",
        Values::Sink(|m| m.write_units_ledger as f64),
    ),
    counter(
        "millpond_sink_items_repacked",
        "Small items that were packed anew, because of `dictionary: auto`",
        Values::Sink(|m| m.items_repacked as f64),
    ),
    counter(
        "millpond_sink_write_units_saved_repacking",
        "Write units that this saved",
        Values::Sink(|m| m.units_saved_repacking as f64),
    ),
    gauge(
        "millpond_sink_dictionary",
        "Id of the dictionary that small items are packed with; 0 for none",
        Values::Sink(|m| m.dictionary as f64),
    ),
    counter(
        "millpond_sink_flush_seconds",
        "Time that plans took from their decision to the last write, over all topic partitions",
        Values::Sink(|m| m.flush_micros as f64 / 1e6),
    ),
    counter(
        "millpond_sink_ledger_seconds",
        "Those of them that were spent in the ledger",
        Values::Sink(|m| m.ledger_micros as f64 / 1e6),
    ),
    counter(
        "millpond_sink_write_units_per_event",
        "Write units that one item per event would have cost, by the mean size of the events of each item",
        Values::Sink(|m| m.write_units_per_event as f64),
    ),
    gauge(
        "millpond_sink_fill_ratio",
        "Bytes of the items over the bytes that their write units could have held; 0 before the first",
        Values::Sink(fill),
    ),
    gauge(
        "millpond_sink_saving_ratio",
        "Write units of one item per event over those computed for all that was written; 0 before the first",
        Values::Sink(saving),
    ),
    counter(
        "millpond_sink_throttles",
        "Requests that the store throttled",
        Values::Sink(|m| m.sink_throttles as f64),
    ),
    counter(
        "millpond_sink_throttles_by_reason",
        "The same by what the table gave as its reason; `unprocessed` are batches of which it left something",
        Values::Reasons(|m| {
            [
                ("table", m.throttles_table),
                ("index", m.throttles_index),
                ("key_range", m.throttles_key_range),
                ("account", m.throttles_account),
                ("unnamed", m.throttles_unnamed),
                ("unprocessed", m.throttles_unprocessed),
            ]
        }),
    ),
    counter(
        "millpond_sink_requests",
        "Write requests sent to the tables of the items and of the dead letters, each try",
        Values::Sink(|m| m.sink_requests as f64),
    ),
    gauge(
        "millpond_sink_write_budget",
        "Write units a second that the sink may spend now; 0 without a budget",
        Values::Sink(|m| m.write_budget_milli as f64 / 1_000.0),
    ),
    counter(
        "millpond_sink_hot_keys",
        "Times that a partition key was found to be held back by its own limit",
        Values::Sink(|m| m.hot_keys as f64),
    ),
    counter(
        "millpond_sink_chains_spread",
        "Times that a group was spread over more partition keys of the table",
        Values::Sink(|m| m.chains_spread as f64),
    ),
    counter(
        "millpond_sink_duplicates_dropped",
        "Events dropped because they were delivered before",
        Values::Sink(|m| m.duplicates_dropped as f64),
    ),
    counter(
        "millpond_sink_events_superseded",
        "Events that another one of the same key has won over, where a mapping says which one is kept",
        Values::Sink(|m| m.events_superseded as f64),
    ),
    counter(
        "millpond_sink_dead_letters",
        "Events put into the dead-letter queue",
        Values::Sink(|m| m.dead_letters as f64),
    ),
    counter(
        "millpond_sink_gaps",
        "Gaps that were recorded and passed over",
        Values::Sink(|m| m.gaps as f64),
    ),
    counter(
        "millpond_sink_gap_records",
        "Records that those gaps say are lost, at most",
        Values::Sink(|m| m.gap_records as f64),
    ),
    counter(
        "millpond_sink_commits",
        "Commits of the ledger",
        Values::Sink(|m| m.commits as f64),
    ),
    gauge(
        "millpond_sink_partitions",
        "Topic partitions held",
        Values::Sink(|m| m.partitions_held as f64),
    ),
    counter(
        "millpond_sink_partitions_halted",
        "Topic partitions that stopped because of what is in them, or because another process took them",
        Values::Sink(|m| m.partitions_halted as f64),
    ),
    gauge(
        "millpond_sink_queue_records",
        "Records that are in the topic and not in the store",
        Values::Partition(|_, p| p.queued().map(|queued| queued as f64)),
    ),
    gauge(
        "millpond_sink_oldest_waiting_seconds",
        "Age, by event time, of the oldest event that was read and is not in the store; 0 when none waits",
        Values::Partition(|now, p| {
            Some(
                p.standing
                    .oldest_waiting_ms
                    .map_or(0.0, |ms| now.seconds_since(ms)),
            )
        }),
    ),
    gauge(
        "millpond_sink_groups",
        "Groups that the last plan wrote items of",
        Values::Partition(|_, p| p.standing.spread.map(|spread| spread.groups as f64)),
    ),
    gauge(
        "millpond_sink_partition_keys",
        "Partition keys of the table that those groups are spread over, one for each write shard",
        Values::Partition(|_, p| p.standing.spread.map(|spread| spread.keys as f64)),
    ),
    gauge(
        "millpond_sink_write_shards",
        "Write shards of the one of those groups that has most",
        Values::Partition(|_, p| p.standing.spread.map(|spread| spread.most as f64)),
    ),
];
