//! Small items packed anew: fewer units for the same events, the same bytes again whatever happened, and dictionaries that are
//! there before anything names them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use millpond_connector::metrics::Metrics;
use millpond_dynamodb_sink::client::memory::{Fault, MemoryTable};
use millpond_dynamodb_sink::client::{TableApi, Verdict};
use millpond_dynamodb_sink::config::SinkConfig;
use millpond_dynamodb_sink::dictionaries::Training;
use millpond_dynamodb_sink::plan::PlanConfig;
use millpond_dynamodb_sink::plan::repack;
use millpond_dynamodb_sink::row::{Key, Row, Value, names};
use millpond_dynamodb_sink::store::TableStore;
use millpond_format::header::Header;
use millpond_format::keys;
use millpond_sink::conformance::Subject;
use millpond_sink::conformance::storm::{shared, storm, storms};
use millpond_sink::partition;
use millpond_sink::store::Store;

use crate::changes::Setting;
use crate::checker::{check, read_letters, read_table};
use crate::crash::faults;
use crate::harness::{MAX_ITEM_BYTES, config, draining, pack, store_training};
use crate::topic::MemoryTopic;
use crate::workload::{Shape, Workload};

/// Little is enough.
const TRAINING: Training = Training {
    sample_bytes: 64 << 10,
    first_after_bytes: 8 << 10,
    longest_wait_bytes: 64 << 10,
    dictionary_bytes: 2 << 10,
};

/// Batches of little for each job.
const SHAPE: Shape = Shape {
    batches: 40,
    shards: 2,
    jobs: 6,
    repeats: 10,
    poison: 1,
    large: 0,
    alike: true,
};

/// A table in memory whose sinks train.
struct Learning(MemoryTable);

#[async_trait]
impl Subject for Learning {
    async fn open(&self, metrics: Arc<Metrics>) -> Arc<dyn Store> {
        let store = store_training(Arc::new(self.0.clone()), metrics, Some(TRAINING));
        store.dictionaries.resume().await.expect("resumes");
        Arc::new(store)
    }

    fn inject(&self, seed: u64, percent: u32) {
        self.0.inject(faults(seed, percent));
    }

    async fn events(&self) -> BTreeMap<String, Vec<Vec<u8>>> {
        read_table(&self.0.scan(), MAX_ITEM_BYTES)
    }
}

#[test]
fn events_survive_a_storm_with_dictionaries() {
    storms(60, async |seed| {
        let folder = tempfile::tempdir().expect("tempdir");
        let subject = Learning(MemoryTable::new("t"));
        storm(seed, &subject, folder.path(), true, true).await;
        items_name_what_is_there(&subject.0);
    });
}

fn plan_config() -> PlanConfig {
    PlanConfig {
        pipeline: "p".into(),
        topic: "events".into(),
        partition: 0,
        keys: Default::default(),
        max_item_bytes: MAX_ITEM_BYTES,
        form: Default::default(),
    }
}

fn dictionary_named(row: &Row) -> Option<u64> {
    repack::dictionary_named(row, &plan_config())
}

fn items(table: &MemoryTable) -> Vec<Row> {
    let mut rows = table.scan();
    rows.retain(|row| !row.key.pk.starts_with("millpond:"));
    rows
}

fn dictionary_rows(table: &MemoryTable) -> BTreeMap<u64, Row> {
    let mut rows = table.scan();
    rows.retain(|row| row.key.pk == keys::dictionaries_pk("p"));
    let id = |row: &Row| keys::parse_dictionary_sk(&row.key.sk).expect("an id");
    rows.into_iter().map(|row| (id(&row), row)).collect()
}

fn items_name_what_is_there(table: &MemoryTable) {
    let there = dictionary_rows(table);
    let named: BTreeSet<u64> = items(table).iter().filter_map(dictionary_named).collect();
    assert!(named.iter().all(|id| there.contains_key(id)), "{named:?}");
    for (place, (id, row)) in there.iter().enumerate() {
        assert_eq!(*id, place as u64 + 1);
        let names: Vec<&str> = row.attributes.keys().map(String::as_str).collect();
        // Nothing that a time to live could be.
        assert_eq!(names, [names::CRC, names::DICTIONARY]);
    }
}

/// Many small plans of one process.
async fn run(
    table: &MemoryTable,
    training: Option<Training>,
    folder: &Path,
) -> (Workload, Arc<Metrics>) {
    let topic = MemoryTopic::new(3);
    let mut workload = Workload::new(3, SHAPE);
    let metrics = Arc::new(Metrics::default());
    let store = store_training(Arc::new(table.clone()), metrics.clone(), training);
    let store: Arc<dyn Store> = Arc::new(store);
    for _ in 0..20 {
        for _ in 0..3 {
            workload.send(&topic);
        }
        let process = shared("o", store.clone(), metrics.clone(), &topic, pack(), folder);
        let ended = partition::run(Arc::new(process), 0, draining());
        ended.await.expect("drained");
    }
    (workload, metrics)
}

fn units(rows: &[Row]) -> u64 {
    let names = Default::default();
    rows.iter().map(|row| row.size(&names).write_units()).sum()
}

#[tokio::test(start_paused = true)]
async fn small_items_take_fewer_units_and_hold_the_same() {
    let folder = tempfile::tempdir().expect("tempdir");
    let (plain, auto) = (MemoryTable::new("t"), MemoryTable::new("t"));
    run(&plain, None, folder.path()).await;
    let letters = tempfile::tempdir().expect("tempdir");
    let (workload, metrics) = run(&auto, Some(TRAINING), letters.path()).await;
    let file = letters
        .path()
        .join(millpond_sink::conformance::storm::LETTERS);
    check(
        &workload,
        &auto.scan(),
        &read_letters(&file),
        MAX_ITEM_BYTES,
    );
    assert_eq!(
        read_table(&plain.scan(), MAX_ITEM_BYTES),
        read_table(&auto.scan(), MAX_ITEM_BYTES)
    );
    let (before, after) = (units(&items(&plain)), units(&items(&auto)));
    assert!(after * 10 < before * 9, "{after} of {before} units");
    assert_eq!(before - after, metrics.units_saved_repacking.get());
    assert!(metrics.items_repacked.get() > 0);
    assert!(dictionary_rows(&plain).is_empty());
    items_name_what_is_there(&auto);
    let newest = dictionary_rows(&auto).len() as u64;
    assert_eq!(metrics.dictionary.get(), newest);
    let named: Vec<_> = items(&auto).iter().filter_map(dictionary_named).collect();
    assert!(newest > 0 && !named.is_empty());
}

fn auto() -> SinkConfig {
    let mut config = config(None);
    config.training = Some(TRAINING);
    config
}

/// A dictionary that a sink trained from the events of these tests.
async fn a_dictionary() -> Row {
    let folder = tempfile::tempdir().expect("tempdir");
    let table = MemoryTable::new("t");
    run(&table, Some(TRAINING), folder.path()).await;
    dictionary_rows(&table).remove(&1).expect("trained")
}

async fn put(table: &MemoryTable, row: Row) {
    let put = table.batch_write(&[Arc::new(row)]).await.expect("put");
    assert!(put.unprocessed.is_empty());
}

/// The same row under another id.
fn with_id(row: &Row, id: u64) -> Row {
    Row {
        key: Key {
            sk: keys::dictionary_sk(id),
            ..row.key.clone()
        },
        ..row.clone()
    }
}

/// Content of the items before an offset, by key.
fn before(table: &MemoryTable, to: u64) -> BTreeMap<Key, Row> {
    let mut rows = items(table);
    rows.retain(|row| {
        let key = keys::SortKey::parse(&row.key.sk).expect("a sort key");
        key.base_offset < to
    });
    rows.into_iter().map(|row| (row.key.clone(), row)).collect()
}

fn end_of(intent: &str) -> u64 {
    let to = intent.split('/').nth(1).and_then(|to| to.parse().ok());
    to.expect("an offset")
}

#[tokio::test(start_paused = true)]
async fn an_open_plan_keeps_its_dictionary_when_there_is_a_newer_one_or_none_is_wanted() {
    let row = a_dictionary().await;
    // Without an interruption.
    let whole = Setting::of(Shape {
        poison: 0,
        alike: true,
        ..Shape::default()
    });
    put(&whole.table, row.clone()).await;
    whole.run(auto(), draining()).await.expect("drained");
    for goes_on_with in [auto(), config(None)] {
        let mut setting = Setting::of(Shape {
            poison: 0,
            alike: true,
            ..Shape::default()
        });
        put(&setting.table, row.clone()).await;
        setting.dies_with_an_open_plan(auto()).await;
        let intent = setting.intent().expect("open");
        assert!(intent.ends_with("*d1"), "{intent}");
        // Another process stores a newer one meanwhile: it is what new plans are made with.
        put(&setting.table, with_id(&row, 2)).await;
        let to = end_of(&intent);
        let is_auto = goes_on_with.training.is_some();
        setting.goes_on(goes_on_with).await;
        assert_eq!(before(&setting.table, to), before(&whole.table, to));
        let after: BTreeSet<_> = items(&setting.table)
            .iter()
            .filter(|row| !before(&setting.table, to).contains_key(&row.key))
            .filter_map(dictionary_named)
            .collect();
        assert_eq!(after, is_auto.then_some(2).into_iter().collect());
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_plan_without_a_dictionary_is_finished_without_one() {
    let row = a_dictionary().await;
    let mut setting = Setting::of(Shape {
        poison: 0,
        alike: true,
        ..Shape::default()
    });
    setting.dies_with_an_open_plan(config(None)).await;
    let intent = setting.intent().expect("open");
    assert!(!intent.contains('*'), "{intent}");
    put(&setting.table, row).await;
    setting.goes_on(auto()).await;
    let open = before(&setting.table, end_of(&intent));
    assert!(open.values().all(|row| dictionary_named(row).is_none()));
    // What was packed anew before there was one is so again.
    let mut setting = Setting::of(Shape {
        poison: 0,
        alike: true,
        ..Shape::default()
    });
    setting.dies_with_an_open_plan(auto()).await;
    let intent = setting.intent().expect("open");
    assert!(intent.ends_with("*d0"), "{intent}");
    put(&setting.table, a_dictionary().await).await;
    setting.goes_on(auto()).await;
    let open = before(&setting.table, end_of(&intent));
    assert!(open.values().all(|row| dictionary_named(row).is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_plan_whose_dictionary_is_gone_says_so_and_touches_nothing() {
    let setting = Setting::of(Shape {
        poison: 0,
        alike: true,
        ..Shape::default()
    });
    put(&setting.table, a_dictionary().await).await;
    setting.dies_with_an_open_plan(auto()).await;
    let items_before = items(&setting.table);
    let key = dictionary_rows(&setting.table)
        .remove(&1)
        .expect("there")
        .key;
    for row in [
        // As if it were gone, and changed.
        Row::new(key.clone()),
        Row::new(key.clone())
            .with(names::DICTIONARY, Value::B(vec![7; 100].into()))
            .with(names::CRC, Value::N(1)),
    ] {
        put(&setting.table, row).await;
        let refused = setting.run(auto(), draining()).await.expect_err("refused");
        assert!(refused.contains("millpond:dictionaries/p"), "{refused}");
        assert!(refused.contains("00001"), "{refused}");
    }
    assert_eq!(items(&setting.table), items_before);
}

#[tokio::test(start_paused = true)]
async fn a_dictionary_that_was_stored_and_never_used_is_used_by_the_next_process() {
    let row = a_dictionary().await;
    let setting = Setting::of(Shape {
        poison: 0,
        alike: true,
        ..Shape::default()
    });
    put(&setting.table, row.clone()).await;
    setting.run(auto(), draining()).await.expect("drained");
    assert_eq!(dictionary_rows(&setting.table).get(&1), Some(&row));
    let named: BTreeSet<_> = items(&setting.table)
        .iter()
        .filter_map(dictionary_named)
        .collect();
    assert!(named.contains(&1), "{named:?}");
}

/// Small frames until a training is due, then the training.
async fn train(store: &TableStore) {
    for n in 0..400u64 {
        let id = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let event = format!(
            r#"{{"id":"{id:016x}","kind":"order-paid","region":"eu-west-1","tier":"{}"}}"#,
            n % 3
        );
        store.dictionaries.offer(event.as_bytes());
    }
    store.dictionaries.learn().await;
}

#[tokio::test(start_paused = true)]
async fn of_two_processes_that_train_at_once_both_use_what_is_in_the_table() {
    let table = MemoryTable::new("t");
    let open = || store_training(Arc::new(table.clone()), Arc::default(), Some(TRAINING));
    let (one, other) = (open(), open());
    train(&one).await;
    let stored = dictionary_rows(&table);
    assert_eq!(stored.len(), 1);
    train(&other).await;
    assert_eq!(dictionary_rows(&table), stored);
    for store in [&one, &other] {
        let known = store.dictionaries.get(1).await.expect("known");
        let bytes = stored[&1]
            .binary(names::DICTIONARY)
            .expect("bytes")
            .concat();
        assert_eq!(known.bytes(), bytes);
    }
    // The answer to the put is lost: it is our own that is found.
    let lonely = MemoryTable::new("t");
    let store = store_training(Arc::new(lonely.clone()), Arc::default(), Some(TRAINING));
    lonely.inject(vec![Some(Fault::LoseAnswer)]);
    train(&store).await;
    assert_eq!(dictionary_rows(&lonely).len(), 1);
    assert!(store.dictionaries.get(1).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_table_that_takes_no_dictionary_stops_nothing() {
    let table = MemoryTable::new("t");
    let store = store_training(Arc::new(table.clone()), Arc::default(), Some(TRAINING));
    table.inject(vec![Some(Fault::Fail(Verdict::Fatal("no")))]);
    train(&store).await;
    assert!(dictionary_rows(&table).is_empty());
    assert_eq!(store.place.metrics.dictionary.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_item_can_be_read_without_its_dictionary() {
    let setting = Setting::of(Shape {
        poison: 0,
        alike: true,
        ..Shape::default()
    });
    put(&setting.table, a_dictionary().await).await;
    let config = auto();
    let metrics = Arc::new(Metrics::default());
    let store = store_training(Arc::new(setting.table.clone()), metrics, config.training);
    setting.run(config, draining()).await.expect("drained");
    let item = items(&setting.table)
        .into_iter()
        .find(|row| dictionary_named(row) == Some(1))
        .expect("an item with a dictionary");
    let dictionary = store.dictionaries.get(1).await.expect("there");
    let alone = repack::self_contained(&item, &dictionary, &plan_config());
    let alone = alone.expect("readable");
    assert_eq!(dictionary_named(&alone), None);
    let section = alone.binary(names::HEADER).expect("h").concat();
    let frames = alone.binary(names::FRAMES).expect("d").concat();
    let (header, _) = Header::decode(&section).expect("a header");
    header.check_frames(&frames).expect("frames agree");
    let mut decoder = millpond_format::frame::FrameDecoder::new().expect("zstd");
    let mut events = 0;
    for (info, range) in header.frame_ranges() {
        let frame = decoder.decode(header.codec, info, &frames[range]);
        events += frame.expect("readable").events.len() as i64;
    }
    assert_eq!(Some(events), item.integer(names::EVENTS));
}
