//! Chains that go round several partition keys of the table: readers find them, and see one chain.

#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::time::Duration;

use millpond_format::keys;
use millpond_format::marks::{Mark, Marks};
use millpond_format::sequence::Position;
use millpond_reader::verify::{VerifyNote, VerifyReport, VerifyRequest};
use millpond_reader::{GroupsRequest, ReadRequest, Tail, TailRequest, TailStart};
use support::{ChainWriter, Item, Local, TOPIC, b, drain, ledger_row, n, row, s, text_of, values};
use tokio::time::timeout;

const SHARD: &str = "shardId-000000000000";

/// Twelve items of three events: the first four under one key, four under two, four under five.
fn grown(writer: &mut ChainWriter) -> Vec<Item> {
    let mut items = Vec::new();
    for number in 0..12i64 {
        writer.write_shards = match number {
            0..4 => 1,
            4..8 => 2,
            _ => 5,
        };
        let at = |index| 1_000 * number + index;
        let events = (0..3).map(|index| (at(index), format!("{number}.{index}").into()));
        items.push(writer.item(&[events.collect()]));
    }
    items
}

fn expected() -> Vec<String> {
    let of_item = |number| (0..3).map(move |index| format!("{number}.{index}"));
    (0..12).flat_map(of_item).collect()
}

#[tokio::test]
async fn a_reader_gathers_without_being_told_how_many_there_are() {
    let local = Local::with_table().await;
    let mut writer = ChainWriter::new("g", 3);
    let items = grown(&mut writer);
    let keys: Vec<String> = items.iter().map(|item| text_of(item, "pk")).collect();
    assert_eq!(keys.iter().max().map(String::as_str), Some("p/g#3.4"));
    // A group whose name looks like a write shard of the first one.
    let mut other = ChainWriter::new("g#3.1", 0);
    let foreign = other.item(&[vec![(1, b"other".to_vec())]]);
    local.put_all(items.clone()).await;
    local.put_all(writer.directory_rows()).await;
    local.put_all([foreign, other.directory_row()]).await;
    let reader = local.reader().await;
    let mut read = reader.read(ReadRequest::group("g")).await.expect("reads");
    assert_eq!(values(&drain(&mut read).await.expect("whole")), expected());
    assert_eq!(read.stats().pages, 5, "one of each");
    // A slice of one item asks each of them for its keys, and reads that item alone.
    let slice = ReadRequest {
        from_ms: Some(6_000),
        to_ms: Some(6_002),
        ..ReadRequest::group("g")
    };
    let mut read = reader.read(slice).await.expect("reads");
    assert_eq!(
        values(&drain(&mut read).await.expect("whole")),
        ["6.0", "6.1"]
    );
    assert_eq!(read.stats().items, 1);

    let mut groups = reader.groups(GroupsRequest { first_times: true });
    let mut listed = Vec::new();
    while let Some(of) = groups.next().await.expect("lists") {
        listed.push((
            of.group,
            of.chains,
            of.items,
            of.events,
            of.first_time_ms,
            of.last_time_ms,
        ));
    }
    listed.sort();
    let g = ("g".to_owned(), 1, 12, 36, Some(0), Some(11_002));
    let other = ("g#3.1".to_owned(), 1, 1, 1, Some(1), Some(1));
    assert_eq!(listed, [g, other]);

    let mut shown = reader.inspect_group("g").await.expect("opens");
    let mut totals = Vec::new();
    while let Some(item) = shown.next().await.expect("shows") {
        totals.push(item["place"]["chain_totals"]["items"].as_u64());
    }
    assert_eq!(
        totals,
        (1..=12).map(Some).collect::<Vec<_>>(),
        "in order of the chain"
    );
    let one = reader.inspect("p/g#3.4", &text_of(&items[9], "sk")).await;
    assert_eq!(one.expect("is shown")["group"], "g");
    local.stop().await;
}

#[tokio::test]
async fn an_event_in_parts_over_write_shards_is_whole_or_told_of() {
    let local = Local::with_table().await;
    let mut writer = ChainWriter::new("g", 0);
    writer.write_shards = 3;
    let large: Vec<u8> = (0..9_000u32).map(|index| (index % 251) as u8).collect();
    let mut items = vec![writer.item(&[vec![(1, b"first".to_vec())]])];
    items.extend(writer.parts(5, &large, 1_000));
    items.push(writer.item(&[vec![(9, b"last".to_vec())]]));
    local.put_all(items.clone()).await;
    local.put_all(writer.directory_rows()).await;
    let reader = local.reader().await;
    let mut read = reader.read(ReadRequest::group("g")).await.expect("reads");
    let events = drain(&mut read).await.expect("whole");
    assert_eq!(events[1].value, large);
    assert_eq!(events.len(), 3);
    local.delete(&items[4]).await;
    let mut read = reader.read(ReadRequest::group("g")).await.expect("reads");
    let error = drain(&mut read).await.expect_err("a part is gone");
    assert!(error.to_string().contains("part"), "{error}");
    local.stop().await;
}

async fn verify(local: &Local) -> (VerifyReport, Vec<&'static str>) {
    let reader = local.reader().await;
    let verification = reader
        .verify(VerifyRequest::default())
        .await
        .expect("opens");
    let mut findings = Vec::new();
    let mut tell = |note| {
        if let VerifyNote::Finding(finding) = note {
            findings.push(finding.kind());
        }
    };
    let report = verification.run(&mut tell).await.expect("verifies");
    (report, findings)
}

/// The ledger row of topic partition 0, with everything up to this ordinal in the table.
fn ledger(committed: u64, ordinal: u64) -> Item {
    let last = Position {
        sequence: (1_000 + ordinal).to_string().into(),
        sub_sequence: 0,
    };
    let mut marks = Marks::default();
    marks.set(Mark {
        stream: "stream".into(),
        shard: SHARD.into(),
        epoch: 7,
        ordinal,
        highest: last.clone(),
        last,
    });
    let attributes = [
        ("version", n(1)),
        ("epoch", n(3)),
        ("owner", s("o")),
        ("plan", n(9)),
        ("committed", n(committed)),
        ("start", n(0)),
        ("marks", b(marks.encode().expect("few"))),
    ];
    row(&keys::ledger_pk("p", TOPIC), "00000", &attributes)
}

#[tokio::test]
async fn verify_proves_completeness_across_write_shards() {
    let local = Local::with_table().await;
    let mut writer = ChainWriter::new("g", 0);
    let items = grown(&mut writer);
    local.put_all(items.clone()).await;
    local.put_all(writer.directory_rows()).await;
    local.put(ledger(writer.offset(), 35)).await;
    let (report, findings) = verify(&local).await;
    assert_eq!(findings, Vec::<&str>::new());
    assert_eq!((report.items, report.events, report.groups), (12, 36, 1));
    // Whichever is missing, in the middle or at the end of a write shard.
    for missing in [0, 5, 9, 11] {
        local.delete(&items[missing]).await;
        let (report, findings) = verify(&local).await;
        assert!(
            findings.contains(&"missing-events"),
            "{missing}: {findings:?}"
        );
        let in_the_middle = missing < 11;
        assert_eq!(
            findings.contains(&"missing-items"),
            in_the_middle,
            "{missing}: {findings:?}"
        );
        assert_eq!(report.items, 11);
        local.put(items[missing].clone()).await;
    }
    // The same item under another of the chain's keys.
    let mut moved = items[9].clone();
    moved.insert("pk".into(), s("p/g#0.2"));
    local.put(moved).await;
    let (_, findings) = verify(&local).await;
    assert!(findings.contains(&"overlap"), "{findings:?}");
    local.stop().await;
}

fn request(start: TailStart) -> TailRequest {
    TailRequest {
        start,
        poll: Duration::from_millis(5),
        idle_poll: Duration::from_millis(20),
        discovery: Duration::from_secs(3_600),
        ..TailRequest::new(Some("g".to_owned()))
    }
}

async fn take(tail: &mut Tail, count: usize) -> Vec<String> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let next = timeout(Duration::from_secs(30), tail.next()).await;
        let got = next
            .unwrap_or_else(|_| panic!("only {taken:?}"))
            .expect("follows");
        taken.push(String::from_utf8_lossy(&got.event.value).into_owned());
    }
    taken
}

/// True when nothing comes though everything was asked several times.
async fn is_quiet(tail: &mut Tail) -> bool {
    let pages = tail.stats().pages;
    while tail.stats().pages < pages + 12 {
        if timeout(Duration::from_millis(40), tail.next())
            .await
            .is_ok()
        {
            return false;
        }
    }
    true
}

#[tokio::test]
async fn who_follows_a_chain_finds_the_write_shards_that_it_gets() {
    let local = Local::with_table().await;
    let mut writer = ChainWriter::new("g", 0);
    writer.write_shards = 2;
    let one = |writer: &mut ChainWriter, time: i64, value: &str| {
        writer.item(&[vec![(time, value.as_bytes().to_vec())]])
    };
    let first = [
        one(&mut writer, 1, "1"),
        one(&mut writer, 2, "2"),
        one(&mut writer, 3, "3"),
    ];
    local.put_all(writer.directory_rows()).await;
    local.put_all(first).await;
    local.put(ledger_row("p", 0, writer.offset())).await;
    let reader = local.reader().await;
    let mut tail = reader.tail(request(TailStart::Now)).await.expect("follows");
    let mut whole = reader
        .tail(request(TailStart::At(0)))
        .await
        .expect("follows");
    assert_eq!(take(&mut whole, 3).await, ["1", "2", "3"]);

    // The later ones are there first, each under another key: they wait.
    let next = [
        one(&mut writer, 4, "4"),
        one(&mut writer, 5, "5"),
        one(&mut writer, 6, "6"),
    ];
    local.put_all([next[1].clone(), next[2].clone()]).await;
    assert!(is_quiet(&mut tail).await);
    local.put(next[0].clone()).await;
    assert_eq!(take(&mut tail, 3).await, ["4", "5", "6"]);
    assert_eq!(take(&mut whole, 3).await, ["4", "5", "6"]);

    // The chain grows: what shows under the keys that are known is behind what does not. It is committed, too.
    writer.write_shards = 4;
    let grown: Vec<Item> = (7..15)
        .map(|number| one(&mut writer, number, &number.to_string()))
        .collect();
    local.put_all(writer.directory_rows()).await;
    local.put_all(grown).await;
    local.put(ledger_row("p", 0, writer.offset())).await;
    let expected: Vec<String> = (7..15).map(|number| number.to_string()).collect();
    assert_eq!(take(&mut tail, 8).await, expected);
    assert_eq!(take(&mut whole, 8).await, expected);
    assert!(is_quiet(&mut tail).await);
    local.stop().await;
}
