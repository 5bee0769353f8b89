//! Reads one shard: one answer in flight, one waiting to be taken in.

use std::sync::Arc;

use millpond_connector::mutation::{self, Mutation};
use millpond_format::sequence::SequenceNumber;
use millpond_format::stream_gap::StreamGapKind;
use tokio::sync::{mpsc, oneshot};
use tracing::{Instrument as _, debug_span};

use crate::classify::Operation;
use crate::client::{ReadFrom, StreamApi, StreamRecord};
use crate::delivery::{AnswerEnd, ShardIndex};
use crate::error::SourceError;
use crate::feed::{FeedAnswer, ShardFeed};
use crate::loss::{FirstLeft, Lost, OnLoss};
use crate::numbering::Decompress;
use crate::opening;
use crate::retention::Retention;
use crate::retry::{Phase, Retry};
use crate::session::losses::Noted;
use crate::shard::{ShardId, ShardInfo};

/// Milliseconds since the Unix epoch, as the source sees them.
pub type WallClock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What a reader tells the source.
pub(crate) enum FromReader {
    /// The first record of a shard that nothing was read of before: to be remembered
    /// durably before anything is sent, so that a restart begins with the same record.
    First {
        shard: ShardIndex,
        sequence: String,
        arrival_ms: Option<i64>,
        remembered: oneshot::Sender<()>,
    },
    /// Events were removed before they were read: to be recorded before anything behind them is sent.
    Lost {
        shard: ShardIndex,
        lost: Lost,
        noted: oneshot::Sender<Noted>,
    },
    /// An answer.
    Answer {
        shard: ShardIndex,
        records: Vec<StreamRecord>,
        end: AnswerEnd,
        children: Vec<ShardInfo>,
        millis_behind_latest: i64,
    },
}

/// Reads one shard to its end.
pub(crate) struct ShardReader {
    /// Where its records come from.
    pub(crate) feed: Box<dyn ShardFeed>,
    pub(crate) api: Arc<dyn StreamApi>,
    pub(crate) shard: ShardId,
    pub(crate) index: ShardIndex,
    /// Where to begin.
    pub(crate) from: ReadFrom,
    /// Nothing was read of this shard before.
    pub(crate) unpinned: bool,
    /// Every unread record arrived at this time or later.
    pub(crate) unread_since_ms: Option<i64>,
    /// Nothing was handed over since its start: what held before is not known.
    pub(crate) is_resumed: bool,
    /// When the source started, milliseconds since the Unix epoch.
    pub(crate) started_ms: i64,
    /// How long the stream keeps records.
    pub(crate) retention: Retention,
    pub(crate) on_loss: OnLoss,
    /// Which payloads will be opened.
    pub(crate) decompress: Decompress,
    pub(crate) out: mpsc::Sender<FromReader>,
}

impl ShardReader {
    /// Ends with `Ok` at the shard's end, or when nobody listens any more.
    pub(crate) async fn run(mut self) -> Result<(), SourceError> {
        loop {
            if !self.feed.is_open() {
                self.feed.open(&self.from).await?;
            }
            let next = self.feed.next();
            match next
                .instrument(debug_span!("read", shard = %self.shard))
                .await?
            {
                Some(answer) => {
                    if !self.hand_over(answer).await? {
                        return Ok(());
                    }
                }
                // The position was lost, as with an expired iterator: begin where the last answer ended.
                None => {
                    if mutation::is(Mutation::ExpiredIteratorRewinds) {
                        self.from = ReadFrom::TrimHorizon;
                    }
                }
            }
        }
    }

    fn too_old(&self, reason: String) -> SourceError {
        SourceError::TooOld {
            shard: self.shard.clone(),
            target: Box::new(self.api.target().clone()),
            retention_hours: self.retention.ms() / 3_600_000,
            reason,
        }
    }

    /// Gives an answer to the source, and waits until there is room for it. False when nothing follows.
    async fn hand_over(&mut self, answer: FeedAnswer) -> Result<bool, SourceError> {
        let FeedAnswer {
            mut records,
            caught_up,
            since_ms,
            millis_behind_latest,
            end,
        } = answer;
        self.leave_out_read(&mut records);
        let first = records.first();
        if (first.is_some() || caught_up || end.is_some())
            && let Some(kind) = self.missing(first).await?
        {
            let left_ms = (caught_up && end.is_none()).then_some(since_ms);
            if !self.note_loss(kind, first, left_ms).await {
                return Ok(false);
            }
        }
        self.is_resumed &= first.is_none() && !caught_up;
        // An answer whose records grow when they are opened or taken apart is handed over in pieces.
        loop {
            let payloads = records.iter().map(|record| record.data.as_ref());
            let rest = records.split_off(opening::piece(self.decompress, payloads));
            if rest.is_empty() {
                break;
            }
            let piece = FeedAnswer {
                records: std::mem::replace(&mut records, rest),
                caught_up: false,
                since_ms,
                millis_behind_latest,
                end: None,
            };
            if !self.hand_over_piece(piece, false).await? {
                return Ok(false);
            }
        }
        let last = FeedAnswer {
            records,
            caught_up,
            since_ms,
            millis_behind_latest,
            end,
        };
        self.hand_over_piece(last, true).await
    }

    /// Whether something may be missing between what was handed over and an answer that begins with `first`, or
    /// that says that nothing is left.
    ///
    /// Kinesis does not say so: it reads on at the oldest record that it keeps. The answer was made by now, so what
    /// is still in the stream now was in it then.
    async fn missing(
        &mut self,
        first: Option<&StreamRecord>,
    ) -> Result<Option<StreamGapKind>, SourceError> {
        if let (ReadFrom::At(wanted), Some(first)) = (&self.from, first) {
            // What should be next is still there, and so is everything behind it.
            return match *wanted == first.sequence {
                true => Ok(None),
                false => self.decide(StreamGapKind::Missing, || {
                    let answered = &first.sequence;
                    format!("record `{wanted}` should be next, and `{answered}` was answered")
                }),
            };
        }
        let Some(since_ms) = self.unread_since_ms else {
            return Ok(None);
        };
        if self.retention.surely_keeps(since_ms) {
            return Ok(None);
        }
        match &self.from {
            ReadFrom::After(last) if self.feed.is_kept(last).await? => return Ok(None),
            // The period may have been another before the start, and what it removed does not come back.
            ReadFrom::After(_) | ReadFrom::At(_) if self.is_resumed => {
                return self.expired(since_ms);
            }
            _ => {}
        }
        // There is no last record, or it may have gone with its time: the period decides, which may be another by now.
        if since_ms > self.retention.horizon_ms() {
            self.ask_retention().await?;
        }
        if since_ms > self.retention.horizon_ms() {
            return Ok(None);
        }
        self.expired(since_ms)
    }

    fn expired(&self, since_ms: i64) -> Result<Option<StreamGapKind>, SourceError> {
        self.decide(StreamGapKind::Expired, || {
            format!(
                "everything before {since_ms} ms since 1970 was read, and the stream may have removed what followed"
            )
        })
    }

    fn decide(
        &self,
        kind: StreamGapKind,
        reason: impl FnOnce() -> String,
    ) -> Result<Option<StreamGapKind>, SourceError> {
        match self.on_loss {
            OnLoss::GapAndContinue => Ok(Some(kind)),
            OnLoss::Fail => Err(self.too_old(reason())),
        }
    }

    async fn ask_retention(&mut self) -> Result<(), SourceError> {
        let mut retry = Retry::new(Operation::Describe, self.api.target(), Phase::Running);
        loop {
            if let Some(summary) = retry.call(|| self.api.describe()).await? {
                self.retention.set(summary.retention_ms);
                return Ok(());
            }
        }
    }

    /// A service that begins before the position it was given would repeat events under other ordinals (I2).
    /// Kinesis does not; an emulator was seen to.
    fn leave_out_read(&self, records: &mut Vec<StreamRecord>) {
        let (position, is_read) = match &self.from {
            ReadFrom::After(position) => (position, true),
            ReadFrom::At(position) => (position, false),
            ReadFrom::TrimHorizon | ReadFrom::Timestamp(_) => return,
        };
        let Some(position) = SequenceNumber::parse(position) else {
            return;
        };
        let is_old = |record: &&StreamRecord| {
            SequenceNumber::parse(&record.sequence)
                .is_some_and(|sequence| sequence < position || (is_read && sequence == position))
        };
        let old = records.iter().take_while(is_old).count();
        if old > 0 {
            tracing::warn!(shard = %self.shard, records = old, "answered from before the position that was asked for");
            records.drain(..old);
        }
    }

    async fn hand_over_piece(
        &mut self,
        answer: FeedAnswer,
        is_last: bool,
    ) -> Result<bool, SourceError> {
        let FeedAnswer {
            records,
            caught_up,
            since_ms,
            millis_behind_latest,
            end,
        } = answer;
        if let Some(first) = records.first()
            && self.unpinned
            && !self.remember_first(first).await
        {
            return Ok(false);
        }
        if let Some(last) = records.last() {
            self.from = ReadFrom::After(last.sequence.clone());
            self.unread_since_ms = self.unread_since_ms.max(last.arrival_ms);
        }
        // Producers may be faster than the reader for ever: what counts is what was there at the start.
        let is_behind_start = since_ms.saturating_sub(millis_behind_latest) <= self.started_ms;
        let closed = end.is_some();
        // At a shard's end that nothing is left says nothing of its children: their records may be as old as its
        // last one.
        if caught_up && !closed {
            self.unread_since_ms = self.unread_since_ms.max(Some(since_ms));
        }
        let message = FromReader::Answer {
            shard: self.index,
            records,
            end: AnswerEnd {
                unread_since_ms: self.unread_since_ms,
                caught_up: caught_up || (is_last && !is_behind_start),
                closed,
            },
            children: end.unwrap_or_default(),
            millis_behind_latest,
        };
        let heard = self.out.send(message).await.is_ok();
        Ok(heard && !closed)
    }

    /// Has a loss recorded, and waits until reading may go on behind it. False when nobody listens.
    async fn note_loss(
        &mut self,
        kind: StreamGapKind,
        first: Option<&StreamRecord>,
        left_ms: Option<i64>,
    ) -> bool {
        let arrival_ms = first.and_then(|first| first.arrival_ms);
        let horizon_ms = self.retention.horizon_ms();
        let from_ms = self.unread_since_ms;
        let to_ms = arrival_ms.unwrap_or(horizon_ms);
        self.unread_since_ms = arrival_ms.or(left_ms).or(Some(horizon_ms)).max(from_ms);
        let (noted, answer) = oneshot::channel();
        let message = FromReader::Lost {
            shard: self.index,
            lost: Lost {
                kind,
                from_ms,
                to_ms,
                first: first.map(|first| FirstLeft {
                    sequence: first.sequence.clone(),
                    arrival_ms: first.arrival_ms,
                }),
                unread_since_ms: self.unread_since_ms,
            },
            noted,
        };
        if self.out.send(message).await.is_err() {
            return false;
        }
        let Ok(Noted { index, saved }) = answer.await else {
            return false;
        };
        self.index = index;
        // A first record that was to be read again is given up with what is lost.
        let was_begun = matches!(self.from, ReadFrom::At(_));
        self.unpinned = first.is_none() && (self.unpinned || was_begun);
        saved.await.is_ok()
    }

    async fn remember_first(&mut self, first: &StreamRecord) -> bool {
        let (remembered, done) = oneshot::channel();
        let message = FromReader::First {
            shard: self.index,
            sequence: first.sequence.clone(),
            arrival_ms: first.arrival_ms,
            remembered,
        };
        self.unpinned = false;
        self.out.send(message).await.is_ok() && done.await.is_ok()
    }
}
