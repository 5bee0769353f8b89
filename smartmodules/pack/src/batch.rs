//! A stored batch taken apart: events by group, in the order of their first appearance, and
//! the events that have no group.

use std::borrow::Cow;
use std::collections::HashMap;

use millpond_format::header::RejectReason;
use millpond_format::limits;
use millpond_format::origin::Origin;
use millpond_format::record::{Record, RecordError, Records};

use crate::params::Params;
use crate::route::{Rejection, route};

/// Marks the end of a group's list of events.
const NONE: u32 = u32::MAX;

/// A shard and numbering that events of the batch came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chain<'a> {
    pub stream: &'a str,
    pub shard: &'a str,
    pub epoch: u64,
}

/// An event with what the envelope says of it.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    pub value: &'a [u8],
    pub time_ms: i64,
    /// Index into [`Batch::chains`].
    pub chain: u32,
    pub ordinal: u64,
    pub sequence: &'a str,
    pub sub_sequence: u32,
    /// Next event of the same group.
    next: u32,
}

/// An event without a group.
#[derive(Debug)]
pub struct Rejected<'a> {
    pub event: Event<'a>,
    pub record_key: Option<&'a [u8]>,
    pub rejection: Rejection,
}

#[derive(Debug)]
struct Group<'a> {
    key: Cow<'a, str>,
    first: u32,
    last: u32,
}

/// A stored batch taken apart.
#[derive(Debug)]
pub struct Batch<'a> {
    params: &'a Params,
    base_offset: u64,
    base_timestamp_ms: i64,
    events: Vec<Event<'a>>,
    groups: Vec<Group<'a>>,
    group_index: HashMap<Cow<'a, str>, u32>,
    chain_index: HashMap<Chain<'a>, u32>,
    /// Chains in the order of their first appearance.
    pub chains: Vec<Chain<'a>>,
    /// Events without a group, in order.
    pub rejected: Vec<Rejected<'a>>,
    /// Records in the batch.
    pub record_count: u32,
}

impl<'a> Batch<'a> {
    /// Reads the records of a batch and routes every one.
    pub fn read(
        params: &'a Params,
        raw_records: &'a [u8],
        base_offset: u64,
        base_timestamp_ms: i64,
    ) -> Result<Self, RecordError> {
        let records = Records::new(raw_records)?;
        let mut batch = Self {
            params,
            base_offset,
            base_timestamp_ms,
            events: Vec::new(),
            groups: Vec::new(),
            group_index: HashMap::new(),
            chain_index: HashMap::new(),
            chains: Vec::new(),
            rejected: Vec::new(),
            record_count: 0,
        };
        for record in records {
            batch.take(&record?);
            batch.record_count += 1;
        }
        Ok(batch)
    }

    fn take(&mut self, record: &Record<'a>) {
        let origin = match Origin::parse(record.key.unwrap_or_default()) {
            Ok(origin) => origin,
            Err(error) => return self.take_foreign(record, error.to_string()),
        };
        let mut event = Event {
            value: record.value,
            time_ms: 0,
            chain: self.chain(Chain {
                stream: origin.stream,
                shard: origin.shard,
                epoch: origin.chain.epoch,
            }),
            ordinal: origin.chain.ordinal,
            sequence: origin.sequence.as_str(),
            sub_sequence: origin.sub_sequence,
            next: NONE,
        };
        match route(self.params, &origin, record.value) {
            Ok(route) => {
                event.time_ms = route.time_ms;
                self.append(event, route.group);
            }
            Err(rejection) => {
                event.time_ms = origin.arrival_ms.clamp(0, limits::MAX_TIME_MS);
                self.rejected.push(Rejected {
                    event,
                    record_key: record.key,
                    rejection,
                });
            }
        }
    }

    /// A record without an origin: its source has no stream and no shard, and its topic offset
    /// for an ordinal, so that it is still counted and told apart from every other.
    fn take_foreign(&mut self, record: &Record<'a>, error: String) {
        let detail = match record.key {
            Some(_) => error,
            None => "the record has no key".to_owned(),
        };
        let time_ms = self
            .base_timestamp_ms
            .saturating_add(record.timestamp_delta_ms);
        let event = Event {
            value: record.value,
            time_ms: time_ms.clamp(0, limits::MAX_TIME_MS),
            chain: self.chain(Chain {
                stream: "",
                shard: "",
                epoch: 0,
            }),
            ordinal: self.base_offset.saturating_add(self.record_count.into()),
            sequence: "0",
            sub_sequence: 0,
            next: NONE,
        };
        self.rejected.push(Rejected {
            event,
            record_key: record.key,
            rejection: Rejection {
                reason: RejectReason::OriginInvalid,
                detail,
            },
        });
    }

    fn chain(&mut self, chain: Chain<'a>) -> u32 {
        // A batch is mostly runs of one shard.
        if let Some(last) = self.events.last()
            && self.chains[last.chain as usize] == chain
        {
            return last.chain;
        }
        let next = self.chains.len() as u32;
        let number = *self.chain_index.entry(chain).or_insert(next);
        if number == next {
            self.chains.push(chain);
        }
        number
    }

    fn append(&mut self, event: Event<'a>, key: Cow<'a, str>) {
        let index = self.events.len() as u32;
        self.events.push(event);
        if let Some(number) = self.group_index.get(&key) {
            let group = &mut self.groups[*number as usize];
            self.events[group.last as usize].next = index;
            group.last = index;
            return;
        }
        let number = self.groups.len() as u32;
        self.group_index.insert(key.clone(), number);
        self.groups.push(Group {
            key,
            first: index,
            last: index,
        });
    }

    /// Groups in the order of their first appearance, each with its events in order.
    pub fn groups(&self) -> impl Iterator<Item = (&str, GroupEvents<'_, 'a>)> {
        self.groups.iter().map(|group| {
            let events = GroupEvents {
                events: &self.events,
                next: group.first,
            };
            (group.key.as_ref(), events)
        })
    }
}

/// Events of one group in order.
#[derive(Debug)]
pub struct GroupEvents<'b, 'a> {
    events: &'b [Event<'a>],
    next: u32,
}

impl<'b, 'a> Iterator for GroupEvents<'b, 'a> {
    type Item = &'b Event<'a>;

    fn next(&mut self) -> Option<&'b Event<'a>> {
        let event = self.events.get(self.next as usize)?;
        self.next = event.next;
        Some(event)
    }
}
