//! How long a source takes to start on many shards, and what each costs in memory.
//!
//! `cargo run --release -p millpond-kinesis-source --example startup -- [--lease-table] [SHARDS...]`, on Linux; 100 and 1,000 unless
//! told. With `--lease-table` the shards' leases and checkpoints are in a new table. Stand-ins and
//! source are two processes and speak over the loopback; time, CPU and memory are those of the source, from before it began.
//! Nothing is in the stream, so what is counted is what a shard costs by itself: an iterator, its reads, a place in the checkpoint.

#[path = "../benches/reading/discard.rs"]
mod discard;

use std::error::Error;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use millpond_connector::aws::AwsSettings;
use millpond_connector::connector::{ConnectorContext, Source};
use millpond_connector::metrics::Metrics;
use millpond_kinesis_local::{Server, ServerConfig};
use millpond_kinesis_source::checkpoint_store::StoredCheckpoints;
use millpond_kinesis_source::config::{DEFAULT_LEASE_DURATION, SourceConfig};
use millpond_kinesis_source::dynamo_table::{DynamoTable, TableSettings};
use millpond_kinesis_source::limits::LIBRARY_SILENCE;
use millpond_kinesis_source::sdk::SdkStream;
use millpond_kinesis_source::{KinesisSource, Worker};
use millpond_leases::{Settings, WorkerId};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn resident_kib() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("no VmRSS")?.parse()?)
}

/// CPU time of this process, user and system.
fn cpu() -> Outcome<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no name")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let mut ticks: u64 = 0;
    for field in fields.get(11..13).ok_or("no times")? {
        ticks += field.parse::<u64>()?;
    }
    // A tick is 10 ms on every Linux that this runs on.
    Ok(Duration::from_millis(ticks * 10))
}

async fn sdk_config(endpoint: &str) -> Outcome<SdkConfig> {
    let settings = AwsSettings {
        region: Some("eu-central-1".to_owned()),
        endpoint: Some(endpoint.to_owned()),
        profile: None,
    };
    let credentials = Credentials::new("test", "test", None, None, "test");
    let config = settings.load().await?.into_builder();
    let provider = SharedCredentialsProvider::new(credentials);
    Ok(config.credentials_provider(provider).build())
}

/// The process that serves: makes a stream, says where it is, and ends with its standard input.
async fn serve(shards: u32) -> Outcome<()> {
    let server = Server::start(ServerConfig::default()).await?;
    let client = aws_sdk_kinesis::Client::new(&sdk_config(&server.endpoint_url()).await?);
    let create = client.create_stream().stream_name("events");
    create.shard_count(i32::try_from(shards)?).send().await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let tables = format!("http://{}", listener.local_addr()?);
    let db = dynoxide::Database::memory()?;
    tokio::spawn(dynoxide::server::serve_with_shutdown(
        listener,
        db,
        std::future::pending(),
    ));
    writeln!(std::io::stdout(), "{} {tables}", server.endpoint_url())?;
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// A source that shares its shards through a table, with nobody else.
async fn sharing(config: &SdkConfig, tables: &str) -> Outcome<KinesisSource> {
    let client = aws_sdk_dynamodb::Client::new(&sdk_config(tables).await?);
    let worker = Worker {
        id: WorkerId::new("worker"),
        settings: Settings::new(DEFAULT_LEASE_DURATION.get())?,
    };
    let clock = || jiff::Timestamp::now().as_millisecond();
    let settings = TableSettings {
        table: "leases".to_owned(),
        stream: "events".to_owned(),
        worker: worker.id.clone(),
        timestamp_ms: None,
        library_silence: LIBRARY_SILENCE,
        clock: Arc::new(clock),
    };
    let table = DynamoTable::new(client, settings);
    table.prepare(true).await?;
    Ok(KinesisSource::shared(
        Arc::new(SdkStream::new(config, "events")),
        SourceConfig::default(),
        Arc::new(table),
        worker,
    ))
}

/// The process that reads.
async fn read(endpoint: &str, tables: Option<&str>, shards: u32) -> Outcome<()> {
    let config = sdk_config(endpoint).await?;
    let dir = tempfile::tempdir()?;
    let metrics = Arc::new(Metrics::default());
    let drain = CancellationToken::new();
    let context = ConnectorContext {
        name: "source".to_owned(),
        topic: Arc::new(discard::Discard::default()),
        data_dir: dir.path().to_owned(),
        drain: drain.clone(),
        metrics: metrics.clone(),
    };
    let (before_kib, before_cpu) = (resident_kib()?, cpu()?);
    let begun = Instant::now();
    let source = match tables {
        Some(tables) => sharing(&config, tables).await?,
        None => KinesisSource::new(
            Arc::new(SdkStream::new(&config, "events")),
            SourceConfig::default(),
            Arc::new(StoredCheckpoints::new(dir.path())),
        ),
    };
    let running = tokio::spawn(Box::new(source).run(context));
    while metrics.caught_up.load(Ordering::Acquire) == 0 {
        if running.is_finished() {
            return Err("the source ended".into());
        }
        sleep(Duration::from_millis(5)).await;
    }
    let (took, used) = (begun.elapsed(), cpu()?.saturating_sub(before_cpu));
    let reads = metrics.source_reads.get();
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{shards} shards read to their newest record after {took:.2?}; CPU {used:.2?}, {reads} reads"
    )?;
    for seconds in [0, 30] {
        sleep(Duration::from_secs(seconds)).await;
        let grown = resident_kib()?.saturating_sub(before_kib);
        let each = grown / u64::from(shards.max(1));
        writeln!(
            out,
            "after {seconds} s more: {grown} KiB more than before, {each} KiB a shard"
        )?;
    }
    drain.cancel();
    running.await??;
    Ok(())
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Runtime::new()?;
    match arguments.get(1..).unwrap_or_default() {
        [serves, shards] if serves == "--serve" => return runtime.block_on(serve(shards.parse()?)),
        [reads, endpoint, tables @ .., shards] if reads == "--read" => {
            let tables = tables.first().map(String::as_str);
            return runtime.block_on(read(endpoint, tables, shards.parse()?));
        }
        _ => {}
    }
    let mut arguments = arguments.get(1..).unwrap_or_default();
    let is_shared = arguments
        .first()
        .is_some_and(|first| first == "--lease-table");
    if is_shared {
        arguments = &arguments[1..];
    }
    let counts: Vec<String> = match arguments {
        [] => vec!["100".to_owned(), "1000".to_owned()],
        counts => counts.to_vec(),
    };
    for shards in counts {
        let program = std::env::current_exe()?;
        let mut server = Command::new(&program)
            .args(["--serve", &shards])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut endpoints = String::new();
        let said = server.stdout.take().ok_or("no output")?;
        BufReader::new(said).read_line(&mut endpoints)?;
        let reader = Command::new(&program)
            .arg("--read")
            .args(
                endpoints
                    .split_whitespace()
                    .take(1 + usize::from(is_shared)),
            )
            .arg(&shards)
            .status()?;
        drop(server.stdin.take());
        server.wait()?;
        if !reader.success() {
            return Err(format!("{shards} shards: {reader}").into());
        }
    }
    Ok(())
}
