//! What a place to write to must be able to do.
//!
//! The sink asks for three things, and builds everything else on them: a *ledger* that changes only
//! by compare-and-set, one row per topic partition; *plans* that can be written any number of times
//! with the same result; and a registration that tells two pipelines apart. Where several sinks are
//! to share the topic partitions, it has a place for *leases* too. Retries of calls that
//! may succeed later belong into the store: what it answers here is final.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use millpond_connector::metrics::Metrics;
use millpond_connector::topic::{Offset, PartitionId};
use millpond_format::gap::Gap;
use millpond_leases::LeaseStore;

use crate::claim::{Claim, Holder, StaleWrites};
use crate::dead_letters::{DeadLetter, Payload};
use crate::dedup::{Admitted, Workbench};
use crate::gaps::PlanGaps;
use crate::ledger::LedgerRow;
use crate::registration::Registration;

/// Why a store says no for good.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No plan can be made of these entries; other topic partitions go on.
    #[error(transparent)]
    Plan(Box<dyn std::error::Error + Send + Sync>),
    /// The store itself refuses; the sink ends.
    #[error(transparent)]
    Refused(Box<dyn std::error::Error + Send + Sync>),
}

/// Whose rows these are, and where their counters go.
#[derive(Debug, Clone)]
pub struct Place {
    /// Pipeline name: sets its rows apart from those of others in the same store.
    pub pipeline: String,
    /// Topic name.
    pub topic: String,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// What can be done about a plan that was begun and will never be finished, because its topic is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeBack {
    /// Nothing: what of it is in the store is not known.
    Impossible,
    /// Nothing need be done: names and content follow from the events alone, so that those which come again
    /// replace themselves.
    Needless,
    /// What was written of it can be found and removed.
    Possible,
}

/// Longest life of a signature, of a store that does not say.
const SIGNATURE_LIFE: Duration = Duration::from_secs(15 * 60);

/// A store that is not open yet.
#[async_trait]
pub trait OpenStore: Send {
    /// Makes and checks what must exist, and opens it for one pipeline.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be used as it is.
    async fn open(self: Box<Self>, place: Place) -> Result<Arc<dyn Store>, StoreError>;
}

/// Where a pipeline's events go, and the ledger that says how far they are there.
#[async_trait]
pub trait Store: Send + Sync {
    /// Names it in messages, for example "table `events`".
    fn name(&self) -> String;

    /// Puts the registration if the pipeline has none; answers the one that was there.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn register(
        &self,
        registration: &Registration,
    ) -> Result<Option<Registration>, StoreError>;

    /// Registrations of all pipelines in the store by name, so that one which was renamed by
    /// mistake is recognised. A store that answers none recognises none.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn pipelines(&self) -> Result<Vec<(String, Registration)>, StoreError> {
        Ok(Vec::new())
    }

    /// Keeps a configuration under its fingerprint for as long as a plan begun with it may be
    /// open. In a store that does not, such a plan can only be finished with the same configuration.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn keep_configuration(&self, _fingerprint: &str, _text: &str) -> Result<(), StoreError> {
        Ok(())
    }

    /// The configuration that was kept under a fingerprint.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn configuration(&self, _fingerprint: &str) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    /// The ledger row of a topic partition, strongly consistent.
    ///
    /// # Errors
    /// [`StoreError`], also for a row that this version does not understand.
    async fn ledger(&self, partition: PartitionId) -> Result<Option<LedgerRow>, StoreError>;

    /// Replaces the row `seen` (`None`: there is none) by `row`, in one step that no other writer
    /// can come between (I11); epoch and plan number tell rows apart. False when another row is
    /// there, which may be `row` itself if an earlier try took effect and its answer was lost.
    ///
    /// # Errors
    /// [`StoreError`]; the row may have been replaced.
    async fn put_ledger(
        &self,
        partition: PartitionId,
        row: &LedgerRow,
        seen: Option<&LedgerRow>,
    ) -> Result<bool, StoreError>;

    /// Whose the ledger row is, strongly consistent; `None` when there is none.
    ///
    /// # Errors
    /// As [`Store::ledger`].
    async fn holder(&self, partition: PartitionId) -> Result<Option<Holder>, StoreError> {
        let row = self.ledger(partition).await?;
        Ok(row.as_ref().map(Holder::from))
    }

    /// When what a process sent that lost its topic partition has an end.
    fn stale_writes(&self) -> StaleWrites {
        StaleWrites::signed(SIGNATURE_LIFE)
    }

    /// A writer of plans for a topic partition that has been claimed.
    fn writer(&self, partition: PartitionId) -> Box<dyn PlanWriter>;

    /// A writer that does as one with other settings did, those of
    /// [`SinkSettings::fingerprint`](crate::sink::SinkSettings::fingerprint) of then; `None` when it cannot.
    fn writer_as(
        &self,
        _partition: PartitionId,
        _settings: &[String],
    ) -> Option<Box<dyn PlanWriter>> {
        None
    }

    /// What can be done about a plan whose topic is lost.
    fn take_back(&self) -> TakeBack {
        TakeBack::Impossible
    }

    /// Takes back what the plan of these offsets wrote, where [`Store::take_back`] says that it can: nothing is
    /// in the store then that comes from them, but for dead letters. Behind them may be what the next owner wrote
    /// meanwhile. May be called again.
    ///
    /// # Errors
    /// [`StoreError`]; some of it may be taken back.
    async fn undo(
        &self,
        _partition: PartitionId,
        _offsets: Range<Offset>,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    /// Keeps gaps for good; those that are there already change nothing. Without a place of
    /// their own they are put among the dead letters, each an entry without an event ([`gap_letters`]).
    ///
    /// # Errors
    /// [`StoreError`].
    async fn put_gaps(&self, of: PlanGaps<'_>) -> Result<(), StoreError> {
        self.put_dead_letters(&gap_letters(of)).await
    }

    /// All gaps of a topic partition that were kept, strongly consistent, with the first offset of the plan that passed
    /// over each, by that and in their order.
    ///
    /// # Errors
    /// [`StoreError`], also for a gap that this version does not understand.
    async fn gaps(&self, partition: PartitionId) -> Result<Vec<(Offset, Gap)>, StoreError>;

    /// Puts dead letters away durably; those with ids that are there already change nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn put_dead_letters(&self, letters: &[DeadLetter]) -> Result<(), StoreError>;

    /// Where sinks of this pipeline lease the topic partitions from each other; with `None`, the
    /// default, one sink runs them all.
    fn leases(&self) -> Option<Arc<dyn LeaseStore>> {
        None
    }

    /// This process holds `held` of all the `all` topic partitions from now on. A store whose capacity is shared
    /// uses that part of it. It is said before a partition is given back, and before one that was taken is
    /// begun, so the parts of all processes are never more than the whole.
    fn hold(&self, _held: usize, _all: usize) {}
}

/// What a plan is made of.
pub struct PlanInput<'a> {
    /// First topic offset.
    pub from: Offset,
    /// Last topic offset, exclusive.
    pub to: Offset,
    /// What is to be written, in the order of the topic; nothing in it was delivered before.
    pub entries: &'a [Admitted<'a>],
    /// No plan of this pipeline came before: there is nothing in the store to continue.
    pub is_first: bool,
    /// A plan that is open and made again: what [`PlanWriter::note`] said when it was begun.
    pub note: Option<&'a str>,
    /// Decoder and packer, for entries that must be taken apart.
    pub tools: &'a mut Workbench,
}

/// Writes the plans of one topic partition, one after the other.
///
/// Planning and writing are two calls because the ledger records the intent between them: what
/// cannot be planned must not leave an intent open that nobody could ever finish.
#[async_trait]
pub trait PlanWriter: Send + Sync {
    /// Makes the plan of `input` and keeps it, in place of one that was kept; writes nothing.
    ///
    /// A pure function of the input, the configuration and what the store holds from before
    /// `input.from`: after a crash the same call makes the same names and bytes (I2).
    ///
    /// # Errors
    /// [`StoreError`].
    async fn plan(&mut self, input: PlanInput<'_>) -> Result<(), StoreError>;

    /// What of the plan that is kept follows neither from its input nor from the configuration, such as what the
    /// store's load suggested: it is recorded in the intent, and given back to [`PlanWriter::plan`] when the
    /// plan is made again. Short, without `/`.
    fn note(&self) -> String {
        String::new()
    }

    /// Writes the plan that is kept. Answers what cannot be written, for the dead-letter queue.
    /// To be repeatable: a stale owner, or a replay, writes the same bytes under the same names.
    ///
    /// A store that can take plans back asks `claim` before each request, every try of it, and sends none when
    /// it does not stand.
    ///
    /// # Errors
    /// [`StoreError`]; some of the plan may be written.
    async fn write(&mut self, claim: &Arc<Claim>) -> Result<Vec<DeadLetter>, StoreError>;
}

/// Gaps as dead letters.
#[must_use]
pub fn gap_letters(of: PlanGaps<'_>) -> Vec<DeadLetter> {
    let PlanGaps {
        pipeline,
        topic,
        partition,
        from,
        first_index,
        gaps,
    } = of;
    let letter = |(index, gap): (usize, &Gap)| DeadLetter {
        id: format!("{pipeline}/{topic}/{partition}/{from}/{index}/gap"),
        offset: from,
        time_ms: 0,
        reason: "gap".into(),
        detail: gap.text(),
        group: None,
        record_key: None,
        payload: Payload::Raw(bytes::Bytes::new()),
    };
    (first_index..).zip(gaps).map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_without_a_place_for_gaps_has_them_among_its_dead_letters() {
        let gaps = [
            Gap::Offsets { from: 3, to: 9 },
            Gap::Plan { from: 9, to: 12 },
        ];
        let letters = gap_letters(PlanGaps {
            pipeline: "p",
            topic: "t",
            partition: 2,
            from: 3,
            first_index: 0,
            gaps: &gaps,
        });
        let said: Vec<_> = letters
            .iter()
            .map(|letter| (letter.id.as_str(), letter.detail.as_str()))
            .collect();
        assert_eq!(
            said,
            [
                ("p/t/2/3/0/gap", "offsets/3/9"),
                ("p/t/2/3/1/gap", "plan/9/12")
            ]
        );
        assert!(letters.iter().all(|letter| letter.reason == "gap"));
    }
}
