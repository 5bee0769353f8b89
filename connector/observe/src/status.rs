//! A snapshot as JSON: what `/status` answers and the status page shows.

use std::time::UNIX_EPOCH;

use millpond_connector::registry::Direction;
use millpond_connector::stream_clock::ShardReading;
use serde_json::{Value, json};

use crate::families::{fill, saving};
use crate::process::{ConnectorSnapshot, PartitionSnapshot, Snapshot};

/// Version of the document's layout; grows when something that was there changes or goes.
pub const LAYOUT: u32 = 1;

/// The document.
#[must_use]
pub fn document(snapshot: &Snapshot) -> Value {
    let since = |time: std::time::SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    };
    let topics = snapshot
        .topics
        .iter()
        .map(|topic| json!({"name": topic.name, "counters": topic.metrics.copy()}));
    let connectors = snapshot.connectors.iter();
    json!({
        "layout": LAYOUT,
        "version": snapshot.version,
        "state": snapshot.phase.name(),
        "not_ready": snapshot.not_ready,
        "started_ms": since(snapshot.started),
        "now_ms": since(snapshot.now),
        "connectors": connectors.map(|connector| of_connector(snapshot, connector)).collect::<Vec<_>>(),
        "topics": topics.collect::<Vec<_>>(),
    })
}

fn of_connector(snapshot: &Snapshot, connector: &ConnectorSnapshot) -> Value {
    let counted = &connector.counted;
    let mut document = json!({
        "name": connector.name,
        "type": connector.type_name,
        "topic": connector.topic,
        "counters": counted,
    });
    let direction = match connector.direction {
        Direction::Source => "source",
        Direction::Sink => "sink",
    };
    document["direction"] = direction.into();
    if let Some(clock) = &connector.clock {
        document["retention_hours"] = clock.retention_hours.into();
        document["shards"] = clock.shards.iter().map(of_shard).collect();
    }
    if connector.direction == Direction::Sink {
        let partitions = connector.partitions.iter();
        document["fill"] = fill(counted).into();
        document["saving"] = saving(counted).into();
        if counted.write_budget_milli > 0 {
            document["budget"] = (counted.write_budget_milli as f64 / 1_000.0).into();
        }
        document["partitions"] = partitions
            .map(|partition| of_partition(snapshot, partition))
            .collect();
    }
    document
}

fn of_shard(shard: &ShardReading) -> Value {
    json!({
        "shard": shard.shard,
        "behind_seconds": shard.millis_behind_latest as f64 / 1_000.0,
        "seconds_to_trim": shard.seconds_until_trim,
        "seconds_to_loss": shard.seconds_until_loss,
        "drain_seconds": shard.drain_seconds,
        "level": shard.level.name(),
    })
}

fn of_partition(snapshot: &Snapshot, partition: &PartitionSnapshot) -> Value {
    let standing = &partition.standing;
    let waiting = standing.oldest_waiting_ms;
    json!({
        "partition": partition.partition,
        "written": standing.written,
        "earliest": partition.bounds.map(|bounds| bounds.earliest),
        "end": partition.bounds.map(|bounds| bounds.end),
        "queued": partition.queued(),
        "oldest_waiting_seconds": waiting.map(|ms| snapshot.seconds_since(ms)),
        "halted": standing.halted,
        "spread": standing.spread,
    })
}
