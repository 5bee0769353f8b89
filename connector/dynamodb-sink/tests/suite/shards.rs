//! Chains that go round several partition keys of the table: what holds of one holds of them all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use millpond_connector::metrics::Metrics;
use millpond_dynamodb_sink::client::memory::MemoryTable;
use millpond_dynamodb_sink::plan_writer::Spreading;
use millpond_dynamodb_sink::row::{Row, names};
use millpond_dynamodb_sink::spread::WriteShards;
use millpond_format::keys::{self, SortKey};
use millpond_sink::conformance::storm::{storm, storms};
use millpond_sink::conformance::{Subject, rules};
use millpond_sink::ledger::Intent;
use millpond_sink::store::Store;

use crate::changes::Setting;
use crate::checker::read_table;
use crate::crash::faults;
use crate::harness::{MAX_ITEM_BYTES, config, store};

/// A table in memory whose writers spread chains. With `auto` each process finds every chain hot, once, that is
/// in the table when it begins, and a key takes nothing, so that each of them is busy.
struct Spreads(MemoryTable, WriteShards);

#[async_trait]
impl Subject for Spreads {
    async fn open(&self, metrics: Arc<Metrics>) -> Arc<dyn Store> {
        let mut store = store(Arc::new(self.0.clone()), metrics);
        store.spreading = Spreading::new(self.1, 0);
        for row in self.0.scan() {
            store.spreading.is_hot("", "p", &row.key.pk);
        }
        Arc::new(store)
    }

    fn inject(&self, seed: u64, percent: u32) {
        self.0.inject(faults(seed, percent));
    }

    async fn events(&self) -> BTreeMap<String, Vec<Vec<u8>>> {
        assert_listed(&self.0.scan());
        read_table(&self.0.scan(), MAX_ITEM_BYTES)
    }
}

/// Every write shard with items is in the directory, and all below it.
fn assert_listed(rows: &[Row]) -> BTreeMap<(String, u32), u32> {
    let listed: BTreeSet<(&str, u32, u32)> = rows
        .iter()
        .filter(|row| row.key.pk.starts_with("millpond:groups/"))
        .filter_map(|row| keys::parse_directory_sk(&row.key.sk))
        .collect();
    let mut most = BTreeMap::new();
    for row in rows {
        let Some(key) = keys::parse_chain_pk(&row.key.pk) else {
            continue;
        };
        for shard in 0..=key.write_shard {
            assert!(
                listed.contains(&(key.group, key.partition, shard)),
                "{key:?}"
            );
        }
        let chain = (key.group.to_owned(), key.partition);
        let of_chain: &mut u32 = most.entry(chain).or_default();
        *of_chain = (*of_chain).max(key.write_shard + 1);
    }
    most
}

#[test]
fn every_event_is_there_once_and_in_order_over_write_shards_through_crashes() {
    let mut grown = 0;
    storms(24, async |seed| {
        let folder = tempfile::tempdir().expect("tempdir");
        let write_shards = match seed % 4 {
            0 => WriteShards::Fixed(3),
            _ => WriteShards::Auto,
        };
        let subject = Spreads(MemoryTable::new("t"), write_shards);
        let packed = seed % 5 != 1;
        storm(seed, &subject, folder.path(), packed, packed).await;
        let most = assert_listed(&subject.0.scan());
        grown += most.values().filter(|shards| **shards > 1).count();
    });
    assert!(grown > 10, "{grown} chains went round several keys");
}

#[tokio::test(start_paused = true)]
async fn a_table_with_write_shards_keeps_the_rules_of_a_store() {
    for write_shards in [WriteShards::Fixed(4), WriteShards::Auto] {
        rules::assert_rules(&Spreads(MemoryTable::new("t"), write_shards)).await;
    }
}

/// What is written, by write shard.
fn shards(rows: &[Row]) -> BTreeSet<u32> {
    let keys = rows
        .iter()
        .filter_map(|row| keys::parse_chain_pk(&row.key.pk));
    keys.map(|key| key.write_shard).collect()
}

#[tokio::test(start_paused = true)]
async fn write_shards_may_change_though_a_plan_is_open() {
    use WriteShards::{Auto, Fixed};
    for (before, after) in [
        (Fixed(3), Fixed(5)),
        (Fixed(4), Fixed(1)),
        (Fixed(3), Auto),
        (Auto, Fixed(2)),
    ] {
        let mut setting = Setting::new();
        let with = |write_shards| {
            let mut config = config(None);
            config.write_shards = write_shards;
            config
        };
        setting.dies_with_an_open_plan(with(before)).await;
        setting.goes_on(with(after)).await;
        let rows = setting.table.scan();
        assert_listed(&rows);
        let most = before.max_of(after);
        let found = shards(&rows).len() as u32;
        assert!(found > 1 && found <= most, "{before:?}, {after:?}: {found}");
    }
}

trait Most {
    fn max_of(self, other: Self) -> u32;
}

impl Most for WriteShards {
    /// The larger number; `auto` is one, since nothing is hot.
    fn max_of(self, other: Self) -> u32 {
        let of = |setting| match setting {
            Self::Auto => 1,
            Self::Fixed(number) => number,
        };
        of(self).max(of(other))
    }
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_its_key_holds_back_gets_another_and_its_open_plan_is_written_again_as_it_was()
{
    let mut setting = Setting::new();
    setting.goes_on(config(None)).await;
    assert_eq!(shards(&setting.table.scan()), BTreeSet::from([0]));
    let slow = || {
        let mut config = config(None);
        config.pace.key_units = Some(20);
        config
    };
    // Dies in a plan that goes round more keys than the one before, some of its items written.
    let is_in_it = |rows: &[Row]| {
        let open = rows.iter().find_map(|row| row.string(names::INTENT));
        let Some(open) = open
            .filter(|open| open.contains('*'))
            .and_then(Intent::parse)
        else {
            return false;
        };
        rows.iter().any(|row| {
            let key = keys::parse_chain_pk(&row.key.pk).zip(SortKey::parse(&row.key.sk));
            key.is_some_and(|(key, at)| key.write_shard > 0 && at.base_offset >= open.from)
        })
    };
    setting.dies_when(slow(), is_in_it).await;
    let before = setting.table.scan();
    // Who comes next knows nothing of what was held back, and the setting is another.
    let mut fixed = config(None);
    fixed.write_shards = WriteShards::Fixed(1);
    setting.goes_on(fixed).await;
    let after = setting.table.scan();
    let items = |rows: &[Row]| -> Vec<Row> {
        let items = rows
            .iter()
            .filter(|row| keys::parse_chain_pk(&row.key.pk).is_some());
        items.cloned().collect()
    };
    let after: BTreeSet<_> = items(&after).into_iter().map(|row| row.key).collect();
    for row in items(&before) {
        assert!(after.contains(&row.key));
    }
    // And with the setting as it was: what the directory lists is used.
    setting.goes_on(config(None)).await;
    assert_listed(&setting.table.scan());
}
