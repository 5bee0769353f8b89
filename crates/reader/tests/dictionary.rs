//! Items whose frames need a dictionary: it is fetched once, and where it cannot be had that is said.

#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use millpond_format::dictionary::Dictionary;
use millpond_format::keys;
use millpond_reader::verify::{VerifyNote, VerifyRequest};
use millpond_reader::{
    Check, Damage, OnDamage, ReadError, ReadRequest, ReaderConfig, TailRequest, TailStart,
};
use support::{ChainWriter, Item, Local, TABLE, b, drain, n, row, values};

const BYTES: &[u8] = include_bytes!("../../format/tests/golden/dictionary-1.zdict");

fn dictionary(id: u64) -> Dictionary {
    Dictionary::new(id, BYTES.to_vec()).expect("a dictionary")
}

fn dictionary_row(id: u64) -> Item {
    let attributes = [
        ("dictionary", b(BYTES.to_vec())),
        ("crc", n(dictionary(id).crc32c())),
    ];
    let pk = keys::dictionaries_pk("p");
    row(&pk, &keys::dictionary_sk(id), &attributes)
}

fn event(time_ms: i64) -> (i64, Vec<u8>) {
    let value = format!(r#"{{"id":{time_ms},"kind":"order-paid","region":"eu-west-1"}}"#);
    (time_ms, value.into_bytes())
}

/// Groups `g` and `h`: an item without, items with dictionaries 1 and 2, three events each.
async fn table() -> (Local, Vec<String>) {
    let local = Local::with_table().await;
    let mut expected = Vec::new();
    for group in ["g", "h"] {
        let mut writer = ChainWriter::new(group, 0);
        let mut items = Vec::new();
        for number in 0..12i64 {
            if number > 0 {
                writer.with_dictionary(&dictionary(1 + number as u64 % 2));
            }
            let events: Vec<_> = (0..3).map(|n| event(1_000 * number + n)).collect();
            if group == "g" {
                let text = |(_, value): &(i64, Vec<u8>)| String::from_utf8(value.clone());
                expected.extend(events.iter().map(|event| text(event).expect("text")));
            }
            items.push(writer.item(&[events]));
        }
        local.put_all(items).await;
        local.put(writer.directory_row()).await;
    }
    (local, expected)
}

#[tokio::test]
async fn a_dictionary_is_fetched_once_by_a_reader() {
    let (local, expected) = table().await;
    local.put_all([dictionary_row(1), dictionary_row(2)]).await;
    let reader = local.reader().await;
    let read = async |group: &str| {
        let before = reader.spent().calls;
        let mut events = reader.read(ReadRequest::group(group)).await.expect("reads");
        let events = values(&drain(&mut events).await.expect("reads"));
        (events, reader.spent().calls - before)
    };
    let (first, calls) = read("g").await;
    assert_eq!(first, expected);
    let (second, again) = read("h").await;
    assert_eq!(second, expected);
    // The two dictionaries, and nothing else.
    assert_eq!(calls, again + 2);
    // A slice that needs one of them, from a reader that knows none.
    let slice = ReadRequest {
        from_ms: Some(3_001),
        to_ms: Some(3_003),
        ..ReadRequest::group("g")
    };
    let mut events = local.reader().await.read(slice).await.expect("reads");
    let events = values(&drain(&mut events).await.expect("reads"));
    assert_eq!(events, expected[10..12]);
    local.stop().await;
}

fn dictionary_error(check: &Check, wanted: u64) -> bool {
    let text = check.to_string();
    matches!(check, Check::Dictionary { id, .. } if *id == wanted)
        && text.contains(&format!("dictionary {wanted}"))
        && text.contains("millpond:dictionaries/p")
        && text.contains(&keys::dictionary_sk(wanted))
}

#[tokio::test]
async fn a_missing_or_changed_dictionary_is_damage_that_names_it() {
    let mut changed = dictionary_row(2);
    changed.insert("dictionary".into(), b(vec![7; 2_000]));
    let mut bare = dictionary_row(2);
    bare.remove("crc");
    for (second, says) in [
        (None, "is missing"),
        (Some(changed), "checksum mismatch"),
        (Some(bare), "corrupt row"),
    ] {
        let (local, expected) = table().await;
        local.put(dictionary_row(1)).await;
        if let Some(second) = second {
            local.put(second).await;
        }
        let reader = local.reader().await;
        let mut events = reader.read(ReadRequest::group("g")).await.expect("reads");
        let error = drain(&mut events).await.expect_err("damage");
        let ReadError::Damaged(damage) = error else {
            panic!("{error:?}");
        };
        assert!(dictionary_error(&damage.check, 2), "{damage}");
        assert!(damage.to_string().contains(says), "{damage}");

        // What does not need it is read, and each item that does is told of.
        let told: Arc<Mutex<Vec<Damage>>> = Arc::default();
        let tell = Arc::clone(&told);
        let skip = move |damage: &Damage| tell.lock().expect("lock").push(damage.clone());
        let config = ReaderConfig {
            on_damage: OnDamage::Skip(Arc::new(skip)),
            ..ReaderConfig::new(TABLE)
        };
        let reader = local.reader_with(config).await.expect("opens");
        let mut events = reader.read(ReadRequest::group("g")).await.expect("reads");
        let rest = values(&drain(&mut events).await.expect("goes on"));
        // Items 1, 3, 5 … need dictionary 2.
        let is_left = |index: usize| index < 3 || (index / 3).is_multiple_of(2);
        let left: Vec<_> = (0..expected.len())
            .filter(|index| is_left(*index))
            .collect();
        let left: Vec<_> = left
            .into_iter()
            .map(|index| expected[index].clone())
            .collect();
        assert_eq!(rest, left);
        let told = told.lock().expect("lock").clone();
        assert_eq!(told.len(), 6);
        assert!(told.iter().all(|damage| dictionary_error(&damage.check, 2)));
        local.stop().await;
    }
}

#[tokio::test]
async fn verify_asks_for_every_dictionary_that_is_named() {
    let (local, _) = table().await;
    local.put(dictionary_row(1)).await;
    let findings = async |deep| {
        let request = VerifyRequest {
            deep,
            ..VerifyRequest::default()
        };
        let reader = local.reader().await;
        let mut found = Vec::new();
        let mut tell = |note| {
            if let VerifyNote::Finding(finding) = note {
                found.push((finding.kind(), finding.to_string()));
            }
        };
        let verification = reader.verify(request).await.expect("opens");
        verification.run(&mut tell).await.expect("verifies");
        found.retain(|(kind, _)| matches!(*kind, "dictionary" | "damaged-item"));
        found
    };
    // Headers alone tell it, once.
    let shallow = findings(false).await;
    assert_eq!(shallow.len(), 1);
    assert!(shallow[0].1.contains("dictionary 2") && shallow[0].1.contains("is missing"));
    // With the frames each item that cannot be read is told of, too.
    let deep = findings(true).await;
    assert_eq!(deep.len(), 1 + 12, "{deep:?}");
    local.put(dictionary_row(2)).await;
    for is_deep in [false, true] {
        let found = findings(is_deep).await;
        assert!(found.is_empty(), "{found:?}");
    }
    local.stop().await;
}

#[tokio::test]
async fn who_follows_gets_a_dictionary_that_comes_under_way() {
    let local = Local::with_table().await;
    let mut writer = ChainWriter::new("g", 0);
    let first = writer.item(&[vec![event(1)]]);
    local.put(writer.directory_row()).await;
    local.put(first).await;
    let reader = local.reader().await;
    let request = TailRequest {
        start: TailStart::At(0),
        poll: Duration::from_millis(5),
        ..TailRequest::new(Some("g".into()))
    };
    let mut tail = reader.tail(request).await.expect("follows");
    let next = async |tail: &mut millpond_reader::Tail| {
        let next = tokio::time::timeout(Duration::from_secs(30), tail.next()).await;
        next.expect("in time").expect("an event").event.value
    };
    assert_eq!(next(&mut tail).await, event(1).1);
    local.put(dictionary_row(1)).await;
    writer.with_dictionary(&dictionary(1));
    local.put(writer.item(&[vec![event(2)]])).await;
    assert_eq!(next(&mut tail).await, event(2).1);
    drop(tail);
    drop(reader);
    local.stop().await;
}
