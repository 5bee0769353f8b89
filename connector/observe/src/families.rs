//! The metrics, one line each: name, what it is, and where its value comes from. `METRICS.md` is
//! this table; a test holds them together, another shows that every number counted is in it.
//! What sources, sinks and topics count is in a file each.

mod sink;
mod source;
mod topic;

use millpond_connector::metrics::{MetricsCopy, TopicMetricsCopy};
use millpond_connector::registry::Direction;
use millpond_connector::stream_clock::{ShardReading, StreamClock};

use crate::process::{PartitionSnapshot, Snapshot};

pub use sink::{fill, saving};

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

/// All of them, in the order in which they are shown.
pub fn all() -> impl Iterator<Item = &'static Family> {
    let tables = [
        PROCESS,
        source::FAMILIES,
        sink::FAMILIES,
        LEASES,
        topic::FAMILIES,
    ];
    tables.into_iter().flatten()
}

const PROCESS: &[Family] = &[
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
];

const LEASES: &[Family] = &[
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
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A connector's values of all families.
    fn values(counted: &MetricsCopy) -> Vec<f64> {
        let both = [Direction::Source, Direction::Sink].into_iter();
        let plain = both.flat_map(|direction| {
            all().filter_map(move |family| family.values.of_connector(direction, counted))
        });
        let reasons = all().filter_map(|family| match family.values {
            Values::Reasons(values) => Some(values(counted).map(|(_, value)| value as f64)),
            _ => None,
        });
        plain.chain(reasons.flatten()).collect()
    }

    fn topic_values(counted: &TopicMetricsCopy) -> Vec<f64> {
        let values = all().filter_map(|family| match family.values {
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
        for family in all() {
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
        for family in all() {
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
