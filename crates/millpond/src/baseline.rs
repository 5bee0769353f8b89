//! What one item per event would cost: the plain mode of the sink, counted exactly.

use millpond_format::keys::{SortKey, chain_pk};
use millpond_format::origin::{ChainLink, Origin};
use millpond_format::sequence::SequenceNumber;
use millpond_format::sizing::ItemSize;

/// Any sequence number of today's streams: 56 digits, which is all that counts here.
const SEQUENCE: &str = "49590338271490256608559692538361571095921575989136588898";

/// An event as far as its plain item depends on it.
#[derive(Debug, Clone, Copy)]
pub struct PlainEvent<'a> {
    /// Bytes of the event.
    pub event_bytes: usize,
    /// Kinesis partition key, which is the group of a plain item.
    pub partition_key: &'a str,
    /// Topic partition.
    pub topic_partition: u32,
    /// Event time, which is the arrival time, milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// Stream name.
    pub stream: &'a str,
    /// Shard id.
    pub shard: &'a str,
    /// Place in the chain of shard and topic partition.
    pub chain: ChainLink,
}

/// Write units of the plain item of `event` in `pipeline` (`FORMAT.md`, "Plain items"): `pk`, `sk`,
/// `v`, `o` and `t0`.
#[must_use]
pub fn plain_item_units(pipeline: &str, event: &PlainEvent<'_>) -> u64 {
    let Some(sequence) = SequenceNumber::parse(SEQUENCE) else {
        return 0;
    };
    let mut origin = String::new();
    Origin {
        stream: event.stream,
        shard: event.shard,
        sequence,
        sub_sequence: 0,
        arrival_ms: event.time_ms,
        chain: event.chain,
        partition_key: event.partition_key,
    }
    .write_to(&mut origin);
    let sort_key = SortKey {
        sort_time_ms: event.time_ms,
        base_offset: 0,
        envelope_index: 0,
    };
    let pk = chain_pk(pipeline, event.partition_key, event.topic_partition);
    ItemSize::new()
        .string("pk", &pk)
        .string("sk", &sort_key.to_text())
        .binary("v", event.event_bytes)
        .string("o", &origin)
        .integer("t0", event.time_ms)
        .write_units()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_item_is_sized_to_the_byte() {
        let event = |event_bytes| PlainEvent {
            event_bytes,
            partition_key: "job-17/w3",
            topic_partition: 2,
            time_ms: 1_763_886_000_123,
            stream: "events",
            shard: "shardId-000000000003",
            chain: ChainLink {
                epoch: 1_763_885_999_000,
                ordinal: 42,
            },
        };
        // pk 2 + `events/job-17/w3#2` 18, sk 2 + 24 + 1 + 19 + 1 + 5, v 1, t0 2 + 8,
        // o 1 + `mp1/events/shardId-000000000003/<56>/0/1763886000123/1763885999000.42/job-17/w3`.
        let origin = 4 + 7 + 21 + 57 + 2 + 14 + 17 + 9;
        let overhead = 20 + 52 + 1 + 10 + 1 + origin;
        assert_eq!(plain_item_units("events", &event(1_024 - overhead)), 1);
        assert_eq!(plain_item_units("events", &event(1_024 - overhead + 1)), 2);
    }
}
