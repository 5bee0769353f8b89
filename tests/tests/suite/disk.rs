//! A `millpond run` that was killed while it appended, and whose topic was damaged then: it is
//! reported, and nothing is invented. What the topic's own tests do to single bytes is not repeated.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use millpond_fault_proxy::{Plan, Service};
use millpond_tests::config;
use millpond_tests::pipeline::Pipeline;
use millpond_tests::process;
use millpond_tests::seed::{announce, seed};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::Signal;

use crate::MILLPOND;

const COUNT: u64 = 6_000;
const STORE: &str = "topic.redb";
const ENDS: &str = "topic.ends";

/// Files of a folder and below it, by path.
fn files(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.insert(path.clone(), std::fs::read(&path)?);
        }
    }
    Ok(found)
}

fn file<'a>(files: &'a BTreeMap<PathBuf, Vec<u8>>, name: &str) -> Result<(&'a PathBuf, &'a [u8])> {
    let mut files = files.iter();
    let found = files.find(|(path, _)| path.ends_with(name));
    let (path, bytes) = found.with_context(|| format!("no {name}"))?;
    Ok((path, bytes))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_topic_is_reported_and_nothing_is_invented() -> Result<()> {
    let seed = seed();
    announce(seed);
    let mut random = StdRng::seed_from_u64(seed);
    let mut pipeline = Pipeline::new(MILLPOND, 2, &config::pipeline()).await?;
    let data = pipeline.dir().join("data");
    pipeline
        .aws
        .put("events", "k", br#"{"job_id":"first"}"#)
        .await?;
    pipeline.catch_up()?;
    let before = files(&data)?;
    let (_, old_store) = file(&before, STORE)?;

    // The table is out of reach, so that everything stays in the topic; killed while it appends.
    let proxy = pipeline.proxy(Service::DynamoDb, Plan::none()).await?;
    proxy.cut();
    let mut running = pipeline.start()?;
    pipeline.emit(COUNT, seed)?;
    let (ends, old_ends) = file(&before, ENDS)?;
    millpond_tests::eventually("acknowledged appends", async || {
        Ok((std::fs::read(ends)? != old_ends).then_some(()))
    })
    .await?;
    running.signal(Signal::KILL)?;
    running.wait()?;
    proxy.restore();

    let left = files(&data)?;
    let (store, bytes) = file(&left, STORE)?;
    let mut flipped = bytes.to_vec();
    for page in (4096..flipped.len()).step_by(4096) {
        flipped[page + random.random_range(0..4096)] ^= 1 << random.random_range(0..8);
    }
    let cut = random.random_range(1..bytes.len());
    let named = store.to_str().context("UTF-8 path")?;
    let name = named.rsplit("data/").next().unwrap_or(named);
    for (damage, texts) in [
        (
            bytes[..cut].to_vec(),
            ["damaged", name, "move the file away"],
        ),
        (flipped, ["damaged", name, "move the file away"]),
        (old_store.to_vec(), ["offset", "partition", "acknowledged"]),
    ] {
        std::fs::write(store, &damage)?;
        let output = pipeline.run()?;
        let log = process::stderr(&output);
        ensure!(output.status.code() == Some(1), "{}\n{log}", output.status);
        for text in texts {
            ensure!(log.contains(text), "no `{text}` in\n{log}");
        }
        ensure!(!log.contains("panicked"), "{log}");
        let read = pipeline.read_all()?;
        ensure!(read == [r#"{"job_id":"first"}"#], "invented: {read:?}");
    }

    // With the files as the kill left them, everything is there.
    for (path, bytes) in &left {
        std::fs::write(path, bytes)?;
    }
    pipeline.catch_up()?;
    let mut expected = pipeline.expected(COUNT, seed)?;
    expected.push(r#"{"job_id":"first"}"#.to_owned());
    expected.sort_unstable();
    ensure!(pipeline.read_all()? == expected, "MILLPOND_SEED={seed}");
    Ok(())
}
