//! One item with an event, put under a condition.

use super::batches::Count;
use super::{Ended, TableWriter};
use crate::budget::Reservation;
use crate::client::{Condition, TableError};
use crate::limits::MAX_IN_FLIGHT_BYTES;
use crate::plan::PlannedItem;

/// What became of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// It is in the table.
    Written,
    /// The condition did not hold: what is there stays.
    Superseded,
    /// The table refuses it for what it is, and says why.
    Rejected(String),
}

impl TableWriter {
    /// Puts an item under a condition that also holds when it is there already, so that a try whose
    /// answer was lost can be repeated.
    ///
    /// # Errors
    /// [`TableError`] when no try can succeed.
    pub async fn put_item(
        &self,
        item: &PlannedItem,
        condition: &Condition,
    ) -> Result<Put, TableError> {
        let permits = u32::try_from(item.bytes.div_ceil(1_024)).unwrap_or(u32::MAX);
        let permits = permits.min((MAX_IN_FLIGHT_BYTES >> 10) as u32);
        let _permit = self.in_flight.acquire_many(permits).await;
        let units = item.units;
        let row = &item.row;
        let of = Reservation::new([(row.key.pk.as_str(), units)]);
        let call = || self.put_once(&of, row, condition);
        match self.retry("PutItem", call).await {
            Ok(outcome) if outcome.applied => {
                self.acknowledged(std::iter::once(item), Count::Items);
                Ok(Put::Written)
            }
            Ok(_) => {
                // A failed condition is billed.
                self.metrics.write_units_overhead.add(units);
                self.metrics.events_superseded.add(item.events);
                Ok(Put::Superseded)
            }
            Err(Ended::Rejected(failure)) => Ok(Put::Rejected(failure.message)),
            Err(Ended::Failed(error)) => Err(error),
        }
    }
}
