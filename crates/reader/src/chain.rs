//! The events of one chain, in the order in which they are stored.

use std::sync::Arc;

use bytes::Bytes;
use millpond_format::frame::{FrameDecoder, FrameEvent};
use millpond_format::header::{FrameInfo, Header, Kind};
use millpond_format::{keys, limits};

use crate::damage::Check;
use crate::directory::ChainRow;
use crate::error::ReadError;
use crate::event::{Event, EventOrigin};
use crate::events::ReadStats;
use crate::follow::Follow;
use crate::gather::Gather;
use crate::item::{PackedItem, StoredItem, read_item};
use crate::parts::{Broken, PartCollector, PartItem};
use crate::table::{Attributes, PageRequest, SortKeys, Table};
use crate::token::{ChainPosition, Within};

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
    group: Arc<str>,
    pub(crate) topic_partition: u32,
    times: TimeRange,
    gather: Gather,
    /// Items from this topic offset on may be still being written.
    committed: Option<u64>,
    committed_only: bool,
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

#[derive(Debug)]
struct OpenItem {
    item: PackedItem,
    frame_index: usize,
    frame_start: usize,
    streams: Vec<(Arc<str>, Arc<str>)>,
}

#[derive(Debug)]
struct OpenFrame {
    raw: Bytes,
    index: usize,
    count: usize,
    events: std::vec::IntoIter<FrameEvent>,
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
            group,
            topic_partition: row.topic_partition,
            times,
            gather,
            committed: None,
            committed_only: false,
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
            let Some(item) = self.next_item(decoding.stats).await? else {
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
            if let Some(event) = self.open_item(decoding, item)? {
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

    /// Opens an item: its event at once if it holds one only.
    fn open_item(
        &mut self,
        decoding: &mut Decoding<'_>,
        attributes: Attributes,
    ) -> Result<Option<Event>, ReadError> {
        let key = self.table.key_of(&attributes);
        let before = self.last_sk.replace(key.sk.to_string());
        let item = match read_item(attributes, &key, &self.group, self.topic_partition) {
            Ok(item) => item,
            Err(check) => {
                self.resume = None;
                self.table.report(key, check)?;
                return Ok(None);
            }
        };
        if let Some((sk, within)) = &self.resume {
            let frames = match &item {
                StoredItem::Packed(packed) if packed.header.kind == Kind::Events => {
                    packed.header.frames.len()
                }
                _ => 0,
            };
            if **sk != *key.sk || within.frame >= frames {
                return Err(misplaced());
            }
        }
        let part = match &item {
            StoredItem::Packed(packed) => match &packed.header.kind {
                Kind::Part(part) => Some(*part),
                _ => None,
            },
            StoredItem::Plain(_) => None,
        };
        // Whatever is no further part of an open event ends it.
        let interrupted = part.map_or(self.parts.is_open(), |part| self.parts.interrupts(&part));
        if interrupted
            && let Some(broken) = self.parts.give_up()
            && self.parts_broken(broken)? == AfterBroken::ReadAgain
        {
            return Ok(None);
        }
        match (item, part) {
            (StoredItem::Plain(event), _) => Ok(self.times.holds(event.time_ms).then_some(event)),
            (StoredItem::Packed(item), None) => {
                self.item = Some(OpenItem::new(item));
                Ok(None)
            }
            (StoredItem::Packed(item), Some(part)) => {
                if !self.parts.is_open() {
                    self.before_parts = before;
                }
                self.push_part(decoding, item, part)
            }
        }
    }

    fn push_part(
        &mut self,
        decoding: &mut Decoding<'_>,
        item: PackedItem,
        part: millpond_format::header::Part,
    ) -> Result<Option<Event>, ReadError> {
        let header = &item.header;
        if !self.times.holds(header.first_time_ms()) {
            decoding.stats.frames_passed += header.frames.len() as u64;
            return Ok(None);
        }
        let key = item.key.clone();
        let open = OpenItem::new(item);
        let (bytes, event) = match open.decode_all(decoding) {
            Ok(decoded) => decoded,
            Err(check) => {
                self.parts.lose(&part);
                self.table.report(key, check)?;
                return Ok(None);
            }
        };
        let pushed = self.parts.push(PartItem {
            part,
            base_offset: open.item.header.base_offset,
            bytes,
            time_ms: event.time_ms,
            origin: open.origin(&event),
            key,
        });
        match pushed {
            Ok(whole) => Ok(whole.map(|whole| Event {
                value: whole.bytes.into(),
                time_ms: whole.time_ms,
                topic_partition: self.topic_partition,
                origin: whole.origin,
                item: whole.item,
            })),
            Err(broken) => {
                self.parts_broken(broken)?;
                Ok(None)
            }
        }
    }

    /// Judges parts that do not make up an event: still being written, seen too early by an
    /// eventually consistent read, or damage.
    fn parts_broken(&mut self, broken: Broken) -> Result<AfterBroken, ReadError> {
        if self
            .committed
            .is_some_and(|offset| broken.base_offset >= offset)
        {
            return Ok(AfterBroken::GoOn);
        }
        if !self.gather.request.consistent {
            self.gather.request.consistent = true;
            self.parts.clear();
            self.last_sk = self.before_parts.take();
            self.gather.restart(self.last_sk.clone());
            return Ok(AfterBroken::ReadAgain);
        }
        self.table.report(broken.item, broken.check)?;
        Ok(AfterBroken::GoOn)
    }
}

/// The table has not what the token was given out for.
fn misplaced() -> ReadError {
    ReadError::PageToken {
        problem: "the item in which the read had stopped is not as it was".to_owned(),
    }
}

/// How a chain goes on after parts that do not make up an event.
#[derive(Debug, PartialEq, Eq)]
enum AfterBroken {
    /// From the event's first part, strongly consistent.
    ReadAgain,
    /// With the item at hand.
    GoOn,
}

impl OpenItem {
    fn new(item: PackedItem) -> Self {
        let sources = item.header.sources.iter();
        let streams = sources
            .map(|source| (source.stream.as_str().into(), source.shard.as_str().into()))
            .collect();
        Self {
            item,
            frame_index: 0,
            frame_start: 0,
            streams,
        }
    }

    fn origin(&self, event: &FrameEvent) -> EventOrigin {
        let number = event.source as usize;
        // The decoder answers only sources that the header has.
        let (stream, shard) = self.streams[number].clone();
        EventOrigin {
            stream,
            shard,
            epoch: self.item.header.sources[number].epoch,
            ordinal: event.ordinal,
        }
    }

    /// All values of all frames back to back, and the last frame event.
    fn decode_all(&self, decoding: &mut Decoding<'_>) -> Result<(Vec<u8>, FrameEvent), Check> {
        let header: &Header = &self.item.header;
        let mut bytes = Vec::new();
        let mut last = None;
        for (index, (info, range)) in header.frame_ranges().enumerate() {
            decoding.stats.frames_decoded += 1;
            let frame = decoding
                .decoder
                .decode(header.codec, info, &self.item.frames[range])
                .map_err(|error| Check::Frame { index, error })?;
            for event in &frame.events {
                bytes.extend_from_slice(frame.value(event));
            }
            if bytes.len() > limits::MAX_EVENT_BYTES {
                break;
            }
            last = frame.events.into_iter().last().or(last);
        }
        let event = last.ok_or(Check::NotAnItem {
            found: "a part without bytes",
        })?;
        Ok((bytes, event))
    }
}
