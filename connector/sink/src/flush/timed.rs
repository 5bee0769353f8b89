//! How long something took, for a counter.

use std::sync::Arc;

use millpond_connector::metrics::{Counter, Metrics};
use tokio::time::Instant;

/// Adds the time until it is dropped to a counter.
pub(super) struct Timed {
    metrics: Arc<Metrics>,
    counter: fn(&Metrics) -> &Counter,
    began: Instant,
}

impl Timed {
    pub(super) fn new(metrics: &Arc<Metrics>, counter: fn(&Metrics) -> &Counter) -> Self {
        Self {
            metrics: metrics.clone(),
            counter,
            began: Instant::now(),
        }
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        let micros = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        (self.counter)(&self.metrics).add(micros);
    }
}
