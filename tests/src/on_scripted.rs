//! Connectors as processes of their own on a scripted cluster, so that several of them can share a pipeline.

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use millpond::cluster::split::split;
use millpond_connector::meta::TopicSettings;
use millpond_connector_host::{DATA_DIR_VARIABLE, ENDPOINT_VARIABLE, METRICS_VARIABLE};
use millpond_fluvio_topic::{Cluster, ClusterSettings, smartmodule_name};
use rustix::process::Signal;
use serde_json::Value;

use crate::on_cluster::Binaries;
use crate::pipeline::{EVENTS, Pipeline};
use crate::process::{Running, command};
use crate::scripted_cluster::ScriptedCluster;
use crate::{PACK_WASM, eventually};

/// Stand-ins, a scripted cluster with the topic and the packer, and the documents of a pipeline.
pub struct OnScripted {
    /// Stand-ins, configuration and data.
    pub pipeline: Pipeline,
    /// The servers.
    pub servers: ScriptedCluster,
    binaries: Binaries,
}

/// A connector that runs.
pub struct Connector {
    /// The process.
    pub process: Running,
    socket: PathBuf,
}

impl OnScripted {
    /// Starts everything but the connectors. `config` is a source and a sink on topic `events`.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn new(binaries: Binaries, partitions: u32, config: &str) -> Result<Self> {
        let pipeline = Pipeline::new(binaries.millpond, 3, config).await?;
        let servers = ScriptedCluster::start().await?;
        let cluster = Cluster::connect(&ClusterSettings {
            endpoint: Some(servers.endpoint()),
            ..ClusterSettings::default()
        })
        .await?;
        let mut settings = TopicSettings::named(EVENTS.to_owned());
        settings.partitions = Some(partitions);
        cluster.create_topic(&settings).await?;
        let packer = smartmodule_name("millpond/pack@0.1.0");
        cluster.upload_smartmodule(&packer, PACK_WASM).await?;
        let documents = split(config);
        ensure!(documents.len() == 2, "a source and a sink");
        for (name, document) in ["source", "sink"].into_iter().zip(documents) {
            std::fs::write(pipeline.dir().join(format!("{name}.yaml")), document.text)?;
        }
        Ok(Self {
            pipeline,
            servers,
            binaries,
        })
    }

    /// Starts the source.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn source(&self) -> Result<Connector> {
        self.start(self.binaries.source, "source", "source")
    }

    /// Starts a sink whose state is kept under `name`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn sink(&self, name: &str) -> Result<Connector> {
        self.start(self.binaries.sink, "sink", name)
    }

    fn start(&self, binary: &str, document: &str, name: &str) -> Result<Connector> {
        let dir = self.pipeline.dir();
        let document = dir.join(format!("{document}.yaml"));
        let document = document.to_str().context("UTF-8 path")?;
        let socket = dir.join(format!("{name}.sock"));
        let mut command = command(binary, &["--config", document], &self.pipeline.environment);
        command
            .env(ENDPOINT_VARIABLE, self.servers.endpoint())
            .env(DATA_DIR_VARIABLE, dir.join(name))
            .env(METRICS_VARIABLE, &socket);
        Ok(Connector {
            process: Running::start(&mut command)?,
            socket,
        })
    }
}

impl Connector {
    /// Its metrics; `None` while it does not answer.
    #[must_use]
    pub fn metrics(&self) -> Option<Value> {
        let mut stream = UnixStream::connect(&self.socket).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let value: Value = serde_json::from_str(&text).ok()?;
        Some(value["millpond"].clone())
    }

    /// Topic partitions that it holds.
    #[must_use]
    pub fn held(&self) -> u64 {
        let metrics = self.metrics();
        metrics.map_or(0, |metrics| {
            metrics["partitions_held"].as_u64().unwrap_or(0)
        })
    }

    /// Drains it; answers what it logged.
    ///
    /// # Errors
    /// When it does not end, or not well.
    pub fn drain(mut self) -> Result<String> {
        self.process.signal(Signal::TERM)?;
        let status = self.process.wait()?;
        let (_, log) = self.process.rest();
        ensure!(status.success(), "{status}\n{log}");
        Ok(log)
    }

    /// Ends it without warning; answers what it logged.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(mut self) -> Result<String> {
        self.process.signal(Signal::KILL)?;
        self.process.wait()?;
        Ok(self.process.rest().1)
    }
}

/// Waits until these sinks hold so many partitions each, in any order.
///
/// # Errors
/// When they do not before the deadline.
pub async fn shared(sinks: &[&Connector], shares: &[u64]) -> Result<()> {
    eventually("balance", async || {
        let mut held: Vec<u64> = sinks.iter().map(|sink| sink.held()).collect();
        held.sort_unstable();
        Ok((held == shares).then_some(()))
    })
    .await
}
