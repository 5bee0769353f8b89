//! What the process is doing, and how it is shown to others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use millpond_connector::metrics::Metrics;
use serde_json::{Value, json};

/// What the process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Looking for the cluster, its topic, and what the connector speaks to.
    Connecting,
    /// At work.
    Running,
    /// Told to end, finishing what is in flight.
    Draining,
}

impl Phase {
    const ALL: [Self; 3] = [Self::Connecting, Self::Running, Self::Draining];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Running => "running",
            Self::Draining => "draining",
        }
    }
}

/// Phase and counters of the one connector of this process.
pub(crate) struct State {
    name: String,
    type_name: String,
    phase: AtomicU8,
    pub(crate) metrics: Arc<Metrics>,
}

impl State {
    pub(crate) fn new(name: &str, type_name: &str) -> Self {
        Self {
            name: name.to_owned(),
            type_name: type_name.to_owned(),
            phase: AtomicU8::new(Phase::Connecting as u8),
            metrics: Arc::default(),
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    fn phase(&self) -> Phase {
        let now = self.phase.load(Ordering::Acquire);
        Phase::ALL
            .into_iter()
            .find(|phase| *phase as u8 == now)
            .unwrap_or(Phase::Connecting)
    }

    /// The three counters that every Fluvio connector shows, under the same names, and ours below `millpond`.
    ///
    /// `consumer` counts what left the topic for good, `producer_connector` what is durable in it.
    /// `producer_client` counts other producers of the process: there are none.
    pub(crate) fn to_json(&self) -> Value {
        let m = &self.metrics;
        let of = |gauge: &std::sync::atomic::AtomicU64| gauge.load(Ordering::Relaxed);
        json!({
            "consumer": {"records": m.sink_events.get(), "bytes": m.sink_event_bytes.get()},
            "producer_connector": {"records": m.topic_events.get(), "bytes": m.source_bytes.get()},
            "producer_client": {"records": 0, "bytes": 0},
            "millpond": {
                "name": self.name,
                "type": self.type_name,
                "state": self.phase().name(),
                "source_events": m.source_events.get(),
                "source_bytes": m.source_bytes.get(),
                "topic_events": m.topic_events.get(),
                "source_throttles": m.source_throttles.get(),
                "shards_known": of(&m.shards_known),
                "shards_caught_up": of(&m.shards_caught_up),
                "caught_up": of(&m.caught_up) == 1,
                "sink_events": m.sink_events.get(),
                "sink_event_bytes": m.sink_event_bytes.get(),
                "items": m.items.get(),
                "item_bytes": m.item_bytes.get(),
                "write_units_reported_milli": m.write_units_reported_milli.get(),
                "write_units_items": m.write_units_items.get(),
                "write_units_overhead": m.write_units_overhead.get(),
                "sink_throttles": m.sink_throttles.get(),
                "dead_letters": m.dead_letters.get(),
                "duplicates_dropped": m.duplicates_dropped.get(),
                "events_superseded": m.events_superseded.get(),
                "gaps": m.gaps.get(),
                "gap_records": m.gap_records.get(),
                "commits": m.commits.get(),
                "partitions_held": of(&m.partitions_held),
                "partitions_halted": m.partitions_halted.get(),
            },
        })
    }
}
