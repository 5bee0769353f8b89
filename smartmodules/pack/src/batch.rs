//! A stored batch taken apart: events by group, in the order of their first appearance, and
//! the events that have no group.

use std::borrow::Cow;
use std::collections::HashMap;

use millpond_format::header::RejectReason;
use millpond_format::limits;
use millpond_format::origin::{ChainLink, Origin, OriginError};
use millpond_format::record::{Record, RecordError, Records};
use millpond_format::sequence::SequenceNumber;

use crate::params::{GroupBy, OnMissingOrigin, Params};
use crate::route::{Rejection, route};

/// Marks the end of a group's list of events.
const NONE: u32 = u32::MAX;

/// Sequence number of a record that has its topic offset for an origin.
const NO_SEQUENCE: &str = "0";

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
    /// Offset delta of the record before.
    last_delta: Option<i64>,
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
            last_delta: None,
        };
        for record in records {
            let record = record?;
            batch.take(&record);
            batch.record_count += 1;
            batch.last_delta = Some(record.offset_delta);
        }
        Ok(batch)
    }

    fn take(&mut self, record: &Record<'a>) {
        let key = record.key.unwrap_or_default();
        match Origin::parse(key) {
            Ok(origin) => self.take_event(record, &origin),
            Err(error) => {
                let accepts = self.params.on_missing_origin == OnMissingOrigin::TopicOffset;
                let origin = if accepts && !claims_origin(key) {
                    self.topic_origin(record)
                } else {
                    Err(Rejection {
                        reason: RejectReason::OriginInvalid,
                        detail: no_origin(record.key, error, accepts),
                    })
                };
                match origin {
                    Ok(origin) => self.take_event(record, &origin),
                    Err(rejection) => self.reject_foreign(record, rejection),
                }
            }
        }
    }

    fn take_event(&mut self, record: &Record<'a>, origin: &Origin<'a>) {
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
        match route(self.params, origin, record.value) {
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

    /// The origin of another producer's record: without stream and shard, its topic offset for an
    /// ordinal, its key in the place of the Kinesis partition key.
    fn topic_origin(&self, record: &Record<'a>) -> Result<Origin<'a>, Rejection> {
        let Some(ordinal) = self.offset(record) else {
            let detail = "a SmartModule before the packer made this record anew (as an `array_map` \
                          does): nothing says which topic offset it had";
            return Err(Rejection {
                reason: RejectReason::OriginInvalid,
                detail: detail.to_owned(),
            });
        };
        let partition_key = match std::str::from_utf8(record.key.unwrap_or_default()) {
            Ok(key) => key,
            Err(_) if self.params.group_by != GroupBy::PartitionKey => "",
            Err(_) => {
                return Err(Rejection {
                    reason: RejectReason::GroupInvalid,
                    detail: "the record key is not UTF-8 text".to_owned(),
                });
            }
        };
        let sequence = SequenceNumber::parse(NO_SEQUENCE).ok_or_else(|| Rejection {
            reason: RejectReason::OriginInvalid,
            detail: String::new(),
        })?;
        Ok(Origin {
            stream: "",
            shard: "",
            sequence,
            sub_sequence: 0,
            arrival_ms: self.time_ms(record),
            chain: ChainLink { epoch: 0, ordinal },
            partition_key,
        })
    }

    /// Offset of a stored record, which keeps its place in the stored batch when others before it
    /// were removed; `None` when it has none of its own.
    fn offset(&self, record: &Record<'_>) -> Option<u64> {
        let follows = self
            .last_delta
            .is_none_or(|last| record.offset_delta > last);
        let delta = u64::try_from(record.offset_delta)
            .ok()
            .filter(|_| follows)?;
        self.base_offset.checked_add(delta)
    }

    fn time_ms(&self, record: &Record<'_>) -> i64 {
        self.base_timestamp_ms
            .saturating_add(record.timestamp_delta_ms)
    }

    /// A record without an origin: its source has no stream and no shard, and its topic offset
    /// for an ordinal, so that it is still counted and told apart from every other.
    fn reject_foreign(&mut self, record: &Record<'a>, rejection: Rejection) {
        let index = self.base_offset.saturating_add(self.record_count.into());
        let event = Event {
            value: record.value,
            time_ms: self.time_ms(record).clamp(0, limits::MAX_TIME_MS),
            chain: self.chain(Chain {
                stream: "",
                shard: "",
                epoch: 0,
            }),
            ordinal: self.offset(record).unwrap_or(index),
            sequence: NO_SEQUENCE,
            sub_sequence: 0,
            next: NONE,
        };
        self.rejected.push(Rejected {
            event,
            record_key: record.key,
            rejection,
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

/// True for a key that begins like an origin of this or a later version (`mp1/`): whoever wrote
/// it meant one.
fn claims_origin(key: &[u8]) -> bool {
    let Some(rest) = key.strip_prefix(b"mp") else {
        return false;
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    digits > 0 && rest.get(digits) == Some(&b'/')
}

fn no_origin(key: Option<&[u8]>, error: OriginError, accepts: bool) -> String {
    let what = match key {
        Some(_) => error.to_string(),
        None => "the record has no key".to_owned(),
    };
    if accepts {
        return what;
    }
    format!(
        "{what}: a SmartModule before the packer must keep the keys of events from Kinesis; for a \
         topic that other producers fill set `on-missing-origin: topic-offset`"
    )
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
