//! The command line: what `--help` shows.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use millpond_reader::ReadUnits;

use millpond_connector::logging::LogFormat;

use crate::workload::DEFAULT_EVENTS;

/// Moves events from Kinesis Data Streams to DynamoDB as few, large, compressed items.
#[derive(Debug, Parser)]
#[command(name = "millpond", version, about, propagate_version = true)]
#[command(after_help = overview())]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the whole path on this machine with a synthetic workload, and report
    Demo(DemoArgs),
    /// Run every connector of a file in this process, on the embedded topic
    Run(RunArgs),
    /// Put the connectors of a file on a Fluvio cluster, and start them
    Deploy(DeployArgs),
    /// Show connectors, topics and how far behind the sinks are, on a cluster
    Status(StatusArgs),
    /// Stop the connectors of a file that `deploy` started
    Down(DownArgs),
    /// Keep the local stand-ins for Kinesis and DynamoDB up
    Local(LocalArgs),
    /// Put a seeded synthetic workload into a stream
    Emit(EmitArgs),
    /// Check a configuration file without touching the network
    Validate(ValidateArgs),
    /// Write the events of a group as they were produced
    Read(ReadArgs),
    /// Follow a group, or all, and write events as they come
    Tail(TailArgs),
    /// Write a group, or all, into one file of lines or columns
    Export(ExportArgs),
    /// List the groups of a table
    Groups(GroupsArgs),
    /// Show the envelope of one item as JSON, without its payload
    Inspect(InspectArgs),
    /// Prove from the table that nothing is missing and nothing is there twice
    Verify(VerifyArgs),
    /// List, show and put back what could not be written
    Dlq(crate::commands::dlq::DlqArgs),
    /// Print the JSON Schema of Connector.yaml
    Schema,
}

/// Which AWS to speak to; what is left out, the usual AWS environment says.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "AWS")]
pub struct AwsArgs {
    /// URL to speak to in place of AWS, for example that of `millpond local`
    #[arg(long, value_name = "URL")]
    pub endpoint_url: Option<String>,
    /// Region, for example eu-central-1 [default: AWS_REGION, then the profile's]
    #[arg(long)]
    pub region: Option<String>,
    /// Profile of the shared AWS configuration files [default: AWS_PROFILE]
    #[arg(long)]
    pub profile: Option<String>,
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "\
Starts stand-ins for Kinesis and DynamoDB as a child process, emits events into a stream of
4 shards, runs the built-in Connector.yaml on it, reads every event back and compares it byte
for byte. The report goes to stdout, everything else to stderr.

Examples:
  millpond demo
  millpond demo --events 1000000 --seed 7
  millpond demo --json | jq .write_units.saving
  millpond demo --keep          then: millpond local --data-dir <the directory it names>")]
pub struct DemoArgs {
    /// Events to emit; the default is about 64 MB
    #[arg(long, value_name = "N", default_value_t = DEFAULT_EVENTS, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub events: u64,
    /// Jobs that run at once
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub jobs: u32,
    /// Seed of the workload: the same seed gives the same events but for their times
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Emit at this rate in MB (10^6 bytes) per second, instead of as fast as possible
    #[arg(long, value_name = "MB/S", value_parser = positive)]
    pub rate: Option<f64>,
    /// Print the report as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Put all data here and leave it there; must be empty or absent.
    /// Without it: tables in memory, the rest in a temporary directory
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Keep the data also without --data-dir, on disk, and say where it is
    #[arg(long)]
    pub keep: bool,
    /// Price of one million write units in USD [default: on-demand, us-east-1]
    #[arg(long, value_name = "USD", value_parser = positive)]
    pub usd_per_million_write_units: Option<f64>,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(after_help = "\
The first SIGTERM or Ctrl-C drains: reading stops, what is in flight is committed, and the
process ends with 0 within 30 seconds. A second one ends it at once (130). Started again with
the same data directory, it goes on where it was.

Endpoints, region and credentials: what the file says, else the usual AWS environment
(AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL_KINESIS, AWS_ENDPOINT_URL_DYNAMODB, ...).

Examples:
  millpond run
  millpond run Connector.yaml --data-dir /var/lib/millpond
  millpond run --until-caught-up && echo everything is in the table")]
pub struct RunArgs {
    /// The configuration file
    #[arg(value_name = "FILE", default_value = "Connector.yaml")]
    pub config: PathBuf,
    /// Where topic and checkpoints are kept; one process at a time
    #[arg(long, value_name = "DIR", default_value = ".millpond")]
    pub data_dir: PathBuf,
    /// End with success once all that was in the stream at start is committed to the table
    #[arg(long)]
    pub until_caught_up: bool,
    /// File of NAME=value lines for the secrets of the file [default: environment variables]
    #[arg(long, value_name = "FILE")]
    pub secrets: Option<PathBuf>,
    /// Serve /metrics, /healthz, /readyz, /status and a page for people here
    #[arg(long, value_name = "HOST:PORT", env = "MILLPOND_HTTP")]
    pub http: Option<String>,
    /// How log lines look: text or json
    #[arg(
        long,
        value_name = "FORMAT",
        env = "MILLPOND_LOG_FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

/// Which Fluvio cluster; without either, the current profile of Fluvio's own configuration.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterArgs {
    /// Profile of Fluvio's own configuration (~/.fluvio/config, FLV_PROFILE_PATH) [default: the current one]
    #[arg(long, value_name = "PROFILE", conflicts_with = "cluster")]
    pub profile: Option<String>,
    /// Address of the cluster's controller (SC), without TLS, instead of a profile
    #[arg(long, value_name = "HOST:PORT")]
    pub cluster: Option<String>,
}

/// Arguments of `deploy`.
#[derive(Debug, Args)]
#[command(after_help = "\
Creates or checks the topics, uploads the SmartModule when it is missing or another, splits the
file into one document per connector, and has `cdk deploy start` start those that do not run.
A topic that exists with other settings is an error and is left alone. Deploying twice changes
nothing.

Connectors run on this machine as processes of their own and are not watched over: after a
crash, `millpond deploy` starts them again and they go on where they were. `cdk` is taken from
MILLPOND_FLUVIO_BIN, else from PATH; its list of connectors lies in the temporary directory
(TMPDIR), so call deploy, status and down with the same one. The connectors inherit this
command's environment, AWS_* included; relative paths in a document start at the directory of
the split files.

--dry-run changes nothing, neither here nor on the cluster. It only asks the cluster and cdk what
is there; those that cannot be asked count as empty.

Examples:
  millpond deploy
  millpond deploy Connector.yaml --dry-run
  millpond deploy Connector.yaml --secrets secrets.txt --cluster 127.0.0.1:9003")]
pub struct DeployArgs {
    /// The configuration file
    #[arg(value_name = "FILE", default_value = "Connector.yaml")]
    pub config: PathBuf,
    /// Say what would be done, as commands where there are some, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// File of NAME=value lines for the secrets of the file [default: environment variables]
    #[arg(long, value_name = "FILE")]
    pub secrets: Option<PathBuf>,
    /// Where split documents, logs, and the connectors' own data are kept
    #[arg(long, value_name = "DIR", default_value = ".millpond")]
    pub data_dir: PathBuf,
    /// Directory of a connector's Connector.toml and binary; may be given several times
    /// [default: Millpond's own, binaries beside this program or on PATH]
    #[arg(long, value_name = "DIR")]
    pub package_dir: Vec<PathBuf>,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(after_help = "\
The lag of a partition is what is stored in the topic and not yet committed by the sink; a sink
tells the cluster what it has committed with some delay. First offsets are shown where the cluster
tells them. What cannot be asked is said on stderr (JSON: `unknown`), the rest is shown.

Exit code 0: the cluster answered everything, whatever the state. 1: it did not, or not everything.
3: the file is wrong.

Examples:
  millpond status
  millpond status Connector.yaml --json | jq '[.partitions[].consumers[].lag] | add'")]
pub struct StatusArgs {
    /// The configuration file
    #[arg(value_name = "FILE", default_value = "Connector.yaml")]
    pub config: PathBuf,
    /// One JSON object instead of tables
    #[arg(long)]
    pub json: bool,
    /// File of NAME=value lines for the secrets of the file [default: environment variables]
    #[arg(long, value_name = "FILE")]
    pub secrets: Option<PathBuf>,
    /// The data directory that was given to `deploy`
    #[arg(long, value_name = "DIR", default_value = ".millpond")]
    pub data_dir: PathBuf,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// Arguments of `down`.
#[derive(Debug, Args)]
#[command(after_help = "\
Sources first, then sinks; each drains (SIGTERM), and `down` waits until its process is gone.
Topics, SmartModules and the table stay. Stopping twice changes nothing.

Examples:
  millpond down
  millpond down Connector.yaml")]
pub struct DownArgs {
    /// The configuration file
    #[arg(value_name = "FILE", default_value = "Connector.yaml")]
    pub config: PathBuf,
    /// File of NAME=value lines for the secrets of the file [default: environment variables]
    #[arg(long, value_name = "FILE")]
    pub secrets: Option<PathBuf>,
    /// The data directory that was given to `deploy`
    #[arg(long, value_name = "DIR", default_value = ".millpond")]
    pub data_dir: PathBuf,
}

/// Arguments of `local`.
#[derive(Debug, Args)]
#[command(after_help = "\
Both listen on 127.0.0.1 only, and take any credentials. The environment to export is printed
to stdout; `ready` follows on stderr. SIGTERM and Ctrl-C end it.

Examples:
  millpond local
  millpond local --data-dir ./tables
  aws kinesis list-streams          in another terminal, after the exports")]
pub struct LocalArgs {
    /// Port of the Kinesis stand-in; 0 takes any free one
    #[arg(long, value_name = "PORT", default_value_t = 4567)]
    pub kinesis_port: u16,
    /// Port of the DynamoDB stand-in; 0 takes any free one
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    pub dynamodb_port: u16,
    /// Keep the tables here; without it they live in memory. Streams always live in memory
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// End when stdin closes, that is when the parent process is gone
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

/// Arguments of `emit`.
#[derive(Debug, Args)]
#[command(after_help = "\
Events of one partition key (<job id>/<worker>) are put in order; throttled and failed records
are put again before later ones of their key. A summary follows on stdout as one JSON object.

Examples:
  millpond emit --stream events --endpoint-url http://127.0.0.1:4567
  millpond emit --stream events --events 5000000 --rate 4
  millpond emit --to-file events.json --bytes 64000000")]
pub struct EmitArgs {
    /// The stream
    #[arg(long, required_unless_present = "to_file")]
    pub stream: Option<String>,
    /// Write the events here instead, one per line
    #[arg(long, value_name = "FILE", conflicts_with_all = ["stream", "log"])]
    pub to_file: Option<PathBuf>,
    /// Events to emit [default: 116000, about 64 MB]
    #[arg(long, value_name = "N", conflicts_with = "bytes", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub events: Option<u64>,
    /// Emit until this many bytes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub bytes: Option<u64>,
    /// Jobs that run at once
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub jobs: u32,
    /// Seed of the workload
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Time of the first event, RFC 3339 or epoch milliseconds [default: now]
    #[arg(long, value_name = "TIME", value_parser = crate::time::parse_ms, allow_hyphen_values = true)]
    pub start: Option<i64>,
    /// Rate in MB (10^6 bytes) per second [default: as fast as possible]
    #[arg(long, value_name = "MB/S", value_parser = positive)]
    pub rate: Option<f64>,
    /// Put this many events into one record, as the Kinesis Producer Library does; the stream
    /// must not be resharded meanwhile
    #[arg(long, value_name = "N", conflicts_with_all = ["to_file", "log"], value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub kpl: Option<u32>,
    /// Record here when each event was sent (see `emit_log` in the source for the form)
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Which AWS to speak to.
    #[command(flatten)]
    pub aws: AwsArgs,
    /// End when stdin closes, that is when the parent process is gone
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

/// Arguments of `validate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Reports all problems at once, each with its line and column, and ends with 3 if there are any.

Examples:
  millpond validate Connector.yaml
  millpond validate Connector.yaml --secrets secrets.txt")]
pub struct ValidateArgs {
    /// The configuration file
    #[arg(value_name = "FILE")]
    pub config: PathBuf,
    /// File of NAME=value lines for the secrets of the file [default: environment variables]
    #[arg(long, value_name = "FILE")]
    pub secrets: Option<PathBuf>,
}

/// Which table, and which pipeline in it.
#[derive(Debug, Args)]
pub struct TableArgs {
    /// The table
    #[arg(long)]
    pub table: String,
    /// The pipeline that wrote the table; only needed when several did
    #[arg(long)]
    pub pipeline: Option<String>,
    /// Most read units a second, as the service reports them; at first those of one second at once,
    /// or of one page (256)
    #[arg(long, value_name = "N", value_parser = read_units)]
    pub max_read_units: Option<ReadUnits>,
    /// Which AWS to speak to.
    #[command(flatten)]
    pub aws: AwsArgs,
}

/// Arguments of `read`.
#[derive(Debug, Args)]
#[command(after_help = "\
TIME is RFC 3339 (2026-11-23T08:00:00Z) or milliseconds since the Unix epoch.

When --limit or a failure ends it before the last event, a page token follows on stderr. Given to
--page-token with the same group and times it resumes right there. Tokens are for reading on, not
for keeping: another version of Millpond may refuse them. While the sink writes, use --committed:
a later item may be there before an earlier one, which a page would pass.

Examples:
  millpond read --table events --group job-17
  millpond read --table events --group job-17 --from 2026-11-23T08:00:00Z --limit 10
  millpond read --table events --group job-17 | jq .event_type | sort | uniq -c")]
pub struct ReadArgs {
    /// Which table.
    #[command(flatten)]
    pub table: TableArgs,
    /// The group, as `millpond groups` lists it
    #[arg(long)]
    pub group: String,
    /// First event time, inclusive
    #[arg(long, value_name = "TIME", value_parser = crate::time::parse_ms)]
    pub from: Option<i64>,
    /// Last event time, exclusive
    #[arg(long, value_name = "TIME", value_parser = crate::time::parse_ms)]
    pub to: Option<i64>,
    /// Stop after this many events
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Go on where the read that printed this token stopped
    #[arg(long, value_name = "TOKEN")]
    pub page_token: Option<String>,
    /// Only what the sink had committed when the read began
    #[arg(long)]
    pub committed: bool,
    /// Write each event as a big-endian u32 length and its bytes, instead of as a line
    #[arg(long)]
    pub raw: bool,
    /// Report damaged items on stderr, go on with the rest, and end with 5
    #[arg(long)]
    pub skip_damaged: bool,
}

/// Arguments of `tail`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each event once, in order within a group and topic partition. Groups and partitions that appear
are followed from their first event. Ctrl-C or SIGTERM ends it with 0.

Cost in read units: for each group and topic partition one every --poll while something comes, and
one every 15 seconds while nothing does, beside what is read (one for each 4 KB). Looking for new
ones every 10 seconds: one for a group, 16 and one for each 4 KB of directory for all. At the
start, without --from, up to 100 for each to find its end. --max-read-units holds all of it.

Examples:
  millpond tail --table events --group job-17
  millpond tail --table events --all --group-names --max-read-units 200
  millpond tail --table events --group job-17 --from 2026-11-23T08:00:00Z --limit 100")]
pub struct TailArgs {
    /// Which table.
    #[command(flatten)]
    pub table: TableArgs,
    /// The group
    #[arg(long, required_unless_present = "all", conflicts_with = "all")]
    pub group: Option<String>,
    /// All groups of the pipeline
    #[arg(long)]
    pub all: bool,
    /// Begin with events from this time on [default: with what comes after the start]
    #[arg(long, value_name = "TIME", value_parser = crate::time::parse_ms)]
    pub from: Option<i64>,
    /// End after this many events
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Write the group and a tab before each event
    #[arg(long)]
    pub group_names: bool,
    /// Seconds between two looks while something comes
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    pub poll: f64,
    /// Report damaged items on stderr and go on; ends with 5 if there were any
    #[arg(long)]
    pub skip_damaged: bool,
}

/// Arguments of `export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Writes what the sink had committed when the export began, group by group, each in order. Until it
is whole, everything lies in the folder FILE.partial; FILE appears at the end, in one step. Killed
or failed, the same command goes on where the last 32 MB were complete: nothing is twice, nothing
torn. Remove the folder to begin anew. An existing FILE is never replaced.

ndjson: events as they were produced, one a line; an event that is no line of JSON is an error.
parquet: columns as those of the S3 sink: event_time, group, stream, shard, epoch, ordinal,
topic_partition, topic_offset (the first of its item), event (bytes); any event fits.

Reads are strongly consistent: one read unit for each 4 KB. For a bar, totals are read first: up to
100 read units for each group and topic partition.

Examples:
  millpond export --table events --group job-17 --format parquet --output job-17.parquet
  millpond export --table events --all --format ndjson --output events.ndjson --max-read-units 2000
  millpond export --table events --group job-17 --from 2026-11-23T08:00:00Z --to 2026-11-23T09:00:00Z \\
      --format ndjson --output hour.ndjson")]
pub struct ExportArgs {
    /// Which table.
    #[command(flatten)]
    pub table: TableArgs,
    /// The group
    #[arg(long, required_unless_present = "all", conflicts_with = "all")]
    pub group: Option<String>,
    /// All groups of the pipeline, by name; those that appear meanwhile may be left out
    #[arg(long)]
    pub all: bool,
    /// First event time, inclusive
    #[arg(long, value_name = "TIME", value_parser = crate::time::parse_ms)]
    pub from: Option<i64>,
    /// Last event time, exclusive
    #[arg(long, value_name = "TIME", value_parser = crate::time::parse_ms)]
    pub to: Option<i64>,
    /// Lines or columns
    #[arg(long, value_enum)]
    pub format: ExportFormat,
    /// The file
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Bytes of events after which what is written is made durable
    #[arg(long, hide = true, value_name = "N", default_value_t = 32 << 20)]
    pub sync_bytes: u64,
    /// Report damaged items on stderr, go on with the rest, and end with 5
    #[arg(long)]
    pub skip_damaged: bool,
}

/// How `export` writes events.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum ExportFormat {
    /// One event a line, as it was produced
    Ndjson,
    /// Columns, compressed with zstd
    Parquet,
}

/// Arguments of `groups`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  millpond groups --table events
  millpond groups --table events --json | jq .events")]
pub struct GroupsArgs {
    /// Which table.
    #[command(flatten)]
    pub table: TableArgs,
    /// One JSON object per line instead of columns
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without --sk it shows the items of the group, up to --limit, one JSON object per line.

Examples:
  millpond inspect --table events --group job-17 --limit 1
  millpond inspect --table events --pk 'events/job-17#0' --sk '2026-11-23T08:00:00.123Z/0000000000000000042/00000'")]
pub struct InspectArgs {
    /// Which table.
    #[command(flatten)]
    pub table: TableArgs,
    /// Items of this group
    #[arg(long, required_unless_present = "pk", conflicts_with = "pk")]
    pub group: Option<String>,
    /// Partition key value of one item
    #[arg(long, requires = "sk")]
    pub pk: Option<String>,
    /// Sort key value of that item
    #[arg(long, requires = "pk")]
    pub sk: Option<String>,
    /// Items to show of a group
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub limit: u64,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
What the ledger has committed must be in the table. Headers alone prove: every chain of items is
whole and in order, and over all groups each shard has as many events as ordinals. --deep also
reads the frames: checksums, and every ordinal once. --stream counts what the stream still holds
up to the ledger's mark; with --deep it compares the bytes, too. With --group only that group's
chains are walked, and what other groups lack is not seen. Can be used while the sink writes.

Cost: every item of the table (or group) once, one read unit per 4 KB, half of that with
--eventual. DynamoDB bills whole items also where only headers are returned: without --deep less
is transferred and nothing is decompressed, but the read units are the same. What was consumed is
reported. --stream reads the whole stream with GetRecords, four times a second and shard.

Exit code 0: complete. 6: something was found, recorded gaps included (not with --accept-gaps).

Examples:
  millpond verify --table events
  millpond verify --table events --deep --stream events --json
  millpond verify --table events --dead-letters .millpond/dead-letters.jsonl")]
pub struct VerifyArgs {
    /// Which table.
    #[command(flatten)]
    pub table: TableArgs,
    /// Only this group
    #[arg(long)]
    pub group: Option<String>,
    /// Also against what this stream still holds
    #[arg(long, conflicts_with = "group")]
    pub stream: Option<String>,
    /// URL of Kinesis in place of AWS [default: AWS_ENDPOINT_URL_KINESIS]
    #[arg(long, value_name = "URL", requires = "stream")]
    pub kinesis_endpoint_url: Option<String>,
    /// How the source takes KPL records, as its setting `aggregated` says
    #[arg(long, value_enum, default_value_t = AggregatedArg::Auto)]
    pub aggregated: AggregatedArg,
    /// Also read the frames: checksums, and every single ordinal
    #[arg(long)]
    pub deep: bool,
    /// Dead-letter file of this pipeline; may be given several times
    #[arg(long, value_name = "FILE")]
    pub dead_letters: Vec<PathBuf>,
    /// Dead-letter table of this pipeline, when it is not the table itself
    #[arg(long, value_name = "TABLE")]
    pub dead_letter_table: Option<String>,
    /// Recorded gaps are shown, but do not make the exit code 6
    #[arg(long)]
    pub accept_gaps: bool,
    /// Read items eventually consistent, at half the cost: the last second may seem to be missing
    #[arg(long)]
    pub eventual: bool,
    /// JSON, one object per line: groups, shards, findings, and a summary at the end
    #[arg(long)]
    pub json: bool,
}

/// How KPL records are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum AggregatedArg {
    /// Taken apart, without the events of other shards
    Auto,
    /// Taken apart, with them
    KeepStray,
    /// As they are
    Off,
}

fn overview() -> String {
    format!(
        "Start here:\n  \
         millpond demo                  the whole path on this machine, with a report\n  \
         millpond run Connector.yaml    the pipeline of a file, against AWS\n\n\
         Logs go to stderr and are chosen with RUST_LOG (for example RUST_LOG=debug).\n\n{}",
        crate::exit::HELP
    )
}

fn read_units(text: &str) -> Result<ReadUnits, String> {
    positive(text).and_then(|units| ReadUnits::per_second(units).ok_or_else(String::new))
}

fn seconds(text: &str) -> Result<f64, String> {
    match positive(text) {
        Ok(seconds) if seconds <= 3_600.0 => Ok(seconds),
        _ => Err("expected seconds, above 0 and at most 3600".to_owned()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("expected a number above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definitions_agree_with_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_documented_calls_parse() {
        for call in [
            "millpond demo",
            "millpond demo --events 1000 --jobs 3 --seed 9 --json --rate 2.5 --keep",
            "millpond run",
            "millpond run Connector.yaml --data-dir d --until-caught-up --secrets s",
            "millpond local --kinesis-port 0 --dynamodb-port 0 --data-dir d --exit-with-parent",
            "millpond emit --stream s --events 10 --log l --endpoint-url http://127.0.0.1:1",
            "millpond emit --to-file f --bytes 1000 --start 1763886000000",
            "millpond validate f",
            "millpond read --table t --group g --from 2026-11-23T08:00:00Z --to 1763886000000 --limit 1 --raw",
            "millpond read --table t --group g --limit 1 --page-token x --committed --max-read-units 0.5",
            "millpond tail --table t --group g --from 0 --limit 1 --poll 0.2 --skip-damaged",
            "millpond tail --table t --all --group-names --endpoint-url u --region r --profile p",
            "millpond export --table t --group g --format ndjson --output f --from 1 --to 2 --skip-damaged",
            "millpond export --table t --all --format parquet --output f --max-read-units 100 --profile p",
            "millpond groups --table t --region r --profile p --pipeline x",
            "millpond inspect --table t --group g",
            "millpond inspect --table t --pk p --sk s",
            "millpond deploy",
            "millpond deploy f --dry-run --secrets s --profile p --data-dir d --package-dir a --package-dir b",
            "millpond deploy f --cluster 127.0.0.1:9003",
            "millpond status f --json --cluster 127.0.0.1:9003 --data-dir d",
            "millpond down f --data-dir d",
            "millpond verify --table t",
            "millpond verify --table t --group g --deep --eventual --json",
            "millpond verify --table t --stream s --kinesis-endpoint-url u --aggregated keep-stray --accept-gaps --dead-letters f --dead-letters g --dead-letter-table d",
            "millpond dlq list --file f --reason r --state new --limit 3 --json",
            "millpond dlq show i --table t --pipeline p --raw",
            "millpond dlq replay --file f --all --dry-run --again --stream s --partition-key k --kinesis-endpoint-url u",
            "millpond dlq replay --table t --pipeline p --id a --id b --from 0 --to 1 --group g",
            "millpond schema",
        ] {
            if let Err(error) = Cli::try_parse_from(call.split(' ')) {
                panic!("{call}: {error}");
            }
        }
    }

    #[test]
    fn wrong_calls_are_refused() {
        for call in [
            "millpond",
            "millpond demo --events 0",
            "millpond demo --rate 0",
            "millpond demo --rate NaN",
            "millpond emit",
            "millpond deploy --profile p --cluster 127.0.0.1:9003",
            "millpond emit --stream s --to-file f",
            "millpond emit --stream s --events 1 --bytes 1",
            "millpond read --table t",
            "millpond read --table t --group g --from yesterday",
            "millpond read --table t --group g --max-read-units 0",
            "millpond tail --table t",
            "millpond tail --table t --group g --all",
            "millpond tail --table t --all --poll 0",
            "millpond export --table t --all --output f",
            "millpond export --table t --all --format csv --output f",
            "millpond export --table t --format ndjson --output f",
            "millpond inspect --table t",
            "millpond inspect --table t --pk p",
            "millpond verify --table t --group g --stream s",
            "millpond dlq list",
            "millpond dlq list --table t",
            "millpond dlq list --file f --table t --pipeline p",
        ] {
            assert!(Cli::try_parse_from(call.split(' ')).is_err(), "{call}");
        }
    }

    #[test]
    fn every_command_has_an_example() {
        for command in Cli::command().get_subcommands() {
            if command.get_name() == "schema" || command.get_name() == "help" {
                continue;
            }
            let help = command.get_after_help().map(ToString::to_string);
            assert!(
                help.is_some_and(|help| help.contains("Examples:")),
                "{}",
                command.get_name()
            );
        }
    }
}
