//! Events of the demo as envelopes, by group.

use std::collections::BTreeMap;

use millpond_connector::topic::ConsumedRecord;
use millpond_format::limits::MAX_ITEM_BYTES;
use millpond_format::record::BatchBuilder;
use millpond_pack::{Packer, Params};
use millpond_sink::contiguity::{Entry, Envelope};

use crate::workload::{Event, Workload};

const START_MS: i64 = 1_763_886_000_000;

/// The demo's events one after the other, packed natively in stored batches of any shape.
pub struct Stream {
    workload: Workload,
    next: u64,
    offset: u64,
    packer: Packer,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            workload: Workload::new(1, START_MS, 2 * crate::GROUPS as u32),
            next: 0,
            offset: 0,
            packer: packer(MAX_ITEM_BYTES),
        }
    }
}

fn packer(max_item_bytes: usize) -> Packer {
    let params = BTreeMap::from([("group-by".to_owned(), "/job_id".to_owned())]);
    let params = Params {
        max_item_bytes,
        ..Params::from_map(&params).expect("parameters")
    };
    Packer::new(params).expect("zstd")
}

impl Stream {
    /// The demo's own events, a topic partition of four, so many bytes of them, in stored batches of 1 MiB,
    /// for items of so many bytes.
    pub fn demo(jobs: u32, bytes: usize, max_item_bytes: usize) -> Vec<Envelope> {
        let mut stream = Self {
            workload: Workload::new(1, START_MS, jobs),
            packer: packer(max_item_bytes),
            ..Self::default()
        };
        let mut envelopes = Vec::new();
        let (mut batch, mut batch_bytes, mut all) = (Vec::new(), 0, 0);
        while all < bytes {
            let event = stream.event();
            if millpond_format::keys::topic_partition(&event.partition_key, 4) > 0 {
                continue;
            }
            batch_bytes += event.data.len() + 100;
            all += event.data.len();
            batch.push(event);
            if batch_bytes >= 1 << 20 {
                envelopes.extend(stream.pack(&std::mem::take(&mut batch)));
                batch_bytes = 0;
            }
        }
        envelopes
    }

    /// Envelopes of `count` events of so many jobs each, which come in so many stored batches.
    pub fn envelopes(&mut self, jobs: usize, count: usize, batches: usize) -> Vec<Envelope> {
        let mut groups: BTreeMap<String, Vec<Event>> = BTreeMap::new();
        let mut full = Vec::new();
        while full.len() < jobs {
            let event = self.event();
            let job = event.partition_key.split('/').next().unwrap_or_default();
            let group = groups.entry(job.to_owned()).or_default();
            if group.len() < count {
                group.push(event);
                if group.len() == count {
                    full.push(job_of(group));
                }
            }
        }
        let mut envelopes = Vec::new();
        for batch in 0..batches {
            let mut events = Vec::new();
            for job in &full {
                let part = |n: usize| count * n / batches;
                events.extend_from_slice(&groups[job][part(batch)..part(batch + 1)]);
            }
            // A group's events of a batch are never in two.
            for batch in events.chunks((count.div_ceil(batches)) * 20) {
                envelopes.extend(self.pack(batch));
            }
        }
        envelopes
    }

    fn event(&mut self) -> Event {
        self.next += 1;
        self.workload.event(self.next - 1)
    }

    fn pack(&mut self, events: &[Event]) -> Vec<Envelope> {
        let mut builder = BatchBuilder::new();
        for (index, event) in events.iter().enumerate() {
            let ordinal = self.offset + index as u64;
            let time = START_MS + ordinal as i64 / 2;
            let key = format!(
                "mp1/events/shardId-000000000003/4959033827149025660855969253836157109592157598{ordinal:010}/0/{time}/1763885999000.{ordinal}/{}",
                event.partition_key
            );
            builder.push(Some(key.as_bytes()), event.data.as_bytes(), time);
        }
        let base = self.offset;
        self.offset += events.len() as u64;
        let packed = self.packer.pack(&builder.finish(), base, START_MS);
        let envelope = |record: millpond_pack::PackedRecord| {
            let record = ConsumedRecord {
                offset: None,
                key: Some(record.key.into()),
                value: record.value.into(),
                timestamp_ms: None,
            };
            match Entry::decode(record).expect("an envelope") {
                Entry::Envelope(envelope) => envelope,
                Entry::Plain(_) => panic!("a plain record"),
            }
        };
        packed.expect("packs").into_iter().map(envelope).collect()
    }
}

fn job_of(events: &[Event]) -> String {
    let key = &events[0].partition_key;
    key.split('/').next().unwrap_or_default().to_owned()
}
