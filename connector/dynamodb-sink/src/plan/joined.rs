//! Envelopes of a chain that wait to be items, and items that are made of them.

use std::borrow::Cow;

use millpond_format::header::{ChainTotals, Header};
use millpond_format::join::Joiner;
use millpond_sink::contiguity::Envelope;

use crate::form::zone::Zones;

/// An envelope that is in no item yet.
pub(super) struct Waiting<'a> {
    pub(super) envelope: Cow<'a, Envelope>,
    pub(super) index: u32,
    pub(super) zones: Zones,
}

/// Envelopes of one chain that can lie in common items.
pub(super) struct Open<'a> {
    pub(super) envelopes: Vec<Waiting<'a>>,
    /// The chain's totals behind them, if each were an item.
    pub(super) totals: ChainTotals,
}

/// An item in the making.
pub(super) struct Joined {
    pub(super) joiner: Joiner,
    pub(super) zones: Zones,
}

impl Joined {
    pub(super) fn new(first: &Waiting<'_>) -> Self {
        Self {
            joiner: Joiner::new(first.envelope.header.clone()),
            zones: first.zones.clone(),
        }
    }

    /// Takes in the next envelope if header section and frames stay within `limit` bytes; answers whether it did.
    pub(super) fn try_push(&mut self, next: &Waiting<'_>, limit: usize) -> bool {
        let is_in = self.joiner.try_push(&next.envelope.header, limit);
        if is_in {
            self.zones.join(next.zones.clone());
        }
        is_in
    }
}

/// The totals of a chain behind an item.
pub(super) fn with_item(before: ChainTotals, item: &Header) -> ChainTotals {
    ChainTotals {
        items: before.items + 1,
        events: before.events + item.event_count(),
        event_bytes: before.event_bytes + item.event_bytes(),
        packed_bytes: before.packed_bytes + item.packed_bytes() as u64,
    }
}

/// Items that take envelopes as long as they have room for them, by their ends.
pub(super) fn fullest(envelopes: &[Waiting<'_>], limit: usize) -> (Vec<usize>, Vec<Joined>) {
    let mut items: Vec<Joined> = Vec::new();
    let mut ends: Vec<usize> = Vec::new();
    for (at, next) in envelopes.iter().enumerate() {
        let last = items.last_mut();
        if !last.is_some_and(|item| item.try_push(next, limit)) {
            ends.extend((at > 0).then_some(at));
            items.push(Joined::new(next));
        }
    }
    ends.push(envelopes.len());
    (ends, items)
}

/// The items with these ends, each of which has room for what lies in it.
pub(super) fn joined(
    envelopes: &[Waiting<'_>],
    ends: &[usize],
    limit: usize,
) -> impl Iterator<Item = Joined> {
    let starts = [0].into_iter().chain(ends.iter().copied());
    starts.zip(ends).map(move |(start, end)| {
        let mut item = Joined::new(&envelopes[start]);
        for next in &envelopes[start + 1..*end] {
            item.try_push(next, limit);
        }
        item
    })
}
