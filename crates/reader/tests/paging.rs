//! A read that is cut into pages gives the same as one in one piece, and keeps its pace.

#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::time::{Duration, Instant};

use millpond_reader::{Event, OnDamage, ReadError, ReadRequest, ReadUnits, Reader, ReaderConfig};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use support::{ChainWriter, Local, TABLE, Timed, change, drain, values};

/// Chains of several write shards, with several frames an item, events in parts, plain events, out-of-order and equal times.
async fn fill(local: &Local, rng: &mut SmallRng, group: &str) {
    for partition in 0..rng.random_range(1..=3u32) {
        let mut writer = ChainWriter::new(group, partition);
        let mut rows = Vec::new();
        let mut clock = 1_000_000i64;
        for _ in 0..rng.random_range(2..=6) {
            writer.write_shards += rng.random_range(0..=1u32);
            let mut event = |rng: &mut SmallRng| -> Timed {
                clock += rng.random_range(0..20i64);
                (
                    clock - rng.random_range(0..15i64),
                    format!("{partition}-{clock}").into(),
                )
            };
            match rng.random_range(0..5) {
                0 => {
                    let (time, _) = event(rng);
                    let large: Vec<u8> = (0..2_500).map(|_| rng.random()).collect();
                    rows.extend(writer.parts(time, &large, 1_000));
                }
                1 => {
                    let (time, value) = event(rng);
                    rows.push(writer.plain(time, &value));
                }
                _ => {
                    let frames: Vec<Vec<Timed>> = (0..rng.random_range(1..=3))
                        .map(|_| (0..rng.random_range(1..=4)).map(|_| event(rng)).collect())
                        .collect();
                    rows.push(writer.item(&frames));
                }
            }
        }
        rows.extend(writer.directory_rows());
        local.put_all(rows).await;
    }
}

/// Reads in pages of random sizes, each by a reader of its own.
async fn in_pages(
    reader: &Reader,
    request: &ReadRequest,
    rng: &mut SmallRng,
) -> Result<Vec<Event>, ReadError> {
    let mut all = Vec::new();
    let mut request = request.clone();
    loop {
        request.limit = Some(rng.random_range(1..=5));
        let mut page = reader.read(request.clone()).await?;
        let events = drain(&mut page).await?;
        request.page_token = Some(page.page_token());
        if events.is_empty() {
            return Ok(all);
        }
        all.extend(events);
    }
}

#[tokio::test]
async fn pages_are_the_whole_read_cut_anywhere() {
    let seed = support::seed();
    let mut rng = SmallRng::seed_from_u64(seed);
    let local = Local::with_table().await;
    for round in 0..12 {
        let group = format!("g{round}");
        fill(&local, &mut rng, &group).await;
        let reader = local.reader().await;
        for (from_ms, to_ms) in [(None, None), (Some(1_000_020), Some(1_000_080))] {
            let request = ReadRequest {
                from_ms,
                to_ms,
                ..ReadRequest::group(group.as_str())
            };
            let mut read = reader.read(request.clone()).await.expect("reads");
            let whole = drain(&mut read).await.expect("whole");
            let pages = in_pages(&reader, &request, &mut rng).await.expect("pages");
            assert_eq!(
                values(&pages),
                values(&whole),
                "seed {seed} {group} {from_ms:?}"
            );
            assert_eq!(pages, whole);
        }
    }
    local.stop().await;
}

#[tokio::test]
async fn frames_before_the_place_are_not_decoded_and_damaged_ones_do_not_shift_it() {
    let local = Local::with_table().await;
    let mut writer = ChainWriter::new("g", 0);
    let frame = |name: char| -> Vec<Timed> {
        (0..3)
            .map(|n| (1_000 + n, format!("{name}{n}").into()))
            .collect()
    };
    let mut item = writer.item(&[frame('a'), frame('b'), frame('c')]);
    // The second frame's bytes are changed.
    let second = 40;
    change(&mut item, "d", |bytes| bytes[second] ^= 1);
    local.put_all([item, writer.directory_row()]).await;
    let config = ReaderConfig {
        on_damage: OnDamage::Skip(std::sync::Arc::new(|_| {})),
        ..ReaderConfig::new(TABLE)
    };
    let reader = local.reader_with(config).await.expect("opens");
    let mut request = ReadRequest {
        limit: Some(4),
        ..ReadRequest::group("g")
    };
    let mut first = reader.read(request.clone()).await.expect("reads");
    let events = values(&drain(&mut first).await.expect("skips"));
    assert_eq!(events.len(), 4, "{events:?}");
    request.page_token = Some(first.page_token());
    request.limit = None;
    let mut second = reader.read(request).await.expect("reads");
    let rest = values(&drain(&mut second).await.expect("skips"));
    let all: Vec<_> = events.iter().chain(&rest).map(String::as_str).collect();
    assert_eq!(all.len(), 6, "{all:?}");
    assert!(all.is_sorted(), "{all:?}");
    assert_eq!(second.stats().frames_decoded, 1, "{:?}", second.stats());
    local.stop().await;
}

#[tokio::test]
async fn a_token_of_another_read_or_of_an_item_that_has_gone_is_refused() {
    let local = Local::with_table().await;
    let mut writer = ChainWriter::new("g", 0);
    let item = writer.item(&[vec![(1_000, b"a".to_vec()), (1_001, b"b".to_vec())]]);
    let other = ChainWriter::new("h", 0);
    let rows = [item.clone(), writer.directory_row(), other.directory_row()];
    local.put_all(rows).await;
    let reader = local.reader().await;
    let limited = ReadRequest {
        limit: Some(1),
        ..ReadRequest::group("g")
    };
    let mut read = reader.read(limited.clone()).await.expect("reads");
    drain(&mut read).await.expect("one");
    let token = Some(read.page_token());
    for request in [
        ReadRequest {
            group: "h".into(),
            page_token: token.clone(),
            ..limited.clone()
        },
        ReadRequest {
            from_ms: Some(5),
            page_token: token.clone(),
            ..limited.clone()
        },
        ReadRequest {
            page_token: Some("bm9uc2Vuc2U".into()),
            ..limited.clone()
        },
    ] {
        let refused = reader.read(request).await.expect_err("refused");
        assert!(matches!(refused, ReadError::PageToken { .. }), "{refused}");
    }
    local.delete(&item).await;
    let request = ReadRequest {
        page_token: token,
        ..limited
    };
    let mut read = reader.read(request).await.expect("opens");
    let refused = drain(&mut read).await.expect_err("gone");
    assert!(matches!(refused, ReadError::PageToken { .. }), "{refused}");
    local.stop().await;
}

#[tokio::test]
async fn a_pace_is_kept_by_what_the_service_says_it_consumed() {
    let local = Local::with_table().await;
    let mut rng = SmallRng::seed_from_u64(3);
    for partition in 0..4 {
        let mut writer = ChainWriter::new("g", partition);
        for item in 0..6i64 {
            let mut value = vec![0u8; 300_000];
            rng.fill(value.as_mut_slice());
            local.put(writer.item(&[vec![(1_000 + item, value)]])).await;
        }
        local.put(writer.directory_row()).await;
    }
    let config = ReaderConfig {
        max_read_units: ReadUnits::per_second(600.0),
        consistent: true,
        ..ReaderConfig::new(TABLE)
    };
    let began = Instant::now();
    let reader = local.reader_with(config).await.expect("opens");
    let mut read = reader.read(ReadRequest::group("g")).await.expect("reads");
    assert_eq!(drain(&mut read).await.expect("whole").len(), 24);
    let seconds = began.elapsed().as_secs_f64();
    let spent = reader.spent();
    // 24 items of 300 KB, 74 units each: the burst of a second, and then the pace.
    assert!(spent.read_units >= 1_700.0, "{spent:?}");
    let most = 600.0 * seconds + 600.0;
    assert!(spent.read_units <= most, "{spent:?} in {seconds} s");
    assert!(began.elapsed() < Duration::from_secs(30), "{seconds}");
    for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(ReadUnits::per_second(wrong), None);
    }
    local.stop().await;
}

#[tokio::test]
async fn many_chains_are_read_in_small_pages() {
    let local = Local::with_table().await;
    let mut rows = Vec::new();
    for partition in 0..170 {
        let mut writer = ChainWriter::new("g", partition);
        for item in 0..2i64 {
            let value = format!("{item}-{partition}");
            rows.push(writer.item(&[vec![(1_000 + item, value.into())]]));
        }
        rows.push(writer.directory_row());
    }
    local.put_all(rows).await;
    let mut read = local
        .reader()
        .await
        .read(ReadRequest::group("g"))
        .await
        .expect("reads");
    let all = drain(&mut read).await.expect("whole");
    assert_eq!(all.len(), 340);
    assert!(all.is_sorted_by_key(|event| (event.time_ms, event.topic_partition)));
    // One item a page: with what 160 items of 400 KB take, the pages of all chains fit 64 MB.
    assert!(read.stats().pages >= 340, "{:?}", read.stats());
    local.stop().await;
}
