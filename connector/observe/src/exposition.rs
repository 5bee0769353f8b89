//! A snapshot as the text that Prometheus scrapes (OpenMetrics 1.0).

use std::fmt;
use std::sync::Arc;

use millpond_connector::registry::Direction;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::families::{self, Family, Values};
use crate::process::Snapshot;

/// Media type of the text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All families with all their values.
///
/// # Errors
/// Never, as far as a `String` can be written to.
pub(crate) fn text(snapshot: Arc<Snapshot>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(snapshot)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Families(Arc<Snapshot>);

type Labels = Vec<(&'static str, String)>;

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for family in families::all() {
            let values = values(family, &self.0);
            let kind = if family.is_counter {
                MetricType::Counter
            } else {
                MetricType::Gauge
            };
            let mut encoder = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            match values.as_slice() {
                [(labels, value)] if labels.is_empty() => one(family, *value, encoder)?,
                values => {
                    for (labels, value) in values {
                        one(family, *value, encoder.encode_family(labels)?)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn one(family: &Family, value: f64, encoder: MetricEncoder) -> fmt::Result {
    if family.is_counter {
        ConstCounter::new(value).encode(encoder)
    } else {
        ConstGauge::new(value).encode(encoder)
    }
}

fn values(family: &Family, snapshot: &Snapshot) -> Vec<(Labels, f64)> {
    let of_connector = |name: &String| ("connector", name.clone());
    match family.values {
        Values::Process(value) => vec![(Labels::new(), value(snapshot))],
        Values::Source(_) | Values::Sink(_) | Values::Connector(_) => {
            let connectors = snapshot.connectors.iter().filter_map(|connector| {
                let counted = &connector.counted;
                let value = family.values.of_connector(connector.direction, counted)?;
                Some((vec![of_connector(&connector.name)], value))
            });
            connectors.collect()
        }
        Values::Reasons(values) => {
            let sinks = snapshot.connectors.iter();
            let sinks = sinks.filter(|connector| connector.direction == Direction::Sink);
            let reasons = sinks.flat_map(|connector| {
                values(&connector.counted).map(|(reason, value)| {
                    let reason = ("reason", reason.to_owned());
                    (vec![of_connector(&connector.name), reason], value as f64)
                })
            });
            reasons.collect()
        }
        Values::Partition(value) => {
            let connectors = snapshot.connectors.iter();
            let partitions = connectors.flat_map(|connector| {
                connector.partitions.iter().filter_map(move |partition| {
                    let labels = vec![
                        of_connector(&connector.name),
                        ("partition", partition.partition.to_string()),
                    ];
                    Some((labels, value(snapshot, partition)?))
                })
            });
            partitions.collect()
        }
        Values::Stream(value) => {
            let sources = snapshot.connectors.iter().filter_map(|connector| {
                let value = value(connector.clock.as_ref()?)?;
                Some((vec![of_connector(&connector.name)], value))
            });
            sources.collect()
        }
        Values::Shard(value) => {
            let sources = snapshot.connectors.iter();
            let sources = sources.filter_map(|c| Some((&c.name, c.clock.as_ref()?)));
            let shards = sources.flat_map(|(name, clock)| {
                clock.shards.iter().filter_map(move |shard| {
                    let labels = vec![of_connector(name), ("shard", shard.shard.clone())];
                    Some((labels, value(shard)?))
                })
            });
            shards.collect()
        }
        Values::Topic(value) => {
            let topics = snapshot.topics.iter().map(|topic| {
                let labels = vec![("topic", topic.name.clone())];
                (labels, value(&topic.metrics.copy()))
            });
            topics.collect()
        }
    }
}
