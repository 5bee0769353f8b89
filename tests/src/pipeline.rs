//! One pipeline under test: stand-ins, a stream, a configuration and a data directory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use millpond::verify::Verifier;
use millpond::workload::Workload;
use millpond_fault_proxy::{Plan, Proxy, Service};
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{self, Running, command};
use crate::stand_ins::StandIns;
use crate::{DEADLINE, config};

/// Name of stream, topic and table in the test configuration.
pub const EVENTS: &str = "events";

/// Time of the first event of a workload, milliseconds since the Unix epoch.
pub const START_MS: i64 = 1_763_886_000_000;

/// Jobs of a workload that run at once.
pub const JOBS: u32 = 20;

/// A pipeline under test.
#[derive(Debug)]
pub struct Pipeline {
    binary: &'static str,
    /// The stand-ins that it talks to.
    pub aws: StandIns,
    dir: TempDir,
    config: PathBuf,
    /// Environment of every command.
    pub environment: Vec<(String, String)>,
    /// Endpoints of `millpond run`, where they are not those of the environment.
    endpoints: Vec<(String, String)>,
}

impl Pipeline {
    /// Starts stand-ins, creates the stream, and writes `config`.
    ///
    /// # Errors
    /// When the stand-ins do not come up.
    pub async fn new(binary: &'static str, shards: i32, config: &str) -> Result<Self> {
        let aws = StandIns::start(binary).await?;
        aws.create_stream(EVENTS, shards).await?;
        let dir = TempDir::new()?;
        let environment = aws.environment.clone();
        Ok(Self {
            binary,
            aws,
            config: config::write(dir.path(), config)?,
            dir,
            environment,
            endpoints: Vec::new(),
        })
    }

    /// Directory of configuration and data.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Replaces the configuration.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_config(&self, text: &str) -> Result<()> {
        config::write(self.dir.path(), text).map(drop)
    }

    /// Puts a proxy between `millpond run` and a stand-in. All other commands, and the clients of
    /// the test, speak to the stand-in itself.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn proxy(&mut self, service: Service, plan: Plan) -> Result<Proxy> {
        let (name, url) = match service {
            Service::Kinesis => ("AWS_ENDPOINT_URL_KINESIS", self.aws.kinesis_url()),
            Service::DynamoDb => ("AWS_ENDPOINT_URL_DYNAMODB", self.aws.dynamodb_url()),
        };
        let proxy = Proxy::start(url.trim_start_matches("http://"), service, plan).await?;
        self.endpoints.retain(|(known, _)| known != name);
        self.endpoints.push((name.to_owned(), proxy.url()));
        Ok(proxy)
    }

    /// A `millpond` command in this environment.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = command(self.binary, arguments, &self.environment);
        command.current_dir(self.dir.path());
        command
    }

    /// The same, through the proxies of [`Pipeline::proxy`].
    #[must_use]
    pub fn command_by_proxy(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = self.command(arguments);
        let endpoints = self.endpoints.iter();
        command.envs(endpoints.map(|(name, value)| (name, value)));
        command
    }

    /// Runs a `millpond` command to its end.
    ///
    /// # Errors
    /// When it does not end.
    pub fn millpond(&self, arguments: &[&str]) -> Result<Output> {
        process::run(&mut self.command(arguments))
    }

    /// Runs a `millpond` command that must succeed, and answers its stdout.
    ///
    /// # Errors
    /// When it fails; shows its stderr.
    pub fn succeed(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let output = self.millpond(arguments)?;
        ensure!(
            output.status.success(),
            "millpond {arguments:?}: {}\n{}",
            output.status,
            process::stderr(&output)
        );
        Ok(output.stdout)
    }

    fn run_arguments(&self) -> Result<[&str; 3]> {
        let config = self.config.to_str().context("UTF-8 path")?;
        Ok(["run", config, "--data-dir=data"])
    }

    /// Starts `millpond run`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self) -> Result<Running> {
        Running::start(&mut self.command_by_proxy(&self.run_arguments()?))
    }

    /// Runs `millpond run --until-caught-up`.
    ///
    /// # Errors
    /// When it does not end.
    pub fn run(&self) -> Result<Output> {
        let mut arguments = self.run_arguments()?.to_vec();
        arguments.push("--until-caught-up");
        process::run(&mut self.command_by_proxy(&arguments))
    }

    /// Runs `millpond run --until-caught-up`, which must succeed; answers its stderr.
    ///
    /// # Errors
    /// When it fails; shows its stderr.
    pub fn catch_up(&self) -> Result<String> {
        let output = self.run()?;
        let log = process::stderr(&output);
        ensure!(output.status.success(), "{}\n{log}", output.status);
        Ok(log)
    }

    /// Emits events of the synthetic workload, from a fixed start time; answers their bytes.
    ///
    /// # Errors
    /// When the emitter fails.
    pub fn emit(&self, events: u64, seed: u64) -> Result<u64> {
        let [events, seed, start, jobs] = workload_arguments(events, seed);
        let said = self.succeed(&["emit", "--stream", EVENTS, &events, &seed, &start, &jobs])?;
        let summary: Value = serde_json::from_slice(&said)?;
        summary["bytes"].as_u64().context("bytes of the events")
    }

    /// Starts the same emission at a rate, megabytes (10^6 bytes) a second.
    ///
    /// # Errors
    /// When the emitter cannot be started.
    pub fn start_emit(&self, events: u64, seed: u64, rate: f64) -> Result<Running> {
        let [events, seed, start, jobs] = workload_arguments(events, seed);
        let rate = format!("--rate={rate}");
        let arguments = [
            "emit", "--stream", EVENTS, &events, &seed, &start, &jobs, &rate,
        ];
        Running::start(&mut self.command(&arguments))
    }

    /// The same events as [`Pipeline::emit`] puts, one per line.
    ///
    /// # Errors
    /// When the emitter fails.
    pub fn expected(&self, events: u64, seed: u64) -> Result<Vec<String>> {
        let file = self.dir.path().join("expected.ndjson");
        let path = file.to_str().context("UTF-8 path")?;
        let [events, seed, start, jobs] = workload_arguments(events, seed);
        self.succeed(&["emit", "--to-file", path, &events, &seed, &start, &jobs])?;
        let text = std::fs::read_to_string(&file)?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Groups with their event counts, as `millpond groups` lists them.
    ///
    /// # Errors
    /// When the command fails.
    pub fn groups(&self) -> Result<BTreeMap<String, u64>> {
        let listed = self.succeed(&["groups", "--table", EVENTS, "--json"])?;
        String::from_utf8(listed)?
            .lines()
            .map(|line| {
                let group: Value = serde_json::from_str(line)?;
                let name = group["group"].as_str().context("group name")?.to_owned();
                Ok((name, group["events"].as_u64().context("event count")?))
            })
            .collect()
    }

    /// Events of a group, as `millpond read` writes them.
    ///
    /// # Errors
    /// When the command fails.
    pub fn read(&self, group: &str) -> Result<Vec<String>> {
        let read = self.succeed(&["read", "--table", EVENTS, "--group", group])?;
        Ok(String::from_utf8(read)?
            .lines()
            .map(str::to_owned)
            .collect())
    }

    /// Events of all groups, sorted; counts must agree with `millpond groups`.
    ///
    /// # Errors
    /// When a command fails or the counts differ.
    pub fn read_all(&self) -> Result<Vec<String>> {
        let mut events = Vec::new();
        for (group, count) in self.groups()? {
            let read = self.read(&group)?;
            ensure!(
                read.len() as u64 == count,
                "group {group}: {count} listed, {} read",
                read.len()
            );
            events.extend(read);
        }
        events.sort_unstable();
        Ok(events)
    }

    /// Reads the table and checks that it holds the events of one [`Pipeline::emit`], each once,
    /// unchanged, in the group of its job and in the order of its partition key.
    ///
    /// # Errors
    /// With the counts, when it does not.
    pub fn verify(&self, events: u64, seed: u64) -> Result<()> {
        let mut verifier = Verifier::new(Workload::new(seed, START_MS, JOBS), events);
        for group in self.groups()?.into_keys() {
            verifier.next_group(&group);
            for event in self.read(&group)? {
                verifier.take(event.as_bytes());
            }
        }
        let counts = verifier.finish();
        ensure!(counts.is_exact(), "{counts:?}");
        Ok(())
    }

    /// Waits until the table holds an item of some chain.
    ///
    /// # Errors
    /// When there is none before the deadline.
    pub async fn first_item(&self) -> Result<()> {
        crate::eventually("first item", async || {
            let Ok(items) = self.aws.scan(EVENTS).await else {
                return Ok(None);
            };
            Ok(items
                .iter()
                .any(|item| item.contains_key("d"))
                .then_some(()))
        })
        .await
        .with_context(|| format!("within {DEADLINE:?}"))
    }
}

/// What makes `emit` make the same events every time.
#[must_use]
pub fn workload_arguments(events: u64, seed: u64) -> [String; 4] {
    [
        format!("--events={events}"),
        format!("--seed={seed}"),
        format!("--start={START_MS}"),
        format!("--jobs={JOBS}"),
    ]
}
