//! The calls that change a stream, over the pure model, with faults on demand.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use millpond_kinesis_local::model::{StreamMode, StreamStatus};
use millpond_kinesis_source::admin::{StreamAdmin, StreamShape};
use millpond_kinesis_source::classify::Failure;
use millpond_kinesis_source::retention_guard::GuardAction;
use tokio::time::Instant;

use super::stream::{ModelStream, refused};

pub struct ModelAdmin {
    stream: Arc<ModelStream>,
    /// Failures to come of the calls that change something.
    pub faults: Mutex<VecDeque<Failure>>,
    /// When such a call was made.
    pub calls: Mutex<Vec<Instant>>,
}

impl ModelAdmin {
    pub fn new(stream: &Arc<ModelStream>) -> Arc<Self> {
        Arc::new(Self {
            stream: stream.clone(),
            faults: Mutex::default(),
            calls: Mutex::default(),
        })
    }

    pub fn fail(&self, failures: Vec<Failure>) {
        let mut faults = self.faults.lock().expect("not poisoned");
        faults.extend(failures);
    }

    /// Calls made so far, and the time between each two.
    pub fn waits(&self) -> Vec<u64> {
        let calls = self.calls.lock().expect("not poisoned");
        let pairs = calls.windows(2);
        pairs.map(|pair| (pair[1] - pair[0]).as_secs()).collect()
    }

    fn called(&self) -> Result<(), Failure> {
        let mut calls = self.calls.lock().expect("not poisoned");
        calls.push(Instant::now());
        let mut faults = self.faults.lock().expect("not poisoned");
        faults.pop_front().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl StreamAdmin for ModelAdmin {
    async fn shape(&self) -> Result<StreamShape, Failure> {
        let summary = self
            .stream
            .ask(|model, now| model.describe_stream_summary(now, "events"));
        let summary = summary.map_err(refused)?;
        Ok(StreamShape {
            retention_hours: summary.retention_hours,
            open_shards: summary.open_shard_count as u32,
            is_provisioned: summary.mode == StreamMode::Provisioned,
            is_active: summary.status == StreamStatus::Active,
        })
    }

    async fn change_retention(&self, action: GuardAction) -> Result<(), Failure> {
        self.called()?;
        let changed = self.stream.with_model(|model, now| match action {
            GuardAction::Extend(hours) => model.increase_retention(now, "events", hours),
            GuardAction::GiveBack(hours) => model.decrease_retention(now, "events", hours),
        });
        changed.map_err(refused)
    }

    async fn change_shard_count(&self, count: u32) -> Result<(), Failure> {
        self.called()?;
        let changed = self
            .stream
            .with_model(|model, now| model.update_shard_count(now, "events", count));
        changed.map(drop).map_err(refused)
    }
}
