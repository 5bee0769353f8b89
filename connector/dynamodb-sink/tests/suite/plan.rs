//! The planner: same bytes for the same input, never above a limit, nothing lost.

use std::collections::BTreeMap;

use millpond_connector::topic::ConsumedRecord;
use millpond_dynamodb_sink::chain::ChainState;
use millpond_dynamodb_sink::plan::{Plan, PlanConfig, PlanError, groups, plan};
use millpond_dynamodb_sink::row::{KeyNames, Row, Value, names};
use millpond_format::keys;
use millpond_format::record::BatchBuilder;
use millpond_pack::{Packer, Params};
use millpond_sink::contiguity::{Entry, units};
use millpond_sink::dedup::{Admission, Outcome, Workbench, admit};
use millpond_sink::marks::Marks;
use millpond_sink::origins::Cutoffs;
use proptest::prelude::*;

use crate::checker::read_table;

/// Events of a plan: partition key, value, milliseconds after the first.
type Events = Vec<(String, Vec<u8>, i64)>;

fn config(max_item_bytes: usize) -> PlanConfig {
    PlanConfig {
        pipeline: "p".into(),
        topic: "events".into(),
        partition: 0,
        keys: KeyNames::default(),
        max_item_bytes,
        form: Default::default(),
    }
}

fn entries(events: &Events, per_batch: usize, packer_limit: usize) -> Vec<Entry> {
    let params = Params {
        max_item_bytes: packer_limit,
        ..Params::default()
    };
    let mut packer = Packer::new(params).expect("zstd");
    let mut entries = Vec::new();
    for (batch, chunk) in events.chunks(per_batch).enumerate() {
        let base = batch * per_batch;
        let mut builder = BatchBuilder::new();
        for (index, (key, value, time)) in chunk.iter().enumerate() {
            let at = base + index;
            let arrival = 1_763_886_000_000 + time;
            let key = format!("mp1/s/a/{}/0/{arrival}/1.{at}/{key}", 1_000 + at);
            builder.push(Some(key.as_bytes()), value, arrival);
        }
        let records = packer
            .pack(&builder.finish(), base as u64, 0)
            .expect("packs");
        entries.extend(records.into_iter().map(|record| {
            let record = ConsumedRecord {
                offset: None,
                key: None,
                value: record.value.into(),
                timestamp_ms: None,
            };
            Entry::decode(record).expect("envelope")
        }));
    }
    entries
}

fn planned(
    entries: &[Entry],
    end: usize,
    states: &BTreeMap<String, ChainState>,
    max_item_bytes: usize,
) -> Result<Plan, PlanError> {
    let units = units(entries, 0..end as u64).expect("whole");
    let mut tools = Workbench::default();
    let outcome = admit(
        &units,
        0,
        &Marks::default(),
        true,
        &Cutoffs::new(),
        &mut tools,
    );
    let Ok(Outcome::Admitted(Admission { entries, .. })) = outcome else {
        panic!("{outcome:?}");
    };
    plan(&entries, states, &config(max_item_bytes), &mut tools)
}

/// The rows as a table holds them, with the directory.
fn rows(plan: &Plan) -> Vec<Row> {
    let mut rows: Vec<Row> = plan.items.iter().map(|item| (*item.row).clone()).collect();
    rows.extend(plan.directory.iter().map(|(group, late)| {
        Row::new(millpond_dynamodb_sink::row::Key {
            pk: keys::directory_pk("p", group),
            sk: keys::directory_sk(group, 0),
        })
        .with(names::LATE, Value::N(*late))
    }));
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    rows
}

fn events() -> impl Strategy<Value = Events> {
    let value = prop_oneof![
        9 => prop::collection::vec(any::<u8>(), 0..400),
        1 => prop::collection::vec(any::<u8>(), 0..30_000),
    ];
    prop::collection::vec(("[a-e]{1,2}", value, -200_000i64..200_000), 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_same_input_gives_the_same_bytes_and_holds_every_event_in_order(
        events in events(), per_batch in 1usize..60, limit in 8_192usize..60_000,
    ) {
        let entries = entries(&events, per_batch, limit);
        let states = BTreeMap::new();
        let plan = planned(&entries, events.len(), &states, limit).expect("plan");
        let again = planned(&entries, events.len(), &states, limit).expect("plan");
        prop_assert_eq!(&plan, &again);
        let rows = rows(&plan);
        for pair in rows.windows(2) {
            prop_assert!(pair[0].key < pair[1].key, "two rows with one key");
        }
        let chains = read_table(&rows, limit);
        let mut expected: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for (key, value, _) in &events {
            expected.entry(keys::chain_pk("p", key, 0)).or_default().push(value.clone());
        }
        prop_assert_eq!(chains, expected);
    }

    /// A SmartModule with a larger limit than the sink: envelopes are cut, events are not lost.
    #[test]
    fn envelopes_that_do_not_fit_are_cut(
        sizes in prop::collection::vec(1usize..3_000, 1..120), limit in 9_000usize..20_000,
    ) {
        let mut noise = 1u64;
        let events: Events = sizes.iter().enumerate().map(|(index, size)| {
            let value = (0..*size).map(|_| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (noise >> 33) as u8
            });
            ("g".to_owned(), value.collect(), index as i64)
        }).collect();
        let entries = entries(&events, 50, 409_600);
        let plan = planned(&entries, events.len(), &BTreeMap::new(), limit).expect("plan");
        let chains = read_table(&rows(&plan), limit);
        let expected: Vec<Vec<u8>> = events.into_iter().map(|(_, value, _)| value).collect();
        prop_assert_eq!(&chains["p/g#0"], &expected);
    }
}

#[test]
fn a_plan_continues_its_chains() {
    let events: Events = vec![("g".into(), b"x".to_vec(), 0)];
    let entries = entries(&events, 1, 409_600);
    let first = planned(&entries, 1, &BTreeMap::new(), 409_600).expect("plan");
    let mut state = first.chains[0].1;
    assert_eq!((state.totals.items, state.totals.events), (1, 1));
    assert_eq!(first.directory, [("g".to_owned(), 1 << 16)]);
    // The chain is a day ahead: the item sorts behind, and the bound is raised.
    state.sort_time_ms += 86_400_000;
    let states = BTreeMap::from([("g".to_owned(), state)]);
    let second = planned(&entries, 1, &states, 409_600).expect("plan");
    assert_eq!(second.chains[0].1.totals.items, 2);
    assert!(
        second.items[0]
            .row
            .key
            .sk
            .starts_with(&keys::time_text(state.sort_time_ms))
    );
    assert_eq!(second.directory, [("g".to_owned(), 1 << 27)]);
}

#[test]
fn an_event_larger_than_the_sinks_items_names_both_settings() {
    let mut noise = 1u64;
    let value: Vec<u8> = (0..20_000)
        .map(|_| {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (noise >> 33) as u8
        })
        .collect();
    let events: Events = vec![("g".into(), value, 0)];
    let entries = entries(&events, 1, 409_600);
    let error = planned(&entries, 1, &BTreeMap::new(), 8_192).expect_err("does not fit");
    let text = error.to_string();
    for part in [
        "`g`",
        "`dynamodb.max-item-bytes` of 8192",
        "`transforms[].with`",
        "offset 0",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn items_are_full() {
    let mut noise = 1u64;
    let events: Events = (0..3_000)
        .map(|index| {
            let value = (0..300).map(|_| {
                noise = noise
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (noise >> 33) as u8
            });
            ("g".to_owned(), value.collect(), index)
        })
        .collect();
    let entries = entries(&events, 100, 409_600);
    let plan = planned(&entries, events.len(), &BTreeMap::new(), 409_600).expect("plan");
    let bytes: usize = plan.items.iter().map(|item| item.bytes).sum();
    let units: u64 = plan.items.iter().map(|item| item.units).sum();
    let fill = bytes as f64 / (units * 1_024) as f64;
    assert!(fill > 0.99, "fill {fill} over {} items", plan.items.len());
    assert!(
        plan.items.len() <= 3,
        "{} items for {bytes} bytes",
        plan.items.len()
    );
}

#[test]
fn groups_are_those_that_get_items() {
    let entries = entries(
        &vec![("b".into(), vec![], 0), ("a".into(), vec![], 0)],
        2,
        409_600,
    );
    let units = units(&entries, 0..2).expect("whole");
    let mut tools = Workbench::default();
    let outcome = admit(
        &units,
        0,
        &Marks::default(),
        true,
        &Cutoffs::new(),
        &mut tools,
    );
    let Ok(Outcome::Admitted(admission)) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(groups(&admission.entries), ["a", "b"]);
}
