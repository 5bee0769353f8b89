//! The planner: takes entries in order, keeps one open item a group.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use millpond_connector::mutation::{self, Mutation};
use millpond_connector::random;
use millpond_connector::topic::Offset;
use millpond_format::header::{Header, Kind, Place};
use millpond_format::join::Joiner;
use millpond_format::keys::SortKey;
use millpond_format::limits::{MAX_GROUP_BYTES, MAX_TIME_MS};
use millpond_format::origin::{Origin, OriginError};
use millpond_format::sizing::ItemSize;

use super::{
    Listing, MAX_ENVELOPE_INDEX, Plan, PlanConfig, PlanError, PlannedItem, SORT_KEY_BYTES,
};
use crate::chain::ChainState;
use crate::form::zone::Zones;
use crate::row::{Key, Pieces, Row, Value, names};
use millpond_sink::contiguity::{Envelope, PlainRecord};
use millpond_sink::dedup::Workbench;

/// An item that still takes envelopes.
struct OpenItem {
    joiner: Joiner,
    frames: Vec<Bytes>,
    index: u32,
    zones: Zones,
}

struct ChainBuild {
    state: ChainState,
    /// The lateness bound was raised.
    is_raised: bool,
    /// Write shards up to the last one that has an item.
    used: u32,
}

impl ChainBuild {
    /// Goes round so many write shards.
    fn new(state: ChainState, write_shards: u32) -> Self {
        Self {
            state: ChainState {
                write_shards,
                ..state
            },
            is_raised: false,
            used: 0,
        }
    }

    /// The write shard of the next item, which is the `ordinal`th of them.
    fn next_shard(&mut self, ordinal: u64) -> u32 {
        let shard = (ordinal % u64::from(self.state.write_shards.max(1))) as u32;
        self.used = self.used.max(shard + 1);
        shard
    }

    /// Rows of the directory that are to be written, and the state once they are. They are listed from the
    /// first on, so that whoever finds one missing knows that there are no items behind it.
    fn listing(&mut self, group: &str) -> Option<Listing> {
        let listed = self.state.listed;
        self.state.listed = listed.max(self.used);
        let write_shards = match self.is_raised {
            true => 0..self.state.listed,
            false if mutation::is(Mutation::ShardNotListed) => return None,
            false => listed..self.state.listed,
        };
        let late_ms = self.state.late_ms?;
        (!write_shards.is_empty()).then(|| Listing {
            group: group.to_owned(),
            write_shards,
            late_ms,
        })
    }
}

pub(super) struct Planner<'a> {
    config: &'a PlanConfig,
    states: &'a BTreeMap<String, ChainState>,
    write_shards: &'a BTreeMap<String, u32>,
    tools: &'a mut Workbench,
    /// Bounds of no event yet.
    no_zones: Zones,
    chains: BTreeMap<String, ChainBuild>,
    open: BTreeMap<String, OpenItem>,
    plan: Plan,
    /// Batch that envelopes were cut in, and how many more that made.
    cut: (Offset, u32),
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        config: &'a PlanConfig,
        states: &'a BTreeMap<String, ChainState>,
        write_shards: &'a BTreeMap<String, u32>,
        tools: &'a mut Workbench,
    ) -> Self {
        Self {
            config,
            states,
            write_shards,
            tools,
            no_zones: config.form.zones(),
            chains: BTreeMap::new(),
            open: BTreeMap::new(),
            plan: Plan::default(),
            cut: (0, 0),
        }
    }

    /// A plain record whose key is no origin has no group and no place in a chain.
    pub(super) fn unknown(&mut self, record: &PlainRecord, error: OriginError) {
        let letter = self.config.letters().without_origin(record, error);
        self.plan.dead_letters.push(letter);
    }

    pub(super) fn envelope(&mut self, envelope: &Envelope) -> Result<(), PlanError> {
        let header = &envelope.header;
        let offset = header.base_offset;
        let index = match header.place {
            Place::Batch { index, .. } => index,
            Place::Chain(_) => 0,
        };
        if self.cut.0 != offset {
            self.cut = (offset, 0);
        }
        let index = index + self.cut.1;
        if let Kind::Reject(reject) = &header.kind {
            let letter = self.config.letters().rejected(envelope, reject, index);
            self.plan.dead_letters.push(letter);
            return Ok(());
        }
        let bytes = header.group.len();
        if !(1..=MAX_GROUP_BYTES).contains(&bytes) {
            return Err(PlanError::Group { offset, bytes });
        }
        self.place(envelope, index)
    }

    fn place(&mut self, envelope: &Envelope, index: u32) -> Result<(), PlanError> {
        let header = &envelope.header;
        let limit = self
            .config
            .max_item_bytes
            .saturating_sub(self.fixed_bytes(&header.group));
        if let Some(open) = self.open.get_mut(&header.group) {
            if open.joiner.try_push(header, limit) {
                open.frames.push(envelope.frames.clone());
                let zones = zones(&self.no_zones, envelope, self.tools);
                open.zones.join(zones);
                return Ok(());
            }
            self.close(&header.group.clone())?;
        }
        let alone = self.alone_bytes(header);
        if alone > limit {
            return self.cut(envelope, index, alone - limit + self.config.max_item_bytes);
        }
        if index > MAX_ENVELOPE_INDEX {
            return Err(PlanError::TooManyEnvelopes {
                offset: header.base_offset,
            });
        }
        let item = OpenItem {
            joiner: Joiner::new(header.clone()),
            frames: vec![envelope.frames.clone()],
            index,
            zones: zones(&self.no_zones, envelope, self.tools),
        };
        let single = !matches!(header.kind, Kind::Events);
        self.open.insert(header.group.clone(), item);
        if single {
            self.close(&header.group)?;
        }
        Ok(())
    }

    fn number(&self, group: &str) -> u32 {
        self.write_shards.get(group).copied().unwrap_or(1)
    }

    fn fixed_bytes(&self, group: &str) -> usize {
        self.config.fixed_bytes(group, self.number(group))
    }

    /// Header section and frames of an item made of this envelope alone.
    fn alone_bytes(&mut self, header: &Header) -> usize {
        let mut totals = self.chain(&header.group).state.totals;
        totals.items += 1;
        totals.events += header.event_count();
        totals.event_bytes += header.event_bytes();
        totals.packed_bytes += header.packed_bytes() as u64;
        let place = Place::Chain(totals);
        let header = Header {
            place,
            ..header.clone()
        };
        header.encoded_len() + header.packed_bytes()
    }

    /// Cuts an envelope that does not fit into two, by events.
    fn cut(&mut self, envelope: &Envelope, index: u32, bytes: usize) -> Result<(), PlanError> {
        let header = &envelope.header;
        let offset = header.base_offset;
        let events = header.event_count();
        if events < 2 || header.kind != Kind::Events {
            return Err(PlanError::Oversize {
                what: match header.kind {
                    Kind::Events => "an event",
                    _ => "a part of an event",
                },
                group: header.group.clone(),
                offset,
                bytes,
                limit: self.config.max_item_bytes,
            });
        }
        let mut index = index;
        for half in [0..events / 2, events / 2..events] {
            let seen = std::cell::Cell::new(0);
            let keep = |_: &_, _| half.contains(&seen.replace(seen.get() + 1));
            let part = self.tools.trim(envelope, keep);
            let part = part.map_err(|source| PlanError::Trim { offset, source })?;
            if let Some(part) = part {
                let before = self.cut.1;
                self.place(&part, index)?;
                // The second half is one envelope more, besides those that the first was cut into.
                index += 1 + (self.cut.1 - before);
            }
        }
        self.cut.1 += 1;
        Ok(())
    }

    pub(super) fn plain(
        &mut self,
        record: &PlainRecord,
        origin: &Origin<'_>,
    ) -> Result<(), PlanError> {
        let group = origin.partition_key;
        let letters = self.config.letters();
        if let Some(letter) = letters.without_group(record, origin) {
            self.plan.dead_letters.push(letter);
            return Ok(());
        }
        let config = self.config;
        let name = |name| config.name(name);
        let key_bytes = record.key.as_ref().map_or(0, Bytes::len);
        let bytes = ItemSize::new()
            .string(
                &self.config.keys.partition,
                &self.config.shard_pk(group, self.number(group) - 1),
            )
            .binary(&self.config.keys.sort, SORT_KEY_BYTES)
            .binary(name(names::VALUE), record.value.len())
            .binary(name(names::ORIGIN), key_bytes)
            .integer(name(names::FIRST_TIME), origin.arrival_ms)
            .bytes()
            + self.config.form.bytes(group);
        let limit = self.config.max_item_bytes;
        if bytes > limit {
            let detail = format!("item of {bytes} bytes, `max-item-bytes` is {limit}");
            let letter = letters.plain(record, origin, "too-large", detail);
            self.plan.dead_letters.push(letter);
            return Ok(());
        }
        if self.open.contains_key(group) {
            self.close(group)?;
        }
        let time = origin.arrival_ms;
        let sort_time_ms = self.advance(group, time, time);
        let origin_text = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default());
        // There are no totals to count on from: spread whatever pattern the group's offsets have.
        let mixed = record.offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let shard = self.chain(group).next_shard(mixed);
        let row = Row::new(self.item_key(group, shard, sort_time_ms, record.offset, 0))
            .with(name(names::VALUE), Value::B(record.value.clone().into()))
            .with(name(names::ORIGIN), Value::S(origin_text.into_owned()))
            .with(name(names::FIRST_TIME), Value::N(time));
        let mut zones = self.no_zones.clone();
        zones.take(&record.value);
        let row = self.config.form.add_of_group(row, group, time, &zones);
        self.push(row, 1, record.value.len() as u64);
        Ok(())
    }

    fn chain(&mut self, group: &str) -> &mut ChainBuild {
        if !self.chains.contains_key(group) {
            let state = self.states.get(group).copied().unwrap_or_default();
            let build = ChainBuild::new(state, self.number(group));
            self.chains.insert(group.to_owned(), build);
        }
        self.chains
            .entry(group.to_owned())
            .or_insert_with(|| ChainBuild::new(ChainState::default(), 1))
    }

    /// Moves the sort time of a chain past an item and raises its lateness bound if need be.
    fn advance(&mut self, group: &str, first_ms: i64, last_ms: i64) -> i64 {
        let chain = self.chain(group);
        let sort_time_ms = chain.state.sort_time_ms.max(last_ms.clamp(0, MAX_TIME_MS));
        chain.state.sort_time_ms = sort_time_ms;
        let late = sort_time_ms.saturating_sub(first_ms).max(0);
        if let Some(bound) = chain.state.raised(late) {
            chain.state.late_ms = Some(bound);
            chain.is_raised = true;
        }
        sort_time_ms
    }

    fn item_key(
        &self,
        group: &str,
        shard: u32,
        sort_time_ms: i64,
        base_offset: u64,
        index: u32,
    ) -> Key {
        let tried = match mutation::is(Mutation::KeyNotIdempotent) {
            true => (random::number() % 1_000) as u32,
            false => 0,
        };
        let sort_key = SortKey {
            sort_time_ms,
            base_offset,
            envelope_index: index + tried,
        };
        Key {
            pk: self.config.shard_pk(group, shard),
            sk: sort_key.to_text(),
        }
    }

    fn close(&mut self, group: &str) -> Result<(), PlanError> {
        let Some(open) = self.open.remove(group) else {
            return Ok(());
        };
        let header = open.joiner.header();
        let (events, event_bytes) = (header.event_count(), header.event_bytes());
        let (first_ms, last_ms) = (header.first_time_ms(), header.last_time_ms());
        let base_offset = header.base_offset;
        let packed_bytes = header.packed_bytes() as u64;
        let sort_time_ms = self.advance(group, first_ms, last_ms);
        let chain = self.chain(group);
        let shard = chain.next_shard(chain.state.totals.items);
        let totals = &mut chain.state.totals;
        totals.items += 1;
        totals.events += events;
        totals.event_bytes += event_bytes;
        totals.packed_bytes += packed_bytes;
        let header = open.joiner.finish(Place::Chain(*totals));
        let mut section = Vec::new();
        header.encode(&mut section);
        let config = self.config;
        let name = |name| config.name(name);
        let events_number = i64::try_from(events).unwrap_or(i64::MAX);
        let row = Row::new(self.item_key(group, shard, sort_time_ms, base_offset, open.index))
            .with(name(names::HEADER), Value::B(section.into()))
            .with(name(names::FRAMES), Value::B(Pieces(open.frames)))
            .with(name(names::EVENTS), Value::N(events_number))
            .with(name(names::FIRST_TIME), Value::N(first_ms))
            .with(name(names::LAST_TIME), Value::N(last_ms));
        let form = &self.config.form;
        let row = form.add_of_group(row, group, last_ms, &open.zones);
        let bytes = self.push(row, events, event_bytes);
        let limit = self.config.max_item_bytes;
        if bytes > limit {
            return Err(PlanError::Oversize {
                what: "an item",
                group: group.to_owned(),
                offset: base_offset,
                bytes,
                limit,
            });
        }
        Ok(())
    }

    fn push(&mut self, row: Row, events: u64, event_bytes: u64) -> usize {
        let size = row.size(&self.config.keys);
        self.plan.items.push(PlannedItem {
            row: Arc::new(row),
            bytes: size.bytes(),
            units: size.write_units(),
            events,
            event_bytes,
        });
        size.bytes()
    }

    pub(super) fn finish(mut self) -> Result<Plan, PlanError> {
        let groups: Vec<String> = self.open.keys().cloned().collect();
        for group in groups {
            self.close(&group)?;
        }
        for (group, mut chain) in self.chains {
            self.plan.directory.extend(chain.listing(&group));
            self.plan.chains.push((group, chain.state));
        }
        Ok(self.plan)
    }
}

/// Bounds of the events of an envelope. The frames are opened only where bounds are asked for.
fn zones(none: &Zones, envelope: &Envelope, tools: &mut Workbench) -> Zones {
    let mut zones = none.clone();
    if zones.is_empty() {
        return zones;
    }
    // A part of an event is no JSON. Frames that cannot be read are kept as they are, and may hold anything.
    let is_whole = matches!(envelope.header.kind, Kind::Events);
    if !is_whole || tools.events(envelope, |event| zones.take(event)).is_err() {
        zones.give_up();
    }
    zones
}
