//! What is read is what was written: whole groups, slices, order across chains.

#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;

use millpond_reader::{GroupsRequest, ReadRequest};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use support::{ChainWriter, Local, Timed, drain, values};

/// Random chains of a group: out-of-order and late times, several frames and items, write shards that grow under way.
fn random_chains(rng: &mut SmallRng, group: &str) -> (Vec<support::Item>, Vec<Vec<Timed>>) {
    let mut rows = Vec::new();
    let mut chains = Vec::new();
    for partition in 0..rng.random_range(1..=4u32) {
        let mut writer = ChainWriter::new(group, partition * 3);
        let mut stored = Vec::new();
        let mut clock = 1_763_886_000_000i64 + rng.random_range(0..500i64);
        for _ in 0..rng.random_range(1..=12) {
            if rng.random_bool(0.15) {
                writer.write_shards *= 2;
            }
            let mut frames = Vec::new();
            for _ in 0..rng.random_range(1..=4) {
                let mut frame = Vec::new();
                for _ in 0..rng.random_range(1..=8) {
                    clock += rng.random_range(0..40i64);
                    let late = if rng.random_bool(0.1) {
                        rng.random_range(0..3_000i64)
                    } else {
                        0
                    };
                    let value = format!(
                        "{partition}:{}:{}",
                        stored.len(),
                        "x".repeat(rng.random_range(0..40))
                    );
                    frame.push((clock - late, value.into_bytes()));
                    stored.push(frame[frame.len() - 1].clone());
                }
                frames.push(frame);
            }
            rows.push(writer.item(&frames));
        }
        // As the sink does: rounded up to a power of two.
        writer.late_ms = (writer.late_ms as u64).next_power_of_two() as i64;
        rows.extend(writer.directory_rows());
        chains.push(stored);
    }
    (rows, chains)
}

/// Order rule, written down a second time: the chain whose next event is the earliest.
fn merged(chains: &[Vec<Timed>], from: i64, to: i64) -> Vec<String> {
    let mut rest: Vec<Vec<&Timed>> = chains
        .iter()
        .map(|chain| {
            chain
                .iter()
                .filter(|(time, _)| (from..to).contains(time))
                .rev()
                .collect()
        })
        .collect();
    let mut all = Vec::new();
    loop {
        let next = (0..rest.len())
            .filter_map(|index| Some((rest[index].last()?.0, index)))
            .min();
        let Some((_, index)) = next else {
            return all;
        };
        if let Some((_, value)) = rest[index].pop() {
            all.push(String::from_utf8_lossy(value).into_owned());
        }
    }
}

#[tokio::test]
async fn a_slice_is_the_whole_filtered() {
    let seed = support::seed();
    let mut rng = SmallRng::seed_from_u64(seed);
    let local = Local::with_table().await;
    let mut written = Vec::new();
    for number in 0..12 {
        let group = format!("group#{number}");
        let (rows, chains) = random_chains(&mut rng, &group);
        local.put_all(rows).await;
        written.push((group, chains));
    }
    let reader = local.reader().await;
    for (group, chains) in &written {
        let mut read = reader.read(ReadRequest::group(group)).await.expect("reads");
        let all = drain(&mut read).await.expect("whole");
        assert_eq!(
            values(&all),
            merged(chains, 0, i64::MAX),
            "seed {seed}, group {group}"
        );
        let times: Vec<i64> = chains.iter().flatten().map(|(time, _)| *time).collect();
        for _ in 0..25 {
            // Boundaries on events, next to them and elsewhere.
            let mut pick = || times[rng.random_range(0..times.len())] + rng.random_range(-1..=1i64);
            let (from, to) = (pick(), pick());
            let request = ReadRequest {
                from_ms: Some(from),
                to_ms: Some(to),
                ..ReadRequest::group(group)
            };
            let mut read = reader.read(request).await.expect("reads");
            let slice = drain(&mut read).await.expect("whole");
            let expected = merged(chains, from, to);
            assert_eq!(
                values(&slice),
                expected,
                "seed {seed}, group {group}, [{from}, {to})"
            );
        }
    }
    let mut groups = reader.groups(GroupsRequest { first_times: true });
    let mut listed = 0;
    while let Some(summary) = groups.next().await.expect("lists") {
        let (_, chains) = written
            .iter()
            .find(|(group, _)| *group == summary.group)
            .expect("known");
        let all: Vec<_> = chains.iter().flatten().collect();
        assert_eq!(summary.events, all.len() as u64, "seed {seed}");
        assert_eq!(
            summary.event_bytes,
            all.iter().map(|(_, v)| v.len() as u64).sum::<u64>()
        );
        assert_eq!(summary.chains as usize, chains.len());
        assert_eq!(
            summary.last_time_ms,
            all.iter().map(|(time, _)| *time).max()
        );
        listed += 1;
    }
    assert_eq!(listed, written.len());
    local.stop().await;
}

#[tokio::test]
async fn a_slice_decodes_only_the_frames_it_needs_and_reads_only_its_items() {
    let local = Local::with_table().await;
    let mut writer = ChainWriter::new("g", 0);
    let mut rows = Vec::new();
    for item in 0..20i64 {
        let frames: Vec<Vec<Timed>> = (0..10i64)
            .map(|frame| {
                let start = 1_000_000 + item * 1_000 + frame * 100;
                (0..10).map(|i| (start + i * 10, vec![b'e'; 50])).collect()
            })
            .collect();
        rows.push(writer.item(&frames));
    }
    writer.late_ms = writer
        .late_ms
        .cast_unsigned()
        .next_power_of_two()
        .cast_signed();
    rows.push(writer.directory_row());
    local.put_all(rows).await;
    let reader = local.reader().await;
    let request = ReadRequest {
        from_ms: Some(1_005_300),
        to_ms: Some(1_005_500),
        ..ReadRequest::group("g")
    };
    let mut read = reader.read(request).await.expect("reads");
    assert_eq!(drain(&mut read).await.expect("whole").len(), 20);
    let stats = read.stats();
    assert_eq!(stats.frames_decoded, 2, "{stats:?}");
    // The item, and the one whose events may begin as much as `late` (1024 ms) before its end.
    assert!(stats.items <= 2, "{stats:?}");
    assert!(stats.read_units > 0.0, "{stats:?}");
    local.stop().await;
}

#[tokio::test]
async fn many_pages_are_read_ahead_and_a_limit_stops_early() {
    let local = Local::with_table().await;
    let mut rng = SmallRng::seed_from_u64(1);
    let mut rows = Vec::new();
    for partition in 0..2 {
        let mut writer = ChainWriter::new("big", partition);
        // Seven items of about 300 KB: three pages.
        for item in 0..7i64 {
            let mut value = vec![0u8; 300_000];
            rng.fill(value.as_mut_slice());
            let time = 1_000 + item * 10 + i64::from(partition);
            rows.push(writer.item(&[vec![(time, value)]]));
        }
        rows.push(writer.directory_row());
    }
    for row in rows {
        local.put(row).await;
    }
    let reader = local.reader().await;
    let mut read = reader.read(ReadRequest::group("big")).await.expect("reads");
    let all = drain(&mut read).await.expect("whole");
    let times: Vec<_> = all.iter().map(|event| event.time_ms).collect();
    let expected: Vec<i64> = (0..7)
        .flat_map(|item| [1_000 + item * 10, 1_001 + item * 10])
        .collect();
    assert_eq!(times, expected);
    assert_eq!(read.stats().pages, 6, "{:?}", read.stats());
    assert_eq!(all[3].origin.ordinal, 1);
    assert_eq!(all[3].topic_partition, 1);

    for limit in [0, 1, 3, 14, 15] {
        let request = ReadRequest {
            limit: Some(limit),
            ..ReadRequest::group("big")
        };
        let mut read = reader.read(request).await.expect("reads");
        let some = drain(&mut read).await.expect("whole");
        assert_eq!(some, all[..(limit as usize).min(14)], "limit {limit}");
        if limit == 1 {
            assert_eq!(read.stats().items, 2, "{:?}", read.stats());
        }
    }
    local.stop().await;
}

#[tokio::test]
async fn plain_items_are_read_and_counted() {
    let local = Local::with_table().await;
    let mut writer = ChainWriter::new("job-1", 2);
    let mut rows: Vec<_> = [
        (5_000, "one"),
        (7_000, "two"),
        (6_000, "three"),
        (7_500, ""),
    ]
    .iter()
    .map(|(time, value)| writer.plain(*time, value.as_bytes()))
    .collect();
    rows.push(writer.directory_row());
    local.put_all(rows).await;
    let reader = local.reader().await;
    let mut read = reader
        .read(ReadRequest::group("job-1"))
        .await
        .expect("reads");
    let all = drain(&mut read).await.expect("whole");
    assert_eq!(values(&all), ["one", "two", "three", ""]);
    assert_eq!(&*all[2].origin.shard, "shardId-000000000000");
    assert_eq!((all[2].origin.epoch, all[2].origin.ordinal), (7, 2));
    let request = ReadRequest {
        from_ms: Some(6_000),
        to_ms: Some(7_000),
        ..ReadRequest::group("job-1")
    };
    let mut read = reader.read(request).await.expect("reads");
    assert_eq!(values(&drain(&mut read).await.expect("whole")), ["three"]);
    let summary = reader
        .groups(GroupsRequest { first_times: true })
        .next()
        .await
        .expect("lists")
        .expect("one group");
    assert_eq!(
        (summary.events, summary.event_bytes, summary.items),
        (4, 11, 4)
    );
    assert_eq!(
        (summary.first_time_ms, summary.last_time_ms),
        (Some(5_000), Some(7_500))
    );
    local.stop().await;
}
