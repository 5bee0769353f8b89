//! What a plan makes of a chain besides its items: its state, and the write shards that the directory must list.

use millpond_connector::mutation::{self, Mutation};

use super::Listing;
use crate::chain::ChainState;

/// A chain while a plan is made.
pub(super) struct ChainBuild {
    pub(super) state: ChainState,
    /// The lateness bound was raised.
    pub(super) is_raised: bool,
    /// Write shards up to the last one that has an item.
    pub(super) used: u32,
}

impl ChainBuild {
    /// Goes round so many write shards.
    pub(super) fn new(state: ChainState, write_shards: u32) -> Self {
        Self {
            state: ChainState {
                write_shards,
                ..state
            },
            is_raised: false,
            used: 0,
        }
    }

    /// The write shard of the `ordinal`th item.
    pub(super) fn shard(&self, ordinal: u64) -> u32 {
        (ordinal % u64::from(self.state.write_shards.max(1))) as u32
    }

    /// The write shard of the next item, which is the `ordinal`th of them.
    pub(super) fn next_shard(&mut self, ordinal: u64) -> u32 {
        let shard = self.shard(ordinal);
        self.used = self.used.max(shard + 1);
        shard
    }

    /// Rows of the directory that are to be written, and the state once they are. They are listed from the
    /// first on, so that whoever finds one missing knows that there are no items behind it.
    pub(super) fn listing(&mut self, group: &str) -> Option<Listing> {
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
