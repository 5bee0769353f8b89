//! What reading costs: the whole source, by polling and by fan-out, beside the same reads by a plain loop over
//! the SDK that throws everything away (the floor; with aggregated records a second one takes them apart first), what the server can give at most (its ceiling), and what the SDK's
//! decoding costs of it.
//!
//! The stream is a process of its own, so that the CPU counted is the reader's alone. Shards' limits
//! are off. The topic takes batches and forgets them. Prints the tables of `BENCHMARKS.md`.
//!
//!     cargo bench -p millpond-kinesis-source --bench reading [-- MEBIBYTES]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints")]

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[path = "reading/body.rs"]
mod body;
#[path = "reading/discard.rs"]
mod discard;
#[path = "reading/plain.rs"]
mod plain;

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType};
use bytes::Bytes;
use millpond_connector::aws::AwsSettings;
use millpond_connector::connector::{ConnectorContext, Source as _};
use millpond_connector::metrics::Metrics;
use millpond_kinesis_local::{Server, ServerConfig};
use millpond_kinesis_source::KinesisSource;
use millpond_kinesis_source::aggregate::AggregateBuilder;
use millpond_kinesis_source::checkpoint_memory::MemoryCheckpoints;
use millpond_kinesis_source::config::SourceConfig;
use millpond_kinesis_source::fan_out::{FallBack, FanOut};
use millpond_kinesis_source::sdk::SdkStream;
use millpond_kinesis_source::sdk_fan_out::SdkFanOut;
use tokio_util::sync::CancellationToken;

const SHARDS: usize = 4;
const EVENTS_PER_AGGREGATE: usize = 100;
const DEFAULT_MEBIBYTES: usize = 256;

/// What is in the stream.
#[derive(Debug, Clone, Copy)]
struct Load {
    name: &'static str,
    event_bytes: usize,
    is_aggregated: bool,
}

impl Load {
    /// Records of about a mebibyte, which is what the source asks for.
    fn limit(self) -> u32 {
        let events = if self.is_aggregated {
            EVENTS_PER_AGGREGATE
        } else {
            1
        };
        let records = (1 << 20) / (self.event_bytes * events);
        u32::try_from(records).map_or(10_000, |records| records.clamp(1, 10_000))
    }
}

const LOADS: [Load; 3] = [
    Load {
        name: "1024-byte events",
        event_bytes: 1_024,
        is_aggregated: false,
    },
    Load {
        name: "200-byte events",
        event_bytes: 200,
        is_aggregated: false,
    },
    Load {
        name: "200-byte events, 100 in an aggregated record",
        event_bytes: 200,
        is_aggregated: true,
    },
];

async fn sdk_config(endpoint: &str) -> SdkConfig {
    let settings = AwsSettings {
        region: Some("us-east-1".to_owned()),
        endpoint: Some(endpoint.to_owned()),
        profile: None,
    };
    let credentials = Credentials::new("bench", "bench", None, None, "bench");
    settings
        .load()
        .await
        .expect("configured")
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

/// Text that is not all the same.
fn event(number: usize, bytes: usize) -> Vec<u8> {
    let mut event = format!("{{\"event\":{number},\"is\":\"").into_bytes();
    let mut state = number as u64 | 1;
    while event.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        event.push(b'a' + (state % 26) as u8);
    }
    event
}

/// The process that serves: fills a stream, says where it is, and ends with its standard input.
async fn serve(load: Load, bytes: usize) {
    let server = Server::start(ServerConfig::default())
        .await
        .expect("serves");
    let client = Client::new(&sdk_config(&server.endpoint_url()).await);
    let create = client.create_stream().stream_name("events");
    create
        .shard_count(SHARDS as i32)
        .send()
        .await
        .expect("created");
    let mut number = 0;
    let mut next = || {
        number += 1;
        event(number, load.event_bytes)
    };
    let mut put = 0;
    let mut key = 0;
    while put < bytes {
        let mut entries = Vec::new();
        while entries.len() < 500 && put < bytes {
            key += 1;
            let partition_key = format!("key-{}", key % 1_000);
            let data = if load.is_aggregated {
                let mut builder = AggregateBuilder::default();
                for _ in 0..EVENTS_PER_AGGREGATE {
                    builder.push(&partition_key, None, Bytes::from(next()));
                }
                put += EVENTS_PER_AGGREGATE * load.event_bytes;
                builder.finish()
            } else {
                put += load.event_bytes;
                next()
            };
            let entry = PutRecordsRequestEntry::builder();
            let entry = entry.partition_key(partition_key).data(data.into()).build();
            entries.push(entry.expect("an entry"));
        }
        let request = client.put_records().stream_name("events");
        request
            .set_records(Some(entries))
            .send()
            .await
            .expect("put");
    }
    println!("{} {number}", server.endpoint_url());
    let mut end = String::new();
    let _ = std::io::stdin().read_line(&mut end);
}

/// CPU time of a process, user and system.
fn cpu_of(process: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("Linux");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks: u64 = fields[11..13]
        .iter()
        .map(|field| field.parse::<u64>().expect("ticks"))
        .sum();
    // A tick is 10 ms on every Linux that this runs on.
    Duration::from_millis(ticks * 10)
}

fn cpu() -> Duration {
    cpu_of("self")
}

async fn source(config: &SdkConfig, is_pushed: bool, events: u64) {
    let mut settings = SourceConfig::default();
    settings.pace.reads_per_second = 1_000;
    settings.pace.bytes_per_second = 4 << 30;
    let api = Arc::new(SdkStream::new(config, "events"));
    let source = KinesisSource::new(api, settings, Arc::new(MemoryCheckpoints::default()));
    let source = match is_pushed {
        true => source.with_fan_out(FanOut {
            api: Arc::new(SdkFanOut::new(config, "events")),
            consumer_name: "source".to_owned(),
            fall_back: FallBack::None,
            removes_consumer: true,
        }),
        false => source,
    };
    let context = ConnectorContext {
        name: "source".to_owned(),
        topic: Arc::new(discard::Discard::default()),
        data_dir: "/nonexistent".into(),
        drain: CancellationToken::new(),
        metrics: Arc::new(Metrics::default()),
    };
    let (drain, metrics) = (context.drain.clone(), context.metrics.clone());
    let running = tokio::spawn(Box::new(source).run(context));
    while metrics.topic_events.get() < events {
        assert!(!running.is_finished(), "the source ended");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drain.cancel();
    running.await.expect("no panic").expect("drained");
}

static WORST: AtomicU64 = AtomicU64::new(0);

/// A line of the table, with the ratio to each floor; answers CPU seconds per GB of events.
fn report(
    load: Load,
    way: &str,
    events: u64,
    took: Duration,
    cpu: Duration,
    floors: &[f64],
) -> f64 {
    let bytes = events as f64 * load.event_bytes as f64;
    let per_gb = cpu.as_secs_f64() / (bytes / 1e9);
    let ratios: Vec<f64> = floors.iter().map(|floor| per_gb / floor).collect();
    // The last floor does what the source must do, too.
    if let Some(ratio) = ratios.last() {
        WORST.fetch_max((ratio * 100.0) as u64, Ordering::Relaxed);
    }
    let ratios: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
    let ratios = match ratios.is_empty() {
        true => "1".to_owned(),
        false => ratios.join(" and "),
    };
    println!(
        "| {} | {way} | {:.0} | {:.0} | {per_gb:.2} | {ratios} |",
        load.name,
        bytes / 1e6 / took.as_secs_f64(),
        events as f64 / took.as_secs_f64(),
    );
    per_gb
}

async fn measure(load: Load, endpoint: &str, events: u64) {
    let config = sdk_config(endpoint).await;
    let client = Client::new(&config);
    for is_pushed in [false, true] {
        let way = match is_pushed {
            false => "polling",
            true => "fan-out",
        };
        let mut floors = Vec::new();
        for takes_apart in [false, true] {
            if takes_apart && !load.is_aggregated {
                continue;
            }
            let (began, before) = (Instant::now(), cpu());
            match is_pushed {
                false => plain::polling(&client, load.limit(), takes_apart).await,
                true => plain::fan_out(&client, takes_apart).await,
            }
            let (took, used) = (began.elapsed(), cpu() - before);
            let name = match takes_apart {
                false => format!("SDK loop, {way}"),
                true => format!("SDK loop that takes them apart, {way}"),
            };
            floors.push(report(load, &name, events, took, used, &[]));
        }
        let (began, before) = (Instant::now(), cpu());
        source(&config, is_pushed, events).await;
        let (took, used) = (began.elapsed(), cpu() - before);
        report(load, &format!("source, {way}"), events, took, used, &floors);
    }
}

/// A process that serves a load.
struct Serving {
    process: std::process::Child,
    endpoint: String,
    events: u64,
}

impl Serving {
    fn start(program: &str, number: usize, mebibytes: usize) -> Self {
        let bytes = (mebibytes << 20).to_string();
        let mut process = Command::new(program)
            .args(["--serve", &number.to_string(), &bytes])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("a line");
        let (endpoint, events) = line.trim().split_once(' ').expect("two words");
        Self {
            process,
            endpoint: endpoint.to_owned(),
            events: events.parse().expect("a number"),
        }
    }

    fn end(mut self) {
        drop(self.process.stdin.take());
        self.process.wait().expect("ended");
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if let Some(at) = arguments.iter().position(|argument| argument == "--serve") {
        let load: usize = arguments[at + 1].parse().expect("a load");
        let bytes: usize = arguments[at + 2].parse().expect("bytes");
        return runtime.block_on(serve(LOADS[load], bytes));
    }
    // `cargo test --benches` runs it, too: then only a little.
    let is_bench = arguments.iter().any(|argument| argument == "--bench");
    let given = arguments.iter().find_map(|argument| argument.parse().ok());
    let mebibytes = given.unwrap_or(if is_bench { DEFAULT_MEBIBYTES } else { 2 });
    println!("{mebibytes} MiB of events, {SHARDS} shards\n");
    println!("| load | read by | MB/s | events/s | CPU s/GB | CPU against the SDK loop(s) |");
    println!("|---|---|---|---|---|---|");
    let mut bodies = Vec::new();
    let mut ceilings = Vec::new();
    for (number, load) in LOADS.into_iter().enumerate() {
        let serving = Serving::start(&arguments[0], number, mebibytes);
        runtime.block_on(measure(load, &serving.endpoint, serving.events));
        let client = runtime.block_on(async { Client::new(&sdk_config(&serving.endpoint).await) });
        let iterators = runtime.block_on(async {
            let mut iterators = Vec::new();
            for number in 0..SHARDS {
                let call = client.get_shard_iterator().stream_name("events");
                let call = call.shard_id(plain::shard(number));
                let call = call.shard_iterator_type(ShardIteratorType::TrimHorizon);
                let answer = call.send().await.expect("an iterator");
                iterators.push(answer.shard_iterator.expect("an iterator"));
            }
            iterators
        });
        let process = serving.process.id().to_string();
        let before = cpu_of(&process);
        let ceiling = body::ceiling(&serving.endpoint, &iterators, load.limit(), mebibytes << 20);
        let server = cpu_of(&process) - before;
        ceilings.push((load.name, ceiling, server));
        bodies.push((
            load.name,
            body::recorded(&serving.endpoint, &iterators[0], load.limit()),
        ));
        serving.end();
    }
    println!(
        "\nworst ratio: {:.2}\n",
        WORST.load(Ordering::Relaxed) as f64 / 100.0
    );
    println!(
        "The server's ceiling: the same `GetRecords`, {SHARDS} connections, answers read and thrown away\n"
    );
    println!("| load | MB/s of answers (base64 and JSON) | server's CPU s/GB of answers |");
    println!("|---|---|---|");
    for (name, (bytes, took), server) in ceilings {
        let (rate, cpu) = (
            bytes as f64 / 1e6 / took.as_secs_f64(),
            server.as_secs_f64(),
        );
        println!("| {name} | {rate:.0} | {:.2} |", cpu / (bytes as f64 / 1e9));
    }
    println!(
        "\nOne recorded `GetRecords` answer, decoded again and again by one thread, without a network\n"
    );
    println!(
        "| load | answer | data | the SDK's whole call | serde_json, borrowed, and base64 | of it base64 |"
    );
    println!("|---|---|---|---|---|---|");
    let seconds = if is_bench { 3.0 } else { 0.05 };
    for (name, body) in bodies {
        let decoding = runtime.block_on(body::decoding(&body, seconds));
        let per_gb = |took: f64| took / (decoding.data_bytes as f64 / 1e9);
        println!(
            "| {name} | {} KB | {} KB | {:.2} s/GB | {:.2} s/GB | {:.2} s/GB |",
            body.len() / 1_000,
            decoding.data_bytes / 1_000,
            per_gb(decoding.sdk),
            per_gb(decoding.borrowed),
            per_gb(decoding.base64),
        );
    }
}
