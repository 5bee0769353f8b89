//! A topic in memory, a stream over the pure model, and what both must agree on.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod admin;
pub mod fan_out;
pub mod log;
pub mod service;
pub mod stream;
pub mod topic;
pub mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use millpond_connector::connector::{ConnectorContext, Source};
use millpond_connector::metrics::Metrics;
use millpond_format::origin::Origin;
use millpond_format::stream_gap::StreamGap;
use millpond_kinesis_source::KinesisSource;
use millpond_kinesis_source::checkpoint::CheckpointStore;
use millpond_kinesis_source::client::StreamApi;
use millpond_kinesis_source::config::SourceConfig;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use self::topic::MemoryTopic;

/// A running source.
pub struct Running {
    pub task: JoinHandle<anyhow::Result<()>>,
    pub drain: CancellationToken,
    pub metrics: Arc<Metrics>,
}

pub fn context(topic: &Arc<MemoryTopic>) -> ConnectorContext {
    ConnectorContext {
        name: "source".to_owned(),
        topic: topic.clone(),
        data_dir: "/nonexistent".into(),
        drain: CancellationToken::new(),
        metrics: Arc::new(Metrics::default()),
    }
}

pub fn spawn(source: Box<dyn Source>, context: ConnectorContext) -> Running {
    let (drain, metrics) = (context.drain.clone(), context.metrics.clone());
    Running {
        task: tokio::spawn(source.run(context)),
        drain,
        metrics,
    }
}

pub fn start(
    api: Arc<dyn StreamApi>,
    config: SourceConfig,
    store: &Arc<dyn CheckpointStore>,
    topic: &Arc<MemoryTopic>,
) -> Running {
    let source = KinesisSource::new(api, config, store.clone());
    spawn(Box::new(source), context(topic))
}

impl Running {
    pub fn is_caught_up(&self) -> bool {
        self.metrics.caught_up.load(Ordering::Acquire) == 1
    }

    pub async fn caught_up(&self) {
        until("caught up", || {
            self.is_caught_up() || self.task.is_finished()
        })
        .await;
        assert!(self.is_caught_up(), "source ended before it was caught up");
    }

    pub async fn drained(self) {
        self.drain.cancel();
        self.task.await.expect("no panic").expect("drained");
    }

    /// As `kill -9`: nothing is brought to safety.
    pub async fn killed(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    pub async fn failed(self) -> String {
        let error = self.task.await.expect("no panic").expect_err("must fail");
        format!("{error:#}")
    }
}

/// Polls a condition; with a stopped clock the deadline is one of simulated time.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    eventually(what, || std::future::ready(condition())).await;
}

/// The same of a condition that somebody has to be asked for.
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Checks the whole topic against what was put: nothing lost, nothing changed, every repetition with the origin
/// of the first time, each key in order, each chain without a hole, no child before its parents.
///
/// `put` maps each partition key to its events in order. Answers how many repetitions there were.
pub fn check(
    topic: &MemoryTopic,
    put: &BTreeMap<String, Vec<Vec<u8>>>,
    parents: &BTreeMap<String, Vec<String>>,
) -> usize {
    let mut origins: BTreeMap<(String, String, u32), String> = BTreeMap::new();
    let mut events: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    let mut next: BTreeMap<(String, u32, u64), u64> = BTreeMap::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut children: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for (child, parents) in parents {
        for parent in parents {
            children.entry(parent).or_default().push(child);
        }
    }
    let mut repeated = 0;
    for (at, partition, key, value) in topic.records() {
        if topic::is_letter(&key) || StreamGap::parse(key.as_bytes()).is_some() {
            continue;
        }
        let origin = Origin::parse(key.as_bytes()).expect("an origin");
        let sequence = origin.sequence.as_str().to_owned();
        let position = (origin.shard.to_owned(), sequence, origin.sub_sequence);
        let chain = (origin.shard.to_owned(), partition, origin.chain.epoch);
        let expected = next.entry(chain).or_default();
        assert!(
            origin.chain.ordinal <= *expected,
            "hole before `{key}` (record {at})"
        );
        *expected = (*expected).max(origin.chain.ordinal + 1);
        if let Some(first) = origins.get(&position) {
            assert_eq!(*first, key, "repeated under another origin");
            repeated += 1;
            continue;
        }
        for child in children.get(origin.shard).into_iter().flatten() {
            assert!(
                !seen.contains(*child),
                "event of `{}` after one of its child `{child}`",
                origin.shard
            );
        }
        seen.insert(origin.shard.to_owned());
        origins.insert(position, key.clone());
        events
            .entry(origin.partition_key.to_owned())
            .or_default()
            .push(value);
    }
    for (key, expected) in put {
        let found = events.get(key).map_or(&[][..], Vec::as_slice);
        assert_eq!(found.len(), expected.len(), "events of `{key}`");
        for (n, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!(
                found == expected,
                "event {n} of `{key}` is changed or out of order"
            );
        }
    }
    let expected: usize = put.values().map(Vec::len).sum();
    assert_eq!(origins.len(), expected, "events in all");
    repeated
}
