//! Ledger rows, whose marks may lie in rows of their own.

use std::sync::PoisonError;

use millpond_connector::topic::PartitionId;
use millpond_format::keys;
use millpond_format::marks::Marks;
use millpond_sink::ledger::LedgerRow;

use super::{TableStore, row_error};
use crate::error::DynamoError;
use crate::ledger_row::{decode, encode, unchanged};
use crate::resting::{Resting, SnapshotName};
use crate::row::{Row, Value, names};

/// Reads of a ledger row whose snapshot is being replaced.
const SNAPSHOT_TRIES: u32 = 5;

impl TableStore {
    /// The ledger row of a topic partition, with all its marks.
    ///
    /// # Errors
    /// [`DynamoError`] when the table does not answer, or a row is not of this version.
    pub(super) async fn read_ledger(
        &self,
        partition: PartitionId,
    ) -> Result<Option<LedgerRow>, DynamoError> {
        let key = self.ledger_key(partition);
        for _ in 0..SNAPSHOT_TRIES {
            let found = self
                .ledger_table()
                .get(&key)
                .await
                .map_err(DynamoError::from)?;
            let Some(row) = found else { return Ok(None) };
            let mut ledger = decode(&row).map_err(|error| row_error(key.clone(), &error))?;
            let Some(name) = row.string(names::RESTING) else {
                self.set_resting(partition, Resting::default());
                return Ok(Some(ledger));
            };
            let name = SnapshotName::parse(name)
                .ok_or_else(|| row_error(key.clone(), &"malformed `resting`"))?;
            // An owner that is still there may replace it between the two reads.
            if let Some(marks) = self.snapshot(partition, name).await? {
                ledger.marks = marks.with(&ledger.marks);
                self.set_resting(partition, Resting::of(name, marks));
                return Ok(Some(ledger));
            }
        }
        Err(row_error(
            key,
            &"the snapshot that `resting` names is not there",
        ))
    }

    /// Puts the row in place of the one that was seen; false when another one is there by now.
    ///
    /// # Errors
    /// [`DynamoError`] when the table does not answer, or the row cannot be stored.
    pub(super) async fn replace_ledger(
        &self,
        partition: PartitionId,
        row: &LedgerRow,
        seen: Option<&LedgerRow>,
    ) -> Result<bool, DynamoError> {
        let key = self.ledger_key(partition);
        let split = self.resting(partition).split(row, seen);
        if split.is_new {
            let rows = split.after.rows(&self.marks_pk(), partition);
            let rows = rows.map_err(|error| row_error(key.clone(), &error))?;
            rows.iter().for_each(|row| self.count_ledger(row));
            let written = self.ledger_table().write_rows(rows).await;
            written.map_err(DynamoError::from)?;
        }
        let ledger = LedgerRow {
            marks: split.recent,
            ..row.clone()
        };
        let stored = encode(&ledger, key.clone()).map_err(|error| row_error(key, &error))?;
        let stored = match split.after.name() {
            Some(name) => stored.with(names::RESTING, Value::S(name.text())),
            None => stored,
        };
        self.count_ledger(&stored);
        let put = self.ledger_table().put(&stored, &unchanged(seen)).await;
        let is_put = put.map_err(DynamoError::from)?;
        if is_put {
            self.set_resting(partition, split.after);
        }
        Ok(is_put)
    }

    fn count_ledger(&self, row: &Row) {
        let units = row.size(self.ledger_table().keys()).write_units();
        self.place.metrics.write_units_ledger.add(units);
    }

    fn marks_pk(&self) -> String {
        keys::marks_pk(&self.place.pipeline, &self.place.topic)
    }

    fn resting(&self, partition: PartitionId) -> Resting {
        let known = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&partition).cloned().unwrap_or_default()
    }

    fn set_resting(&self, partition: PartitionId, resting: Resting) {
        let mut known = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(partition, resting);
    }

    /// Marks of a snapshot; `None` when it was replaced since the ledger row was read.
    async fn snapshot(
        &self,
        partition: PartitionId,
        name: SnapshotName,
    ) -> Result<Option<Marks>, DynamoError> {
        let mut marks = Marks::default();
        let plan = i64::try_from(name.plan).unwrap_or(i64::MAX);
        for key in name.keys(&self.marks_pk(), partition) {
            let Some(row) = self.ledger_table().get(&key).await? else {
                return Ok(None);
            };
            if row.integer(names::PLAN) != Some(plan) {
                return Ok(None);
            }
            let bytes = row.binary(names::MARKS).map(|bytes| bytes.concat());
            let part = Marks::decode(&bytes.unwrap_or_default());
            let part = part.map_err(|error| row_error(key, &error))?;
            marks = marks.with(&part);
        }
        Ok(Some(marks))
    }
}
