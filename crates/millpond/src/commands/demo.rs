//! `millpond demo`: the whole path on this machine, and a report on it.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use millpond_connector::drain;
use millpond_connector::manifest::ManifestFile;
use millpond_connector::registry::Direction;
use millpond_connector::secret::SecretStore;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::child::Child;
use crate::cli::{AwsArgs, DemoArgs};
use crate::commands::emit::Summary;
use crate::commands::local::REGION;
use crate::commands::{print, say};
use crate::connectors::{CONNECTOR_YAML, validate};
use crate::cost::WritePrice;
use crate::cpu::process_cpu_time;
use crate::data_dir::DataDir;
use crate::emit_log;
use crate::exit::Exit;
use crate::progress::Progress;
use crate::read_back::{Emitted, ReadBack, WrittenItems};
use crate::report::{Report, grouped};
use crate::runtime::{Runtime, Until, Watched};
use crate::stand_ins::StandIns;
use crate::time::now_ms;
use crate::workload::Workload;
use crate::yaml_override::override_section;

/// As the built-in file names them.
const STREAM: &str = "events";
const TABLE: &str = "events";
const PIPELINE: &str = "events";

const SHARDS: i32 = 4;

/// The stand-in has no limits of a shard: read it as fast as it goes.
const READS_PER_SECOND: &str = "50";
const READ_BYTES_PER_SECOND: &str = "64 MiB";

/// Nor of a table: write as fast as it goes.
const WRITE_UNITS: &str = "1000000000";

/// Without a terminal: a line of progress so often.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

const TICK: Duration = Duration::from_millis(50);

/// Nothing moved for so long: something is stuck, and waiting would not help.
const STUCK_LIMIT: Duration = Duration::from_secs(90);

/// Tries to remove the temporary directory.
const REMOVAL_ATTEMPTS: u32 = 20;

/// Runs `millpond demo`.
///
/// # Errors
/// When a part fails; a run that ends but is not exact is [`Exit::Mismatch`] instead.
pub async fn run(args: DemoArgs) -> Result<Exit> {
    let drain = drain::on_signals().context("cannot install the signal handlers")?;
    let place = Place::prepare(&args)?;
    let ended = tokio::select! {
        ended = demo(args, &place) => ended,
        // What is dropped here ends with it: children, tasks.
        () = drain.cancelled() => {
            say("demo: interrupted");
            Ok(Exit::Interrupted)
        }
    };
    place.leave().await;
    ended
}

async fn demo(args: DemoArgs, place: &Place) -> Result<Exit> {
    let price = args
        .usd_per_million_write_units
        .map_or_else(WritePrice::default, WritePrice::given);
    say("demo: starting the stand-ins for Kinesis and DynamoDB");
    let mut stand_ins = StandIns::start(place.tables().as_deref()).await?;
    stand_ins.create_stream(STREAM, SHARDS).await?;

    let log = place.path().join("emit.log");
    let passed = pipeline_phase(&args, place, &mut stand_ins, &log).await?;
    if passed.summary.reordered_by_stream + passed.summary.uncertain_calls > 0 {
        say(
            "demo: the stream refused parts of calls; it may hold events twice or in another order",
        );
    }
    let workload = Workload::new(args.seed, passed.summary.start_ms, args.jobs);
    let emitted = read_emit_log(&log, workload, passed.summary.clone()).await?;

    let client = aws_sdk_dynamodb::Client::new(&stand_ins.dynamodb.load().await?);
    let mut progress = Progress::start("read back", Some(emitted.events), LINE_INTERVAL);
    let read_back = ReadBack {
        client,
        table: TABLE,
        pipeline: PIPELINE,
        emitted: &emitted,
        written: &passed.written,
    };
    let mut figures = read_back.compare(&mut progress).await?;
    progress.finish(&format!("{} events", grouped(figures.events.read)));
    figures.add_pipeline(&passed.watched);
    figures.cpu_seconds = passed.cpu_time.as_secs_f64();
    figures.startup_cpu_seconds = passed.startup_cpu_time.as_secs_f64();
    figures.drained_events = passed.drained_events;
    figures.partitions = passed.partitions;
    stand_ins.end().await?;

    let report = Report::new(&figures, &price);
    if args.json {
        print(&serde_json::to_string(&report)?)?;
    } else {
        print(report.to_text(&price).trim_end())?;
    }
    place.say_where();
    if report.events.is_exact() {
        return Ok(Exit::Success);
    }
    say("demo: what was read back is not what was emitted");
    Ok(Exit::Mismatch)
}

/// What the pipeline phase leaves behind.
struct Passed {
    summary: Summary,
    watched: Vec<Watched>,
    written: WrittenItems,
    /// From the first emission on.
    cpu_time: Duration,
    /// Of this process until then.
    startup_cpu_time: Duration,
    /// Events that the drain wrote.
    drained_events: u64,
    /// Topic partitions that the sink held.
    partitions: u64,
}

/// Starts the pipeline, then emits, and runs the pipeline until all that was emitted is committed.
async fn pipeline_phase(
    args: &DemoArgs,
    place: &Place,
    stand_ins: &mut StandIns,
    log: &Path,
) -> Result<Passed> {
    let text = pipeline_text(&stand_ins.kinesis, &stand_ins.dynamodb)?;
    let file = ManifestFile::from_bytes("Connector.yaml (built in)", text, place.path());
    let validation = validate(&file, &SecretStore::from_environment());
    let Some(pipeline) = validation.pipeline else {
        bail!(
            "the built-in pipeline is not valid: {}",
            validation.problems
        );
    };
    let runtime = Runtime::build(pipeline, DataDir::open(&place.path().join("pipeline"))?).await?;
    let watched = runtime.watched().to_vec();
    let source = watch(&watched, Direction::Source)?;
    let sink = watch(&watched, Direction::Sink)?;
    let written = WrittenItems::watching(&sink.metrics);

    let drain = CancellationToken::new();
    let running = runtime.run(drain.clone(), Until::Told, None);
    tokio::pin!(running);
    say("demo: starting the pipeline");
    tokio::select! {
        ended = &mut running => {
            ended?;
            bail!("the pipeline ended before anything was emitted");
        }
        error = stand_ins.gone() => return Err(error),
        ready = ready(&watched) => ready?,
    }

    let startup_cpu_time = process_cpu_time();
    let mut progress = Progress::start("pipeline", Some(args.events), LINE_INTERVAL);
    let mut emit = start_emit(args, &stand_ins.kinesis, log)?;
    let mut summary: Option<Summary> = None;
    let mut done_before_drain = 0;
    let mut partitions = 0;
    let mut moved = Moved::now();
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            ended = &mut running => {
                ended?;
                break;
            }
            line = emit.line(), if summary.is_none() => {
                summary = Some(serde_json::from_str(&line?).context("`emit` gave no summary")?);
                emit.finished().await?;
            }
            error = stand_ins.gone() => return Err(error),
            _ = tick.tick() => {}
        }
        let durable = source.metrics.topic_events.get();
        let done = sink.metrics.sink_events.get() + sink.metrics.dead_letters.get();
        partitions = partitions.max(sink.metrics.partitions_held.load(Relaxed));
        progress.update(done, || crate::commands::run::summary(&watched));
        if summary
            .as_ref()
            .is_some_and(|summary| durable >= summary.events)
            && !drain.is_cancelled()
        {
            done_before_drain = done;
            drain.cancel();
        }
        if !moved.is_moving([durable, done, source.metrics.source_events.get()]) {
            bail!(
                "nothing moved for {} s: {}",
                STUCK_LIMIT.as_secs(),
                crate::commands::run::summary(&watched)
            );
        }
    }
    let cpu_time = process_cpu_time() - startup_cpu_time;
    progress.finish(&crate::commands::run::summary(&watched));
    let done = sink.metrics.sink_events.get() + sink.metrics.dead_letters.get();
    Ok(Passed {
        summary: summary.context("the pipeline ended before all was emitted")?,
        watched,
        written,
        cpu_time,
        startup_cpu_time,
        drained_events: done.saturating_sub(done_before_drain),
        partitions,
    })
}

/// Resolves once every connector runs: shards are read, partitions open, SmartModules compiled.
async fn ready(watched: &[Watched]) -> Result<()> {
    let deadline = Instant::now() + STUCK_LIMIT;
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        let Some(late) = watched.iter().find(|watched| !watched.is_ready()) else {
            return Ok(());
        };
        if Instant::now() > deadline {
            bail!(
                "connector `{}` was not ready within {} s",
                late.name,
                STUCK_LIMIT.as_secs()
            );
        }
    }
}

fn watch(watched: &[Watched], direction: Direction) -> Result<Watched> {
    let found = watched
        .iter()
        .find(|watched| watched.direction == direction);
    found
        .cloned()
        .with_context(|| format!("the built-in pipeline has no {direction}"))
}

/// Sees when nothing moves any more.
struct Moved {
    counters: [u64; 3],
    since: Instant,
}

impl Moved {
    fn now() -> Self {
        Self {
            counters: [0; 3],
            since: Instant::now(),
        }
    }

    fn is_moving(&mut self, counters: [u64; 3]) -> bool {
        if counters != self.counters {
            self.counters = counters;
            self.since = Instant::now();
        }
        self.since.elapsed() < STUCK_LIMIT
    }
}

/// The built-in file with the stand-ins as endpoints.
fn pipeline_text(kinesis: &AwsArgs, dynamodb: &AwsArgs) -> Result<String> {
    let settings = |aws: &AwsArgs| {
        let url = aws.endpoint_url.clone().unwrap_or_default();
        vec![("endpoint", url), ("region", REGION.to_owned())]
    };
    let mut source = settings(kinesis);
    source.push(("reads-per-second", READS_PER_SECOND.to_owned()));
    source.push(("read-bytes-per-second", READ_BYTES_PER_SECOND.to_owned()));
    let text = override_section(CONNECTOR_YAML, "kinesis", &source)?;
    let mut sink = settings(dynamodb);
    sink.push(("max-write-units-per-second", WRITE_UNITS.to_owned()));
    sink.push(("max-write-units-per-key", "none".to_owned()));
    override_section(&text, "dynamodb", &sink)
}

fn start_emit(args: &DemoArgs, kinesis: &AwsArgs, log: &Path) -> Result<Child> {
    let path = log.to_str().context("data directory is not UTF-8")?;
    let mut arguments = vec![
        "emit".to_owned(),
        "--exit-with-parent".to_owned(),
        format!("--stream={STREAM}"),
        format!("--events={}", args.events),
        format!("--jobs={}", args.jobs),
        format!("--seed={}", args.seed),
        format!("--start={}", now_ms()),
        format!("--log={path}"),
        format!("--region={REGION}"),
        format!(
            "--endpoint-url={}",
            kinesis.endpoint_url.as_deref().unwrap_or_default()
        ),
    ];
    if let Some(rate) = args.rate {
        arguments.push(format!("--rate={rate}"));
    }
    Child::spawn("emit", &arguments, &[])
}

async fn read_emit_log(log: &Path, workload: Workload, summary: Summary) -> Result<Emitted> {
    let file = File::open(log).with_context(|| format!("cannot read `{}`", log.display()))?;
    let mut emitted = Emitted::new(workload, summary.events, summary.bytes, summary.start_ms);
    tokio::task::spawn_blocking(move || {
        emit_log::read(BufReader::new(file), |index, ms| emitted.sent(index, ms))
            .context("cannot read the emit log")?;
        Ok(emitted)
    })
    .await?
}

/// Where the files of this run are.
enum Place {
    /// Gone when the demo is.
    Passing(TempDir),
    /// Left behind.
    Kept(PathBuf),
}

impl Place {
    fn prepare(args: &DemoArgs) -> Result<Self> {
        if let Some(dir) = &args.data_dir {
            std::fs::create_dir_all(dir)
                .with_context(|| format!("cannot create the data directory `{}`", dir.display()))?;
            let mut entries = std::fs::read_dir(dir)
                .with_context(|| format!("cannot read the data directory `{}`", dir.display()))?;
            if entries.next().is_some() {
                bail!(
                    "data directory `{}` is not empty; give an empty or a new one",
                    dir.display()
                );
            }
            return Ok(Self::Kept(dir.clone()));
        }
        let dir = tempfile::Builder::new()
            .prefix("millpond-demo-")
            .tempdir()
            .context("cannot create a temporary directory; give one with `--data-dir`")?;
        Ok(if args.keep {
            Self::Kept(dir.keep())
        } else {
            Self::Passing(dir)
        })
    }

    fn path(&self) -> &Path {
        match self {
            Self::Passing(dir) => dir.path(),
            Self::Kept(dir) => dir,
        }
    }

    /// Where the tables are kept, unless they live in memory.
    fn tables(&self) -> Option<PathBuf> {
        match self {
            Self::Passing(_) => None,
            Self::Kept(dir) => Some(dir.join("tables")),
        }
    }

    /// Removes what is not kept. Tasks that were dropped may still be about to end, and write.
    async fn leave(self) {
        let Self::Passing(dir) = self else { return };
        for _ in 0..REMOVAL_ATTEMPTS {
            if std::fs::remove_dir_all(dir.path()).is_ok() {
                return;
            }
            tokio::time::sleep(TICK).await;
        }
        say(&format!("demo: cannot remove `{}`", dir.path().display()));
    }

    fn say_where(&self) {
        if let Some(tables) = self.tables() {
            say(&format!(
                "demo: everything is kept in `{}`; the table is back with `millpond local --data-dir {}`, then for example `millpond groups --table {TABLE}`",
                self.path().display(),
                tables.display()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_file_takes_the_stand_ins() {
        let aws = |url: &str| AwsArgs {
            endpoint_url: Some(url.to_owned()),
            ..AwsArgs::default()
        };
        let text = pipeline_text(&aws("http://127.0.0.1:1"), &aws("http://127.0.0.1:2"))
            .expect("sections are there");
        let file = ManifestFile::from_bytes("Connector.yaml", text, "");
        let validation = validate(&file, &SecretStore::from_environment());
        assert!(validation.problems.is_empty(), "{}", validation.problems);
        for name in [STREAM, TABLE, PIPELINE] {
            assert!(CONNECTOR_YAML.contains(&format!(": {name}\n")), "{name}");
        }
    }
}
