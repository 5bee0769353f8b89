//! Items that Millpond did not write, or that were changed since.

#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::types::ScalarAttributeType;
use millpond_format::error::DecodeError;
use millpond_reader::{
    Check, Damage, GroupsRequest, OnDamage, ReadError, ReadRequest, ReaderConfig,
};
use support::{
    ChainWriter, Item, Local, TABLE, change, drain, ledger_row, n, registry_row, row, s, text_of,
    values,
};

type Told = Arc<Mutex<Vec<Damage>>>;

fn skipping() -> (ReaderConfig, Told) {
    let told = Told::default();
    let tell = Arc::clone(&told);
    let config = ReaderConfig {
        on_damage: OnDamage::Skip(Arc::new(move |damage: &Damage| {
            tell.lock().expect("not poisoned").push(damage.clone());
        })),
        ..ReaderConfig::new(TABLE)
    };
    (config, told)
}

/// Three items of two frames with two events each: `0a0` to `2b1`.
fn three_items() -> (ChainWriter, Vec<Item>) {
    let mut writer = ChainWriter::new("g", 0);
    let items = (0..3i64)
        .map(|item| {
            let event = |frame: char, number: i64| {
                let value = format!("{item}{frame}{number}");
                (1_000 + item * 100 + number, value.into_bytes())
            };
            writer.item(&[
                vec![event('a', 0), event('a', 1)],
                vec![event('b', 0), event('b', 1)],
            ])
        })
        .collect();
    (writer, items)
}

/// Reads group `g`, once failing and once passing damage over.
async fn read_both(local: &Local) -> (ReadError, Vec<String>, Vec<Damage>) {
    let mut read = local
        .reader()
        .await
        .read(ReadRequest::group("g"))
        .await
        .expect("reads");
    let error = drain(&mut read).await.expect_err("damage is an error");
    assert_eq!(read.next().await, Ok(None), "the read is over");
    let (config, told) = skipping();
    let reader = local.reader_with(config).await.expect("opens");
    let mut read = reader.read(ReadRequest::group("g")).await.expect("reads");
    let rest = values(&drain(&mut read).await.expect("goes on"));
    let told = told.lock().expect("not poisoned").clone();
    (error, rest, told)
}

#[tokio::test]
async fn the_damaged_item_is_named_and_the_rest_is_read() {
    type Break = fn(&mut Item);
    type Is = fn(&Check) -> bool;
    // What is done to the middle item, whether its first frame survives, and the check.
    let cases: [(&str, Break, bool, Is); 13] = [
        (
            "truncated payload",
            |i| change(i, "d", |d| d.truncate(d.len() - 1)),
            false,
            |c| matches!(c, Check::PayloadLength { .. }),
        ),
        (
            "longer payload",
            |i| change(i, "d", |d| d.push(0)),
            false,
            |c| matches!(c, Check::PayloadLength { .. }),
        ),
        (
            "flipped bit in the second frame",
            |i| change(i, "d", |d| *d.last_mut().expect("bytes") ^= 1),
            true,
            |c| {
                matches!(
                    c,
                    Check::Frame {
                        index: 1,
                        error: DecodeError::ChecksumMismatch { .. }
                    }
                )
            },
        ),
        (
            "flipped bit in the header",
            |i| change(i, "h", |h| h[20] ^= 4),
            false,
            |c| matches!(c, Check::Header(DecodeError::ChecksumMismatch { .. })),
        ),
        (
            "truncated header",
            |i| change(i, "h", |h| h.truncate(30)),
            false,
            |c| matches!(c, Check::Header(DecodeError::Truncated { .. })),
        ),
        (
            "newer header",
            |i| change(i, "h", |h| h[3] = 9),
            false,
            |c| matches!(c, Check::Header(DecodeError::NewerVersion { found: 9, .. })),
        ),
        (
            "bytes after the header",
            |i| change(i, "h", |h| h.push(0)),
            false,
            |c| matches!(c, Check::Header(DecodeError::Corrupt { .. })),
        ),
        (
            "no header",
            |i| drop(i.remove("h")),
            false,
            |c| matches!(c, Check::MissingAttribute { name: "h" }),
        ),
        (
            "no payload",
            |i| drop(i.remove("d")),
            false,
            |c| matches!(c, Check::MissingAttribute { name: "d" }),
        ),
        (
            "payload of another type",
            |i| drop(i.insert("d".into(), s("text"))),
            false,
            |c| {
                matches!(
                    c,
                    Check::AttributeType {
                        name: "d",
                        expected: 'B'
                    }
                )
            },
        ),
        (
            "another count",
            |i| drop(i.insert("n".into(), n(5))),
            false,
            |c| {
                matches!(
                    c,
                    Check::AttributeMismatch {
                        name: "n",
                        stored: 5,
                        header: 4
                    }
                )
            },
        ),
        (
            "foreign item",
            |i| *i = row(&text_of(i, "pk"), &text_of(i, "sk"), &[("name", s("x"))]),
            false,
            |c| matches!(c, Check::MissingAttribute { name: "h" }),
        ),
        (
            "header of another group",
            |i| {
                let mut other = ChainWriter::new("h", 0);
                i.insert("h".into(), other.item(&[vec![(0, vec![])]])["h"].clone());
            },
            false,
            |c| matches!(c, Check::Group { .. }),
        ),
    ];
    for (name, break_it, first_frame_survives, expected) in cases {
        let local = Local::with_table().await;
        let (writer, mut items) = three_items();
        break_it(&mut items[1]);
        let broken = items[1].clone();
        items.push(writer.directory_row());
        local.put_all(items).await;
        let (error, rest, told) = read_both(&local).await;

        let text = error.to_string();
        let (pk, sk) = (text_of(&broken, "pk"), text_of(&broken, "sk"));
        for part in [TABLE, &pk, &sk] {
            assert!(text.contains(&format!("`{part}`")), "{name}: {text}");
        }
        let ReadError::Damaged(damage) = error else {
            panic!("{name}: {error}");
        };
        assert!(expected(&damage.check), "{name}: {damage}");
        assert_eq!(told, [*damage], "{name}");
        let mut left = vec!["0a0", "0a1", "0b0", "0b1"];
        if first_frame_survives {
            left.extend(["1a0", "1a1"]);
        }
        left.extend(["2a0", "2a1", "2b0", "2b1"]);
        assert_eq!(rest, left, "{name}");
        local.stop().await;
    }
}

#[tokio::test]
async fn an_item_with_a_foreign_sort_key_is_named() {
    let local = Local::with_table().await;
    let (writer, mut items) = three_items();
    items.push(row(&writer.pk(), "2020", &[("name", s("x"))]));
    items.push(writer.directory_row());
    items.push(row(
        &millpond_format::keys::directory_pk("p", "g"),
        "g#x",
        &[("late", n(0))],
    ));
    local.put_all(items).await;
    let (config, told) = skipping();
    let reader = local.reader_with(config).await.expect("opens");
    let mut read = reader.read(ReadRequest::group("g")).await.expect("reads");
    assert_eq!(drain(&mut read).await.expect("goes on").len(), 12);
    let told = told.lock().expect("not poisoned").clone();
    let checks: Vec<_> = told
        .iter()
        .map(|damage| (&*damage.item.sk, damage.check.clone()))
        .collect();
    // Without a header to look at, the key is judged first.
    let expected = [("g#x", Check::DirectoryRow), ("2020", Check::SortKey)];
    assert_eq!(checks, expected);
    local.stop().await;
}

#[tokio::test]
async fn totals_come_from_the_last_item_that_is_whole() {
    let local = Local::with_table().await;
    let (writer, mut items) = three_items();
    change(&mut items[2], "h", |h| h[10] ^= 1);
    items.push(writer.directory_row());
    local.put_all(items).await;
    let error = local
        .reader()
        .await
        .groups(GroupsRequest::default())
        .next()
        .await;
    assert!(matches!(error, Err(ReadError::Damaged(_))), "{error:?}");
    let (config, told) = skipping();
    let reader = local.reader_with(config).await.expect("opens");
    let summary = reader
        .groups(GroupsRequest::default())
        .next()
        .await
        .expect("lists")
        .expect("one");
    assert_eq!(
        (summary.items, summary.events, summary.event_bytes),
        (2, 8, 24)
    );
    assert_eq!(told.lock().expect("not poisoned").len(), 1);
    local.stop().await;
}

/// An event before, one in five parts, and one after.
fn with_parts() -> (ChainWriter, Vec<Item>, Vec<u8>) {
    let mut writer = ChainWriter::new("g", 0);
    let large: Vec<u8> = (0..50_000u32).flat_map(u32::to_le_bytes).collect();
    let mut items = vec![writer.item(&[vec![(1_000, b"before".to_vec())]])];
    items.extend(writer.parts(900, &large, 40_000));
    items.push(writer.item(&[vec![(1_100, b"after".to_vec())]]));
    assert_eq!(items.len(), 7);
    (writer, items, large)
}

#[tokio::test]
async fn parts_are_put_together() {
    let local = Local::with_table().await;
    let (writer, mut items, large) = with_parts();
    items.push(writer.directory_row());
    local.put_all(items).await;
    let reader = local.reader().await;
    let mut read = reader.read(ReadRequest::group("g")).await.expect("reads");
    let all = drain(&mut read).await.expect("whole");
    assert_eq!(all.len(), 3);
    assert_eq!(
        (all[1].value.as_ref(), all[1].time_ms),
        (large.as_slice(), 900)
    );
    for (from, to, count) in [(900, 901, 1), (901, 2_000, 2), (0, 900, 0), (0, 1_100, 2)] {
        let request = ReadRequest {
            from_ms: Some(from),
            to_ms: Some(to),
            ..ReadRequest::group("g")
        };
        let mut read = reader.read(request).await.expect("reads");
        assert_eq!(
            drain(&mut read).await.expect("whole").len(),
            count,
            "[{from}, {to})"
        );
    }
    let summary = reader
        .groups(GroupsRequest::default())
        .next()
        .await
        .expect("lists")
        .expect("one");
    assert_eq!((summary.items, summary.events), (7, 3));
    assert_eq!(summary.event_bytes, 200_000 + 11);
    local.stop().await;
}

#[tokio::test]
async fn a_missing_or_changed_part_is_named() {
    // Part removed or broken, key of the item that is named, check.
    type Break = fn(&mut Vec<Item>);
    type Is = fn(&Check) -> bool;
    let cases: [(&str, Break, usize, Is); 5] = [
        (
            "first",
            |i| drop(i.remove(1)),
            2,
            |c| {
                matches!(
                    c,
                    Check::PartOrder {
                        found: 1,
                        expected: 0,
                        count: 5
                    }
                )
            },
        ),
        (
            "middle",
            |i| drop(i.remove(3)),
            4,
            |c| {
                matches!(
                    c,
                    Check::PartOrder {
                        found: 3,
                        expected: 2,
                        count: 5
                    }
                )
            },
        ),
        (
            "last",
            |i| drop(i.remove(5)),
            4,
            |c| {
                matches!(
                    c,
                    Check::PartsMissing {
                        missing: 4,
                        count: 5
                    }
                )
            },
        ),
        (
            "changed",
            |i| change(&mut i[2], "d", |d| d[9] ^= 1),
            2,
            |c| {
                matches!(
                    c,
                    Check::Frame {
                        index: 0,
                        error: DecodeError::ChecksumMismatch { .. }
                    }
                )
            },
        ),
        (
            "of another event",
            |i| {
                let mut other = ChainWriter::new("g", 0);
                let mut parts = other.parts(900, &[7; 200_000], 40_000);
                i[2].insert("h".into(), parts[1]["h"].clone());
                i[2].insert("d".into(), parts.swap_remove(1)["d"].clone());
            },
            1,
            |c| {
                matches!(
                    c,
                    Check::PartsMissing {
                        missing: 1,
                        count: 5
                    }
                )
            },
        ),
    ];
    for (name, break_it, named, expected) in cases {
        let local = Local::with_table().await;
        let (writer, items, _) = with_parts();
        let key = text_of(&items[named], "sk");
        let mut broken = items.clone();
        break_it(&mut broken);
        broken.push(writer.directory_row());
        local.put_all(broken).await;
        let (error, rest, told) = read_both(&local).await;
        let ReadError::Damaged(damage) = error else {
            panic!("{name}: {error}");
        };
        assert!(expected(&damage.check), "{name}: {damage}");
        assert_eq!(*damage.item.sk, key, "{name}");
        assert_eq!(told[0], *damage, "{name}");
        assert_eq!(rest, ["before", "after"], "{name}");
        if name != "of another event" {
            assert_eq!(told.len(), 1, "{name}: {told:?}");
        }
        local.stop().await;
    }
}

#[tokio::test]
async fn parts_of_a_plan_that_is_being_written_are_left_out() {
    let local = Local::with_table().await;
    assert_unfinished_parts_are_left_out(local, TABLE).await;
}

/// The registration says where the ledger is.
#[tokio::test]
async fn a_ledger_in_another_table_is_asked_there() {
    let local = Local::with_table().await;
    local
        .create_table("ledger", "pk", "sk", ScalarAttributeType::S)
        .await;
    let mut registration = registry_row("p");
    registration.insert("ledger".into(), s("ledger"));
    local.put(registration).await;
    assert_unfinished_parts_are_left_out(local, "ledger").await;
}

async fn assert_unfinished_parts_are_left_out(local: Local, ledger: &str) {
    let (writer, mut items, large) = with_parts();
    let part_offset = writer.offset() - 2;
    let last_part = items.remove(5);
    items.push(writer.directory_row());
    local.put_all(items).await;
    local
        .put_into(ledger, ledger_row("p", 0, part_offset))
        .await;
    let reader = local.reader().await;
    let mut read = reader.read(ReadRequest::group("g")).await.expect("reads");
    assert_eq!(
        values(&drain(&mut read).await.expect("no damage")),
        ["before", "after"]
    );

    local
        .put_into(ledger, ledger_row("p", 0, part_offset + 1))
        .await;
    let mut read = reader.read(ReadRequest::group("g")).await.expect("reads");
    let error = drain(&mut read)
        .await
        .expect_err("committed, so it must be there");
    assert!(matches!(error, ReadError::Damaged(_)), "{error}");

    local.put(last_part).await;
    let mut read = reader.read(ReadRequest::group("g")).await.expect("reads");
    let all = drain(&mut read).await.expect("whole");
    assert_eq!(all[1].value.as_ref(), large.as_slice());
    local.stop().await;
}
