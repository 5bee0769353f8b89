//! The planner: same bytes for the same input, never above a limit, nothing lost.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use dynoxide::types::AttributeValue;
use millpond_connector::metrics::KeySpread;
use millpond_connector::topic::ConsumedRecord;
use millpond_dynamodb_sink::chain::ChainState;
use millpond_dynamodb_sink::form::extra::{Extra, Source};
use millpond_dynamodb_sink::form::names::ItemNames;
use millpond_dynamodb_sink::form::zone::Edge;
use millpond_dynamodb_sink::form::{ItemForm, Ttl, room};
use millpond_dynamodb_sink::mapping::pointer::Pointer;
use millpond_dynamodb_sink::plan::{Listing, Plan, PlanConfig, PlanError, groups, plan};
use millpond_dynamodb_sink::row::{KeyNames, Row, Value, names};
use millpond_dynamodb_sink::spread::WriteShards;
use millpond_dynamodb_sink::typed::Typed;
use millpond_format::keys;
use millpond_format::limits::ITEM_RESERVE_BYTES;
use millpond_format::record::BatchBuilder;
use millpond_pack::{Packer, Params};
use millpond_sink::contiguity::{Entry, units};
use millpond_sink::dedup::{Admission, Admitted, Outcome, Workbench, admit};
use millpond_sink::marks::Marks;
use millpond_sink::origins::Cutoffs;
use proptest::prelude::*;

use crate::checker::read_table;

/// Events of a plan: partition key, value, milliseconds after the first.
pub(crate) type Events = Vec<(String, Vec<u8>, i64)>;

pub(crate) fn config(max_item_bytes: usize) -> PlanConfig {
    PlanConfig {
        pipeline: "p".into(),
        topic: "events".into(),
        partition: 0,
        keys: KeyNames::default(),
        max_item_bytes,
        form: Default::default(),
    }
}

pub(crate) fn entries(events: &Events, per_batch: usize, packer_limit: usize) -> Vec<Entry> {
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
    planned_as(entries, end, states, &config(max_item_bytes))
}

fn planned_as(
    entries: &[Entry],
    end: usize,
    states: &BTreeMap<String, ChainState>,
    config: &PlanConfig,
) -> Result<Plan, PlanError> {
    spread_plan(entries, end, states, &BTreeMap::new(), config)
}

fn spread_plan(
    entries: &[Entry],
    end: usize,
    states: &BTreeMap<String, ChainState>,
    write_shards: &BTreeMap<String, u32>,
    config: &PlanConfig,
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
    plan(&entries, states, write_shards, config, &mut tools)
}

/// The rows as a table holds them, with the directory.
fn rows(plan: &Plan) -> Vec<Row> {
    let mut rows: Vec<Row> = plan.items.iter().map(|item| (*item.row).clone()).collect();
    rows.extend(plan.directory.iter().flat_map(|of| {
        of.write_shards.clone().map(|shard| {
            Row::new(millpond_dynamodb_sink::row::Key {
                pk: keys::directory_pk("p", &of.group),
                sk: keys::directory_sk(&of.group, 0, shard),
            })
            .with(names::LATE, Value::N(of.late_ms))
        })
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

/// Any names of keys and attributes, any group, any numbers: sizes are the stand-in's, to the byte, and no
/// item is above the limit, as long as the SmartModule leaves the room that `validate` asks for.
#[derive(Debug, Clone)]
struct Names {
    keys: KeyNames,
    pipeline: String,
    form: ItemForm,
}

fn any_names() -> impl Strategy<Value = Names> {
    let extra = prop::collection::btree_map(
        "x[a-z]{0,200}",
        prop_oneof![
            "\\PC{0,60}".prop_map(Source::Constant),
            (0usize..3).prop_map(|index| Source::GroupPart {
                index,
                separator: "/".into()
            }),
            ("/[ab]", any::<bool>()).prop_map(|(field, is_min)| Source::Bound {
                field: Pointer::parse(&field).expect("a pointer"),
                edge: if is_min { Edge::Minimum } else { Edge::Maximum },
            }),
        ],
        0..4,
    );
    let names = (
        prop::option::of("h[a-z]{1,200}"),
        prop::option::of("d[a-z]{1,200}"),
        prop::option::of("n[a-z]{1,200}"),
        prop::option::of("l[a-z]{1,200}"),
    )
        .prop_map(|(header, frames, events, last)| {
            let names = [
                (names::HEADER, header),
                (names::FRAMES, frames),
                (names::EVENTS, events),
                (names::LAST_TIME, last),
            ];
            let given = names.into_iter().filter_map(|(name, is)| Some((name, is?)));
            given.collect::<ItemNames>()
        });
    let key_prefix = prop_oneof![Just(String::new()), "[a-z]{0,200}#"];
    let ttl = prop::option::of(("t[a-z]{0,200}", 1u64..1 << 31));
    (
        ("p[a-z]{0,200}", "s[a-z]{0,200}"),
        "[a-z]{1,64}",
        extra,
        ttl,
        (names, key_prefix),
    )
        .prop_map(|(keys, pipeline, extras, ttl, (names, key_prefix))| {
            let extras = extras
                .into_iter()
                .map(|(name, source)| Extra { name, source });
            Names {
                keys: KeyNames {
                    partition: keys.0,
                    sort: keys.1,
                },
                pipeline,
                form: ItemForm {
                    extras: extras.collect(),
                    ttl: ttl.map(|(attribute, after)| Ttl {
                        after: Duration::from_secs(after),
                        attribute,
                    }),
                    names,
                    key_prefix,
                    mapping: None,
                },
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_item_is_above_the_limit_whatever_its_names(
        names in any_names(), group in "[a-z/]{1,1000}", large in prop::collection::vec(1usize..60_000, 1..6),
        sizes in prop::collection::vec(1usize..2_000, 1..40), limit in 20_000usize..60_000, time in 0i64..1 << 40,
        is_json in any::<bool>(), field in "[0-9]{1,38}|-0\\.[0-9]{1,30}|\"[a-zü]{0,400}\"",
        write_shards in 1u32..=64,
    ) {
        let mut noise = 1u64;
        let events: Events = sizes.iter().chain(&large).map(|size| {
            let value = (0..*size).map(|_| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (noise >> 33) as u8
            });
            let value: Vec<u8> = match is_json {
                // Not compressible either.
                true => {
                    let pad: String = value.map(|byte| char::from(b'0' + byte % 64)).map(|c| if c == '\\' { 'z' } else { c }).collect();
                    format!("{{\"a\": {field}, \"pad\": \"{pad}\", \"b\": {size}.5}}").into_bytes()
                }
                false => value.collect(),
            };
            (group.clone(), value, time)
        }).collect();
        let spread = WriteShards::Fixed(write_shards);
        let besides = room::besides(&names.pipeline, &names.keys, &names.form, spread);
        let packer_limit = limit - besides.saturating_sub(ITEM_RESERVE_BYTES);
        let entries = entries(&events, 20, packer_limit);
        let config = PlanConfig {
            pipeline: names.pipeline.clone(),
            keys: names.keys.clone(),
            form: names.form,
            ..config(limit)
        };
        let spread = BTreeMap::from([(group, write_shards)]);
        let plan = spread_plan(&entries, events.len(), &BTreeMap::new(), &spread, &config).expect("a plan");
        prop_assert!(!plan.items.is_empty());
        for item in &plan.items {
            prop_assert!(item.bytes <= limit, "{} bytes, {limit} are allowed", item.bytes);
            let key = &item.row.key;
            let mut theirs = std::collections::HashMap::from([
                (config.keys.partition.clone(), AttributeValue::S(key.pk.clone())),
                (config.keys.sort.clone(), AttributeValue::S(key.sk.clone())),
            ]);
            for (name, value) in &item.row.attributes {
                let value = match value {
                    Value::S(text) => AttributeValue::S(text.clone()),
                    Value::N(number) => AttributeValue::N(number.to_string()),
                    Value::B(pieces) => AttributeValue::B(pieces.concat()),
                    Value::Typed(Typed::S(text)) => AttributeValue::S(text.clone()),
                    Value::Typed(Typed::N(number)) => AttributeValue::N(number.to_string()),
                    Value::Typed(_) => unreachable!("no mapping"),
                };
                theirs.insert(name.clone(), value);
            }
            prop_assert_eq!(item.bytes, dynoxide::types::item_size(&theirs));
            prop_assert_eq!(item.units, (item.bytes as u64).div_ceil(1_024));
            prop_assert!(key.pk.starts_with(&config.form.key_prefix));
        }
    }
}

/// Whatever is cut, joined and trimmed: what lies in an item lies within its bounds, and a replay says the same.
#[test]
fn items_have_the_bounds_of_their_events() {
    let field = |text: &str| Pointer::parse(text).expect("a pointer");
    let bound = |name: &str, text: &str, edge| Extra {
        name: name.into(),
        source: Source::Bound {
            field: field(text),
            edge,
        },
    };
    let form = ItemForm {
        extras: vec![
            bound("low", "/price", Edge::Minimum),
            bound("high", "/price", Edge::Maximum),
            bound("last", "/name", Edge::Maximum),
        ],
        ..ItemForm::default()
    };
    let mut noise = 1u64;
    let mut next = || {
        noise = noise
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        noise >> 33
    };
    let events: Events = (0..6_000)
        .map(|index| {
            let group = ["numbers", "mixed", "none"][index % 3];
            let price = match (group, index % 7) {
                ("none", _) => String::new(),
                (_, 0) => ", \"price\": null".to_owned(),
                ("mixed", 5) => ", \"price\": \"cheap\"".to_owned(),
                _ => format!(", \"price\": {}.{}", next() % 1_000, 1 + next() % 9),
            };
            let pad = format!("{:x}{:x}{:x}", next(), next(), next());
            let value = format!(
                "{{\"name\": \"n{:05}\", \"pad\": \"{pad}\"{price}}}",
                next() % 10_000
            );
            (group.to_owned(), value.into_bytes(), index as i64)
        })
        .collect();
    let entries = entries(&events, 200, 409_600);
    let config = PlanConfig {
        form,
        ..config(9_000)
    };
    let plan = planned_as(&entries, events.len(), &BTreeMap::new(), &config).expect("a plan");
    let again = planned_as(&entries, events.len(), &BTreeMap::new(), &config).expect("a plan");
    assert_eq!(plan, again);
    let mut decoder = millpond_format::frame::FrameDecoder::new().expect("zstd");
    let mut seen = BTreeMap::new();
    for item in &plan.items {
        let (section, frames) = (
            item.row.binary(names::HEADER),
            item.row.binary(names::FRAMES),
        );
        let (section, frames) = (section.expect("h").concat(), frames.expect("d").concat());
        let (header, _) = millpond_format::header::Header::decode(&section).expect("header");
        let mut prices: Vec<f64> = Vec::new();
        let mut last = String::new();
        let mut is_mixed = false;
        for (info, range) in header.frame_ranges() {
            let frame = decoder
                .decode(header.codec, info, &frames[range])
                .expect("frame");
            for event in &frame.events {
                let event: serde_json::Value =
                    serde_json::from_slice(frame.value(event)).expect("json");
                prices.extend(event["price"].as_f64());
                is_mixed |= event["price"].is_string();
                last = last.max(event["name"].as_str().expect("a name").to_owned());
            }
        }
        assert_eq!(
            item.row.attributes.get("last"),
            Some(&Value::Typed(Typed::S(last)))
        );
        let number = |name: &str| match item.row.attributes.get(name) {
            Some(Value::Typed(Typed::N(number))) => number.as_str().parse::<f64>().ok(),
            other => {
                assert_eq!(other, None);
                None
            }
        };
        let found = number("low").zip(number("high"));
        let expected = prices
            .iter()
            .copied()
            .reduce(f64::min)
            .zip(prices.iter().copied().reduce(f64::max));
        assert_eq!(found, expected.filter(|_| !is_mixed), "{}", header.group);
        *seen.entry((header.group, found.is_some())).or_insert(0) += 1;
    }
    assert!(seen[&("numbers".to_owned(), true)] > 2, "{seen:?}");
    assert!(
        seen[&("mixed".to_owned(), false)] > 2 && seen[&("none".to_owned(), false)] > 2,
        "{seen:?}"
    );
}

#[test]
fn a_plan_continues_its_chains() {
    let events: Events = vec![("g".into(), b"x".to_vec(), 0)];
    let entries = entries(&events, 1, 409_600);
    let first = planned(&entries, 1, &BTreeMap::new(), 409_600).expect("plan");
    let mut state = first.chains[0].1;
    assert_eq!((state.totals.items, state.totals.events), (1, 1));
    assert_eq!(first.directory, [listing(0..1, 1 << 13)]);
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
    assert_eq!(second.directory, [listing(0..1, 1 << 27)]);
}

fn listing(write_shards: std::ops::Range<u32>, late_ms: i64) -> Listing {
    Listing {
        group: "g".to_owned(),
        write_shards,
        late_ms,
    }
}

#[test]
fn a_chain_goes_round_its_write_shards_and_stays_one() {
    let mut noise = 1u64;
    let events: Events = (0..60)
        .map(|index| {
            let value = (0..3_000).map(|_| {
                noise = noise
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (noise >> 33) as u8
            });
            ("g".to_owned(), value.collect(), index)
        })
        .collect();
    let limit = 8_192;
    let entries = entries(&events, 6, limit);
    let of = |number| BTreeMap::from([("g".to_owned(), number)]);
    let planned = |batches: std::ops::Range<usize>, states: &BTreeMap<_, _>, number| {
        let offsets = batches.start as u64 * 6..batches.end as u64 * 6;
        let envelope = |entry| match entry {
            Entry::Envelope(envelope) if offsets.contains(&envelope.header.base_offset) => {
                Some(Admitted::Envelope(Cow::Owned(envelope)))
            }
            _ => None,
        };
        let new: Vec<Admitted<'_>> = entries.iter().cloned().filter_map(envelope).collect();
        let mut tools = Workbench::default();
        plan(&new, states, &of(number), &config(limit), &mut tools).expect("a plan")
    };
    let first = planned(0..3, &BTreeMap::new(), 1);
    assert_eq!(first.directory, [listing(0..1, 1 << 13)]);
    let state = first.chains[0].1;
    assert_eq!((state.listed, state.write_shards), (1, 1));
    let states = BTreeMap::from([("g".to_owned(), state)]);
    let second = planned(3..7, &states, 3);
    assert_eq!(second, planned(3..7, &states, 3));
    // Those that are new are listed, with the bound that the chain has.
    assert_eq!(second.directory, [listing(1..3, 1 << 13)]);
    let before = state.totals.items;
    for (index, item) in second.items.iter().enumerate() {
        let shard = (before + index as u64) % 3;
        let expected = keys::shard_pk("p", "g", 0, shard as u32);
        assert_eq!(item.row.key.pk, expected);
    }
    let state = second.chains[0].1;
    assert_eq!(state.totals.items, before + second.items.len() as u64);
    assert_eq!((state.listed, state.write_shards), (3, 3));
    // Fewer than before: what is listed stays.
    let states = BTreeMap::from([("g".to_owned(), state)]);
    let third = planned(7..10, &states, 2);
    assert_eq!(third.directory, []);
    let spread = |groups, keys, most| KeySpread { groups, keys, most };
    assert_eq!(first.spread(), spread(1, 1, 1));
    assert_eq!(third.spread(), spread(1, 3, 3));
    assert_eq!(Plan::default().spread(), spread(0, 0, 0));
    let mut all: Vec<Row> = [&first, &second, &third]
        .into_iter()
        .flat_map(rows)
        .collect();
    all.sort_by(|a, b| a.key.cmp(&b.key));
    let read = read_table(&all, limit);
    let values: Vec<_> = events.iter().map(|(_, value, _)| value.clone()).collect();
    assert_eq!(read, BTreeMap::from([("p/g#0".to_owned(), values)]));
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
