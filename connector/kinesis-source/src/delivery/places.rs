//! Which places of shards are taken: those of shards that are not read any more are given to others (I9).

use super::{Delivery, ShardIndex};

impl Delivery {
    /// Gives up the places of shards that are not read any more and of which nothing is on its way: their handles
    /// mean nothing from then on (I9).
    pub fn retain(&mut self, is_read: impl Fn(ShardIndex) -> bool) {
        for (slot, shard) in self.shards.iter().enumerate() {
            let generation = shard.generation;
            let index = ShardIndex { slot, generation };
            let is_done = shard.durable_sends == shard.next_sends && !self.changed.contains(&index);
            if is_done && !is_read(index) && !self.free.contains(&slot) {
                self.free.push(slot);
            }
        }
    }

    /// True for a handle whose place was not given to another shard.
    #[must_use]
    pub fn is_current(&self, index: ShardIndex) -> bool {
        let shard = self.shards.get(index.slot);
        shard.is_some_and(|shard| shard.generation == index.generation)
    }
}
