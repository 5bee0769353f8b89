//! The part of a session that lets the checkpoint follow what the topic's consumers have in safety.

use std::time::Duration;

use millpond_connector::topic::{Offset, PartitionId, TopicError};
use tokio::time::Instant;

use super::{Done, Session};
use crate::limits::RELEASE_INTERVAL;

/// When the topic is asked next; nothing, where the checkpoint follows the topic itself.
pub(super) struct Releases {
    next: Option<Instant>,
    is_asking: bool,
    failures: u32,
}

impl Releases {
    pub(super) fn new(are_awaited: bool, now: Instant) -> Self {
        Self {
            next: are_awaited.then_some(now),
            is_asking: false,
            failures: 0,
        }
    }

    /// When something is to be done, should anything wait.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next.filter(|_| !self.is_asking)
    }
}

impl Session {
    /// Asks the topic how far its consumers are.
    pub(super) fn ask_released(&mut self, now: Instant) {
        let is_due = self.releases.next().is_some_and(|next| now >= next);
        if !is_due || !self.delivery.awaits() {
            return;
        }
        self.releases.is_asking = true;
        let topic = self.parts.topic.clone();
        self.tasks
            .spawn(async move { Done::Released(topic.released().await) });
    }

    pub(super) fn released(&mut self, released: Result<Vec<Option<Offset>>, TopicError>) {
        self.releases.is_asking = false;
        match released {
            Ok(offsets) => {
                self.releases.failures = 0;
                self.releases.next = Some(Instant::now() + RELEASE_INTERVAL);
                for (partition, offset) in (0..).zip(offsets) {
                    if let Some(offset) = offset {
                        self.delivery.released(partition as PartitionId, offset);
                    }
                }
                self.note_progress();
            }
            Err(error) => {
                // The checkpoint stays; nothing is lost by waiting.
                self.releases.failures = self.releases.failures.saturating_add(1);
                let wait = RELEASE_INTERVAL * self.releases.failures.min(30);
                self.releases.next = Some(Instant::now() + wait.max(Duration::from_secs(1)));
                tracing::warn!(%error, "the topic does not say how far its consumers are, it will be asked again");
            }
        }
    }
}
