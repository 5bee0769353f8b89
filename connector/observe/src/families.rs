//! The metrics, one line each: name, what it is, and where its value comes from. `METRICS.md` is
//! this table; a test holds them together, another shows that every number counted is in it.

use millpond_connector::metrics::{MetricsCopy, TopicMetricsCopy};
use millpond_connector::registry::Direction;
use millpond_connector::stream_clock::{ShardReading, StreamClock};

use crate::process::{PartitionSnapshot, Snapshot};

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Name without the `_total` that a counter ends with.
    pub name: &'static str,
    /// Its value only grows.
    pub is_counter: bool,
    /// What it says.
    pub help: &'static str,
    /// Where its values come from.
    pub values: Values,
}

impl Family {
    /// The name as it is scraped.
    #[must_use]
    pub fn full_name(&self) -> String {
        let end = if self.is_counter { "_total" } else { "" };
        format!("{}{end}", self.name)
    }
}

/// Where values come from, and so what labels they have.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    /// One for the process: no labels.
    Process(fn(&Snapshot) -> f64),
    /// One for each source: `connector`.
    Source(fn(&MetricsCopy) -> f64),
    /// One for each sink: `connector`.
    Sink(fn(&MetricsCopy) -> f64),
    /// One for each sink and reason of a throttle: `connector`, `reason`.
    Reasons(fn(&MetricsCopy) -> [(&'static str, u64); 6]),
    /// One for each connector: `connector`.
    Connector(fn(&MetricsCopy) -> f64),
    /// One for each topic partition that a sink works on, unless nothing can be said:
    /// `connector`, `partition`.
    Partition(fn(&Snapshot, &PartitionSnapshot) -> Option<f64>),
    /// One for each source that reads its clocks on data loss, unless nothing can be said: `connector`.
    Stream(fn(&StreamClock) -> Option<f64>),
    /// One for each shard that a source reads, unless nothing can be said: `connector`, `shard`.
    Shard(fn(&ShardReading) -> Option<f64>),
    /// One for each embedded topic: `topic`.
    Topic(fn(&TopicMetricsCopy) -> f64),
}

impl Values {
    /// Names of the labels.
    #[must_use]
    pub const fn labels(&self) -> &'static [&'static str] {
        match self {
            Self::Process(_) => &[],
            Self::Source(_) | Self::Sink(_) | Self::Connector(_) | Self::Stream(_) => {
                &["connector"]
            }
            Self::Shard(_) => &["connector", "shard"],
            Self::Reasons(_) => &["connector", "reason"],
            Self::Partition(_) => &["connector", "partition"],
            Self::Topic(_) => &["topic"],
        }
    }

    /// The number of a connector's counters, where that is what it is made of.
    #[must_use]
    pub fn of_connector(&self, direction: Direction, counted: &MetricsCopy) -> Option<f64> {
        match (self, direction) {
            (Self::Source(value), Direction::Source)
            | (Self::Sink(value), Direction::Sink)
            | (Self::Connector(value), _) => Some(value(counted)),
            _ => None,
        }
    }
}

const fn counter(name: &'static str, help: &'static str, values: Values) -> Family {
    Family {
        name,
        is_counter: true,
        help,
        values,
    }
}

const fn gauge(name: &'static str, help: &'static str, values: Values) -> Family {
    Family {
        name,
        is_counter: false,
        help,
        values,
    }
}

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

/// All of them, in the order in which they are shown.
pub const FAMILIES: &[Family] = &[
    gauge(
        "millpond_ready",
        "1 while `/readyz` answers 200",
        Values::Process(|p| f64::from(u8::from(p.not_ready.is_none()))),
    ),
    gauge(
        "millpond_start_time_seconds",
        "When the process began, seconds since the Unix epoch",
        Values::Process(|p| {
            let since = p.started.duration_since(std::time::UNIX_EPOCH);
            since.unwrap_or_default().as_secs_f64()
        }),
    ),
    counter(
        "millpond_source_events",
        "Events read from the stream",
        Values::Source(|m| m.source_events as f64),
    ),
    counter(
        "millpond_source_event_bytes",
        "Bytes of those events",
        Values::Source(|m| m.source_bytes as f64),
    ),
    counter(
        "millpond_source_events_stored",
        "Events durable in the topic",
        Values::Source(|m| m.topic_events as f64),
    ),
    counter(
        "millpond_source_throttles",
        "Reads that the stream throttled",
        Values::Source(|m| m.source_throttles as f64),
    ),
    counter(
        "millpond_source_reads",
        "Reads that the stream answered, by polling",
        Values::Source(|m| m.source_reads as f64),
    ),
    counter(
        "millpond_source_iterators_refreshed",
        "Positions in a shard that had expired, and were taken anew",
        Values::Source(|m| m.source_iterators_refreshed as f64),
    ),
    counter(
        "millpond_source_subscriptions",
        "Subscriptions to shards that the stream accepted, by fan-out",
        Values::Source(|m| m.subscriptions as f64),
    ),
    counter(
        "millpond_source_subscriptions_broken",
        "Those that ended before their time, or fell silent",
        Values::Source(|m| m.subscriptions_broken as f64),
    ),
    counter(
        "millpond_source_fallbacks",
        "Times that a shard was polled because subscriptions to it did not work",
        Values::Source(|m| m.source_fallbacks as f64),
    ),
    counter(
        "millpond_source_payloads_unopened",
        "Compressed payloads that could not be opened: dead letters",
        Values::Source(|m| m.payloads_unopened as f64),
    ),
    counter(
        "millpond_source_broken_aggregates",
        "Records that begin like aggregated ones and are none: dead letters",
        Values::Source(|m| m.aggregates_broken as f64),
    ),
    counter(
        "millpond_source_stray_events",
        "Events of aggregated records that were dropped because they belong to another shard",
        Values::Source(|m| m.aggregates_stray as f64),
    ),
    gauge(
        "millpond_source_shards",
        "Shards known",
        Values::Source(|m| m.shards_known as f64),
    ),
    gauge(
        "millpond_source_shards_caught_up",
        "Shards read to their newest record, or to their end",
        Values::Source(|m| m.shards_caught_up as f64),
    ),
    gauge(
        "millpond_source_caught_up",
        "1 once everything that was in the stream at start is durable in the topic",
        Values::Source(|m| m.caught_up as f64),
    ),
    counter(
        "millpond_source_gaps",
        "Losses of the stream that were recorded as gaps: events removed before they were read",
        Values::Source(|m| m.stream_gaps as f64),
    ),
    counter(
        "millpond_source_retention_changes",
        "Changes of the stream's retention period that the source made",
        Values::Source(|m| m.retention_changes as f64),
    ),
    counter(
        "millpond_source_shard_count_changes",
        "Changes of the stream's number of shards that the source made",
        Values::Source(|m| m.shard_count_changes as f64),
    ),
    gauge(
        "millpond_source_retention_hours",
        "How long the stream keeps records",
        Values::Stream(|clock| Some(f64::from(clock.retention_hours))),
    ),
    gauge(
        "millpond_source_open_shards",
        "Open shards of the stream, where that is asked for",
        Values::Stream(|clock| clock.open_shards.map(f64::from)),
    ),
    gauge(
        "millpond_source_advised_shards",
        "Shards that `shard-scaling` would have, where it has an opinion",
        Values::Stream(|clock| clock.advised_shards.map(f64::from)),
    ),
    gauge(
        "millpond_source_utilisation_in_ratio",
        "Bytes that come in over what the open shards take",
        Values::Stream(|clock| Some(f64::from(clock.utilisation_in_milli) / 1_000.0)),
    ),
    gauge(
        "millpond_source_utilisation_out_ratio",
        "Bytes that are read over what the open shards give",
        Values::Stream(|clock| Some(f64::from(clock.utilisation_out_milli) / 1_000.0)),
    ),
    gauge(
        "millpond_source_unknown_shards",
        "Shards of which it is not known what they carry: they count as nothing in the utilisation",
        Values::Stream(|clock| Some(f64::from(clock.unknown_shards))),
    ),
    gauge(
        "millpond_source_behind_latest_seconds",
        "Age of the next record to be read; 0 when the newest was read",
        Values::Shard(|shard| Some(shard.millis_behind_latest as f64 / 1_000.0)),
    ),
    gauge(
        "millpond_source_until_trim_seconds",
        "Time until the oldest event that is not durable is trimmed",
        Values::Shard(|shard| Some(shard.seconds_until_trim as f64)),
    ),
    gauge(
        "millpond_source_drain_seconds",
        "Time until the newest record is read, at the present speed; absent when never",
        Values::Shard(|shard| shard.drain_seconds.map(|seconds| seconds as f64)),
    ),
    gauge(
        "millpond_source_until_loss_seconds",
        "Time until the trim horizon reaches what is unread, at the present speed; absent when never",
        Values::Shard(|shard| shard.seconds_until_loss.map(|seconds| seconds as f64)),
    ),
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
    counter(
        "millpond_leases_taken",
        "Leases of shards or topic partitions that this process took",
        Values::Connector(|m| m.leases_taken as f64),
    ),
    counter(
        "millpond_leases_lost",
        "Leases that it lost without giving them up",
        Values::Connector(|m| m.leases_lost as f64),
    ),
    counter(
        "millpond_leases_handed_over",
        "Leases that it gave to another process, or back",
        Values::Connector(|m| m.leases_handed_over as f64),
    ),
    counter(
        "millpond_topic_batches",
        "Batches made durable in the embedded topic",
        Values::Topic(|t| t.appended_batches as f64),
    ),
    counter(
        "millpond_topic_records",
        "Records of those batches",
        Values::Topic(|t| t.appended_records as f64),
    ),
    counter(
        "millpond_topic_bytes",
        "Encoded bytes of those batches",
        Values::Topic(|t| t.appended_bytes as f64),
    ),
    counter(
        "millpond_smartmodule_batches",
        "Batches that SmartModules were given",
        Values::Topic(|t| t.module_batches as f64),
    ),
    counter(
        "millpond_smartmodule_input_bytes",
        "Encoded bytes of those batches",
        Values::Topic(|t| t.module_input_bytes as f64),
    ),
    counter(
        "millpond_smartmodule_output_records",
        "Records that came out",
        Values::Topic(|t| t.module_output_records as f64),
    ),
    counter(
        "millpond_smartmodule_output_bytes",
        "Bytes of keys and values of those records",
        Values::Topic(|t| t.module_output_bytes as f64),
    ),
    counter(
        "millpond_smartmodule_seconds",
        "Time in SmartModules",
        Values::Topic(|t| t.module_micros as f64 / 1e6),
    ),
    counter(
        "millpond_smartmodule_failures",
        "Batches on which a SmartModule failed",
        Values::Topic(|t| t.module_failures as f64),
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A connector's values of all families.
    fn values(counted: &MetricsCopy) -> Vec<f64> {
        let both = [Direction::Source, Direction::Sink].into_iter();
        let plain = both.flat_map(|direction| {
            FAMILIES
                .iter()
                .filter_map(move |family| family.values.of_connector(direction, counted))
        });
        let reasons = FAMILIES.iter().filter_map(|family| match family.values {
            Values::Reasons(values) => Some(values(counted).map(|(_, value)| value as f64)),
            _ => None,
        });
        plain.chain(reasons.flatten()).collect()
    }

    fn topic_values(counted: &TopicMetricsCopy) -> Vec<f64> {
        let values = FAMILIES.iter().filter_map(|family| match family.values {
            Values::Topic(value) => Some(value(counted)),
            _ => None,
        });
        values.collect()
    }

    #[test]
    fn every_number_that_is_counted_is_shown() {
        for field in MetricsCopy::FIELDS {
            let mut counted = MetricsCopy::default();
            *counted.field_mut(field).expect("a field") = 1_000;
            assert_ne!(values(&counted), values(&MetricsCopy::default()), "{field}");
        }
        for field in TopicMetricsCopy::FIELDS {
            let mut counted = TopicMetricsCopy::default();
            *counted.field_mut(field).expect("a field") = 1_000;
            let none = topic_values(&TopicMetricsCopy::default());
            assert_ne!(topic_values(&counted), none, "{field}");
        }
    }

    #[test]
    fn names_are_those_of_prometheus() {
        let mut seen = BTreeSet::new();
        for family in FAMILIES {
            assert!(seen.insert(family.full_name()), "{} is twice", family.name);
            assert!(family.name.starts_with("millpond_"), "{}", family.name);
            let plain = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(family.name.chars().all(plain), "{}", family.name);
            assert!(!family.name.ends_with("_total"), "{}", family.name);
            assert!(!family.help.ends_with('.'), "{}", family.name);
        }
    }

    #[test]
    fn the_page_of_the_metrics_is_this_table() {
        let mut expected =
            String::from("| metric | kind | labels | what it says |\n|---|---|---|---|\n");
        for family in FAMILIES {
            let kind = if family.is_counter {
                "counter"
            } else {
                "gauge"
            };
            let labels: Vec<String> = family
                .values
                .labels()
                .iter()
                .map(|l| format!("`{l}`"))
                .collect();
            let (name, labels, help) = (family.full_name(), labels.join(", "), family.help);
            expected.push_str(&format!("| `{name}` | {kind} | {labels} | {help} |\n"));
        }
        let page = include_str!("../METRICS.md");
        assert!(
            page.contains(&expected),
            "METRICS.md must hold this table:\n\n{expected}"
        );
    }
}
