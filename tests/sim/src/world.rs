//! What all parts of one run share: virtual time, dice, the trace, and the first violation.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use millpond_connector::topic::PartitionId;
use millpond_dynamodb_sink::client::memory::MemoryTable;
use millpond_kinesis_local::model::{
    CreateStream, Kinesis, KinesisError, ModelConfig, ShardDescription,
};
use millpond_kinesis_source::checkpoint::StreamCheckpoint;
use millpond_kinesis_source::memory_table::MemoryTable as ShardRows;
use millpond_leases::{MemoryStore, WorkerId};
use millpond_sink::gaps::OnGap;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::dice::Dice;
use crate::dictionaries;
use crate::items::PIPELINE;
use crate::oracle::Oracle;
use crate::process::Process;
use crate::scenario::{Config, Cuts, Fault, Scenario};
use crate::topic::Log;

/// Name of stream, topic and table alike.
pub const NAME: &str = "events";

/// Milliseconds since the Unix epoch at which every run begins.
pub const BEGIN_MS: i64 = 1_763_880_000_000;

/// Steps after which a run counts as endless.
const MAX_STEPS: u64 = 400_000;

/// See [`World::hides`]: far longer than a sink looks for what is missing.
const HIDES_AGAIN: Duration = Duration::from_secs(60);

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Invariant, or what it is about.
    pub rule: &'static str,
    /// What was seen.
    pub what: String,
}

/// One run.
pub struct World {
    /// What is run.
    pub scenario: Scenario,
    /// Its randomness.
    pub dice: Dice,
    /// The truth, and what was seen of it.
    pub oracle: Mutex<Oracle>,
    /// The stream.
    pub stream: Mutex<Kinesis>,
    /// The shards before the last split or merge.
    pub shards_before: Mutex<Vec<ShardDescription>>,
    /// The topic.
    pub log: Log,
    /// The table.
    pub table: MemoryTable,
    /// The table of dead letters.
    pub letters: MemoryTable,
    /// The source's checkpoint, as it is on disk.
    pub checkpoint: Mutex<Option<StreamCheckpoint>>,
    /// Those that it took the place of, the last ones.
    pub checkpoints_before: Mutex<VecDeque<StreamCheckpoint>>,
    /// Leases and checkpoints of sources that share the shards.
    pub shard_table: ShardRows,
    /// Leases of sinks that share the topic partitions.
    pub partition_leases: MemoryStore,
    /// Cancelled by the first violation.
    pub stop: CancellationToken,
    /// Cancelled when no more faults come.
    pub calm: CancellationToken,
    /// Which of the scenario's configurations a sink is started with.
    pub config: AtomicUsize,
    /// How often the topic was lost.
    pub generation: AtomicU64,
    /// Told when it was.
    pub topic_lost: Notify,
    /// When each topic partition was last made to hide what it holds, where that must not happen again and
    /// again: what is hidden for good is lost.
    hidden: Mutex<BTreeMap<PartitionId, Instant>>,
    /// Every process that was started.
    pub processes: Mutex<Vec<Weak<Process>>>,
    cuts: Cuts,
    begin: Instant,
    /// Faults that the dice decided on, and those of them that happened.
    decided: AtomicU64,
    faults: AtomicU64,
    steps: AtomicU64,
    failed: AtomicBool,
    disk_full_until: Mutex<Instant>,
    journal: Mutex<Journal>,
}

#[derive(Default)]
struct Journal {
    lines: Vec<String>,
    violation: Option<Violation>,
}

/// Locks without regard to panics elsewhere: a run ends with the first one anyway.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// A world before its first step.
    ///
    /// # Panics
    /// When the stream's model refuses to create a stream.
    #[must_use]
    pub fn new(seed: u64, cuts: &Cuts) -> Arc<Self> {
        Self::of(Scenario::of(seed, cuts), cuts)
    }

    /// A world of this scenario.
    ///
    /// # Panics
    /// When the stream's model refuses to create a stream.
    #[must_use]
    pub fn of(scenario: Scenario, cuts: &Cuts) -> Arc<Self> {
        let seed = scenario.seed;
        let mut stream = Kinesis::new(ModelConfig::default(), seed);
        let create = CreateStream::provisioned(scenario.shards);
        let created = stream.create_stream(BEGIN_MS as u64, NAME, create);
        created.expect("a new stream is created");
        let now = Instant::now();
        let world = Arc::new(Self {
            dice: Dice::new(seed),
            oracle: Mutex::new(Oracle::new(&scenario)),
            stream: Mutex::new(stream),
            shards_before: Mutex::default(),
            log: Log::new(scenario.partitions),
            table: MemoryTable::new(NAME),
            letters: MemoryTable::new("letters"),
            checkpoint: Mutex::default(),
            checkpoints_before: Mutex::default(),
            shard_table: ShardRows::new(WorkerId::new("nobody")),
            partition_leases: MemoryStore::default(),
            stop: CancellationToken::new(),
            calm: CancellationToken::new(),
            config: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
            topic_lost: Notify::new(),
            hidden: Mutex::default(),
            processes: Mutex::default(),
            cuts: cuts.clone(),
            begin: now,
            decided: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            steps: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            disk_full_until: Mutex::new(now),
            journal: Mutex::default(),
            scenario,
        });
        world.learn_shards();
        let (items, letters) = (Arc::downgrade(&world), Arc::downgrade(&world));
        world.table.observe(move |old, new| {
            if let Some(world) = items.upgrade() {
                let mut oracle = lock(&world.oracle);
                let is_letter = !world.scenario.letters_apart
                    && new.key.pk.starts_with("millpond:dead-letters/");
                let seen = match is_letter {
                    true => oracle.letter_put(old, new),
                    false => oracle.row_put(old, new),
                };
                drop(oracle);
                world.judge(seen);
            }
        });
        let removed = Arc::downgrade(&world);
        world.table.observe_removals(move |row| {
            if let Some(world) = removed.upgrade() {
                let seen = lock(&world.oracle).row_removed(row);
                world.judge(seen);
            }
        });
        if world.scenario.has_dictionary {
            let row = dictionaries::first_row(PIPELINE);
            let learned = lock(&world.oracle).items.learn(&row);
            world.table.plant(row);
            world.judge(learned);
        }
        world.letters.observe(move |old, new| {
            if let Some(world) = letters.upgrade() {
                let seen = lock(&world.oracle).letter_put(old, new);
                world.judge(seen);
            }
        });
        world
    }

    /// Virtual milliseconds since the run began.
    #[must_use]
    pub fn elapsed_ms(&self) -> u64 {
        self.begin.elapsed().as_millis() as u64
    }

    /// The true time, milliseconds since the Unix epoch.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        BEGIN_MS + self.elapsed_ms() as i64
    }

    /// Works on the stream, at the true time.
    ///
    /// # Errors
    /// What the model answers.
    pub fn with_stream<T>(
        &self,
        work: impl FnOnce(&mut Kinesis, u64) -> Result<T, KinesisError>,
    ) -> Result<T, KinesisError> {
        work(&mut lock(&self.stream), self.now_ms() as u64)
    }

    /// Writes a line of the trace.
    pub fn note(&self, line: impl AsRef<str>) {
        if self.failed.load(Ordering::Relaxed) {
            return;
        }
        let line = format!("{:>7} {}", self.elapsed_ms(), line.as_ref());
        lock(&self.journal).lines.push(line);
    }

    /// Takes in what a check found.
    pub fn judge(&self, found: Result<(), Violation>) {
        if let Err(violation) = found {
            self.violate(violation.rule, violation.what);
        }
    }

    /// A rule is broken: the run ends.
    pub fn violate(&self, rule: &'static str, what: impl Into<String>) {
        let what = what.into();
        self.note(format!("VIOLATION {rule}: {what}"));
        if !self.failed.swap(true, Ordering::Relaxed) {
            lock(&self.journal).violation = Some(Violation { rule, what });
            self.stop.cancel();
        }
    }

    /// Counts a step; too many are a violation.
    pub fn count_step(&self) {
        if self.steps.fetch_add(1, Ordering::Relaxed) == MAX_STEPS {
            self.violate("progress", format!("no end after {MAX_STEPS} steps"));
        }
    }

    /// Steps so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Faults that the dice have decided on so far, whether they were cut out or not.
    #[must_use]
    pub fn decided(&self) -> u64 {
        self.decided.load(Ordering::Relaxed)
    }

    /// Faults so far.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// True when a fault is to happen on this occasion.
    pub fn fault(&self, fault: Fault, who: &str) -> bool {
        !self.calm.is_cancelled()
            && self.dice.chance(fault.name(), self.scenario.rate(fault))
            && self.happens(fault, who)
    }

    /// The configuration that sinks are started with now.
    #[must_use]
    pub fn config(&self) -> Config {
        self.scenario.configs[self.config.load(Ordering::Relaxed) % 2]
    }

    /// True when a reader is to hide something of a topic partition. Where a sink may take what stays
    /// hidden for lost, that comes once in a while only.
    pub fn hides(&self, fault: Fault, partition: PartitionId, who: &str) -> bool {
        let spared = self.scenario.on_gap == OnGap::Record
            && lock(&self.hidden)
                .get(&partition)
                .is_some_and(|last| last.elapsed() < HIDES_AGAIN);
        if spared || !self.fault(fault, who) {
            return false;
        }
        lock(&self.hidden).insert(partition, Instant::now());
        true
    }

    /// Counts a fault that was decided on; false when it is cut out.
    pub fn happens(&self, fault: Fault, who: &str) -> bool {
        let number = self.decided.fetch_add(1, Ordering::Relaxed);
        let happens = self.cuts.max_faults.is_none_or(|most| number < most)
            && !self.cuts.skip.contains(&number);
        if happens {
            self.faults.fetch_add(1, Ordering::Relaxed);
            self.note(format!("{who} !{}", fault.name()));
        }
        happens
    }

    /// True while the disk is full; it may become so now.
    pub fn disk_is_full(&self, who: &str) -> bool {
        if self.calm.is_cancelled() {
            return false;
        }
        if self.fault(Fault::DiskFull, who) {
            let ms = self.dice.between("disk full for", 100, 4_000);
            *lock(&self.disk_full_until) = Instant::now() + Duration::from_millis(ms);
        }
        Instant::now() < *lock(&self.disk_full_until)
    }

    /// How long something takes.
    pub fn latency(&self) -> Duration {
        if self.scenario.instant {
            return Duration::ZERO;
        }
        let ms = match self.dice.below("latency", 100) {
            0..60 => 0,
            60..92 => self.dice.between("short latency", 1, 20),
            _ => self.dice.between("long latency", 20, 200),
        };
        Duration::from_millis(ms)
    }

    /// Kills every process.
    pub fn power_cut(&self) {
        let processes = std::mem::take(&mut *lock(&self.processes));
        for process in processes.iter().filter_map(Weak::upgrade) {
            process.kill();
        }
    }

    /// Tells the oracle of the shards that there are now.
    pub fn learn_shards(&self) {
        let shards = crate::stream::shards(&mut lock(&self.stream), self.now_ms() as u64);
        lock(&self.oracle).shards_are(shards);
    }

    /// The trace and the first violation.
    #[must_use]
    pub fn finish(&self) -> (Vec<String>, Option<Violation>) {
        let mut journal = lock(&self.journal);
        (
            std::mem::take(&mut journal.lines),
            journal.violation.clone(),
        )
    }
}
