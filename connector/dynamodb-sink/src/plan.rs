//! The plan: which envelopes make which item, with keys, totals and bytes. Pure: the same entries,
//! chain states and configuration give the same bytes, so a plan may be written any number of times.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use millpond_connector::topic::Offset;
use millpond_format::header::{Header, Kind, Place};
use millpond_format::join::{Joiner, TrimError};
use millpond_format::keys::{self, SortKey};
use millpond_format::limits::{MAX_GROUP_BYTES, MAX_TIME_MS};
use millpond_format::origin::Origin;
use millpond_format::sizing::ItemSize;

use crate::chain::ChainState;
use crate::contiguity::{Envelope, PlainRecord};
use crate::dead_letters::{DeadLetter, Payload};
use crate::dedup::{Admitted, Workbench};
use crate::row::{Key, KeyNames, Pieces, Row, Value, names};

/// Highest envelope index that a sort key holds in order.
const MAX_ENVELOPE_INDEX: u32 = 99_999;

/// Bytes that an integer attribute can take at most, without its name.
const MAX_INTEGER_BYTES: usize = 12;

/// Bytes of every sort key.
const SORT_KEY_BYTES: usize = 50;

/// What decides a plan besides its entries.
#[derive(Debug, Clone)]
pub struct PlanConfig {
    /// Pipeline name.
    pub pipeline: String,
    /// Topic name.
    pub topic: String,
    /// Topic partition.
    pub partition: u32,
    /// Key attribute names.
    pub keys: KeyNames,
    /// Largest item, names and keys included.
    pub max_item_bytes: usize,
}

/// An item of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedItem {
    /// The row.
    pub row: Arc<Row>,
    /// Its size by DynamoDB's rules.
    pub bytes: usize,
    /// Its write units.
    pub units: u64,
    /// Events in it, each counted once.
    pub events: u64,
    /// Bytes of those events as they were produced.
    pub event_bytes: u64,
}

/// A plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Items; those of one chain in order.
    pub items: Vec<PlannedItem>,
    /// Groups whose directory row must show this lateness before their items are written.
    pub directory: Vec<(String, i64)>,
    /// Events for the dead-letter queue.
    pub dead_letters: Vec<DeadLetter>,
    /// States of the chains after the plan.
    pub chains: Vec<(String, ChainState)>,
}

/// Why no plan could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Something that cannot be cut does not fit an item.
    #[error(
        "{what} of group `{group}` at offset {offset} makes an item of {bytes} bytes, over \
         `dynamodb.max-item-bytes` of {limit}: give the SmartModule the same `max-item-bytes` \
         under `transforms[].with`, and feed it from the records on again"
    )]
    Oversize {
        /// What does not fit.
        what: &'static str,
        /// Its group.
        group: String,
        /// First offset of its batch.
        offset: Offset,
        /// Bytes of the item.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A batch became more envelopes than sort keys can number.
    #[error("the batch at offset {offset} became more than {MAX_ENVELOPE_INDEX} envelopes")]
    TooManyEnvelopes {
        /// First offset of the batch.
        offset: Offset,
    },
    /// An envelope without a usable group.
    #[error(
        "an envelope of the batch at offset {offset} has a group of {bytes} bytes, allowed are 1 to {MAX_GROUP_BYTES}"
    )]
    Group {
        /// First offset of the batch.
        offset: Offset,
        /// Bytes of its group.
        bytes: usize,
    },
    /// An envelope could not be cut.
    #[error("envelope of the batch at offset {offset}: {source}")]
    Trim {
        /// First offset of the batch.
        offset: Offset,
        /// Why.
        source: TrimError,
    },
}

/// Groups whose chain states a plan needs, sorted.
#[must_use]
pub fn groups<'a>(entries: &'a [Admitted<'a>]) -> Vec<&'a str> {
    let group = |entry: &'a Admitted<'a>| match entry {
        Admitted::Envelope(envelope) => match envelope.header.kind {
            Kind::Reject(_) => None,
            _ => Some(envelope.header.group.as_str()),
        },
        Admitted::Plain(_, origin) => Some(origin.partition_key),
        Admitted::Unknown(..) => None,
    };
    let mut groups: Vec<&str> = entries.iter().filter_map(group).collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// Makes the plan; a group without a state begins a new chain.
///
/// # Errors
/// [`PlanError`] for what does not fit the limits.
pub fn plan(
    entries: &[Admitted<'_>],
    states: &BTreeMap<String, ChainState>,
    config: &PlanConfig,
    tools: &mut Workbench,
) -> Result<Plan, PlanError> {
    let mut planner = Planner {
        config,
        states,
        tools,
        chains: BTreeMap::new(),
        open: BTreeMap::new(),
        plan: Plan::default(),
        cut: (0, 0),
    };
    for entry in entries {
        match entry {
            Admitted::Envelope(envelope) => planner.envelope(envelope)?,
            Admitted::Plain(record, origin) => planner.plain(record, origin)?,
            Admitted::Unknown(record, error) => {
                let id = config.letter_id(record.offset, 0);
                planner.plan.dead_letters.push(DeadLetter {
                    id,
                    offset: record.offset,
                    time_ms: 0,
                    reason: "origin-invalid".into(),
                    detail: error.to_string(),
                    group: None,
                    record_key: record.key.clone(),
                    payload: Payload::Raw(record.value.clone()),
                });
            }
        }
    }
    planner.finish()
}

impl PlanConfig {
    fn letter_id(&self, offset: Offset, index: u32) -> String {
        let Self {
            pipeline,
            topic,
            partition,
            ..
        } = self;
        format!("{pipeline}/{topic}/{partition}/{offset}/{index}")
    }

    /// Bytes of an item of `group` besides its header section and frames, at most.
    fn fixed_bytes(&self, group: &str) -> usize {
        let pk = keys::chain_pk(&self.pipeline, group, self.partition);
        let numbers = [names::EVENTS, names::FIRST_TIME, names::LAST_TIME];
        ItemSize::new()
            .string(&self.keys.partition, &pk)
            .binary(&self.keys.sort, SORT_KEY_BYTES)
            .binary(names::HEADER, 0)
            .binary(names::FRAMES, 0)
            .bytes()
            + numbers
                .iter()
                .map(|name| name.len() + MAX_INTEGER_BYTES)
                .sum::<usize>()
    }
}

/// An item that still takes envelopes.
struct OpenItem {
    joiner: Joiner,
    frames: Vec<Bytes>,
    index: u32,
}

struct ChainBuild {
    state: ChainState,
    directory: Option<i64>,
}

struct Planner<'a> {
    config: &'a PlanConfig,
    states: &'a BTreeMap<String, ChainState>,
    tools: &'a mut Workbench,
    chains: BTreeMap<String, ChainBuild>,
    open: BTreeMap<String, OpenItem>,
    plan: Plan,
    /// Batch that envelopes were cut in, and how many more that made.
    cut: (Offset, u32),
}

impl Planner<'_> {
    fn envelope(&mut self, envelope: &Envelope) -> Result<(), PlanError> {
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
            let letter = DeadLetter {
                id: self.config.letter_id(offset, index),
                offset,
                time_ms: header.first_time_ms(),
                reason: reject.reason.name().to_owned(),
                detail: reject.detail.clone(),
                group: (!header.group.is_empty()).then(|| header.group.clone()),
                record_key: reject.record_key.clone().map(Bytes::from),
                payload: Payload::Frames {
                    header: Box::new(header.clone()),
                    frames: envelope.frames.clone(),
                },
            };
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
            .saturating_sub(self.config.fixed_bytes(&header.group));
        if let Some(open) = self.open.get_mut(&header.group) {
            if open.joiner.try_push(header, limit) {
                open.frames.push(envelope.frames.clone());
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
        };
        let single = !matches!(header.kind, Kind::Events);
        self.open.insert(header.group.clone(), item);
        if single {
            self.close(&header.group)?;
        }
        Ok(())
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

    fn plain(&mut self, record: &PlainRecord, origin: &Origin<'_>) -> Result<(), PlanError> {
        let group = origin.partition_key;
        let letter = |reason: &str, detail: String| DeadLetter {
            id: self.config.letter_id(record.offset, 0),
            offset: record.offset,
            time_ms: origin.arrival_ms,
            reason: reason.to_owned(),
            detail,
            group: Some(group.to_owned()),
            record_key: record.key.clone(),
            payload: Payload::Raw(record.value.clone()),
        };
        if !(1..=MAX_GROUP_BYTES).contains(&group.len()) {
            let detail = format!(
                "group of {} bytes, allowed are 1 to {MAX_GROUP_BYTES}",
                group.len()
            );
            self.plan
                .dead_letters
                .push(letter("group-too-long", detail));
            return Ok(());
        }
        let key_bytes = record.key.as_ref().map_or(0, Bytes::len);
        let bytes = ItemSize::new()
            .string(
                &self.config.keys.partition,
                &keys::chain_pk(&self.config.pipeline, group, self.config.partition),
            )
            .binary(&self.config.keys.sort, SORT_KEY_BYTES)
            .binary(names::VALUE, record.value.len())
            .binary(names::ORIGIN, key_bytes)
            .integer(names::FIRST_TIME, origin.arrival_ms)
            .bytes();
        let limit = self.config.max_item_bytes;
        if bytes > limit {
            let detail = format!("item of {bytes} bytes, `max-item-bytes` is {limit}");
            self.plan.dead_letters.push(letter("too-large", detail));
            return Ok(());
        }
        if self.open.contains_key(group) {
            self.close(group)?;
        }
        let time = origin.arrival_ms;
        let sort_time_ms = self.advance(group, time, time);
        let origin_text = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default());
        let row = Row::new(self.item_key(group, sort_time_ms, record.offset, 0))
            .with(names::VALUE, Value::B(record.value.clone().into()))
            .with(names::ORIGIN, Value::S(origin_text.into_owned()))
            .with(names::FIRST_TIME, Value::N(time));
        self.push(row, 1, record.value.len() as u64);
        Ok(())
    }

    fn chain(&mut self, group: &str) -> &mut ChainBuild {
        if !self.chains.contains_key(group) {
            let state = self.states.get(group).copied().unwrap_or_default();
            let build = ChainBuild {
                state,
                directory: None,
            };
            self.chains.insert(group.to_owned(), build);
        }
        self.chains
            .entry(group.to_owned())
            .or_insert_with(|| ChainBuild {
                state: ChainState::default(),
                directory: None,
            })
    }

    /// Moves the sort time of a chain past an item and raises its lateness bound if need be.
    fn advance(&mut self, group: &str, first_ms: i64, last_ms: i64) -> i64 {
        let chain = self.chain(group);
        let sort_time_ms = chain.state.sort_time_ms.max(last_ms.clamp(0, MAX_TIME_MS));
        chain.state.sort_time_ms = sort_time_ms;
        let late = sort_time_ms.saturating_sub(first_ms).max(0);
        if let Some(bound) = chain.state.raised(late) {
            chain.state.late_ms = Some(bound);
            chain.directory = Some(bound);
        }
        sort_time_ms
    }

    fn item_key(&self, group: &str, sort_time_ms: i64, base_offset: u64, index: u32) -> Key {
        let sort_key = SortKey {
            sort_time_ms,
            base_offset,
            envelope_index: index,
        };
        Key {
            pk: keys::chain_pk(&self.config.pipeline, group, self.config.partition),
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
        let totals = &mut self.chain(group).state.totals;
        totals.items += 1;
        totals.events += events;
        totals.event_bytes += event_bytes;
        totals.packed_bytes += packed_bytes;
        let header = open.joiner.finish(Place::Chain(*totals));
        let mut section = Vec::new();
        header.encode(&mut section);
        let events_number = i64::try_from(events).unwrap_or(i64::MAX);
        let row = Row::new(self.item_key(group, sort_time_ms, base_offset, open.index))
            .with(names::HEADER, Value::B(section.into()))
            .with(names::FRAMES, Value::B(Pieces(open.frames)))
            .with(names::EVENTS, Value::N(events_number))
            .with(names::FIRST_TIME, Value::N(first_ms))
            .with(names::LAST_TIME, Value::N(last_ms));
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

    fn finish(mut self) -> Result<Plan, PlanError> {
        let groups: Vec<String> = self.open.keys().cloned().collect();
        for group in groups {
            self.close(&group)?;
        }
        for (group, chain) in self.chains {
            if let Some(bound) = chain.directory {
                self.plan.directory.push((group.clone(), bound));
            }
            self.plan.chains.push((group, chain.state));
        }
        Ok(self.plan)
    }
}
