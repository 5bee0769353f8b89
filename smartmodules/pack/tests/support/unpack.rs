//! Takes envelopes apart again, checking on the way everything that they promise.

use std::collections::BTreeMap;

use millpond_format::frame::FrameDecoder;
use millpond_format::header::{Header, Kind, Place, Reject, SourceRange};
use millpond_format::limits;
use millpond_pack::PackedRecord;

use super::BASE_OFFSET;

/// An event as an envelope gives it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub value: Vec<u8>,
    pub time_ms: i64,
    pub shard: String,
    pub ordinal: u64,
}

/// What a batch became.
#[derive(Debug, Default)]
pub struct Unpacked {
    /// Groups in the order of their first envelope.
    pub order: Vec<String>,
    /// Events of each group in order.
    pub groups: BTreeMap<String, Vec<Event>>,
    /// Rejected events in order.
    pub rejects: Vec<(Reject, Event)>,
    /// Envelopes that hold a slice of an event.
    pub parts: usize,
    /// Largest envelope that is no reject, with its keys counted as the limit counts them.
    pub largest_item: usize,
    /// Source ranges that do not say exactly which events are there, by their shards: none, unless the origins of a
    /// batch contradict each other.
    pub wrong_sources: usize,
}

/// Takes all envelopes of one batch of `record_count` records apart.
pub fn unpack(records: &[PackedRecord], record_count: u64) -> Unpacked {
    let mut unpacked = Unpacked::default();
    let mut decoder = FrameDecoder::new().expect("context");
    let mut slices: Vec<u8> = Vec::new();
    let mut counted = 0;
    let mut counted_by_sources = 0;
    for (index, record) in records.iter().enumerate() {
        let (header, length) = Header::decode(&record.value).expect("a header");
        let payload = &record.value[length..];
        header.check_frames(payload).expect("whole frames");
        assert_eq!(record.key, header.group.as_bytes());
        assert_eq!(
            header.place,
            Place::Batch {
                index: index as u32,
                total: records.len() as u32
            }
        );
        assert_eq!(header.base_offset, BASE_OFFSET);
        assert_eq!(header.last_offset, BASE_OFFSET + record_count - 1);
        counted += header.event_count();
        counted_by_sources += header
            .sources
            .iter()
            .map(|source| source.count)
            .sum::<u64>();
        let events = events_of(&mut decoder, &header, payload);
        match &header.kind {
            Kind::Events => {
                assert_eq!(events.len() as u64, header.event_count());
                unpacked.wrong_sources += wrong_sources(&header, &events);
                assert!(slices.is_empty(), "parts of one event stand together");
                unpacked.group(&header.group).extend(events);
            }
            Kind::Part(part) => {
                let [slice] = events.try_into().expect("one slice");
                slices.extend_from_slice(&slice.value);
                unpacked.parts += 1;
                assert_eq!(header.event_count(), u64::from(part.is_last()));
                if part.is_last() {
                    let value = std::mem::take(&mut slices);
                    assert_eq!(value.len() as u64, part.event_bytes);
                    assert_eq!(crc32c::crc32c(&value), part.event_crc32c);
                    unpacked.group(&header.group).push(Event { value, ..slice });
                }
            }
            Kind::Reject(reject) => {
                assert_eq!(header.event_count(), 1);
                let values: Vec<_> = events.iter().map(|event| event.value.as_slice()).collect();
                let event = Event {
                    value: values.concat(),
                    ..events[0].clone()
                };
                unpacked.rejects.push((reject.clone(), event));
            }
        }
        if !matches!(header.kind, Kind::Reject(_)) {
            let item = record.value.len() + limits::ITEM_RESERVE_BYTES + header.group.len();
            unpacked.largest_item = unpacked.largest_item.max(item);
        }
    }
    assert_eq!(counted, record_count, "every record counts once");
    assert_eq!(counted_by_sources, record_count, "in the sources too");
    unpacked
}

impl Unpacked {
    fn group(&mut self, name: &str) -> &mut Vec<Event> {
        if !self.order.iter().any(|known| known == name) {
            self.order.push(name.to_owned());
        }
        assert_eq!(
            self.order.last().map(String::as_str),
            Some(name),
            "groups stand together"
        );
        self.groups.entry(name.to_owned()).or_default()
    }
}

fn events_of(decoder: &mut FrameDecoder, header: &Header, payload: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    for (info, range) in header.frame_ranges() {
        let frame = decoder
            .decode(header.codec, info, &payload[range])
            .expect("a frame");
        events.extend(frame.events.iter().map(|event| Event {
            value: frame.value(event).to_vec(),
            time_ms: event.time_ms,
            shard: header.sources[event.source as usize].shard.clone(),
            ordinal: event.ordinal,
        }));
    }
    events
}

/// Source ranges that do not say exactly which events are there.
fn wrong_sources(header: &Header, events: &[Event]) -> usize {
    let is_wrong = |source: &&SourceRange| {
        let of_shard = events.iter().filter(|event| event.shard == source.shard);
        let ordinals: Vec<u64> = of_shard.map(|event| event.ordinal).collect();
        let is_right = ordinals.len() as u64 == source.count
            && ordinals.iter().min() == Some(&source.first_ordinal)
            && ordinals.iter().max() == Some(&source.last_ordinal)
            && source.first <= source.last;
        !is_right
    };
    header.sources.iter().filter(is_wrong).count()
}
