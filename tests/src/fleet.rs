//! Several sources that share the shards of one stream, and a sink, as processes on one cluster.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use millpond_connector::meta::TopicSettings;
use millpond_fluvio_topic::{Cluster, ClusterSettings, smartmodule_name};
use rustix::process::Signal;

use crate::on_cluster::Binaries;
use crate::pipeline::{EVENTS, Pipeline};
use crate::process::{Running, command};
use crate::{PACK_WASM, config, eventually, eventually_every};

/// Name of the lease table.
pub const LEASES: &str = "leases";

/// Stand-ins, a cluster that somebody else keeps, and what was started on it.
pub struct Fleet {
    /// Stand-ins and data.
    pub pipeline: Pipeline,
    binaries: Binaries,
    endpoint: String,
    started: Cell<u32>,
}

/// A source of a fleet.
pub struct Source {
    /// Its process.
    pub process: Running,
    /// Which folder it keeps its state in: a restart there is the same worker.
    pub place: u32,
}

impl Fleet {
    /// Starts the stand-ins, and makes the topic and the SmartModule on the cluster at `endpoint`.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn new(binaries: Binaries, endpoint: String, shards: i32) -> Result<Self> {
        let pipeline = Pipeline::new(binaries.millpond, shards, &config::pipeline()).await?;
        let settings = ClusterSettings {
            endpoint: Some(endpoint.clone()),
            ..ClusterSettings::default()
        };
        let cluster = Cluster::connect(&settings).await?;
        let mut topic = TopicSettings::named(EVENTS.to_owned());
        topic.partitions = Some(3);
        cluster.create_topic(&topic).await?;
        let module = smartmodule_name("millpond/pack@0.1.0");
        cluster.upload_smartmodule(&module, PACK_WASM).await?;
        Ok(Self {
            pipeline,
            binaries,
            endpoint,
            started: Cell::new(0),
        })
    }

    fn start(&self, binary: &str, place: &str, document: &str) -> Result<Running> {
        let dir = self.pipeline.dir().join(place);
        std::fs::create_dir_all(&dir)?;
        let file: PathBuf = dir.join("connector.yaml");
        std::fs::write(&file, document)?;
        let path = |path: PathBuf| path.display().to_string();
        let mut environment = self.pipeline.environment.clone();
        environment.extend(
            [
                ("MILLPOND_FLUVIO_ENDPOINT", self.endpoint.clone()),
                ("MILLPOND_DATA_DIR", path(dir.join("state"))),
                ("FLUVIO_METRIC_CONNECTOR", path(dir.join("metrics.sock"))),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        let config = path(file);
        Running::start(&mut command(binary, &["--config", &config], &environment))
    }

    fn documents(&self) -> Result<(String, String)> {
        let text = config::pipeline();
        let (source, sink) = text.split_once("---\n").context("two documents")?;
        let shared = format!("{source}  lease-table: {LEASES}\n  create-lease-table: true\n");
        Ok((shared, sink.to_owned()))
    }

    /// Starts one more source.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn source(&self) -> Result<Source> {
        let place = self.started.get();
        self.started.set(place + 1);
        self.source_at(place)
    }

    /// Starts a source again in the folder of an earlier one.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn source_at(&self, place: u32) -> Result<Source> {
        let (document, _) = self.documents()?;
        let folder = format!("source-{place}");
        let process = self.start(self.binaries.source, &folder, &document)?;
        Ok(Source { process, place })
    }

    /// Starts the sink.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn sink(&self) -> Result<Running> {
        let (_, document) = self.documents()?;
        self.start(self.binaries.sink, "sink", &document)
    }

    /// How many leases each worker holds, the most first.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn held(&self) -> Result<Vec<usize>> {
        let mut counts = std::collections::BTreeMap::new();
        for item in self.pipeline.aws.scan(LEASES).await.unwrap_or_default() {
            let owner = item.get("leaseOwner").and_then(|owner| owner.as_s().ok());
            if let Some(owner) = owner {
                *counts.entry(owner.clone()).or_insert(0) += 1;
            }
        }
        let mut counts: Vec<usize> = counts.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        Ok(counts)
    }

    /// Waits until the leases are held so.
    ///
    /// # Errors
    /// When they are not before the deadline.
    pub async fn shared_as(&self, wanted: &[usize]) -> Result<()> {
        eventually("shares of the leases", async || {
            Ok((self.held().await? == wanted).then_some(()))
        })
        .await
        .with_context(|| format!("wanted {wanted:?}"))
    }

    /// Waits until so many events are in the table.
    ///
    /// # Errors
    /// When they are not there before the deadline.
    pub async fn arrived(&self, events: u64) -> Result<()> {
        eventually_every(Duration::from_secs(1), "all events", async || {
            let groups = self.pipeline.groups().unwrap_or_default();
            Ok((groups.values().sum::<u64>() >= events).then_some(()))
        })
        .await
    }
}

/// Ends a connector as an operator does; it must drain and succeed.
///
/// # Errors
/// When it does not; shows its log.
pub fn drain(mut process: Running) -> Result<()> {
    process.signal(Signal::TERM)?;
    let status = process.wait()?;
    let (_, log) = process.rest();
    ensure!(status.success(), "{status}\n{log}");
    Ok(())
}
