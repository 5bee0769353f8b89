//! A topic that is lost and made anew under the same pipeline, and what that costs with either setting of
//! `checkpoint-after`.

use anyhow::{Context as _, Result, ensure};
use millpond_kinesis_source::checkpoint::{
    CheckpointStore as _, Progress, ShardCheckpoint, StreamCheckpoint,
};
use millpond_kinesis_source::checkpoint_store::{STORE_FILE, StoredCheckpoints};
use millpond_tests::pipeline::{EVENTS, Pipeline};
use millpond_tests::{config, eventually, process};
use rustix::process::Signal;
use serde_json::Value;

use crate::MILLPOND;

const COUNT: u64 = 5_000;
const SEED: u64 = 41;

/// The exit code of `verify` with findings.
const FINDINGS: i32 = 6;

/// The usual pipeline with more lines in the sections of source and sink.
fn configuration(source: &str, sink: &str) -> String {
    let text = config::pipeline();
    let text = text.replace(
        "  start: trim-horizon\n",
        &format!("  start: trim-horizon\n{source}"),
    );
    text.replace("  max-age: 500ms\n", sink)
}

/// What a lost disk takes of it.
fn lose_topic(pipeline: &Pipeline) -> Result<()> {
    let topic = pipeline.dir().join("data/topics/events");
    std::fs::remove_dir_all(&topic).with_context(|| topic.display().to_string())
}

fn is_complete(pipeline: &Pipeline) -> Result<()> {
    pipeline.verify(COUNT, SEED)?;
    let deep = ["verify", "--table", EVENTS, "--stream", EVENTS, "--deep"];
    pipeline.succeed(&deep).map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_checkpoint_behind_the_table_a_lost_topic_costs_a_replay() -> Result<()> {
    // What is taken back of a plan lies behind the prefix, too.
    let sink = "  max-age: 500ms\n  key-prefix: 'events#'\n";
    let text = configuration("  checkpoint-after: table\n", sink);
    let pipeline = Pipeline::new(MILLPOND, 4, &text).await?;
    let mut emitter = pipeline.start_emit(COUNT, SEED, 0.6)?;
    // In the middle of everything: plans are open, events are in the topic and nowhere else.
    for round in 0..2 {
        let mut running = pipeline.start()?;
        match round {
            0 => pipeline.first_item().await?,
            _ => drop(running.stderr_line("the topic was made anew")?),
        }
        running.signal(Signal::KILL)?;
        running.wait()?;
        lose_topic(&pipeline)?;
    }
    let status = emitter.wait()?;
    ensure!(status.success(), "emit: {}", emitter.rest().1);
    let log = pipeline.catch_up()?;
    ensure!(log.contains("the topic was made anew"), "{log}");
    is_complete(&pipeline)?;
    // With nothing under way nothing is read again.
    lose_topic(&pipeline)?;
    pipeline.catch_up()?;
    is_complete(&pipeline)
}

/// What the source has saved, once a shard of it is delivered and it is another than `before`.
async fn checkpoint(
    pipeline: &Pipeline,
    before: Option<&StreamCheckpoint>,
) -> Result<StreamCheckpoint> {
    let connector = pipeline.dir().join("data/connectors/events-source");
    let is_delivered =
        |shard: &ShardCheckpoint| matches!(shard.progress, Progress::Delivered { .. });
    eventually("newer checkpoint", async || {
        // The source has its store open: a copy is read, which may have been taken in the middle of a write.
        let copy = tempfile::tempdir()?;
        let copied = std::fs::copy(connector.join(STORE_FILE), copy.path().join(STORE_FILE));
        if copied.is_err() {
            return Ok(None);
        }
        let found = StoredCheckpoints::new(copy.path()).load(EVENTS).await;
        let found = found.ok().flatten();
        Ok(found.filter(|found| found.shards.values().any(is_delivered) && Some(found) != before))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_checkpoint_behind_the_topic_what_is_lost_is_said() -> Result<()> {
    // After its first plan the sink waits, so what comes then is in the topic alone.
    let text = configuration("", "  max-age: 60s\n");
    let pipeline = Pipeline::new(MILLPOND, 4, &text).await?;
    pipeline.emit(COUNT, SEED)?;
    let mut running = pipeline.start()?;
    pipeline.first_item().await?;
    let before = checkpoint(&pipeline, None).await?;
    pipeline.emit(COUNT, SEED + 1)?;
    checkpoint(&pipeline, Some(&before)).await?;
    running.signal(Signal::KILL)?;
    running.wait()?;
    lose_topic(&pipeline)?;
    // What comes now does not follow what was lost.
    pipeline.emit(COUNT, SEED + 2)?;

    pipeline.set_config(&configuration("", "  max-age: 500ms\n"))?;
    let halted = pipeline.run()?;
    let log = process::stderr(&halted);
    ensure!(!halted.status.success(), "went on in silence\n{log}");
    for said in [
        "the topic was made anew",
        "`checkpoint-after: topic`",
        "missing",
    ] {
        ensure!(log.contains(said), "{said}\n{log}");
    }

    pipeline.set_config(&configuration("", "  max-age: 500ms\n  on-gap: record\n"))?;
    pipeline.catch_up()?;
    // Nothing is missing that no gap accounts for, and nothing is there twice.
    let said = pipeline.millpond(&["verify", "--table", EVENTS, "--json"])?;
    ensure!(
        said.status.code() == Some(FINDINGS),
        "{}",
        process::stderr(&said)
    );
    let (mut gaps, mut lost, mut found) = (0, 0, 0);
    for line in process::stdout(&said).lines() {
        let line: Value = serde_json::from_str(line)?;
        if let Some(kind) = line["finding"].as_str() {
            ensure!(kind == "gap", "{line}");
            gaps += 1;
        }
        lost += line["in_gaps"].as_u64().unwrap_or(0);
        if !line["complete"].is_null() {
            found = line["events"].as_u64().context("events")?;
        }
    }
    ensure!(
        gaps > 0 && found > 0 && lost > 0,
        "{gaps} gaps, {found} events, {lost} lost"
    );
    let sent = 3 * COUNT;
    ensure!(found + lost == sent, "{found} and {lost} lost of {sent}");
    let events = pipeline.read_all()?;
    let distinct: std::collections::BTreeSet<_> = events.iter().collect();
    ensure!(
        distinct.len() as u64 == found,
        "twice: {} of {found}",
        distinct.len()
    );
    let mut expected = Vec::new();
    for seed in SEED..SEED + 3 {
        expected.extend(pipeline.expected(COUNT, seed)?);
    }
    let expected: std::collections::BTreeSet<_> = expected.iter().collect();
    ensure!(distinct.is_subset(&expected), "made up");
    Ok(())
}
