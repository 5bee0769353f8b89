//! Mapped events: the winner is the same in whatever sequence plans are written, sizes are the
//! service's, and nothing is lost in a storm.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use dynoxide::types::{AttributeValue, item_size};
use millpond_connector::metrics::Metrics;
use millpond_dynamodb_sink::client::Verdict;
use millpond_dynamodb_sink::client::memory::{Fault, MemoryTable};
use millpond_dynamodb_sink::decimal::Decimal;
use millpond_dynamodb_sink::form::ItemForm;
use millpond_dynamodb_sink::mapped::{MappedPlans, plan};
use millpond_dynamodb_sink::mapping::Mapping;
use millpond_dynamodb_sink::mapping::settings::PlainSettings;
use millpond_dynamodb_sink::plan::PlanConfig;
use millpond_dynamodb_sink::row::{Key, KeyNames, Row, Value};
use millpond_dynamodb_sink::store::TableStore;
use millpond_dynamodb_sink::typed::Typed;
use millpond_dynamodb_sink::writer::TableWriter;
use millpond_format::origin::Origin;
use millpond_sink::conformance::Subject;
use millpond_sink::conformance::events::check;
use millpond_sink::conformance::lost_topic::{drain, nothing_is_left_twice, sent};
use millpond_sink::conformance::storm::{outlasted, storms};
use millpond_sink::contiguity::PlainRecord;
use millpond_sink::dedup::{Admitted, Workbench};
use millpond_sink::store::{PlanInput, PlanWriter, Store};
use proptest::prelude::*;

use crate::crash::faults;
use crate::harness::{QUICK, claim, store};

pub fn mapping(json: &str) -> Arc<Mapping> {
    let settings: PlainSettings = serde_json::from_str(json).expect("settings");
    let built = settings.build(&KeyNames::default(), &[]);
    Arc::new(built.expect("a good mapping"))
}

const UNIQUE: &str = r#"{"partition-key": "{partition-key}", "sort-key": "{position}",
    "attributes": {"v": {"type": "event"}, "job": {"type": "string"}}}"#;
const FIRST: &str = r#"{"partition-key": "{/job}", "sort-key": "only", "same-key": "first-wins",
    "attributes": {"v": {"type": "event"}}}"#;
const LAST: &str = r#"{"partition-key": "{/job}", "sort-key": "only", "same-key": "last-wins",
    "attributes": {"v": {"type": "event"}}}"#;

fn config(partition: u32) -> PlanConfig {
    PlanConfig {
        pipeline: "p".into(),
        topic: "events".into(),
        partition,
        keys: KeyNames::default(),
        max_item_bytes: 409_600,
        form: ItemForm::default(),
    }
}

/// An event of the tests: its job and its arrival.
type Event = (u8, i64);

fn records(events: &[Event], from: u64) -> Vec<PlainRecord> {
    let record = |(index, (job, arrival)): (usize, &Event)| {
        let offset = from + index as u64;
        let key = format!("mp1/s/a/{}/0/{arrival}/1.{offset}/k", offset + 1);
        PlainRecord {
            offset,
            key: Some(key.into_bytes().into()),
            value: format!("{{\"job\":\"{job}\",\"at\":{offset}}}")
                .into_bytes()
                .into(),
        }
    };
    events.iter().enumerate().map(record).collect()
}

fn admitted(records: &[PlainRecord]) -> Vec<Admitted<'_>> {
    let mut entries = Vec::new();
    for record in records {
        let key = record.key.as_deref().unwrap_or_default();
        let origin = Origin::parse(key).expect("an origin");
        entries.push(Admitted::Plain(record, origin));
    }
    entries
}

/// Writes the plan of these records, as any process would that has its intent.
async fn write(table: &MemoryTable, mapping: &Arc<Mapping>, partition: u32, of: &[PlainRecord]) {
    let metrics = Arc::new(Metrics::default());
    let api = Arc::new(table.clone());
    let writer = TableWriter::new(api, KeyNames::default(), None, metrics.clone());
    let mut plans = MappedPlans::new(writer, config(partition), mapping.clone(), metrics);
    let entries = admitted(of);
    let input = PlanInput {
        from: 0,
        to: 1,
        entries: &entries,
        is_first: true,
        note: None,
        tools: &mut Workbench::default(),
    };
    plans.plan(input).await.expect("a plan");
    assert_eq!(plans.write(&claim(table)).await.expect("written"), []);
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("runtime").block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever sequence of writes, repetitions by stale owners among them: the latest event is there.
    #[test]
    fn the_last_one_wins_in_whatever_sequence_plans_are_written(
        plans in prop::collection::vec(prop::collection::vec((0u8..4, 0i64..6), 1..8), 1..6),
        sequence in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mapping = mapping(LAST);
        let records: Vec<_> = plans.iter().enumerate()
            .map(|(number, events)| records(events, number as u64 * 10)).collect();
        let table = MemoryTable::new("t");
        block_on(async {
            for index in &sequence {
                let number = index.index(plans.len());
                write(&table, &mapping, number as u32 % 2, &records[number]).await;
            }
            // Each was written once at the least, the earliest of them last.
            for number in (0..plans.len()).rev() {
                write(&table, &mapping, number as u32 % 2, &records[number]).await;
            }
        });
        let mut latest: BTreeMap<String, (i64, u32, u64)> = BTreeMap::new();
        for (number, events) in plans.iter().enumerate() {
            for (index, (job, arrival)) in events.iter().enumerate() {
                let order = (*arrival, number as u32 % 2, number as u64 * 10 + index as u64);
                let seen = latest.entry(job.to_string()).or_insert(order);
                *seen = (*seen).max(order);
            }
        }
        let found: BTreeMap<String, Vec<u8>> = table.scan().into_iter()
            .map(|row| (row.key.pk.clone(), event_of(&row))).collect();
        let expected: BTreeMap<String, Vec<u8>> = latest.into_iter()
            .map(|(job, (_, _, offset))| {
                let value = format!("{{\"job\":\"{job}\",\"at\":{offset}}}");
                (job, value.into_bytes())
            }).collect();
        prop_assert_eq!(found, expected);
    }

    /// A plan is whole before the next one begins; whoever writes an older one again changes nothing.
    #[test]
    fn the_first_one_wins_and_stays(
        plans in prop::collection::vec(prop::collection::vec((0u8..4, 0i64..6), 1..8), 1..6),
        stale in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mapping = mapping(FIRST);
        let records: Vec<_> = plans.iter().enumerate()
            .map(|(number, events)| records(events, number as u64 * 10)).collect();
        let table = MemoryTable::new("t");
        let mut first = BTreeMap::new();
        block_on(async {
            for (number, of) in records.iter().enumerate() {
                write(&table, &mapping, 0, of).await;
                for index in &stale {
                    write(&table, &mapping, 0, &records[index.index(number + 1)]).await;
                }
                for (record, (job, _)) in of.iter().zip(&plans[number]) {
                    first.entry(job.to_string()).or_insert(record.value.to_vec());
                }
            }
        });
        let found: BTreeMap<String, Vec<u8>> = table.scan().into_iter()
            .map(|row| (row.key.pk.clone(), event_of(&row))).collect();
        prop_assert_eq!(found, first);
    }

    /// Bytes are counted as the stand-in counts them, and it was measured against the service.
    #[test]
    fn sizes_are_those_of_the_service(
        attributes in prop::collection::btree_map("\\PC{1,40}", typed(), 0..8),
        pk in "\\PC{1,30}", sk in "\\PC{1,30}", names in ("[a-z]{1,40}", "[A-Z]{1,40}"),
        number in any::<i64>(),
    ) {
        let keys = KeyNames { partition: names.0, sort: names.1 };
        let row = Row::new(Key { pk: pk.clone(), sk: sk.clone() }).with("0", Value::N(number));
        let row = attributes.iter().fold(row, |row, (name, value)| {
            row.with(&format!("a{name}"), Value::Typed(value.clone()))
        });
        let mut item = std::collections::HashMap::from([
            (keys.partition.clone(), AttributeValue::S(pk)),
            (keys.sort.clone(), AttributeValue::S(sk)),
            ("0".to_owned(), AttributeValue::N(number.to_string())),
        ]);
        item.extend(attributes.iter().map(|(name, value)| (format!("a{name}"), theirs(value))));
        prop_assert_eq!(row.size(&keys).bytes(), item_size(&item));
    }

    /// A number is written in one form, which is the same number with the same size.
    #[test]
    fn a_number_costs_what_its_text_did(
        digits in "[0-9]{1,38}", point in 0usize..39, exponent in -80i32..80, negative: bool,
    ) {
        let (whole, fraction) = digits.split_at(point.min(digits.len()));
        let whole = whole.trim_start_matches('0');
        let whole = if whole.is_empty() { "0" } else { whole };
        let fraction = if fraction.is_empty() { String::new() } else { format!(".{fraction}") };
        let text = format!("{}{whole}{fraction}e{exponent}", if negative { "-" } else { "" });
        let number = Decimal::parse(&text).expect("a number");
        prop_assert_eq!(
            Typed::N(number.clone()).bytes(),
            dynoxide::types::number_size(&text), "{} {}", text, number
        );
        prop_assert_eq!(number.as_str(), dynoxide::types::normalize_dynamo_number(&text));
    }
}

fn number() -> impl Strategy<Value = Decimal> {
    prop_oneof![
        any::<i64>().prop_map(Decimal::from),
        (-99_999i64..99_999, -120i32..120)
            .prop_map(|(n, e)| Decimal::parse(&format!("{n}e{e}")).expect("a number")),
    ]
}

fn typed() -> impl Strategy<Value = Typed> {
    let bytes = prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    let leaf = prop_oneof![
        "\\PC{0,40}".prop_map(Typed::S),
        number().prop_map(Typed::N),
        bytes.clone().prop_map(Typed::B),
        any::<bool>().prop_map(Typed::Bool),
        Just(Typed::Null),
        prop::collection::btree_set("\\PC{0,10}", 1..5).prop_map(Typed::Ss),
        prop::collection::btree_set(number(), 1..5).prop_map(Typed::Ns),
        prop::collection::btree_set(bytes, 1..5).prop_map(Typed::Bs),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Typed::L),
            prop::collection::btree_map("\\PC{1,10}", inner, 0..6).prop_map(Typed::M),
        ]
    })
}

fn theirs(value: &Typed) -> AttributeValue {
    match value {
        Typed::S(text) => AttributeValue::S(text.clone()),
        Typed::N(number) => AttributeValue::N(number.to_string()),
        Typed::B(bytes) => AttributeValue::B(bytes.to_vec()),
        Typed::Bool(is) => AttributeValue::BOOL(*is),
        Typed::Null => AttributeValue::NULL(true),
        Typed::L(list) => AttributeValue::L(list.iter().map(theirs).collect()),
        Typed::M(map) => AttributeValue::M(
            map.iter()
                .map(|(name, v)| (name.clone(), theirs(v)))
                .collect(),
        ),
        Typed::Ss(set) => AttributeValue::SS(set.iter().cloned().collect()),
        Typed::Ns(set) => AttributeValue::NS(set.iter().map(ToString::to_string).collect()),
        Typed::Bs(set) => AttributeValue::BS(set.iter().map(|bytes| bytes.to_vec()).collect()),
    }
}

pub fn event_of(row: &Row) -> Vec<u8> {
    match row.attributes.get("v") {
        Some(Value::Typed(Typed::B(bytes))) => bytes.to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_bad_event_among_ten_thousand_is_one_letter() {
    let good: Vec<Event> = (0..10_000).map(|at| ((at % 251) as u8, at)).collect();
    let mut records = records(&good, 0);
    records[6_283].value = Bytes::from_static(b"{\"job\": 7, \"at\": 1}");
    let planned = plan(&admitted(&records), &mapping(UNIQUE), &config(0)).expect("a plan");
    assert_eq!(planned.items.len(), 9_999);
    let [letter] = planned.letters.as_slice() else {
        panic!("{} letters", planned.letters.len());
    };
    assert_eq!(
        (letter.offset, letter.reason.as_str()),
        (6_283, "field-invalid")
    );
    assert_eq!(letter.detail, "`/job` is a number, not a string");
    assert_eq!(letter.content().0, b"{\"job\": 7, \"at\": 1}");
    assert!(letter.record_key.is_some());
    let again = plan(&admitted(&records), &mapping(UNIQUE), &config(0)).expect("a plan");
    assert_eq!(planned, again);
}

#[test]
fn an_item_above_the_limit_is_a_letter_to_the_byte() {
    let item = |pad: usize| {
        let mut records = records(&[(1, 1)], 0);
        let value = format!("{{\"job\":\"{}\"}}", "x".repeat(pad));
        records[0].value = value.into_bytes().into();
        plan(&admitted(&records), &mapping(UNIQUE), &config(0)).expect("a plan")
    };
    // Keys, names and values besides the two times that the text is in the item.
    let small = item(0).items[0].bytes;
    let fits = (409_600 - small) / 2;
    assert_eq!((item(fits).items.len(), item(fits).letters.len()), (1, 0));
    let over = item(fits + 1);
    assert_eq!((over.items.len(), over.letters.len()), (0, 1));
    assert_eq!(over.letters[0].reason, "too-large");
}

/// A table in memory that mapped events go to.
struct Mapped {
    table: MemoryTable,
    mapping: Arc<Mapping>,
}

#[async_trait]
impl Subject for Mapped {
    async fn open(&self, metrics: Arc<Metrics>) -> Arc<dyn Store> {
        Arc::new(TableStore {
            form: ItemForm {
                mapping: Some(self.mapping.clone()),
                ..ItemForm::default()
            },
            max_item_bytes: 409_600,
            ..store(Arc::new(self.table.clone()), metrics)
        })
    }

    fn inject(&self, seed: u64, percent: u32) {
        self.table.inject(faults(seed, percent));
    }

    async fn events(&self) -> BTreeMap<String, Vec<Vec<u8>>> {
        let mut chains: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for row in self.rows() {
            let chain = chains.entry(row.key.pk.clone()).or_default();
            chain.push(event_of(&row));
        }
        chains
    }
}

impl Mapped {
    fn new(settings: &str) -> Self {
        Self {
            table: MemoryTable::new("t"),
            mapping: mapping(settings),
        }
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = self.table.scan();
        rows.retain(|row| !row.key.pk.starts_with("millpond:"));
        rows
    }
}

#[test]
fn mapped_events_survive_a_storm_once_each() {
    storms(20, async |seed| {
        let folder = tempfile::tempdir().expect("tempdir");
        let subject = Mapped::new(UNIQUE);
        let (workload, letters) = outlasted(seed, &subject, folder.path(), false, true).await;
        check(&workload, &subject.events().await, &letters);
    });
}

#[test]
fn who_wins_is_the_same_after_a_storm() {
    storms(20, async |seed| {
        for settings in [FIRST, LAST] {
            let folder = tempfile::tempdir().expect("tempdir");
            let subject = Mapped::new(settings);
            let back = Arc::new(Mutex::new(Vec::new()));
            let seen = back.clone();
            let first = settings == FIRST;
            subject.table.observe(move |old, new| {
                let order = |row: &Row| row.string("millpond").map(str::to_owned);
                let Some(old) = old.filter(|old| order(old).is_some()) else {
                    return;
                };
                if (first && old != new) || order(old) > order(new) {
                    seen.lock().expect("lock").push(new.key.clone());
                }
            });
            let (workload, letters) = outlasted(seed, &subject, folder.path(), false, true).await;
            assert_eq!(*back.lock().expect("lock"), [], "seed {seed}");
            let mut latest: BTreeMap<String, i64> = BTreeMap::new();
            let mut values = BTreeMap::new();
            for event in workload.sent().filter(|event| !event.is_poison) {
                let json: serde_json::Value = serde_json::from_slice(&event.value).expect("json");
                let job = json["job"].as_str().expect("a job").to_owned();
                let time = latest.entry(job.clone()).or_insert(event.arrival_ms);
                *time = (*time).max(event.arrival_ms);
                values.insert(event.value.clone(), (job, event.arrival_ms));
            }
            let poison: BTreeSet<_> = workload
                .sent()
                .filter(|event| event.is_poison)
                .map(|event| event.value.clone())
                .collect();
            assert_eq!(letters.iter().cloned().collect::<BTreeSet<_>>(), poison);
            assert_eq!(letters.len(), poison.len(), "seed {seed}");
            let rows = subject.rows();
            assert_eq!(rows.len(), latest.len(), "seed {seed}");
            for row in rows {
                let (job, time) = &values[&event_of(&row)];
                assert_eq!(*job, row.key.pk, "seed {seed}");
                assert!(first || *time == latest[job], "seed {seed}: {job}");
            }
        }
    });
}

/// Keys that say nothing of the topic.
const OWN_KEYS: [&str; 2] = [
    r#"{"partition-key": "{partition-key}", "sort-key": "{/id}", "same-key": "last-wins",
        "attributes": {"v": {"type": "event"}}}"#,
    r#"{"partition-key": "{partition-key}", "sort-key": "{time}{/id}", "same-key": "first-wins",
        "attributes": {"v": {"type": "event"}}}"#,
];

/// Mapped events, each a chain of its own: their keys need not sort as they came.
struct OwnKeys(Mapped);

#[async_trait]
impl Subject for OwnKeys {
    async fn open(&self, metrics: Arc<Metrics>) -> Arc<dyn Store> {
        self.0.open(metrics).await
    }

    fn inject(&self, seed: u64, percent: u32) {
        self.0.inject(seed, percent);
    }

    async fn events(&self) -> BTreeMap<String, Vec<Vec<u8>>> {
        let item = |row: &Row| (format!("{:?}", row.key), vec![event_of(row)]);
        self.0.rows().iter().map(item).collect()
    }
}

/// The same event written again replaces itself: nothing is taken back, nothing is a gap, and nobody waits.
#[test]
fn mapped_events_of_a_lost_topic_come_again_under_the_keys_that_they_had() {
    storms(2, async |seed| {
        for settings in OWN_KEYS {
            let folder = tempfile::tempdir().expect("tempdir");
            let began = tokio::time::Instant::now();
            let fresh = || OwnKeys(Mapped::new(settings));
            let tried = nothing_is_left_twice(seed, fresh, false, folder.path()).await;
            assert!(tried.open > 3, "{tried:?}");
            let waited = began.elapsed();
            assert!(waited < QUICK.end() * tried.open / 4, "{waited:?}");
        }
    });
}

/// With the place in the topic in their keys they come under others: that is refused, or recorded.
#[tokio::test(start_paused = true)]
async fn mapped_events_under_their_positions_are_not_written_twice_in_silence() {
    let subject = Mapped::new(UNIQUE);
    let folder = tempfile::tempdir().expect("tempdir");
    let (first, _) = sent("first", 3, 6);
    let store = subject.open(Arc::default()).await;
    let dies = Some(Fault::Fail(Verdict::Fatal("the process died")));
    for step in 0.. {
        subject
            .table
            .inject((0..step).map(|_| None).chain([dies.clone()]));
        let ended = drain("a", store.clone(), &first, false, folder.path()).await;
        subject.table.inject([]);
        assert!(ended.is_err(), "it dies within its plan");
        let ledger = store.ledger(0).await;
        let ledger = ledger.expect("answers");
        if ledger.is_some_and(|row| row.intent.is_some()) {
            break;
        }
    }
    let before = subject.rows();
    let (again, _) = sent("again", 3, 6);
    let refused = drain("b", store.clone(), &again, false, folder.path()).await;
    let error = refused.expect_err("halts");
    assert!(error.is_of_the_records(), "{error}");
    assert!(error.to_string().contains("`on-gap: record`"), "{error}");
    assert_eq!(subject.rows(), before, "nothing is written");
}
