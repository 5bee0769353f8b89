//! What the tables show, read as somebody would who knows the format and nothing of the ledger.

mod complete;
mod content;
mod ledger;
mod letters;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use millpond_connector::topic::PartitionId;
use millpond_dynamodb_sink::row::{Key, KeyNames, Row, names};
use millpond_format::frame::FrameDecoder;
use millpond_format::keys::{self, SortKey};
use millpond_sink::ledger::{Intent, LedgerRow};

use crate::dictionaries;
use crate::gaps::Gaps;
use crate::oracle::{Fate, Oracle, broken};
use crate::scenario::MAX_ITEM_BYTES;
use crate::world::{NAME, Violation};
use content::Item;

/// Pipeline of every run.
pub const PIPELINE: &str = "p";

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
            Some(value) => content::plain(oracle, row, value.concat())?,
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
}
