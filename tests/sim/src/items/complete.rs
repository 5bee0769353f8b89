//! At the end of a run: nothing lost, all in order, and the ledger at the end of the topic (I1, I3, I6, I12).

use std::collections::HashMap;

use millpond_connector::topic::PartitionId;
use millpond_dynamodb_sink::row::Key;
use millpond_format::header::ChainTotals;
use millpond_format::keys;

use super::{Items, PIPELINE};
use crate::oracle::{Fate, Oracle, broken};
use crate::world::Violation;

impl Items {
    /// Everything is there, in order, as it was put.
    pub(crate) fn complete(&self, oracle: &Oracle) -> Result<(), Violation> {
        self.nothing_is_lost(oracle)?;
        self.chains_are_whole(oracle)?;
        self.ledgers_end_with_the_topic(oracle)
    }

    fn nothing_is_lost(&self, oracle: &Oracle) -> Result<(), Violation> {
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
        Ok(())
    }

    fn chains_are_whole(&self, oracle: &Oracle) -> Result<(), Violation> {
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
        Ok(())
    }

    fn ledgers_end_with_the_topic(&self, oracle: &Oracle) -> Result<(), Violation> {
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

    /// An event is said to be lost, as often as it came. (What is sent again later does not go into the table, what
    /// followed it is there already; it is a dead letter.)
    fn is_in_a_gap(&self, oracle: &Oracle, index: usize) -> bool {
        let mut offsets = oracle.offsets_of(index);
        offsets.all(|(partition, offset)| self.gaps.has(partition, offset))
    }
}
