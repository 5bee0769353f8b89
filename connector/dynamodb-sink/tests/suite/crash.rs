//! The assertions that hold for every store, on a table: its rules, and storms of crashes.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use millpond_connector::metrics::Metrics;
use millpond_dynamodb_sink::client::memory::{Fault, MemoryTable};
use millpond_dynamodb_sink::client::{TableApi, Throttle, Verdict};
use millpond_sink::conformance::storm::{storm, storms};
use millpond_sink::conformance::{Subject, rules};
use millpond_sink::store::Store;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::checker::read_table;
use crate::harness::{MAX_ITEM_BYTES, store};

/// A table in memory.
struct InMemory(MemoryTable);

#[async_trait]
impl Subject for InMemory {
    async fn open(&self, metrics: Arc<Metrics>) -> Arc<dyn Store> {
        Arc::new(store(Arc::new(self.0.clone()), metrics))
    }

    fn inject(&self, seed: u64, percent: u32) {
        self.0.inject(faults(seed, percent));
    }

    async fn events(&self) -> BTreeMap<String, Vec<Vec<u8>>> {
        read_table(&self.0.scan(), MAX_ITEM_BYTES)
    }
}

/// A table on the wire; nothing fails there.
pub struct OnTheWire(pub Arc<dyn TableApi>);

#[async_trait]
impl Subject for OnTheWire {
    async fn open(&self, metrics: Arc<Metrics>) -> Arc<dyn Store> {
        Arc::new(store(self.0.clone(), metrics))
    }

    fn inject(&self, _: u64, _: u32) {}

    async fn events(&self) -> BTreeMap<String, Vec<Vec<u8>>> {
        BTreeMap::new()
    }
}

pub fn faults(seed: u64, percent: u32) -> Vec<Option<Fault>> {
    let mut random = SmallRng::seed_from_u64(seed);
    let one = |random: &mut SmallRng| match random.random_range(0..5) {
        0 => Fault::Fail(Verdict::Throttled(Throttle::Table)),
        1 => Fault::Fail(Verdict::Transient),
        2 => Fault::Fail(Verdict::Throttled(Throttle::KeyRange)),
        3 => Fault::LoseAnswer,
        _ => Fault::Unprocessed,
    };
    (0..400)
        .map(|_| (random.random_range(0..100) < percent).then(|| one(&mut random)))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn the_rules_of_a_store_hold() {
    rules::assert_rules(&InMemory(MemoryTable::new("t"))).await;
}

async fn one(seed: u64, packed: bool) {
    let folder = tempfile::tempdir().expect("tempdir");
    let subject = InMemory(MemoryTable::new("t"));
    // Without the packer nothing looks into an event, so none is poison.
    storm(seed, &subject, folder.path(), packed, packed).await;
}

#[test]
fn packed_events_survive_a_storm_once_each() {
    storms(60, async |seed| one(seed, true).await);
}

#[test]
fn plain_events_survive_a_storm_once_each() {
    storms(30, async |seed| one(seed, false).await);
}
