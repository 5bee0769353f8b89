//! How long a source takes to start on many shards, and what each costs in memory.
//!
//! `cargo run -p millpond-kinesis-source --example startup -- [SHARDS]`, on Linux. Stand-in and source are in one
//! process and speak over the loopback; memory is the growth of the process from before the source began.

use std::error::Error;
use std::io::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use millpond_connector::aws::AwsSettings;
use millpond_connector::connector::{ConnectorContext, Source};
use millpond_connector::metrics::Metrics;
use millpond_connector::topic::{
    Offset, OffsetBounds, PartitionId, PartitionReader, StoredBatch, Topic, TopicError, Transform,
};
use millpond_kinesis_local::{Server, ServerConfig};
use millpond_kinesis_source::KinesisSource;
use millpond_kinesis_source::checkpoint_file::FileCheckpoints;
use millpond_kinesis_source::config::SourceConfig;
use millpond_kinesis_source::sdk::SdkStream;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const PARTITIONS: u32 = 4;

/// Takes everything and keeps nothing.
struct Sinkhole;

#[async_trait]
impl Topic for Sinkhole {
    fn name(&self) -> &str {
        "events"
    }

    fn partition_count(&self) -> u32 {
        PARTITIONS
    }

    async fn append(
        &self,
        _: PartitionId,
        batch: StoredBatch,
    ) -> Result<Range<Offset>, TopicError> {
        Ok(0..u64::from(batch.record_count))
    }

    async fn reader(
        &self,
        _: PartitionId,
        _: Offset,
        _: &[Transform],
    ) -> Result<Box<dyn PartitionReader>, TopicError> {
        Err(TopicError::Closed("events".to_owned()))
    }

    async fn bounds(&self, _: PartitionId) -> Result<OffsetBounds, TopicError> {
        Ok(OffsetBounds {
            earliest: 0,
            end: 0,
        })
    }

    async fn release(&self, _: PartitionId, _: &str, _: Offset) -> Result<(), TopicError> {
        Ok(())
    }
}

fn resident_kib() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("no VmRSS")?.parse()?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let shards: u32 = match std::env::args().nth(1) {
        Some(shards) => shards.parse()?,
        None => 1_000,
    };
    let server = Server::start(ServerConfig::default()).await?;
    let settings = AwsSettings {
        region: Some("eu-central-1".to_owned()),
        endpoint: Some(server.endpoint_url()),
        profile: None,
    };
    let credentials = Credentials::new("test", "test", None, None, "test");
    let config = settings
        .load()
        .await?
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build();
    let client = aws_sdk_kinesis::Client::new(&config);
    let create = client.create_stream().stream_name("events");
    create.shard_count(i32::try_from(shards)?).send().await?;
    let dir = tempfile::tempdir()?;
    let metrics = Arc::new(Metrics::default());
    let drain = CancellationToken::new();
    let context = ConnectorContext {
        name: "source".to_owned(),
        topic: Arc::new(Sinkhole),
        data_dir: dir.path().to_owned(),
        drain: drain.clone(),
        metrics: metrics.clone(),
    };
    let before_kib = resident_kib()?;
    let begun = Instant::now();
    let source: Box<dyn Source> = Box::new(KinesisSource::new(
        Arc::new(SdkStream::new(&config, "events")),
        SourceConfig::default(),
        Arc::new(FileCheckpoints::new(dir.path())),
    ));
    let running = tokio::spawn(source.run(context));
    while metrics.caught_up.load(Ordering::Acquire) == 0 {
        if running.is_finished() {
            return Err("the source ended".into());
        }
        sleep(Duration::from_millis(5)).await;
    }
    let started = begun.elapsed();
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{shards} shards read to their newest record after {started:.2?}"
    )?;
    for seconds in [0, 30] {
        sleep(Duration::from_secs(seconds)).await;
        let grown = resident_kib()?.saturating_sub(before_kib);
        writeln!(
            out,
            "after {seconds} s more: {grown} KiB more than before, {} KiB a shard (server's connections included)",
            grown / u64::from(shards.max(1))
        )?;
    }
    drain.cancel();
    running.await??;
    Ok(())
}
