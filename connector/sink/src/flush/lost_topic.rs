//! A partition of a topic that was made anew, or lost its end: the ledger goes on at its first record.

use millpond_connector::mutation::{self, Mutation};
use millpond_connector::topic::OffsetBounds;
use tokio::time::sleep;
use tracing::warn;

use super::Core;
use super::decide::may_remove;
use crate::contiguity::{ContiguityError, Jumps, cover, digest};
use crate::error::SinkError;
use crate::gaps::OnGap;
use crate::ledger::{Intent, LedgerError};
use crate::reading::Input;
use crate::store::TakeBack;

impl Core {
    /// Goes on at the first record of the topic, and ends a plan that was open.
    pub(super) async fn follow(
        &mut self,
        identity: Option<&str>,
        bounds: OffsetBounds,
    ) -> Result<(), SinkError> {
        let open = self.ledger.intent.as_ref();
        let is_undone = match open.filter(|intent| !intent.is_given_up()) {
            None => false,
            Some(open) => self.take_back(open).await?,
        };
        let step = self.ledger.follow(identity, bounds, is_undone);
        warn!(
            partition = self.partition,
            committed = self.ledger.committed,
            earliest = bounds.earliest,
            end = bounds.end,
            "the topic was made anew or lost its end: reads it from its first record on. What the table has is \
             dropped by origin; what the source does not send again (`checkpoint-after: topic`) is lost, and \
             shows as missing ordinals"
        );
        self.step(step).await
    }

    /// True where the records of an open plan are not those that it was made of. A topic without an identity can be
    /// lost and made anew unseen while the first plan of its records is open: nothing was released of it, so no source waits for
    /// its sinks. Records that are missing are no sign of that, only others in their place.
    pub(super) fn is_of_another_topic(&self, input: &Input) -> bool {
        let open = self.ledger.intent.as_ref();
        let known = self.ledger.log.identity.is_empty();
        let Some(digest_then) = open.and_then(|open| open.digest).filter(|_| known) else {
            return false;
        };
        let jumps = Jumps {
            filtered: may_remove(&self.shared.transforms, &input.entries),
            holes: &input.holes,
            pass: true,
        };
        match cover(&input.entries, input.from..input.to, jumps) {
            Ok(coverage) => coverage.gaps.is_empty() && digest(&coverage.units) != digest_then,
            // A plan ends where a stored batch does.
            Err(ContiguityError::Offset { expected, found }) => {
                found == input.to && expected > input.to
            }
            Err(_) => false,
        }
    }

    /// Takes an open plan back, once nothing of it can arrive any more; false where it stays as it is. Whoever wrote
    /// it may live: that this process has raised the epoch is all that is known. Nothing of the wait is kept, so whoever begins
    /// anew waits anew.
    async fn take_back(&self, open: &Intent) -> Result<bool, SinkError> {
        let partition = self.partition;
        let Intent { from, to, .. } = *open;
        let store = &self.shared.store;
        match (store.take_back(), self.shared.on_gap) {
            (TakeBack::Possible, _) => {}
            (TakeBack::Needless, _) => return Ok(true),
            (TakeBack::Impossible, OnGap::Record) => return Ok(false),
            (TakeBack::Impossible, OnGap::Halt) => {
                let source = LedgerError::NotTakenBack { from, to };
                return Err(SinkError::Ledger { partition, source });
            }
        }
        let wait = store.stale_writes().end();
        warn!(
            partition,
            from,
            to,
            seconds = wait.as_secs(),
            "a plan was being written when its topic was lost: waits until nothing that its writer sent can \
             arrive any more, then takes back what is there of it"
        );
        if !mutation::is(Mutation::UndoNotAwaited) {
            sleep(wait).await;
        }
        if !mutation::is(Mutation::UndoSkipped) {
            let undone = store.undo(partition, from..to).await;
            undone.map_err(|error| SinkError::of_store(partition, error))?;
        }
        Ok(true)
    }
}
