//! What the sink notes beside the items: pipelines, chains of groups, committed offsets.

use std::collections::HashMap;

use millpond_format::keys;

use crate::config::ReaderConfig;
use crate::damage::{Check, Damage};
use crate::error::ReadError;
use crate::layout::Layout;
use crate::table::{Attributes, PageRequest, SortKeys, Table, integer, text};

/// Most write shards of a chain that a reader asks: a row beyond is damage.
const MAX_WRITE_SHARDS: u32 = 1_024;

/// Newest version of the table layout that this build reads.
const FORMAT_VERSION: i64 = 2;

/// Registry row: version of the layout.
const FORMAT: &str = "version";
/// Registry row: topic that the pipeline reads.
const TOPIC: &str = "topic";
/// Registry row: table of the ledger, where that is another one.
const LEDGER: &str = "ledger";
/// Only of a pipeline whose items a mapping makes.
const MAPPED: &str = "mapped";
/// Registry row: what items call their attributes, as JSON.
const NAMES: &str = "names";
/// Registry row: with what the partition keys of items begin.
const PREFIX: &str = "prefix";
/// Registry row: number of the topic's partitions.
const PARTITIONS: &str = "partitions";
/// Directory row: bound on sort time minus first event time, in milliseconds.
const LATE: &str = "late";
/// Ledger row: next topic offset that is not committed.
const COMMITTED: &str = "committed";

/// The pipeline that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pipeline {
    pub(crate) name: String,
    pub(crate) topic: Option<String>,
    /// Table of the ledger, where that is another one.
    pub(crate) ledger: Option<String>,
    /// Number of the topic's partitions.
    pub(crate) topic_partitions: Option<u32>,
    /// How its items differ from the page.
    pub(crate) layout: Layout,
}

/// One chain of items: a group's events that went through one topic partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChainRow {
    pub(crate) topic_partition: u32,
    /// Partition keys of the table that it goes round.
    pub(crate) write_shards: u32,
    /// Bound on sort time minus first event time over the chain's items.
    pub(crate) late_ms: i64,
}

impl ChainRow {
    /// Adds a row of the directory, which has one for each write shard, to the chains of its group.
    pub(crate) fn add_to(self, chains: &mut Vec<Self>) {
        let mut known = chains.iter_mut();
        match known.find(|chain| chain.topic_partition == self.topic_partition) {
            Some(chain) => {
                chain.write_shards = chain.write_shards.max(self.write_shards);
                chain.late_ms = chain.late_ms.max(self.late_ms);
            }
            None => chains.push(self),
        }
    }
}

/// Finds the pipeline: the one asked for, else the only one.
pub(crate) async fn find_pipeline(
    table: &Table,
    config: &ReaderConfig,
) -> Result<Pipeline, ReadError> {
    if let Some(name) = &config.pipeline
        && let Some(row) = table.get(keys::PIPELINES_PK, name).await?
    {
        return pipeline(table, name.clone(), &row);
    }
    // A page of names is enough for a message, and two are enough to know of several.
    let page = table
        .query(&PageRequest::all(keys::PIPELINES_PK.to_owned()))
        .await?;
    let mut rows: Vec<_> = page
        .items
        .iter()
        .filter_map(|row| Some((text(row, &table.sk_name)?.to_owned(), row)))
        .collect();
    let name = table.name.clone();
    if let (None, 1) = (&config.pipeline, rows.len()) {
        let (only, row) = rows.remove(0);
        return pipeline(table, only, row);
    }
    let known: Vec<_> = rows.into_iter().map(|(name, _)| name).collect();
    Err(match (&config.pipeline, known.is_empty()) {
        (_, true) => ReadError::NoPipeline { table: name },
        (Some(pipeline), false) => ReadError::NoSuchPipeline {
            table: name,
            pipeline: pipeline.clone(),
            known,
        },
        (None, false) => ReadError::SeveralPipelines { table: name, known },
    })
}

fn pipeline(table: &Table, name: String, row: &Attributes) -> Result<Pipeline, ReadError> {
    match integer(row, FORMAT) {
        Some(found) if found > FORMAT_VERSION => Err(ReadError::NewerFormat {
            table: table.name.clone(),
            pipeline: name,
            found,
            known: FORMAT_VERSION,
        }),
        _ if row.contains_key(MAPPED) => Err(ReadError::Mapped {
            table: table.name.clone(),
            pipeline: name,
        }),
        _ => Ok(Pipeline {
            layout: match Layout::parse(text(row, NAMES), text(row, PREFIX)) {
                Some(layout) => layout,
                None => {
                    let damage = Damage {
                        table: table.name.clone(),
                        item: table.key_of(row),
                        check: Check::AttributeType {
                            name: NAMES,
                            expected: 'S',
                        },
                    };
                    return Err(damage.into());
                }
            },
            name,
            topic: text(row, TOPIC).map(str::to_owned),
            ledger: text(row, LEDGER).map(str::to_owned),
            topic_partitions: integer(row, PARTITIONS).and_then(|n| u32::try_from(n).ok()),
        }),
    }
}

/// Reads a directory row: group and chain, up to the write shard that the row is of.
pub(crate) fn chain_row<'a>(
    table: &Table,
    row: &'a Attributes,
) -> Result<(&'a str, ChainRow), Check> {
    let sort_key = text(row, &table.sk_name).unwrap_or_default();
    let place = keys::parse_directory_sk(sort_key).filter(|(.., shard)| *shard < MAX_WRITE_SHARDS);
    let (group, topic_partition, write_shard) = place.ok_or(Check::DirectoryRow)?;
    if !row.contains_key(LATE) {
        return Err(Check::MissingAttribute { name: LATE });
    }
    let late_ms = integer(row, LATE)
        .filter(|late| *late >= 0)
        .ok_or(Check::AttributeType {
            name: LATE,
            expected: 'N',
        })?;
    let chain = ChainRow {
        topic_partition,
        write_shards: write_shard + 1,
        late_ms,
    };
    Ok((group, chain))
}

/// Chains of one group, by topic partition; empty when the pipeline never wrote the group.
pub(crate) async fn chains_of(
    table: &Table,
    pipeline: &Pipeline,
    group: &str,
) -> Result<Vec<ChainRow>, ReadError> {
    let mut request = PageRequest {
        sort_keys: SortKeys::Prefix(format!("{group}#")),
        ..PageRequest::all(keys::directory_pk(&pipeline.name, group))
    };
    let mut chains = Vec::new();
    loop {
        let page = table.query(&request).await?;
        for row in &page.items {
            match chain_row(table, row) {
                // The prefix also finds groups whose own name goes on after a `#`.
                Ok((found, chain)) if found == group => chain.add_to(&mut chains),
                Ok(_) => {}
                Err(check) => table.report(table.key_of(row), check)?,
            }
        }
        match page.next_after {
            Some(after) => request.after = Some(after),
            None => break,
        }
    }
    chains.sort_by_key(|chain| chain.topic_partition);
    Ok(chains)
}

/// The error for a group without chains.
pub(crate) fn no_such_group(table: &Table, pipeline: &Pipeline, group: &str) -> ReadError {
    ReadError::NoSuchGroup {
        table: table.name.clone(),
        pipeline: pipeline.name.clone(),
        group: group.to_owned(),
    }
}

/// The table of the ledger, where that is another one.
pub(crate) async fn ledger_table(
    table: &Table,
    pipeline: &Pipeline,
) -> Result<Option<Table>, ReadError> {
    match &pipeline.ledger {
        Some(name) => Ok(Some(table.open_other(name).await?)),
        None => Ok(None),
    }
}

/// First topic offset that is not committed, by topic partition. Items from there on belong to
/// a plan that is being written.
pub(crate) async fn committed_offsets(
    table: &Table,
    pipeline: &Pipeline,
) -> Result<HashMap<u32, u64>, ReadError> {
    let mut offsets = HashMap::new();
    let Some(topic) = &pipeline.topic else {
        return Ok(offsets);
    };
    let mut request = PageRequest {
        attributes: Some(&[COMMITTED]),
        ..PageRequest::all(keys::ledger_pk(&pipeline.name, topic))
    };
    let other = ledger_table(table, pipeline).await?;
    let table = other.as_ref().unwrap_or(table);
    loop {
        let page = table.query(&request).await?;
        for row in &page.items {
            let partition = text(row, &table.sk_name).and_then(|sk| sk.parse().ok());
            let committed = integer(row, COMMITTED).and_then(|n| u64::try_from(n).ok());
            if let (Some(partition), Some(committed)) = (partition, committed) {
                offsets.insert(partition, committed);
            }
        }
        match page.next_after {
            Some(after) => request.after = Some(after),
            None => return Ok(offsets),
        }
    }
}
