//! The guard and the scaling where several sources share the shards: whoever decides sees all of them.

#[path = "support/sharing.rs"]
mod sources;
mod support;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use millpond_connector::stream_clock::StreamClock;
use millpond_kinesis_local::model::{ModelConfig, NewRecord};
use millpond_kinesis_source::admin::StreamAdmin as _;
use millpond_kinesis_source::aggregate::hash_key;
use millpond_kinesis_source::checkpoint::CheckpointError;
use millpond_kinesis_source::config::{DEFAULT_LEASE_DURATION, SourceConfig};
use millpond_kinesis_source::memory_table::MemoryTable;
use millpond_kinesis_source::retention_guard::{GuardAction, GuardSettings};
use millpond_kinesis_source::shard::ShardId;
use millpond_kinesis_source::shard_scaling::{ScalingMode, ScalingSettings};
use millpond_kinesis_source::shard_table::{
    Found, ShardRow, ShardTable, ShardWrite, Sharing, StreamHead,
};
use millpond_kinesis_source::{KinesisSource, Worker};
use millpond_leases::{Beat, Change, LeaseId, LeaseRow, LeaseStore as _, Settings, WorkerId};
use sources::held;
use support::admin::ModelAdmin;
use support::stream::ModelStream;
use support::topic::MemoryTopic;
use support::{Running, context, spawn, until};
use tokio::time::sleep;

const HOUR: Duration = Duration::from_secs(3_600);

struct Shared {
    stream: Arc<ModelStream>,
    admin: Arc<ModelAdmin>,
    topic: Arc<MemoryTopic>,
    table: MemoryTable,
    lease_duration: Duration,
}

impl Shared {
    /// Two shards: the first takes the lower half of the hash keys.
    fn new() -> Self {
        let stream = ModelStream::new(2, ModelConfig::default());
        Self {
            admin: ModelAdmin::new(&stream),
            stream,
            topic: Arc::new(MemoryTopic::new(1)),
            table: MemoryTable::new(WorkerId::new("nobody")),
            lease_duration: DEFAULT_LEASE_DURATION.get(),
        }
    }

    fn start(&self, id: &str, config: SourceConfig) -> Running {
        let table = self.table.of(WorkerId::new(id));
        self.start_on(id, config, Arc::new(table))
    }

    fn start_on(&self, id: &str, config: SourceConfig, table: Arc<dyn ShardTable>) -> Running {
        let worker = Worker {
            id: WorkerId::new(id),
            settings: Settings::new(self.lease_duration).expect("in range"),
        };
        let source = KinesisSource::shared(self.stream.clone(), config, table, worker)
            .with_clock(self.stream.clock())
            .with_admin(self.admin.clone());
        spawn(Box::new(source), context(&self.topic))
    }

    /// Two sources with a shard each.
    async fn pair(&self, config: SourceConfig) -> [Running; 2] {
        let pair = ["a", "b"].map(|id| self.start(id, config));
        let each = || ["a", "b"].map(|id| held(&self.table, &WorkerId::new(id)));
        until("a shard each", || each() == [1, 1]).await;
        pair
    }

    async fn hours(&self) -> u32 {
        self.admin.shape().await.expect("a shape").retention_hours
    }

    /// Events of so many hours in one shard, 16 bytes a second.
    async fn backlog(&self, is_first: bool, hours: u32) {
        let key = key_of(is_first);
        for _ in 0..hours * 1_800 {
            self.stream.put(&key, vec![b'x'; 32]);
            sleep(Duration::from_secs(2)).await;
        }
    }
}

/// A partition key of the first shard, or of the second.
fn key_of(is_first: bool) -> String {
    let keys = (0..).map(|n| format!("key-{n}"));
    let mut ours = keys.filter(|key| (hash_key(key) < 1 << 127) == is_first);
    ours.next().expect("endless")
}

/// Reads so many bytes a second of an event at a time, but of 20 when it begins: that must not look like a stall.
fn slow(bytes_per_second: u64) -> SourceConfig {
    let mut config = SourceConfig::default();
    config.pace.bytes_per_second = bytes_per_second;
    config.pace.target_bytes = 1;
    config.pace.idle_interval = Duration::from_secs(30);
    config
}

fn clocks(pair: &[Running]) -> Vec<Arc<StreamClock>> {
    let clocks = pair.iter().map(|one| one.metrics.stream_clock());
    clocks.flatten().collect()
}

#[tokio::test(start_paused = true)]
async fn the_guard_extends_for_a_shard_whoever_reads_it() {
    for is_first in [true, false] {
        let shared = Shared::new();
        shared.backlog(is_first, 17).await;
        let mut config = slow(8);
        config.guard = GuardSettings {
            max_hours: Some(48),
            give_back_hours: None,
        };
        let pair = shared.pair(config).await;
        // At half the speed of time an hour goes in two; three are left when six would be enough.
        sleep(6 * HOUR).await;
        assert_eq!(shared.hours().await, 24, "first: {is_first}");
        sleep(3 * HOUR).await;
        assert_eq!(shared.hours().await, 48, "first: {is_first}");
        let changes = pair.iter().map(|one| one.metrics.retention_changes.get());
        assert_eq!(changes.sum::<u64>(), 1, "one of them acts");
        for one in pair {
            one.killed().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_given_back_while_a_shard_elsewhere_is_behind() {
    for is_first in [true, false] {
        let shared = Shared::new();
        let longer = shared.admin.change_retention(GuardAction::Extend(48)).await;
        longer.expect("extended");
        shared.backlog(is_first, 4).await;
        // Three times as fast as time: two hours.
        let mut config = slow(50);
        config.guard = GuardSettings {
            max_hours: Some(48),
            give_back_hours: Some(24),
        };
        let pair = shared.pair(config).await;
        sleep(2 * HOUR + HOUR / 2).await;
        assert_eq!(shared.hours().await, 48, "first: {is_first}");
        sleep(HOUR + HOUR / 2).await;
        assert_eq!(shared.hours().await, 24, "first: {is_first}");
        for one in pair {
            one.drained().await;
        }
    }
}

const BEAT: Duration = Duration::from_secs(5);

/// A worker that renews its lease on a shard and does nothing else.
async fn idle_owner(table: MemoryTable, shard: LeaseId) {
    let id = WorkerId::new("idle");
    let lease = LeaseRow {
        epoch: 1,
        owner: Some(id.clone()),
        wanted_by: None,
    };
    let mut seen = None;
    let mut is_held = false;
    for count in 0.. {
        let new = Some(Beat { session: 1, count });
        let beat = Change::Worker {
            id: id.clone(),
            seen,
            new,
        };
        table.change(&beat).await.expect("in memory");
        seen = new;
        if !is_held {
            let view = table.view().await.expect("in memory");
            let taken = Change::Lease {
                id: shard.clone(),
                seen: view.leases.get(&shard).cloned(),
                new: lease.clone(),
            };
            table.change(&taken).await.expect("in memory");
            let view = table.view().await.expect("in memory");
            is_held = view.leases.get(&shard) == Some(&lease);
        }
        sleep(BEAT).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_was_never_begun_is_seen_whoever_holds_it() {
    for is_first in [true, false] {
        let mut shared = Shared::new();
        // It takes days of the clock, and each beat is a look at the table.
        shared.lease_duration = 4 * BEAT;
        let mut config = SourceConfig::default();
        config.pace.idle_interval = Duration::from_secs(30);
        config.guard = GuardSettings {
            max_hours: Some(48),
            give_back_hours: None,
        };
        let shard = LeaseId::new(match is_first {
            true => "shardId-000000000000",
            false => "shardId-000000000001",
        });
        let idle = tokio::spawn(idle_owner(shared.table.of(WorkerId::new("idle")), shard));
        let one = shared.start("a", config);
        let each = || ["a", "idle"].map(|id| held(&shared.table, &WorkerId::new(id)));
        until("a shard each", || each() == [1, 1]).await;
        shared.stream.put(&key_of(is_first), b"waits".to_vec());
        sleep(17 * HOUR).await;
        assert_eq!(each(), [1, 1]);
        assert_eq!(shared.hours().await, 24, "first: {is_first}");
        sleep(2 * HOUR).await;
        assert_eq!(shared.hours().await, 48, "first: {is_first}");
        idle.abort();
        until("read by the other", || shared.topic.len() == 1).await;
        one.drained().await;
    }
}

/// The table as an earlier version writes it: without what shards carry.
struct Earlier(MemoryTable);

#[async_trait]
impl ShardTable for Earlier {
    async fn load(&self, stream: &str) -> Result<Found, CheckpointError> {
        self.0.load(stream).await
    }

    async fn begin(&self, head: StreamHead) -> Result<StreamHead, CheckpointError> {
        self.0.begin(head).await
    }

    async fn save(&self, writes: &[ShardWrite]) -> Result<Vec<ShardId>, CheckpointError> {
        let mut writes = writes.to_vec();
        writes.iter_mut().for_each(|write| write.row.figures = None);
        self.0.save(&writes).await
    }

    async fn claim(
        &self,
        shard: &ShardId,
        epoch: u64,
    ) -> Result<Option<ShardRow>, CheckpointError> {
        self.0.claim(shard, epoch).await
    }

    fn sharing(&self) -> Option<Sharing> {
        self.0.sharing()
    }
}

#[tokio::test(start_paused = true)]
async fn beside_an_earlier_version_nothing_is_scaled_in() {
    for (is_earlier, advised) in [(true, None), (false, Some(1))] {
        let shared = Shared::new();
        let mut config = SourceConfig {
            scaling: advise(),
            ..SourceConfig::default()
        };
        config.pace.idle_interval = Duration::from_secs(30);
        let pair = ["a", "b"].map(|id| {
            let table = shared.table.of(WorkerId::new(id));
            match is_earlier {
                true => shared.start_on(id, config, Arc::new(Earlier(table))),
                false => shared.start_on(id, config, Arc::new(table)),
            }
        });
        sleep(7 * HOUR).await;
        let clocks = clocks(&pair);
        let unknown: Vec<u32> = clocks.iter().map(|clock| clock.unknown_shards).collect();
        assert_eq!(unknown, [u32::from(is_earlier); 2]);
        let found = clocks.iter().filter_map(|clock| clock.advised_shards);
        assert_eq!(found.min(), advised, "earlier: {is_earlier}");
        for one in pair {
            one.drained().await;
        }
    }
}

fn advise() -> ScalingSettings {
    ScalingSettings {
        mode: ScalingMode::Advise,
        min_shards: 1,
        max_shards: 64,
        ..ScalingSettings::default()
    }
}

#[tokio::test(start_paused = true)]
async fn reading_a_backlog_elsewhere_is_no_load() {
    for is_first in [true, false] {
        let shared = Shared::new();
        let key = key_of(is_first);
        for _ in 0..1_200 {
            shared.stream.put(&key, vec![b'x'; 20_000]);
            sleep(Duration::from_secs(60)).await;
        }
        // 333 bytes a second came in, and 64 KiB a second are read: for six minutes.
        let mut config = SourceConfig::default();
        config.pace.bytes_per_second = 64 << 10;
        config.scaling = advise();
        let pair = shared.pair(config).await;
        let mut most = 0;
        for _ in 0..60 {
            sleep(Duration::from_secs(10)).await;
            for clock in clocks(&pair) {
                most = most
                    .max(clock.utilisation_in_milli)
                    .max(clock.utilisation_out_milli);
                assert_eq!(clock.advised_shards, None, "{clock:?}");
            }
        }
        assert!(most <= 20, "first: {is_first}: {most} thousandths");
        for one in pair {
            one.drained().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn small_records_elsewhere_count_as_what_they_take() {
    let shared = Shared::new();
    let config = SourceConfig {
        scaling: advise(),
        ..SourceConfig::default()
    };
    let pair = shared.pair(config).await;
    let keys = [key_of(true), key_of(false)];
    let mut unknown = Vec::new();
    for second in 0..300u32 {
        for n in 0..1_900u32 {
            let event = format!("{second}/{n}").into_bytes();
            let record = NewRecord::new(&keys[n as usize % 2], None, event).expect("a record");
            let put = shared
                .stream
                .with_model(|model, now| model.put_record(now, "events", record, None));
            put.expect("accepted");
        }
        sleep(Duration::from_secs(1)).await;
        unknown.extend(clocks(&pair).iter().map(|clock| clock.unknown_shards));
    }
    // Before anything was measured it is said to be unknown, and counts as nothing.
    assert_eq!(unknown.first(), Some(&2));
    assert_eq!(unknown.last(), Some(&0));
    for clock in clocks(&pair) {
        let load = clock.utilisation_in_milli;
        assert!((900..=1_000).contains(&load), "{clock:?}");
    }
    // 1,900 thousandths of a shard, at 52.5% each.
    let advised = clocks(&pair)
        .iter()
        .filter_map(|clock| clock.advised_shards)
        .max();
    assert_eq!(advised, Some(4));
    for one in pair {
        one.drained().await;
    }
}
