//! The product, put together as it is for real, with the fakes in place of the services.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use millpond_connector::connector::{ConnectorContext, Sink, Source};
use millpond_connector::meta::PartitionChoice;
use millpond_connector::metrics::Metrics;
use millpond_connector::topic::Transform;
use millpond_dynamodb_sink::client::TableApi;
use millpond_dynamodb_sink::pacing::PaceSettings;
use millpond_dynamodb_sink::row::KeyNames;
use millpond_dynamodb_sink::store::{LeasesOf, TableSettings, settings};
use millpond_kinesis_source::checkpoint::Aggregated;
use millpond_kinesis_source::config::{CheckpointAfter, SourceConfig, Start};
use millpond_kinesis_source::delivery::Batching;
use millpond_kinesis_source::{KinesisSource, Worker};
use millpond_leases::{LeaseStore, Settings, WorkerId};
use millpond_sink::sharing::{Share, Sharing};
use millpond_sink::sink::{DeadLetterTarget, SinkSettings, StoreSink};
use millpond_sink::store::Place;
use tokio_util::sync::CancellationToken;

use crate::checkpoints::FakeCheckpoints;
use crate::dictionaries::TRAINING;
use crate::items::PIPELINE;
use crate::leases::FakeLeases;
use crate::losing::stale_writes;
use crate::process::Process;
use crate::scenario::{Config, Fault, MAX_ITEM_BYTES, Mode, Scenario};
use crate::shard_table::FakeShardTable;
use crate::stream::FakeStream;
use crate::table::{FakeTable, Usage};
use crate::topic::FakeTopic;
use crate::topic_reader::FILTER;
use crate::world::lock;

/// Records that the source may hold beyond `max-buffered`, in answers of each shard: one in hand, one waiting.
const ANSWERS_IN_HAND: u64 = 2;

/// The name that a sink is given by mistake.
const OTHER_PIPELINE: &str = "q";

/// The steps of the sink's `transforms`.
#[must_use]
pub fn transforms(config: Config) -> Vec<Transform> {
    let mut steps = Vec::new();
    if config.filter {
        steps.push(Transform {
            uses: FILTER.to_owned(),
            with: BTreeMap::new(),
        });
    }
    let group_by = match config.mode {
        Mode::Plain => return steps,
        Mode::ByKey => "partition-key",
        Mode::ByJob => "/job",
        Mode::Constant => "constant:all",
    };
    let with = [
        ("group-by", group_by.to_owned()),
        ("max-item-bytes", MAX_ITEM_BYTES.to_string()),
    ];
    steps.push(Transform {
        uses: millpond_pack::NAME.to_owned(),
        with: with.map(|(name, value)| (name.to_owned(), value)).into(),
    });
    steps
}

fn source_config(scenario: &Scenario) -> SourceConfig {
    let mut config = SourceConfig {
        start: Start::TrimHorizon,
        aggregated: match scenario.aggregates {
            true => Aggregated::KeepStray,
            false => Aggregated::Off,
        },
        batching: Batching {
            batch_bytes: scenario.batch_bytes,
            linger: scenario.linger,
            max_buffered_bytes: scenario.max_buffered,
        },
        checkpoint_after: match scenario.loses_topic {
            true => CheckpointAfter::Table,
            false => CheckpointAfter::Topic,
        },
        ..SourceConfig::default()
    };
    config.pace.target_bytes = 16 << 10;
    config
}

fn context(process: &Arc<Process>, topic: FakeTopic, drain: CancellationToken) -> ConnectorContext {
    ConnectorContext {
        name: process.name.clone(),
        topic: Arc::new(topic),
        data_dir: PathBuf::new(),
        drain,
        metrics: Arc::new(Metrics::default()),
    }
}

fn timings(scenario: &Scenario) -> Settings {
    Settings::new(scenario.lease_duration).unwrap_or_default()
}

/// A source that runs until drained, alone or as one of several.
///
/// # Errors
/// What the source answers.
pub async fn source(
    process: Arc<Process>,
    drain: CancellationToken,
    worker: Option<WorkerId>,
) -> anyhow::Result<()> {
    let world = process.world.clone();
    let stream = FakeStream::new(process.clone());
    let topic = FakeTopic::new(process.clone());
    let (handed, largest) = (stream.handed.clone(), stream.largest.clone());
    let acknowledged = topic.acknowledged.clone();
    let clock = process.clone();
    let config = source_config(&world.scenario);
    let is_alone = worker.is_none();
    let source = match worker {
        None => {
            let checkpoints = Arc::new(FakeCheckpoints(process.clone()));
            KinesisSource::new(Arc::new(stream), config, checkpoints)
        }
        Some(id) => {
            let table = Arc::new(FakeShardTable::new(process.clone(), id.clone()));
            let settings = timings(&world.scenario);
            KinesisSource::shared(Arc::new(stream), config, table, Worker { id, settings })
        }
    };
    let source = source.with_clock(Arc::new(move || clock.clock_ms()));
    let run = Box::new(source).run(context(&process, topic, drain));
    tokio::pin!(run);
    let mut look = tokio::time::interval(std::time::Duration::from_millis(250));
    loop {
        tokio::select! {
            biased;
            ended = &mut run => return ended,
            _ = look.tick() => {
                // What was appended counts with its keys, so this is a lower bound of what is held.
                let held = handed.load(Ordering::Relaxed)
                    .saturating_sub(acknowledged.load(Ordering::Relaxed));
                let shards = world.scenario.shards as u64 * 8;
                let allowed = world.scenario.max_buffered as u64
                    + shards * ANSWERS_IN_HAND * largest.load(Ordering::Relaxed);
                // One that loses a shard drops what it has read of it.
                if is_alone && held > allowed {
                    world.violate("I9", format!("{} holds {held} bytes", process.name));
                }
            }
        }
    }
}

/// A sink that runs until drained, alone or as one of several; `halted` is told of topic partitions that it gave up.
///
/// # Errors
/// What the sink answers.
pub async fn sink(
    process: Arc<Process>,
    drain: CancellationToken,
    halted: Arc<Metrics>,
    worker: Option<WorkerId>,
) -> anyhow::Result<()> {
    let world = process.world.clone();
    if process.fault(Fault::Reconfigured) {
        world.config.fetch_add(1, Ordering::Relaxed);
    }
    // A name that nothing is known of is taken for a new pipeline.
    let is_registered = lock(&world.oracle).items.ledger(0).is_some();
    let is_renamed = is_registered && process.fault(Fault::Renamed);
    let write_shards = world.config().write_shards;
    let usage = Arc::new(Usage::new(write_shards));
    let table = |table: &millpond_dynamodb_sink::client::memory::MemoryTable| {
        Arc::new(FakeTable::new(
            process.clone(),
            table.clone(),
            usage.clone(),
        ))
    };
    let sink_settings = SinkSettings {
        pipeline: if is_renamed { OTHER_PIPELINE } else { PIPELINE }.to_owned(),
        max_age: world.scenario.max_age,
        dead_letters: DeadLetterTarget::Store,
        on_gap: world.scenario.on_gap,
        beside: Vec::new(),
        partitions: PartitionChoice::All,
        transforms: transforms(world.config()),
        digests: Vec::new(),
        fingerprint: settings(
            &KeyNames::default(),
            MAX_ITEM_BYTES,
            &Default::default(),
            write_shards,
        ),
    };
    let store = TableSettings {
        table: table(&world.table),
        ledger: None,
        leases: worker.clone().map(|worker| {
            let process = process.clone();
            Box::new(move |_: &Place| {
                let rows = Arc::new(process.world.partition_leases.clone());
                Arc::new(FakeLeases::new(process, worker, rows)) as Arc<dyn LeaseStore>
            }) as LeasesOf
        }),
        dead_letters: world
            .scenario
            .letters_apart
            .then(|| table(&world.letters) as Arc<dyn TableApi>),
        create: None,
        keys: KeyNames::default(),
        max_item_bytes: MAX_ITEM_BYTES,
        pace: PaceSettings {
            key_units: Some(world.scenario.key_units),
            ..match world.scenario.budget {
                Some(units) => PaceSettings::fixed(units),
                None => PaceSettings::default(),
            }
        },
        form: Default::default(),
        training: world.config().dictionaries.then_some(TRAINING),
        spreading: usage.spreading.clone(),
        stale_writes: stale_writes(&world.scenario),
    };
    let mut sink = StoreSink::new(sink_settings, Box::new(store));
    if let Some(worker) = worker {
        let sharing = Sharing {
            share: Share::Always,
            timings: timings(&world.scenario),
        };
        sink = sink.sharing(sharing).as_worker(worker);
    }
    let topic = FakeTopic::new(process.clone());
    let mut context = context(&process, topic, drain);
    context.metrics = halted;
    let ended = Box::new(sink).run(context).await;
    if is_renamed && ended.is_ok() {
        world.violate("I2", "a pipeline under another name was not refused");
    }
    ended
}
