//! Where items end within a plan: where they take the fewest write units.

use std::collections::BTreeMap;

use millpond_dynamodb_sink::chain::ChainState;
use millpond_dynamodb_sink::form::extra::{Extra, Source};
use millpond_dynamodb_sink::form::zone::Edge;
use millpond_dynamodb_sink::mapping::pointer::Pointer;
use millpond_dynamodb_sink::plan::{PlanConfig, plan};
use millpond_format::header::ChainTotals;
use millpond_sink::contiguity::units;
use millpond_sink::dedup::{Admission, Admitted, Outcome, Workbench, admit};
use millpond_sink::marks::Marks;
use millpond_sink::origins::Cutoffs;

use crate::plan::{Events, config, entries};

/// A chain before the plan, and how its items are to be.
struct Chain {
    states: BTreeMap<String, ChainState>,
    write_shards: BTreeMap<String, u32>,
    config: PlanConfig,
}

impl Chain {
    /// Units and states after a plan of these entries, with the number of its items.
    fn planned(
        &self,
        entries: &[Admitted<'_>],
        states: &BTreeMap<String, ChainState>,
    ) -> (u64, usize, BTreeMap<String, ChainState>) {
        let mut tools = Workbench::default();
        let plan = plan(
            entries,
            states,
            &self.write_shards,
            &self.config,
            &mut tools,
        );
        let plan = plan.expect("a plan");
        let units = plan.items.iter().map(|item| item.units).sum();
        (units, plan.items.len(), plan.chains.into_iter().collect())
    }

    /// Fewest units of the entries, whatever lies in each item, where `fullest` says to try nothing but the fullest.
    fn by_trying(
        &self,
        entries: &[Admitted<'_>],
        states: &BTreeMap<String, ChainState>,
        fullest: bool,
    ) -> u64 {
        let mut alone = Vec::new();
        for end in 1..=entries.len() {
            let (units, items, states) = self.planned(&entries[..end], states);
            if items != 1 {
                break;
            }
            alone.push((end, units, states));
        }
        if fullest {
            alone.drain(..alone.len() - 1);
        }
        let totals = alone.into_iter().map(|(end, units, states)| {
            units
                + match &entries[end..] {
                    [] => 0,
                    rest => self.by_trying(rest, &states, fullest),
                }
        });
        totals.min().expect("each alone is an item")
    }
}

struct Noise(u64);

impl Noise {
    fn next(&mut self, range: std::ops::Range<usize>) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        range.start + (self.0 >> 33) as usize % range.len()
    }
}

/// Compared with all cuts there are, on chains of a few envelopes that are few to an item.
#[test]
fn items_end_where_they_take_the_fewest_units() {
    let low = Extra {
        name: "low".into(),
        source: Source::Bound {
            field: Pointer::parse("/n").expect("a pointer"),
            edge: Edge::Minimum,
        },
    };
    let mut cheaper = 0;
    for seed in 0..60 {
        let mut noise = Noise(seed);
        let batches = noise.next(3..9);
        let per_batch = noise.next(1..4);
        let events: Events = (0..batches * per_batch)
            .map(|at| {
                let size = noise.next(200..4_000 / per_batch);
                let pad: String = (0..size)
                    .map(|_| char::from(b'0' + noise.next(0..64) as u8).to_ascii_lowercase())
                    .map(|letter| if letter == '\\' { 'z' } else { letter })
                    .collect();
                let value = format!(
                    "{{\"n\": {}, \"pad\": \"{pad}\"}}",
                    noise.next(0..1_000_000)
                );
                ("g".to_owned(), value.into_bytes(), at as i64)
            })
            .collect();
        let before = ChainState {
            totals: ChainTotals {
                items: noise.next(0..40) as u64,
                events: noise.next(0..20_000) as u64,
                ..ChainTotals::default()
            },
            ..ChainState::default()
        };
        let mut config = config(noise.next(8_192..12_000));
        config
            .form
            .extras
            .extend((seed % 3 == 0).then(|| low.clone()));
        let chain = Chain {
            states: [("g".to_owned(), before)].into(),
            write_shards: [("g".to_owned(), noise.next(1..13) as u32)].into(),
            config,
        };
        let made = entries(&events, per_batch, 8_192);
        let units = units(&made, 0..events.len() as u64).expect("whole");
        let mut tools = Workbench::default();
        let (marks, cutoffs) = (Marks::default(), Cutoffs::new());
        let outcome = admit(&units, 0, &marks, true, &cutoffs, &mut tools);
        let Ok(Outcome::Admitted(Admission { entries, .. })) = outcome else {
            panic!("{outcome:?}");
        };
        let (units, ..) = chain.planned(&entries, &chain.states);
        let best = chain.by_trying(&entries, &chain.states, false);
        assert_eq!(units, best, "seed {seed}");
        let fullest = chain.by_trying(&entries, &chain.states, true);
        assert!(units <= fullest, "seed {seed}");
        cheaper += u32::from(units < fullest);
    }
    assert!(
        cheaper > 5,
        "{cheaper} plans were cheaper than with full items"
    );
}
