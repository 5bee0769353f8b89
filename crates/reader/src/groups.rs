//! The groups of a pipeline, with their totals.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::future::try_join_all;
use futures_util::stream::{FuturesOrdered, StreamExt};
use millpond_format::keys;
use tokio_util::task::AbortOnDropHandle;

use crate::directory::{self, ChainRow, Pipeline};
use crate::error::ReadError;
use crate::event::ItemKey;
use crate::events::ReadStats;
use crate::gather::Gather;
use crate::item::{self, FIRST_TIME, HEADER, VALUE, binary, is_plain, read_header};
use crate::table::{Attributes, PageRequest, Table, integer};

/// What to list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupsRequest {
    /// Also find [`GroupSummary::first_time_ms`], for one more query a write shard.
    pub first_times: bool,
}

/// Totals of one group, over its chains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupSummary {
    /// Group.
    pub group: String,
    /// Topic partitions that its events went through.
    pub chains: u32,
    /// Items.
    pub items: u64,
    /// Events.
    pub events: u64,
    /// Bytes of the events as they were produced.
    pub event_bytes: u64,
    /// Bytes of the packed frames; of events stored as they are, their own.
    pub packed_bytes: u64,
    /// Earliest event time in the first item of any chain, milliseconds since the Unix epoch;
    /// `None` unless asked for. Events that came late may be earlier.
    pub first_time_ms: Option<i64>,
    /// Latest event time; `None` when no item is there (yet).
    pub last_time_ms: Option<i64>,
}

impl GroupSummary {
    fn add(&mut self, chain: &ChainSummary) {
        let totals = &chain.summary;
        self.chains += 1;
        self.items += totals.items;
        self.events += totals.events;
        self.event_bytes += totals.event_bytes;
        self.packed_bytes += totals.packed_bytes;
        self.last_time_ms = self.last_time_ms.max(totals.last_time_ms);
        self.first_time_ms = earlier(self.first_time_ms, totals.first_time_ms);
    }
}

fn earlier(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Totals of one chain and what it cost to find them.
#[derive(Debug, Default)]
struct ChainSummary {
    summary: GroupSummary,
    read_units: f64,
}

/// Lists the groups: by directory bucket, within one by name.
///
/// Cost: the directory (about 30 rows a read unit), and for each write shard of a chain its last item, read
/// backward. DynamoDB bills a read by the item's whole size although only its header is
/// returned: at most 50 read units a write shard, 100 strongly consistent. A chain of events that are
/// stored as they are (without the SmartModule) has no totals: it is read to its start. Totals
/// begin anew where a chain goes from such events to packed ones: what lies before that change
/// is not counted.
pub struct Groups {
    table: Arc<Table>,
    pipeline: Arc<str>,
    request: GroupsRequest,
    scan: DirectoryScan,
    /// Groups whose chains are all known.
    ready: VecDeque<(String, Vec<ChainRow>)>,
    /// Tasks of their own: a future that is not polled must hold no query back.
    under_way: FuturesOrdered<AbortOnDropHandle<Result<(GroupSummary, f64), ReadError>>>,
    read_units: f64,
    failed: bool,
}

impl std::fmt::Debug for Groups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Groups")
            .field("pipeline", &self.pipeline)
            .field("scan", &self.scan)
            .finish_non_exhaustive()
    }
}

impl Groups {
    pub(crate) fn new(table: Arc<Table>, pipeline: &str, request: GroupsRequest) -> Self {
        Self {
            table,
            pipeline: pipeline.into(),
            request,
            scan: DirectoryScan::default(),
            ready: VecDeque::new(),
            under_way: FuturesOrdered::new(),
            read_units: 0.0,
            failed: false,
        }
    }

    /// The next group; `None` after the last one.
    ///
    /// # Errors
    /// A [`ReadError`]; the listing is over then.
    pub async fn next(&mut self) -> Result<Option<GroupSummary>, ReadError> {
        if self.failed {
            return Ok(None);
        }
        let result = self.advance().await;
        self.failed = result.is_err();
        result
    }

    async fn advance(&mut self) -> Result<Option<GroupSummary>, ReadError> {
        loop {
            while self.under_way.len() < self.table.parallel_queries
                && let Some((group, chains)) = self.ready.pop_front()
            {
                let task = tokio::spawn(summarize(
                    Arc::clone(&self.table),
                    Arc::clone(&self.pipeline),
                    group,
                    chains,
                    self.request.first_times,
                ));
                self.under_way.push_back(AbortOnDropHandle::new(task));
            }
            let full = self.under_way.len() >= self.table.parallel_queries;
            if !full && !self.scan.is_done() {
                let units = self
                    .scan
                    .page(&self.table, &self.pipeline, &mut self.ready)
                    .await?;
                self.read_units += units;
                continue;
            }
            return match self.under_way.next().await {
                Some(Ok(result)) => {
                    let (summary, units) = result?;
                    self.read_units += units;
                    Ok(Some(summary))
                }
                Some(Err(gone)) => match gone.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // Only a runtime that shuts down cancels the task.
                    Err(_) => Ok(None),
                },
                None => Ok(None),
            };
        }
    }

    /// Read units so far, as the service reported them.
    #[must_use]
    pub fn read_units(&self) -> f64 {
        self.read_units
    }
}

/// Goes through the directory page by page and gathers the chains of each group.
#[derive(Debug, Default)]
pub(crate) struct DirectoryScan {
    bucket: u64,
    after: Option<String>,
    /// Groups of which further rows may come, each a prefix of the one after it: rows are sorted
    /// by `<group>#<topic partition>` and write shard, so the rows of group `a#b` lie among those of `a`.
    open: Vec<(String, Vec<ChainRow>)>,
}

impl DirectoryScan {
    pub(crate) fn is_done(&self) -> bool {
        self.bucket >= keys::DIRECTORY_BUCKETS
    }

    pub(crate) async fn page(
        &mut self,
        table: &Table,
        pipeline: &str,
        ready: &mut VecDeque<(String, Vec<ChainRow>)>,
    ) -> Result<f64, ReadError> {
        let request = PageRequest {
            after: self.after.take(),
            ..PageRequest::all(keys::directory_bucket_pk(pipeline, self.bucket))
        };
        let page = table.query(&request).await?;
        for row in &page.items {
            match directory::chain_row(table, row) {
                Ok((group, chain)) => self.push(group, chain, ready),
                Err(check) => table.report(table.key_of(row), check)?,
            }
        }
        self.after = page.next_after;
        if self.after.is_none() {
            self.bucket += 1;
            ready.extend(self.open.drain(..).rev());
        }
        Ok(page.read_units)
    }

    fn push(
        &mut self,
        group: &str,
        chain: ChainRow,
        ready: &mut VecDeque<(String, Vec<ChainRow>)>,
    ) {
        let goes_on = |open: &str| {
            group == open
                || group
                    .strip_prefix(open)
                    .is_some_and(|rest| rest.starts_with('#'))
        };
        while self.open.last().is_some_and(|(open, _)| !goes_on(open)) {
            ready.extend(self.open.pop());
        }
        match self.open.last_mut() {
            Some((open, chains)) if open == group => chain.add_to(chains),
            _ => self.open.push((group.to_owned(), vec![chain])),
        }
    }
}

/// Totals of one group.
pub(crate) async fn one(
    table: &Arc<Table>,
    pipeline: &Pipeline,
    group: &str,
) -> Result<GroupSummary, ReadError> {
    let chains = directory::chains_of(table, pipeline, group).await?;
    if chains.is_empty() {
        return Err(directory::no_such_group(table, pipeline, group));
    }
    let name = pipeline.name.as_str().into();
    let found = summarize(Arc::clone(table), name, group.to_owned(), chains, false).await?;
    Ok(found.0)
}

async fn summarize(
    table: Arc<Table>,
    pipeline: Arc<str>,
    group: String,
    chains: Vec<ChainRow>,
    first_times: bool,
) -> Result<(GroupSummary, f64), ReadError> {
    let of_chain = chains
        .iter()
        .map(|chain| summarize_chain(&table, &pipeline, &group, *chain, first_times));
    let mut units = 0.0;
    let mut summary = GroupSummary::default();
    for chain in try_join_all(of_chain).await? {
        units += chain.read_units;
        summary.add(&chain);
    }
    summary.group = group;
    Ok((summary, units))
}

/// Goes backward to the last item with totals, and counts what it passes.
async fn summarize_chain(
    table: &Arc<Table>,
    pipeline: &str,
    group: &str,
    chain: ChainRow,
    first_times: bool,
) -> Result<ChainSummary, ReadError> {
    let request = PageRequest {
        backward: true,
        attributes: Some(&[
            HEADER,
            item::EVENT_COUNT,
            FIRST_TIME,
            item::LAST_TIME,
            VALUE,
        ]),
        consistent: table.consistent,
        ..PageRequest::all(String::new())
    };
    let of = (pipeline, group);
    let mut found = ChainSummary::default();
    let mut stats = ReadStats::default();
    let gather = |request| {
        let mut gather = Gather::new(Arc::clone(table), of, chain, request);
        gather.first_limit = Some(1);
        gather
    };
    let mut backward = gather(request.clone());
    while let Some(attributes) = backward.next(&mut stats).await? {
        let key = table.key_of(&attributes);
        match take_in(&mut found.summary, &attributes, &key, group) {
            Ok(true) => break,
            Ok(false) => {}
            Err(check) => table.report(key, check)?,
        }
    }
    if first_times {
        let mut forward = gather(PageRequest {
            backward: false,
            ..request
        });
        let first = forward.next(&mut stats).await?;
        // A damaged first item was, or will be, told of where it is read.
        found.summary.first_time_ms = first.and_then(|attributes| integer(&attributes, FIRST_TIME));
    }
    found.read_units = stats.read_units;
    Ok(found)
}

/// Adds an item, met from the end of its chain; answers true when it carries totals of all before.
fn take_in(
    summary: &mut GroupSummary,
    attributes: &Attributes,
    key: &ItemKey,
    group: &str,
) -> Result<bool, crate::damage::Check> {
    if is_plain(attributes) {
        let sort_key = keys::SortKey::parse(&key.sk).ok_or(crate::damage::Check::SortKey)?;
        let bytes = binary(attributes, VALUE)?.len() as u64;
        summary.items += 1;
        summary.events += 1;
        summary.event_bytes += bytes;
        summary.packed_bytes += bytes;
        summary.last_time_ms.get_or_insert(sort_key.sort_time_ms);
        return Ok(false);
    }
    let header = read_header(attributes, key, group)?;
    summary.items += header.totals.items;
    summary.events += header.totals.events;
    summary.event_bytes += header.totals.event_bytes;
    summary.packed_bytes += header.totals.packed_bytes;
    // A chain's sort time is its latest event time so far.
    summary
        .last_time_ms
        .get_or_insert(header.sort_key.sort_time_ms);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_whose_names_go_on_after_a_hash_are_kept_apart() {
        let rows = [
            ("a", 0, 0),
            ("a#0", 3, 0),
            ("a#0.1", 3, 0),
            ("a#0#1", 0, 0),
            ("a", 0, 1),
            ("a", 1, 0),
            ("a", 1, 1),
            ("a", 1, 2),
            ("a#1", 2, 0),
            ("a", 10, 0),
            ("a-b", 0, 0),
            ("b", 7, 0),
        ];
        let mut sorted =
            rows.map(|(group, partition, shard)| keys::directory_sk(group, partition, shard));
        sorted.sort();
        let mut scan = DirectoryScan::default();
        let mut ready = VecDeque::new();
        for sort_key in &sorted {
            let parsed = keys::parse_directory_sk(sort_key).expect("well-formed");
            let (group, topic_partition, write_shard) = parsed;
            let chain = ChainRow {
                topic_partition,
                write_shards: write_shard + 1,
                late_ms: i64::from(write_shard),
            };
            scan.push(group, chain, &mut ready);
        }
        ready.extend(scan.open.drain(..).rev());
        let mut listed: Vec<_> = ready
            .iter()
            .map(|(group, chains)| {
                let write_shards: Vec<u32> = chains.iter().map(|c| c.write_shards).collect();
                (group.as_str(), write_shards)
            })
            .collect();
        listed.sort_unstable();
        let expected = [
            ("a", vec![2, 3, 1]),
            ("a#0", vec![1]),
            ("a#0#1", vec![1]),
            ("a#0.1", vec![1]),
            ("a#1", vec![1]),
            ("a-b", vec![1]),
            ("b", vec![1]),
        ];
        assert_eq!(listed, expected);
    }
}
