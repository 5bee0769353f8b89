//! The product, put together as it is for real, with the fakes in place of the services.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use millpond_connector::connector::{ConnectorContext, Sink, Source};
use millpond_connector::meta::PartitionChoice;
use millpond_connector::metrics::Metrics;
use millpond_connector::topic::Transform;
use millpond_dynamodb_sink::row::KeyNames;
use millpond_dynamodb_sink::store::TableSettings;
use millpond_kinesis_source::KinesisSource;
use millpond_kinesis_source::checkpoint::Aggregated;
use millpond_kinesis_source::config::{SourceConfig, Start};
use millpond_kinesis_source::delivery::Batching;
use millpond_sink::gaps::OnGap;
use millpond_sink::sink::{DeadLetterTarget, SinkSettings, StoreSink};
use tokio_util::sync::CancellationToken;

use crate::checkpoints::FakeCheckpoints;
use crate::items::PIPELINE;
use crate::process::Process;
use crate::scenario::{MAX_ITEM_BYTES, Mode, Scenario};
use crate::stream::FakeStream;
use crate::table::{FakeTable, Usage};
use crate::topic::FakeTopic;

/// Records that the source may hold beyond `max-buffered`, in answers of each shard: one in hand, one waiting.
const ANSWERS_IN_HAND: u64 = 2;

/// The steps of the sink's `transforms`.
#[must_use]
pub fn transforms(mode: Mode) -> Vec<Transform> {
    let group_by = match mode {
        Mode::Plain => return Vec::new(),
        Mode::ByKey => "partition-key",
        Mode::ByJob => "/job",
        Mode::Constant => "constant:all",
    };
    let with = [
        ("group-by", group_by.to_owned()),
        ("max-item-bytes", MAX_ITEM_BYTES.to_string()),
    ];
    let with: BTreeMap<String, String> = with.map(|(name, value)| (name.to_owned(), value)).into();
    vec![Transform {
        uses: millpond_pack::NAME.to_owned(),
        with,
    }]
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

/// A source that runs until drained.
///
/// # Errors
/// What the source answers.
pub async fn source(process: Arc<Process>, drain: CancellationToken) -> anyhow::Result<()> {
    let world = process.world.clone();
    let stream = FakeStream::new(process.clone());
    let topic = FakeTopic::new(process.clone());
    let (handed, largest) = (stream.handed.clone(), stream.largest.clone());
    let acknowledged = topic.acknowledged.clone();
    let clock = process.clone();
    let source = KinesisSource::new(
        Arc::new(stream),
        source_config(&world.scenario),
        Arc::new(FakeCheckpoints(process.clone())),
    )
    .with_clock(Arc::new(move || clock.clock_ms()));
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
                if held > allowed {
                    world.violate("I9", format!("{} holds {held} bytes", process.name));
                }
            }
        }
    }
}

/// A sink that runs until drained; `halted` is told of topic partitions that it gave up.
///
/// # Errors
/// What the sink answers.
pub async fn sink(
    process: Arc<Process>,
    drain: CancellationToken,
    halted: Arc<Metrics>,
) -> anyhow::Result<()> {
    let world = process.world.clone();
    let usage = Arc::new(Usage::default());
    let table = |table: &millpond_dynamodb_sink::client::memory::MemoryTable| {
        Arc::new(FakeTable::new(
            process.clone(),
            table.clone(),
            usage.clone(),
        ))
    };
    let settings = SinkSettings {
        pipeline: PIPELINE.to_owned(),
        max_age: world.scenario.max_age,
        dead_letters: DeadLetterTarget::Store,
        on_gap: OnGap::Halt,
        beside: Vec::new(),
        partitions: PartitionChoice::All,
        transforms: transforms(world.scenario.mode),
        digests: Vec::new(),
        fingerprint: vec![MAX_ITEM_BYTES.to_string()],
    };
    let store = TableSettings {
        table: table(&world.table),
        ledger: None,
        leases: None,
        dead_letters: Some(table(&world.letters)),
        create: None,
        keys: KeyNames::default(),
        max_item_bytes: MAX_ITEM_BYTES,
        form: Default::default(),
        max_write_units_per_second: world.scenario.budget,
    };
    let sink = StoreSink::new(settings, Box::new(store));
    let topic = FakeTopic::new(process.clone());
    let mut context = context(&process, topic, drain);
    context.metrics = halted;
    Box::new(sink).run(context).await
}
