//! What is in the objects: names, hours, sizes, and what is in none of them.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use millpond_s3_sink::client::memory::MemoryBucket;
use millpond_s3_sink::encode::Format;
use millpond_sink::conformance::pack;
use millpond_sink::conformance::storm::LETTERS;
use millpond_sink::conformance::topic::{KeyValue, MemoryTopic};
use serde_json::Value;

use crate::harness::{NDJSON, PARQUET, record, run};
use crate::reader::{data, lines, read_events};

/// 2025-11-23T08:59:59.900Z, shortly before an hour ends.
const BEFORE_NINE: i64 = 1_763_888_399_900;
const HOUR: i64 = 3_600_000;

struct Written {
    objects: Vec<(String, Bytes)>,
    letters: Vec<Value>,
}

impl Written {
    /// Folder without what all have, file name, events.
    fn summary(&self) -> Vec<(String, Vec<String>)> {
        let of = |(name, bytes): (&str, &Bytes)| {
            let events = lines(bytes).into_iter();
            let events = events.map(|event| String::from_utf8(event).expect("text"));
            (
                name.trim_start_matches("lake/p/").to_owned(),
                events.collect(),
            )
        };
        data(&self.objects).into_iter().map(of).collect()
    }
}

async fn write(batches: &[Vec<KeyValue>], packed: bool, format: Format, limit: u64) -> Written {
    let folder = tempfile::tempdir().expect("tempdir");
    let (bucket, topic) = (MemoryBucket::default(), MemoryTopic::new(1));
    for batch in batches {
        topic.push(batch);
    }
    let transforms = if packed { pack() } else { Vec::new() };
    let api = Arc::new(bucket.clone());
    run(api, (format, limit), &topic, transforms, folder.path()).await;
    let letters = std::fs::read_to_string(folder.path().join(LETTERS)).unwrap_or_default();
    Written {
        objects: bucket.objects(),
        letters: letters
            .lines()
            .map(|line| serde_json::from_str(line).expect("json"))
            .collect(),
    }
}

fn job(ordinal: u64, time_ms: i64, job: &str) -> KeyValue {
    let value = format!("{{\"job\":\"{job}\",\"n\":{ordinal}}}");
    record(ordinal, time_ms, "key/1", value.as_bytes())
}

/// Lists of (name, events) for comparison.
fn expected(objects: &[(&str, &[u64])], job: &str) -> Vec<(String, Vec<String>)> {
    let events = |numbers: &[u64]| {
        let one = |n: &u64| format!("{{\"job\":\"{job}\",\"n\":{n}}}");
        numbers.iter().map(one).collect()
    };
    let one = |(name, numbers): &(&str, &[u64])| ((*name).to_owned(), events(numbers));
    objects.iter().map(one).collect()
}

#[tokio::test(start_paused = true)]
async fn every_event_is_in_the_object_of_its_group_and_hour() {
    // Event 2 is of the hour after, though 3 follows it.
    let batches = [
        vec![job(0, BEFORE_NINE, "a b"), job(1, BEFORE_NINE, "a b")],
        vec![job(2, BEFORE_NINE + 200, "a b"), job(3, BEFORE_NINE, "a b")],
        vec![job(4, BEFORE_NINE + 300, "a b")],
    ];
    let packed = write(&batches, true, NDJSON, 1 << 20).await;
    let eight =
        "group=a%20b/date=2025-11-23/hour=08/00000-0000000000000000000-00000-0000000.ndjson.zst";
    let nine =
        "group=a%20b/date=2025-11-23/hour=09/00000-0000000000000000002-00000-0000000.ndjson.zst";
    let objects: [(&str, &[u64]); 2] = [(eight, &[0, 1, 3]), (nine, &[2, 4])];
    assert_eq!(packed.summary(), expected(&objects, "a b"));
    assert_eq!(packed.letters, [Value::Null; 0]);

    // Plain, the group is the Kinesis partition key.
    let plain = write(&batches, false, NDJSON, 1 << 20).await;
    let (eight, nine) = (
        eight.replace("a%20b", "key%2F1"),
        nine.replace("a%20b", "key%2F1"),
    );
    let objects: [(&str, &[u64]); 2] = [(&eight, &[0, 1, 3]), (&nine, &[2, 4])];
    assert_eq!(plain.summary(), expected(&objects, "a b"));
}

#[tokio::test(start_paused = true)]
async fn an_object_is_closed_when_it_is_full_and_the_next_begins_within_an_envelope() {
    let batch: Vec<KeyValue> = (0..5).map(|n| job(n, BEFORE_NINE, "j")).collect();
    // Two events of 17 bytes fit, three do not.
    let written = write(&[batch], true, NDJSON, 40).await;
    let name = |event: u64| {
        format!(
            "group=j/date=2025-11-23/hour=08/00000-0000000000000000000-00000-{event:07}.ndjson.zst"
        )
    };
    let names = [name(0), name(2), name(4)];
    let objects: [(&str, &[u64]); 3] = [
        (&names[0], &[0, 1]),
        (&names[1], &[2, 3]),
        (&names[2], &[4]),
    ];
    assert_eq!(written.summary(), expected(&objects, "j"));
}

#[tokio::test(start_paused = true)]
async fn many_hours_at_once_cost_objects_not_memory() {
    // Ten hours in turn, twice: more than may be open at one time.
    let batch: Vec<KeyValue> = (0..20)
        .map(|n| job(n, BEFORE_NINE + (n as i64 % 10) * HOUR, "j"))
        .collect();
    let written = write(&[batch], true, NDJSON, 1 << 20).await;
    let summary = written.summary();
    assert_eq!(
        summary.len(),
        20,
        "each was closed before its hour came again"
    );
    let events: Vec<&String> = summary.iter().flat_map(|(_, events)| events).collect();
    assert_eq!(events.len(), 20);
    let hours: std::collections::BTreeSet<&str> = summary
        .iter()
        .map(|(name, _)| name.rsplit_once('/').expect("a folder").0)
        .collect();
    assert_eq!(hours.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_event_in_parts_is_one_event_again() {
    let pad: String = (0..60_000_u32)
        .map(|n| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 27) as u8 % 26))
        .collect();
    let large = format!("{{\"job\":\"j\",\"n\":1,\"pad\":\"{pad}\"}}");
    let batch = vec![
        job(0, BEFORE_NINE, "j"),
        record(1, BEFORE_NINE, "k", large.as_bytes()),
        job(2, BEFORE_NINE, "j"),
    ];
    for format in [NDJSON, PARQUET] {
        let written = write(std::slice::from_ref(&batch), true, format, 1 << 20).await;
        let events = read_events(&written.objects);
        let events: Vec<usize> = events.values().flatten().map(Vec::len).collect();
        assert_eq!(events, [17, large.len(), 17]);
        assert_eq!(written.letters, [Value::Null; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_line_is_one_dead_letter_and_any_bytes_are_a_row() {
    let bad: [&[u8]; 4] = [b"{\"job\":\n\"j\"}", b"no json", b"\xff\xfe", b""];
    let mut batch = vec![job(0, BEFORE_NINE, "j")];
    for (index, value) in bad.iter().enumerate() {
        batch.push(record(index as u64 + 1, BEFORE_NINE, "k", value));
    }
    batch.push(job(5, BEFORE_NINE, "j"));
    // By a constant, so that the packer does not look into them.
    let written = write(std::slice::from_ref(&batch), false, NDJSON, 1 << 20).await;
    let events: usize = written
        .summary()
        .iter()
        .map(|(_, events)| events.len())
        .sum();
    assert_eq!(events, 2);
    let letters: Vec<(&str, &str)> = written
        .letters
        .iter()
        .map(|letter| {
            let text = |name: &str| letter[name].as_str().unwrap_or_default();
            (text("reason"), text("origin"))
        })
        .collect();
    let origins: Vec<&str> = batch[1..5].iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(letters.len(), 4);
    for (reason, origin) in letters {
        assert!(
            reason == "not-ndjson" && origins.contains(&origin),
            "{reason} {origin}"
        );
    }
    let written = write(&[batch.clone()], false, PARQUET, 1 << 20).await;
    let mut found: Vec<Vec<u8>> = read_events(&written.objects)
        .into_values()
        .flatten()
        .collect();
    let mut sent: Vec<Vec<u8>> = batch.into_iter().map(|(_, value)| value).collect();
    found.sort();
    sent.sort();
    assert_eq!((found, written.letters.len()), (sent, 0));
}

/// A packed event that is JSON for the packer, and still no line.
#[tokio::test(start_paused = true)]
async fn a_packed_event_that_is_no_line_says_where_it_comes_from() {
    let broken = b"{\"job\":\"j\",\n\"n\":1}";
    let batch = vec![
        job(0, BEFORE_NINE, "j"),
        record(1, BEFORE_NINE, "k", broken),
        job(2, BEFORE_NINE, "j"),
    ];
    let written = write(&[batch], true, NDJSON, 1 << 20).await;
    let [letter] = written.letters.as_slice() else {
        panic!("{:?}", written.letters);
    };
    assert_eq!(letter["id"], "p/events/0/0/0/1");
    assert_eq!(letter["group"], "j");
    let detail = letter["detail"].as_str().expect("a detail");
    for part in [
        "line break at byte 11",
        "`format: parquet`",
        "shard `shardId-000000000003` of stream `events`",
        "ordinal 1 of numbering 1763885999000",
    ] {
        assert!(detail.contains(part), "{detail}");
    }
    assert_eq!(written.summary()[0].1.len(), 2);
}

/// The bytes of an object, once and for all. A new version of a library may change them, which a
/// replay survives, since names do not depend on them; then `MILLPOND_WRITE_GOLDEN=1` keeps the new ones.
#[tokio::test(start_paused = true)]
async fn an_object_has_the_bytes_that_it_had() {
    let batch: Vec<KeyValue> = (0..3).map(|n| job(n, BEFORE_NINE, "j")).collect();
    for format in [NDJSON, PARQUET] {
        let mut made = Vec::new();
        for _ in 0..2 {
            let written = write(std::slice::from_ref(&batch), true, format, 1 << 20).await;
            let (_, bytes) = data(&written.objects)[0];
            made.push(bytes.clone());
        }
        assert_eq!(made[0], made[1], "the same events, the same bytes");
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden/v1")
            .join(format!("three-events.{}", format.extension()));
        if std::env::var_os("MILLPOND_WRITE_GOLDEN").is_some() {
            std::fs::write(&file, &made[0]).expect("written");
        }
        let golden = std::fs::read(&file).expect("golden bytes");
        assert!(made[0] == golden, "{} is not as it was", file.display());
    }
}
