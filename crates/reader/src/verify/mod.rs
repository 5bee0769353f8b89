//! Proves from the table that what a pipeline has committed is complete.
//!
//! The ledger is read first: what it has committed must be there. Then every chain is walked, its
//! headers alone or, *deep*, its frames too; then the counts over all groups are judged.
//! `walk`, `census` and `judge` decide, this module and its `errand`s read.

mod census;
mod errand;
mod finding;
mod judge;
mod report;
mod rows;
mod walk;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use futures_util::stream::{FuturesOrdered, StreamExt};
use millpond_format::gap::Gap;
use tokio_util::task::AbortOnDropHandle;

use crate::directory::{self, ChainRow, Pipeline};
use crate::error::ReadError;
use crate::event::ItemKey;
use crate::groups::DirectoryScan;
use crate::table::Table;
use census::{Census, Thresholds};
use errand::{Errand, Outcome};
use judge::Evidence;
use rows::Letters;

pub use census::Tally;
pub use finding::{Finding, ShardKey};
pub use judge::{Held, Ledger, ShardCount};
pub use report::{GroupCount, VerifyNote, VerifyReport, VerifyRequest};

/// A verification that has read the ledger and nothing else yet.
pub struct Verification {
    table: Arc<Table>,
    pipeline: Arc<Pipeline>,
    request: VerifyRequest,
    ledgers: BTreeMap<u32, Ledger>,
    gaps: Vec<(u32, Gap)>,
    held: BTreeMap<(u32, Box<str>, Box<str>), Held>,
    thresholds: Arc<Thresholds>,
    letters: Letters,
    census: Census,
    /// Found before anything could be told.
    early: Vec<Finding>,
    /// First items beyond the committed offset, by topic partition.
    beyond: Vec<(u32, ItemKey, u64)>,
    items: BTreeMap<u32, u64>,
    /// Dictionaries that items name.
    dictionaries: BTreeSet<u64>,
    report: VerifyReport,
}

impl std::fmt::Debug for Verification {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verification")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

impl Verification {
    pub(crate) async fn open(
        table: &Arc<Table>,
        pipeline: &Arc<Pipeline>,
        request: VerifyRequest,
    ) -> Result<Self, ReadError> {
        let (ledgers, mut early, ledger_units) = rows::ledgers(table, pipeline).await?;
        let (gaps, unreadable, gap_units) = rows::gaps(table, pipeline).await?;
        early.extend(unreadable);
        Ok(Self {
            table: Arc::clone(table),
            pipeline: Arc::clone(pipeline),
            request,
            ledgers,
            gaps,
            held: BTreeMap::new(),
            thresholds: Arc::default(),
            letters: Letters::default(),
            census: Census::default(),
            early,
            beyond: Vec::new(),
            items: BTreeMap::new(),
            dictionaries: BTreeSet::new(),
            report: VerifyReport {
                read_units: ledger_units + gap_units,
                ..VerifyReport::default()
            },
        })
    }

    /// What the ledger has committed, by topic partition.
    #[must_use]
    pub fn ledgers(&self) -> &BTreeMap<u32, Ledger> {
        &self.ledgers
    }

    /// Says what the stream still holds, by topic partition, stream and shard; before dead
    /// letters and before [`Verification::run`].
    pub fn hold(&mut self, held: BTreeMap<(u32, Box<str>, Box<str>), Held>) {
        self.thresholds = Arc::new(judge::thresholds(&self.ledgers, &held));
        self.held = held;
    }

    /// Counts a line of a dead-letter file of this pipeline.
    pub fn dead_letter_line(&mut self, line: &str) {
        let topic = self.pipeline.topic.as_deref();
        self.letters.line(line, topic, &self.thresholds);
    }

    /// Reads the table and judges it; groups and findings are told as they come.
    ///
    /// # Errors
    /// A [`ReadError`] when the table cannot be read; damage is a finding.
    pub async fn run(
        mut self,
        tell: &mut (dyn FnMut(VerifyNote) + Send),
    ) -> Result<VerifyReport, ReadError> {
        for finding in std::mem::take(&mut self.early) {
            self.find(finding, tell);
        }
        self.read_letters().await?;
        self.walk_all(tell).await?;
        self.judge(tell).await?;
        Ok(self.report)
    }

    fn find(&mut self, finding: Finding, tell: &mut (dyn FnMut(VerifyNote) + Send)) {
        self.report.findings += 1;
        tell(VerifyNote::Finding(finding));
    }

    async fn read_letters(&mut self) -> Result<(), ReadError> {
        if self.request.group.is_some() {
            return Ok(());
        }
        let other = match &self.request.dead_letter_table {
            Some(name) if *name != self.table.name => Some(self.table.open_other(name).await?),
            _ => None,
        };
        for table in std::iter::once(&*self.table).chain(&other) {
            let (letters, deep) = (&mut self.letters, self.request.deep);
            let read = letters.table(table, &self.pipeline, deep, &self.thresholds);
            self.report.read_units += read.await?;
        }
        Ok(())
    }

    /// Walks every chain; so many at once as the reader may make queries.
    async fn walk_all(
        &mut self,
        tell: &mut (dyn FnMut(VerifyNote) + Send),
    ) -> Result<(), ReadError> {
        let mut scan = DirectoryScan::default();
        let mut groups: VecDeque<(String, Vec<ChainRow>)> = VecDeque::new();
        let only = self.request.group.clone();
        if let Some(group) = &only {
            let chains = directory::chains_of(&self.table, &self.pipeline, group).await?;
            if chains.is_empty() {
                return Err(ReadError::NoSuchGroup {
                    table: self.table.name.clone(),
                    pipeline: self.pipeline.name.clone(),
                    group: group.clone(),
                });
            }
            groups.push_back((group.clone(), chains));
        }
        let mut waiting: VecDeque<Errand> = VecDeque::new();
        let mut under_way: FuturesOrdered<AbortOnDropHandle<Result<Outcome, ReadError>>> =
            FuturesOrdered::new();
        let mut open = GroupCount::default();
        loop {
            while under_way.len() < self.table.parallel_queries {
                if let Some(errand) = waiting.pop_front() {
                    let task = tokio::spawn(errand.run());
                    under_way.push_back(AbortOnDropHandle::new(task));
                } else if let Some((group, chains)) = groups.pop_front() {
                    waiting.extend(self.errands(&group, &chains));
                } else if only.is_none() && !scan.is_done() {
                    let page = scan.page(&self.table, &self.pipeline.name, &mut groups);
                    self.report.read_units += page.await?;
                } else {
                    break;
                }
            }
            let outcome = match under_way.next().await {
                None => return Ok(()),
                Some(Ok(outcome)) => outcome?,
                Some(Err(gone)) => match gone.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // Only a runtime that shuts down cancels the task.
                    Err(_) => return Ok(()),
                },
            };
            self.take(outcome, &mut open, tell);
        }
    }

    fn errands(&self, group: &str, chains: &[ChainRow]) -> Vec<Errand> {
        let last = chains.len().saturating_sub(1);
        let errand = |(index, chain): (usize, &ChainRow)| Errand {
            table: Arc::clone(&self.table),
            pipeline: Arc::clone(&self.pipeline),
            group: group.into(),
            chain: *chain,
            committed: self
                .ledgers
                .get(&chain.topic_partition)
                .map_or(u64::MAX, |ledger| ledger.committed),
            deep: self.request.deep,
            thresholds: Arc::clone(&self.thresholds),
            is_last: index == last,
        };
        chains.iter().enumerate().map(errand).collect()
    }

    fn take(
        &mut self,
        outcome: Outcome,
        open: &mut GroupCount,
        tell: &mut (dyn FnMut(VerifyNote) + Send),
    ) {
        let Outcome {
            walked,
            group,
            topic_partition,
            is_last,
            read_units,
        } = outcome;
        let report = &mut self.report;
        report.read_units += read_units;
        report.items += walked.items;
        report.events += walked.events;
        report.event_bytes += walked.event_bytes;
        report.open_items += walked.open_items;
        report.findings += walked.more_findings;
        *self.items.entry(topic_partition).or_default() += walked.items;
        open.add(&walked);
        for finding in walked.findings {
            self.find(finding, tell);
        }
        let beyond = walked.beyond.into_iter();
        self.beyond
            .extend(beyond.map(|(key, offset)| (topic_partition, key, offset)));
        self.dictionaries.extend(walked.dictionaries);
        self.census.merge(walked.census);
        if is_last {
            let mut group_count = std::mem::take(open);
            group_count.group = group.to_string();
            self.report.groups += 1;
            tell(VerifyNote::Group(group_count));
        }
    }

    async fn judge(&mut self, tell: &mut (dyn FnMut(VerifyNote) + Send)) -> Result<(), ReadError> {
        self.judge_beyond(tell).await?;
        self.judge_dictionaries(tell).await?;
        let letters = std::mem::take(&mut self.letters);
        self.report.dead_letters = letters.count;
        self.report.stream_gaps = letters.stream_gaps.len() as u64;
        for (topic_partition, gap) in letters.stream_gaps.into_values() {
            let finding = Finding::StreamGap {
                topic_partition,
                gap,
            };
            self.find(finding, tell);
        }
        for finding in letters.findings {
            self.find(finding, tell);
        }
        self.census.merge(letters.census);
        self.report.unnumbered = self.census.unnumbered;
        let removed = self
            .ledgers
            .values()
            .map(|ledger| ledger.marks.removed_ever);
        self.report.removed = removed.sum();
        let (shards, findings) = Evidence {
            census: &self.census,
            ledgers: &self.ledgers,
            gaps: &self.gaps,
            held: &self.held,
            is_deep: self.request.deep,
        }
        .judge();
        self.report.shards = shards;
        if self.request.group.is_some() {
            // Of one group no sum can be judged.
            return Ok(());
        }
        for finding in findings {
            self.find(finding, tell);
        }
        for (topic_partition, items) in self.items.clone() {
            if !self.ledgers.contains_key(&topic_partition) {
                let finding = Finding::LedgerMissing {
                    topic_partition,
                    items,
                };
                self.find(finding, tell);
            }
        }
        for (topic_partition, gap) in self.gaps.clone() {
            let finding = Finding::Gap {
                topic_partition,
                gap,
            };
            self.find(finding, tell);
        }
        self.report.gaps = std::mem::take(&mut self.gaps);
        Ok(())
    }

    /// Every dictionary that an item names must be there as it was stored.
    async fn judge_dictionaries(
        &mut self,
        tell: &mut (dyn FnMut(VerifyNote) + Send),
    ) -> Result<(), ReadError> {
        for id in std::mem::take(&mut self.dictionaries) {
            let (table, pipeline) = (&self.table, &self.pipeline.name);
            if let Err(check) = table.dictionaries.get(table, pipeline, id).await? {
                self.find(Finding::Dictionary { check }, tell);
            }
        }
        Ok(())
    }

    /// Items beyond the committed offset must be of a plan that is open, or was begun meanwhile.
    async fn judge_beyond(
        &mut self,
        tell: &mut (dyn FnMut(VerifyNote) + Send),
    ) -> Result<(), ReadError> {
        let is_open = |ledgers: &BTreeMap<u32, Ledger>, partition: &u32| {
            ledgers.get(partition).is_none_or(|ledger| ledger.is_open)
        };
        let ledgers = &self.ledgers;
        self.beyond
            .retain(|(partition, ..)| !is_open(ledgers, partition));
        if self.beyond.is_empty() {
            return Ok(());
        }
        let (now, _, units) = rows::ledgers(&self.table, &self.pipeline).await?;
        self.report.read_units += units;
        for (partition, item, offset) in std::mem::take(&mut self.beyond) {
            let committed = now.get(&partition).map_or(0, |ledger| ledger.committed);
            if offset >= committed && !is_open(&now, &partition) {
                let finding = Finding::Orphan {
                    item,
                    offset,
                    committed,
                };
                self.find(finding, tell);
            }
        }
        Ok(())
    }
}
