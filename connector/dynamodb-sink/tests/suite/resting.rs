//! Marks in rows of their own: what the ledger says is what was put last, whoever puts, whatever
//! is lost, however many shards there were.

use std::sync::Arc;

use millpond_dynamodb_sink::client::memory::{Fault, MemoryTable};
use millpond_dynamodb_sink::client::{Throttle, Verdict};
use millpond_dynamodb_sink::row::{KeyNames, names};
use millpond_format::marks::Mark;
use millpond_format::sequence::Position;
use millpond_sink::flush::Shared;
use millpond_sink::ledger::{Done, LedgerRow};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::harness::{pack, seeds, shared};
use crate::topic::MemoryTopic;

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

/// A process, as it believes the ledger to stand.
struct Owner {
    shared: Shared,
    row: LedgerRow,
}

impl Owner {
    /// Reads the ledger and takes the partition; nobody comes between.
    async fn claim(name: &str, table: &MemoryTable, folder: &tempfile::TempDir) -> Self {
        let topic = MemoryTopic::new(1);
        let shared = shared(name, Arc::new(table.clone()), &topic, pack(), folder.path());
        let found = shared.store.ledger(0).await.expect("reads");
        let step = LedgerRow::claim(found.as_ref(), name, 0, None);
        let put = shared.store.put_ledger(0, &step.row, step.seen.as_ref());
        if !put.await.expect("puts") {
            let found = shared.store.ledger(0).await.expect("reads");
            step.judge(found.as_ref()).expect("ours");
        }
        Self {
            shared,
            row: step.row,
        }
    }

    /// Commits a plan that moved some marks, and begins the next; false when it is fenced.
    async fn flush(&mut self, random: &mut SmallRng, generation: u64) -> bool {
        let mut marks = self.row.marks.clone();
        let live = generation * 90;
        for shard in live..live + 90 {
            if random.random_range(0..100) < 60 {
                marks.set(mark(shard, self.row.plan * 10));
            }
        }
        let to = self
            .row
            .intent
            .as_ref()
            .map_or(self.row.committed, |intent| intent.to);
        let done = Done { to, marks };
        let step = match random.random_range(0..4) {
            0 => self.row.commit(Some(&done)),
            _ => self.row.begin(Some(&done), to + 10, "f", vec![]),
        };
        let store = &self.shared.store;
        let put = store.put_ledger(0, &step.row, step.seen.as_ref()).await;
        let is_ours = match put.expect("puts") {
            true => true,
            false => {
                let found = store.ledger(0).await.expect("reads");
                step.judge(found.as_ref()).is_ok()
            }
        };
        if is_ours {
            self.row = step.row;
        }
        is_ours
    }
}

fn faults(random: &mut SmallRng) -> Vec<Option<Fault>> {
    let one = |random: &mut SmallRng| match random.random_range(0..4) {
        0 => Fault::Fail(Verdict::Throttled(Throttle::Table)),
        1 => Fault::Fail(Verdict::Transient),
        2 => Fault::LoseAnswer,
        _ => Fault::Unprocessed,
    };
    (0..2_000)
        .map(|_| (random.random_range(0..100) < 8).then(|| one(random)))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn the_ledger_says_what_was_put_last() {
    for seed in seeds(3) {
        let mut random = SmallRng::seed_from_u64(seed);
        let folder = tempfile::tempdir().expect("tempdir");
        let table = MemoryTable::new("t");
        table.inject(faults(&mut random));
        let mut owner = Owner::claim("o", &table, &folder).await;
        let mut stale: Option<Owner> = None;
        for flush in 0..300 {
            assert!(owner.flush(&mut random, flush / 30).await, "seed {seed}");
            if random.random_range(0..40) == 0 {
                let next = Owner::claim(&format!("o{flush}"), &table, &folder).await;
                assert_eq!(next.row.marks, owner.row.marks, "seed {seed}");
                stale = Some(std::mem::replace(&mut owner, next));
            }
            // Whoever lost the partition goes on until it notices, and changes nothing.
            if let Some(other) = &mut stale {
                assert!(!other.flush(&mut random, flush / 30).await, "seed {seed}");
            }
            if flush % 10 == 0 {
                let fresh = Owner::claim(&format!("r{flush}"), &table, &folder).await;
                assert_eq!(fresh.row.marks, owner.row.marks, "seed {seed}");
                owner = fresh;
            }
        }
        let rows = table.scan();
        let ledger = rows
            .iter()
            .find(|row| row.key.pk.starts_with("millpond:ledger/"));
        let ledger = ledger.expect("ledger");
        assert!(ledger.string(names::RESTING).is_some(), "seed {seed}");
        assert!(owner.row.marks.len() > 800, "{}", owner.row.marks.len());
        let bytes = ledger.size(&KeyNames::default()).bytes();
        assert!(bytes < 12_000, "{bytes}");
    }
}
