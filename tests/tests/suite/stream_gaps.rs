//! What the stream removed before it was read, from the source through topic and sink to what `millpond verify`
//! says of the table.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use millpond_kinesis_local::{Server, ServerConfig};
use millpond_tests::pipeline::{EVENTS, Pipeline};
use millpond_tests::{config, dead_letter_file, eventually, process};
use serde_json::Value;

use crate::MILLPOND;

const SHARD: &str = "shardId-000000000000";

/// Longer than a stream keeps its records.
const PAST_RETENTION: Duration = Duration::from_secs(26 * 3_600);

/// The exit code of `verify` with findings.
const FINDINGS: i32 = 6;

async fn put(client: &aws_sdk_kinesis::Client, name: &str, count: u32) -> Result<()> {
    for number in 0..count {
        let event = format!(
            "{{\"job_id\":\"j{}\",\"name\":\"{name}-{number}\"}}",
            number % 3
        );
        let put = client.put_record().stream_name(EVENTS);
        let put = put.partition_key(format!("{name}-{number}"));
        put.data(event.into_bytes().into()).send().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recorded_gap_is_in_the_report_and_nothing_else_is() -> Result<()> {
    let text = |on_loss: &str| {
        let line = format!("  start: trim-horizon\n  on-loss: {on_loss}\n");
        config::pipeline().replace("  start: trim-horizon\n", &line)
    };
    let mut pipeline = Pipeline::new(MILLPOND, 1, &text("fail")).await?;
    // A stream whose time this test decides.
    let ahead = Arc::new(AtomicU64::new(0));
    let read = ahead.clone();
    let server = Server::start(ServerConfig {
        clock: Arc::new(move || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.map_or(0, |now| now.as_millis() as u64) + read.load(Ordering::Relaxed)
        }),
        ..ServerConfig::default()
    })
    .await?;
    let endpoint = server.endpoint_url();
    pipeline.environment = pipeline
        .aws
        .environment_with("AWS_ENDPOINT_URL_KINESIS", &endpoint);
    let client = millpond_tests::stand_ins::kinesis_at(&endpoint, &pipeline.environment).await?;
    let create = client.create_stream().stream_name(EVENTS);
    create.shard_count(1).send().await?;
    put(&client, "read", 30).await?;
    pipeline.catch_up()?;

    // Nobody reads these, then their shard is closed, and then both are older than the stream keeps.
    put(&client, "lost", 20).await?;
    let split = client
        .split_shard()
        .stream_name(EVENTS)
        .shard_to_split(SHARD);
    let half = (1u128 << 127).to_string();
    split.new_starting_hash_key(half).send().await?;
    eventually("active stream", async || {
        let said = client
            .describe_stream_summary()
            .stream_name(EVENTS)
            .send()
            .await?;
        let said = said.stream_description_summary.context("a summary")?;
        Ok((said.stream_status.as_str() == "ACTIVE").then_some(()))
    })
    .await?;
    ahead.store(PAST_RETENTION.as_millis() as u64, Ordering::Relaxed);
    put(&client, "left", 30).await?;

    let refused = pipeline.run()?;
    let said = process::stderr(&refused);
    ensure!(
        !refused.status.success() && said.contains("on-loss: gap-and-continue"),
        "{said}"
    );
    pipeline.set_config(&text("gap-and-continue"))?;
    pipeline.catch_up()?;

    let events = pipeline.read_all()?;
    let of = |name: &str| events.iter().filter(|event| event.contains(name)).count();
    ensure!(
        (of("read-"), of("lost-"), of("left-")) == (30, 0, 30),
        "{events:?}"
    );

    let letters = dead_letter_file(&pipeline.dir().join("data"))?;
    let letters = letters.to_str().context("UTF-8 path")?;
    let verify = [
        "verify",
        "--table",
        EVENTS,
        "--dead-letters",
        letters,
        "--stream",
        EVENTS,
        "--deep",
    ];
    let human = pipeline.millpond(&verify)?;
    let text = process::stdout(&human);
    ensure!(human.status.code() == Some(FINDINGS), "{text}");
    ensure!(
        text.contains("the source recorded a gap") && text.contains(SHARD),
        "{text}"
    );
    ensure!(
        text.contains("gaps of the stream, recorded by the source"),
        "{text}"
    );

    let json = pipeline.millpond(&[&verify[..], &["--json"]].concat())?;
    let lines = process::stdout(&json);
    let lines: Result<Vec<Value>, _> = lines.lines().map(serde_json::from_str).collect();
    let lines = lines?;
    let findings: Vec<&Value> = lines
        .iter()
        .filter(|line| !line["finding"].is_null())
        .collect();
    ensure!(!findings.is_empty(), "{lines:?}");
    for finding in &findings {
        ensure!(
            finding["finding"] == "stream-gap" && finding["stream"] == EVENTS,
            "{finding}"
        );
    }
    let gone = findings.iter().find(|finding| finding["shard"] == SHARD);
    let gone = gone.with_context(|| format!("no gap of {SHARD}: {findings:?}"))?;
    ensure!(gone["kind"] == "gone" && !gone["after"].is_null(), "{gone}");
    let summary = lines.last().context("a summary")?;
    ensure!(summary["stream_gaps"] == findings.len(), "{summary}");
    ensure!(
        summary["findings"] == findings.len() && summary["events"] == 60,
        "{summary}"
    );

    let accepted = pipeline.millpond(&[&verify[..], &["--accept-gaps"]].concat())?;
    ensure!(accepted.status.success(), "{}", process::stdout(&accepted));
    Ok(())
}
