//! `millpond dlq`: what could not be written, and putting it back.

use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use millpond_connector::data_dir::DataDir;
use millpond_connector::topic::Topic;
use millpond_embedded_topic::EmbeddedTopic;
use millpond_fluvio_topic::TopicOptions;
use serde_json::json;

use crate::cli::{AwsArgs, ClusterArgs};
use crate::cluster::fluvio::connect_cluster;
use crate::commands::{print, say};
use crate::dlq::file::FileLetters;
use crate::dlq::replay::{Outcome, Summary, replay};
use crate::dlq::table::TableLetters;
use crate::dlq::topic::TopicLetters;
use crate::dlq::{Entry, Letters, State};
use crate::exit::Exit;
use crate::runtime::letter_topic_config;
use crate::time::text_ms;

/// Arguments of `dlq`.
#[derive(Debug, Args)]
#[command(after_help = "\
Dead letters are where the sink was told to put them: in a file (by default dead-letters.jsonl in the
data directory's connectors/<meta.name>), in a table, or in a topic: one of the data directory, which only one
process at a time can use, or one of a Fluvio cluster.

Examples:
  millpond dlq list --file .millpond/connectors/events-sink/dead-letters.jsonl
  millpond dlq list --table dead-events --pipeline events-sink --reason not-json --json | jq .detail
  millpond dlq show events-sink/events/0/4711/0 --table dead-events --pipeline events-sink
  millpond dlq replay --file dead-letters.jsonl --reason field-missing --dry-run
  millpond dlq replay --file dead-letters.jsonl --all
  millpond dlq list --topic dead-events --data-dir .millpond
  millpond dlq replay --topic dead-events --cluster 127.0.0.1:9003 --reason not-json")]
pub struct DlqArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: DlqCommand,
}

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// List them, one a line
    List(ListArgs),
    /// Show one with its bytes
    Show(ShowArgs),
    /// Put their events back into the stream, byte for byte
    Replay(ReplayArgs),
}

/// Where dead letters are.
#[derive(Debug, Args)]
pub struct PlaceArgs {
    /// A dead-letter file
    #[arg(long, value_name = "FILE", required_unless_present_any = ["table", "topic"], conflicts_with_all = ["table", "pipeline", "topic"])]
    pub file: Option<PathBuf>,
    /// The table of the dead letters
    #[arg(long, requires = "pipeline", conflicts_with = "topic")]
    pub table: Option<String>,
    /// The pipeline whose dead letters they are
    #[arg(long, requires = "table")]
    pub pipeline: Option<String>,
    /// A topic of dead letters, with one of the next three
    #[arg(long, group = "letter_topic")]
    pub topic: Option<String>,
    /// Of `millpond run` with this data directory
    #[arg(long, value_name = "DIR", requires = "topic", conflicts_with_all = ["cluster", "cluster_profile"])]
    pub data_dir: Option<PathBuf>,
    /// Of the Fluvio cluster with this controller (SC), without TLS
    #[arg(
        long,
        value_name = "HOST:PORT",
        requires = "topic",
        conflicts_with = "cluster_profile"
    )]
    pub cluster: Option<String>,
    /// Of the Fluvio cluster of this profile of Fluvio's own configuration
    #[arg(long, value_name = "PROFILE", requires = "topic")]
    pub cluster_profile: Option<String>,
    /// Which AWS to speak to.
    #[command(flatten)]
    pub aws: AwsArgs,
}

/// Which dead letters.
#[derive(Debug, Args)]
pub struct ChoiceArgs {
    /// Only with this reason
    #[arg(long)]
    pub reason: Option<String>,
    /// Only of this group
    #[arg(long)]
    pub group: Option<String>,
    /// Only with an event time from here on
    #[arg(long, value_name = "TIME", value_parser = crate::time::parse_ms)]
    pub from: Option<i64>,
    /// Only with an event time before
    #[arg(long, value_name = "TIME", value_parser = crate::time::parse_ms)]
    pub to: Option<i64>,
}

/// Arguments of `dlq list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Where.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Which.
    #[command(flatten)]
    pub choice: ChoiceArgs,
    /// Only in this state
    #[arg(long, value_enum)]
    pub state: Option<State>,
    /// Stop after this many
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// One JSON object per line instead of columns
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `dlq show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Its id, as `dlq list` shows it
    pub id: String,
    /// Where.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// As JSON, the bytes in base64
    #[arg(long, conflicts_with = "raw")]
    pub json: bool,
    /// The bytes and nothing else
    #[arg(long)]
    pub raw: bool,
}

/// Arguments of `dlq replay`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each event goes into the stream that its origin names, under the partition key that it had, as a new
record: a sink treats it as any other event. What was put back is noted (in FILE.replayed, in rows
of the table, or in records of the topic) and never put back again. An entry whose note says `begun` may be in the stream, because
the answer was lost or the process died: it is left alone without --again.

Exit code 0: all that were chosen are in the stream. 1: some are not, or may not be.")]
pub struct ReplayArgs {
    /// Where.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Which.
    #[command(flatten)]
    pub choice: ChoiceArgs,
    /// This one; may be given several times
    #[arg(long, value_name = "ID")]
    pub id: Vec<String>,
    /// All of them; without it, something must choose
    #[arg(long)]
    pub all: bool,
    /// Into this stream, instead of that of the origin
    #[arg(long)]
    pub stream: Option<String>,
    /// Under this partition key, instead of that of the origin
    #[arg(long, value_name = "KEY")]
    pub partition_key: Option<String>,
    /// URL of Kinesis in place of AWS [default: AWS_ENDPOINT_URL_KINESIS]
    #[arg(long, value_name = "URL", value_parser = crate::cli::endpoint)]
    pub kinesis_endpoint_url: Option<String>,
    /// Also those that may be in the stream already
    #[arg(long)]
    pub again: bool,
    /// Say what would be put where, and put nothing
    #[arg(long)]
    pub dry_run: bool,
    /// JSON, one object per line, and a summary at the end
    #[arg(long)]
    pub json: bool,
}

/// Runs `millpond dlq`.
///
/// # Errors
/// When the dead letters cannot be read, or a replay cannot go on.
pub async fn run(args: DlqArgs) -> Result<Exit> {
    match args.command {
        DlqCommand::List(args) => list(args).await,
        DlqCommand::Show(args) => show(args).await,
        DlqCommand::Replay(args) => replay_all(args).await,
    }
}

impl PlaceArgs {
    async fn open(&self) -> Result<Letters> {
        match (&self.file, &self.table, &self.pipeline) {
            (Some(file), ..) => Ok(Letters::File(FileLetters::open(file)?)),
            (None, Some(table), Some(pipeline)) => {
                let client = aws_sdk_dynamodb::Client::new(&self.aws.load().await?);
                let letters = TableLetters::open(client, table, pipeline).await?;
                Ok(Letters::Table(letters))
            }
            _ => match &self.topic {
                Some(name) => {
                    let topic = self.topic(name).await?;
                    Ok(Letters::Topic(TopicLetters::open(topic).await?))
                }
                None => bail!("give `--file`, `--topic`, or `--table` and `--pipeline`"),
            },
        }
    }

    /// Opens the topic where the arguments say it is.
    async fn topic(&self, name: &str) -> Result<Arc<dyn Topic>> {
        if let Some(path) = &self.data_dir {
            // Opening a topic makes it, so it is looked for first.
            let dir = DataDir::topic_in(path, name);
            if !dir.is_dir() {
                bail!(
                    "there is no topic `{name}` in the data directory `{}`",
                    path.display()
                );
            }
            let config = letter_topic_config(dir, name);
            let topic = tokio::task::spawn_blocking(move || EmbeddedTopic::open(config)).await??;
            return Ok(Arc::new(topic));
        }
        if self.cluster.is_none() && self.cluster_profile.is_none() {
            bail!("say where topic `{name}` is: `--data-dir`, `--cluster` or `--cluster-profile`");
        }
        let cluster = connect_cluster(&ClusterArgs {
            profile: self.cluster_profile.clone(),
            cluster: self.cluster.clone(),
        })
        .await?;
        let topic = cluster.open_topic(name, TopicOptions::default()).await;
        Ok(Arc::new(topic.with_context(|| format!("topic `{name}`"))?))
    }
}

impl ReplayArgs {
    /// True when an entry was asked for by its id or its reason.
    fn names(&self, entry: &Entry) -> bool {
        self.id.contains(&entry.id) || self.choice.reason.as_ref() == Some(&entry.reason)
    }
}

impl ChoiceArgs {
    fn takes(&self, entry: &Entry) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        is(&self.reason, Some(&entry.reason))
            && is(&self.group, entry.group.as_deref())
            && self.from.is_none_or(|from| entry.time_ms >= from)
            && self.to.is_none_or(|to| entry.time_ms < to)
    }

    fn is_everything(&self) -> bool {
        let Self {
            reason,
            group,
            from,
            to,
        } = self;
        reason.is_none() && group.is_none() && from.is_none() && to.is_none()
    }
}

async fn list(args: ListArgs) -> Result<Exit> {
    let mut letters = args.place.open().await?;
    let mut out = BufWriter::new(io::stdout());
    let mut shown = 0;
    while args.limit.is_none_or(|limit| shown < limit) {
        let Some(entry) = letters.next().await? else {
            break;
        };
        let in_state = args.state.is_none_or(|state| entry.state == state);
        if !in_state || !args.choice.takes(&entry) {
            continue;
        }
        shown += 1;
        let line = if args.json {
            json_of(&entry).to_string()
        } else {
            columns(&entry)
        };
        writeln!(out, "{line}").context("cannot write to stdout")?;
    }
    out.flush().context("cannot write to stdout")?;
    if !args.json {
        say(&format!("{shown} dead letters"));
    }
    Ok(Exit::Success)
}

async fn show(args: ShowArgs) -> Result<Exit> {
    let mut letters = args.place.open().await?;
    let entry = loop {
        match letters.next().await? {
            Some(entry) if entry.id == args.id => break entry,
            Some(_) => {}
            None => bail!("there is no dead letter `{}`", args.id),
        }
    };
    if args.raw {
        let mut out = io::stdout().lock();
        let written = out.write_all(&entry.value).and_then(|()| out.flush());
        written.context("cannot write to stdout")?;
        return Ok(Exit::Success);
    }
    if args.json {
        let mut shown = json_of(&entry);
        shown["value_base64"] = STANDARD.encode(&entry.value).into();
        print(&format!("{shown:#}"))?;
        return Ok(Exit::Success);
    }
    let origin = entry
        .origin
        .as_deref()
        .map_or_else(|| "-".into(), printable);
    let group = entry.group.as_deref().map_or_else(|| "-".into(), printable);
    let text = String::from_utf8_lossy(&entry.value);
    print(&format!(
        "id      {}\ntime    {}\nreason  {}\ndetail  {}\norigin  {origin}\ngroup   {group}\nstate   {}\nbytes   {}\n\n{}",
        printable(&entry.id),
        time(&entry),
        printable(&entry.reason),
        printable(&entry.detail),
        entry.state.name(),
        entry.value.len(),
        printable(&text),
    ))?;
    Ok(Exit::Success)
}

async fn replay_all(args: ReplayArgs) -> Result<Exit> {
    if args.choice.is_everything() && args.id.is_empty() && !args.all {
        bail!("say which ones: `--id`, `--reason`, `--group`, `--from`, `--to`, or `--all`");
    }
    let mut letters = args.place.open().await?;
    let aws = AwsArgs {
        // An endpoint of DynamoDB is none of Kinesis.
        endpoint_url: args.kinesis_endpoint_url.clone(),
        ..args.place.aws.clone()
    };
    let kinesis = aws_sdk_kinesis::Client::new(&aws.load().await?);
    let mut summary = Summary::default();
    while let Some(entry) = letters.next().await? {
        let is_named = args.id.is_empty() || args.id.contains(&entry.id);
        if is_named && args.choice.takes(&entry) {
            one(&args, &mut letters, &entry, &kinesis, &mut summary).await?;
        }
    }
    if args.json {
        print(&json!({"summary": summary}).to_string())?;
    } else {
        say(&format!(
            "{} put back, {} were before, {} uncertain, {} refused by the stream, {} without an event",
            summary.replayed,
            summary.replayed_before,
            summary.uncertain,
            summary.refused,
            summary.without_event
        ));
    }
    Ok(if summary.is_whole() {
        Exit::Success
    } else {
        Exit::Failure
    })
}

async fn one(
    args: &ReplayArgs,
    letters: &mut Letters,
    entry: &Entry,
    kinesis: &aws_sdk_kinesis::Client,
    summary: &mut Summary,
) -> Result<()> {
    let to = entry.destination(args.stream.as_deref(), args.partition_key.as_deref());
    let (what, detail) = match (entry.state, &to) {
        (State::Replayed, _) => {
            summary.replayed_before += 1;
            return Ok(());
        }
        (_, Err(why)) => {
            summary.without_event += 1;
            ("without-event", why.to_string())
        }
        (State::Begun, Ok(_)) if !args.again => {
            summary.uncertain += 1;
            let why = "an earlier replay did not end: look into the stream, then say `--again`";
            ("uncertain", why.to_owned())
        }
        (_, Ok(_)) if entry.is_in_doubt() && !args.names(entry) => {
            summary.uncertain += 1;
            let why = "it may be in the table: look there, then name its id or its reason";
            ("uncertain", why.to_owned())
        }
        (_, Ok(to)) if args.dry_run => {
            summary.replayed += 1;
            let place = format!("stream `{}`, key `{}`", to.stream, to.partition_key);
            ("would-be-replayed", place)
        }
        (_, Ok(to)) => match replay(letters, entry, to, kinesis).await? {
            Outcome::Replayed(sequence) => {
                summary.replayed += 1;
                ("replayed", format!("stream `{}` at {sequence}", to.stream))
            }
            Outcome::Uncertain(why) => {
                summary.uncertain += 1;
                ("uncertain", why)
            }
            Outcome::Taken => {
                summary.uncertain += 1;
                ("uncertain", "another replay is putting it back".to_owned())
            }
            Outcome::Refused(why) => {
                summary.refused += 1;
                ("refused", why)
            }
        },
    };
    if args.json {
        print(&json!({"id": entry.id, "outcome": what, "detail": detail}).to_string())
    } else {
        print(&format!(
            "{what:<17}  {}  {}",
            printable(&entry.id),
            printable(&detail)
        ))
    }
}

fn time(entry: &Entry) -> String {
    match entry.time_ms {
        0 => "-".to_owned(),
        ms => text_ms(ms),
    }
}

fn columns(entry: &Entry) -> String {
    format!(
        "{:<24}  {:<18}  {:<8}  {:>9}  {}  {}",
        time(entry),
        printable(&entry.reason),
        entry.state.name(),
        entry.value.len(),
        printable(&entry.id),
        printable(&entry.detail),
    )
}

fn json_of(entry: &Entry) -> serde_json::Value {
    json!({
        "id": entry.id,
        "time": (entry.time_ms != 0).then(|| text_ms(entry.time_ms)),
        "reason": entry.reason,
        "detail": entry.detail,
        "origin": entry.origin,
        "group": entry.group,
        "bytes": entry.value.len(),
        "state": entry.state,
    })
}

/// Text from outside: control characters must not reach the terminal.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            out.extend(letter.escape_default());
        } else {
            out.push(letter);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            id: "p/t/0/9/0".into(),
            time_ms: 1_763_886_000_123,
            reason: "not-json".into(),
            detail: "bad \u{1b}[31m".into(),
            origin: None,
            group: Some("g".into()),
            value: vec![0xff; 10],
            state: State::Begun,
        }
    }

    #[test]
    fn an_entry_is_shown_for_people_and_for_programs() {
        let line = columns(&entry());
        assert_eq!(
            line,
            "2025-11-23T08:20:00.123Z  not-json            begun            10  p/t/0/9/0  bad \\u{1b}[31m"
        );
        let json = json_of(&entry());
        assert_eq!(
            (json["bytes"].as_u64(), json["state"].as_str()),
            (Some(10), Some("begun"))
        );
        assert_eq!(json["detail"], "bad \u{1b}[31m");
    }

    #[test]
    fn choices_go_together() {
        let choice = |reason: Option<&str>, from, to| ChoiceArgs {
            reason: reason.map(str::to_owned),
            group: Some("g".into()),
            from,
            to,
        };
        assert!(choice(Some("not-json"), Some(0), None).takes(&entry()));
        assert!(!choice(Some("too-large"), None, None).takes(&entry()));
        assert!(!choice(None, None, Some(1_763_886_000_123)).takes(&entry()));
        assert!(!choice(None, None, None).is_everything());
    }
}
