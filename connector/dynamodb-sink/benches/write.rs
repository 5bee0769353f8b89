//! How fast the sink takes packed events to a table that takes all it is given, what it pays, and what bounds of a
//! field cost.
//!
//! Events are packed beforehand and lie in memory, so that what is measured is the sink: reading, planning, the
//! ledger, the SDK. The table is the stand-in in this process, which takes its share of the processors; how fast that
//! is by itself is measured with the same items. `--events N` (default 1,000,000).

#![expect(clippy::print_stdout, reason = "a report is for whoever ran it")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Credentials;
use futures_util::stream::{self, StreamExt as _};
use millpond_connector::aws::AwsSettings;
use millpond_connector::connector::{ConnectorContext, Sink as _};
use millpond_connector::meta::PartitionChoice;
use millpond_connector::metrics::Metrics;
use millpond_connector::topic::{
    Chunk, ConsumedRecord, Offset, OffsetBounds, PartitionReader, StoredBatch, Topic, TopicError,
    Transform,
};
use millpond_dynamodb_sink::client::aws::AwsTable;
use millpond_dynamodb_sink::client::{Capacity, TableApi};
use millpond_dynamodb_sink::config::{DeadLetterTarget, SinkConfig};
use millpond_dynamodb_sink::form::ItemForm;
use millpond_dynamodb_sink::form::extra::{Extra, Source};
use millpond_dynamodb_sink::form::zone::Edge;
use millpond_dynamodb_sink::mapping::pointer::Pointer;
use millpond_dynamodb_sink::pacing::PaceSettings;
use millpond_dynamodb_sink::plan::{Plan, PlanConfig, groups, plan};
use millpond_dynamodb_sink::row::KeyNames;
use millpond_dynamodb_sink::spread::WriteShards;
use millpond_dynamodb_sink::table::prepare;
use millpond_dynamodb_sink::writer::TableWriter;
use millpond_format::record::BatchBuilder;
use millpond_pack::{Packer, Params};
use millpond_sink::contiguity::{Entry, units};
use millpond_sink::dedup::{Outcome, Workbench, admit};
use millpond_sink::gaps::OnGap;
use millpond_sink::marks::Marks;
use millpond_sink::origins::Cutoffs;
use millpond_sink::sharing::Sharing;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;

const START_MS: i64 = 1_763_886_000_000;
const GROUPS: usize = 20;
/// Bytes of events of one stored batch.
const BATCH_BYTES: usize = 1 << 20;
/// Requests at once, and items of one, when the stand-in is measured by itself: as the sink has them.
const CEILING_REQUESTS: usize = 4;
const CEILING_ITEMS: usize = 5;
const ROUNDS: usize = 5;

/// Packed events, ready to be read.
struct Prepared {
    chunks: Vec<Chunk>,
    events: u64,
    event_bytes: u64,
    /// Units of one item for each event, with its origin and key.
    single_units: u64,
}

fn event(rng: &mut SmallRng, group: usize) -> Vec<u8> {
    const WORDS: [&str; 12] = [
        "accept",
        "review",
        "reject",
        "extract",
        "normalise",
        "link",
        "score",
        "publish",
        "merchant",
        "customer",
        "device",
        "transaction",
    ];
    let mut text = format!(
        r#"{{"event_id":"{:016x}{:016x}","job_id":"job-{group:02}","price":{}.{:02},"stages":["#,
        rng.random::<u64>(),
        rng.random::<u64>(),
        rng.random_range(0..100_000),
        rng.random_range(0..100),
    );
    let bytes = rng.random_range(200..1_000);
    while text.len() < bytes {
        let word = WORDS[rng.random_range(0..WORDS.len())];
        let number: u16 = rng.random_range(0..5_000);
        text.push_str(&format!(r#"{{"stage":"{word}","took_us":{number}}},"#));
    }
    text.push_str("null]}");
    text.into_bytes()
}

fn prepare_events(count: u64) -> Result<Prepared> {
    let mut rng = SmallRng::seed_from_u64(1);
    let params = Params::from_map(&[("group-by".to_owned(), "/job_id".to_owned())].into())?;
    let mut packer = Packer::new(params)?;
    let mut prepared = Prepared {
        chunks: Vec::new(),
        events: count,
        event_bytes: 0,
        single_units: 0,
    };
    let mut next: Offset = 0;
    while next < count {
        let (base, mut batch, mut bytes) = (next, BatchBuilder::new(), 0);
        while next < count && bytes < BATCH_BYTES {
            let group = rng.random_range(0..GROUPS);
            let value = event(&mut rng, group);
            let arrival = START_MS + (next / 20) as i64;
            let key = format!(
                "mp1/events/shardId-000000000000/{}/0/{arrival}/1.{next}/worker-{}",
                10_000_000 + next,
                next % 100
            );
            // Keys, names, origin and time of an item of its own.
            let single = value.len() + key.len() + 90;
            prepared.single_units += (single as u64).div_ceil(1_024);
            bytes += value.len();
            batch.push(Some(key.as_bytes()), &value, arrival);
            next += 1;
        }
        prepared.event_bytes += bytes as u64;
        let packed = packer.pack(&batch.finish(), base, 0)?;
        let record = |value: Vec<u8>| ConsumedRecord {
            offset: None,
            key: None,
            value: value.into(),
            timestamp_ms: None,
        };
        prepared.chunks.push(Chunk {
            offsets: base..next,
            records: packed
                .into_iter()
                .map(|packed| record(packed.value))
                .collect(),
        });
    }
    Ok(prepared)
}

/// A topic of one partition that is all there.
struct Ready(Arc<Prepared>);

struct ReadyReader(Arc<Prepared>, usize);

#[async_trait]
impl PartitionReader for ReadyReader {
    async fn next(&mut self, wait: Duration) -> Result<Option<Chunk>, TopicError> {
        let Some(chunk) = self.0.chunks.get(self.1) else {
            tokio::time::sleep(wait).await;
            return Ok(None);
        };
        self.1 += 1;
        Ok(Some(chunk.clone()))
    }
}

#[async_trait]
impl Topic for Ready {
    fn name(&self) -> &str {
        "events"
    }

    fn partition_count(&self) -> u32 {
        1
    }

    async fn append(&self, _: u32, _: StoredBatch) -> Result<Range<Offset>, TopicError> {
        Err(TopicError::Closed("events".to_owned()))
    }

    async fn reader(
        &self,
        _: u32,
        from: Offset,
        _: &[Transform],
    ) -> Result<Box<dyn PartitionReader>, TopicError> {
        let chunks = &self.0.chunks;
        let at = chunks.partition_point(|chunk| chunk.offsets.end <= from);
        Ok(Box::new(ReadyReader(self.0.clone(), at)))
    }

    async fn bounds(&self, _: u32) -> Result<OffsetBounds, TopicError> {
        let end = self.0.events;
        Ok(OffsetBounds { earliest: 0, end })
    }

    async fn release(&self, _: u32, _: &str, _: Offset) -> Result<(), TopicError> {
        Ok(())
    }
}

fn bounds() -> ItemForm {
    let bound = |name: &str, edge| Extra {
        name: name.to_owned(),
        source: Source::Bound {
            field: Pointer::to_member("price"),
            edge,
        },
    };
    ItemForm {
        extras: vec![
            bound("lowest", Edge::Minimum),
            bound("highest", Edge::Maximum),
        ],
        ..ItemForm::default()
    }
}

fn config(form: ItemForm) -> SinkConfig {
    SinkConfig {
        table: "events".into(),
        aws: AwsSettings::default(),
        create: Some(Capacity::OnDemand),
        keys: KeyNames::default(),
        pipeline: "p".into(),
        max_item_bytes: 409_600,
        max_age: Duration::from_secs(5),
        pace: PaceSettings {
            key_units: None,
            ..PaceSettings::fixed(1_000_000_000)
        },
        dead_letters: DeadLetterTarget::Default,
        ledger_table: None,
        sharing: Sharing::default(),
        on_gap: OnGap::Halt,
        beside: Vec::new(),
        form,
        training: None,
        write_shards: WriteShards::Fixed(1),
        partitions: PartitionChoice::All,
        transforms: vec![Transform {
            uses: "millpond/pack@0.1.0".into(),
            with: [("group-by".to_owned(), "/job_id".to_owned())].into(),
        }],
        digests: Vec::new(),
    }
}

/// A table that takes all it is given, on a server of its own.
async fn table(name: &str) -> Result<Arc<dyn TableApi>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let database = dynoxide::Database::memory()?;
    tokio::spawn(dynoxide::server::serve_with_shutdown(
        listener,
        database,
        std::future::pending(),
    ));
    let settings = AwsSettings {
        region: Some("eu-central-1".into()),
        endpoint: Some(url),
        profile: None,
    };
    let sdk = settings.load().await?;
    let builder = aws_sdk_dynamodb::config::Builder::from(&sdk)
        .credentials_provider(Credentials::new("key", "secret", None, None, "bench"));
    let client = Client::from_conf(builder.build());
    Ok(Arc::new(AwsTable::new(
        client,
        name.to_owned(),
        KeyNames::default(),
    )))
}

/// Runs the sink until all events are acknowledged.
async fn sink(prepared: &Arc<Prepared>, form: ItemForm) -> Result<(f64, Arc<Metrics>)> {
    let folder = tempfile::tempdir()?;
    let metrics = Arc::new(Metrics::default());
    let drain = CancellationToken::new();
    let context = ConnectorContext {
        name: "sink".into(),
        topic: Arc::new(Ready(prepared.clone())),
        data_dir: folder.path().to_owned(),
        drain: drain.clone(),
        metrics: metrics.clone(),
    };
    let sink = Box::new(config(form).sink(table("events").await?, None));
    let began = Instant::now();
    let running = tokio::spawn(sink.run(context));
    while metrics.sink_events.get() < prepared.events && !running.is_finished() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    drain.cancel();
    running.await??;
    anyhow::ensure!(
        metrics.sink_events.get() == prepared.events,
        "not all was written"
    );
    Ok((seconds, metrics))
}

/// All of it as one plan, and the CPU seconds of this thread that making it took.
fn planned(prepared: &Prepared, form: ItemForm) -> Result<(f64, Plan)> {
    let records = prepared
        .chunks
        .iter()
        .flat_map(|chunk| chunk.records.iter().cloned());
    let entries: Vec<Entry> = records.map(Entry::decode).collect::<Result<_, _>>()?;
    let units = units(&entries, 0..prepared.events)?;
    let mut tools = Workbench::default();
    let outcome = admit(
        &units,
        0,
        &Marks::default(),
        true,
        &Cutoffs::new(),
        &mut tools,
    )?;
    let Outcome::Admitted(admission) = outcome else {
        anyhow::bail!("origins are asked for");
    };
    let config = PlanConfig {
        pipeline: "p".into(),
        topic: "events".into(),
        partition: 0,
        keys: KeyNames::default(),
        max_item_bytes: 409_600,
        form,
    };
    let numbers = groups(&admission.entries);
    let numbers = numbers
        .into_iter()
        .map(|group| (group.to_owned(), 1))
        .collect();
    let began = cpu_seconds();
    let plan = plan(
        &admission.entries,
        &BTreeMap::new(),
        &numbers,
        &config,
        &mut tools,
    )?;
    Ok((cpu_seconds() - began, plan))
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Seconds that the stand-in takes for the same items, with nothing in front of it but the SDK.
async fn ceiling(plan: &Plan) -> Result<f64> {
    let table = table("ceiling").await?;
    let writer = TableWriter::new(table.clone(), KeyNames::default(), None, Arc::default());
    prepare(&writer, Some(Capacity::OnDemand)).await?;
    let requests: Vec<Vec<_>> = plan
        .items
        .chunks(CEILING_ITEMS)
        .map(|items| items.iter().map(|item| item.row.clone()).collect())
        .collect();
    let began = Instant::now();
    let mut answers = stream::iter(requests)
        .map(|rows| {
            let table = table.clone();
            async move { table.batch_write(&rows).await }
        })
        .buffer_unordered(CEILING_REQUESTS);
    while let Some(answer) = answers.next().await {
        let answer = answer.map_err(|failure| anyhow::anyhow!("{failure}"))?;
        anyhow::ensure!(answer.unprocessed.is_empty(), "the stand-in is the limit");
    }
    Ok(began.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--events");
    let count = match arguments.nth(1) {
        Some(count) => count.parse().context("--events")?,
        None => 1_000_000,
    };
    let prepared = Arc::new(prepare_events(count)?);
    let megabytes = prepared.event_bytes as f64 / 1e6;
    let (_, plan) = planned(&prepared, ItemForm::default())?;
    let packed: usize = prepared
        .chunks
        .iter()
        .flat_map(|chunk| &chunk.records)
        .map(|r| r.value.len())
        .sum();
    println!(
        "{count} events, {megabytes:.0} MB, {:.1} MB packed ({:.2} to 1), {GROUPS} groups, one topic partition",
        packed as f64 / 1e6,
        prepared.event_bytes as f64 / packed as f64
    );
    let seconds = ceiling(&plan).await?;
    println!("| | events/s | MB/s | packed MB/s |\n|---|---|---|---|");
    let row = |name: &str, seconds: f64| {
        println!(
            "| {name} | {:.0} | {:.1} | {:.1} |",
            count as f64 / seconds,
            megabytes / seconds,
            packed as f64 / 1e6 / seconds
        );
    };
    row("the stand-in alone, the same items", seconds);
    let (seconds, metrics) = sink(&prepared, ItemForm::default()).await?;
    row("the sink", seconds);
    let (with_bounds, _) = sink(&prepared, bounds()).await?;
    row("the sink, with bounds of one field", with_bounds);
    let gigabytes = megabytes / 1e3;
    let units = metrics.write_units_items.get() + metrics.write_units_overhead.get();
    let ideal = packed as f64 / 1_024.0;
    println!(
        "write units per GB: {:.0}; ideal (packed bytes / 1,024) {:.0}, {:.4} of it; one item per event {:.0}, {:.1} times as many",
        units as f64 / gigabytes,
        ideal / gigabytes,
        units as f64 / ideal,
        prepared.single_units as f64 / gigabytes,
        prepared.single_units as f64 / units as f64
    );
    for (name, form) in [
        ("planning", ItemForm::default()),
        ("planning with bounds", bounds()),
    ] {
        let rounds: Result<Vec<f64>> = (0..ROUNDS)
            .map(|_| Ok(planned(&prepared, form.clone())?.0))
            .collect();
        let seconds = median(rounds?);
        println!(
            "{name}: {:.3} CPU s/GB of events, {:.0} MB/s on one core",
            seconds / gigabytes,
            megabytes / seconds
        );
    }
    Ok(())
}
