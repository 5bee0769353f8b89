//! What the tables show, read as somebody would who knows the format and nothing of the ledger.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use millpond_connector::topic::{Offset, PartitionId};
use millpond_dynamodb_sink::ledger_row;
use millpond_dynamodb_sink::row::{Key, KeyNames, Row, names};
use millpond_format::frame::FrameDecoder;
use millpond_format::gap::Gap;
use millpond_format::header::{ChainTotals, Header, Kind, Part, Place};
use millpond_format::keys::{self, SortKey};
use millpond_format::origin::Origin;
use millpond_sink::gaps::OnGap;
use millpond_sink::ledger::{Intent, LedgerRow};
use millpond_sink::letters::{AFTER_GAP, AFTER_GAP_IN_DOUBT};

use crate::dictionaries;
use crate::gaps::Gaps;
use crate::oracle::{Fate, Oracle, broken};
use crate::scenario::MAX_ITEM_BYTES;
use crate::world::{NAME, Violation};

/// Pipeline of every run.
pub const PIPELINE: &str = "p";

/// One event, or a part of one, in an item.
struct Held {
    index: usize,
    part: Option<Part>,
    value: Vec<u8>,
}

/// An item's content.
struct Item {
    held: Vec<Held>,
    totals: Option<(ChainTotals, ChainTotals)>,
}

/// What the tables show.
#[derive(Default)]
pub struct Items {
    decoder: Option<FrameDecoder>,
    items: BTreeMap<Key, Item>,
    /// The item that holds an event, or its last part.
    place: HashMap<usize, Key>,
    /// The dead letter of an event.
    dead: HashMap<usize, String>,
    /// The dead letter of an event that came after its place was recorded as a gap.
    late: HashMap<usize, String>,
    ledgers: BTreeMap<PartitionId, LedgerRow>,
    /// Events of plans that were taken back: their dead letters stay, and may come again.
    taken_back: BTreeSet<usize>,
    /// Write shards of the directory.
    listed: BTreeSet<(String, PartitionId, u32)>,
    /// Intents that say that a chain goes round more than one.
    noted: usize,
    gaps: Gaps,
}

impl Items {
    /// Empty tables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The ledger of a topic partition.
    #[must_use]
    pub fn ledger(&self, partition: PartitionId) -> Option<&LedgerRow> {
        self.ledgers.get(&partition)
    }

    /// Number of items with events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// True without an item.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The group in which an event is.
    #[must_use]
    pub fn group_of(&self, index: usize) -> Option<&str> {
        Some(keys::parse_chain_pk(&self.place.get(&index)?.pk)?.group)
    }

    /// Number of intents by which chains went round more write shards than they were told to.
    #[must_use]
    pub fn noted(&self) -> usize {
        self.noted
    }

    /// True where a plan was given up: parts of events may be there alone.
    #[must_use]
    pub fn has_given_up(&self) -> bool {
        self.gaps.has_plans()
    }

    /// Number of gaps.
    #[must_use]
    pub fn gaps(&self) -> usize {
        self.gaps.len()
    }

    /// Number of dead letters.
    #[must_use]
    pub fn dead(&self) -> usize {
        self.dead.len() + self.late.len()
    }

    /// Number of those that came too late.
    #[must_use]
    pub fn late(&self) -> usize {
        self.late.len()
    }

    /// Takes a dictionary in: items may name it from now on.
    pub(crate) fn learn(&mut self, row: &Row) -> Result<(), Violation> {
        let Some(dictionary) = dictionaries::of_row(row) else {
            return broken("I12", format!("{:?} is no dictionary", row.key));
        };
        if self.decoder.is_none() {
            self.decoder = FrameDecoder::new().ok();
        }
        if let Some(decoder) = &mut self.decoder {
            decoder.learn(Arc::new(dictionary));
        }
        Ok(())
    }

    pub(crate) fn row_put(
        &mut self,
        oracle: &Oracle,
        old: Option<&Row>,
        new: &Row,
    ) -> Result<(), Violation> {
        let pk = new.key.pk.as_str();
        if keys::parse_chain_pk(pk).is_some_and(|key| key.pipeline != PIPELINE) {
            return broken("I2", format!("{:?} is another pipeline's", new.key));
        }
        if pk == keys::ledger_pk(PIPELINE, NAME) {
            return self.ledger_put(oracle, old, new);
        }
        if pk == keys::gaps_pk(PIPELINE, NAME) {
            return self.gap_put(oracle, old, new);
        }
        if pk.starts_with("millpond:groups/") {
            let late = |row: &Row| row.integer(names::LATE);
            if old.is_some_and(|old| late(old) >= late(new)) {
                return broken("I11", format!("the bound of {:?} sank", new.key));
            }
            let Some((group, partition, shard)) = keys::parse_directory_sk(&new.key.sk) else {
                return broken("I1", format!("{:?} is no row of the directory", new.key));
            };
            self.listed.insert((group.to_owned(), partition, shard));
            return Ok(());
        }
        if pk == keys::dictionaries_pk(PIPELINE) && old.is_none() {
            return self.learn(new);
        }
        if pk.starts_with("millpond:") {
            return match old {
                Some(_) => broken("I11", format!("{:?} was replaced", new.key)),
                None => Ok(()),
            };
        }
        match old {
            Some(old) if old != new => broken(
                "I11",
                format!("item {:?} was replaced by other bytes", new.key),
            ),
            Some(_) => Ok(()),
            None => self.item_put(oracle, new),
        }
    }

    /// Whoever replaces the ledger row must have held it, and must not pass what is not there.
    fn ledger_put(
        &mut self,
        oracle: &Oracle,
        old: Option<&Row>,
        new: &Row,
    ) -> Result<(), Violation> {
        let read = |row: &Row| {
            ledger_row::decode(row).or_else(|error| broken("I6", format!("ledger row: {error}")))
        };
        let partition: PartitionId = new.key.sk.parse().unwrap_or_default();
        let (old, new) = (old.map(read).transpose()?, read(new)?);
        let mut committed = new.start;
        if let Some(old) = &old {
            let fenced = new.epoch < old.epoch
                || (new.epoch == old.epoch && (new.owner != old.owner || new.plan < old.plan));
            if fenced {
                return broken(
                    "I11",
                    format!(
                        "partition {partition}: `{}` replaced epoch {} of `{}` by epoch {}",
                        new.owner, old.epoch, old.owner, new.epoch
                    ),
                );
            }
            if new.committed < old.committed {
                return broken("I6", format!("partition {partition}: the ledger went back"));
            }
            committed = old.committed;
        }
        match &old {
            // It goes on in another topic: what an open plan was to write is taken back, and comes again.
            Some(old) if old.log != new.log && !old.log.identity.is_empty() => {
                if let Some(open) = &old.intent {
                    let shift = old.log.shift;
                    let offsets = (open.from - shift) as usize..(open.to - shift) as usize;
                    let log = oracle.log_of(&old.log.identity, partition);
                    let events = log.get(offsets).unwrap_or_default();
                    self.taken_back.extend(events);
                    // Its dead letters stay, and count no more; those of earlier plans do.
                    self.dead.retain(|index, letter| {
                        let at = letter
                            .split('/')
                            .filter_map(|part| part.parse().ok())
                            .nth(1);
                        let is_of_it = at.is_some_and(|at| (open.from..open.to).contains(&at));
                        !(is_of_it && events.contains(index))
                    });
                    let left = self.items.keys().find(|key| {
                        let of = keys::parse_chain_pk(&key.pk).map(|key| key.partition);
                        let at = SortKey::parse(&key.sk).map(|key| key.base_offset);
                        of == Some(partition)
                            && at.is_some_and(|at| (open.from..open.to).contains(&at))
                    });
                    if let Some(key) = left {
                        return broken("I2", format!("{key:?} is left of a plan that ended"));
                    }
                }
            }
            _ => {
                for offset in committed..new.committed {
                    self.is_safe(oracle, &new, partition, offset)?;
                }
            }
        }
        let intent = new.intent.as_ref();
        self.noted += usize::from(intent.is_some_and(|intent| !intent.note.is_empty()));
        self.ledgers.insert(partition, new);
        Ok(())
    }

    /// The event at an offset is in the table or a dead letter (I6).
    fn is_safe(
        &self,
        oracle: &Oracle,
        ledger: &LedgerRow,
        partition: PartitionId,
        offset: Offset,
    ) -> Result<(), Violation> {
        let log = oracle.log_of(&ledger.log.identity, partition);
        let event = log.get(offset.saturating_sub(ledger.log.shift) as usize);
        let Some(index) = event else {
            return broken(
                "I6",
                format!("the ledger passed offset {offset}, which does not exist"),
            );
        };
        let may_be_removed = oracle.events[*index].fates.contains(&Fate::Removed);
        if self.place.contains_key(index)
            || self.dead.contains_key(index)
            || self.late.contains_key(index)
            || may_be_removed
            || self.gaps.has(partition, offset)
        {
            return Ok(());
        }
        broken(
            "I6",
            format!("the ledger passed event {index} at offset {offset} of partition {partition}"),
        )
    }

    /// A gap is true: what it says is lost is lost.
    fn gap_put(&mut self, oracle: &Oracle, old: Option<&Row>, new: &Row) -> Result<(), Violation> {
        if let Some(old) = old {
            return match old == new {
                true => Ok(()),
                false => broken("I11", format!("gap {:?} was replaced by another", new.key)),
            };
        }
        let partition = keys::parse_gap_sk(&new.key.sk);
        let gap = new.string(names::GAP).and_then(Gap::parse);
        let (Some(partition), Some(gap)) = (partition, gap) else {
            return broken("I7", format!("{:?} is no gap", new.key));
        };
        if oracle.on_gap == OnGap::Halt {
            return broken("I7", format!("{gap}, though nobody may pass it"));
        }
        let is_true = match &gap {
            Gap::Offsets { to, .. } => *to <= oracle.lost_to(partition),
            Gap::Plan { from, .. } => *from < oracle.lost_to(partition),
            Gap::Chain(chain) => {
                // The rows of a plan that is given up may come in any order.
                let ledger = self.ledgers.get(&partition);
                let given_up =
                    ledger.and_then(|row| row.intent.as_ref().filter(|i| i.is_given_up()));
                let is_lost = |offset| {
                    offset < oracle.lost_to(partition)
                        || self.gaps.has(partition, offset)
                        || given_up.is_some_and(|plan| (plan.from..plan.to).contains(&offset))
                };
                oracle.ordinals_at(partition, chain, is_lost) >= chain.missing
            }
        };
        if !is_true {
            return broken("I7", format!("{gap}, and they are not"));
        }
        self.gaps.add(partition, gap);
        Ok(())
    }

    /// An item is removed: it must be of a plan that is open, and will never be finished.
    pub(crate) fn row_removed(&mut self, row: &Row) -> Result<(), Violation> {
        let partition = keys::parse_chain_pk(&row.key.pk).map(|key| key.partition);
        let (Some(partition), Some(sort)) = (partition, SortKey::parse(&row.key.sk)) else {
            return broken("I1", format!("{:?} is removed", row.key));
        };
        let ledger = self.ledgers.get(&partition);
        let open = ledger.and_then(|row| row.intent.as_ref());
        if open.is_none_or(|open| !(open.from..open.to).contains(&sort.base_offset)) {
            return broken("I1", format!("item {:?} is removed", row.key));
        }
        if let Some(item) = self.items.remove(&row.key) {
            for held in item.held {
                if self.place.get(&held.index) == Some(&row.key) {
                    self.place.remove(&held.index);
                }
            }
        }
        Ok(())
    }

    /// An event is said to be lost, as often as it came. (What is sent again later does not go into the table, what
    /// followed it is there already; it is a dead letter.)
    fn is_in_a_gap(&self, oracle: &Oracle, index: usize) -> bool {
        let mut offsets = oracle.offsets_of(index);
        offsets.all(|(partition, offset)| self.gaps.has(partition, offset))
    }

    fn item_put(&mut self, oracle: &Oracle, row: &Row) -> Result<(), Violation> {
        let bytes = row.size(&KeyNames::default()).bytes();
        if bytes > MAX_ITEM_BYTES {
            return broken("I9", format!("item {:?} has {bytes} bytes", row.key));
        }
        let Some(chain) = keys::parse_chain_pk(&row.key.pk) else {
            return broken("I12", format!("{:?} is no key of an item", row.key));
        };
        let partition = chain.partition;
        for shard in 0..=chain.write_shard {
            let of = (chain.group.to_owned(), partition, shard);
            if !self.listed.contains(&of) {
                return broken(
                    "I1",
                    format!("no reader finds {:?}: {of:?} is not listed", row.key),
                );
            }
        }
        let Some(sort) = SortKey::parse(&row.key.sk) else {
            return broken("I12", format!("{:?} is no key of an item", row.key));
        };
        let intent = self
            .ledgers
            .get(&partition)
            .and_then(|row| row.intent.as_ref());
        // Whoever was writing a plan that was given up may still do so: nobody else writes what is in it.
        let is_given_up = self.gaps.has_planned(partition, sort.base_offset);
        let is_open = |open: &Intent| (open.from..open.to).contains(&sort.base_offset);
        if !is_given_up && !intent.is_some_and(is_open) {
            return broken(
                "I11",
                format!("item {:?} was written without an intent", row.key),
            );
        }
        let item = match row.binary(names::VALUE) {
            Some(value) => plain(oracle, row, value.concat())?,
            None => self.packed(oracle, row, partition, sort)?,
        };
        for held in &item.held {
            let event = &oracle.events[held.index];
            let is_expected = |fate: &Fate| match fate {
                Fate::Grouped(group) => group == chain.group,
                Fate::Rejected(_) | Fate::Removed => false,
            };
            if !event.fates.iter().any(is_expected) {
                return broken(
                    "I12",
                    format!(
                        "event {} is in {:?}, not in {:?}",
                        held.index, row.key, event.fates
                    ),
                );
            }
            if held.part.is_some_and(|part| !part.is_last()) {
                continue;
            }
            if let Some(other) = self.place.insert(held.index, row.key.clone()) {
                return broken(
                    "I2",
                    format!("event {} is in {other:?} and in {:?}", held.index, row.key),
                );
            }
        }
        self.items.insert(row.key.clone(), item);
        Ok(())
    }

    fn packed(
        &mut self,
        oracle: &Oracle,
        row: &Row,
        partition: PartitionId,
        sort: SortKey,
    ) -> Result<Item, Violation> {
        let damaged = |what: String| broken("I12", format!("item {:?}: {what}", row.key));
        let bytes = |name| {
            row.binary(name)
                .map(|pieces| pieces.concat())
                .unwrap_or_default()
        };
        let (section, frames) = (bytes(names::HEADER), bytes(names::FRAMES));
        let header = match Header::decode(&section) {
            Ok((header, _)) => header,
            Err(error) => return damaged(error.to_string()),
        };
        let Place::Chain(totals) = header.place else {
            return damaged("is no item of a chain".to_owned());
        };
        if header.base_offset != sort.base_offset
            || row.integer(names::FIRST_TIME) != Some(header.first_time_ms())
            || row.integer(names::EVENTS) != Some(header.event_count() as i64)
        {
            return damaged("attributes and header differ".to_owned());
        }
        if self.decoder.is_none() {
            self.decoder = FrameDecoder::new().ok();
        }
        let Some(decoder) = &mut self.decoder else {
            return damaged("no decoder".to_owned());
        };
        let mut held = Vec::new();
        for (info, range) in header.frame_ranges() {
            let frame = match decoder.decode(header.codec, info, &frames[range]) {
                Ok(frame) => frame,
                Err(error) => return damaged(error.to_string()),
            };
            for event in &frame.events {
                let source = &header.sources[event.source as usize];
                let link = (
                    partition,
                    source.shard.to_string(),
                    source.epoch,
                    event.ordinal,
                );
                let Some(index) = oracle.links.get(&link).copied() else {
                    return damaged(format!("no event has the link {link:?}"));
                };
                let part = match header.kind {
                    Kind::Events => None,
                    Kind::Part(part) => Some(part),
                    Kind::Reject(_) => return damaged("a rejected event".to_owned()),
                };
                let value = frame.value(event).to_vec();
                if part.is_none() && oracle.events[index].value != value {
                    return damaged(format!("event {index} was changed"));
                }
                held.push(Held { index, part, value });
            }
        }
        let own = ChainTotals {
            items: 1,
            events: header.event_count(),
            event_bytes: header.event_bytes(),
            packed_bytes: frames.len() as u64,
        };
        Ok(Item {
            held,
            totals: Some((own, totals)),
        })
    }

    pub(crate) fn letter_put(
        &mut self,
        oracle: &Oracle,
        old: Option<&Row>,
        new: &Row,
    ) -> Result<(), Violation> {
        if !new.key.pk.starts_with("millpond:dead-letters/") {
            return broken("I10", format!("{:?} is no dead letter", new.key));
        }
        if let Some(old) = old {
            return match old == new {
                true => Ok(()),
                false => broken(
                    "I11",
                    format!("dead letter {:?} was replaced by another", new.key),
                ),
            };
        }
        let origin = new.string(names::ORIGIN).unwrap_or_default();
        let Ok(origin) = Origin::parse(origin.as_bytes()) else {
            return broken("I10", format!("dead letter {:?} has no origin", new.key));
        };
        let index = oracle.event_of(&origin)?;
        let event = &oracle.events[index];
        let value = new.binary(names::VALUE).map(|pieces| pieces.concat());
        if value.as_deref() != Some(&*event.value) {
            return broken(
                "I12",
                format!("event {index} was changed on its way to the dead letters"),
            );
        }
        let reason = new.string(names::REASON).unwrap_or_default();
        if [AFTER_GAP, AFTER_GAP_IN_DOUBT].contains(&reason) {
            let sk = new.key.sk.clone();
            return self.late_put(oracle, index, &origin, reason == AFTER_GAP, sk);
        }
        let is_expected = |fate: &Fate| matches!(fate, Fate::Rejected(why) if *why == reason);
        if !event.fates.iter().any(is_expected) {
            return broken(
                "I10",
                format!(
                    "event {index} is a dead letter: {:?}",
                    new.string(names::REASON)
                ),
            );
        }
        match self.dead.insert(index, new.key.sk.clone()) {
            // A dead letter has no place in the table that could be taken back, nor a reader that it would confuse.
            Some(_) if self.taken_back.contains(&index) => Ok(()),
            Some(other) => broken(
                "I10",
                format!(
                    "event {index} is two dead letters, {other} and {}",
                    new.key.sk
                ),
            ),
            None => Ok(()),
        }
    }

    /// An event that came too late went with a gap; `is_missing` says that it is not in the table.
    fn late_put(
        &mut self,
        oracle: &Oracle,
        index: usize,
        origin: &Origin<'_>,
        is_missing: bool,
        sk: String,
    ) -> Result<(), Violation> {
        let partition = oracle.partition_of(index);
        let (epoch, ordinal) = (origin.chain.epoch, origin.chain.ordinal);
        let link = (partition, origin.shard.to_owned(), epoch, ordinal);
        let is_doubted = oracle.filters_ever && self.gaps.has_offsets(partition) && !is_missing;
        if !self.gaps.has_link(&link) && !is_doubted {
            return broken("I10", format!("event {index} is no late one, in no gap"));
        }
        if is_missing && (self.place.contains_key(&index) || self.dead.contains_key(&index)) {
            return broken("I2", format!("event {index} is there, and said not to be"));
        }
        match self.late.insert(index, sk.clone()) {
            Some(other) => broken(
                "I10",
                format!("late event {index} is two dead letters, {other} and {sk}"),
            ),
            None => Ok(()),
        }
    }

    pub(crate) fn is_committed(&self, oracle: &Oracle, partition: PartitionId) -> bool {
        let end = oracle.log[partition as usize].len() as u64;
        let ledger = self.ledgers.get(&partition);
        // A partition that nothing was ever put into need not have been taken.
        ledger.map_or(end == 0, |row| {
            let at = row.committed.checked_sub(row.log.shift);
            let is_current = oracle.is_current(&row.log.identity);
            is_current && at == Some(end) && row.intent.is_none()
        })
    }

    /// Everything is there, in order, as it was put.
    pub(crate) fn complete(&self, oracle: &Oracle) -> Result<(), Violation> {
        for (index, event) in oracle.events.iter().enumerate() {
            let places = u32::from(self.place.contains_key(&index))
                + u32::from(self.dead.contains_key(&index));
            if places > 1 && !self.taken_back.contains(&index) {
                return broken("I2", format!("event {index} is an item and a dead letter"));
            }
            let is_kept = places > 0 || self.late.contains_key(&index);
            if is_kept || event.fates.contains(&Fate::Removed) {
                continue;
            }
            // Said to be lost, or waiting for somebody who says so.
            let mut offsets = oracle.offsets_of(index);
            let waits = offsets.any(|(partition, _)| oracle.is_stuck(partition));
            if !waits && !self.is_in_a_gap(oracle, index) {
                return broken("I1", format!("event {index} of key {} is lost", event.key));
            }
        }
        let mut last: HashMap<(&str, &str), usize> = HashMap::new();
        let mut sums: HashMap<&str, ChainTotals> = HashMap::new();
        let mut part_of: Vec<u8> = Vec::new();
        // Chain by chain, each in the order of its sort keys over all its write shards.
        let chain_of = |key: &Key| {
            let key = keys::parse_chain_pk(&key.pk);
            key.map_or(String::new(), |key| {
                keys::chain_pk(PIPELINE, key.group, key.partition)
            })
        };
        let items = self.items.iter();
        let mut items: Vec<_> = items
            .map(|(key, item)| (chain_of(key), key, item))
            .collect();
        items.sort_by(|(one, a, _), (other, b, _)| (one, &a.sk).cmp(&(other, &b.sk)));
        for (chain, key, item) in &items {
            if let Some((own, totals)) = item.totals {
                let sum = sums.entry(chain).or_default();
                sum.items += 1;
                sum.events += own.events;
                sum.event_bytes += own.event_bytes;
                sum.packed_bytes += own.packed_bytes;
                // What was there of a plan that was given up counts, or not, as it came.
                let partition = keys::parse_chain_pk(&key.pk).map_or(0, |key| key.partition);
                if *sum != totals && !self.gaps.has_plan(partition) {
                    return broken(
                        "I1",
                        format!("{key:?} has the totals {totals:?}, these are {sum:?}"),
                    );
                }
            } else {
                // Totals begin anew after items of plain mode.
                sums.remove(chain.as_str());
            }
            for held in &item.held {
                let event = &oracle.events[held.index];
                if let Some(part) = held.part {
                    if part.index == 0 {
                        part_of.clear();
                    }
                    part_of.extend_from_slice(&held.value);
                    if !part.is_last() {
                        continue;
                    }
                    if part_of != event.value {
                        return broken(
                            "I12",
                            format!("the parts of event {} are not that event", held.index),
                        );
                    }
                }
                let before = last.insert((chain, &event.key), held.index);
                if before.is_some_and(|before| before > held.index) {
                    return broken(
                        "I3",
                        format!("event {} comes after event {before:?}", held.index),
                    );
                }
            }
        }
        for partition in 0..oracle.log.len() as PartitionId {
            if !self.is_committed(oracle, partition) && !oracle.is_stuck(partition) {
                return broken(
                    "I6",
                    format!("the ledger of partition {partition} does not end with the topic"),
                );
            }
        }
        Ok(())
    }
}

fn plain(oracle: &Oracle, row: &Row, value: Vec<u8>) -> Result<Item, Violation> {
    let origin = row.string(names::ORIGIN).unwrap_or_default();
    let Ok(origin) = Origin::parse(origin.as_bytes()) else {
        return broken("I12", format!("item {:?} has no origin", row.key));
    };
    let index = oracle.event_of(&origin)?;
    if oracle.events[index].value != value {
        return broken("I12", format!("event {index} was changed"));
    }
    let held = vec![Held {
        index,
        part: None,
        value: Vec::new(),
    }];
    Ok(Item { held, totals: None })
}
