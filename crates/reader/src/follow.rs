//! Which items of a growing chain may be passed on.
//!
//! The items of a plan are written side by side: a later one may be there before an earlier one.
//! So an item is passed on when its header says that it follows the last one (the totals of its
//! chain count on), or when the ledger had committed its offsets before it was queried. Others
//! wait, and what comes behind them.

use millpond_format::keys::SortKey;

use crate::event::ItemKey;
use crate::item::{is_plain, read_header};
use crate::table::Attributes;

/// What is known of a chain that is followed. Pure.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Follow {
    /// Items of the chain up to the last one passed, by its header.
    items: Option<u64>,
    /// First offset that was not committed before the chain was queried; `None` when no row is known.
    committed: Option<u64>,
    /// The ledger was read after an item had been held back, and has no row: nobody writes by it.
    without_ledger: bool,
    held: bool,
}

impl Follow {
    /// Follows after an item whose header has such totals, or from a chain's start.
    pub(crate) fn after(items: Option<u64>) -> Self {
        Self {
            items,
            ..Self::default()
        }
    }

    /// The chain is queried again; `is_fresh` when the ledger was read since the last time.
    pub(crate) fn committed(&mut self, offset: Option<u64>, is_fresh: bool) {
        self.committed = offset;
        // The row is there before the first item is: one that is missing may only be not read yet.
        self.without_ledger = offset.is_none() && is_fresh && (self.held || self.without_ledger);
        self.held = false;
    }

    /// True when the next item can only be judged by the ledger.
    pub(crate) fn needs_ledger(&self) -> bool {
        self.held || self.items.is_none()
    }

    /// True when an item was held back since the chain was queried.
    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    /// Judges the next item of the chain.
    pub(crate) fn passes(&mut self, item: &Attributes, key: &ItemKey, group: &str) -> bool {
        // Damage counts as an item without totals: it is told of where it is opened.
        let items = match is_plain(item) {
            true => None,
            false => read_header(item, key, group)
                .ok()
                .map(|header| header.totals.items),
        };
        let follows = match (self.items, items) {
            (Some(before), Some(items)) => items == before + 1,
            _ => false,
        };
        let offset = SortKey::parse(&key.sk).map(|sort_key| sort_key.base_offset);
        let is_committed = match (offset, self.committed) {
            (Some(offset), Some(committed)) => offset < committed,
            (Some(_), None) => self.without_ledger,
            (None, _) => true,
        };
        self.held = !follows && !is_committed;
        if !self.held {
            self.items = items;
        }
        !self.held
    }
}
