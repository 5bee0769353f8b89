//! The ledger row of a topic partition as it stands in the table.

use millpond_connector::mutation::{self, Mutation};
use millpond_sink::ledger::{Intent, LedgerRow, Log};
use millpond_sink::marks::{Marks, MarksError};

use crate::client::Condition;
use crate::row::{Key, Row, Value, names};

/// Layout version of a ledger row.
const VERSION: i64 = 1;

/// Why a ledger row could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerRowError {
    /// Something is missing or not as it should be.
    #[error("is no ledger row of this version: {0}")]
    Malformed(&'static str),
    /// Its marks could not be read or written.
    #[error("ledger row: {0}")]
    Marks(#[from] MarksError),
}

/// The row for the table.
///
/// # Errors
/// [`LedgerRowError::Marks`] when there are too many.
pub fn encode(ledger: &LedgerRow, key: Key) -> Result<Row, LedgerRowError> {
    let mut row = Row::new(key)
        .with(names::VERSION, Value::N(VERSION))
        .with(names::EPOCH, Value::N(signed(ledger.epoch)))
        .with(names::OWNER, Value::S(ledger.owner.clone()))
        .with(names::PLAN, Value::N(signed(ledger.plan)))
        .with(names::COMMITTED, Value::N(signed(ledger.committed)))
        .with(names::START, Value::N(signed(ledger.start)))
        .with(names::MARKS, Value::B(ledger.marks.encode()?.into()));
    if let Some(intent) = &ledger.intent {
        row = row.with(names::INTENT, Value::S(intent.text()));
        if let Some(moved) = &intent.moved {
            row = row.with(names::MOVED, Value::B(moved.encode()?.into()));
        }
    }
    if ledger.log != Log::default() {
        row = row.with(names::LOG, Value::S(ledger.log.text()));
    }
    Ok(row)
}

/// Reads a row of the table.
///
/// # Errors
/// [`LedgerRowError`] names what is missing or not as it should be.
pub fn decode(row: &Row) -> Result<LedgerRow, LedgerRowError> {
    use LedgerRowError::Malformed;
    if row.integer(names::VERSION) != Some(VERSION) {
        return Err(Malformed("unknown `version`"));
    }
    let number = |name, what| {
        let value = row
            .integer(name)
            .and_then(|value| u64::try_from(value).ok());
        value.ok_or(Malformed(what))
    };
    let marks = row.binary(names::MARKS).ok_or(Malformed("no `marks`"))?;
    let mut intent = match row.attributes.get(names::INTENT) {
        None => None,
        Some(Value::S(text)) => Some(Intent::parse(text).ok_or(Malformed("malformed `intent`"))?),
        Some(_) => return Err(Malformed("malformed `intent`")),
    };
    match (&mut intent, row.attributes.get(names::MOVED)) {
        (_, None) => {}
        (Some(intent), Some(Value::B(moved))) => {
            intent.moved = Some(Marks::decode(&moved.concat())?);
        }
        _ => return Err(Malformed("malformed `moved`")),
    }
    let log = match row.attributes.get(names::LOG) {
        None => Log::default(),
        Some(Value::S(text)) => Log::parse(text).ok_or(Malformed("malformed `log`"))?,
        Some(_) => return Err(Malformed("malformed `log`")),
    };
    let decoded = LedgerRow {
        epoch: number(names::EPOCH, "no `epoch`")?,
        owner: row
            .string(names::OWNER)
            .ok_or(Malformed("no `owner`"))?
            .to_owned(),
        plan: number(names::PLAN, "no `plan`")?,
        committed: number(names::COMMITTED, "no `committed`")?,
        start: number(names::START, "no `start`")?,
        intent,
        marks: Marks::decode(&marks.concat())?,
        log,
    };
    match decoded.problem() {
        None => Ok(decoded),
        Some(problem) => Err(Malformed(problem)),
    }
}

/// What holds while the row is still `seen`.
#[must_use]
pub fn unchanged(seen: Option<&LedgerRow>) -> Condition {
    match seen {
        None => Condition::Absent,
        Some(_) if mutation::is(Mutation::FenceSkipped) => Condition::Equals(Vec::new()),
        Some(seen) => Condition::Equals(vec![
            (names::EPOCH, signed(seen.epoch)),
            (names::PLAN, signed(seen.plan)),
        ]),
    }
}

/// Offsets and counters stay far below 2^63.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_connector::topic::OffsetBounds;

    #[test]
    fn rows_survive_the_table() {
        let claimed = LedgerRow::claim(None, "a", 10, None).row;
        let open = claimed.begin(None, 20, "f", vec![]);
        let open = open.moving(&Marks::default()).row;
        let bounds = OffsetBounds {
            earliest: 2,
            end: 3,
        };
        let followed = open.follow(Some("another"), bounds, true).row;
        for ledger in [claimed, open, followed] {
            let key = Key {
                pk: "p".into(),
                sk: "s".into(),
            };
            let stored = encode(&ledger, key).expect("encodes");
            assert_eq!(decode(&stored), Ok(ledger));
            for name in stored.attributes.keys() {
                let mut damaged = stored.clone();
                damaged
                    .attributes
                    .insert(name.clone(), Value::S("?".into()));
                if name != names::OWNER {
                    assert!(decode(&damaged).is_err(), "{name}");
                }
            }
        }
    }

    #[test]
    fn a_row_is_told_apart_by_epoch_and_plan() {
        let open = LedgerRow::claim(None, "a", 10, None)
            .row
            .begin(None, 20, "f", vec![])
            .row;
        let equals = Condition::Equals(vec![(names::EPOCH, 1), (names::PLAN, 1)]);
        assert_eq!(unchanged(Some(&open)), equals);
        assert_eq!(unchanged(None), Condition::Absent);
    }
}
