//! How a planner makes items of the envelopes of a chain.

use millpond_format::header::{ChainTotals, Header, Place};
use millpond_format::sizing::write_units;

use super::cuts::Cuts;
use super::joined::{Joined, Open, Waiting, fullest, joined, with_item};
use super::planner::Planner;
use super::repack::is_worth_a_try;
use super::{MAX_ENVELOPE_INDEX, PlanError};
use crate::form::zone::Zones;
use crate::row::{Key, Pieces, Row};

impl Planner<'_> {
    /// Makes items of what is open of a group.
    pub(super) fn close(&mut self, group: &str) -> Result<(), PlanError> {
        let Some(Open { envelopes, .. }) = self.open.remove(group) else {
            return Ok(());
        };
        let limit = self.limit(group);
        let (ends, items) = fullest(&envelopes, limit);
        match self.cheaper(group, &envelopes, &ends, &items) {
            Some(ends) => {
                let items: Vec<_> = joined(&envelopes, &ends, limit).collect();
                self.items(group, &envelopes, &ends, items)
            }
            None => self.items(group, &envelopes, &ends, items),
        }
    }

    fn items(
        &mut self,
        group: &str,
        envelopes: &[Waiting<'_>],
        ends: &[usize],
        items: Vec<Joined>,
    ) -> Result<(), PlanError> {
        let mut start = 0;
        for (end, item) in ends.iter().zip(items) {
            self.push_item(group, &envelopes[start..*end], item)?;
            start = *end;
        }
        Ok(())
    }

    /// Ends of items that take fewer units than the fullest ones, where there are such.
    fn cheaper(
        &mut self,
        group: &str,
        envelopes: &[Waiting<'_>],
        fullest: &[usize],
        items: &[Joined],
    ) -> Option<Vec<usize>> {
        // Two items never take fewer units than one. What is packed anew has another size.
        let is_anew = |item: &Joined| is_worth_a_try(item.joiner.header());
        if fullest.len() < 2 || self.repack.is_some() && items.iter().any(is_anew) {
            return None;
        }
        let limit = self.limit(group);
        let mut before = vec![self.chain(group).state.totals];
        before.extend(envelopes.iter().scan(before[0], |totals, next| {
            *totals = with_item(*totals, &next.envelope.header);
            Some(*totals)
        }));
        // Of the items before one only their number depends on where they end.
        let before = |start: usize, items: u64| ChainTotals {
            items: before[0].items + items,
            ..before[start]
        };
        let cuts = Cuts::near(fullest);
        let (ends, units) = cuts.cheapest(|start, items_before| {
            let totals = before(start, items_before);
            let mut found = Vec::new();
            let mut item = Joined::new(&envelopes[start]);
            for end in start + 1..=envelopes.len() {
                if end > start + 1 && !item.try_push(&envelopes[end - 1], limit) {
                    break;
                }
                if cuts.is_end(end) {
                    found.push((end, self.units(group, &item, totals)));
                }
            }
            found
        });
        let mut start = 0;
        let each = fullest
            .iter()
            .zip(items)
            .enumerate()
            .map(|(at, (end, item))| {
                let totals = before(start, at as u64);
                start = *end;
                self.units(group, item, totals)
            });
        (units < each.sum()).then_some(ends)
    }

    /// Write units of an item as it is, behind these totals.
    fn units(&mut self, group: &str, item: &Joined, before: ChainTotals) -> u64 {
        let shard = self.chain(group).shard(before.items);
        // Every sort key has as many bytes.
        let key = self.item_key(group, shard, 0, 0, 0);
        let header = item.joiner.clone().finish(Place::Chain(before));
        let packed_bytes = header.packed_bytes();
        let (row, _) = self.item(header, Pieces::default(), key, &item.zones);
        write_units(row.size(&self.config.keys).bytes() + packed_bytes)
    }

    fn push_item(
        &mut self,
        group: &str,
        envelopes: &[Waiting<'_>],
        item: Joined,
    ) -> Result<(), PlanError> {
        let before = self.chain(group).state.totals;
        let header = item.joiner.finish(Place::Chain(before));
        let (events, event_bytes) = (header.event_count(), header.event_bytes());
        let base_offset = header.base_offset;
        let index = envelopes.first().map_or(0, |first| first.index);
        if index > MAX_ENVELOPE_INDEX {
            return Err(PlanError::TooManyEnvelopes {
                offset: base_offset,
            });
        }
        let frames = envelopes.iter().map(|next| next.envelope.frames.clone());
        let frames = Pieces(frames.collect());
        let sort_time_ms = self.advance(group, header.first_time_ms(), header.last_time_ms());
        let shard = self.chain(group).next_shard(before.items);
        let key = self.item_key(group, shard, sort_time_ms, base_offset, index);
        let (row, totals) = self.smallest(header, frames, key, &item.zones);
        self.chain(group).state.totals = totals;
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

    /// The item as it is, or packed anew where it takes fewer write units so; with the chain's totals after it.
    fn smallest(
        &mut self,
        header: Header,
        frames: Pieces,
        key: Key,
        zones: &Zones,
    ) -> (Row, ChainTotals) {
        if self.repack.is_none() || !is_worth_a_try(&header) {
            return self.item(header, frames, key, zones);
        }
        let units = |row: &Row| row.size(&self.config.keys).write_units();
        let (row, totals) = self.item(header.clone(), frames.clone(), key.clone(), zones);
        if units(&row) < 2 {
            // It cannot take less.
            return (row, totals);
        }
        let repack = self.repack.as_mut();
        let anew = repack.and_then(|repack| repack.anew(&header, &frames, self.tools));
        let Some((header, packed)) = anew else {
            return (row, totals);
        };
        let (anew, totals_anew) = self.item(header, packed.into(), key, zones);
        let saved = units(&row).saturating_sub(units(&anew));
        if saved == 0 {
            return (row, totals);
        }
        self.plan.repacked_items += 1;
        self.plan.repacked_units += saved;
        (anew, totals_anew)
    }
}
