//! The loop over one topic partition: reads ahead while a plan is being written.

use std::future::pending;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millpond_connector::backoff::{Backoff, BackoffPolicy};
use millpond_connector::mutation::{self, Mutation};
use millpond_connector::random;
use millpond_connector::topic::{
    Chunk, Offset, OffsetBounds, PartitionId, PartitionReader, TopicError, Transform,
};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug_span, info, warn};

use crate::contiguity::{ContiguityError, Entry};
use crate::error::SinkError;
use crate::flush::{Core, Shared};
use crate::gaps::OnGap;
use crate::limits::{IDLE_COMMIT, PLAN_RECORDS, READ_WAIT, REREADS};
use crate::placement::{is_unplaced, locate, topic_origin};
use crate::tenure::Tenure;

/// Records that make a plan.
#[derive(Debug, Default)]
pub struct Input {
    /// First offset.
    pub from: Offset,
    /// End, exclusive.
    pub to: Offset,
    /// What is between them.
    pub entries: Vec<Entry>,
    /// Offsets that the topic does not give, in order.
    pub holes: Vec<Range<Offset>>,
}

/// What one read gave.
#[derive(Debug, Default)]
pub struct Read {
    /// End, exclusive.
    pub to: Offset,
    /// Records up to there.
    pub entries: Vec<Entry>,
    /// Offsets before `to` that the topic does not give.
    pub hole: Option<Range<Offset>>,
}

/// What was read and not planned.
#[derive(Debug)]
struct Buffer {
    input: Input,
    bytes: usize,
    oldest: Option<Instant>,
}

impl Buffer {
    fn new(from: Offset) -> Self {
        Self {
            input: Input {
                from,
                to: from,
                ..Input::default()
            },
            bytes: 0,
            oldest: None,
        }
    }

    fn push(&mut self, read: Read, now: Instant) {
        self.bytes += read.entries.iter().map(Entry::bytes).sum::<usize>();
        self.input.entries.extend(read.entries);
        self.input.holes.extend(read.hole);
        self.input.to = read.to;
        self.oldest.get_or_insert(now);
    }

    fn take(&mut self) -> Input {
        let next = Self::new(self.input.to);
        std::mem::replace(self, next).input
    }
}

/// What to do when no plan is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Flush,
    Commit,
    End,
    Wait(Option<Instant>),
}

/// What the choice of the next step depends on.
#[derive(Debug, Clone, Copy)]
struct Situation {
    now: Instant,
    /// Arrival of the oldest data that is not planned.
    oldest: Option<Instant>,
    bytes: usize,
    records: usize,
    max_age: Duration,
    plan_bytes: usize,
    /// A written plan is not committed, and since when.
    open_since: Option<Instant>,
    /// Draining, and all of it is read.
    at_end: bool,
    /// Somebody else is to go on: what is read and not planned is theirs.
    is_leaving: bool,
}

fn next(at: Situation) -> Next {
    if at.is_leaving {
        return match at.open_since {
            Some(_) => Next::Commit,
            None => Next::End,
        };
    }
    if let Some(oldest) = at.oldest {
        let due = oldest + at.max_age;
        let full = at.bytes >= at.plan_bytes || at.records >= PLAN_RECORDS;
        return if at.at_end || full || due <= at.now {
            Next::Flush
        } else {
            Next::Wait(Some(due))
        };
    }
    match at.open_since {
        Some(since) if at.at_end || since + IDLE_COMMIT <= at.now => Next::Commit,
        Some(since) => Next::Wait(Some(since + IDLE_COMMIT)),
        None if at.at_end => Next::End,
        None => Next::Wait(None),
    }
}

type Flight = std::pin::Pin<Box<dyn Future<Output = (Core, Result<(), SinkError>)> + Send>>;

/// Consumes one topic partition until `drain` is cancelled and all up to the topic's end as of
/// then is committed.
///
/// # Errors
/// [`SinkError`] when the partition cannot go on; its ledger says where it stands.
pub async fn run(
    shared: Arc<Shared>,
    partition: PartitionId,
    drain: CancellationToken,
) -> Result<(), SinkError> {
    run_for(shared, partition, Tenure::until(drain)).await
}

/// Consumes one topic partition for as long as it is ours: until it is drained as by [`run`],
/// handed over, or found to be lost. The last two leave to the next owner what is not committed.
///
/// # Errors
/// As [`run`].
pub async fn run_for(
    shared: Arc<Shared>,
    partition: PartitionId,
    tenure: Tenure,
) -> Result<(), SinkError> {
    let claim = Core::claim(shared.clone(), partition);
    let claim = claim.instrument(debug_span!("take over", partition));
    let core = tokio::select! {
        core = claim => core?,
        // A plan that is being written again is written again by the next owner.
        () = tenure.hand_over.cancelled() => return Ok(()),
    };
    let drain = &tenure.drain;
    let mut is_leaving = false;
    let mut reading = Reading::new(shared.clone(), partition, core.next_offset());
    reading.on_gap = shared.on_gap;
    let mut buffer = Buffer::new(core.next_offset());
    let standing = &shared.metrics.partitions;
    standing.update(partition, |at| at.written = core.next_offset());
    let mut open_since = Instant::now();
    let mut idle = Some(core);
    let mut flight: Option<Flight> = None;
    let mut drain_end: Option<Offset> = None;
    loop {
        let at_end = drain_end.is_some_and(|end| reading.next >= end);
        let mut wake = None;
        if let Some(mut core) = idle.take() {
            let step = next(Situation {
                now: Instant::now(),
                oldest: buffer.oldest,
                bytes: buffer.bytes,
                records: buffer.input.entries.len(),
                max_age: shared.max_age,
                plan_bytes: shared.plan_bytes,
                open_since: core.is_open().then_some(open_since),
                at_end,
                is_leaving,
            });
            match step {
                Next::Flush if !tenure.holds() => {
                    info!(partition, offset = core.next_offset(), "lease is lost");
                    return Ok(());
                }
                Next::Flush => {
                    let input = buffer.take();
                    let span = debug_span!("flush", partition, from = input.from, to = input.to);
                    let flush = async move {
                        let result = core.flush(input, false).await;
                        (core, result)
                    };
                    flight = Some(Box::pin(flush.instrument(span)));
                }
                Next::Commit => {
                    flight = Some(Box::pin(async move {
                        let result = core.commit().await;
                        (core, result)
                    }));
                }
                Next::End => {
                    let how = if is_leaving { "handed over" } else { "drained" };
                    info!(partition, offset = core.next_offset(), "{how}");
                    return Ok(());
                }
                Next::Wait(until) => {
                    wake = until;
                    idle = Some(core);
                }
            }
        }
        let room = buffer.bytes < shared.plan_bytes && buffer.input.entries.len() < PLAN_RECORDS;
        tokio::select! {
            // In this order, so that a run can be repeated; the drain first, because a backlog
            // may always have something to read.
            biased;
            () = drain.cancelled(), if drain_end.is_none() => {
                drain_end = Some(reading.bounds().await?.end);
            }
            () = tenure.hand_over.cancelled(), if !is_leaving => is_leaving = true,
            (core, result) = landed(&mut flight) => {
                result?;
                standing.update(partition, |at| at.written = core.next_offset());
                flight = None;
                open_since = Instant::now();
                idle = Some(core);
            }
            chunk = reading.next(READ_WAIT), if room && !at_end && !is_leaving => {
                if let Some(read) = chunk? {
                    buffer.push(read, Instant::now());
                }
            }
            () = woken(wake) => {}
        }
    }
}

async fn landed(flight: &mut Option<Flight>) -> (Core, Result<(), SinkError>) {
    match flight {
        Some(flight) => flight.await,
        None => pending().await,
    }
}

async fn woken(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

/// What a topic partition gives next.
enum Found {
    /// Records.
    Chunk(Chunk),
    /// Offsets that are not there, also when read again.
    Hole(Range<Offset>),
}

/// Reads one topic partition in order; opens the reader anew after a failure that may pass.
pub struct Reading {
    shared: Arc<Shared>,
    partition: PartitionId,
    /// Next offset to read.
    next: Offset,
    reader: Option<Box<dyn PartitionReader>>,
    backoff: Backoff,
    /// How often a hole was seen at `next` and the reader opened anew.
    reopened: u32,
    /// What to do about a hole that stays.
    pub on_gap: OnGap,
    /// Read, and not handed on: the offsets of its records are being found out.
    pending: Option<Chunk>,
}

impl Reading {
    /// Will read from `next` on; a hole that stays is an error unless `on_gap` is set otherwise.
    #[must_use]
    pub fn new(shared: Arc<Shared>, partition: PartitionId, next: Offset) -> Self {
        Self {
            shared,
            partition,
            next,
            reader: None,
            backoff: Backoff::new(BackoffPolicy::endless(
                Duration::from_millis(100),
                Duration::from_secs(5),
            )),
            reopened: 0,
            on_gap: OnGap::Halt,
            pending: None,
        }
    }

    /// Offsets stored now.
    ///
    /// # Errors
    /// [`SinkError::Topic`] when waiting cannot help.
    pub async fn bounds(&mut self) -> Result<OffsetBounds, SinkError> {
        loop {
            match self.shared.topic.bounds(self.partition).await {
                Ok(bounds) => return Ok(bounds),
                Err(error) => self.failed(error).await?,
            }
        }
    }

    /// Everything from here to `to`, exclusive.
    ///
    /// # Errors
    /// [`SinkError`] when the topic does not give it.
    pub async fn all_to(mut self, to: Offset) -> Result<Input, SinkError> {
        let mut input = Input {
            from: self.next,
            to,
            ..Input::default()
        };
        while self.next < to {
            if let Some(read) = self.next(READ_WAIT).await? {
                input.entries.extend(read.entries);
                input.holes.extend(read.hole);
            }
        }
        // A chunk may be several batches and reach beyond, and so may a hole.
        input.entries.retain(|entry| entry.offset() < to);
        input.holes.retain(|hole| hole.start < to);
        if let Some(last) = input.holes.last_mut() {
            last.end = last.end.min(to);
        }
        Ok(input)
    }

    /// Keys of the stored records from here to `to`, exclusive, without transforms.
    ///
    /// # Errors
    /// [`SinkError`] when the topic does not give them.
    pub async fn stored_keys(mut self, to: Offset) -> Result<Vec<Option<Bytes>>, SinkError> {
        let mut keys = Vec::new();
        while self.next < to {
            if let Some(Found::Chunk(chunk)) = self.chunk(READ_WAIT, &[]).await? {
                let first = self.next;
                self.next = self.next.max(chunk.offsets.end);
                let here =
                    |offset: Option<Offset>| offset.is_some_and(|o| (first..to).contains(&o));
                let records = chunk.records.into_iter();
                keys.extend(
                    records
                        .filter(|record| here(record.offset))
                        .map(|record| record.key),
                );
            }
        }
        Ok(keys)
    }

    /// The next chunk, decoded, with its end; waits up to `wait`. Cancel safe.
    async fn next(&mut self, wait: Duration) -> Result<Option<Read>, SinkError> {
        let shared = self.shared.clone();
        let from = self.next;
        if self.pending.is_none() {
            match self.chunk(wait, &shared.transforms).await? {
                None => return Ok(None),
                Some(Found::Chunk(chunk)) => self.pending = Some(chunk),
                Some(Found::Hole(hole)) => {
                    return Ok(Some(Read {
                        to: hole.end,
                        hole: Some(hole),
                        ..Read::default()
                    }));
                }
            }
        }
        let Some(chunk) = &self.pending else {
            return Ok(None);
        };
        let offsets = chunk.offsets.clone();
        let stored = if is_unplaced(&chunk.records) {
            let reading = Self::new(shared.clone(), self.partition, offsets.start);
            Some(reading.stored_keys(offsets.end).await?)
        } else {
            None
        };
        // From here on nothing waits: what was read is handed on, or its error is.
        let Some(mut chunk) = self.pending.take() else {
            return Ok(None);
        };
        let to = chunk.offsets.end;
        if let Some(stored) = stored {
            let placed = locate(&mut chunk.records, offsets, &stored);
            placed.map_err(|source| SinkError::Placement {
                partition: self.partition,
                from,
                to,
                source,
            })?;
        }
        if shared.transforms.is_empty() {
            for record in &mut chunk.records {
                record.key = topic_origin(shared.topic.name(), self.partition, record);
            }
        }
        self.next = from.max(to);
        let decoded = chunk.records.into_iter().map(Entry::decode);
        let entries: Result<Vec<Entry>, _> = decoded.collect();
        let mut entries = entries.map_err(|source| SinkError::Envelope {
            partition: self.partition,
            from,
            to,
            source,
        })?;
        // A reader may begin with the whole batch that an offset lies in.
        entries.retain(|entry| entry.offset() >= from);
        Ok(Some(Read {
            to,
            entries,
            hole: None,
        }))
    }

    /// What comes next. Cancel safe: between a change of `self` and its answer nothing waits.
    async fn chunk(
        &mut self,
        wait: Duration,
        transforms: &[Transform],
    ) -> Result<Option<Found>, SinkError> {
        let read = match &mut self.reader {
            Some(reader) => reader.next(wait).await,
            empty => match self
                .shared
                .topic
                .reader(self.partition, self.next, transforms)
                .await
            {
                Ok(reader) => empty.insert(reader).next(wait).await,
                Err(error) => Err(error),
            },
        };
        let chunk = match read {
            Ok(Some(chunk)) if !chunk.offsets.is_empty() => chunk,
            Ok(_) => return Ok(None),
            Err(TopicError::OffsetOutOfRange { earliest, .. })
                if earliest > self.next && self.on_gap == OnGap::Record =>
            {
                return self.hole(earliest).await;
            }
            Err(error) => {
                self.failed(error).await?;
                return Ok(None);
            }
        };
        self.backoff.reset();
        if chunk.offsets.start > self.next && !mutation::is(Mutation::GapCheckOff) {
            return self.hole(chunk.offsets.start).await;
        }
        self.reopened = 0;
        if chunk.offsets.end <= self.next {
            // A reader may begin earlier than it was told to: all of this was handed on before.
            return Ok(None);
        }
        Ok(Some(Found::Chunk(chunk)))
    }

    /// The topic goes on at `found`, beyond where it should: reads again, then decides.
    async fn hole(&mut self, found: Offset) -> Result<Option<Found>, SinkError> {
        self.reader = None;
        let hole = self.next..found;
        let rereads = match self.on_gap {
            OnGap::Halt => 1,
            OnGap::Record => REREADS,
        };
        if self.reopened < rereads {
            self.reopened += 1;
            warn!(
                partition = self.partition,
                expected = hole.start,
                found,
                "offsets are missing, reads them once more"
            );
            if self.reopened > 1 {
                // Whatever hides them may need a moment.
                let wait = self.backoff.next_wait(random::unit());
                sleep(wait.unwrap_or_default()).await;
            }
            return Ok(None);
        }
        if self.on_gap == OnGap::Halt {
            return Err(SinkError::Contiguity {
                partition: self.partition,
                source: ContiguityError::Offset {
                    expected: hole.start,
                    found,
                },
            });
        }
        self.reopened = 0;
        self.next = found;
        Ok(Some(Found::Hole(hole)))
    }

    /// Waits after a failure that may pass; the reader is opened anew.
    async fn failed(&mut self, error: TopicError) -> Result<(), SinkError> {
        self.reader = None;
        let TopicError::Storage {
            retryable: true, ..
        } = &error
        else {
            return Err(error.into());
        };
        if (self.backoff.attempts() + 1).is_power_of_two() {
            warn!(partition = self.partition, %error, "topic cannot be read, trying again");
        }
        let wait = self.backoff.next_wait(random::unit());
        sleep(wait.unwrap_or_default()).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_next_step_follows_from_the_situation() {
        let start = Instant::now();
        let now = start + Duration::from_secs(100);
        let ago = |ms| Some(now - Duration::from_millis(ms));
        let base = Situation {
            now,
            oldest: None,
            bytes: 0,
            records: 0,
            max_age: Duration::from_secs(5),
            plan_bytes: 8 << 20,
            open_since: None,
            at_end: false,
            is_leaving: false,
        };
        let cases = [
            (base, Next::Wait(None)),
            (
                Situation {
                    at_end: true,
                    ..base
                },
                Next::End,
            ),
            (
                Situation {
                    oldest: ago(1_000),
                    ..base
                },
                Next::Wait(Some(now + Duration::from_secs(4))),
            ),
            (
                Situation {
                    oldest: ago(5_000),
                    ..base
                },
                Next::Flush,
            ),
            (
                Situation {
                    oldest: ago(0),
                    bytes: 8 << 20,
                    ..base
                },
                Next::Flush,
            ),
            (
                Situation {
                    oldest: ago(0),
                    records: PLAN_RECORDS,
                    ..base
                },
                Next::Flush,
            ),
            (
                Situation {
                    oldest: ago(0),
                    at_end: true,
                    ..base
                },
                Next::Flush,
            ),
            (
                Situation {
                    open_since: ago(500),
                    ..base
                },
                Next::Commit,
            ),
            (
                Situation {
                    open_since: ago(0),
                    at_end: true,
                    ..base
                },
                Next::Commit,
            ),
            (
                Situation {
                    open_since: ago(100),
                    ..base
                },
                Next::Wait(Some(now + Duration::from_millis(400))),
            ),
            // What was read goes to the next owner, what was written is committed.
            (
                Situation {
                    oldest: ago(5_000),
                    open_since: ago(0),
                    is_leaving: true,
                    ..base
                },
                Next::Commit,
            ),
            (
                Situation {
                    oldest: ago(5_000),
                    is_leaving: true,
                    ..base
                },
                Next::End,
            ),
        ];
        for (situation, expected) in cases {
            assert_eq!(next(situation), expected, "{situation:?}");
        }
    }
}
