//! Many groups, and items shown as JSON.

#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::collections::HashSet;

use millpond_reader::{GroupsRequest, ReadError, ReadRequest};
use support::{ChainWriter, Local, change, drain, text_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_groups_are_listed_over_several_pages() {
    let local = Local::with_table().await;
    let mut rows = Vec::new();
    for number in 0..10_000u32 {
        let mut writer = ChainWriter::new(&format!("job-{number}"), number % 7);
        rows.push(writer.item(&[vec![(i64::from(number), number.to_string().into_bytes())]]));
        // With an attribute that this version does not know, and so large that a directory
        // bucket of about 625 rows is more than a page of 1 MB.
        let mut row = writer.directory_row();
        row.insert("later".into(), support::s("n".repeat(2_000)));
        rows.push(row);
    }
    local.put_all(rows).await;
    let reader = local.reader().await;
    let mut groups = reader.groups(GroupsRequest::default());
    let mut seen = HashSet::new();
    while let Some(summary) = groups.next().await.expect("lists") {
        assert_eq!((summary.events, summary.chains, summary.items), (1, 1, 1));
        assert!(seen.insert(summary.group), "listed twice");
    }
    assert_eq!(seen.len(), 10_000);
    assert!((0..10_000).all(|number| seen.contains(&format!("job-{number}"))));
    // Half a unit an item, and the directory's 20 MB strongly consistent.
    assert!(groups.read_units() > 9_500.0, "{}", groups.read_units());
    local.stop().await;
}

#[tokio::test]
async fn a_chain_that_is_listed_before_its_first_item_is_empty() {
    let local = Local::with_table().await;
    let mut writer = ChainWriter::new("g", 0);
    let item = writer.item(&[vec![(5, b"one".to_vec())]]);
    let other = ChainWriter::new("g", 1).directory_row();
    local.put_all([item, writer.directory_row(), other]).await;
    let reader = local.reader().await;
    let mut groups = reader.groups(GroupsRequest::default());
    let summary = groups.next().await.expect("lists").expect("one");
    assert_eq!((summary.events, summary.chains, summary.items), (1, 2, 1));
    assert_eq!(groups.next().await, Ok(None));
    let mut read = reader.read(ReadRequest::group("g")).await.expect("reads");
    assert_eq!(drain(&mut read).await.expect("whole").len(), 1);
    local.stop().await;
}

#[tokio::test]
async fn an_item_is_shown_without_its_payload() {
    let local = Local::with_table().await;
    let mut writer = ChainWriter::new("g", 3);
    let mut item = writer.item(&[
        vec![(1_000, b"one".to_vec()), (1_005, b"two".to_vec())],
        vec![(2_000, b"three".to_vec())],
    ]);
    change(&mut item, "d", |d| *d.last_mut().expect("bytes") ^= 1);
    let (pk, sk) = (text_of(&item, "pk"), text_of(&item, "sk"));
    let parts = writer.parts(3_000, &[1; 100], 60);
    let plain = writer.plain(4_000, b"as it is");
    let mut rows = vec![item.clone(), plain.clone(), writer.directory_row()];
    rows.extend(parts);
    local.put_all(rows).await;

    let reader = local.reader().await;
    let shown = reader.inspect(&pk, &sk).await.expect("shown");
    assert_eq!(shown["pk"], pk);
    assert_eq!(shown["kind"], "events");
    assert_eq!(shown["events"], 3);
    assert_eq!(shown["event_bytes"], 11);
    assert_eq!(shown["first_time"], "1970-01-01T00:00:01.000Z");
    assert_eq!(shown["place"]["chain_totals"]["items"], 1);
    assert_eq!(shown["sources"][0]["shard"], "shardId-000000000000");
    assert_eq!(shown["frames"][0]["check"], "ok");
    let check = shown["frames"][1]["check"].as_str().expect("text");
    assert!(check.starts_with("checksum mismatch in frame"), "{check}");
    // The size is DynamoDB's own: a put of the item reports the same units.
    let answer = local
        .client
        .put_item()
        .table_name(support::TABLE)
        .set_item(Some(item))
        .return_consumed_capacity(aws_sdk_dynamodb::types::ReturnConsumedCapacity::Total)
        .send()
        .await
        .expect("put");
    let units = answer
        .consumed_capacity
        .and_then(|c| c.capacity_units)
        .expect("reported");
    assert_eq!(shown["write_units"].as_f64(), Some(units));

    let mut items = reader.inspect_group("g").await.expect("opens");
    let mut kinds = Vec::new();
    while let Some(shown) = items.next().await.expect("shown") {
        kinds.push(shown["kind"].clone());
    }
    assert_eq!(kinds.len(), 4);
    assert_eq!(kinds[1]["part"]["index"], 0);
    assert_eq!(kinds[2]["part"]["count"], 2);
    assert_eq!(kinds[3], "plain");

    let shown = reader
        .inspect(&pk, &text_of(&plain, "sk"))
        .await
        .expect("shown");
    assert_eq!(shown["origin"]["chain_epoch"], 7);
    assert_eq!(shown["event_bytes"], 8);
    let error = reader.inspect(&pk, "no").await.expect_err("not there");
    assert!(matches!(error, ReadError::NoSuchItem { .. }), "{error}");
    let error = reader
        .inspect("millpond:pipelines", "p")
        .await
        .expect_err("no item of events");
    assert!(matches!(error, ReadError::Damaged(_)), "{error}");
    local.stop().await;
}
