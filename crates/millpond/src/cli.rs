//! The command line: what `--help` shows.

mod cluster;
mod reading;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use millpond_connector::aws;
use millpond_connector::logging::LogFormat;

pub use cluster::{ClusterArgs, DeployArgs, DownArgs, StatusArgs};
pub use reading::{
    AggregatedArg, ExportArgs, ExportFormat, GroupsArgs, InspectArgs, ReadArgs, TableArgs,
    TailArgs, VerifyArgs,
};

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
    #[arg(long, value_name = "URL", value_parser = endpoint)]
    pub endpoint_url: Option<String>,
    /// Region, for example eu-central-1 [default: AWS_REGION, then the profile's]
    #[arg(long, value_parser = region)]
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
for byte. The report goes to stdout, everything else to stderr. SIGTERM or Ctrl-C ends it at once,
without a report (130).

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
A file that cannot be read is one.

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

fn overview() -> String {
    format!(
        "Start here:\n  \
         millpond demo                  the whole path on this machine, with a report\n  \
         millpond run Connector.yaml    the pipeline of a file, against AWS\n\n\
         Logs go to stderr and are chosen with RUST_LOG (for example RUST_LOG=debug).\n\n{}",
        crate::exit::HELP
    )
}

pub(crate) fn endpoint(text: &str) -> Result<String, String> {
    match aws::is_endpoint(text) {
        true => Ok(text.to_owned()),
        false => Err("expected `http://HOST[:PORT]` or `https://HOST[:PORT]`".to_owned()),
    }
}

fn region(text: &str) -> Result<String, String> {
    match aws::is_region(text) {
        true => Ok(text.to_owned()),
        false => Err("expected letters, digits and `-`, such as `eu-central-1`".to_owned()),
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
            "millpond tail --table t --all --group-names --endpoint-url http://u --region r --profile p",
            "millpond export --table t --group g --format ndjson --output f --from 1 --to 2 --skip-damaged",
            "millpond export --table t --all --format parquet --output f --max-read-units 100 --profile p",
            "millpond groups --table t --region r --profile p --pipeline x --skip-damaged",
            "millpond inspect --table t --group g --skip-damaged",
            "millpond inspect --table t --pk p --sk s",
            "millpond deploy",
            "millpond deploy f --dry-run --secrets s --profile p --data-dir d --package-dir a --package-dir b",
            "millpond deploy f --cluster 127.0.0.1:9003",
            "millpond status f --json --cluster 127.0.0.1:9003 --data-dir d",
            "millpond down f --data-dir d",
            "millpond verify --table t",
            "millpond verify --table t --group g --deep --eventual --json",
            "millpond verify --table t --stream s --kinesis-endpoint-url http://u --aggregated keep-stray --accept-gaps --dead-letters f --dead-letters g --dead-letter-table d",
            "millpond dlq list --file f --reason r --state new --limit 3 --json",
            "millpond dlq show i --table t --pipeline p --raw",
            "millpond dlq replay --file f --all --dry-run --again --stream s --partition-key k --kinesis-endpoint-url http://u",
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
