//! What a seed stands for: the pipeline, its workload, and what goes wrong how often.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millpond_connector::mutation::Mutation;
use millpond_sink::gaps::OnGap;

use crate::dice::{Dice, mix};
use millpond_dynamodb_sink::spread::WriteShards;

/// Smallest item that the packer knows: large events then take several parts at little cost.
pub const MAX_ITEM_BYTES: usize = millpond_format::limits::MIN_ITEM_BYTES;

macro_rules! faults {
    ($($(#[doc = $doc:literal])* $name:ident $text:literal,)+) => {
        /// What can go wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $($(#[doc = $doc])* $name,)+
        }

        impl Fault {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Its name on the command line and in traces.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

faults! {
    /// A call is refused for its rate, with one of the service's reasons.
    Throttle "throttle",
    /// A call fails before it has an effect.
    Unreachable "unreachable",
    /// A call has its effect, and its answer is lost.
    LostAnswer "lost-answer",
    /// A write times out and has its effect later, maybe after its process has died.
    LateEffect "late-effect",
    /// A batch is written in part.
    Unprocessed "unprocessed",
    /// An answer takes long.
    Slow "slow",
    /// A shard iterator or page token has expired.
    Expired "expired",
    /// `GetRecords` gives fewer records than there are, or none.
    ShortAnswer "short-answer",
    /// The last answer of a shard names no children.
    SilentEnd "silent-end",
    /// A split or a merge.
    Reshard "reshard",
    /// Topic and checkpoint cannot be written for a while.
    DiskFull "disk-full",
    /// A read of the topic fails.
    TopicRead "topic-read",
    /// Whole batches are missing from what a reader gives.
    BatchSkipped "batch-skipped",
    /// A reader jumps to the end of the log.
    JumpToEnd "jump-to-end",
    /// The last records of what a reader gives are missing.
    TailCut "tail-cut",
    /// A reader starts earlier than it was told to.
    Redelivered "redelivered",
    /// A listing of the shards is that from before the last split or merge.
    StaleListing "stale-listing",
    /// The SmartModule instance of a reader is built anew.
    ModuleRebuilt "module-rebuilt",
    /// The topic forgets what was released.
    Trimmed "trimmed",
    /// A process dies.
    Crash "crash",
    /// All processes die, and what was not flushed is lost.
    PowerCut "power-cut",
    /// A process drains and is started again.
    Restart "restart",
    /// A process stands still for a while and then goes on.
    Stall "stall",
    /// A second sink takes the partitions while the first one lives.
    Rival "rival",
    /// The clock of a process is wrong.
    Skew "skew",
    /// To one that shares, all others seem to stand still for a while: it takes them for dead, and two
    /// believe that they hold a lease.
    TwoOwners "two-owners",
    /// A sink is started with another configuration than the one before.
    Reconfigured "reconfigured",
    /// A sink is started under another pipeline name by mistake.
    Renamed "renamed",
    /// The topic loses what was not released: its retention was too short.
    Lost "lost",
    /// A partition key of the table is found to be at its limit.
    HotKey "hot-key",
    /// The topic is lost and made anew. Sources end with it; a sink may live on, and stand still for long.
    TopicLost "topic-lost",
    /// A source starts with a checkpoint from before the last: what it has sent since it sends again.
    Rewound "rewound",
}

/// What groups events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No packer: one item per event.
    Plain,
    /// Packed by the Kinesis partition key.
    ByKey,
    /// Packed by a field of the event, which some lack.
    ByJob,
    /// Packed into one group.
    Constant,
}

/// What a restart of the sink may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Grouping.
    pub mode: Mode,
    /// A SmartModule before the packer, if there is one, removes some of the events.
    pub filter: bool,
    /// Small items are packed anew, with dictionaries where there are some.
    pub dictionaries: bool,
    /// Over how many partition keys of the table groups are spread.
    pub write_shards: WriteShards,
}

/// True for an event that the SmartModule before the packer removes.
#[must_use]
pub fn is_removed(value: &[u8]) -> bool {
    let mixed = value
        .iter()
        .fold(0, |hash, byte| mix(hash ^ u64::from(*byte)));
    mixed.is_multiple_of(5)
}

/// Everything that follows from a seed, before anything runs.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// Partitions of the topic.
    pub partitions: u32,
    /// Shards at the start.
    pub shards: u32,
    /// Events to put.
    pub events: usize,
    /// Partition keys.
    pub keys: u64,
    /// Groups of [`Mode::ByJob`].
    pub jobs: u64,
    /// The sink's configuration, and the one that it may be started with instead.
    pub configs: [Config; 2],
    /// What the sink does about data that is gone.
    pub on_gap: OnGap,
    /// Dead letters go to a table of their own.
    pub letters_apart: bool,
    /// Some records are aggregates of several events.
    pub aggregates: bool,
    /// Events have much in common.
    pub alike: bool,
    /// An earlier life of the pipeline left a dictionary in the table.
    pub has_dictionary: bool,
    /// Longest pause between two puts, milliseconds.
    pub gap_ms: u64,
    /// Bytes of a source batch.
    pub batch_bytes: usize,
    /// Linger of a source batch.
    pub linger: Duration,
    /// Bytes that the source may hold.
    pub max_buffered: usize,
    /// Age at which the sink writes.
    pub max_age: Duration,
    /// The topic may be lost: the source's checkpoint follows the table.
    pub loses_topic: bool,
    /// Write units a second.
    pub budget: Option<u64>,
    /// Write units a second of one partition key: where they are few, groups are spread over more.
    pub key_units: u64,
    /// So many sources share the shards by leases; `None` is one after the other that has them all.
    pub sharing_sources: Option<u32>,
    /// So many sinks share the topic partitions by leases; `None` are sinks that take them all.
    pub sharing_sinks: Option<u32>,
    /// Of all leases.
    pub lease_duration: Duration,
    /// What is in the topic is compared with the truth; off where a test puts its own records there.
    pub checks_events: bool,
    /// Nothing takes time; for tests that compare the fakes with the real thing.
    pub instant: bool,
    /// How often each fault happens, per mille of its occasions.
    pub rates: BTreeMap<Fault, u64>,
}

/// What of a seed's run is left out, and what mistake the product makes.
#[derive(Debug, Clone, Default)]
pub struct Cuts {
    /// Put at most so many events.
    pub events: Option<usize>,
    /// These faults do not happen.
    pub without: BTreeSet<Fault>,
    /// After so many faults nothing goes wrong any more.
    pub max_faults: Option<u64>,
    /// Of those, these do not happen, counted from 0.
    pub skip: BTreeSet<u64>,
    /// A deliberate mistake.
    pub mutation: Option<Mutation>,
}

impl Scenario {
    /// What `seed` stands for.
    ///
    /// Each seed has only some of the faults, at its own rates: with all of them at once none would
    /// meet a system in a state worth disturbing.
    #[must_use]
    pub fn of(seed: u64, cuts: &Cuts) -> Self {
        let dice = Dice::new(seed);
        let mut rates = BTreeMap::new();
        for fault in Fault::ALL {
            let rate = match dice.below("which faults", 5) {
                0 | 1 => 0,
                2 => 5,
                3 => 25,
                _ => 90,
            };
            if rate > 0 && !cuts.without.contains(fault) {
                rates.insert(*fault, rate);
            }
        }
        let config = |mode, filter, write_shards, dictionaries| Config {
            mode: dice.pick(
                mode,
                &[
                    Mode::ByJob,
                    Mode::ByJob,
                    Mode::ByKey,
                    Mode::Constant,
                    Mode::Plain,
                ],
            ),
            filter: dice.chance(filter, 250),
            dictionaries: dice.chance(dictionaries, 400),
            write_shards: dice.pick(
                write_shards,
                &[
                    WriteShards::Auto,
                    WriteShards::Auto,
                    WriteShards::Auto,
                    WriteShards::Fixed(1),
                    WriteShards::Fixed(2),
                    WriteShards::Fixed(3),
                ],
            ),
        };
        let configs = [
            config("mode", "filter", "write shards", "dictionaries"),
            config(
                "other mode",
                "other filter",
                "other write shards",
                "other dictionaries",
            ),
        ];
        // In most seeds the topic keeps what it must keep.
        let loses = dice.chance("loses", 400);
        if !loses {
            rates.remove(&Fault::Lost);
        }
        let on_gap = match loses && dice.chance("records gaps", 700) {
            true => OnGap::Record,
            false => OnGap::Halt,
        };
        if configs.iter().any(|config| config.filter) {
            // What a filter leaves of a batch and what is left of one that is cut off look the same.
            rates.remove(&Fault::TailCut);
        }
        // Nothing else of the topic is lost then, so that nothing is missing in the end.
        let loses_topic = !loses && dice.chance("loses its topic", 300);
        rates.remove(&Fault::TopicLost);
        if loses_topic && !cuts.without.contains(&Fault::TopicLost) {
            rates.insert(Fault::TopicLost, dice.pick("topic lost", &[30, 100, 200]));
        }
        let events = dice.between("events", 20, 140) as usize;
        Self {
            seed,
            partitions: dice.pick("partitions", &[1, 1, 2, 3]),
            shards: dice.pick("shards", &[1, 1, 2, 3]),
            events: cuts.events.map_or(events, |most| most.min(events)),
            keys: dice.between("keys", 1, 6),
            jobs: dice.between("jobs", 1, 4),
            configs,
            on_gap,
            loses_topic: rates.contains_key(&Fault::TopicLost),
            letters_apart: dice.chance("letters apart", 700),
            aggregates: dice.chance("aggregates", 250),
            alike: dice.chance("alike", 500),
            has_dictionary: dice.chance("a dictionary", 500),
            gap_ms: dice.pick("gap", &[20, 60, 150, 300]),
            batch_bytes: dice.pick("batch bytes", &[600, 1_500, 4_000, 20_000]),
            linger: Duration::from_millis(dice.pick("linger", &[20, 80, 250])),
            max_buffered: dice.pick("buffered", &[4_000, 16_000, 64_000]),
            max_age: Duration::from_millis(dice.pick("age", &[100, 300, 1_000, 2_500])),
            budget: dice.pick("budget", &[None, None, None, Some(8), Some(40)]),
            key_units: dice.pick("key units", &[1_000, 1_000, 1_000, 1, 3]),
            sharing_sources: dice
                .chance("sources share", 300)
                .then(|| dice.between("sources", 2, 3) as u32),
            sharing_sinks: dice
                .chance("sinks share", 300)
                .then(|| dice.between("sinks", 2, 3) as u32),
            lease_duration: Duration::from_secs(dice.pick("lease", &[2, 3, 6])),
            checks_events: true,
            instant: false,
            rates,
        }
    }

    /// How often a fault happens, per mille of its occasions.
    #[must_use]
    pub fn rate(&self, fault: Fault) -> u64 {
        let rate = self.rates.get(&fault).copied().unwrap_or(0);
        match fault {
            // What has an occasion at every call comes often enough.
            Fault::Rival | Fault::Restart | Fault::Reshard | Fault::HotKey => rate * 5,
            Fault::Reconfigured | Fault::Renamed => rate * 8,
            Fault::Rewound => rate * 12,
            // Only where something waits to be released, and in few seeds.
            Fault::Lost => rate * 4,
            _ => rate,
        }
    }
}
