//! The planner: takes entries in order, and keeps the envelopes of a group until what they make is known.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use millpond_connector::mutation::{self, Mutation};
use millpond_connector::random;
use millpond_connector::topic::Offset;
use millpond_format::header::{ChainTotals, Header, Kind, Place};
use millpond_format::keys::SortKey;
use millpond_format::limits::{MAX_GROUP_BYTES, MAX_TIME_MS};
use millpond_format::origin::{Origin, OriginError};
use millpond_format::sizing::ItemSize;

use super::chain_build::ChainBuild;
use super::joined::{Open, Waiting, with_item};
use super::repack::{Repack, Repacker};
use super::{Plan, PlanConfig, PlanError, PlannedItem, SORT_KEY_BYTES};
use crate::chain::ChainState;
use crate::form::zone::Zones;
use crate::row::{Key, Pieces, Row, Value, names};
use millpond_sink::contiguity::{Envelope, PlainRecord};
use millpond_sink::dedup::Workbench;

/// Bytes that a header may grow by when totals take the place of a batch: four varints.
const TOTALS_BYTES: usize = 40;

pub(super) struct Planner<'a> {
    pub(super) config: &'a PlanConfig,
    states: &'a BTreeMap<String, ChainState>,
    write_shards: &'a BTreeMap<String, u32>,
    pub(super) tools: &'a mut Workbench,
    pub(super) repack: Option<Repacker<'a>>,
    /// Bounds of no event yet.
    no_zones: Zones,
    chains: BTreeMap<String, ChainBuild>,
    pub(super) open: BTreeMap<String, Open<'a>>,
    pub(super) plan: Plan,
    /// Batch that envelopes were cut in, and how many more that made.
    cut: (Offset, u32),
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        config: &'a PlanConfig,
        states: &'a BTreeMap<String, ChainState>,
        write_shards: &'a BTreeMap<String, u32>,
        tools: &'a mut Workbench,
        repack: Option<Repack<'a>>,
    ) -> Self {
        Self {
            config,
            states,
            write_shards,
            tools,
            repack: repack.map(Repacker::new),
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

    pub(super) fn envelope(&mut self, envelope: &'a Envelope) -> Result<(), PlanError> {
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
        self.place(Cow::Borrowed(envelope), index)
    }

    fn place(&mut self, envelope: Cow<'a, Envelope>, index: u32) -> Result<(), PlanError> {
        let header = &envelope.header;
        let limit = self.limit(&header.group);
        let alone = self.alone_bytes(header);
        if alone > limit {
            let bytes = alone - limit + self.config.max_item_bytes;
            return self.cut(&envelope, index, bytes);
        }
        // What is no run of whole events is an item of its own.
        let is_single = !matches!(header.kind, Kind::Events);
        let group = header.group.clone();
        if is_single {
            self.close(&group)?;
        }
        let before = self.chain(&group).state.totals;
        let zones = zones(&self.no_zones, &envelope, self.tools);
        let open = self.open.entry(group.clone()).or_insert_with(|| Open {
            envelopes: Vec::new(),
            totals: before,
        });
        open.totals = with_item(open.totals, &envelope.header);
        open.envelopes.push(Waiting {
            envelope,
            index,
            zones,
        });
        if is_single {
            self.close(&group)?;
        }
        Ok(())
    }

    /// Most bytes of header section and frames of an item of this group.
    pub(super) fn limit(&self, group: &str) -> usize {
        self.config
            .max_item_bytes
            .saturating_sub(self.fixed_bytes(group))
    }

    fn number(&self, group: &str) -> u32 {
        self.write_shards.get(group).copied().unwrap_or(1)
    }

    fn fixed_bytes(&self, group: &str) -> usize {
        self.config.fixed_bytes(group, self.number(group))
    }

    /// Header section and frames of an item made of this envelope alone: an upper bound, exact where it matters.
    fn alone_bytes(&mut self, header: &Header) -> usize {
        let bound = header.encoded_len() + TOTALS_BYTES + header.packed_bytes();
        if bound <= self.limit(&header.group) {
            return bound;
        }
        let totals = match self.open.get(&header.group) {
            Some(open) => open.totals,
            None => self.chain(&header.group).state.totals,
        };
        let place = Place::Chain(with_item(totals, header));
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
                self.place(Cow::Owned(part), index)?;
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

    pub(super) fn chain(&mut self, group: &str) -> &mut ChainBuild {
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
    pub(super) fn advance(&mut self, group: &str, first_ms: i64, last_ms: i64) -> i64 {
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

    pub(super) fn item_key(
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

    /// An item whose header's place holds the totals before it; and those after it.
    pub(super) fn item(
        &self,
        mut header: Header,
        frames: Pieces,
        key: Key,
        zones: &Zones,
    ) -> (Row, ChainTotals) {
        let totals = match header.place {
            Place::Chain(totals) => totals,
            Place::Batch { .. } => ChainTotals::default(),
        };
        let events = header.event_count();
        let totals = with_item(totals, &header);
        header.place = Place::Chain(totals);
        let mut section = Vec::new();
        header.encode(&mut section);
        let (first_ms, last_ms) = (header.first_time_ms(), header.last_time_ms());
        let name = |name| self.config.name(name);
        let events_number = i64::try_from(events).unwrap_or(i64::MAX);
        let row = Row::new(key)
            .with(name(names::HEADER), Value::B(section.into()))
            .with(name(names::FRAMES), Value::B(frames))
            .with(name(names::EVENTS), Value::N(events_number))
            .with(name(names::FIRST_TIME), Value::N(first_ms))
            .with(name(names::LAST_TIME), Value::N(last_ms));
        let form = &self.config.form;
        let row = form.add_of_group(row, &header.group, last_ms, zones);
        (row, totals)
    }

    pub(super) fn push(&mut self, row: Row, events: u64, event_bytes: u64) -> usize {
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
