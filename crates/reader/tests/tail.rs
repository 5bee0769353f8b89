//! What comes is given once, in order, whatever becomes visible first.

#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::time::Duration;

use millpond_reader::{ReadError, Tail, TailRequest, TailStart};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use support::{ChainWriter, Item, Local, Timed, ledger_row};
use tokio::time::timeout;

fn request(group: Option<&str>, start: TailStart) -> TailRequest {
    TailRequest {
        start,
        poll: Duration::from_millis(5),
        idle_poll: Duration::from_millis(20),
        discovery: Duration::from_millis(20),
        ..TailRequest::new(group.map(str::to_owned))
    }
}

/// The next `count` events as `group:value`.
async fn take(tail: &mut Tail, count: usize) -> Vec<String> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let next = timeout(Duration::from_secs(30), tail.next()).await;
        let got = next
            .unwrap_or_else(|_| panic!("only {taken:?}"))
            .expect("follows");
        let value = String::from_utf8_lossy(&got.event.value).into_owned();
        taken.push(format!("{}:{value}", got.group));
    }
    taken
}

/// True when nothing comes though everything was asked several times.
async fn is_quiet(tail: &mut Tail) -> bool {
    let pages = tail.stats().pages;
    loop {
        if tail.stats().pages >= pages + 6 {
            return true;
        }
        if timeout(Duration::from_millis(40), tail.next())
            .await
            .is_ok()
        {
            return false;
        }
    }
}

fn one(writer: &mut ChainWriter, time_ms: i64, value: &str) -> Item {
    writer.item(&[vec![(time_ms, value.into())]])
}

#[tokio::test]
async fn what_comes_is_given_and_what_was_there_is_not() {
    let local = Local::with_table().await;
    let mut writer = ChainWriter::new("g", 0);
    local
        .put_all([
            one(&mut writer, 1_000, "old"),
            writer.directory_row(),
            ledger_row("p", 0, 0),
        ])
        .await;
    let reader = local.reader().await;
    let mut tail = reader
        .tail(request(Some("g"), TailStart::Now))
        .await
        .expect("follows");
    assert!(is_quiet(&mut tail).await);
    let mut whole = reader
        .tail(request(Some("g"), TailStart::At(0)))
        .await
        .expect("follows");

    // The second one is there before the first: it waits.
    let (first, second) = (one(&mut writer, 2_000, "1"), one(&mut writer, 1_500, "2"));
    local.put(second).await;
    assert!(is_quiet(&mut tail).await);
    assert_eq!(take(&mut whole, 1).await, ["g:old"]);
    assert!(is_quiet(&mut whole).await);
    local.put(first).await;
    assert_eq!(take(&mut tail, 2).await, ["g:1", "g:2"]);
    assert_eq!(take(&mut whole, 2).await, ["g:1", "g:2"]);

    // A new chain is followed from its start.
    let mut other = ChainWriter::new("g", 3);
    local
        .put_all([other.directory_row(), one(&mut other, 1, "x")])
        .await;
    assert_eq!(take(&mut tail, 1).await, ["g:x"]);
    assert!(is_quiet(&mut tail).await);
    local.stop().await;
}

#[tokio::test]
async fn a_ledger_row_that_came_after_its_chain_was_found_is_looked_for() {
    let local = Local::with_table().await;
    let mut writer = ChainWriter::new("g", 0);
    local.put(writer.directory_row()).await;
    let reader = local.reader().await;
    let mut tail = reader
        .tail(request(Some("g"), TailStart::Now))
        .await
        .expect("follows");
    assert!(is_quiet(&mut tail).await);
    local.put(ledger_row("p", 0, 0)).await;
    let (first, second) = (one(&mut writer, 1_000, "1"), one(&mut writer, 2_000, "2"));
    local.put(second).await;
    assert!(is_quiet(&mut tail).await);
    local.put(first).await;
    assert_eq!(take(&mut tail, 2).await, ["g:1", "g:2"]);
    local.stop().await;
}

#[tokio::test]
async fn a_chain_without_a_ledger_is_followed_across_a_hole() {
    let local = Local::with_table().await;
    let mut writer = ChainWriter::new("g", 0);
    local.put(writer.directory_row()).await;
    let reader = local.reader().await;
    let mut tail = reader
        .tail(request(Some("g"), TailStart::Now))
        .await
        .expect("follows");
    let _removed = one(&mut writer, 1_000, "removed");
    local.put(one(&mut writer, 2_000, "2")).await;
    assert_eq!(take(&mut tail, 1).await, ["g:2"]);
    local.stop().await;
}

#[tokio::test]
async fn plain_items_and_holes_wait_for_the_ledger() {
    let local = Local::with_table().await;
    let mut writer = ChainWriter::new("g", 0);
    local
        .put_all([writer.directory_row(), ledger_row("p", 0, 100)])
        .await;
    let reader = local.reader().await;
    let mut tail = reader
        .tail(request(Some("g"), TailStart::Now))
        .await
        .expect("follows");
    let first = writer.plain(1_000, b"a");
    local.put(writer.plain(1_001, b"b")).await;
    assert!(is_quiet(&mut tail).await);
    local.put(first).await;
    local.put(ledger_row("p", 0, writer.offset())).await;
    assert_eq!(take(&mut tail, 2).await, ["g:a", "g:b"]);
    // An item that was removed is waited for until the ledger has passed it.
    let _removed = one(&mut writer, 2_000, "removed");
    local.put(one(&mut writer, 2_001, "c")).await;
    assert!(is_quiet(&mut tail).await);
    local.put(ledger_row("p", 0, writer.offset())).await;
    assert_eq!(take(&mut tail, 1).await, ["g:c"]);
    local.stop().await;
}

#[tokio::test]
async fn an_event_in_parts_comes_when_its_last_part_does() {
    let local = Local::with_table().await;
    let mut writer = ChainWriter::new("g", 0);
    let early = writer.parts(1_000, b"early-event", 4);
    local
        .put_all([
            writer.directory_row(),
            ledger_row("p", 0, 0),
            early[0].clone(),
        ])
        .await;
    let reader = local.reader().await;
    let mut tail = reader
        .tail(request(Some("g"), TailStart::Now))
        .await
        .expect("follows");
    // Begun before: its last part is none of an event that comes.
    local.put_all(early[1..].to_vec()).await;
    let parts = writer.parts(2_000, b"one-large-event", 4);
    let (last, others) = parts.split_last().expect("parts");
    for part in others {
        local.put(part.clone()).await;
    }
    assert!(is_quiet(&mut tail).await);
    local.put(last.clone()).await;
    assert_eq!(take(&mut tail, 1).await, ["g:one-large-event"]);
    local.stop().await;
}

#[tokio::test]
async fn all_groups_are_followed_each_event_once_and_in_order() {
    let seed = support::seed();
    let mut rng = SmallRng::seed_from_u64(seed);
    let local = Local::with_table().await;
    let reader = local.reader().await;
    let mut tail = reader
        .tail(request(None, TailStart::Now))
        .await
        .expect("follows none");
    let mut chains: Vec<(ChainWriter, usize)> = Vec::new();
    let mut given: Vec<Vec<usize>> = Vec::new();
    let mut sent = 0;
    for round in 0..10 {
        if round < 5 {
            let writer = ChainWriter::new(&format!("g{}", round / 2), round % 2);
            local.put(writer.directory_row()).await;
            local.put(ledger_row("p", round % 2, 0)).await;
            chains.push((writer, 0));
            given.push(Vec::new());
        }
        // A plan: items of all chains, which become visible in any order.
        let mut items = Vec::new();
        for (index, (writer, number)) in chains.iter_mut().enumerate() {
            for _ in 0..rng.random_range(0..3) {
                let frame: Vec<Timed> = (0..rng.random_range(1..4))
                    .map(|_| {
                        *number += 1;
                        sent += 1;
                        (
                            rng.random_range(0..9_000),
                            format!("{index}/{number}").into(),
                        )
                    })
                    .collect();
                items.push(writer.item(&[frame]));
            }
        }
        items.shuffle(&mut rng);
        let (early, late) = items.split_at(items.len() / 2);
        local.put_all(early.to_vec()).await;
        let _ = timeout(Duration::from_millis(rng.random_range(0..30)), async {
            loop {
                note(
                    &mut given,
                    tail.next().await.expect("follows").event.value.as_ref(),
                );
            }
        })
        .await;
        local.put_all(late.to_vec()).await;
    }
    while given.iter().map(Vec::len).sum::<usize>() < sent {
        let next = timeout(Duration::from_secs(30), tail.next()).await;
        let got = next.unwrap_or_else(|_| panic!("seed {seed}: {given:?}"));
        note(&mut given, got.expect("follows").event.value.as_ref());
    }
    assert!(is_quiet(&mut tail).await, "seed {seed}");
    for (index, numbers) in given.iter().enumerate() {
        let expected: Vec<usize> = (1..=chains[index].1).collect();
        assert_eq!(numbers, &expected, "seed {seed}, chain {index}");
    }
    local.stop().await;
}

fn note(given: &mut [Vec<usize>], value: &[u8]) {
    let text = std::str::from_utf8(value).expect("text");
    let (chain, number) = text.split_once('/').expect("chain and number");
    let chain: usize = chain.parse().expect("a number");
    given[chain].push(number.parse().expect("a number"));
}

#[tokio::test]
async fn a_chain_at_rest_costs_what_is_stated() {
    let local = Local::with_table().await;
    let mut writer = ChainWriter::new("g", 0);
    local
        .put_all([
            one(&mut writer, 1_000, "a"),
            writer.directory_row(),
            ledger_row("p", 0, 0),
        ])
        .await;
    let reader = local.reader().await;
    let missing = reader
        .tail(request(Some("h"), TailStart::Now))
        .await
        .expect_err("none");
    assert!(
        matches!(missing, ReadError::NoSuchGroup { .. }),
        "{missing}"
    );
    let mut tail = reader
        .tail(request(Some("g"), TailStart::Now))
        .await
        .expect("follows");
    assert!(is_quiet(&mut tail).await);
    let before = (tail.stats(), reader.spent());
    assert!(is_quiet(&mut tail).await);
    let (stats, spent) = (tail.stats(), reader.spent());
    let looks = stats.pages - before.0.pages;
    assert_eq!(stats.read_units - before.0.read_units, looks as f64);
    // The rest looked for new chains, one unit each.
    let others = spent.calls - before.1.calls - looks;
    let units = spent.read_units - before.1.read_units - looks as f64;
    assert!(units <= others as f64 + 1.0, "{units} for {others}");
    local.stop().await;
}
