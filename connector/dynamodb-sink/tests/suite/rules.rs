//! What the sink relies on in a table: the fake and the wire pass the same assertions.

use std::sync::Arc;

use millpond_dynamodb_sink::client::memory::MemoryTable;
use millpond_dynamodb_sink::client::{Capacity, Condition, TableApi, Verdict};
use millpond_dynamodb_sink::row::{Key, KeyNames, Row, Value, names};
use millpond_format::sizing::{ItemSize, write_units};

pub fn key(pk: &str, sk: &str) -> Key {
    Key {
        pk: pk.into(),
        sk: sk.into(),
    }
}

/// An item of exactly `bytes`.
pub fn sized(pk: &str, sk: &str, bytes: usize) -> Row {
    let row = Row::new(key(pk, sk))
        .with(names::EVENTS, Value::N(1_234_567))
        .with(names::FIRST_TIME, Value::N(-1_763_886_000_123))
        .with(names::HEADER, Value::B(vec![1; 10].into()));
    let rest = bytes - row.size(&KeyNames::default()).bytes() - names::FRAMES.len();
    let row = row.with(names::FRAMES, Value::B(vec![7; rest].into()));
    assert_eq!(row.size(&KeyNames::default()).bytes(), bytes);
    row
}

async fn write(table: &dyn TableApi, rows: Vec<Row>) -> (Vec<usize>, f64) {
    let rows: Vec<Arc<Row>> = rows.into_iter().map(Arc::new).collect();
    let outcome = table.batch_write(&rows).await.expect("written");
    (outcome.unprocessed, outcome.units)
}

/// Creates the table and goes through every rule.
pub async fn assert_rules(table: &dyn TableApi) {
    creation(table).await;
    sizes_and_units(table).await;
    conditions(table).await;
    batches(table).await;
    tails(table).await;
}

async fn creation(table: &dyn TableApi) {
    assert_eq!(table.describe().await, Ok(None));
    let missing = table.get(&key("a", "b")).await.expect_err("no table");
    assert_eq!(missing.verdict, Verdict::NoTable);
    assert_eq!(table.create(Capacity::OnDemand).await, Ok(()));
    assert_eq!(
        table.create(Capacity::OnDemand).await,
        Ok(()),
        "made by somebody else"
    );
    let mut description = table.describe().await.expect("described").expect("exists");
    for _ in 0..100 {
        if description.active {
            break;
        }
        description = table.describe().await.expect("described").expect("exists");
    }
    assert!(description.active, "{description:?}");
    let text = |name: &str, role: &str| (name.to_owned(), role.to_owned(), "S".to_owned());
    assert_eq!(description.keys, [text("pk", "HASH"), text("sk", "RANGE")]);
}

async fn sizes_and_units(table: &dyn TableApi) {
    for bytes in [200, 1_024, 1_025, 100_000, 409_599, 409_600] {
        let (unprocessed, units) =
            write(table, vec![sized("size", &bytes.to_string(), bytes)]).await;
        assert_eq!(
            (unprocessed.len(), units),
            (0, write_units(bytes) as f64),
            "{bytes}"
        );
    }
    let too_large = Arc::new(sized("size", "big", 409_601));
    let refused = table
        .batch_write(&[too_large])
        .await
        .expect_err("too large");
    assert_eq!(refused.verdict, Verdict::Rejected, "{}", refused.message);
    // Numbers cost by their digits: one byte more or less crosses a KB here.
    for number in [
        0i64,
        7,
        10,
        100,
        12_345,
        -1,
        1_000_000,
        i64::MAX,
        i64::MIN + 1,
        65_536,
    ] {
        let base = ItemSize::new()
            .string("pk", "n")
            .string("sk", &number.to_string())
            .integer("n", number)
            .bytes();
        for over in [0, 1] {
            let row = Row::new(key("n", &number.to_string()))
                .with(names::EVENTS, Value::N(number))
                .with(
                    names::FRAMES,
                    Value::B(vec![0; 2_048 - base - 1 + over].into()),
                );
            let (_, units) = write(table, vec![row]).await;
            assert_eq!(units, 2.0 + over as f64, "{number} over {over}");
        }
    }
    // An overwrite bills the larger of old and new; the same bytes again bill the same.
    assert_eq!(write(table, vec![sized("over", "a", 5_000)]).await.1, 5.0);
    assert_eq!(write(table, vec![sized("over", "a", 5_000)]).await.1, 5.0);
    assert_eq!(write(table, vec![sized("over", "a", 300)]).await.1, 5.0);
    // A batch adds up item by item.
    let batch = vec![sized("sum", "a", 1_500), sized("sum", "b", 1_500)];
    assert_eq!(write(table, batch).await.1, 4.0);
    // Empty binary values are values; the row comes back as it was.
    let empty = Row::new(key("empty", "a"))
        .with(names::VALUE, Value::B(Vec::new().into()))
        .with(names::ORIGIN, Value::S("o".into()));
    write(table, vec![empty.clone()]).await;
    assert_eq!(table.get(&empty.key).await, Ok(Some(empty)));
}

async fn conditions(table: &dyn TableApi) {
    let row = |epoch, plan| {
        Row::new(key("ledger", "0"))
            .with(names::EPOCH, Value::N(epoch))
            .with(names::PLAN, Value::N(plan))
    };
    let equals = |epoch, plan| Condition::Equals(vec![(names::EPOCH, epoch), (names::PLAN, plan)]);
    let late = |late| Row::new(key("dir", "0")).with(names::LATE, Value::N(late));
    let below = |bound| Condition::AbsentOrBelow(names::LATE, bound);
    for (put, condition, applied) in [
        (row(1, 0), equals(1, 0), false),
        (row(1, 0), Condition::Absent, true),
        (row(1, 0), Condition::Absent, false),
        (row(1, 1), equals(1, 0), true),
        (row(1, 1), equals(1, 0), false),
        (row(2, 1), equals(1, 1), true),
        (row(1, 2), equals(1, 1), false),
        (late(64), below(64), true),
        (late(64), below(64), false),
        (late(32), below(32), false),
        (late(128), below(128), true),
    ] {
        let outcome = table.put(&put, &condition).await.expect("answered");
        assert_eq!(
            (outcome.applied, outcome.units),
            (applied, 1.0),
            "{put:?} {condition:?}"
        );
    }
    assert_eq!(table.get(&key("ledger", "0")).await, Ok(Some(row(2, 1))));
    assert_eq!(table.get(&key("dir", "0")).await, Ok(Some(late(128))));
}

async fn batches(table: &dyn TableApi) {
    let rows = |count: usize| -> Vec<Arc<Row>> {
        let row = |index| Arc::new(sized("batch", &format!("{index:03}"), 300));
        (0..count).map(row).collect()
    };
    assert_eq!(
        table.batch_write(&rows(25)).await.expect("written").units,
        25.0
    );
    let refused = table.batch_write(&rows(26)).await.expect_err("too many");
    assert_eq!(refused.verdict, Verdict::Rejected, "{}", refused.message);
    let same = Arc::new(sized("batch", "same", 300));
    let refused = table
        .batch_write(&[same.clone(), same])
        .await
        .expect_err("one key twice");
    assert_eq!(refused.verdict, Verdict::Rejected, "{}", refused.message);
}

async fn tails(table: &dyn TableApi) {
    for name in ["a", "b", "c", "d"] {
        write(table, vec![sized("tail", name, 2_000)]).await;
    }
    let keys = |rows: &[Row]| {
        rows.iter()
            .map(|row| row.key.sk.clone())
            .collect::<Vec<_>>()
    };
    let page = table
        .tail("tail", None, 2, names::HEADER)
        .await
        .expect("page");
    assert_eq!(
        (keys(&page.rows), page.more),
        (vec!["d".to_owned(), "c".into()], true)
    );
    assert!(page.rows[0].binary(names::HEADER).is_some());
    assert!(
        page.rows[0].binary(names::FRAMES).is_none(),
        "frames stay where they are"
    );
    let page = table
        .tail("tail", Some("c"), 10, names::HEADER)
        .await
        .expect("page");
    assert_eq!(
        (keys(&page.rows), page.more),
        (vec!["b".to_owned(), "a".into()], false)
    );
    let page = table
        .tail("nobody", None, 10, names::HEADER)
        .await
        .expect("page");
    assert_eq!((page.rows.len(), page.more), (0, false));
}

#[tokio::test]
async fn the_table_in_memory_keeps_the_rules() {
    assert_rules(&MemoryTable::absent("t")).await;
}
