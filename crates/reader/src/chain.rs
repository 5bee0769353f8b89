//! The events of one chain, in the order in which they are stored.

mod open_item;
mod opening;

use std::sync::Arc;

use bytes::Bytes;
use millpond_format::frame::FrameDecoder;
use millpond_format::header::FrameInfo;
use millpond_format::{keys, limits};

use crate::damage::Check;
use crate::directory::ChainRow;
use crate::error::ReadError;
use crate::event::Event;
use crate::events::ReadStats;
use crate::follow::Follow;
use crate::gather::Gather;
use crate::item::codec_of;
use crate::parts::PartCollector;
use crate::table::{Attributes, PageRequest, SortKeys, Table};
use crate::token::{ChainPosition, Within};
use open_item::{OpenFrame, OpenItem};

/// Half-open range of event times, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeRange {
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
}

impl TimeRange {
    fn holds(self, time_ms: i64) -> bool {
        (self.from_ms..self.to_ms).contains(&time_ms)
    }

    /// Sort keys of a superset of the items that hold events of the range.
    ///
    /// An item's sort time S is at or after each of its events, and at most `late_ms` after the
    /// earliest: an event at `t` in the range has `from <= t <= S <= t + late_ms < to + late_ms`.
    pub(crate) fn sort_keys(self, late_ms: i64) -> SortKeys {
        let from = (self.from_ms > 0).then(|| keys::time_text(self.from_ms));
        let end = self.to_ms.saturating_add(late_ms);
        let to = (end <= limits::MAX_TIME_MS).then(|| keys::time_text(end));
        SortKeys::Range(from, to)
    }
}

/// What chains of one read share.
pub(crate) struct Decoding<'a> {
    pub(crate) decoder: &'a mut FrameDecoder,
    pub(crate) stats: &'a mut ReadStats,
}

/// Reads one chain; holds of each of its write shards the page in use and the next one, and one decoded frame.
#[derive(Debug)]
pub(crate) struct Chain {
    table: Arc<Table>,
    pipeline: Arc<str>,
    group: Arc<str>,
    pub(crate) topic_partition: u32,
    times: TimeRange,
    gather: Gather,
    /// Items from this topic offset on may be still being written.
    committed: Option<u64>,
    committed_only: bool,
    /// The item that is to be opened next, while its dictionary is fetched.
    waiting: Option<Attributes>,
    item: Option<OpenItem>,
    frame: Option<OpenFrame>,
    parts: PartCollector,
    /// Sort key before the first item of the event that is being put together.
    before_parts: Option<String>,
    last_sk: Option<String>,
    /// Where the event stands that was given out last.
    given: Option<ChainPosition>,
    /// Item and place in it to begin at.
    resume: Option<(String, Within)>,
    /// Set for a chain that is followed while it grows.
    follow: Option<Follow>,
}

impl Chain {
    pub(crate) fn new(
        table: Arc<Table>,
        pipeline: &str,
        group: Arc<str>,
        row: ChainRow,
        times: TimeRange,
    ) -> Self {
        let request = PageRequest {
            sort_keys: times.sort_keys(row.late_ms),
            consistent: table.consistent,
            ..PageRequest::all(String::new())
        };
        let gather = Gather::new(Arc::clone(&table), (pipeline, &group), row, request);
        Self {
            table,
            pipeline: pipeline.into(),
            group,
            topic_partition: row.topic_partition,
            times,
            gather,
            committed: None,
            committed_only: false,
            waiting: None,
            item: None,
            frame: None,
            parts: PartCollector::default(),
            before_parts: None,
            last_sk: None,
            given: None,
            resume: None,
            follow: None,
        }
    }

    /// Begins where another read has stopped.
    pub(crate) fn resume(&mut self, at: &ChainPosition) {
        self.given = Some(at.clone());
        match at.within {
            None => {
                self.last_sk = Some(at.sk.clone());
                self.gather.restart(self.last_sk.clone());
            }
            Some(within) => {
                if let SortKeys::Range(from, _) = &mut self.gather.request.sort_keys {
                    *from = Some(at.sk.clone());
                }
                self.resume = Some((at.sk.clone(), within));
            }
        }
    }

    /// Where the event that [`Chain::next`] answered last stands.
    pub(crate) fn position(&self) -> Option<&ChainPosition> {
        self.given.as_ref()
    }

    /// Follows the chain while it grows: [`Chain::next`] answers `None` when nothing more is to be
    /// had yet, and goes on after [`Chain::poll`].
    pub(crate) fn follow(&mut self, follow: Follow, after: Option<String>) {
        self.follow = Some(follow);
        self.gather.request.consistent = true;
        self.last_sk = after;
        self.gather.end();
    }

    /// The directory shows the chain so.
    pub(crate) fn widen(&mut self, pipeline: &str, row: ChainRow) {
        self.gather.widen((pipeline, &self.group), row);
    }

    /// An event of which parts lie before the place where a chain begins to be followed.
    pub(crate) fn pass_over_parts(&mut self, part: &millpond_format::header::Part) {
        self.parts.lose(part);
    }

    pub(crate) fn followed(&mut self) -> Option<&mut Follow> {
        self.follow.as_mut()
    }

    /// Asks a followed chain for what came since; `is_fresh` when the ledger was read for it.
    pub(crate) fn poll(&mut self, committed: Option<u64>, is_fresh: bool) {
        self.committed = committed;
        if let Some(follow) = &mut self.follow {
            follow.committed(committed, is_fresh);
        }
        self.gather.restart(self.last_sk.clone());
        self.gather.fetch_ahead();
    }

    /// Says from which topic offset on items may be still being written, and whether to stop there.
    pub(crate) fn committed(mut self, offset: Option<u64>, stop: bool) -> Self {
        self.committed = offset;
        self.committed_only = stop;
        self
    }

    /// True for an item that is behind the end of a read of committed items.
    fn is_beyond(&self, item: &Attributes) -> bool {
        let Some(committed) = self.committed.filter(|_| self.committed_only) else {
            return false;
        };
        let sort_key = keys::SortKey::parse(&self.table.key_of(item).sk);
        sort_key.is_some_and(|sort_key| sort_key.base_offset >= committed)
    }

    /// Starts the first page; `item_limit` bounds every page.
    pub(crate) fn start(&mut self, item_limit: Option<i32>, prefetch: bool) {
        self.gather.request.item_limit = item_limit;
        self.gather.prefetch = prefetch;
        // An item of which events were given out must be there.
        self.gather.is_strict = self.resume.is_some();
        self.gather.fetch_ahead();
    }

    /// The next event of the time range.
    pub(crate) async fn next(
        &mut self,
        decoding: &mut Decoding<'_>,
    ) -> Result<Option<Event>, ReadError> {
        loop {
            if let Some((event, within)) = self.next_of_frame() {
                return Ok(Some(self.give(event, Some(within))));
            }
            if let Some((info, packed, index)) = self.next_frame() {
                self.open_frame(decoding, &info, &packed, index)?;
                continue;
            }
            if self.waiting.is_none() {
                self.waiting = self.next_item(decoding.stats).await?;
            }
            let Some(item) = &self.waiting else {
                if self.follow.is_some() {
                    return Ok(None);
                }
                if self.resume.take().is_some() {
                    return Err(misplaced());
                }
                match self.parts.give_up() {
                    Some(broken) => {
                        self.parts_broken(broken)?;
                        continue;
                    }
                    None => return Ok(None),
                }
            };
            // The item waits where a dropped future leaves it.
            let codec = codec_of(item);
            let (table, decoder) = (&self.table, &mut *decoding.decoder);
            let known = table
                .dictionaries
                .prepare(table, &self.pipeline, codec, decoder);
            let known = known.await?;
            let Some(item) = self.waiting.take() else {
                continue;
            };
            if let Some(event) = self.open_item(decoding, item, known)? {
                return Ok(Some(self.give(event, None)));
            }
        }
    }

    fn give(&mut self, event: Event, within: Option<Within>) -> Event {
        let sk = event.item.sk.to_string();
        self.given = Some(ChainPosition { sk, within });
        event
    }

    fn next_of_frame(&mut self) -> Option<(Event, Within)> {
        let (open, frame) = (self.item.as_ref()?, self.frame.as_mut()?);
        let times = self.times;
        let event = frame.events.find(|event| times.holds(event.time_ms))?;
        let within = Within {
            frame: frame.index,
            events: frame.count - frame.events.len(),
        };
        let event = Event {
            value: frame.raw.slice(event.value.clone()),
            time_ms: event.time_ms,
            topic_partition: self.topic_partition,
            origin: open.origin(&event),
            item: open.item.key.clone(),
        };
        Some((event, within))
    }

    /// Index entry, packed bytes and number of the open item's next frame.
    fn next_frame(&mut self) -> Option<(FrameInfo, Bytes, usize)> {
        self.frame = None;
        let open = self.item.as_mut()?;
        let Some(info) = open.item.header.frames.get(open.frame_index) else {
            self.item = None;
            return None;
        };
        let end = open.frame_start + info.packed_bytes as usize;
        // The payload is as long as all frames together: checked when the item was opened.
        let packed = open.item.frames.slice(open.frame_start..end);
        open.frame_start = end;
        open.frame_index += 1;
        Some((info.clone(), packed, open.frame_index - 1))
    }

    fn open_frame(
        &mut self,
        decoding: &mut Decoding<'_>,
        info: &FrameInfo,
        packed: &[u8],
        index: usize,
    ) -> Result<(), ReadError> {
        let Some(open) = &self.item else {
            return Ok(());
        };
        let begin = match self.resume.as_ref().map(|(_, within)| *within) {
            Some(within) if index < within.frame => {
                decoding.stats.frames_passed += 1;
                return Ok(());
            }
            Some(within) => {
                self.resume = None;
                within.events
            }
            None => 0,
        };
        if !info.overlaps(self.times.from_ms, self.times.to_ms) {
            decoding.stats.frames_passed += 1;
            return Ok(());
        }
        decoding.stats.frames_decoded += 1;
        let header = &open.item.header;
        match decoding.decoder.decode(header.codec, info, packed) {
            Ok(frame) => {
                if begin > frame.events.len() {
                    return Err(misplaced());
                }
                let count = frame.events.len();
                let mut events = frame.events.into_iter();
                events.by_ref().take(begin).for_each(drop);
                self.frame = Some(OpenFrame {
                    raw: frame.raw.into(),
                    index,
                    count,
                    events,
                });
                Ok(())
            }
            Err(error) => {
                let check = Check::Frame { index, error };
                self.table.report(open.item.key.clone(), check)
            }
        }
    }

    async fn next_item(&mut self, stats: &mut ReadStats) -> Result<Option<Attributes>, ReadError> {
        self.gather.is_strict = self.resume.is_some();
        let Some(item) = self.gather.next(stats).await? else {
            return Ok(None);
        };
        stats.items += 1;
        let is_held = match &mut self.follow {
            // It is seen again when the chain is asked again.
            Some(follow) => !follow.passes(&item, &self.table.key_of(&item), &self.group),
            None => false,
        };
        if is_held || self.is_beyond(&item) {
            self.gather.end();
            return Ok(None);
        }
        Ok(Some(item))
    }
}

/// The table has not what the token was given out for.
fn misplaced() -> ReadError {
    ReadError::PageToken {
        problem: "the item in which the read had stopped is not as it was".to_owned(),
    }
}
