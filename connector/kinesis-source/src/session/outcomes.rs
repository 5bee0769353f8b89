//! What becomes of a session's tasks.

use std::ops::Range;
use std::sync::Arc;

use millpond_connector::backoff::Backoff;
use millpond_connector::mutation::{self, Mutation};
use millpond_connector::random;
use millpond_connector::topic::{Offset, PartitionId, StoredBatch, Topic, TopicError};
use tokio::task::JoinError;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{Done, LOCAL, Session};
use crate::checkpoint::CheckpointError;
use crate::error::SourceError;
use crate::lineage::ListingTicket;
use crate::listing::Listing;
use crate::shard::ShardId;
use crate::shard_table::WriteIf;

impl Session {
    pub(super) fn task_done(&mut self, done: Result<Done, JoinError>) {
        match done {
            Ok(Done::Appended(partition, Ok(offsets)))
                if self.is_stored_behind(partition, &offsets) =>
            {
                self.fail(SourceError::TopicAnew {
                    topic: self.parts.topic.name().to_owned(),
                    partition,
                    end: self.ends.get(&partition).copied().unwrap_or_default(),
                    found: offsets.start,
                    awaits_release: self.parts.awaits_release,
                });
            }
            Ok(Done::Appended(partition, Ok(offsets))) => {
                if !offsets.is_empty() {
                    self.ends.insert(partition, offsets.end);
                }
                self.append_backoffs.remove(&partition);
                self.stalls.answered(partition);
                let events = self.delivery.appended(partition, offsets.end);
                self.parts.metrics.topic_events.add(u64::from(events));
                self.topic_moved();
                self.note_progress();
            }
            Ok(Done::Appended(partition, Err(error))) => self.append_failed(partition, error),
            Ok(Done::AppendAgain(partition)) => self.delivery.append_failed(partition),
            Ok(Done::Listed(ticket, listing)) => self.listed(ticket, listing),
            Ok(Done::Saved(result)) => self.saved(result),
            Ok(Done::LossTold(id, index, told)) => self.loss_told(id, index, told),
            Ok(Done::UnseenTold(told)) => self.unseen_told(told),
            Ok(Done::Released(released)) => self.released(released),
            Ok(Done::Looked(look)) => self.looked(look),
            Ok(Done::Changed(changed)) => self.changed(changed),
            Ok(Done::Claimed(id, epoch, row)) => self.claimed(id, epoch, row),
            Err(error) if error.is_cancelled() => {}
            Err(error) => self.fail(SourceError::Task(error.to_string())),
        }
    }

    /// True for an append at offsets that the topic had given before: then whatever was released, or acknowledged,
    /// is of a log that is gone.
    fn is_stored_behind(&self, partition: PartitionId, offsets: &Range<Offset>) -> bool {
        let end = self.ends.get(&partition);
        !offsets.is_empty() && end.is_some_and(|end| offsets.start < *end)
    }

    pub(super) fn append_failed(&mut self, partition: PartitionId, error: TopicError) {
        if !matches!(
            error,
            TopicError::Storage {
                retryable: true,
                ..
            }
        ) {
            self.fail(error.into());
            return;
        }
        let backoff = self
            .append_backoffs
            .entry(partition)
            .or_insert_with(|| Backoff::new(LOCAL));
        let wait = backoff.next_wait(random::unit()).unwrap_or(LOCAL.cap);
        tracing::warn!(
            partition,
            attempt = backoff.attempts(),
            wait_ms = wait.as_millis() as u64,
            %error,
            "append to the topic failed, it will be repeated"
        );
        self.tasks.spawn(async move {
            tokio::time::sleep(wait).await;
            Done::AppendAgain(partition)
        });
    }

    pub(super) fn listed(&mut self, ticket: ListingTicket, listing: Result<Listing, SourceError>) {
        self.listing = false;
        match listing {
            Ok(listing) => {
                let vanished = self.roster.listed(ticket, &listing.shards, listing.pages);
                for id in vanished {
                    // Its reader finds out whether anything is missing.
                    tracing::debug!(shard = %id, "shard is no longer listed");
                }
                let unseen = self.roster.take_unseen();
                self.tell_unseen(unseen);
                self.judge_suspected(&listing);
                for index in std::mem::take(&mut self.endings.in_listing) {
                    self.finish(index, &[]);
                }
                self.recount = true;
            }
            Err(error) => self.fail(error),
        }
    }

    pub(super) fn saved(&mut self, result: Result<Vec<ShardId>, CheckpointError>) {
        let writes = self.saving.take().unwrap_or_default();
        match result {
            Ok(refused) => {
                self.save_backoff.reset();
                for (id, pin) in self.pins_in_save.drain(..) {
                    // A reader that is gone needs no answer, and one whose lease is gone gets none.
                    if !refused.contains(&id) {
                        let _ = pin.send(());
                    }
                }
                for write in &writes {
                    if let WriteIf::Held { epoch } = write.condition
                        && refused.contains(&write.shard)
                    {
                        self.refused(&write.shard, epoch);
                    }
                }
            }
            Err(error) => {
                let wait = self.save_backoff.next_wait(random::unit());
                let wait = wait.unwrap_or(LOCAL.cap);
                tracing::warn!(
                    attempt = self.save_backoff.attempts(),
                    wait_ms = wait.as_millis() as u64,
                    %error,
                    "checkpoint not saved, it will be repeated"
                );
                self.next_save = Instant::now() + wait;
                self.roster.put_back(&writes);
                self.pins.append(&mut self.pins_in_save);
            }
        }
    }

    pub(super) fn reader_done(
        &mut self,
        done: Result<(ShardId, Result<(), SourceError>), JoinError>,
    ) {
        match done {
            Ok((_, Ok(()))) => {}
            Ok((id, Err(SourceError::ShardGone { .. }))) => self.suspect(id),
            Ok((_, Err(error))) => self.fail(error),
            Err(error) if error.is_cancelled() => {}
            Err(error) => self.fail(SourceError::Task(error.to_string())),
        }
    }
}

pub(super) async fn append(
    topic: Arc<dyn Topic>,
    partition: PartitionId,
    batch: StoredBatch,
) -> Done {
    let span = tracing::debug_span!("append", partition, records = batch.record_count);
    let mut appended = topic.append(partition, batch).instrument(span).await;
    if mutation::is(Mutation::AppendErrorIgnored) {
        appended = appended.or(Ok(0..0));
    }
    Done::Appended(partition, appended)
}
