//! Cutting a plan's rows into requests.

use std::ops::Range;

/// What a request may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Rows.
    pub items: usize,
    /// Bytes by DynamoDB's sizing rules.
    pub bytes: usize,
    /// Write units; a single row above it still goes out, alone.
    pub units: u64,
}

/// Consecutive rows that make one request each; rows are given by size in bytes and write units.
///
/// Order is kept: every row of a request comes after every row of the ones before.
#[must_use]
pub fn cut(rows: &[(usize, u64)], limits: BatchLimits) -> Vec<Range<usize>> {
    let mut requests = Vec::new();
    let (mut start, mut bytes, mut units) = (0, 0usize, 0u64);
    for (index, (row_bytes, row_units)) in rows.iter().enumerate() {
        let full = index - start >= limits.items.max(1)
            || bytes.saturating_add(*row_bytes) > limits.bytes
            || units.saturating_add(*row_units) > limits.units;
        if index > start && full {
            requests.push(start..index);
            (start, bytes, units) = (index, 0, 0);
        }
        bytes = bytes.saturating_add(*row_bytes);
        units = units.saturating_add(*row_units);
    }
    if start < rows.len() {
        requests.push(start..rows.len());
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{MAX_BATCH_BYTES, MAX_BATCH_ITEMS, SERVICE_BATCH_BYTES};
    use millpond_format::limits::MAX_ITEM_BYTES;
    use proptest::prelude::*;

    #[test]
    fn our_limits_stay_within_the_service() {
        const { assert!(MAX_BATCH_ITEMS * MAX_ITEM_BYTES < SERVICE_BATCH_BYTES) };
        // Base64 grows by a third.
        const { assert!(MAX_BATCH_BYTES / 3 * 4 + (1 << 20) < SERVICE_BATCH_BYTES) };
    }

    proptest! {
        #[test]
        fn every_row_once_in_order_within_the_limits(
            rows in prop::collection::vec((1usize..500, 1u64..500), 0..100),
            items in 1usize..30, bytes in 1usize..2_000, units in 1u64..2_000,
        ) {
            let limits = BatchLimits { items, bytes, units };
            let requests = cut(&rows, limits);
            let mut next = 0;
            for request in &requests {
                prop_assert_eq!(request.start, next);
                prop_assert!(request.end > request.start);
                next = request.end;
                let rows = &rows[request.clone()];
                prop_assert!(rows.len() <= items);
                if rows.len() > 1 {
                    prop_assert!(rows.iter().map(|row| row.0).sum::<usize>() <= bytes);
                    prop_assert!(rows.iter().map(|row| row.1).sum::<u64>() <= units);
                }
            }
            prop_assert_eq!(next, rows.len());
        }
    }
}
