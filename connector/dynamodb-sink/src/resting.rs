//! Marks that rest: those of shards that sent nothing for a while lie in rows of their own, so that
//! a flush writes the others only.
//!
//! With many generations of reshards most marks belong to shards that are closed. They must stay
//! (only they tell a repetition), but need not be written with every flush. So the ledger row names a
//! *snapshot* of all marks and holds those that have changed since. A new snapshot is made when
//! what was written in vain, over all flushes since the last one, would have paid for it.
//!
//! A snapshot is written before the ledger row that names it. There are two places for each fencing
//! epoch, and a process writes only into that of its own which the row does not name: whoever lost the
//! partition can change nothing that is read (I11), and a crash leaves at most rows that nobody reads.

use std::sync::Arc;

use millpond_format::keys;
use millpond_format::marks::{Marks, MarksError};
use millpond_sink::ledger::LedgerRow;

use crate::row::{Key, Row, Value, names};

/// Fewer resting marks than this, about 2.5 KB, are not worth a snapshot.
const MIN_RESTING: usize = 64;

/// Marks of one row of a snapshot: below an item's limit, however long their numbers.
const ROW_MARKS: usize = 4_000;

/// Marks that the ledger row itself holds at most.
const MAX_RECENT: usize = 4_000;

/// Names a snapshot: `<epoch>/<place>/<plan>/<rows>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotName {
    /// Fencing epoch of its writer.
    pub epoch: u64,
    /// One of its writer's two places.
    pub place: u8,
    /// Plan number of the ledger row that named it first.
    pub plan: u64,
    /// Rows.
    pub rows: usize,
}

impl SnapshotName {
    /// As it stands in the ledger row.
    #[must_use]
    pub fn text(self) -> String {
        let Self {
            epoch,
            place,
            plan,
            rows,
        } = self;
        format!("{epoch}/{place}/{plan}/{rows}")
    }

    /// Reads what [`Self::text`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.split('/').collect();
        let [epoch, place, plan, rows] = fields.as_slice() else {
            return None;
        };
        Some(Self {
            epoch: epoch.parse().ok()?,
            place: place.parse().ok()?,
            plan: plan.parse().ok()?,
            rows: rows.parse().ok()?,
        })
    }

    /// Keys of its rows.
    pub fn keys(self, pk: &str, partition: u32) -> impl Iterator<Item = Key> {
        (0..self.rows).map(move |row| Key {
            pk: pk.to_owned(),
            sk: keys::marks_sk(partition, self.epoch, self.place, row),
        })
    }
}

/// The snapshot of a topic partition, as the ledger row names it.
#[derive(Debug, Clone, Default)]
pub struct Resting {
    /// The snapshot and what is in it.
    snapshot: Option<(SnapshotName, Arc<Marks>)>,
    /// Marks that were written though they rested, since the snapshot was made.
    in_vain: usize,
}

/// How a ledger row is written.
#[derive(Debug, Clone)]
pub struct Split {
    /// Marks for the ledger row.
    pub recent: Marks,
    /// What is there afterwards.
    pub after: Resting,
    /// The snapshot is a new one, to be written first.
    pub is_new: bool,
}

impl Resting {
    /// What was read.
    #[must_use]
    pub fn of(name: SnapshotName, marks: Marks) -> Self {
        Self {
            snapshot: Some((name, Arc::new(marks))),
            in_vain: 0,
        }
    }

    /// The snapshot's name.
    #[must_use]
    pub fn name(&self) -> Option<SnapshotName> {
        self.snapshot.as_ref().map(|(name, _)| *name)
    }

    /// Divides the marks of `row`, which replaces `seen`.
    #[must_use]
    pub fn split(&self, row: &LedgerRow, seen: Option<&LedgerRow>) -> Split {
        let none = Marks::default();
        let base = self.snapshot.as_ref().map_or(&none, |(_, marks)| marks);
        let recent = row.marks.changed_since(base);
        let moved = match seen {
            Some(seen) => row.marks.changed_since(&seen.marks).len(),
            None => row.marks.len(),
        };
        let resting = recent.len().saturating_sub(moved);
        let in_vain = self.in_vain + resting;
        let is_due = resting >= MIN_RESTING && in_vain >= row.marks.len();
        // A batch of another source than Millpond's may have more shards than a plan should.
        let intent = row.intent.as_ref().and_then(|intent| intent.moved.as_ref());
        let moving = intent.map_or(0, Marks::len);
        let fits = recent.len() <= MAX_RECENT && recent.len() + moving <= 2 * MAX_RECENT;
        if !is_due && fits {
            return Split {
                recent,
                after: Self {
                    snapshot: self.snapshot.clone(),
                    in_vain,
                },
                is_new: false,
            };
        }
        let place = match self.name() {
            Some(name) if name.epoch == row.epoch => 1 - name.place.min(1),
            _ => 0,
        };
        let name = SnapshotName {
            epoch: row.epoch,
            place,
            plan: row.plan,
            rows: row.marks.len().div_ceil(ROW_MARKS),
        };
        Split {
            recent: row.marks.changed_since(&row.marks),
            after: Self::of(name, row.marks.clone()),
            is_new: true,
        }
    }

    /// The rows of the snapshot.
    ///
    /// # Errors
    /// [`MarksError`], which no marks of a ledger are known to cause.
    pub fn rows(&self, pk: &str, partition: u32) -> Result<Vec<Row>, MarksError> {
        let Some((name, marks)) = &self.snapshot else {
            return Ok(Vec::new());
        };
        let parts = marks.parts(ROW_MARKS);
        let row = |(key, part): (Key, Marks)| {
            let plan = i64::try_from(name.plan).unwrap_or(i64::MAX);
            Ok(Row::new(key)
                .with(names::PLAN, Value::N(plan))
                .with(names::MARKS, Value::B(part.encode()?.into())))
        };
        name.keys(pk, partition).zip(parts).map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_format::marks::Mark;
    use millpond_format::sequence::Position;

    fn mark(shard: u64, ordinal: u64) -> Mark {
        let last = Position {
            sequence: format!("4959033827149025660855969253836157109592157598{ordinal:010}").into(),
            sub_sequence: 0,
        };
        Mark {
            stream: "events".into(),
            shard: format!("shardId-{shard:012}").into(),
            epoch: 1_763_885_999_000,
            ordinal,
            highest: last.clone(),
            last,
        }
    }

    #[test]
    fn names_survive_their_text() {
        let name = SnapshotName {
            epoch: 7,
            place: 1,
            plan: 99,
            rows: 3,
        };
        assert_eq!(SnapshotName::parse(&name.text()), Some(name));
        for bad in ["", "1/2/3", "1/2/3/4/5", "1/a/3/4"] {
            assert_eq!(SnapshotName::parse(bad), None, "{bad}");
        }
    }

    /// Live shards that are replaced by others ten times over, each generation alive for 100 flushes
    /// that move every one of its marks. ARCHITECTURE.md states the figures of 1,000.
    #[test]
    fn a_flush_costs_what_moves_however_many_generations_there_were() {
        const LIVE: u64 = 100;
        const FLUSHES: u64 = 100;
        let mut row = LedgerRow::claim(None, "o", 0, None).row;
        let mut resting = Resting::default();
        let (mut bytes, mut snapshots) = (0, 0);
        let mut largest = 0;
        for flush in 0..FLUSHES * 11 {
            let seen = row.clone();
            row.plan += 1;
            let first = flush / FLUSHES * LIVE;
            for shard in first..first + LIVE {
                row.marks.set(mark(shard, 1_000_000 + flush));
            }
            let split = resting.split(&row, Some(&seen));
            let recent = split.recent.encode().expect("few").len();
            largest = largest.max(recent);
            bytes += recent;
            resting = split.after;
            if split.is_new {
                snapshots += 1;
                for written in resting.rows("pk", 0).expect("encodes") {
                    let size = written.size(&crate::row::KeyNames::default()).bytes();
                    assert!(size < 409_600, "{size}");
                    bytes += size;
                }
            }
            // What is in both is the row's marks, always.
            if flush % 10 != 0 {
                continue;
            }
            let (_, base) = resting.snapshot.clone().unwrap_or((
                SnapshotName {
                    epoch: 0,
                    place: 0,
                    plan: 0,
                    rows: 0,
                },
                Arc::default(),
            ));
            assert_eq!(base.with(&split.recent), row.marks);
        }
        assert_eq!((row.marks.len(), snapshots), (1_100, 10));
        let mean = bytes as u64 / (FLUSHES * 11);
        let live = 39 * LIVE;
        assert!(
            (live..live * 12 / 10).contains(&mean),
            "{mean} bytes a flush"
        );
        assert!((largest as u64) < live * 2 + 100, "{largest} bytes");
    }

    #[test]
    fn a_process_never_writes_where_the_row_points() {
        let mut row = LedgerRow::claim(None, "o", 0, None).row;
        let mut resting = Resting::default();
        let mut places = Vec::new();
        for step in 0..600 {
            let seen = row.clone();
            row.plan += 1;
            if step % 200 == 0 {
                row.epoch += 1;
            }
            // Each step a new shard, all others rest.
            (0..10).for_each(|n| row.marks.set(mark(step * 10 + n, 1)));
            let before = resting.name();
            let split = resting.split(&row, Some(&seen));
            if split.is_new {
                let name = split.after.name().expect("new");
                let place = |name: SnapshotName| (name.epoch, name.place);
                assert_eq!(name.epoch, row.epoch);
                assert_ne!(before.map(place), Some(place(name)));
                places.push(place(name));
            }
            resting = split.after;
        }
        assert!(places.len() > 3, "{places:?}");
    }
}
