//! Reads one topic partition in order, whatever its reader does.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millpond_connector::backoff::{Backoff, BackoffPolicy};
use millpond_connector::mutation::{self, Mutation};
use millpond_connector::random;
use millpond_connector::topic::{
    Chunk, ConsumedRecord, Offset, OffsetBounds, PartitionId, PartitionReader, TopicError,
    Transform,
};
use tokio::time::sleep;
use tracing::warn;

use crate::contiguity::{ContiguityError, Entry};
use crate::error::SinkError;
use crate::flush::Shared;
use crate::gaps::OnGap;
use crate::limits::{READ_WAIT, REREADS};
use crate::placement::{is_unplaced, locate, topic_origin};

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

/// The chunk with the offsets of the ledger.
fn shifted(mut chunk: Chunk, shift: u64) -> Chunk {
    chunk.offsets = chunk.offsets.start + shift..chunk.offsets.end + shift;
    for record in &mut chunk.records {
        record.offset = record.offset.map(|offset| offset + shift);
    }
    chunk
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
    /// All offsets here are the ledger's; what goes to the topic and comes from it is shifted by this.
    shift: u64,
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
    /// Will read from `next` on, an offset of the ledger, which is `shift` more than the topic's; a hole that
    /// stays is an error unless `on_gap` is set otherwise.
    #[must_use]
    pub fn new(shared: Arc<Shared>, partition: PartitionId, shift: u64, next: Offset) -> Self {
        Self {
            shared,
            partition,
            shift,
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

    /// The next offset to read.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.next
    }

    /// Offsets stored now, by the topic's own count.
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

    /// End of what is stored now, as an offset of the ledger.
    ///
    /// # Errors
    /// As [`Self::bounds`].
    pub async fn end(&mut self) -> Result<Offset, SinkError> {
        Ok(self.bounds().await?.end.saturating_add(self.shift))
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
        while let Some(records) = self.stored(to).await? {
            keys.extend(records.into_iter().map(|record| record.key));
        }
        Ok(keys)
    }

    /// Stored records from here to `to`, exclusive, without transforms, as many as the topic gives at once; `None`
    /// when all were given.
    ///
    /// # Errors
    /// [`SinkError`] when the topic does not give them.
    pub async fn stored(&mut self, to: Offset) -> Result<Option<Vec<ConsumedRecord>>, SinkError> {
        while self.next < to {
            if let Some(Found::Chunk(chunk)) = self.chunk(READ_WAIT, &[]).await? {
                let first = self.next;
                self.next = self.next.max(chunk.offsets.end);
                let mut records = chunk.records;
                records.retain(|record| record.offset.is_some_and(|o| (first..to).contains(&o)));
                return Ok(Some(records));
            }
        }
        Ok(None)
    }

    /// The next chunk, decoded, with its end; waits up to `wait`. Cancel safe.
    ///
    /// # Errors
    /// [`SinkError`] when the topic does not give it.
    pub async fn next(&mut self, wait: Duration) -> Result<Option<Read>, SinkError> {
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
            let reading = Self::new(shared.clone(), self.partition, self.shift, offsets.start);
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
        let shift = self.shift;
        let decode = |record| Entry::decode(record).map(|entry| entry.shifted(shift));
        let decoded = chunk.records.into_iter().map(decode);
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
                .reader(
                    self.partition,
                    self.next.saturating_sub(self.shift),
                    transforms,
                )
                .await
            {
                Ok(reader) => empty.insert(reader).next(wait).await,
                Err(error) => Err(error),
            },
        };
        let chunk = match read {
            Ok(Some(chunk)) if !chunk.offsets.is_empty() => shifted(chunk, self.shift),
            Ok(_) => return Ok(None),
            Err(TopicError::OffsetOutOfRange { earliest, .. })
                if earliest + self.shift > self.next && self.on_gap == OnGap::Record =>
            {
                return self.hole(earliest + self.shift).await;
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
            OnGap::Record if mutation::is(Mutation::GapAtFirstSight) => 0,
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
