//! Reading a table that a run has written: in pages, while it grows, into files, and from Python.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use millpond_tests::pipeline::{EVENTS, Pipeline, START_MS};
use millpond_tests::process::{self, Running};
use millpond_tests::{announce_skipped, config, eventually, python};
use rustix::process::Signal;

use crate::MILLPOND;
use crate::readers::{
    PYTHON_READ, PYTHON_SLICE, by_group, by_producer, export_with_kills, lines, rows, run_python,
};

const SEED: u64 = 5;

async fn written(events: u64) -> Result<Pipeline> {
    let pipeline = Pipeline::new(MILLPOND, 3, &config::pipeline()).await?;
    pipeline.emit(events, SEED)?;
    pipeline.catch_up()?;
    Ok(pipeline)
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_give_what_one_read_gives() -> Result<()> {
    let pipeline = written(2_000).await?;
    let groups = by_group(&pipeline)?;
    let largest = groups.iter().max_by_key(|(_, events)| events.len());
    let (group, whole) = largest.context("a group")?;
    let mut pages: Vec<String> = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let mut arguments = vec!["read", "--table", EVENTS, "--group", group, "--limit", "37"];
        arguments.extend(["--committed", "--max-read-units", "5000"]);
        if let Some(token) = &token {
            arguments.extend(["--page-token", token]);
        }
        let output = pipeline.millpond(&arguments)?;
        let said = process::stderr(&output);
        ensure!(output.status.success(), "{said}");
        pages.extend(lines(&output.stdout));
        let next = said
            .lines()
            .find_map(|line| line.strip_prefix("page token: "));
        let Some(next) = next else { break };
        token = Some(next.to_owned());
    }
    ensure!(pages == *whole, "{} of {}", pages.len(), whole.len());
    // A token of one group is none of another.
    let other = groups
        .keys()
        .find(|name| *name != group)
        .context("another")?;
    let token = token.context("a token")?;
    let output = pipeline.millpond(&[
        "read",
        "--table",
        EVENTS,
        "--group",
        other,
        "--page-token",
        &token,
    ])?;
    let said = process::stderr(&output);
    ensure!(output.status.code() == Some(1), "{said}");
    ensure!(said.contains("it is of group"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_gives_each_event_once_and_in_order_while_they_are_written() -> Result<()> {
    const COUNT: u64 = 3_000;
    let pipeline = Pipeline::new(MILLPOND, 3, &config::pipeline()).await?;
    let mut run = pipeline.start()?;
    let mut emit = pipeline.start_emit(COUNT, SEED, 0.4)?;
    pipeline.first_item().await?;
    let limit = format!("--limit={COUNT}");
    let from = format!("--from={START_MS}");
    let output = pipeline.millpond(&[
        "tail", "--table", EVENTS, "--all", &limit, &from, "--poll", "0.1",
    ])?;
    ensure!(output.status.success(), "{}", process::stderr(&output));
    ensure!(emit.wait()?.success(), "{}", emit.stderr_so_far());
    run.signal(Signal::TERM)?;
    ensure!(run.wait()?.success(), "{}", run.stderr_so_far());
    let followed = lines(&output.stdout);
    let expected = pipeline.expected(COUNT, SEED)?;
    ensure!(followed.len() as u64 == COUNT, "{}", followed.len());
    ensure!(
        by_producer(&followed)? == by_producer(&expected)?,
        "another order"
    );

    // Nothing more comes, and a signal ends it.
    let group = pipeline.groups()?.into_keys().next().context("a group")?;
    let mut tail = Running::start(&mut pipeline.command(&[
        "tail",
        "--table",
        EVENTS,
        "--group",
        &group,
        &from,
        "--group-names",
    ]))?;
    tail.stdout_line(&format!("{group}\t{{"))?;
    tail.signal(Signal::TERM)?;
    ensure!(tail.wait()?.code() == Some(0), "{}", tail.stderr_so_far());
    Ok(())
}

/// Prints group and event of each row, by an implementation that shares nothing with ours.
const ROWS: &str = r#"
import sys, pyarrow.parquet
table = pyarrow.parquet.read_table(sys.argv[1])
assert str(table.schema.field("event_time").type) == "timestamp[ms, tz=UTC]", table.schema
for row in table.to_pylist():
    assert row["stream"] == "events" and row["ordinal"] >= 0 and row["topic_offset"] >= 0, row
    print(row["group"] + "\t" + row["event"].decode())
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_export_goes_on_after_every_death_and_is_whole() -> Result<()> {
    let pipeline = written(14_000).await?;
    let groups = by_group(&pipeline)?;
    let expected: Vec<(String, String)> = groups
        .iter()
        .flat_map(|(group, events)| events.iter().map(|event| (group.clone(), event.clone())))
        .collect();
    ensure!(expected.len() == 14_000, "{}", expected.len());

    export_with_kills(&pipeline, "ndjson", "all.ndjson", 3).await?;
    let found = lines(&std::fs::read(pipeline.dir().join("all.ndjson"))?);
    ensure!(
        found.iter().eq(expected.iter().map(|(_, event)| event)),
        "lines"
    );

    export_with_kills(&pipeline, "parquet", "all.parquet", 3).await?;
    let file = pipeline.dir().join("all.parquet");
    ensure!(rows(&file)? == expected, "columns");

    match python::with(&["pyarrow.parquet"]) {
        Err(reason) => announce_skipped("pyarrow reads an export", &reason),
        Ok(python) => {
            let mut command = Command::new(python);
            let output = process::run(command.args(["-c", ROWS]).arg(&file))?;
            ensure!(output.status.success(), "{}", process::stderr(&output));
            let found = lines(&output.stdout);
            let text = expected
                .iter()
                .map(|(group, event)| format!("{group}\t{event}"));
            ensure!(found.into_iter().eq(text), "columns by pyarrow");
        }
    }

    // A slice of one group.
    let (group, events) = groups.iter().next().context("a group")?;
    let to = START_MS + Duration::from_secs(1).as_millis() as i64;
    let (from, to) = (format!("--from={START_MS}"), format!("--to={to}"));
    let slice = ["--group", group, &from, &to];
    let read = pipeline.succeed(&[&["read", "--table", EVENTS], &slice[..]].concat())?;
    let export = [
        "export", "--table", EVENTS, "--format", "ndjson", "--output", "slice",
    ];
    pipeline.succeed(&[&export[..], &slice[..]].concat())?;
    ensure!(
        std::fs::read(pipeline.dir().join("slice"))? == read,
        "slice"
    );
    ensure!(!events.is_empty() && lines(&read).len() <= events.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_export_is_continued_by_the_same_command_only() -> Result<()> {
    let pipeline = written(3_000).await?;
    let arguments = [
        "export",
        "--table",
        EVENTS,
        "--all",
        "--format",
        "ndjson",
        "--output",
        "out",
        "--sync-bytes",
        "100000",
    ];
    let mut slow = pipeline.command(&[&arguments[..], &["--max-read-units", "40"]].concat());
    let mut export = Running::start(&mut slow)?;
    let state = pipeline.dir().join("out.partial/state.json");
    eventually("progress", async || Ok(state.exists().then_some(()))).await?;
    export.signal(Signal::STOP)?;
    let output = pipeline.millpond(&arguments)?;
    let said = process::stderr(&output);
    ensure!(
        output.status.code() == Some(1) && said.contains("another process"),
        "{said}"
    );
    export.signal(Signal::KILL)?;
    export.wait()?;
    let other = pipeline.millpond(&[&arguments[..], &["--from", "5"]].concat())?;
    let said = process::stderr(&other);
    ensure!(
        other.status.code() == Some(1) && said.contains("other data"),
        "{said}"
    );
    std::fs::write(&state, b"{}")?;
    let damaged = pipeline.millpond(&arguments)?;
    let said = process::stderr(&damaged);
    ensure!(
        damaged.status.code() == Some(1) && said.contains("cannot be read"),
        "{said}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_line_is_refused_as_one_and_taken_as_a_column() -> Result<()> {
    let text = config::pipeline().replace("/job_id", "partition-key");
    let pipeline = Pipeline::new(MILLPOND, 1, &text).await?;
    pipeline.aws.put(EVENTS, "g", b"two\nlines").await?;
    pipeline.catch_up()?;
    let export = |format: &str, file: &str| {
        pipeline.millpond(&[
            "export", "--table", EVENTS, "--group", "g", "--format", format, "--output", file,
        ])
    };
    let output = export("ndjson", "a")?;
    let said = process::stderr(&output);
    ensure!(
        output.status.code() == Some(1) && said.contains("format: parquet"),
        "{said}"
    );
    ensure!(!pipeline.dir().join("a").exists());
    let output = export("parquet", "b")?;
    ensure!(output.status.success(), "{}", process::stderr(&output));
    ensure!(pipeline.dir().join("b").exists());
    Ok(())
}

#[test]
fn the_python_decoder_passes_its_own_tests() -> Result<()> {
    let name = "the_python_decoder_passes_its_own_tests";
    let python = match python::with(&["boto3", "zstandard"]) {
        Ok(python) => python,
        Err(reason) => {
            announce_skipped(name, &reason);
            return Ok(());
        }
    };
    let mut command = Command::new(python);
    command
        .args(["-m", "unittest", "discover", "-s", "tests", "-t", "."])
        .current_dir(python::decoder())
        .env("PYTHONPATH", "src")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let output = process::run(&mut command)?;
    let said = process::stderr(&output);
    ensure!(output.status.success() && said.contains("OK"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_decoder_reads_what_the_sink_wrote() -> Result<()> {
    let name = "the_python_decoder_reads_what_the_sink_wrote";
    let python = match python::with(&["boto3", "zstandard"]) {
        Ok(python) => python,
        Err(reason) => {
            announce_skipped(name, &reason);
            return Ok(());
        }
    };
    let pipeline = written(3_000).await?;
    // One that does not fit an item: it is stored in parts.
    let large: String = (0..62_000u64)
        .map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
        .collect();
    let large = format!("{{\"job_id\":\"large\",\"data\":\"{large}\"}}");
    pipeline.aws.put(EVENTS, "k", large.as_bytes()).await?;
    pipeline.catch_up()?;
    let run = |script, arguments: &[&str]| run_python(&python, &pipeline, script, arguments);
    let groups = by_group(&pipeline)?;
    ensure!(groups["large"] == [large], "the large event");
    let expected: Vec<String> = groups
        .iter()
        .flat_map(|(group, events)| events.iter().map(move |event| format!("{group}\t{event}")))
        .collect();
    let mut found = run(PYTHON_READ, &[EVENTS])?;
    // Groups come in an order of their own, the events of one in that of the reader.
    found.sort_by(|one, other| {
        let group = |line: &str| line.split_once('\t').map(|(group, _)| group.to_owned());
        group(one).cmp(&group(other))
    });
    ensure!(found == expected, "{} of {}", found.len(), expected.len());
    let group = groups.keys().next().context("a group")?;
    let (from, to) = ((START_MS + 100).to_string(), (START_MS + 900).to_string());
    let mut arguments = vec!["read", "--table", EVENTS, "--group", group];
    arguments.extend(["--from", &from, "--to", &to]);
    let slice = lines(&pipeline.succeed(&arguments)?);
    ensure!(
        run(PYTHON_SLICE, &[EVENTS, group, &from, &to])? == slice,
        "a slice"
    );
    Ok(())
}
