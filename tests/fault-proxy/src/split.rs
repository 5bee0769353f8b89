//! The part of a `BatchWriteItem` that is let through, and the answer that names the rest.

use serde_json::{Map, Value};

/// A batch in two parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// The request with the rows that are forwarded.
    pub forwarded: Value,
    /// The rows that are not, by table, as `UnprocessedItems` names them.
    pub left: Map<String, Value>,
}

/// Takes the rows whose bit of `mask` is set (by position, modulo 64), but at least one and not all.
/// `None` for what is no batch of at least two rows.
#[must_use]
pub fn split(request: &Value, mask: u64) -> Option<Split> {
    let tables = request.get("RequestItems")?.as_object()?;
    let rows: usize = tables
        .values()
        .map(|rows| rows.as_array().map_or(0, Vec::len))
        .sum();
    if rows < 2 {
        return None;
    }
    let mut keeps: Vec<bool> = (0..rows).map(|row| mask >> (row % 64) & 1 == 1).collect();
    if keeps.iter().all(|keep| *keep) || keeps.iter().all(|keep| !keep) {
        keeps[0] = !keeps[0];
    }
    let mut keeps = keeps.into_iter();
    split_by(request, |_, _| keeps.next() == Some(true))
}

/// Takes the rows for whose table, and position in it, `keeps` is true; `None` for what is no batch.
pub fn split_by(request: &Value, mut keeps: impl FnMut(&str, usize) -> bool) -> Option<Split> {
    let tables = request.get("RequestItems")?.as_object()?;
    let mut kept = Map::new();
    let mut left = Map::new();
    for (table, rows) in tables {
        let rows = rows.as_array().cloned().unwrap_or_default();
        let mut row = 0;
        let (go, stay): (Vec<Value>, Vec<Value>) = rows.into_iter().partition(|_| {
            row += 1;
            keeps(table, row - 1)
        });
        for (part, rows) in [(&mut kept, go), (&mut left, stay)] {
            if !rows.is_empty() {
                part.insert(table.clone(), rows.into());
            }
        }
    }
    let mut forwarded = request.clone();
    forwarded["RequestItems"] = kept.into();
    Some(Split { forwarded, left })
}

/// Adds the rows that were not forwarded to the service's answer.
pub fn add_unprocessed(answer: &mut Value, left: Map<String, Value>) {
    let Some(answer) = answer.as_object_mut() else {
        return;
    };
    let unprocessed = answer
        .entry("UnprocessedItems")
        .or_insert_with(|| Map::new().into());
    for (table, rows) in left {
        match unprocessed.get_mut(&table).and_then(Value::as_array_mut) {
            Some(known) => known.extend(rows.as_array().cloned().unwrap_or_default()),
            None => unprocessed[table] = rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn batch(rows: usize) -> Value {
        let rows: Vec<Value> = (0..rows).map(|row| json!({ "PutRequest": row })).collect();
        json!({ "RequestItems": { "t": rows }, "ReturnConsumedCapacity": "TOTAL" })
    }

    #[test]
    fn both_parts_together_are_the_batch_and_neither_is_empty() {
        for rows in 2..30 {
            for mask in [0, u64::MAX, 1, 0b1010, 0xdead_beef] {
                let split = split(&batch(rows), mask).expect("two rows");
                let forwarded = split.forwarded["RequestItems"]["t"].as_array();
                let left = split.left["t"].as_array();
                let (forwarded, left) = (forwarded.expect("rows"), left.expect("rows"));
                assert!(!forwarded.is_empty() && !left.is_empty());
                let mut all: Vec<u64> = forwarded
                    .iter()
                    .chain(left)
                    .filter_map(|row| row["PutRequest"].as_u64())
                    .collect();
                all.sort_unstable();
                assert_eq!(all, (0..rows as u64).collect::<Vec<_>>());
                assert_eq!(split.forwarded["ReturnConsumedCapacity"], "TOTAL");
            }
        }
        assert_eq!(split(&batch(1), 1), None);
        assert_eq!(split(&json!({}), 1), None);
    }

    #[test]
    fn rows_left_join_those_that_the_service_left() {
        let mut answer = json!({ "UnprocessedItems": { "t": [1] } });
        let left = json!({ "t": [2], "u": [3] });
        add_unprocessed(&mut answer, left.as_object().expect("a map").clone());
        assert_eq!(answer["UnprocessedItems"], json!({ "t": [1, 2], "u": [3] }));
    }
}
