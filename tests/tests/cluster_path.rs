//! The way of an event on a real Fluvio cluster: connectors as processes under cdk, the SmartModule
//! on the SPU, stand-ins for Kinesis and DynamoDB, every event read back.

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use millpond::cluster::cdk::PROGRAM_DIR_VARIABLE;
use millpond_fluvio_topic::testing::LocalCluster;
use millpond_tests::pipeline::{EVENTS, Pipeline};
use millpond_tests::process::{self, Running};
use millpond_tests::{config, eventually};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const MILLPOND: &str = env!("CARGO_BIN_EXE_millpond-under-test");

const CONNECTORS: [(&str, &str, &str); 2] = [
    (
        "kinesis-source",
        include_str!("../../connector/kinesis-source/Connector.toml"),
        env!("CARGO_BIN_EXE_millpond-kinesis-source-under-test"),
    ),
    (
        "dynamodb-sink",
        include_str!("../../connector/dynamodb-sink/Connector.toml"),
        env!("CARGO_BIN_EXE_millpond-dynamodb-sink-under-test"),
    ),
];

struct OnCluster {
    pipeline: Pipeline,
    cluster: LocalCluster,
    bin: PathBuf,
}

impl OnCluster {
    async fn new(test: &str, config: &str) -> Result<Option<Self>> {
        if !LocalCluster::is_available(test) {
            return Ok(None);
        }
        let bin = LocalCluster::bin_dir().context("the folder of Fluvio's programs")?;
        let pipeline = Pipeline::new(MILLPOND, 3, config).await?;
        for (type_name, description, binary) in CONNECTORS {
            let parts = pipeline.dir().join(type_name);
            std::fs::create_dir(&parts)?;
            std::fs::write(parts.join("Connector.toml"), description)?;
            std::os::unix::fs::symlink(binary, parts.join(format!("millpond-{type_name}")))?;
        }
        Ok(Some(Self {
            pipeline,
            cluster: LocalCluster::start().await?,
            bin,
        }))
    }

    fn millpond(&self, arguments: &[&str]) -> Result<Output> {
        let endpoint = self.cluster.endpoint();
        let mut command = self.pipeline.command(arguments);
        command
            .env(PROGRAM_DIR_VARIABLE, &self.bin)
            .env("TMPDIR", self.pipeline.dir())
            // Both connectors would answer at the one path that they share by default.
            .env(
                "FLUVIO_METRIC_CONNECTOR",
                self.pipeline.dir().join("metrics"),
            );
        if arguments[0] != "down" {
            command.args(["--cluster", &endpoint]);
        }
        process::run(&mut command)
    }

    fn deploy(&self) -> Result<()> {
        let arguments = [
            "deploy",
            "--package-dir=kinesis-source",
            "--package-dir=dynamodb-sink",
        ];
        self.succeed(&arguments).map(drop)
    }

    fn succeed(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let output = self.millpond(arguments)?;
        ensure!(
            output.status.success(),
            "millpond {arguments:?}: {}\n{}\n{}",
            output.status,
            process::stderr(&output),
            self.logs()
        );
        Ok(output.stdout)
    }

    fn logs(&self) -> String {
        let dir = self.pipeline.dir().join(".millpond/cluster");
        let log = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
        format!(
            "source:\n{}\nsink:\n{}",
            log("events-source.log"),
            log("events-sink.log")
        )
    }

    fn pid(&self, connector: &str) -> Result<Option<Pid>> {
        let status: Value = serde_json::from_slice(&self.succeed(&["status", "--json"])?)?;
        let connectors = status["connectors"]
            .as_array()
            .context("connectors")?
            .clone();
        let found = connectors.iter().find(|one| one["name"] == connector);
        let pid = found.and_then(|one| one["pid"].as_i64());
        Ok(pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)))
    }

    fn kill(&self, connector: &str) -> Result<()> {
        if let Some(pid) = self.pid(connector)? {
            kill_process(pid, Signal::KILL)?;
        }
        Ok(())
    }

    fn events(&self) -> u64 {
        self.pipeline
            .groups()
            .map_or(0, |groups| groups.values().sum())
    }

    async fn arrived(&self, events: u64) -> Result<()> {
        eventually("all events", async || {
            Ok((self.events() >= events).then_some(()))
        })
        .await
        .with_context(|| format!("{} of {events}\n{}", self.events(), self.logs()))
    }

    fn down(&self) -> Result<()> {
        self.succeed(&["down"]).map(drop)
    }
}

impl Drop for OnCluster {
    fn drop(&mut self) {
        let _ = self.millpond(&["down"]);
    }
}

#[expect(
    clippy::print_stderr,
    reason = "a failing run is repeated from its seed"
)]
fn announce_seed(seed: u64) {
    eprintln!("MILLPOND_SEED={seed}");
}

fn sorted(mut events: Vec<String>) -> Vec<String> {
    events.sort_unstable();
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_cross_a_cluster_once_and_unchanged() -> Result<()> {
    let Some(on) = OnCluster::new("events_cross_a_cluster", &config::pipeline()).await? else {
        return Ok(());
    };
    on.deploy()?;
    on.pipeline.emit(6_000, 21)?;
    on.arrived(6_000).await?;
    on.down()?;
    assert_eq!(
        on.pipeline.read_all()?,
        sorted(on.pipeline.expected(6_000, 21)?)
    );
    // Deployed again it goes on where it was.
    on.pipeline.emit(2_000, 22)?;
    on.deploy()?;
    on.arrived(8_000).await?;
    on.down()?;
    let mut expected = on.pipeline.expected(6_000, 21)?;
    expected.extend(on.pipeline.expected(2_000, 22)?);
    assert_eq!(on.pipeline.read_all()?, sorted(expected));
    Ok(())
}
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_answers_lose_nothing() -> Result<()> {
    let text = config::pipeline().replacen(
        "  topic: events\n  version: 0.1.0\ntransforms",
        "  topic: events\n  version: 0.1.0\n  consumer:\n    max-bytes: 64 KiB\ntransforms",
        1,
    );
    ensure!(text.contains("max-bytes"));
    let Some(on) = OnCluster::new("small_answers", &text).await? else {
        return Ok(());
    };
    on.pipeline.emit(6_000, 23)?;
    on.deploy()?;
    on.arrived(6_000).await?;
    on.down()?;
    assert_eq!(
        on.pipeline.read_all()?,
        sorted(on.pipeline.expected(6_000, 23)?)
    );
    Ok(())
}

/// The dead-letter file of the sink, wherever `deploy` let it keep its state.
fn dead_letters(dir: &Path) -> Result<String> {
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.ends_with("dead-letters.jsonl") {
                return Ok(std::fs::read_to_string(path)?);
            }
        }
    }
    anyhow::bail!("no dead-letter file below {}", dir.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_costs_one_dead_letter() -> Result<()> {
    let Some(on) = OnCluster::new("poison", &config::pipeline()).await? else {
        return Ok(());
    };
    on.pipeline.emit(1_000, 24)?;
    on.pipeline.aws.put(EVENTS, "p", b"no json").await?;
    on.pipeline.emit(1_000, 25)?;
    on.deploy()?;
    on.arrived(2_000).await?;
    on.down()?;
    let letters = dead_letters(on.pipeline.dir())?;
    ensure!(letters.lines().count() == 1, "dead letters: {letters}");
    ensure!(letters.contains("job_id"), "without its reason: {letters}");
    let mut expected = on.pipeline.expected(1_000, 24)?;
    expected.extend(on.pipeline.expected(1_000, 25)?);
    assert_eq!(on.pipeline.read_all()?, sorted(expected));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_killed_nothing_is_lost_or_repeated() -> Result<()> {
    let Some(mut on) = OnCluster::new("whatever_is_killed", &config::pipeline()).await? else {
        return Ok(());
    };
    let seed = std::env::var("MILLPOND_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random::<u64>);
    announce_seed(seed);
    let mut random = StdRng::seed_from_u64(seed);
    on.deploy()?;
    let mut emitter = Running::start(&mut on.pipeline.command(&[
        "emit",
        "--stream",
        EVENTS,
        "--events",
        "20000",
        "--seed",
        "31",
        "--start",
        "1763886000000",
        "--rate",
        "1",
    ]))?;
    for _ in 0..6 {
        let before = on.events();
        let more = random.random_range(1..1500);
        eventually("progress before the kill", async || {
            Ok((on.events() >= (before + more).min(20_000)).then_some(()))
        })
        .await
        .with_context(|| on.logs())?;
        match random.random_range(0..4) {
            0 => on.kill("events-source")?,
            1 => on.kill("events-sink")?,
            2 => on.cluster.restart_spu().await?,
            _ => on.cluster.restart_sc().await?,
        }
        on.deploy()?;
    }
    let emitted = emitter.wait()?;
    ensure!(emitted.success(), "{}", emitter.rest().1);
    on.arrived(20_000).await?;
    on.down()?;
    assert_eq!(
        on.pipeline.read_all()?,
        sorted(on.pipeline.expected(20_000, 31)?)
    );
    Ok(())
}
