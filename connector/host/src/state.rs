//! What the process is doing, and how it is shown to others.

use std::sync::Arc;

use millpond_connector::metrics::Metrics;
use millpond_connector::registry::Direction;
use millpond_connector::topic::Topic;
use millpond_observe::{Connector, Phase, Process};
use serde_json::{Value, json};

/// Phase and counters of the one connector of this process.
pub(crate) struct State {
    name: String,
    type_name: String,
    process: Arc<Process>,
    pub(crate) metrics: Arc<Metrics>,
}

impl State {
    pub(crate) fn new(name: &str, type_name: &str) -> Self {
        Self {
            name: name.to_owned(),
            type_name: type_name.to_owned(),
            process: Arc::new(Process::new(env!("CARGO_PKG_VERSION"))),
            metrics: Arc::default(),
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.process.enter(phase);
    }

    pub(crate) fn process(&self) -> Arc<Process> {
        Arc::clone(&self.process)
    }

    /// The connector has its topic.
    pub(crate) fn connected(&self, direction: Direction, topic: Arc<dyn Topic>) {
        self.process.add_connector(Connector {
            name: self.name.clone(),
            type_name: self.type_name.clone(),
            direction,
            metrics: Arc::clone(&self.metrics),
            topic,
            // On a cluster a connector may rightly hold nothing: others hold all there is.
            is_ready: Box::new(|| true),
        });
    }

    /// The three counters that every Fluvio connector shows, under the same names, and ours below `millpond`.
    ///
    /// `consumer` counts what left the topic for good, `producer_connector` what is durable in it.
    /// `producer_client` counts other producers of the process: there are none.
    pub(crate) fn to_json(&self) -> Value {
        let counted = self.metrics.copy();
        let mut ours = json!(counted);
        ours["name"] = self.name.as_str().into();
        ours["type"] = self.type_name.as_str().into();
        ours["state"] = self.process.phase().name().into();
        ours["caught_up"] = (counted.caught_up == 1).into();
        json!({
            "consumer": {"records": counted.sink_events, "bytes": counted.sink_event_bytes},
            "producer_connector": {"records": counted.topic_events, "bytes": counted.source_bytes},
            "producer_client": {"records": 0, "bytes": 0},
            "millpond": ours,
        })
    }
}
