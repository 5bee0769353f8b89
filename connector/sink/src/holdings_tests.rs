use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

const NONE: [Act; 0] = [];

fn told(partition: PartitionId, epoch: u64) -> Event {
    Event::Ended(partition, epoch, Ending::Told)
}

fn running(partitions: impl IntoIterator<Item = PartitionId>) -> Holdings {
    let mut holdings = Holdings::default();
    for partition in partitions {
        let acts = holdings.on(Event::Taken(partition, 1));
        assert_eq!(acts, [Act::Start(partition, 1)]);
    }
    holdings
}

#[test]
fn a_wanted_partition_is_given_back_once_its_loop_has_ended() {
    let mut holdings = running([3]);
    assert_eq!(holdings.on(Event::Wanted(3, 1)), [Act::Finish(3)]);
    assert_eq!(holdings.on(Event::Wanted(3, 1)), NONE, "said again");
    assert_eq!(holdings.len(), 1, "it is ours until then");
    assert_eq!(holdings.on(told(3, 1)), [Act::GiveBack(3, 1)]);
    assert!(holdings.is_empty());
}

#[test]
fn a_lost_one_begins_anew_when_its_loop_has_stopped() {
    let mut holdings = running([3]);
    assert_eq!(holdings.on(Event::Lost(3, 1)), [Act::Stop(3)]);
    assert_eq!(holdings.len(), 0);
    assert!(!holdings.is_empty(), "its loop runs");
    assert_eq!(holdings.on(Event::Taken(3, 4)), NONE);
    assert_eq!(holdings.on(told(3, 1)), [Act::Start(3, 4)]);
    // Lost again before it could begin.
    assert_eq!(holdings.on(Event::Lost(3, 4)), [Act::Stop(3)]);
    assert_eq!(holdings.on(Event::Taken(3, 5)), NONE);
    assert_eq!(holdings.on(Event::Wanted(3, 5)), [Act::GiveBack(3, 5)]);
    assert_eq!(holdings.on(told(3, 4)), NONE);
    assert!(holdings.is_empty());
}

#[test]
fn a_fenced_one_is_given_back_alone() {
    let mut holdings = running([0, 1]);
    let fenced = Event::Ended(0, 1, Ending::Fenced);
    assert_eq!(holdings.on(fenced), [Act::GiveBack(0, 1)]);
    assert_eq!(holdings.len(), 1);
    assert_eq!(holdings.on(Event::Taken(0, 2)), [Act::Start(0, 2)]);
}

#[test]
fn a_halted_one_is_kept_until_somebody_wants_it() {
    let mut holdings = running([0, 1]);
    let halted = |partition| Event::Ended(partition, 1, Ending::Halted("gap".to_owned()));
    assert_eq!(holdings.on(halted(0)), NONE);
    assert_eq!(holdings.len(), 2);
    assert_eq!(holdings.on(Event::Wanted(0, 1)), [Act::GiveBack(0, 1)]);
    assert_eq!(holdings.on(halted(1)), NONE);
    let acts = holdings.on(Event::Drain);
    assert_eq!(acts, [Act::Want(BTreeSet::new()), Act::GiveBack(1, 1)]);
    assert_eq!(holdings.failures(), ["gap"], "only what is still ours");
}

#[test]
fn a_drain_gives_back_what_is_drained_and_takes_nothing() {
    let mut holdings = running([0, 1]);
    let want = |partitions: &[PartitionId]| Act::Want(partitions.iter().copied().collect());
    assert_eq!(holdings.on(Event::Drain), [want(&[0, 1])]);
    assert_eq!(holdings.on(Event::Taken(2, 7)), [Act::GiveBack(2, 7)]);
    // Not wanted before it is free: else it would be taken again.
    assert_eq!(holdings.on(told(1, 1)), [want(&[0]), Act::GiveBack(1, 1)]);
    assert_eq!(holdings.on(told(0, 1)), [want(&[]), Act::GiveBack(0, 1)]);
    assert!(holdings.is_empty());
}

#[test]
fn a_drain_that_takes_too_long_leaves_the_rest_to_others() {
    let mut holdings = running([0, 1]);
    assert_eq!(holdings.on(Event::Drain).len(), 1);
    assert_eq!(holdings.on(told(0, 1)).len(), 2);
    assert_eq!(holdings.on(Event::Leave), [Act::Finish(1)]);
    let acts = holdings.on(told(1, 1));
    assert_eq!(acts, [Act::Want(BTreeSet::new()), Act::GiveBack(1, 1)]);
    assert!(holdings.is_empty());
}

/// A lease driver and loops, as far as they matter here.
#[derive(Default)]
struct World {
    epochs: u64,
    /// By the driver: its epoch, and whether somebody else wants it.
    leases: BTreeMap<PartitionId, (u64, bool)>,
    /// Loops that run: their epoch, and whether they were told to end.
    loops: BTreeMap<PartitionId, (u64, bool)>,
    wanted: Option<BTreeSet<PartitionId>>,
}

impl World {
    fn step(&mut self, random: &mut SmallRng) -> Option<Event> {
        let partition = random.random_range(0..4);
        match random.random_range(0..4) {
            0 if !self.leases.contains_key(&partition) => {
                self.epochs += 1;
                self.leases.insert(partition, (self.epochs, false));
                Some(Event::Taken(partition, self.epochs))
            }
            1 => {
                let (epoch, is_wanted) = self.leases.get_mut(&partition)?;
                *is_wanted = true;
                Some(Event::Wanted(partition, *epoch))
            }
            2 => {
                let (epoch, _) = self.leases.remove(&partition)?;
                Some(Event::Lost(partition, epoch))
            }
            _ => {
                let (epoch, is_told) = *self.loops.get(&partition)?;
                let ending = match random.random_range(0..4) {
                    0 => Ending::Fenced,
                    1 => Ending::Halted("gap".to_owned()),
                    _ if is_told => Ending::Told,
                    _ => return None,
                };
                self.loops.remove(&partition);
                Some(Event::Ended(partition, epoch, ending))
            }
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Start(partition, epoch) => {
                let before = self.loops.insert(partition, (epoch, false));
                assert_eq!(before, None, "one loop at a time");
            }
            Act::Finish(partition) | Act::Stop(partition) => {
                self.loops.get_mut(&partition).expect("a loop").1 = true;
            }
            Act::GiveBack(partition, epoch) => {
                let runs = self.loops.get(&partition);
                assert!(
                    runs.is_none_or(|(of, _)| *of != epoch),
                    "given back while its loop runs"
                );
                if self
                    .leases
                    .get(&partition)
                    .is_some_and(|(of, _)| *of == epoch)
                {
                    self.leases.remove(&partition);
                }
            }
            Act::Want(partitions) => self.wanted = Some(partitions),
        }
    }
}

/// Whatever happens in whatever order: one loop a partition, no lease given back under a running
/// loop, no lease kept that is wanted or has no loop, and a drain that ends.
#[test]
fn no_order_of_events_confuses_it() {
    for seed in 0..2_000 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut world = World::default();
        let mut holdings = Holdings::default();
        for _ in 0..60 {
            if let Some(event) = world.step(&mut random) {
                for act in holdings.on(event) {
                    world.act(act);
                }
            }
            for (partition, (epoch, is_wanted)) in &world.leases {
                let of_loop = world.loops.get(partition);
                let is_running = of_loop.is_some_and(|(of, _)| of == epoch);
                let is_told = of_loop.is_some_and(|(_, is_told)| *is_told);
                let is_halted = holdings
                    .held
                    .get(partition)
                    .is_some_and(|holding| matches!(holding.phase, Phase::Halted(_)));
                assert!(
                    is_running || is_told || is_halted,
                    "seed {seed}: lease {partition} is held for nothing"
                );
                assert!(
                    !is_wanted || is_told,
                    "seed {seed}: lease {partition} is kept although it is wanted"
                );
            }
        }
        for act in holdings.on(Event::Drain) {
            world.act(act);
        }
        for (partition, (epoch, _)) in std::mem::take(&mut world.loops) {
            for act in holdings.on(told(partition, epoch)) {
                world.act(act);
            }
        }
        assert!(holdings.is_empty(), "seed {seed}: {holdings:?}");
        assert_eq!(world.loops.len(), 0, "seed {seed}");
        assert_eq!(world.leases.len(), 0, "seed {seed}: given back");
        assert_eq!(world.wanted, Some(BTreeSet::new()), "seed {seed}");
    }
}
