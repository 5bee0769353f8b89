//! A pipeline whose connectors run as processes on a real cluster.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use millpond::cluster::cdk::PROGRAM_DIR_VARIABLE;
use millpond_fluvio_topic::testing::LocalCluster;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::eventually_every;
use crate::pipeline::Pipeline;
use crate::process;

/// The packages of the connectors: type and description.
pub const PACKAGES: [(&str, &str); 3] = [
    (
        "kinesis-source",
        include_str!("../../connector/kinesis-source/Connector.toml"),
    ),
    (
        "dynamodb-sink",
        include_str!("../../connector/dynamodb-sink/Connector.toml"),
    ),
    (
        "s3-sink",
        include_str!("../../connector/s3-sink/Connector.toml"),
    ),
];

/// Time between two looks at the table: each is a process, which the connectors would wait for.
pub const LOOK: Duration = Duration::from_millis(500);

/// What Fluvio programs are needed beside its servers.
pub const PROGRAMS: &[&str] = &["fluvio", "cdk"];

/// What cargo built: only tests and benchmarks are told where.
#[derive(Debug, Clone, Copy)]
pub struct Binaries {
    /// The command line tool.
    pub millpond: &'static str,
    /// The Kinesis source.
    pub source: &'static str,
    /// The DynamoDB sink.
    pub sink: &'static str,
    /// The S3 sink.
    pub s3_sink: &'static str,
}

/// The [`Binaries`] of this build.
#[macro_export]
macro_rules! binaries {
    () => {
        $crate::on_cluster::Binaries {
            millpond: env!("CARGO_BIN_EXE_millpond-under-test"),
            source: env!("CARGO_BIN_EXE_millpond-kinesis-source-under-test"),
            sink: env!("CARGO_BIN_EXE_millpond-dynamodb-sink-under-test"),
            s3_sink: env!("CARGO_BIN_EXE_millpond-s3-sink-under-test"),
        }
    };
}

/// Stand-ins, a cluster, and what `deploy` needs; what was deployed ends with it.
pub struct OnCluster {
    /// Stand-ins, configuration and data.
    pub pipeline: Pipeline,
    /// The servers.
    pub cluster: LocalCluster,
    bin: PathBuf,
    /// Which cluster: `--cluster HOST:PORT` unless a test says otherwise.
    place: Vec<String>,
}

impl OnCluster {
    /// Starts everything; `None`, announced, where Fluvio's programs are missing.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn new(binaries: Binaries, test: &str, config: &str) -> Result<Option<Self>> {
        if !LocalCluster::is_available_with(test, PROGRAMS) {
            return Ok(None);
        }
        Self::on(binaries, LocalCluster::start().await?, config)
            .await
            .map(Some)
    }

    /// The same on a cluster that was started.
    ///
    /// # Errors
    /// When the stand-ins do not start.
    pub async fn on(binaries: Binaries, cluster: LocalCluster, config: &str) -> Result<Self> {
        let bin = LocalCluster::bin_dir().context("the folder of Fluvio's programs")?;
        let pipeline = Pipeline::new(binaries.millpond, 3, &patient(config)).await?;
        let built = [binaries.source, binaries.sink, binaries.s3_sink];
        for ((type_name, description), binary) in PACKAGES.into_iter().zip(built) {
            let parts = pipeline.dir().join(type_name);
            std::fs::create_dir(&parts)?;
            std::fs::write(parts.join("Connector.toml"), description)?;
            std::os::unix::fs::symlink(binary, parts.join(format!("millpond-{type_name}")))?;
        }
        Ok(Self {
            place: vec!["--cluster".to_owned(), cluster.endpoint()],
            pipeline,
            cluster,
            bin,
        })
    }

    /// Has every command find the cluster by a profile of a file.
    pub fn use_profile(&mut self, file: &std::path::Path, profile: &str) {
        self.place = vec!["--profile".to_owned(), profile.to_owned()];
        let file = file.display().to_string();
        self.set("FLV_PROFILE_PATH", Some(&file));
    }

    /// Sets or removes a variable of every command, and so of what it starts.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        let environment = &mut self.pipeline.environment;
        environment.retain(|(known, _)| known != name);
        environment.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }

    /// Runs a `millpond` command on the cluster.
    ///
    /// # Errors
    /// When it does not end.
    pub fn millpond(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.pipeline.command(arguments);
        command
            .env(PROGRAM_DIR_VARIABLE, &self.bin)
            .env("TMPDIR", self.pipeline.dir());
        if arguments[0] != "down" {
            command.args(&self.place);
        }
        process::run(&mut command)
    }

    /// Runs `cdk` with the list of this pipeline.
    ///
    /// # Errors
    /// When it does not end.
    pub fn cdk(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(self.bin.join("cdk"));
        command
            .args(arguments)
            .current_dir(self.pipeline.dir())
            .env("TMPDIR", self.pipeline.dir());
        process::run(&mut command)
    }

    /// Runs `millpond deploy`.
    ///
    /// # Errors
    /// When it fails.
    pub fn deploy(&self) -> Result<()> {
        self.deploy_with(&[])
    }

    /// Runs `millpond deploy` with more arguments.
    ///
    /// # Errors
    /// When it fails.
    pub fn deploy_with(&self, more: &[&str]) -> Result<()> {
        let dirs = PACKAGES.map(|(type_name, _)| format!("--package-dir={type_name}"));
        let mut arguments = vec!["deploy"];
        arguments.extend(dirs.iter().map(String::as_str));
        arguments.extend(more);
        self.succeed(&arguments).map(drop)
    }

    /// Runs a `millpond` command that must succeed; answers its stdout.
    ///
    /// # Errors
    /// When it fails; with what the connectors logged.
    pub fn succeed(&self, arguments: &[&str]) -> Result<Vec<u8>> {
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

    /// What a connector has written since its last start.
    #[must_use]
    pub fn log(&self, connector: &str) -> String {
        let dir = self.pipeline.dir().join(".millpond/cluster");
        std::fs::read_to_string(dir.join(format!("{connector}.log"))).unwrap_or_default()
    }

    /// What all connectors have written since their last start.
    #[must_use]
    pub fn logs(&self) -> String {
        let dir = self.pipeline.dir().join(".millpond/cluster");
        let mut logs = String::new();
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|ending| ending == "log") {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                logs.push_str(&format!("{}:\n{text}\n", path.display()));
            }
        }
        logs
    }

    /// What `millpond status --json` says.
    ///
    /// # Errors
    /// When it fails.
    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_slice(
            &self.succeed(&["status", "--json"])?,
        )?)
    }

    /// Process of a connector, if it runs.
    ///
    /// # Errors
    /// When the status cannot be had.
    pub fn pid(&self, connector: &str) -> Result<Option<Pid>> {
        // Shown also where a server that is busy, or away, leaves something else unknown.
        let output = self.millpond(&["status", "--json"])?;
        let status: Value =
            serde_json::from_slice(&output.stdout).with_context(|| process::stderr(&output))?;
        let connectors = status["connectors"]
            .as_array()
            .context("connectors")?
            .clone();
        let found = connectors.iter().find(|one| one["name"] == connector);
        let pid = found.and_then(|one| one["pid"].as_i64());
        Ok(pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)))
    }

    /// Ends a connector without warning, if it runs.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&self, connector: &str) -> Result<()> {
        if let Some(pid) = self.pid(connector)? {
            kill_process(pid, Signal::KILL)?;
        }
        Ok(())
    }

    /// Events in the table.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.pipeline
            .groups()
            .map_or(0, |groups| groups.values().sum())
    }

    /// Waits until so many events are in the table.
    ///
    /// # Errors
    /// When they are not there before the deadline.
    pub async fn arrived(&self, events: u64) -> Result<()> {
        eventually_every(LOOK, "all events", async || {
            Ok((self.events() >= events).then_some(()))
        })
        .await
        .with_context(|| format!("{} of {events}\n{}", self.events(), self.logs()))
    }

    /// Runs `millpond down`.
    ///
    /// # Errors
    /// When it fails.
    pub fn down(&self) -> Result<()> {
        self.succeed(&["down"]).map(drop)
    }
}

impl Drop for OnCluster {
    fn drop(&mut self) {
        // Nothing that was started outlives what failed half way.
        let _ = self.millpond(&["down"]);
    }
}

/// A configuration with leases that last: real servers, connectors and stand-ins share a machine's few
/// cores, and an answer takes its time.
#[must_use]
pub fn patient(config: &str) -> String {
    config.replace(
        "  max-age: 500ms\n",
        "  max-age: 500ms\n  lease-duration: 20s\n",
    )
}

/// For comparisons in which the order of groups does not count.
#[must_use]
pub fn sorted(mut events: Vec<String>) -> Vec<String> {
    events.sort_unstable();
    events
}
