//! The files in `examples/`: each is valid, and each runs on the stand-ins with every event at its sink.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use aws_sdk_dynamodb::types::AttributeValue;
use millpond_tests::pipeline::{EVENTS, Pipeline, workload_arguments};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;
use serde_json::Value;

use crate::MILLPOND;
use crate::s3_server::S3Server;

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

    /// Files that the sink `events-lake` wrote to the folder `lake`, by the group that their path names.
    fn files(&self) -> Result<Vec<(String, PathBuf)>> {
        files(&self.folder.join("lake/events-lake"))
    }
}

/// Files with events below the folder of a pipeline, by the group that their path names.
fn files(root: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.strip_prefix(root)?.to_str().context("text")?;
            let Some(name) = name.strip_prefix("group=") else {
                continue;
            };
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let group = name.split('/').next().context("a group")?;
            found.push((group.to_owned(), path));
        }
    }
    found.sort();
    Ok(found)
}

/// Events of Parquet files, each in the folders of its group and hour, in any order.
fn events_of_parquet(files: Vec<(String, PathBuf)>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (group, path) in files {
        let folders = path.to_string_lossy().into_owned();
        let file = SerializedFileReader::new(std::fs::File::open(&path)?)?;
        for row in file.get_row_iter(None)? {
            let row = row?;
            let mut columns = row.get_column_iter();
            let event = columns.find(|(name, _)| *name == "event");
            let Some((_, Field::Bytes(event))) = event else {
                anyhow::bail!("no event: {row:?}");
            };
            let event = String::from_utf8(event.data().to_vec())?;
            assert_eq!(member(&event, "job_id")?, group);
            let emitted = member(&event, "emitted_at")?;
            let (date, time) = emitted.split_once('T').context("a time")?;
            let expected = format!("/date={date}/hour={}/", &time[..2]);
            ensure!(folders.contains(&expected), "{emitted} in {folders}");
            found.push(event);
        }
    }
    found.sort_unstable();
    Ok(found)
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
    assert_eq!(count, 6);
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
async fn plain_mode_with_types() -> Result<()> {
    let example = Example::new("plain-typed").await?;
    example.run(&[])?;
    let mut latest: BTreeMap<(String, String), Vec<Value>> = BTreeMap::new();
    for event in example.expected()? {
        let event: Value = serde_json::from_str(&event)?;
        let text = |pointer| event.pointer(pointer).and_then(Value::as_str);
        let entity = text("/entity/type").zip(text("/entity/id"));
        let (kind, id) = entity.context("an entity")?;
        let key = (
            format!("{kind}#{id}"),
            text("/job_id").context("a job")?.to_owned(),
        );
        let seen = latest.entry(key).or_default();
        let time = |event: &Value| event["emitted_at"].as_str().map(str::to_owned);
        match seen.first().map(time) {
            Some(other) if other > time(&event) => continue,
            Some(other) if other == time(&event) => {}
            _ => seen.clear(),
        }
        seen.push(event);
    }
    let mut items = example.pipeline.aws.scan(EVENTS).await?;
    let text = |item: &HashMap<String, AttributeValue>, name: &str| {
        let value = item.get(name).and_then(|value| value.as_s().ok());
        value.cloned().unwrap_or_default()
    };
    items.retain(|item| !text(item, "entity").starts_with("millpond:"));
    assert_eq!(items.len(), latest.len());
    ensure!((items.len() as u64) < EVENT_COUNT, "some share a key");
    for item in items {
        let key = (text(&item, "entity"), text(&item, "job"));
        let events = latest.get(&key).with_context(|| format!("{key:?}"))?;
        let raw = item["raw"].as_b().ok().context("binary")?;
        let event: Value = serde_json::from_slice(raw.as_ref())?;
        ensure!(events.contains(&event), "{event} is not the latest");
        assert_eq!(text(&item, "tenant"), event["tenant"]);
        let number = |name: &str| {
            let value = item.get(name).and_then(|value| value.as_n().ok());
            value.and_then(|number| number.parse::<f64>().ok())
        };
        assert_eq!(number("attempt"), event["attempt"].as_f64());
        assert_eq!(
            number("risk"),
            event.pointer("/scores/risk").and_then(Value::as_f64)
        );
        let features = item.get("features").and_then(|value| value.as_m().ok());
        let expected = event["features"].as_object();
        assert_eq!(
            features.map(HashMap::len),
            expected.map(serde_json::Map::len)
        );
        ensure!(number("expires") > Some(1.7e9), "it ends");
    }
    let read = example.pipeline.millpond(&["groups", "--table", EVENTS])?;
    let said = millpond_tests::process::stderr(&read);
    ensure!(said.contains("mapped events"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_instead_of_dynamodb() -> Result<()> {
    let example = Example::new("s3-instead-of-dynamodb").await?;
    example.run(&[])?;
    assert_eq!(events_of_parquet(example.files()?)?, example.expected()?);
    Ok(())
}

/// The same with S3 in place of the folder, found by the environment alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_in_place_of_the_folder() -> Result<()> {
    let mut example = Example::new("s3-instead-of-dynamodb").await?;
    let server = S3Server::start("lake-1", &example.pipeline.environment).await?;
    let endpoint = ("AWS_ENDPOINT_URL_S3".to_owned(), server.url.clone());
    example.pipeline.environment.push(endpoint);
    let file = example.folder.join("Connector.yaml");
    let text = std::fs::read_to_string(&file)?;
    let on_s3 = text.replace("url: lake", "url: s3://lake-1/some/prefix");
    ensure!(on_s3 != text, "the example is as this test knows it");
    std::fs::write(&file, on_s3)?;
    example.run(&[])?;
    let root = server.folder().join("lake-1/some/prefix/events-lake");
    assert_eq!(events_of_parquet(files(&root)?)?, example.expected()?);
    ensure!(
        !example.folder.join("lake").exists(),
        "nothing in the folder"
    );
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
    let files = lines(example.files()?)?;
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
