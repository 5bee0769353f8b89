//! What a running process shows: metrics, probes, status and the page.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use millpond_tests::pipeline::Pipeline;
use millpond_tests::process::{self, Running};
use millpond_tests::{announce_skipped, config, eventually};
use rustix::process::Signal;
use serde_json::Value;

use crate::MILLPOND;

/// The metrics that the page of the crate documents.
const METRICS: &str = include_str!("../../../connector/observe/METRICS.md");

/// How the metrics end that come from the clocks on data loss.
const CLOCKS: [&str; 10] = [
    "_retention_hours",
    "_open_shards",
    "_unknown_shards",
    "_advised_shards",
    "_utilisation_in_ratio",
    "_utilisation_out_ratio",
    "_behind_latest_seconds",
    "_until_trim_seconds",
    "_drain_seconds",
    "_until_loss_seconds",
];

/// Names under which Debian and others install it.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A running `millpond run` that serves its status.
struct Served {
    running: Running,
    address: String,
}

impl Served {
    fn start(pipeline: &Pipeline) -> Result<Self> {
        let arguments = [
            "run",
            "Connector.yaml",
            "--data-dir=data",
            "--http=127.0.0.1:0",
        ];
        let mut command = pipeline.command(&arguments);
        command
            .env("RUST_LOG", "info")
            .env("MILLPOND_LOG_FORMAT", "json");
        let mut running = Running::start(&mut command)?;
        let line = running.stderr_line("metrics and status")?;
        let line: Value =
            serde_json::from_str(&line).with_context(|| format!("no JSON: {line}"))?;
        let page = line["page"].as_str().context("no page")?;
        let address = page.trim_start_matches("http://").trim_end_matches('/');
        Ok(Self {
            address: address.to_owned(),
            running,
        })
    }

    /// Status code and body.
    fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n",
            self.address
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        let code = head.split(' ').nth(1).context("no code")?.parse()?;
        Ok((code, body.to_owned()))
    }

    fn status(&self) -> Result<Value> {
        let (code, body) = self.get("/status")?;
        ensure!(code == 200, "{code}: {body}");
        Ok(serde_json::from_str(&body)?)
    }

    /// Until so many events are in the table.
    async fn written(&self, events: u64) -> Result<Value> {
        eventually("events in the table", async || {
            let status = self.status()?;
            let sink = &status["connectors"][1];
            Ok((sink["counters"]["sink_events"] == events).then_some(status))
        })
        .await
    }

    fn end(mut self) -> Result<()> {
        self.running.signal(Signal::TERM)?;
        let ended = self.running.wait()?;
        ensure!(ended.success(), "{}", self.running.stderr_so_far());
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_shows_what_it_does() -> Result<()> {
    let pipeline = Pipeline::new(MILLPOND, 3, &config::pipeline()).await?;
    pipeline.emit(2_000, 1)?;
    let served = Served::start(&pipeline)?;
    assert_eq!(served.get("/healthz")?, (200, "ok\n".to_owned()));
    eventually("ready", async || {
        let (code, body) = served.get("/readyz")?;
        ensure!(code == 200 || code == 503, "{code}: {body}");
        Ok((code == 200).then_some(()))
    })
    .await?;
    let status = served.written(2_000).await?;
    let sink = &status["connectors"][1];
    ensure!(
        status["not_ready"].is_null() && status["state"] == "running",
        "{status}"
    );
    ensure!(
        sink["fill"].as_f64() > Some(0.3) && sink["saving"].as_f64() > Some(1.5),
        "{sink}"
    );
    let queued = |partition: &Value| partition["queued"].as_u64();
    let partitions = sink["partitions"].as_array().context("no partitions")?;
    ensure!(
        !partitions.is_empty() && partitions.iter().all(|p| queued(p) == Some(0)),
        "{sink}"
    );
    // One write shard is enough for each of these groups.
    let is_calm = |spread: &Value| spread["groups"].as_u64() > Some(0) && spread["most"] == 1;
    ensure!(
        partitions
            .iter()
            .any(|p| is_calm(&p["spread"]) && p["spread"]["keys"] == p["spread"]["groups"]),
        "{sink}"
    );
    let (code, text) = served.get("/metrics")?;
    ensure!(code == 200 && text.ends_with("# EOF\n"), "{code}: {text}");
    let mut count = 0;
    for row in METRICS
        .lines()
        .filter(|line| line.starts_with("| `millpond_"))
    {
        let name = row.split('`').nth(1).unwrap_or_default();
        let help = format!("# HELP {} ", name.trim_end_matches("_total"));
        ensure!(text.contains(&help), "`{help}` is not in\n{text}");
        let has_value = |line: &str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        // The clocks on data loss are read once a minute: nothing may be known yet.
        let is_clock = CLOCKS.iter().any(|clock| name.ends_with(clock));
        ensure!(
            is_clock || text.lines().any(has_value),
            "{name} is not in\n{text}"
        );
        count += 1;
    }
    ensure!(count > 30, "{count} metrics are documented");
    ensure!(
        text.contains("millpond_sink_events_total{connector=\"events-sink\"} 2000"),
        "{text}"
    );
    assert_eq!(served.get("/other")?.0, 404);
    served.end()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_the_pipeline_in_a_browser() -> Result<()> {
    let Some(browser) = BROWSERS
        .into_iter()
        .find(|name| process::is_installed(name))
    else {
        announce_skipped(
            "the_page_shows_the_pipeline_in_a_browser",
            "chromium is not installed",
        );
        return Ok(());
    };
    let pipeline = Pipeline::new(MILLPOND, 3, &config::pipeline()).await?;
    pipeline.emit(2_000, 1)?;
    let served = Served::start(&pipeline)?;
    served.written(2_000).await?;
    let profile = tempfile::tempdir()?;
    let url = format!("http://{}/", served.address);
    let shown = browse(browser, profile.path(), &url, "--dump-dom")?;
    for text in [
        "class=\"state good\">ready<",
        "events-sink",
        "<b>2,000</b>events written",
        "topic partition",
    ] {
        ensure!(shown.contains(text), "`{text}` is not in\n{shown}");
    }
    let picture = Path::new(env!("CARGO_TARGET_TMPDIR")).join("status.png");
    browse(
        browser,
        profile.path(),
        &url,
        &format!("--screenshot={}", picture.display()),
    )?;
    ensure!(
        std::fs::metadata(&picture)?.len() > 10_000,
        "the picture is empty"
    );
    served.end()
}

/// Opens a page, lets its scripts work for some seconds of their own time, and answers stdout.
fn browse(browser: &str, profile: &Path, url: &str, what: &str) -> Result<String> {
    let mut command = Command::new(browser);
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
    ]);
    command.args([
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]);
    command.args([
        "--virtual-time-budget=5000",
        "--window-size=1200,1000",
        what,
    ]);
    command
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(url);
    let output = process::run(&mut command)?;
    ensure!(output.status.success(), "{}", process::stderr(&output));
    Ok(process::stdout(&output))
}
