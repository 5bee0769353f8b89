//! Rows of the roster: what is to be written, and what others wrote.

use std::collections::BTreeSet;

use super::{Roster, new_chain};
use crate::checkpoint::{Progress, ShardCheckpoint};
use crate::lineage::Stage;
use crate::shard::{ShardId, ShardInfo};
use crate::shard_figures::ShardFigures;
use crate::shard_table::{Rows, ShardRow, ShardWrite, WriteIf};

impl Roster {
    /// What is to be written. `epoch_of` says under which lease a shard is written; changes of
    /// shards without one are forgotten, they are for others to write.
    pub fn take_writes(&mut self, epoch_of: impl Fn(&ShardId) -> Option<u64>) -> Vec<ShardWrite> {
        self.dirty = false;
        let entered = std::mem::take(&mut self.entered);
        let changed = std::mem::take(&mut self.changed);
        let entered = entered.into_iter().map(|id| (id, WriteIf::Absent));
        let changed = changed.into_iter().filter_map(|id| {
            let epoch = epoch_of(&id)?;
            Some((id, WriteIf::Held { epoch }))
        });
        let mut writes: Vec<ShardWrite> = entered
            .chain(changed)
            .filter_map(|(shard, condition)| {
                let row = self.row(&shard)?;
                Some(ShardWrite {
                    shard,
                    condition,
                    row,
                })
            })
            .collect();
        let forgotten = std::mem::take(&mut self.forgotten);
        writes.extend(forgotten.into_iter().map(|shard| ShardWrite {
            shard,
            condition: WriteIf::Finished,
            row: self.new_row(ShardCheckpoint::not_begun(Vec::new(), None)),
        }));
        writes
    }

    /// The writes failed: they are to be made again, as they will be then.
    pub fn put_back(&mut self, writes: &[ShardWrite]) {
        for write in writes {
            let set = match write.condition {
                WriteIf::Absent => &mut self.entered,
                WriteIf::Held { .. } => &mut self.changed,
                WriteIf::Finished => &mut self.forgotten,
            };
            set.insert(write.shard.clone());
        }
        self.dirty = true;
    }

    /// How far the shard is, as known last.
    #[must_use]
    pub fn progress(&self, id: &ShardId) -> Option<&Progress> {
        let shard = self.checkpoint.shards.get(id)?;
        Some(&shard.progress)
    }

    /// What the shard gives, as known last; 0 when nobody measured.
    #[must_use]
    pub fn bytes_per_second(&self, id: &ShardId) -> u64 {
        self.bytes_per_second.get(id).copied().unwrap_or(0)
    }

    /// What the shard carries, as its reader measured it last, here or elsewhere.
    #[must_use]
    pub fn figures(&self, id: &ShardId) -> Option<ShardFigures> {
        self.figures.get(id).copied()
    }

    /// What the shard gives and carries, to be written with its next change. Without new figures the old ones stay.
    pub fn measured(&mut self, id: &ShardId, bytes_per_second: u64, figures: Option<ShardFigures>) {
        self.bytes_per_second.insert(id.clone(), bytes_per_second);
        if let Some(figures) = figures {
            self.figures.insert(id.clone(), figures);
        }
    }

    pub(super) fn row(&self, id: &ShardId) -> Option<ShardRow> {
        let checkpoint = self.checkpoint.shards.get(id)?.clone();
        Some(ShardRow {
            start: self.starts.get(id).copied(),
            hash_keys: self.hash_keys.get(id).copied(),
            children: self.children.get(id).cloned().unwrap_or_default(),
            bytes_per_second: self.bytes_per_second(id),
            figures: self.figures(id),
            ..self.new_row(checkpoint)
        })
    }

    pub(super) fn new_row(&self, checkpoint: ShardCheckpoint) -> ShardRow {
        ShardRow {
            checkpoint,
            aggregated: self.checkpoint.aggregated,
            start: None,
            hash_keys: None,
            children: Vec::new(),
            bytes_per_second: 0,
            figures: None,
            is_foreign: false,
        }
    }

    pub(super) fn touch(&mut self, id: &ShardId) {
        self.changed.insert(id.clone());
        self.dirty = true;
    }

    /// Takes in what others wrote. `is_ours` says of which shards this process knows better.
    pub fn observe(&mut self, rows: &Rows, is_ours: impl Fn(&ShardId) -> bool) {
        for (id, row) in rows.iter().filter(|(id, _)| !is_ours(id)) {
            self.know(id, row);
            if self.lineage.stage(id) == Some(Stage::Finished) {
                continue;
            }
            if row.checkpoint.is_finished() {
                self.lineage.finish(id);
                self.children.insert(id.clone(), row.children.clone());
            }
            self.checkpoint
                .shards
                .insert(id.clone(), row.checkpoint.clone());
        }
    }

    pub(super) fn know(&mut self, id: &ShardId, row: &ShardRow) {
        self.lineage.recall(&row.checkpoint.info(id));
        if let Some(range) = row.hash_keys {
            self.hash_keys.insert(id.clone(), range);
        }
        self.bytes_per_second
            .insert(id.clone(), row.bytes_per_second);
        match row.figures {
            Some(figures) => self.figures.insert(id.clone(), figures),
            None => self.figures.remove(id),
        };
        match row.start {
            Some(start) => self.starts.insert(id.clone(), start),
            None => self.starts.remove(id),
        };
    }

    /// Takes over a shard as its row is under a lease that was just taken. True when
    /// that must be saved before anything of it is sent: it is numbered anew.
    pub fn adopt(&mut self, id: &ShardId, row: ShardRow, now_ms: i64) -> bool {
        self.know(id, &row);
        let mut checkpoint = row.checkpoint;
        let mut is_new = row.is_foreign;
        if let Progress::Begun { chain, .. } | Progress::Delivered { chain, .. } =
            &mut checkpoint.progress
            && (row.aggregated != self.checkpoint.aggregated
                || chain.next_ordinals.len() != self.partition_count)
        {
            *chain = new_chain(now_ms, chain.epoch + 1, self.partition_count);
            is_new = true;
        }
        if checkpoint.is_finished() {
            self.lineage.finish(id);
            self.children.insert(id.clone(), row.children);
        }
        self.checkpoint.shards.insert(id.clone(), checkpoint);
        self.changed.remove(id);
        if is_new {
            self.touch(id);
        }
        is_new
    }

    /// The shard is not read here any more; whatever of it was not written is for its next owner.
    pub fn let_go(&mut self, id: &ShardId) {
        self.lineage.stop(id);
        self.changed.remove(id);
    }

    /// The shards that may be read now and whose rows were written: those that can be leased.
    #[must_use]
    pub fn leasable(&self) -> BTreeSet<ShardId> {
        let readable = self.lineage.readable().map(|(id, _)| id);
        readable
            .filter(|id| !self.entered.contains(*id))
            .cloned()
            .collect()
    }

    /// The shards that may be read now, begun or not: those not read to their end whose parents are. Together they
    /// take every hash key.
    pub fn readable(&self) -> impl Iterator<Item = &ShardId> {
        self.lineage.readable().map(|(id, _)| id)
    }

    /// Since when something may be unread of a shard, milliseconds since the Unix epoch. Of one that was never begun, and
    /// of which nothing more is said, it is `None`.
    #[must_use]
    pub fn unread_since_ms(&self, id: &ShardId) -> Option<i64> {
        self.checkpoint.shards.get(id)?.unread_since_ms
    }

    /// Another program had these rows before, and did not need the shards that came before them:
    /// of a listing's shards, those without a row from which one with a row descends are finished.
    pub fn take_over(&mut self, listed: &[ShardInfo]) {
        let mut needed: Vec<ShardId> = self.checkpoint.shards.keys().cloned().collect();
        while let Some(id) = needed.pop() {
            let Some(shard) = listed.iter().find(|shard| shard.id == id) else {
                continue;
            };
            for parent in &shard.parents {
                let is_listed = listed.iter().find(|shard| shard.id == *parent);
                let Some(info) = is_listed else { continue };
                if self.checkpoint.shards.contains_key(parent) {
                    continue;
                }
                let entry = ShardCheckpoint {
                    progress: Progress::Finished,
                    ..ShardCheckpoint::not_begun(info.parents.clone(), None)
                };
                self.checkpoint.shards.insert(parent.clone(), entry);
                self.lineage.resume(info.clone(), true);
                self.entered.insert(parent.clone());
                self.dirty = true;
                needed.push(parent.clone());
            }
        }
        self.learn(listed);
    }
}
