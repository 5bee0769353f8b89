//! Waiting between attempts, within a limit.

use std::time::Duration;

use millpond_connector::backoff::{Backoff, BackoffPolicy};
use tokio::time::{Instant, sleep};

use crate::limits::BACKOFF;

/// The attempts of one operation.
pub(crate) struct Retry {
    backoff: Backoff,
    deadline: Instant,
}

impl Retry {
    /// Attempts may begin until `patience` has passed.
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            backoff: Backoff::new(BackoffPolicy::endless(BACKOFF.0, BACKOFF.1)),
            deadline: Instant::now() + patience,
        }
    }

    /// Waits; false, at once, when the time is used up.
    pub(crate) async fn wait(&mut self) -> bool {
        let Some(wait) = self.backoff.next_wait(rand::random()) else {
            return false;
        };
        if Instant::now() + wait > self.deadline {
            return false;
        }
        sleep(wait).await;
        true
    }
}
