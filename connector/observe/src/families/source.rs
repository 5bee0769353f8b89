//! What sources count, and what they say of their stream and its shards.

use super::{Family, Values, counter, gauge};

pub(super) const FAMILIES: &[Family] = &[
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
];
