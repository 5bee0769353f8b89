//! The events of a group: its chains, merged by event time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use millpond_format::frame::FrameDecoder;

use crate::chain::{Chain, Decoding, TimeRange};
use crate::directory::{self, Pipeline};
use crate::error::ReadError;
use crate::event::Event;
use crate::table::Table;

/// Most chains that fetch a page ahead; more than that read page by page, so that memory
/// stays near one page (1 MB) a chain.
const MAX_PREFETCHING_CHAINS: usize = 32;

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRequest {
    /// Group.
    pub group: String,
    /// Earliest event time, milliseconds since the Unix epoch; `None` for the first.
    pub from_ms: Option<i64>,
    /// Event time to stop before; `None` to go to the end.
    pub to_ms: Option<i64>,
    /// Most events.
    pub limit: Option<u64>,
}

impl ReadRequest {
    /// All of a group.
    pub fn group(group: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            from_ms: None,
            to_ms: None,
            limit: None,
        }
    }
}

/// What a read has cost so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ReadStats {
    /// Pages queried; those of the directory and the ledger are not counted.
    pub pages: u64,
    /// Items of these pages that were looked at.
    pub items: u64,
    /// Read units of these pages, as the service reported them.
    pub read_units: f64,
    /// Frames that were decompressed.
    pub frames_decoded: u64,
    /// Frames that the time range did not need.
    pub frames_passed: u64,
    /// Events given out.
    pub events: u64,
}

/// Events of a group, in order: within a chain as stored, across chains by event time, ties by
/// topic partition.
///
/// Memory: for each chain up to two pages (1 MB each) and one decoded frame (at most 1.2 MB,
/// usually 64 KiB), and a large event while it is put together.
#[derive(Debug)]
pub struct Events {
    chains: Vec<Chain>,
    decoder: FrameDecoder,
    stats: ReadStats,
    /// Next event of each chain; the heap holds their order.
    heads: Vec<Option<Event>>,
    order: BinaryHeap<Reverse<(i64, u32, usize)>>,
    /// Chains whose next event is not known.
    wanting: Vec<usize>,
    remaining: u64,
}

impl Events {
    pub(crate) async fn open(
        table: &Arc<Table>,
        pipeline: &Pipeline,
        request: ReadRequest,
    ) -> Result<Self, ReadError> {
        let rows = directory::chains_of(table, pipeline, &request.group).await?;
        if rows.is_empty() {
            return Err(ReadError::NoSuchGroup {
                table: table.name.clone(),
                pipeline: pipeline.name.clone(),
                group: request.group,
            });
        }
        // Read before any item, so that what is not committed by it may be incomplete.
        let committed = directory::committed_offsets(table, pipeline).await?;
        let times = TimeRange {
            from_ms: request.from_ms.unwrap_or(0).max(0),
            to_ms: request.to_ms.unwrap_or(i64::MAX),
        };
        let group: Arc<str> = request.group.as_str().into();
        let mut events = Self {
            chains: Vec::new(),
            decoder: FrameDecoder::new().map_err(|e| ReadError::Decoder(e.to_string()))?,
            stats: ReadStats::default(),
            heads: Vec::new(),
            order: BinaryHeap::new(),
            wanting: Vec::new(),
            remaining: request.limit.unwrap_or(u64::MAX),
        };
        if times.from_ms >= times.to_ms || events.remaining == 0 {
            return Ok(events);
        }
        let prefetch = rows.len() <= MAX_PREFETCHING_CHAINS && request.limit.is_none();
        // An item holds at least one event: more items than events are never needed at once.
        let item_limit = request.limit.map(|limit| limit.clamp(1, 10_000) as i32);
        for row in rows {
            let offset = committed.get(&row.topic_partition).copied();
            let chain = Chain::new(
                Arc::clone(table),
                &pipeline.name,
                Arc::clone(&group),
                row,
                times,
            );
            let mut chain = chain.committed(offset);
            chain.start(item_limit, prefetch);
            events.wanting.push(events.chains.len());
            events.heads.push(None);
            events.chains.push(chain);
        }
        Ok(events)
    }

    /// The next event; `None` after the last one.
    ///
    /// # Errors
    /// A [`ReadError`]; the events before it were given out, and the read is over.
    pub async fn next(&mut self) -> Result<Option<Event>, ReadError> {
        if self.remaining == 0 {
            return Ok(None);
        }
        let result = self.advance().await;
        match &result {
            Ok(Some(_)) => {
                self.remaining -= 1;
                self.stats.events += 1;
            }
            Ok(None) | Err(_) => self.remaining = 0,
        }
        if self.remaining == 0 {
            self.chains.clear();
        }
        result
    }

    async fn advance(&mut self) -> Result<Option<Event>, ReadError> {
        let mut decoding = Decoding {
            decoder: &mut self.decoder,
            stats: &mut self.stats,
        };
        // Kept until the chain has answered: a dropped future loses nothing.
        while let Some(&index) = self.wanting.last() {
            let chain = &mut self.chains[index];
            if let Some(event) = chain.next(&mut decoding).await? {
                let rank = (event.time_ms, chain.topic_partition, index);
                self.order.push(Reverse(rank));
                self.heads[index] = Some(event);
            }
            self.wanting.pop();
        }
        let Some(Reverse((_, _, index))) = self.order.pop() else {
            return Ok(None);
        };
        self.wanting.push(index);
        Ok(self.heads[index].take())
    }

    /// What the read has cost so far.
    #[must_use]
    pub fn stats(&self) -> ReadStats {
        self.stats
    }
}
