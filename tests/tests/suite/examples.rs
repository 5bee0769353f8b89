//! The files in `examples/`: each is valid, and each runs on the stand-ins with every event at its sink.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use millpond_tests::pipeline::{EVENTS, Pipeline, workload_arguments};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;
use serde_json::Value;

use crate::MILLPOND;

const EVENT_COUNT: u64 = 3_000;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// An example in a folder of its own, beside the SmartModules that it may name.
struct Example {
    pipeline: Pipeline,
    folder: PathBuf,
}

impl Example {
    async fn new(name: &str) -> Result<Self> {
        let text =
            std::fs::read_to_string(repository().join(format!("examples/{name}/Connector.yaml")))?;
        let pipeline = Pipeline::new(MILLPOND, 2, &text).await?;
        let folder = pipeline.dir().join("examples").join(name);
        let modules = pipeline.dir().join("smartmodules/examples");
        std::fs::create_dir_all(&folder)?;
        std::fs::create_dir_all(&modules)?;
        std::fs::write(folder.join("Connector.yaml"), text)?;
        for entry in std::fs::read_dir(repository().join("smartmodules/examples"))? {
            let file = entry?.path();
            if file
                .extension()
                .is_some_and(|extension| extension == "wasm")
            {
                let name = file.file_name().context("a name")?;
                std::fs::copy(&file, modules.join(name))?;
            }
        }
        Ok(Self { pipeline, folder })
    }

    /// Puts the events and runs the example until all is committed.
    fn run(&self, more: &[&str]) -> Result<()> {
        let [events, seed, start, jobs] = workload_arguments(EVENT_COUNT, 1);
        let mut arguments = vec!["emit", "--stream", EVENTS, &events, &seed, &start, &jobs];
        arguments.extend(more);
        self.pipeline.succeed(&arguments)?;
        let file = self.folder.join("Connector.yaml");
        let file = file.to_str().context("UTF-8 path")?;
        self.pipeline.succeed(&["validate", file])?;
        self.pipeline
            .succeed(&["run", file, "--data-dir=data", "--until-caught-up"])?;
        Ok(())
    }

    fn expected(&self) -> Result<Vec<String>> {
        let mut expected = self.pipeline.expected(EVENT_COUNT, 1)?;
        expected.sort_unstable();
        Ok(expected)
    }

    /// Files below the folder `lake` of a pipeline, with the group that their path names.
    fn files(&self, pipeline: &str) -> Result<Vec<(String, PathBuf)>> {
        let root = self.folder.join("lake").join(pipeline);
        let mut found = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.ends_with("_millpond") {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let name = path.strip_prefix(&root)?.to_str().context("text")?;
                let group = name
                    .strip_prefix("group=")
                    .and_then(|name| name.split('/').next());
                found.push((group.context("a group")?.to_owned(), path));
            }
        }
        found.sort();
        Ok(found)
    }
}

fn member(event: &str, name: &str) -> Result<String> {
    let event: Value = serde_json::from_str(event)?;
    Ok(event[name].as_str().context("a text")?.to_owned())
}

#[test]
fn every_example_is_tested_and_listed() -> Result<()> {
    let index = std::fs::read_to_string(repository().join("examples/README.md"))?;
    let tests = include_str!("examples.rs");
    let mut count = 0;
    for entry in std::fs::read_dir(repository().join("examples"))? {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        count += 1;
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .context("a name")?;
        ensure!(path.join("README.md").is_file(), "{name} has no page");
        ensure!(
            index.contains(&format!("[{name}]({name})")),
            "{name} is not listed"
        );
        ensure!(
            tests.contains(&format!("Example::new(\"{name}\")")),
            "{name} is not run"
        );
    }
    assert_eq!(count, 5);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kpl_producers_to_packed_items() -> Result<()> {
    let example = Example::new("kpl-to-packed").await?;
    example.run(&["--kpl", "50"])?;
    assert_eq!(example.pipeline.read_all()?, example.expected()?);
    let items = example.pipeline.aws.scan(EVENTS).await?;
    let packed = items.iter().filter(|item| item.contains_key("d")).count() as u64;
    ensure!(packed > 0 && packed * 10 < EVENT_COUNT, "{packed} items");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_mode() -> Result<()> {
    let example = Example::new("plain-mode").await?;
    example.run(&[])?;
    let items = example.pipeline.aws.scan(EVENTS).await?;
    let mut values = Vec::new();
    for item in items.iter().filter_map(|item| item.get("v")) {
        let value = item.as_b().ok().context("binary")?;
        values.push(String::from_utf8(value.as_ref().to_vec())?);
    }
    values.sort_unstable();
    assert_eq!(values, example.expected()?, "an item for each event");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_instead_of_dynamodb() -> Result<()> {
    let example = Example::new("s3-instead-of-dynamodb").await?;
    example.run(&[])?;
    let mut found = Vec::new();
    for (group, path) in example.files("events-lake")? {
        let hour = path.to_string_lossy().into_owned();
        let file = SerializedFileReader::new(std::fs::File::open(&path)?)?;
        for row in file.get_row_iter(None)? {
            let row = row?;
            let column = |name: &str| {
                let mut columns = row.get_column_iter();
                let found = columns.find(|(known, _)| *known == name);
                found.map(|(_, field)| field.clone()).context("a column")
            };
            let Field::Bytes(event) = column("event")? else {
                anyhow::bail!("no bytes: {row:?}");
            };
            let event = String::from_utf8(event.data().to_vec())?;
            assert_eq!(member(&event, "job_id")?, group);
            let emitted = member(&event, "emitted_at")?;
            let (date, time) = emitted.split_once('T').context("a time")?;
            let expected = format!("/date={date}/hour={}/", &time[..2]);
            ensure!(hour.contains(&expected), "{emitted} in {hour}");
            found.push(event);
        }
    }
    found.sort_unstable();
    assert_eq!(found, example.expected()?);
    Ok(())
}

/// Events of `ndjson.zst` files by group.
fn lines(files: Vec<(String, PathBuf)>) -> Result<BTreeMap<String, Vec<String>>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (group, path) in files {
        let mut text = String::new();
        let mut decoder = zstd::stream::read::Decoder::new(std::fs::File::open(&path)?)?;
        decoder.read_to_string(&mut text)?;
        let events = groups.entry(group).or_default();
        events.extend(text.lines().map(str::to_owned));
    }
    Ok(groups)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sinks_on_one_topic() -> Result<()> {
    let example = Example::new("two-sinks").await?;
    example.run(&[])?;
    assert_eq!(example.pipeline.read_all()?, example.expected()?);
    let files = lines(example.files("events-lake")?)?;
    for (group, events) in &files {
        for event in events {
            assert_eq!(member(event, "tenant")?, *group);
        }
    }
    let mut found: Vec<String> = files.into_values().flatten().collect();
    found.sort_unstable();
    assert_eq!(found, example.expected()?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_before_the_packer() -> Result<()> {
    let example = Example::new("filter-before-pack").await?;
    example.run(&[])?;
    let mut kept = example.expected()?;
    let before = kept.len();
    kept.retain(|event| {
        let kind = member(event, "event_type").unwrap_or_default();
        kind != "job_progress" && kind != "warning"
    });
    ensure!(
        (1..before).contains(&kept.len()),
        "some are dropped, some stay"
    );
    assert_eq!(example.pipeline.read_all()?, kept);
    Ok(())
}
