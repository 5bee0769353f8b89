//! Takes back what was written of a plan whose records are lost for good.
//!
//! A process that stood still meanwhile may go on with this long after another one has done it: what it finds then is
//! what was written after the plan, under offsets behind it, and stays.

use std::ops::Range;

use futures_util::future::try_join_all;
use millpond_connector::topic::{Offset, PartitionId};
use millpond_format::keys::{self, DIRECTORY_BUCKETS, SortKey};

use crate::client::TableError;
use crate::row::names;
use crate::writer::TableWriter;

/// Rows asked for at once: of the directory, and of the end of a chain.
const PAGE: usize = 100;
const LAST_ITEMS: usize = 8;

/// The items of one plan.
pub(crate) struct Undo<'a> {
    pub(crate) table: &'a TableWriter,
    pub(crate) pipeline: &'a str,
    /// With what the partition keys of items begin.
    pub(crate) key_prefix: &'a str,
    pub(crate) partition: PartitionId,
    /// Offsets of the plan.
    pub(crate) offsets: Range<Offset>,
}

impl Undo<'_> {
    /// Removes them, the last under each partition key first, so that what is not removed yet is found again. Answers
    /// how many there were. The whole directory is gone through: which groups the plan had is known to nobody.
    ///
    /// # Errors
    /// [`TableError`] when no try can succeed; some may be removed.
    pub(crate) async fn run(&self) -> Result<u64, TableError> {
        let buckets = (0..DIRECTORY_BUCKETS).map(|bucket| self.bucket(bucket));
        Ok(try_join_all(buckets).await?.into_iter().sum())
    }

    async fn bucket(&self, bucket: u64) -> Result<u64, TableError> {
        let pk = keys::directory_bucket_pk(self.pipeline, bucket);
        let mut removed = 0;
        let mut before: Option<String> = None;
        loop {
            let page = self
                .table
                .tail(&pk, before.as_deref(), PAGE, names::LATE)
                .await?;
            for row in &page.rows {
                let chain = keys::parse_directory_sk(&row.key.sk);
                if let Some((group, _, shard)) = chain.filter(|(_, of, _)| *of == self.partition) {
                    removed += self.write_shard(group, shard).await?;
                }
            }
            before = page.rows.last().map(|row| row.key.sk.clone());
            if !page.more || before.is_none() {
                return Ok(removed);
            }
        }
    }

    async fn write_shard(&self, group: &str, shard: u32) -> Result<u64, TableError> {
        let pk = keys::shard_pk(self.pipeline, group, self.partition, shard);
        let pk = format!("{}{pk}", self.key_prefix);
        let mut removed = 0;
        let mut before: Option<String> = None;
        loop {
            let page = self
                .table
                .tail(&pk, before.as_deref(), LAST_ITEMS, names::LATE)
                .await?;
            for row in &page.rows {
                // What Millpond did not write is passed over.
                let Some(key) = SortKey::parse(&row.key.sk) else {
                    continue;
                };
                if key.base_offset < self.offsets.start {
                    return Ok(removed);
                }
                if key.base_offset >= self.offsets.end {
                    continue;
                }
                self.table.delete(&row.key).await?;
                removed += 1;
            }
            before = page.rows.last().map(|row| row.key.sk.clone());
            if !page.more || before.is_none() {
                return Ok(removed);
            }
        }
    }
}
