//! What the readers of a table give: the commands that read it, and the decoder for Python.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use millpond_tests::pipeline::{EVENTS, Pipeline};
use millpond_tests::process::{self, Running};
use millpond_tests::{eventually, python};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;
use rustix::process::Signal;
use serde_json::Value;

/// Events of each group in the order in which they are read.
pub(crate) fn by_group(pipeline: &Pipeline) -> Result<BTreeMap<String, Vec<String>>> {
    let groups = pipeline.groups()?.into_keys();
    groups
        .map(|group| Ok((group.clone(), pipeline.read(&group)?)))
        .collect()
}

/// Events of each producer, whose order is kept, in the order in which they are here.
pub(crate) fn by_producer(events: &[String]) -> Result<BTreeMap<String, Vec<&str>>> {
    let mut all: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for text in events {
        let event: Value = serde_json::from_str(text)?;
        let producer = format!("{}/{}", event["job_id"], event["worker"]);
        all.entry(producer).or_default().push(text);
    }
    Ok(all)
}

pub(crate) fn lines(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    text.lines().map(str::to_owned).collect()
}

/// Exports everything, killed so many times after it has made some progress durable.
pub(crate) async fn export_with_kills(
    pipeline: &Pipeline,
    format: &str,
    file: &str,
    kills: u32,
) -> Result<()> {
    let arguments = [
        "export",
        "--table",
        EVENTS,
        "--all",
        "--format",
        format,
        "--output",
        file,
        "--sync-bytes",
        "200000",
    ];
    let state = pipeline.dir().join(format!("{file}.partial/state.json"));
    let durable = || -> u64 {
        let state = std::fs::read(&state).unwrap_or_default();
        let state: Value = serde_json::from_slice(&state).unwrap_or_default();
        state["events"].as_u64().unwrap_or(0)
    };
    for kill in 0..kills {
        let before = durable();
        let slow = [&arguments[..], &["--max-read-units", "60"]].concat();
        let mut export = Running::start(&mut pipeline.command(&slow))?;
        eventually("progress", async || Ok((durable() > before).then_some(()))).await?;
        export.signal(Signal::KILL)?;
        ensure!(!export.wait()?.success(), "kill {kill}: it had ended");
        ensure!(
            !pipeline.dir().join(file).exists(),
            "kill {kill}: too early"
        );
    }
    // What a death may leave behind: half of a line, half of a file of columns.
    for name in ["data", "999.parquet"] {
        let path = pipeline.dir().join(format!("{file}.partial/{name}"));
        if path.exists() || name != "data" {
            let torn = std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(path);
            std::io::Write::write_all(&mut torn?, b"{\"torn")?;
        }
    }
    let output = pipeline.millpond(&arguments)?;
    let said = process::stderr(&output);
    ensure!(output.status.success(), "{said}");
    ensure!(said.contains("going on behind"), "{said}");
    ensure!(
        !pipeline.dir().join(format!("{file}.partial")).exists(),
        "{said}"
    );
    let again = pipeline.millpond(&arguments)?;
    let said = process::stderr(&again);
    ensure!(
        again.status.code() == Some(1) && said.contains("exists already"),
        "{said}"
    );
    Ok(())
}

/// Group and event of each row, read by the crate that wrote it.
pub(crate) fn rows(file: &Path) -> Result<Vec<(String, String)>> {
    let reader = SerializedFileReader::new(File::open(file)?)?;
    ensure!(reader.num_row_groups() > 1, "one part only");
    let rows = reader.get_row_iter(None)?;
    rows.map(|row| {
        let row = row?;
        let column = |wanted: &str| row.get_column_iter().find(|(name, _)| *name == wanted);
        match (column("group"), column("event")) {
            (Some((_, Field::Str(group))), Some((_, Field::Bytes(event)))) => {
                Ok((group.clone(), String::from_utf8(event.data().to_vec())?))
            }
            found => anyhow::bail!("{found:?}"),
        }
    })
    .collect()
}

/// Reads every group by the Python decoder and prints `group`, tab, event.
pub(crate) const PYTHON_READ: &str = r#"
import sys, millpond
for group in millpond.groups(sys.argv[1]):
    for event in millpond.read(sys.argv[1], group):
        print(group + "\t" + event.value.decode())
"#;

/// The same for the slice of one group, printing what it took.
pub(crate) const PYTHON_SLICE: &str = r#"
import sys, millpond
reader = millpond.Table(sys.argv[1])
for event in reader.read(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])):
    print(event.value.decode())
"#;

/// The lines that a script prints that reads the pipeline's table with the decoder for Python.
pub(crate) fn run_python(
    python: &str,
    pipeline: &Pipeline,
    script: &str,
    arguments: &[&str],
) -> Result<Vec<String>> {
    let mut command = Command::new(python);
    command.args(["-c", script]).args(arguments);
    command.current_dir(python::decoder());
    command.env("PYTHONPATH", "src");
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    let environment = pipeline.environment.iter();
    command.envs(environment.map(|(name, value)| (name, value)));
    let output = process::run(&mut command)?;
    ensure!(output.status.success(), "{}", process::stderr(&output));
    Ok(lines(&output.stdout))
}
