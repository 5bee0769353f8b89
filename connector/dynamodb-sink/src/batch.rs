//! Cutting a plan's rows into requests.

use std::collections::BTreeMap;
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

/// A row as far as requests are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowSize<'a> {
    /// Partition key.
    pub pk: &'a str,
    /// Bytes by DynamoDB's sizing rules.
    pub bytes: usize,
    /// Write units.
    pub units: u64,
}

/// How rows are divided where partition keys have limits of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lanes {
    /// Of requests that go to several keys.
    pub limits: BatchLimits,
    /// Rows of one key with more units than this make requests of their own: what waits for a crowded key
    /// then does not hold up others.
    pub crowded_units: u64,
    /// Units of such a request.
    pub key_units: u64,
}

/// Requests in lanes: the requests of the first lane may be sent in any order and at the same time, those of
/// each other lane go to one key, one after the other. Every row is in one request, given by its index.
#[must_use]
pub fn lanes(rows: &[RowSize<'_>], how: Lanes) -> Vec<Vec<Vec<usize>>> {
    let mut of_keys: BTreeMap<&str, u64> = BTreeMap::new();
    for row in rows {
        let units = of_keys.entry(row.pk).or_default();
        *units = units.saturating_add(row.units);
    }
    let mut common = Vec::new();
    let mut crowded: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        match of_keys.get(row.pk) {
            Some(units) if *units > how.crowded_units => {
                crowded.entry(row.pk).or_default().push(index);
            }
            _ => common.push(index),
        }
    }
    let requests = |indexes: Vec<usize>, units: u64| -> Vec<Vec<usize>> {
        let sizes: Vec<(usize, u64)> = indexes
            .iter()
            .map(|index| (rows[*index].bytes, rows[*index].units))
            .collect();
        let limits = BatchLimits {
            units,
            ..how.limits
        };
        let ranges = cut(&sizes, limits).into_iter();
        ranges.map(|range| indexes[range].to_vec()).collect()
    };
    let mut lanes = vec![requests(common, how.limits.units)];
    lanes.extend(
        crowded
            .into_values()
            .map(|indexes| requests(indexes, how.key_units)),
    );
    lanes
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

        #[test]
        fn every_row_is_in_one_lane_and_a_crowded_key_in_its_own(
            rows in prop::collection::vec((0u8..6, 1usize..500, 1u64..500), 0..100),
            items in 1usize..30, units in 1u64..2_000, crowded_units in 0u64..2_000, key_units in 1u64..500,
        ) {
            let names = ["a", "b", "c", "d", "e", "f"];
            let rows: Vec<RowSize<'_>> = rows
                .iter()
                .map(|(key, bytes, units)| RowSize { pk: names[*key as usize], bytes: *bytes, units: *units })
                .collect();
            let limits = BatchLimits { items, bytes: 2_000, units };
            let lanes = lanes(&rows, Lanes { limits, crowded_units, key_units });
            let mut seen: Vec<usize> = lanes.iter().flatten().flatten().copied().collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..rows.len()).collect::<Vec<_>>());
            let of_key = |pk: &str| rows.iter().filter(|row| row.pk == pk).map(|row| row.units).sum::<u64>();
            for (number, lane) in lanes.iter().enumerate() {
                for request in lane {
                    prop_assert!(request.len() <= items && request.is_sorted());
                    let pk = rows[request[0]].pk;
                    prop_assert_eq!(number > 0, of_key(pk) > crowded_units);
                    if number > 0 {
                        prop_assert!(request.iter().all(|index| rows[*index].pk == pk));
                        let sum: u64 = request.iter().map(|index| rows[*index].units).sum();
                        prop_assert!(request.len() == 1 || sum <= key_units);
                    }
                }
            }
        }
    }
}
