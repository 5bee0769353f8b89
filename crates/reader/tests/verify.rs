//! `verify` against a DynamoDB on the wire: parts of events, snapshots of marks, dead letters.

#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;

use millpond_format::keys;
use millpond_format::marks::{Mark, Marks};
use millpond_format::sequence::Position;
use millpond_reader::verify::{VerifyNote, VerifyReport, VerifyRequest};
use support::{ChainWriter, Item, Local, TOPIC, b, change, n, row, s};

/// Verifies; answers kinds and words of the findings.
async fn verify(local: &Local, deep: bool) -> (VerifyReport, Vec<(&'static str, String)>) {
    let request = VerifyRequest {
        deep,
        ..VerifyRequest::default()
    };
    let reader = local.reader().await;
    let verification = reader.verify(request).await.expect("opens");
    let mut findings = Vec::new();
    let mut tell = |note| {
        if let VerifyNote::Finding(finding) = note {
            findings.push((finding.kind(), finding.to_string()));
        }
    };
    let report = verification.run(&mut tell).await.expect("verifies");
    (report, findings)
}

fn kinds(findings: &[(&'static str, String)]) -> Vec<&'static str> {
    let mut kinds: Vec<_> = findings.iter().map(|(kind, _)| *kind).collect();
    kinds.dedup();
    kinds
}

fn mark(shard: &str, ordinal: u64) -> Mark {
    let last = Position {
        sequence: (1_000 + ordinal).to_string().into(),
        sub_sequence: 0,
    };
    Mark {
        stream: "stream".into(),
        shard: shard.into(),
        epoch: 7,
        ordinal,
        highest: last.clone(),
        last,
    }
}

fn marks(all: &[(&str, u64)]) -> Vec<u8> {
    let mut marks = Marks::default();
    for (shard, ordinal) in all {
        marks.set(mark(shard, *ordinal));
    }
    marks.encode().expect("few")
}

const SHARD: &str = "shardId-000000000000";

/// The ledger row of topic partition 0.
fn ledger(committed: u64, more: &[(&str, support::AttributeValue)]) -> Item {
    let mut attributes = vec![
        ("version", n(1)),
        ("epoch", n(3)),
        ("owner", s("o")),
        ("plan", n(9)),
        ("committed", n(committed)),
        ("start", n(0)),
    ];
    attributes.extend(more.iter().cloned());
    row(&keys::ledger_pk("p", TOPIC), "00000", &attributes)
}

/// A chain of every form of item.
fn chain(writer: &mut ChainWriter) -> Vec<Item> {
    let mut items = vec![writer.plain(5, b"plain"), writer.plain(6, b"")];
    let events = (0..4).map(|index| (10 + index, vec![7u8; 20])).collect();
    items.push(writer.item(&[events]));
    items.extend(writer.parts(20, &[3u8; 1_000], 300));
    items.push(writer.item(&[vec![(30, b"x".to_vec())], vec![(29, b"y".to_vec())]]));
    items
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_form_of_item_is_counted_and_a_lost_part_is_found() {
    let local = Local::with_table().await;
    let mut writer = ChainWriter::new("g", 0);
    let items = chain(&mut writer);
    local.put_all(items.clone()).await;
    local.put(writer.directory_row()).await;
    // Two plain, four, one in parts, two.
    let marks = ("marks", b(marks(&[(SHARD, 8)])));
    local.put(ledger(writer.offset(), &[marks])).await;
    for deep in [false, true] {
        let (report, findings) = verify(&local, deep).await;
        assert_eq!(findings, []);
        assert_eq!((report.events, report.items, report.open_items), (9, 8, 0));
    }
    for part in &items[3..7] {
        local.delete(part).await;
        let (_, findings) = verify(&local, false).await;
        assert!(
            findings.iter().any(|(kind, _)| *kind == "damaged-item"),
            "{findings:?}"
        );
        local.put(part.clone()).await;
    }
    // The last event's item is away; then there as often as it should be, with other bytes.
    let mut last = items[7].clone();
    local.delete(&last).await;
    assert_eq!(kinds(&verify(&local, false).await.1), ["missing-events"]);
    change(&mut last, "d", |bytes| bytes[9] ^= 4);
    local.put(last).await;
    assert_eq!(kinds(&verify(&local, false).await.1), Vec::<&str>::new());
    assert_eq!(kinds(&verify(&local, true).await.1), ["damaged-item"]);
    local.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_that_rest_in_a_snapshot_count() {
    let local = Local::with_table().await;
    let mut writer = ChainWriter::new("g", 0);
    local.put_all(chain(&mut writer)).await;
    local.put(writer.directory_row()).await;
    let snapshot = |index: usize, plan: u64, all: &[(&str, u64)]| {
        let sk = keys::marks_sk(0, 2, 1, index);
        let attributes = [("plan", n(plan)), ("marks", b(marks(all)))];
        row(&keys::marks_pk("p", TOPIC), &sk, &attributes)
    };
    let named = |recent: &[(&str, u64)]| {
        let more = [("marks", b(marks(recent))), ("resting", s("2/1/5/2"))];
        ledger(writer.offset(), &more)
    };
    // The snapshot has the only mark; then an older one that the row's own replaces.
    local.put(snapshot(0, 5, &[(SHARD, 8)])).await;
    local.put(snapshot(1, 5, &[])).await;
    local.put(named(&[])).await;
    assert_eq!(verify(&local, true).await.1, []);
    local.put(snapshot(0, 5, &[(SHARD, 3)])).await;
    assert_eq!(kinds(&verify(&local, false).await.1), ["mark-behind"]);
    local.put(named(&[(SHARD, 8)])).await;
    assert_eq!(verify(&local, true).await.1, []);
    // A shard of which nothing is there.
    local
        .put(snapshot(1, 5, &[("shardId-000000000001", 0)]))
        .await;
    assert_eq!(kinds(&verify(&local, false).await.1), ["missing-events"]);
    // Of another plan, or away.
    for broken in [Some(snapshot(1, 6, &[])), None] {
        match broken {
            Some(other) => local.put(other).await,
            None => local.delete(&snapshot(1, 6, &[])).await,
        }
        let (_, findings) = verify(&local, false).await;
        let (kind, words) = &findings[0];
        assert_eq!(*kind, "ledger-row");
        assert!(
            words.contains("the snapshot of marks that it names"),
            "{words}"
        );
    }
    local.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_in_the_table_are_counted_once_each() {
    let local = Local::with_table().await;
    let mut writer = ChainWriter::new("g", 0);
    let items = chain(&mut writer);
    let (refused, kept) = items.split_last().expect("items");
    local.put_all(kept.to_vec()).await;
    local.put(writer.directory_row()).await;
    let marked = ("marks", b(marks(&[(SHARD, 10)])));
    local.put(ledger(writer.offset(), &[marked])).await;
    assert_eq!(kinds(&verify(&local, false).await.1), ["missing-events"]);
    let letter = |id: &str, number: u32, more: &[(&str, support::AttributeValue)]| {
        let sk = format!("2025-11-23T08:20:00.123Z/{id}/{number:05}");
        row(&keys::dead_letters_pk("p"), &sk, more)
    };
    let origin = |ordinal: u64| {
        s(format!(
            "mp1/stream/{SHARD}/{}/0/1/7.{ordinal}/k",
            1_000 + ordinal
        ))
    };
    let letters = [
        // An event in two rows, one in one, and an item that the table refused.
        letter(
            "p/topic/0/90/0",
            0,
            &[
                ("o", origin(9)),
                ("reason", s("not-json")),
                ("v", b(vec![1])),
            ],
        ),
        letter(
            "p/topic/0/90/0",
            1,
            &[
                ("o", origin(9)),
                ("reason", s("not-json")),
                ("v", b(vec![2])),
            ],
        ),
        letter(
            "p/topic/0/90/1",
            0,
            &[
                ("o", origin(10)),
                ("reason", s("not-json")),
                ("v", b(vec![])),
            ],
        ),
        letter(
            "p/topic/0/80/0/item",
            0,
            &[("reason", s("item-refused")), ("v", b(header(refused)))],
        ),
        // Of another topic, and a gap of a store without a place for gaps.
        letter(
            "p/other/0/90/0",
            0,
            &[
                ("o", origin(9)),
                ("reason", s("not-json")),
                ("v", b(vec![1])),
            ],
        ),
        letter(
            "p/topic/0/90/0/gap",
            0,
            &[("reason", s("gap")), ("v", b(vec![]))],
        ),
    ];
    local.put_all(letters).await;
    for deep in [false, true] {
        let (report, findings) = verify(&local, deep).await;
        assert_eq!(findings, []);
        assert_eq!((report.events, report.dead_letters), (7, 3));
    }
    local
        .put(letter("strange", 0, &[("reason", s("not-json"))]))
        .await;
    assert_eq!(kinds(&verify(&local, false).await.1), ["dead-letter"]);
    local.stop().await;
}

fn header(item: &Item) -> Vec<u8> {
    let bytes = |name: &str| item[name].as_b().expect("bytes").as_ref().to_vec();
    [bytes("h"), bytes("d")].concat()
}
