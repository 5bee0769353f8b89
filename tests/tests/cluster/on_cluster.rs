//! A pipeline whose connectors run as processes on a real cluster.

use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use millpond::cluster::cdk::PROGRAM_DIR_VARIABLE;
use millpond_fluvio_topic::testing::LocalCluster;
use millpond_tests::eventually;
use millpond_tests::pipeline::Pipeline;
use millpond_tests::process;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{CONNECTORS, MILLPOND, PROGRAMS};

/// Stand-ins, a cluster, and what `deploy` needs; what was deployed ends with it.
pub struct OnCluster {
    pub pipeline: Pipeline,
    pub cluster: LocalCluster,
    bin: PathBuf,
    /// Which cluster: `--cluster HOST:PORT` unless a test says otherwise.
    place: Vec<String>,
}

impl OnCluster {
    /// Starts everything; `None`, announced, where Fluvio's programs are missing.
    pub async fn new(test: &str, config: &str) -> Result<Option<Self>> {
        if !LocalCluster::is_available_with(test, PROGRAMS) {
            return Ok(None);
        }
        Self::on(LocalCluster::start().await?, config)
            .await
            .map(Some)
    }

    /// The same on a cluster that was started.
    pub async fn on(cluster: LocalCluster, config: &str) -> Result<Self> {
        let bin = LocalCluster::bin_dir().context("the folder of Fluvio's programs")?;
        let pipeline = Pipeline::new(MILLPOND, 3, config).await?;
        for (type_name, description, binary) in CONNECTORS {
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
    pub fn cdk(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(self.bin.join("cdk"));
        command
            .args(arguments)
            .current_dir(self.pipeline.dir())
            .env("TMPDIR", self.pipeline.dir());
        process::run(&mut command)
    }

    pub fn deploy(&self) -> Result<()> {
        self.deploy_with(&[])
    }

    pub fn deploy_with(&self, more: &[&str]) -> Result<()> {
        let mut arguments = vec![
            "deploy",
            "--package-dir=kinesis-source",
            "--package-dir=dynamodb-sink",
        ];
        arguments.extend(more);
        self.succeed(&arguments).map(drop)
    }

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
    pub fn log(&self, connector: &str) -> String {
        let dir = self.pipeline.dir().join(".millpond/cluster");
        std::fs::read_to_string(dir.join(format!("{connector}.log"))).unwrap_or_default()
    }

    pub fn logs(&self) -> String {
        let (source, sink) = (self.log("events-source"), self.log("events-sink"));
        format!("source:\n{source}\nsink:\n{sink}")
    }

    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_slice(
            &self.succeed(&["status", "--json"])?,
        )?)
    }

    pub fn pid(&self, connector: &str) -> Result<Option<Pid>> {
        let status = self.status()?;
        let connectors = status["connectors"]
            .as_array()
            .context("connectors")?
            .clone();
        let found = connectors.iter().find(|one| one["name"] == connector);
        let pid = found.and_then(|one| one["pid"].as_i64());
        Ok(pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)))
    }

    pub fn kill(&self, connector: &str) -> Result<()> {
        if let Some(pid) = self.pid(connector)? {
            kill_process(pid, Signal::KILL)?;
        }
        Ok(())
    }

    /// Events in the table.
    pub fn events(&self) -> u64 {
        self.pipeline
            .groups()
            .map_or(0, |groups| groups.values().sum())
    }

    pub async fn arrived(&self, events: u64) -> Result<()> {
        eventually("all events", async || {
            Ok((self.events() >= events).then_some(()))
        })
        .await
        .with_context(|| format!("{} of {events}\n{}", self.events(), self.logs()))
    }

    pub fn down(&self) -> Result<()> {
        self.succeed(&["down"]).map(drop)
    }
}

impl Drop for OnCluster {
    fn drop(&mut self) {
        // Nothing that was started outlives a test that failed half way.
        let _ = self.millpond(&["down"]);
    }
}

pub fn sorted(mut events: Vec<String>) -> Vec<String> {
    events.sort_unstable();
    events
}
