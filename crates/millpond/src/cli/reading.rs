//! Arguments of the commands that read a table.

use std::path::PathBuf;

use clap::Args;
use millpond_reader::ReadUnits;

use super::{AwsArgs, positive};

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
Totals come from the header of a group's last item, so damage to earlier ones is not seen here:
`verify` looks at all. With --skip-damaged the totals are those up to the last item that can be read.

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
    /// Report damaged items on stderr, go on with the rest, and end with 5
    #[arg(long)]
    pub skip_damaged: bool,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without --sk it shows the items of the group, up to --limit, one JSON object per line. An item whose
header can be read is shown, with what is wrong with its frames as their `check`; any other is
damaged.

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
    /// Report damaged items of the group on stderr, go on with the rest, and end with 5
    #[arg(long, conflicts_with = "pk")]
    pub skip_damaged: bool,
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
  millpond verify --table events --dead-letters .millpond/connectors/events-sink/dead-letters.jsonl")]
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
    #[arg(long, value_name = "URL", requires = "stream", value_parser = super::endpoint)]
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

fn read_units(text: &str) -> Result<ReadUnits, String> {
    positive(text).and_then(|units| ReadUnits::per_second(units).ok_or_else(String::new))
}

fn seconds(text: &str) -> Result<f64, String> {
    match positive(text) {
        Ok(seconds) if seconds <= 3_600.0 => Ok(seconds),
        _ => Err("expected seconds, above 0 and at most 3600".to_owned()),
    }
}
