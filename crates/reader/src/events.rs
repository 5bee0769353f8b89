//! The events of a group: its chains, merged by event time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use millpond_format::frame::FrameDecoder;

use crate::chain::{Chain, Decoding, TimeRange};
use crate::directory::{self, Pipeline};
use crate::error::ReadError;
use crate::event::Event;
use crate::table::Table;
use crate::token::{ChainPosition, Token};

/// Most write shards, of all chains, that fetch a page ahead.
const MAX_PREFETCHING: usize = 32;

/// Most write shards that read whole pages of 1 MB.
const MAX_PAGING: usize = 64;

/// Items of a page when there are so many write shards that their pages would not fit 64 MB: each has
/// up to 400 KB. Merging needs one item of each, so it is never less.
fn items_of_page(write_shards: usize) -> Option<usize> {
    (write_shards > MAX_PAGING).then(|| (160 / write_shards).max(1))
}

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
    /// Token of an earlier read of the same group and times, to go on where it stopped: see
    /// [`Events::page_token`].
    pub page_token: Option<String>,
    /// Only items that the ledger had committed when the read began. While the sink writes, a later item
    /// of a chain may be there before an earlier one: pages of a read must not pass it.
    pub committed_only: bool,
}

impl ReadRequest {
    /// All of a group.
    pub fn group(group: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            from_ms: None,
            to_ms: None,
            limit: None,
            page_token: None,
            committed_only: false,
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
/// The chains and their write shards are read at the same time, each a page ahead of what is decoded of it. Write
/// shards that a chain gets while it is read are left to the reads that begin later, as is what else comes.
///
/// Memory, however large the group: up to 32 write shards of its chains two pages of 1 MB each, up to 64 one,
/// for more of them 64 MB in all or an item of up to 400 KB each; beside that for each chain one
/// decoded frame (at most 1.2 MB, usually 64 KiB), and a large event while it is put together.
#[derive(Debug)]
pub struct Events {
    chains: Vec<Chain>,
    decoder: FrameDecoder,
    stats: ReadStats,
    /// Next event of each chain and where it stands; the heap holds their order.
    heads: Vec<Option<(Event, Option<ChainPosition>)>>,
    /// Where each chain stands, by topic partition.
    positions: BTreeMap<u32, ChainPosition>,
    /// Token without positions.
    token: Token,
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
        // Read before any item, so that what is not committed by it may be incomplete; and before the directory, so
        // that what is committed by it is in write shards which that lists.
        let committed = directory::committed_offsets(table, pipeline).await?;
        let rows = directory::chains_of(table, pipeline, &request.group).await?;
        if rows.is_empty() {
            return Err(directory::no_such_group(table, pipeline, &request.group));
        }
        let times = TimeRange {
            from_ms: request.from_ms.unwrap_or(0).max(0),
            to_ms: request.to_ms.unwrap_or(i64::MAX),
        };
        let group: Arc<str> = request.group.as_str().into();
        let token = Token::new(
            (&pipeline.name, &group),
            (times.from_ms, times.to_ms),
            Vec::new(),
        );
        let positions = match &request.page_token {
            Some(text) => Token::parse(text, &token)?.chains,
            None => Vec::new(),
        };
        let mut events = Self {
            chains: Vec::new(),
            decoder: FrameDecoder::new().map_err(|e| ReadError::Decoder(e.to_string()))?,
            stats: ReadStats::default(),
            heads: Vec::new(),
            positions: positions.into_iter().collect(),
            token,
            order: BinaryHeap::new(),
            wanting: Vec::new(),
            remaining: request.limit.unwrap_or(u64::MAX),
        };
        if times.from_ms >= times.to_ms || events.remaining == 0 {
            return Ok(events);
        }
        let queries: usize = rows.iter().map(|row| row.write_shards as usize).sum();
        let prefetch = queries <= MAX_PREFETCHING && request.limit.is_none();
        // An item holds at least one event: more items than events are never needed at once.
        let wanted = request.limit.map(|limit| limit.clamp(1, 10_000) as i32);
        let fitting = items_of_page(queries).map(|items| items as i32);
        let item_limit = [wanted, fitting].into_iter().flatten().min();
        for row in rows {
            let offset = committed.get(&row.topic_partition).copied();
            let chain = Chain::new(
                Arc::clone(table),
                &pipeline.name,
                Arc::clone(&group),
                row,
                times,
            );
            let mut chain = chain.committed(offset, request.committed_only);
            if let Some(position) = events.positions.get(&row.topic_partition) {
                chain.resume(position);
            }
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
                self.heads[index] = Some((event, chain.position().cloned()));
            }
            self.wanting.pop();
        }
        let Some(Reverse((_, _, index))) = self.order.pop() else {
            return Ok(None);
        };
        self.wanting.push(index);
        let Some((event, position)) = self.heads[index].take() else {
            return Ok(None);
        };
        if let Some(position) = position {
            self.positions.insert(event.topic_partition, position);
        }
        Ok(Some(event))
    }

    /// A token that resumes this read after the last event that was given out, also in another
    /// process: the events after it are the same, and in the same order, as if it had gone on.
    ///
    /// It is opaque, has a version and a checksum, and is bound to pipeline, group and times; the limit
    /// may be another. It grows with the number of chains, by about 100 bytes each. After the last
    /// event it gives what came since; while the sink writes, all of that only with
    /// [`ReadRequest::committed_only`].
    #[must_use]
    pub fn page_token(&self) -> String {
        let positions = self.positions.iter();
        let chains = positions.map(|(partition, position)| (*partition, position.clone()));
        self.token.with_chains(chains.collect()).to_text()
    }

    /// What the read has cost so far.
    #[must_use]
    pub fn stats(&self) -> ReadStats {
        self.stats
    }
}
