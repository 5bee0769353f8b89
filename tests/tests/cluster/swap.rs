//! Another sink on a real cluster: its type and its section are all that changes.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use millpond_tests::on_cluster::{LOOK, OnCluster, sorted};
use millpond_tests::{config, eventually_every};
use serde_json::Value;

use crate::BUILT;

/// Events of the objects below a folder; each object holds those of its group.
fn events(folder: &Path) -> Result<Vec<String>> {
    let mut events = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // Before the first object there is no folder.
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry?.path();
            let name = path.to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name.contains("/group=") {
                let text = zstd::decode_all(std::fs::File::open(&path)?)?;
                for line in String::from_utf8(text)?.lines() {
                    let event: Value = serde_json::from_str(line)?;
                    let job = event["job_id"].as_str().context("a job")?;
                    ensure!(name.contains(&format!("/group={job}/")), "{job} in {name}");
                    events.push(line.to_owned());
                }
            }
        }
    }
    Ok(events)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_in_place_of_items() -> Result<()> {
    let text = config::pipeline();
    let (source, sink) = text.split_once("---\n").context("two documents")?;
    let (before, _) = sink.split_once("dynamodb:\n").context("a section")?;
    let before = before.replace("type: dynamodb-sink", "type: s3-sink");
    let sink = format!("{before}s3:\n  url: lake\n  format: ndjson\n  max-age: 400ms\n");
    let text = format!("{source}---\n{sink}");
    let Some(on) = OnCluster::new(BUILT, "objects_in_place_of_items", &text).await? else {
        return Ok(());
    };
    // Beside the sink's document, wherever `deploy` put that.
    let lake = on.pipeline.dir().join(".millpond/cluster/lake");
    let arrived = async |count: usize| {
        eventually_every(LOOK, "all events", async || {
            // An object that is being put is not to be read yet: then it is looked again.
            let there = events(&lake).map_or(0, |events| events.len());
            Ok((there >= count).then_some(()))
        })
        .await
        .with_context(|| on.logs())
    };
    on.deploy()?;
    on.pipeline.emit(6_000, 71)?;
    arrived(1).await?;
    on.kill("events-sink")?;
    on.deploy()?;
    arrived(6_000).await?;
    on.down()?;
    on.pipeline.emit(2_000, 72)?;
    on.deploy()?;
    arrived(8_000).await?;
    on.down()?;
    let mut expected = on.pipeline.expected(6_000, 71)?;
    expected.extend(on.pipeline.expected(2_000, 72)?);
    let found = events(&lake)?;
    let each: BTreeSet<&String> = found.iter().collect();
    ensure!(each.len() == found.len(), "an event is there twice");
    assert_eq!(sorted(found), sorted(expected));
    Ok(())
}
