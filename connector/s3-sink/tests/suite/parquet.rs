//! Parquet objects, read by the crate that wrote them and by one that did not.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use millpond_s3_sink::client::memory::MemoryBucket;
use millpond_sink::conformance::pack;
use millpond_sink::conformance::topic::MemoryTopic;
use millpond_sink::conformance::workload::{Shape, Workload};
use parquet::record::Field;

use crate::harness::{PARQUET, run};
use crate::reader::{column, data, event, rows};

/// The Python that has `pyarrow`, or might have.
const PYTHON_VARIABLE: &str = "MILLPOND_PYTHON";

/// Reads every object with an implementation that shares nothing with ours, by its folders, and
/// prints a line for each row: group, hour, shard, ordinal, offset, bytes of the event in hexadecimal.
const READER: &str = r#"
import sys, pyarrow.dataset, pyarrow.parquet, glob
for name in sorted(glob.glob(sys.argv[1] + "/**/*.parquet", recursive=True)):
    pyarrow.parquet.ParquetFile(name).metadata.row_group(0)
table = pyarrow.dataset.dataset(sys.argv[1], format="parquet", partitioning="hive",
                                ignore_prefixes=["_"]).to_table()
assert str(table.schema.field("event_time").type) == "timestamp[ms, tz=UTC]", table.schema
assert str(table.schema.field("event").type) == "binary", table.schema
for row in table.to_pylist():
    assert row["event_time"].hour == int(row["hour"]), row
    assert str(row["event_time"].date()) == str(row["date"]), row
    print(row["shard"], row["ordinal"], row["topic_partition"], row["topic_offset"], row["event"].hex())
"#;

async fn written(packed: bool) -> (Vec<(String, Bytes)>, Workload) {
    let folder = tempfile::tempdir().expect("tempdir");
    let (bucket, topic) = (MemoryBucket::default(), MemoryTopic::new(7));
    let shape = Shape {
        poison: 0,
        repeats: 0,
        ..Shape::default()
    };
    let mut workload = Workload::new(7, shape);
    for _ in 0..20 {
        workload.send(&topic);
    }
    let transforms = if packed { pack() } else { Vec::new() };
    let api = Arc::new(bucket.clone());
    run(api, (PARQUET, 1 << 20), &topic, transforms, folder.path()).await;
    (bucket.objects(), workload)
}

#[tokio::test(start_paused = true)]
async fn rows_say_where_their_events_come_from() {
    for packed in [true, false] {
        let (objects, workload) = written(packed).await;
        let mut found = 0;
        for (name, bytes) in data(&objects) {
            for row in rows(bytes) {
                found += 1;
                let value = event(&row);
                let sent = workload.sent().find(|event| event.value == value);
                let sent = sent.expect("sent");
                let is =
                    |name: &str, field: Field| assert_eq!(column(&row, name), &field, "{name}");
                is("event_time", Field::TimestampMillis(sent.arrival_ms));
                is("stream", Field::Str("stream".into()));
                is("topic_partition", Field::Int(0));
                is("epoch", Field::Long(1_763_880_000_000));
                let (sequence, sub_sequence) = match packed {
                    true => (Field::Null, Field::Null),
                    false => (Field::Str(sent.sequence.to_string()), Field::Long(0)),
                };
                is("sequence", sequence);
                is("sub_sequence", sub_sequence);
                let Field::Str(group) = column(&row, "group") else {
                    panic!("{row:?}");
                };
                assert!(name.contains(&format!("/group={group}/")), "{name} {group}");
                if !packed {
                    assert_eq!(*group, sent.partition_key);
                }
            }
        }
        assert_eq!(found, workload.sent().count());
    }
}

fn has_pyarrow(python: &str) -> bool {
    let asked = Command::new(python)
        .args(["-c", "import pyarrow.dataset"])
        .output();
    asked.is_ok_and(|output| output.status.success())
}

#[tokio::test(start_paused = true)]
async fn another_implementation_reads_the_same() {
    let python = std::env::var(PYTHON_VARIABLE).unwrap_or_else(|_| "python3".into());
    if !has_pyarrow(&python) {
        // Past the test harness, which keeps what a passing test prints to itself.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED another_implementation_reads_the_same: `{python}` has no pyarrow \
             (pip install pyarrow; {PYTHON_VARIABLE} names another Python)"
        );
        return;
    }
    for packed in [true, false] {
        let (objects, workload) = written(packed).await;
        let root = tempfile::tempdir().expect("tempdir");
        for (name, bytes) in &objects {
            let file = root.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap_or(Path::new(""))).expect("folder");
            std::fs::write(file, bytes).expect("written");
        }
        let read = Command::new(&python)
            .args(["-c", READER])
            .arg(root.path().join("lake/p"))
            .output()
            .expect("runs");
        let errors = String::from_utf8_lossy(&read.stderr);
        assert!(read.status.success(), "{errors}");
        let text = String::from_utf8(read.stdout).expect("text");
        let hexadecimal =
            |value: &[u8]| -> String { value.iter().map(|byte| format!("{byte:02x}")).collect() };
        let mut found: Vec<&str> = text
            .lines()
            .map(|line| line.rsplit_once(' ').expect("an event").1)
            .collect();
        let mut sent: Vec<String> = workload
            .sent()
            .map(|event| hexadecimal(&event.value))
            .collect();
        found.sort_unstable();
        sent.sort_unstable();
        assert_eq!(found, sent);
    }
}
