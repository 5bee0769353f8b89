//! The report of `millpond demo`: figures in, text (`text.rs`) or JSON out.

mod text;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cost::{WritePrice, ratio};

pub use text::grouped;

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Events counted by the comparison.
    pub events: EventCounts,
    /// Bytes of the events emitted.
    pub event_bytes: u64,
    /// Items with events that the table acknowledged.
    pub items: u64,
    /// Their bytes by DynamoDB's rules.
    pub item_bytes: u64,
    /// Write units by their sizes.
    pub item_units: u64,
    /// Write units of ledger and directory rows by their sizes.
    pub overhead_units: u64,
    /// Those of them that went into the ledger.
    pub ledger_units: u64,
    /// Microseconds that plans took from their decision to the last write, over all topic partitions.
    pub flush_micros: u64,
    /// Those of them that were spent in ledger updates.
    pub ledger_micros: u64,
    /// Topic partitions that the sink held.
    pub partitions: u64,
    /// Write units that the server reported, in thousandths.
    pub reported_units_milli: u64,
    /// Write units of one item per event, for these very events.
    pub per_event_units: u64,
    /// Number of events by their milliseconds from emit to readable.
    pub availability_ms: BTreeMap<u64, u64>,
    /// Seconds from the first event sent to the last one acknowledged by the table.
    pub seconds: f64,
    /// CPU seconds of the pipeline's process meanwhile.
    pub cpu_seconds: f64,
    /// CPU seconds of that process before the first event was sent.
    pub startup_cpu_seconds: f64,
    /// Events that the drain at the end of the run wrote.
    pub drained_events: u64,
}

/// What became of the events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct EventCounts {
    /// Accepted by the stream.
    pub emitted: u64,
    /// Read back from the table.
    pub read: u64,
    /// Emitted and not read back.
    pub lost: u64,
    /// Read back more than once, each further time counted.
    pub duplicated: u64,
    /// Read back with other bytes, or in another group.
    pub changed: u64,
    /// Read after a later event of the same group and Kinesis partition key.
    pub out_of_order: u64,
}

impl EventCounts {
    /// True when all that was emitted was read back once, unchanged and in order.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.emitted == self.read
            && self.lost + self.duplicated + self.changed + self.out_of_order == 0
    }
}

/// The report; its JSON keys are a promise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What became of the events.
    pub events: EventCounts,
    /// Items with events.
    pub items: u64,
    /// Mean size of an item in bytes.
    pub mean_item_bytes: f64,
    /// Bytes used of those paid for with the items' write units.
    pub fill: f64,
    /// Bytes of events over bytes of items.
    pub compression_ratio: f64,
    /// Write units.
    pub write_units: WriteUnits,
    /// What the ledger took of it.
    pub ledger: LedgerCost,
    /// US dollars per terabyte of events.
    pub usd_per_tb: UsdPerTb,
    /// From emit to readable.
    pub availability_ms: Availability,
    /// Events per second, from the first one sent to the last one acknowledged.
    pub events_per_second: f64,
    /// The same in MB (10^6 bytes) of events.
    pub megabytes_per_second: f64,
    /// CPU seconds of the pipeline per GB (10^9 bytes) of events.
    pub cpu_seconds_per_gb: f64,
    /// CPU seconds of the pipeline until it ran, before the first event: not part of the others.
    pub startup_cpu_seconds: f64,
    /// Events that waited for the end of the run only: without it they would have waited longer.
    #[serde(skip)]
    pub drained_events: u64,
}

/// Write units of the run and of its baseline.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WriteUnits {
    /// As the server reported.
    pub reported: f64,
    /// As computed from sizes.
    pub computed: u64,
    /// Those of `computed` that went into ledger and directory.
    pub overhead: u64,
    /// What one item per event would have taken.
    pub per_event: u64,
    /// How many times fewer units were taken than with one item per event.
    pub saving: f64,
}

/// What exactly-once effect costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LedgerCost {
    /// Write units of ledger rows.
    pub write_units: u64,
    /// The same as a share of all write units.
    pub write_unit_share: f64,
    /// Seconds that the updates took, added up over the topic partitions.
    pub seconds: f64,
    /// The same as a share of the run, which all topic partitions had.
    pub time_share: f64,
    /// The same as a share of the time that plans took from their decision to their last write.
    pub plan_time_share: f64,
}

/// US dollars per terabyte of events.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct UsdPerTb {
    /// As written.
    pub packed: f64,
    /// With one item per event.
    pub per_event: f64,
}

/// Milliseconds from emit to readable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Availability {
    /// Half of the events were readable by then.
    pub p50: u64,
    /// 99 in 100 were.
    pub p99: u64,
    /// All were.
    pub max: u64,
}

impl Report {
    /// Works out the report.
    #[must_use]
    pub fn new(figures: &Figures, price: &WritePrice) -> Self {
        let reported = figures.reported_units_milli as f64 / 1e3;
        let per_event = figures.per_event_units as f64;
        let bytes = figures.event_bytes as f64;
        Self {
            events: figures.events,
            items: figures.items,
            mean_item_bytes: rounded(ratio(figures.item_bytes as f64, figures.items as f64), 1),
            fill: rounded(
                ratio(
                    figures.item_bytes as f64,
                    figures.item_units as f64 * 1_024.0,
                ),
                4,
            ),
            compression_ratio: rounded(ratio(bytes, figures.item_bytes as f64), 3),
            write_units: WriteUnits {
                reported: rounded(reported, 3),
                computed: figures.item_units + figures.overhead_units,
                overhead: figures.overhead_units,
                per_event: figures.per_event_units,
                saving: rounded(ratio(per_event, reported), 2),
            },
            ledger: LedgerCost {
                write_units: figures.ledger_units,
                write_unit_share: rounded(ratio(figures.ledger_units as f64, reported), 5),
                seconds: rounded(figures.ledger_micros as f64 / 1e6, 4),
                time_share: rounded(
                    ratio(
                        figures.ledger_micros as f64 / 1e6,
                        figures.seconds * figures.partitions as f64,
                    ),
                    5,
                ),
                plan_time_share: rounded(
                    ratio(figures.ledger_micros as f64, figures.flush_micros as f64),
                    5,
                ),
            },
            usd_per_tb: UsdPerTb {
                packed: rounded(price.usd_per_tb(reported, figures.event_bytes), 2),
                per_event: rounded(price.usd_per_tb(per_event, figures.event_bytes), 2),
            },
            availability_ms: Availability::of(&figures.availability_ms),
            events_per_second: rounded(ratio(figures.events.emitted as f64, figures.seconds), 1),
            megabytes_per_second: rounded(ratio(bytes / 1e6, figures.seconds), 3),
            cpu_seconds_per_gb: rounded(ratio(figures.cpu_seconds, bytes / 1e9), 3),
            startup_cpu_seconds: rounded(figures.startup_cpu_seconds, 3),
            drained_events: figures.drained_events,
        }
    }
}

impl Availability {
    /// Percentiles (nearest rank) of a number of events by their milliseconds.
    #[must_use]
    pub fn of(histogram: &BTreeMap<u64, u64>) -> Self {
        let total: u64 = histogram.values().sum();
        let rank = |percent: u64| {
            let rank = (total * percent).div_ceil(100).max(1);
            let mut below = 0;
            let reached = histogram.iter().find(|(_, events)| {
                below += **events;
                below >= rank
            });
            reached.map_or(0, |(ms, _)| *ms)
        };
        Self {
            p50: rank(50),
            p99: rank(99),
            max: rank(100),
        }
    }
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        Figures {
            events: EventCounts {
                emitted: 1_000,
                read: 1_000,
                ..EventCounts::default()
            },
            event_bytes: 500_000,
            items: 2,
            item_bytes: 100_000,
            item_units: 98,
            overhead_units: 12,
            ledger_units: 2,
            flush_micros: 800_000,
            ledger_micros: 2_000,
            partitions: 4,
            reported_units_milli: 110_000,
            per_event_units: 1_100,
            availability_ms: (1..=200).map(|ms| (ms, 5)).collect(),
            seconds: 2.0,
            cpu_seconds: 0.005,
            startup_cpu_seconds: 1.75,
            drained_events: 990,
        }
    }

    #[test]
    fn json_has_the_promised_keys_and_no_others() {
        let report = Report::new(&figures(), &WritePrice::default());
        let json = serde_json::to_value(report).expect("JSON");
        let keys = |value: &serde_json::Value| -> Vec<String> {
            let object = value.as_object().expect("object");
            let mut keys: Vec<_> = object.keys().cloned().collect();
            keys.sort();
            keys
        };
        assert_eq!(
            keys(&json),
            [
                "availability_ms",
                "compression_ratio",
                "cpu_seconds_per_gb",
                "events",
                "events_per_second",
                "fill",
                "items",
                "ledger",
                "mean_item_bytes",
                "megabytes_per_second",
                "startup_cpu_seconds",
                "usd_per_tb",
                "write_units",
            ]
        );
        assert_eq!(
            keys(&json["events"]),
            [
                "changed",
                "duplicated",
                "emitted",
                "lost",
                "out_of_order",
                "read"
            ]
        );
        assert_eq!(
            keys(&json["write_units"]),
            ["computed", "overhead", "per_event", "reported", "saving"]
        );
        assert_eq!(
            keys(&json["ledger"]),
            [
                "plan_time_share",
                "seconds",
                "time_share",
                "write_unit_share",
                "write_units"
            ]
        );
        assert_eq!(keys(&json["usd_per_tb"]), ["packed", "per_event"]);
        assert_eq!(keys(&json["availability_ms"]), ["max", "p50", "p99"]);
    }

    #[test]
    fn figures_are_worked_out() {
        let report = Report::new(&figures(), &WritePrice::default());
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!(json["mean_item_bytes"], 50_000.0);
        assert_eq!(json["fill"], 0.9965);
        assert_eq!(json["compression_ratio"], 5.0);
        assert_eq!(json["write_units"]["computed"], 110);
        assert_eq!(json["write_units"]["saving"], 10.0);
        assert_eq!(json["ledger"]["write_unit_share"], 0.01818);
        assert_eq!(json["ledger"]["time_share"], 0.00025);
        assert_eq!(json["ledger"]["plan_time_share"], 0.0025);
        assert_eq!(json["usd_per_tb"]["packed"], 137.5);
        assert_eq!(json["usd_per_tb"]["per_event"], 1_375.0);
        assert_eq!(json["events_per_second"], 500.0);
        assert_eq!(json["megabytes_per_second"], 0.25);
        assert_eq!(json["cpu_seconds_per_gb"], 10.0);
        assert_eq!(json["startup_cpu_seconds"], 1.75);
        assert_eq!(
            report.availability_ms,
            Availability {
                p50: 100,
                p99: 198,
                max: 200
            }
        );
        let text = report.to_text(&WritePrice::default());
        for part in [
            "1,000 emitted",
            "0 lost",
            "10.0 times",
            "2 write units, 1.82% of all; 0.03% of the time, 0.25% of that of the plans",
            "0.625 USD",
            "2024-11-01",
            "198 ms p99",
            "990 events written by the drain",
            "1.8 CPU seconds (compiles",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn only_an_exact_run_is_exact() {
        let exact = figures().events;
        assert!(exact.is_exact());
        assert!(!EventCounts { lost: 1, ..exact }.is_exact());
        assert!(
            !EventCounts {
                duplicated: 1,
                ..exact
            }
            .is_exact()
        );
        assert!(
            !EventCounts {
                changed: 1,
                ..exact
            }
            .is_exact()
        );
        assert!(
            !EventCounts {
                out_of_order: 1,
                ..exact
            }
            .is_exact()
        );
        assert!(!EventCounts { read: 999, ..exact }.is_exact());
    }

    #[test]
    fn nothing_at_all_gives_zeros() {
        let report = Report::new(&Figures::default(), &WritePrice::default());
        let text = serde_json::to_string(&report).expect("JSON");
        assert!(!text.contains("null"), "{text}");
        assert_eq!(report.availability_ms, Availability::default());
    }
}
