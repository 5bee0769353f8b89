//! `millpond emit`: the synthetic workload into a stream.

use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use millpond_connector::aws::place;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::aggregator::Aggregator;
use crate::child;
use crate::cli::EmitArgs;
use crate::commands::print;
use crate::emit_log::EmitLogWriter;
use crate::exit::Exit;
use crate::put_records::{
    Lane, MAX_CALL_BYTES, MAX_CALL_RECORDS, Pending, PutStatistics, SentHook,
};
use crate::time::now_ms;
use crate::workload::{DEFAULT_EVENTS, Workload};

/// Calls in flight at once.
const LANES: usize = 8;

/// With a rate, events wait at most about so long for their call to fill up.
const PACE_STEP: Duration = Duration::from_millis(50);

/// What was emitted; printed as one JSON object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Events accepted by the stream.
    pub events: u64,
    /// Bytes of those events.
    pub bytes: u64,
    /// Seed of the workload.
    pub seed: u64,
    /// Jobs that ran at once.
    pub jobs: u32,
    /// Time of the first event, milliseconds since the Unix epoch.
    pub start_ms: i64,
    /// How long it took.
    pub seconds: f64,
    /// `PutRecords` calls.
    pub calls: u64,
    /// Records put again after a throttle or a failure.
    pub resent: u64,
    /// Calls without a known outcome: their events may be in the stream twice.
    pub uncertain_calls: u64,
    /// Events that the stream itself took in another order than they were sent.
    pub reordered_by_stream: u64,
}

/// Runs `millpond emit`.
///
/// # Errors
/// When the stream refuses for good, or a file cannot be written.
pub async fn run(args: EmitArgs) -> Result<Exit> {
    let emitted = async {
        match (&args.to_file, &args.stream) {
            (Some(path), _) => emit_to_file(&args, path),
            (None, Some(stream)) => emit_to_stream(&args, stream).await,
            (None, None) => Err(anyhow!("give `--stream` or `--to-file`")),
        }
    };
    let summary = if args.exit_with_parent {
        tokio::select! {
            summary = emitted => summary?,
            () = child::parent_gone()? => return Ok(Exit::Failure),
        }
    } else {
        emitted.await?
    };
    print(&serde_json::to_string(&summary)?)?;
    Ok(Exit::Success)
}

/// How far to go.
struct Extent {
    events: u64,
    bytes: u64,
}

impl Extent {
    fn of(args: &EmitArgs) -> Self {
        match (args.events, args.bytes) {
            (Some(events), _) => Self {
                events,
                bytes: u64::MAX,
            },
            (None, Some(bytes)) => Self {
                events: u64::MAX,
                bytes,
            },
            (None, None) => Self {
                events: DEFAULT_EVENTS,
                bytes: u64::MAX,
            },
        }
    }

    fn is_reached(&self, events: u64, bytes: u64) -> bool {
        events >= self.events || bytes >= self.bytes
    }
}

async fn emit_to_stream(args: &EmitArgs, stream: &str) -> Result<Summary> {
    let sdk = args.aws.load().await?;
    let client = aws_sdk_kinesis::Client::new(&sdk);
    let log = args.log.as_deref().map(open_log).transpose()?;
    let statistics = Arc::new(PutStatistics::default());
    let mut aggregator = match args.kpl {
        Some(events) => Some(Aggregator::new(&client, stream, events as usize).await?),
        None => None,
    };
    let lane = Lane {
        client,
        stream: stream.to_owned(),
        place: place(&sdk, "Kinesis"),
        statistics: Arc::clone(&statistics),
        sent: log.as_ref().map(sent_hook),
    };
    let start_ms = args.start.unwrap_or_else(now_ms);
    let workload = Workload::new(args.seed, start_ms, args.jobs);
    let extent = Extent::of(args);
    let mut lanes = Lanes::start(&lane);
    let started = Instant::now();
    let (mut events, mut bytes) = (0, 0_u64);
    while !extent.is_reached(events, bytes) {
        let event = workload.event(events);
        bytes += event.data.len() as u64;
        let entry = match &mut aggregator {
            Some(aggregator) => aggregator.push(&event.partition_key, event.data.into())?,
            None => Some(
                PutRecordsRequestEntry::builder()
                    .partition_key(event.partition_key)
                    .data(Blob::new(event.data))
                    .build()?,
            ),
        };
        let index = events;
        events += 1;
        if let Some(entry) = entry
            && !lanes.push(Pending { index, entry }).await
        {
            break;
        }
        if let Some(rate) = args.rate {
            let due = Duration::from_secs_f64(bytes as f64 / (rate * 1e6));
            if let Some(ahead) = due.checked_sub(started.elapsed())
                && ahead > PACE_STEP
            {
                push_open(&mut aggregator, &mut lanes, events).await?;
                lanes.flush().await;
                tokio::time::sleep(ahead).await;
            }
        }
    }
    push_open(&mut aggregator, &mut lanes, events).await?;
    lanes.finish().await?;
    drop(lane);
    if let Some(log) = log {
        let log = Arc::into_inner(log).and_then(|log| log.into_inner().ok());
        log.context("emit log is still in use")?
            .finish()
            .context("cannot write the emit log")?;
    }
    Ok(Summary {
        events,
        bytes,
        seed: args.seed,
        jobs: args.jobs,
        start_ms,
        seconds: started.elapsed().as_secs_f64(),
        calls: statistics.calls.load(Ordering::Relaxed),
        resent: statistics.resent.load(Ordering::Relaxed),
        uncertain_calls: statistics.uncertain_calls.load(Ordering::Relaxed),
        reordered_by_stream: statistics.reordered.load(Ordering::Relaxed),
    })
}

/// Hands on the records that are not full.
async fn push_open(
    aggregator: &mut Option<Aggregator>,
    lanes: &mut Lanes,
    index: u64,
) -> Result<()> {
    if let Some(aggregator) = aggregator {
        for entry in aggregator.take_open()? {
            // A lane that is gone has failed, and `finish` tells why.
            let _ = lanes.push(Pending { index, entry }).await;
        }
    }
    Ok(())
}

fn emit_to_file(args: &EmitArgs, path: &Path) -> Result<Summary> {
    let at = || format!("cannot write `{}`", path.display());
    let mut out = BufWriter::new(File::create(path).with_context(at)?);
    let start_ms = args.start.unwrap_or_else(now_ms);
    let workload = Workload::new(args.seed, start_ms, args.jobs);
    let extent = Extent::of(args);
    let started = Instant::now();
    let (mut events, mut bytes) = (0, 0_u64);
    while !extent.is_reached(events, bytes) {
        let event = workload.event(events);
        bytes += event.data.len() as u64;
        events += 1;
        writeln!(out, "{}", event.data).with_context(at)?;
    }
    out.flush().with_context(at)?;
    Ok(Summary {
        events,
        bytes,
        seed: args.seed,
        jobs: args.jobs,
        start_ms,
        seconds: started.elapsed().as_secs_f64(),
        calls: 0,
        resent: 0,
        uncertain_calls: 0,
        reordered_by_stream: 0,
    })
}

type SharedLog = Arc<Mutex<EmitLogWriter<BufWriter<File>>>>;

fn open_log(path: &Path) -> Result<SharedLog> {
    let file = File::create(path)
        .with_context(|| format!("cannot write the emit log `{}`", path.display()))?;
    Ok(Arc::new(Mutex::new(EmitLogWriter::new(BufWriter::new(
        file,
    ))?)))
}

fn sent_hook(log: &SharedLog) -> SentHook {
    let log = Arc::clone(log);
    Arc::new(move |sent_ms, indices| {
        let mut log = log
            .lock()
            .map_err(|_| std::io::Error::other("emit log is poisoned"))?;
        log.append(sent_ms, indices)
    })
}

/// Lanes side by side; a partition key always takes the same one.
struct Lanes {
    filling: Vec<Filling>,
    senders: Vec<mpsc::Sender<Vec<Pending>>>,
    tasks: JoinSet<Result<()>>,
}

#[derive(Default)]
struct Filling {
    records: Vec<Pending>,
    bytes: usize,
}

impl Lanes {
    fn start(lane: &Lane) -> Self {
        let mut tasks = JoinSet::new();
        let senders = (0..LANES)
            .map(|_| {
                let (sender, receiver) = mpsc::channel(1);
                tasks.spawn(lane.clone().run(receiver));
                sender
            })
            .collect();
        Self {
            filling: (0..LANES).map(|_| Filling::default()).collect(),
            senders,
            tasks,
        }
    }

    /// Takes a record; false when its lane has failed, which [`Lanes::finish`] then tells.
    async fn push(&mut self, record: Pending) -> bool {
        let mut hasher = DefaultHasher::new();
        record.entry.partition_key.hash(&mut hasher);
        let index = (hasher.finish() % LANES as u64) as usize;
        let Some(filling) = self.filling.get_mut(index) else {
            return false;
        };
        let bytes =
            record.entry.partition_key().map_or(0, str::len) + record.entry.data().as_ref().len();
        let full = filling.records.len() == MAX_CALL_RECORDS
            || filling.bytes + bytes > MAX_CALL_BYTES && !filling.records.is_empty();
        let call = full.then(|| std::mem::take(filling).records);
        filling.bytes += bytes;
        filling.records.push(record);
        match (call, self.senders.get(index)) {
            (Some(call), Some(sender)) => sender.send(call).await.is_ok(),
            _ => true,
        }
    }

    /// Sends what waits for more.
    async fn flush(&mut self) {
        for (filling, sender) in self.filling.iter_mut().zip(&self.senders) {
            let records = std::mem::take(filling).records;
            if !records.is_empty() {
                // A lane that is gone has failed, and `finish` tells why.
                let _ = sender.send(records).await;
            }
        }
    }

    /// Sends the rest and waits for all of it.
    async fn finish(mut self) -> Result<()> {
        self.flush().await;
        self.senders.clear();
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(())
    }
}
