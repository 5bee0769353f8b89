//! Follows groups while they grow.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use millpond_format::frame::FrameDecoder;
use millpond_format::header::Kind;
use tokio::time::Instant;

use crate::chain::{Chain, Decoding, TimeRange};
use crate::directory::{self, ChainRow, Pipeline};
use crate::error::ReadError;
use crate::event::Event;
use crate::events::ReadStats;
use crate::follow::Follow;
use crate::gather::Gather;
use crate::groups::DirectoryScan;
use crate::item::{HEADER, VALUE, read_header};
use crate::table::{PageRequest, Table};

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TailStart {
    /// With what comes from now on. Costs up to 100 read units for each write shard of a chain that is there.
    #[default]
    Now,
    /// With the first event at or after this time, milliseconds since the Unix epoch.
    At(i64),
}

/// What to follow, and how often to look.
///
/// Cost, in read units: a chain that is looked at takes one, and what it gives (one for each 4 KB).
/// It is looked at again after [`poll`](Self::poll) while it gives something, and after twice the time
/// before, up to [`idle_poll`](Self::idle_poll), while it does not. Every [`discovery`](Self::discovery)
/// the directory is read: one for a group, 16 and one for each 4 KB of rows for all groups. The ledger, one for each
/// 4 KB of it, and then the directory's rows of the group are read when an item is found before those that it
/// follows, and with every look at chains of plain items. Every write shard of a chain is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailRequest {
    /// Group; `None` for all of the pipeline.
    pub group: Option<String>,
    /// Where to begin. Chains that appear later are followed from their start.
    pub start: TailStart,
    /// Wait before a chain that gave something is asked again.
    pub poll: Duration,
    /// Longest wait before any chain is asked again.
    pub idle_poll: Duration,
    /// Wait between two looks for new chains.
    pub discovery: Duration,
}

impl TailRequest {
    /// Follows a group, or all, from now on: looks every second, every 15 when nothing comes, for new
    /// chains every 10.
    #[must_use]
    pub fn new(group: Option<String>) -> Self {
        Self {
            group,
            start: TailStart::Now,
            poll: Duration::from_secs(1),
            idle_poll: Duration::from_secs(15),
            discovery: Duration::from_secs(10),
        }
    }
}

/// An event of a group that is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailEvent {
    /// Group.
    pub group: Arc<str>,
    /// Event.
    pub event: Event,
}

/// Events as they come: each once, in order within a chain, chains in no order.
///
/// Reads are strongly consistent. Memory: as many chains as queries may be in flight (16) hold a page of
/// 1 MB for each of their write shards at one time, the others a few hundred bytes.
#[derive(Debug)]
pub struct Tail {
    table: Arc<Table>,
    pipeline: Pipeline,
    request: TailRequest,
    decoder: FrameDecoder,
    stats: ReadStats,
    followed: Vec<Followed>,
    /// Where a chain is among those that are followed.
    known: HashMap<(Arc<str>, u32), usize>,
    committed: HashMap<u32, u64>,
    /// Chains that were asked and may have more to give.
    asked: VecDeque<usize>,
    discovery_due: Instant,
    is_first_look: bool,
}

#[derive(Debug)]
struct Followed {
    group: Arc<str>,
    chain: Chain,
    wait: Duration,
    due: Instant,
    /// It has given something since it was asked.
    gave: bool,
    /// First offset that was not committed before the directory was read for it.
    committed: Option<u64>,
}

impl Tail {
    pub(crate) async fn open(
        table: &Arc<Table>,
        pipeline: &Pipeline,
        request: TailRequest,
    ) -> Result<Self, ReadError> {
        let mut tail = Self {
            table: Arc::clone(table),
            pipeline: pipeline.clone(),
            decoder: FrameDecoder::new().map_err(|e| ReadError::Decoder(e.to_string()))?,
            stats: ReadStats::default(),
            followed: Vec::new(),
            known: HashMap::new(),
            committed: directory::committed_offsets(table, pipeline).await?,
            asked: VecDeque::new(),
            discovery_due: Instant::now(),
            is_first_look: true,
            request,
        };
        tail.discover().await?;
        tail.is_first_look = false;
        match &tail.request.group {
            Some(group) if tail.followed.is_empty() => {
                Err(directory::no_such_group(table, pipeline, group))
            }
            _ => Ok(tail),
        }
    }

    /// The next event, whenever it comes. A dropped future loses nothing.
    ///
    /// # Errors
    /// A [`ReadError`]; what was given out before it stays so, and following is over.
    pub async fn next(&mut self) -> Result<TailEvent, ReadError> {
        loop {
            while let Some(&index) = self.asked.front() {
                let followed = &mut self.followed[index];
                let mut decoding = Decoding {
                    decoder: &mut self.decoder,
                    stats: &mut self.stats,
                };
                if let Some(event) = followed.chain.next(&mut decoding).await? {
                    followed.gave = true;
                    self.stats.events += 1;
                    let group = Arc::clone(&followed.group);
                    return Ok(TailEvent { group, event });
                }
                self.asked.pop_front();
                followed.rest(&self.request);
            }
            if Instant::now() >= self.discovery_due {
                self.discover().await?;
            }
            self.ask().await?;
            if self.asked.is_empty() {
                let next = self.followed.iter().map(|followed| followed.due).min();
                let next = next.map_or(self.discovery_due, |due| due.min(self.discovery_due));
                tokio::time::sleep_until(next).await;
            }
        }
    }

    /// What following has cost so far, without directory and ledger.
    #[must_use]
    pub fn stats(&self) -> ReadStats {
        self.stats
    }

    /// Asks the chains that are due, as many as calls may be in flight.
    async fn ask(&mut self) -> Result<(), ReadError> {
        let now = Instant::now();
        let mut due: Vec<usize> = (0..self.followed.len())
            .filter(|index| self.followed[*index].due <= now)
            .collect();
        due.sort_by_key(|index| self.followed[*index].due);
        due.truncate(self.table.parallel_queries);
        let is_unclear = |index: &usize| {
            let follow = self.followed[*index].chain.followed();
            follow.is_some_and(|follow| follow.needs_ledger())
        };
        let unclear: Vec<usize> = due.iter().copied().filter(is_unclear).collect();
        // Before the chains: what it has committed is then there to be queried, in the write shards that the
        // directory lists afterwards.
        if !unclear.is_empty() {
            let committed = directory::committed_offsets(&self.table, &self.pipeline).await?;
            self.widen(&unclear).await?;
            self.committed = committed;
        }
        for index in due {
            let is_fresh = unclear.contains(&index);
            let followed = &mut self.followed[index];
            if is_fresh {
                let partition = followed.chain.topic_partition;
                followed.committed = self.committed.get(&partition).copied();
            }
            followed.chain.poll(followed.committed, is_fresh);
            followed.gave = false;
            self.asked.push_back(index);
        }
        Ok(())
    }

    /// Looks for write shards that chains have got.
    async fn widen(&mut self, chains: &[usize]) -> Result<(), ReadError> {
        let mut groups: Vec<Arc<str>> = Vec::new();
        for index in chains {
            let group = &self.followed[*index].group;
            if !groups.contains(group) {
                groups.push(Arc::clone(group));
            }
        }
        let this = &*self;
        let found = groups.into_iter().map(|group| async move {
            let rows = directory::chains_of(&this.table, &this.pipeline, &group).await?;
            Ok::<_, ReadError>((group, rows))
        });
        for (group, rows) in try_join_all(found).await? {
            for row in rows {
                self.widen_one(&group, row);
            }
        }
        Ok(())
    }

    /// False for a chain that is not followed yet.
    fn widen_one(&mut self, group: &Arc<str>, row: ChainRow) -> bool {
        let chain = (Arc::clone(group), row.topic_partition);
        let Some(index) = self.known.get(&chain) else {
            return false;
        };
        let followed = &mut self.followed[*index];
        followed.chain.widen(&self.pipeline.name, row);
        true
    }

    /// Looks for chains that are not followed yet.
    async fn discover(&mut self) -> Result<(), ReadError> {
        self.discovery_due = Instant::now() + self.request.discovery;
        let mut found = VecDeque::new();
        match &self.request.group {
            Some(group) => {
                let rows = directory::chains_of(&self.table, &self.pipeline, group).await?;
                found.push_back((group.clone(), rows));
            }
            None => {
                let mut scan = DirectoryScan::default();
                while !scan.is_done() {
                    scan.page(&self.table, &self.pipeline.name, &mut found)
                        .await?;
                }
            }
        }
        let mut new = Vec::new();
        for (group, rows) in found {
            let group: Arc<str> = group.into();
            for row in rows {
                if !self.widen_one(&group, row) {
                    new.push((Arc::clone(&group), row));
                }
            }
        }
        let this = &*self;
        let begun: Vec<Followed> = stream::iter(new)
            .map(|(group, row)| this.begin(group, row))
            .buffer_unordered(self.table.parallel_queries)
            .try_collect()
            .await?;
        // Together, at the end: a dropped future leaves no chain known that is not followed.
        for followed in begun {
            let partition = followed.chain.topic_partition;
            let chain = (Arc::clone(&followed.group), partition);
            self.known.insert(chain, self.followed.len());
            self.followed.push(followed);
        }
        Ok(())
    }

    async fn begin(&self, group: Arc<str>, row: ChainRow) -> Result<Followed, ReadError> {
        let times = TimeRange {
            from_ms: match self.request.start {
                TailStart::At(time_ms) => time_ms.max(0),
                TailStart::Now => 0,
            },
            to_ms: i64::MAX,
        };
        let mut chain = Chain::new(
            Arc::clone(&self.table),
            &self.pipeline.name,
            Arc::clone(&group),
            row,
            times,
        );
        match (self.is_first_look, self.request.start) {
            (true, TailStart::Now) => self.begin_at_end(&mut chain, &group, row).await?,
            // From its start the first item has a total of one.
            _ => chain.follow(Follow::after(Some(0)), None),
        }
        Ok(Followed {
            committed: self.committed.get(&row.topic_partition).copied(),
            group,
            chain,
            wait: self.request.poll,
            due: Instant::now(),
            gave: false,
        })
    }

    /// Begins after the last item that is there.
    async fn begin_at_end(
        &self,
        chain: &mut Chain,
        group: &str,
        row: ChainRow,
    ) -> Result<(), ReadError> {
        let request = PageRequest {
            backward: true,
            item_limit: Some(1),
            attributes: Some(&[HEADER, VALUE]),
            ..PageRequest::all(String::new())
        };
        let of = (self.pipeline.name.as_str(), group);
        let mut last = Gather::new(Arc::clone(&self.table), of, row, request);
        let Some(item) = last.next(&mut ReadStats::default()).await? else {
            chain.follow(Follow::after(Some(0)), None);
            return Ok(());
        };
        let key = self.table.key_of(&item);
        // One that cannot be read is damage of the past, and has no totals to count on from.
        let header = read_header(&item, &key, group).ok();
        let items = header.as_ref().map(|header| header.totals.items);
        chain.follow(Follow::after(items), Some(key.sk.to_string()));
        if let Some(Kind::Part(part)) = header.map(|header| header.header.kind) {
            chain.pass_over_parts(&part);
        }
        Ok(())
    }
}

impl Followed {
    /// Says when to ask again.
    fn rest(&mut self, request: &TailRequest) {
        let is_held = self.chain.followed().is_some_and(|follow| follow.is_held());
        self.wait = match self.gave || is_held {
            true => request.poll,
            false => (self.wait * 2).min(request.idle_poll.max(request.poll)),
        };
        self.due = Instant::now() + self.wait;
    }
}
