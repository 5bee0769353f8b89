//! The state of a chain of items: what the next item of a group continues.

use std::collections::HashMap;

use millpond_format::header::{ChainTotals, Header, Place};
use millpond_format::keys::SortKey;

use crate::limits::MIN_LATE_MS;
use crate::row::Row;

/// The state of a chain after its last item.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChainState {
    /// Totals over all its items.
    pub totals: ChainTotals,
    /// Sort time of the last item, 0 before the first.
    pub sort_time_ms: i64,
    /// Lateness bound in the directory; `None` while the chain is not listed.
    pub late_ms: Option<i64>,
    /// Write shards that the directory lists: all below this one.
    pub listed: u32,
    /// Write shards that its last plan went round; 0 when none is known.
    pub write_shards: u32,
}

impl ChainState {
    /// The bound that the directory must show for an item that is `late_ms` late; `None` when
    /// it shows enough.
    #[must_use]
    pub fn raised(&self, late_ms: i64) -> Option<i64> {
        if self.late_ms.is_some_and(|bound| late_ms <= bound) {
            return None;
        }
        let wanted = late_ms.max(MIN_LATE_MS) as u64;
        let bound = wanted.checked_next_power_of_two().unwrap_or(1 << 62);
        Some(bound.min(1 << 62) as i64)
    }
}

/// The last item of a chain that lies before `from`, among rows given last first.
///
/// `None`: none of them does, look further. Rows that Millpond did not write are passed over. The header section is in
/// their attribute `header`.
#[must_use]
pub fn last_before(rows: &[Row], from: u64, header: &str) -> Option<(SortKey, ChainTotals)> {
    rows.iter().find_map(|row| {
        let key = SortKey::parse(&row.key.sk)?;
        if key.base_offset >= from {
            return None;
        }
        let totals = row
            .binary(header)
            .and_then(|header| Header::decode(&header.concat()).ok())
            .map(|(header, _)| match header.place {
                Place::Chain(totals) => totals,
                Place::Batch { .. } => ChainTotals::default(),
            });
        Some((key, totals.unwrap_or_default()))
    })
}

/// States of chains by group; those used least recently are forgotten.
#[derive(Debug, Default)]
pub struct Chains {
    states: HashMap<String, (ChainState, u64)>,
    round: u64,
}

impl Chains {
    /// The state of a group's chain, if it is known.
    #[must_use]
    pub fn get(&self, group: &str) -> Option<&ChainState> {
        self.states.get(group).map(|(state, _)| state)
    }

    /// Remembers a state.
    pub fn set(&mut self, group: String, state: ChainState) {
        self.states.insert(group, (state, self.round));
    }

    /// After a plan: forgets down to `limit`, the longest unused first.
    pub fn next_round(&mut self, limit: usize) {
        self.round += 1;
        if self.states.len() <= limit {
            return;
        }
        let mut rounds: Vec<u64> = self.states.values().map(|(_, round)| *round).collect();
        let (_, oldest_kept, _) = rounds.select_nth_unstable(self.states.len() - limit);
        let oldest_kept = *oldest_kept;
        self.states.retain(|_, (_, round)| *round >= oldest_kept);
        if self.states.len() > 2 * limit {
            // All of one round: a plan with more groups than are worth keeping.
            self.states.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_a_power_of_two_and_rises_only() {
        let mut state = ChainState::default();
        assert_eq!(state.raised(0), Some(MIN_LATE_MS));
        state.late_ms = Some(MIN_LATE_MS);
        assert_eq!(state.raised(MIN_LATE_MS), None);
        assert_eq!(state.raised(MIN_LATE_MS + 1), Some(MIN_LATE_MS * 2));
        assert_eq!(state.raised(i64::MAX), Some(1 << 62));
    }

    #[test]
    fn the_longest_unused_are_forgotten() {
        let mut chains = Chains::default();
        for round in 0..10 {
            chains.set(format!("g{round}"), ChainState::default());
            chains.set("always".into(), ChainState::default());
            chains.next_round(4);
        }
        assert!(chains.get("always").is_some() && chains.get("g9").is_some());
        assert!(chains.get("g0").is_none());
        assert!(chains.states.len() <= 5);
    }
}
