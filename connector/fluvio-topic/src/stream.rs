//! One stream of answers on one connection, from one offset to its end for whatever reason.

use std::time::Duration;

use fluvio_socket::AsyncResponse;
use fluvio_spu_schema::Isolation;
use fluvio_spu_schema::server::stream_fetch::{
    DefaultStreamFetchRequest, DefaultStreamFetchResponse,
};
use fluvio_spu_schema::server::update_offset::{OffsetUpdate, UpdateOffsetsRequest};
use futures_util::StreamExt as _;
use millpond_connector::topic::{Chunk, Offset, TopicError};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::answer::{BARRIER, Meaning, Position};
use crate::connection::Connection;
use crate::error::ClusterError;
use crate::limits::{
    ANSWER_GROWTH, BACKLOG, COMPILING, LARGEST_ANSWER, QUIET, REQUEST, SILENCE, SURVEY,
};
use crate::reader::Plan;

/// The first stream of a connection (`StreamPublishers::next_stream_id` of the SPU).
const FIRST_STREAM: u32 = 1;

/// Asked for when nothing else has helped: more than the memory of a SmartModule on an SPU
/// (1 GiB), so that an output cannot be larger.
const ALL: u32 = i32::MAX as u32;

/// Why a stream ended.
pub(crate) enum End {
    /// The reader is gone.
    Dropped,
    /// Something that another stream may not meet.
    Again(String),
    /// The SPU was asked whether it is done while it still worked.
    AskedTooEarly,
    /// It is done, but what it has looked at is not known: another stream tells.
    LookAgain,
    /// Another stream with the usual room.
    Usual,
    /// Another stream with this much room.
    MoreRoom(u32),
    /// The caller must know.
    Failed(TopicError),
}

/// How a stream is to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// Bytes of an answer.
    pub max_bytes: u32,
    /// What they are unless something did not fit.
    pub usual: u32,
    /// How long it may be silent about what is there to read.
    pub quiet: Duration,
    /// It is opened to find out, and may be silent for no time until it has brought something.
    pub asks_at_once: bool,
}

/// An open stream.
pub(crate) struct Stream {
    connection: Connection,
    answers: AsyncResponse<DefaultStreamFetchRequest>,
    position: Position,
    /// The SPU was last heard of.
    heard: Instant,
    /// Since when there is something to read.
    waiting: Option<Instant>,
    /// Since when the SPU has been asked whether it is done.
    barrier: Option<Instant>,
}

/// What came, or did not.
enum Event {
    Answer(Meaning, usize),
    Broken(String),
    Quiet,
    Dropped,
}

impl Stream {
    /// Opens a stream on a connection of its own.
    pub(crate) async fn open(
        plan: &Plan,
        position: Position,
        max_bytes: u32,
    ) -> Result<Self, ClusterError> {
        let connection = plan.shared.connect_leader(plan.partition).await?;
        let smartmodules = match position.transforms {
            true => plan.invocations.clone(),
            false => Vec::new(),
        };
        let request = DefaultStreamFetchRequest::builder()
            .topic(plan.shared.name.clone())
            .partition(plan.partition)
            .fetch_offset(i64::try_from(position.next).unwrap_or(i64::MAX))
            .max_bytes(i32::try_from(max_bytes).unwrap_or(i32::MAX))
            .isolation(Isolation::ReadCommitted)
            .smartmodules(smartmodules)
            .build()
            .map_err(|error| connection.unreachable(error.to_string()))?;
        let answers = connection.stream("stream fetch", request).await?;
        Ok(Self {
            connection,
            answers,
            position,
            heard: Instant::now(),
            waiting: None,
            barrier: None,
        })
    }

    /// Reads until the stream ends; `next` is moved with every chunk handed on.
    pub(crate) async fn run(
        plan: &Plan,
        next: &mut Offset,
        terms: Terms,
        chunks: &mpsc::Sender<Result<Chunk, TopicError>>,
    ) -> End {
        let bounds = match plan.shared.bounds_once(plan.partition).await {
            Ok(bounds) => bounds,
            Err(error) => return ended(plan, error),
        };
        if *next < bounds.earliest {
            return End::Failed(plan.shared.out_of_range(plan.partition, *next, bounds));
        }
        if *next > bounds.end {
            // A leader that has lost committed records, or has not yet found them again.
            let end = bounds.end;
            return End::Again(format!("offset {next} is behind the log's end {end}"));
        }
        let Terms {
            max_bytes, usual, ..
        } = terms;
        let position = Position {
            next: *next,
            known_end: bounds.end,
            transforms: !plan.invocations.is_empty(),
        };
        let mut turn = match position.transforms {
            true => Some(plan.shared.compiling.lock().await),
            false => None,
        };
        let mut stream = match Self::open(plan, position, max_bytes).await {
            Ok(stream) => stream,
            Err(error) => return ended(plan, error),
        };
        let opened_at = *next;
        let opened = Instant::now();
        loop {
            let (meaning, bytes) = match stream.event(chunks).await {
                Event::Answer(meaning, bytes) => {
                    turn = None;
                    (meaning, bytes)
                }
                Event::Broken(reason) => return End::Again(reason),
                Event::Dropped => return End::Dropped,
                Event::Quiet => {
                    let quiet = match terms.asks_at_once && *next == opened_at {
                        true => Duration::ZERO,
                        false => terms.quiet,
                    };
                    if let Err(end) = stream.quiet(plan, quiet).await {
                        return end;
                    }
                    // Without anything to read there will be no answer.
                    turn = turn.filter(|held| {
                        let is_answered = stream.waiting.is_some();
                        let takes = if is_answered { COMPILING } else { held.takes };
                        opened.elapsed() < takes.min(COMPILING)
                    });
                    continue;
                }
            };
            stream.heard = Instant::now();
            let meaning = match meaning {
                Meaning::Gap { base, chunk } if max_bytes == ALL => {
                    match stream.survey(plan, base).await {
                        Ok(end) if end == base => {
                            stream.position.believe(&chunk);
                            Meaning::Chunk(chunk)
                        }
                        Ok(_) => return End::LookAgain,
                        Err(end) => return end,
                    }
                }
                other => other,
            };
            match meaning {
                Meaning::Chunk(_) if bytes > LARGEST_ANSWER as usize => {
                    return End::Failed(too_large(plan, *next));
                }
                Meaning::Chunk(chunk) => {
                    stream.barrier = None;
                    stream.waiting = None;
                    *next = chunk.offsets.end;
                    if chunks.send(Ok(chunk)).await.is_err() {
                        return End::Dropped;
                    }
                    // All the room there is, as long as little comes at a time.
                    let is_late = stream.heard.elapsed() > BACKLOG;
                    if max_bytes == ALL && (bytes > usual as usize || is_late) {
                        return End::Usual;
                    }
                    let offset = i64::try_from(*next).unwrap_or(i64::MAX);
                    if let Err(error) = stream.acknowledge(offset).await {
                        return ended(plan, error);
                    }
                }
                Meaning::TooSmall(needed) => return more_room(plan, *next, max_bytes, needed),
                Meaning::Barrier if stream.barrier.is_none() => return End::AskedTooEarly,
                Meaning::Barrier if !stream.position.transforms => {
                    return End::Again("the SPU has nothing to send".into());
                }
                Meaning::Barrier | Meaning::Gap { .. } if max_bytes < ALL => {
                    return End::MoreRoom(grown(max_bytes));
                }
                // Nothing but an empty output is left, if this stream has looked at all.
                Meaning::Barrier => {
                    if *next != opened_at || stream.position.next >= stream.position.known_end {
                        return End::LookAgain;
                    }
                    return stream.pass_over(plan, next, chunks).await;
                }
                other => return failed(plan, *next, other).await,
            }
        }
    }

    /// The answer to a barrier: what the SPU says of the request itself.
    pub(crate) async fn barrier_answer(&mut self) -> Result<Meaning, ClusterError> {
        self.acknowledge(BARRIER).await?;
        match timeout(SILENCE, self.answers.next()).await {
            Ok(Some(Ok(answer))) => Ok(self.position.take(answer.partition)),
            Ok(Some(Err(error))) => Err(self.connection.broken(&error)),
            Ok(None) => Err(self.connection.unreachable("the stream ended".into())),
            Err(_) => Err(self.connection.unreachable("no answer to a stream".into())),
        }
    }

    async fn event(&mut self, chunks: &mpsc::Sender<Result<Chunk, TopicError>>) -> Event {
        let answer = tokio::select! {
            answer = timeout(QUIET, self.answers.next()) => answer,
            () = chunks.closed() => return Event::Dropped,
        };
        match answer {
            Err(_) => Event::Quiet,
            Ok(Some(Ok(answer))) => {
                let DefaultStreamFetchResponse { partition, .. } = answer;
                let batches = &partition.records.batches;
                let bytes = batches.iter().map(|batch| batch.records().0.len()).sum();
                Event::Answer(self.position.take(partition), bytes)
            }
            Ok(Some(Err(error))) => Event::Broken(error.to_string()),
            Ok(None) => Event::Broken("the connection is closed".into()),
        }
    }

    /// Nothing came for a while: is there something that should have?
    ///
    /// SmartModules may be silent for `patience` about what is there.
    async fn quiet(&mut self, plan: &Plan, patience: Duration) -> Result<(), End> {
        if self.connection.is_stale() {
            return Err(End::Again("the connection is closed".into()));
        }
        if let Some(since) = self.barrier {
            if since.elapsed() < SILENCE {
                return Ok(());
            }
            let reason = format!("the SPU has not answered for {} s", SILENCE.as_secs());
            return Err(End::Failed(plan.storage_error(&reason, true)));
        }
        let end = match plan.shared.bounds_once(plan.partition).await {
            Ok(bounds) => bounds.end,
            // An SPU whose cores are all in SmartModules answers nothing else meanwhile; another
            // stream would have it compile them once more.
            Err(error) if error.is_transient() && self.heard.elapsed() < SILENCE => return Ok(()),
            Err(error) => return Err(ended(plan, error)),
        };
        self.heard = Instant::now();
        if end == self.position.next {
            self.waiting = None;
            return Ok(());
        }
        let waiting = self.waiting.get_or_insert_with(Instant::now).elapsed();
        if self.position.transforms && waiting < patience {
            return Ok(());
        }
        let asked = self.acknowledge(BARRIER).await;
        asked.map_err(|error| ended(plan, error))?;
        self.barrier = Some(Instant::now());
        Ok(())
    }

    async fn acknowledge(&self, offset: i64) -> Result<(), ClusterError> {
        let request = UpdateOffsetsRequest::new(vec![OffsetUpdate {
            offset,
            session_id: FIRST_STREAM,
        }]);
        let answer = self
            .connection
            .request("update offsets", request, REQUEST)
            .await?;
        match answer.status.iter().find(|status| status.error.is_error()) {
            None => Ok(()),
            Some(status) => Err(self.connection.unreachable(status.error.to_string())),
        }
    }

    /// SmartModules left nothing of the stored batches from here on, as far as their own slice of
    /// the segment went. A look at the stored batches says where the next ones end: they are of the
    /// same segment, and only those below the end known before the SmartModules ran are passed.
    async fn pass_over(
        self,
        plan: &Plan,
        next: &mut Offset,
        chunks: &mpsc::Sender<Result<Chunk, TopicError>>,
    ) -> End {
        let end = match self.survey(plan, self.position.known_end).await {
            Ok(end) if end > *next => end,
            Ok(_) => return End::Again("the stored batches could not be seen".into()),
            Err(end) => return end,
        };
        let chunk = Chunk {
            offsets: *next..end,
            records: Vec::new(),
        };
        *next = end;
        match chunks.send(Ok(chunk)).await {
            // Where modules leave nothing of whole batches they will do so again.
            Ok(()) => End::MoreRoom(ALL),
            Err(_) => End::Dropped,
        }
    }

    /// Where the stored batches of the segment end from here on, or those up to `limit`.
    async fn survey(&self, plan: &Plan, limit: Offset) -> Result<Offset, End> {
        let mut at = self.position;
        at.transforms = false;
        at.known_end = limit;
        let opened = Self::open(plan, at, SURVEY).await;
        let mut survey = opened.map_err(|error| ended(plan, error))?;
        loop {
            match timeout(REQUEST, survey.answers.next()).await {
                Ok(Some(Ok(answer))) if answer.partition.error_code.is_ok() => {
                    if !at.look(&answer.partition) || at.next == limit {
                        return Ok(at.next);
                    }
                }
                _ => return Err(End::Again("the stored batches could not be seen".into())),
            }
            let offset = i64::try_from(at.next).unwrap_or(i64::MAX);
            let asked = survey.acknowledge(offset).await;
            asked.map_err(|error| ended(plan, error))?;
        }
    }
}

fn ended(plan: &Plan, error: ClusterError) -> End {
    match error.is_transient() {
        true => End::Again(error.to_string()),
        false => End::Failed(error.on_topic(&plan.shared.name)),
    }
}

/// Much more room, then all there is.
fn grown(max_bytes: u32) -> u32 {
    match max_bytes.checked_mul(ANSWER_GROWTH) {
        Some(bytes) if bytes <= LARGEST_ANSWER => bytes,
        _ => ALL,
    }
}

/// Room for a stored batch that did not fit.
fn more_room(plan: &Plan, at: Offset, max_bytes: u32, needed: Option<u64>) -> End {
    let needed = needed.map_or(grown(max_bytes), |bytes| {
        u32::try_from(bytes).unwrap_or(ALL)
    });
    if needed <= max_bytes || needed > LARGEST_ANSWER {
        let reason = format!(
            "the batch at offset {at} needs an answer of {needed} bytes (asked for {max_bytes}, \
             limit {LARGEST_ANSWER})"
        );
        return End::Failed(plan.storage_error(&reason, false));
    }
    End::MoreRoom(needed)
}

fn too_large(plan: &Plan, at: Offset) -> TopicError {
    let reason = format!(
        "it makes more than {LARGEST_ANSWER} bytes of one batch; make the batches of the source \
         smaller (`meta.producer.batch-size`)"
    );
    plan.module_error(Some(at), None, reason)
}

/// The answers that a caller hears of.
async fn failed(plan: &Plan, next: Offset, meaning: Meaning) -> End {
    match meaning {
        Meaning::Again(reason) => End::Again(reason),
        Meaning::NotStored => match plan.shared.bounds_once(plan.partition).await {
            Ok(bounds) if next < bounds.earliest => {
                End::Failed(plan.shared.out_of_range(plan.partition, next, bounds))
            }
            Ok(_) => End::Again(format!("offset {next} was refused, but is stored")),
            Err(error) => ended(plan, error),
        },
        Meaning::Module {
            offset,
            missing,
            reason,
        } => End::Failed(plan.module_error(offset.or(Some(next)), missing.as_deref(), reason)),
        Meaning::Damaged(offset, reason) => End::Failed(TopicError::Damaged {
            topic: plan.shared.name.clone(),
            partition: plan.partition,
            offset,
            reason,
        }),
        Meaning::Refused(reason) => End::Failed(plan.storage_error(&reason, false)),
        _ => End::Again("an answer out of turn".into()),
    }
}
