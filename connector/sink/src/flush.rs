//! One topic partition's place in the ledger, and the steps that move it: plan, intent, write.

use std::sync::Arc;

use millpond_connector::metrics::Metrics;
use millpond_connector::mutation::{self, Mutation};
use millpond_connector::topic::{Offset, PartitionId, Topic, Transform};
use tracing::{info, warn};

use crate::contiguity::{Coverage, Entry, filtered_units, units};
use crate::dedup::{Admission, DedupError, Outcome, Workbench, admit};
use crate::error::SinkError;
use crate::ledger::{Done, LedgerError, LedgerRow, Resume, Step};
use crate::letter_queue::DeadLetters;
use crate::marks::Marks;
use crate::origins::Cutoffs;
use crate::partition::{Input, Reading};
use crate::placement::is_packer;
use crate::store::{PlanInput, PlanWriter, Store};

/// What the topic partitions of a sink share.
pub struct Shared {
    /// Where events and ledger are.
    pub store: Arc<dyn Store>,
    /// The topic.
    pub topic: Arc<dyn Topic>,
    /// Transform chain.
    pub transforms: Vec<Transform>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where dead letters go.
    pub dead_letters: DeadLetters,
    /// Pipeline name; also the name under which topic offsets are released.
    pub pipeline: String,
    /// Longest wait of data for its plan.
    pub max_age: std::time::Duration,
    /// Buffered packed bytes of one topic partition that make a plan.
    pub plan_bytes: usize,
    /// Names this process in the ledger.
    pub owner: String,
    /// Names the configuration in the ledger.
    pub fingerprint: String,
}

/// One topic partition's place in the ledger.
pub struct Core {
    shared: Arc<Shared>,
    partition: PartitionId,
    ledger: LedgerRow,
    done: Option<Done>,
    writer: Box<dyn PlanWriter>,
}

impl Core {
    /// Takes the partition, and finishes the plan that its last owner left open.
    ///
    /// # Errors
    /// [`SinkError`] when the ledger, the topic or the store does not allow it.
    pub async fn claim(shared: Arc<Shared>, partition: PartitionId) -> Result<Self, SinkError> {
        let bounds = Reading::new(shared.clone(), partition, 0).bounds().await?;
        let ledger_error = |source| SinkError::Ledger { partition, source };
        let mut core = Self {
            partition,
            ledger: LedgerRow::claim(None, &shared.owner, bounds.earliest).row,
            writer: shared.store.writer(partition),
            shared,
            done: None,
        };
        // The owner before may be writing still: then the row moves between our read and our
        // write, and the claim is made again. The last one to claim has the partition.
        loop {
            let found = core.ledger_row().await?;
            let step = LedgerRow::claim(found.as_ref(), &core.shared.owner, bounds.earliest);
            match core.step(step).await {
                Err(SinkError::Ledger {
                    source: LedgerError::Fenced { owner, .. },
                    ..
                }) => {
                    warn!(
                        partition,
                        owner, "another process holds this partition, takes it over"
                    );
                }
                Err(SinkError::Ledger {
                    source: LedgerError::Changed,
                    ..
                }) => {}
                other => break other?,
            }
        }
        // The owner before may have read further than the topic went at our first look.
        let bounds = Reading::new(core.shared.clone(), partition, 0)
            .bounds()
            .await?;
        let resume = core.ledger.resume(&core.shared.fingerprint, bounds);
        let resume = resume.map_err(ledger_error)?;
        core.release().await;
        match resume {
            Resume::Read { from } => {
                info!(
                    partition,
                    offset = from,
                    epoch = core.ledger.epoch,
                    "goes on"
                );
            }
            Resume::Replay { from, to } => {
                info!(
                    partition,
                    from,
                    to,
                    epoch = core.ledger.epoch,
                    "writes an open plan again"
                );
                let entries = core.read_again(from, to).await?;
                core.flush(Input { from, to, entries }, true).await?;
            }
        }
        Ok(core)
    }

    /// First offset that no plan covers.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.done
            .as_ref()
            .map_or(self.ledger.committed, |done| done.to)
    }

    /// True while a written plan is not committed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.done.is_some()
    }

    /// Commits the last plan without beginning another.
    ///
    /// # Errors
    /// [`SinkError`] when the store or the ledger refuses.
    pub async fn commit(&mut self) -> Result<(), SinkError> {
        if self.done.is_some() {
            let step = self.ledger.commit(self.done.as_ref());
            self.step(step).await?;
            self.committed().await;
        }
        Ok(())
    }

    /// Plans and writes `input`, and commits the plan before. With `replay` the intent is
    /// recorded already.
    ///
    /// # Errors
    /// [`SinkError`]; the ledger then says what to do again.
    pub async fn flush(&mut self, input: Input, replay: bool) -> Result<(), SinkError> {
        let (from, to) = (input.from, input.to);
        let mut entries = input.entries;
        let (marks, duplicates) = match self.decide(&entries, from, to).await {
            Err(hole) if is_hole(&hole) => {
                warn!(partition = self.partition, from, to, %hole, "reads the records once more");
                entries = self.read_again(from, to).await?;
                self.decide(&entries, from, to).await?
            }
            other => other?,
        };
        if !replay && !mutation::is(Mutation::NoIntent) {
            let step = self
                .ledger
                .begin(self.done.as_ref(), to, &self.shared.fingerprint);
            let commits = self.done.is_some();
            self.step(step).await?;
            if commits {
                self.committed().await;
            }
        }
        drop(entries);
        if mutation::is(Mutation::CommitBeforeWrite) {
            let marks = marks.clone();
            self.done = Some(Done { to, marks });
            self.commit().await?;
        }
        let written = self.writer.write().await;
        let letters = written.map_err(|error| SinkError::of_store(self.partition, error))?;
        let count = letters.len() as u64;
        let queue = &self.shared.dead_letters;
        queue.put_away(letters, replay).await?;
        self.shared.metrics.dead_letters.add(count);
        self.shared.metrics.duplicates_dropped.add(duplicates);
        self.done = Some(Done { to, marks });
        Ok(())
    }

    /// From what was read to a plan; asks the topic for origins where ordinals do not tell.
    async fn decide(
        &mut self,
        entries: &[Entry],
        from: Offset,
        to: Offset,
    ) -> Result<(Marks, u64), SinkError> {
        let partition = self.partition;
        let covered = if may_remove(&self.shared.transforms, entries) {
            filtered_units(entries, from..to)
        } else {
            units(entries, from..to).map(|units| Coverage { units, removed: 0 })
        };
        let Coverage {
            units: whole,
            removed,
        } = covered.map_err(|source| SinkError::Contiguity { partition, source })?;
        let mut tools = Workbench::default();
        let mut cutoffs = Cutoffs::new();
        let marks = self
            .done
            .as_ref()
            .map_or(&self.ledger.marks, |done| &done.marks);
        let admission = loop {
            let outcome = admit(
                &whole,
                removed,
                marks,
                self.ledger.start == 0,
                &cutoffs,
                &mut tools,
            )
            .map_err(|source| SinkError::Dedup { partition, source })?;
            let question = match outcome {
                Outcome::Admitted(admission) => break admission,
                Outcome::NeedsOrigins(question) => question,
            };
            let reading = Reading::new(self.shared.clone(), partition, question.base_offset);
            let keys = reading.stored_keys(question.last_offset + 1).await?;
            let keys = keys.iter().map(|key| key.as_deref().unwrap_or_default());
            let cutoff = question.answer(keys).ok_or_else(|| SinkError::Dedup {
                partition,
                source: DedupError::Origins {
                    stream: question.chain.stream.clone(),
                    shard: question.chain.shard.clone(),
                    base_offset: question.base_offset,
                },
            })?;
            cutoffs.insert(question.chain, cutoff);
        };
        let Admission {
            entries,
            marks,
            duplicates,
        } = admission;
        let input = PlanInput {
            from,
            to,
            entries: &entries,
            is_first: self.ledger.plan == 0,
            tools: &mut tools,
        };
        let planned = self.writer.plan(input).await;
        planned.map_err(|error| SinkError::of_store(partition, error))?;
        Ok((marks, duplicates))
    }

    async fn step(&mut self, step: Step) -> Result<(), SinkError> {
        let partition = self.partition;
        let ledger_error = |source| SinkError::Ledger { partition, source };
        let Shared { store, .. } = &*self.shared;
        let put = store.put_ledger(partition, &step.row, step.seen.as_ref());
        let put = put
            .await
            .map_err(|error| SinkError::of_store(partition, error))?;
        if !put {
            let found = self.ledger_row().await?;
            step.judge(found.as_ref()).map_err(ledger_error)?;
        }
        self.ledger = step.row;
        Ok(())
    }

    async fn ledger_row(&self) -> Result<Option<LedgerRow>, SinkError> {
        let found = self.shared.store.ledger(self.partition).await;
        found.map_err(|error| SinkError::of_store(self.partition, error))
    }

    async fn committed(&mut self) {
        self.done = None;
        self.shared.metrics.commits.add(1);
        self.release().await;
    }

    /// Tells the topic what it may forget. If that fails the topic keeps more than it needs to,
    /// and the next commit says it again.
    async fn release(&self) {
        let Shared {
            topic, pipeline, ..
        } = &*self.shared;
        let offset = match (&self.ledger.intent, mutation::is(Mutation::ReleasedTooFar)) {
            (Some(intent), true) => intent.to,
            _ => self.ledger.committed,
        };
        let released = topic.release(self.partition, pipeline, offset);
        if let Err(error) = released.await {
            warn!(partition = self.partition, %error, "offsets cannot be released");
        }
    }

    async fn read_again(&self, from: Offset, to: Offset) -> Result<Vec<Entry>, SinkError> {
        Reading::new(self.shared.clone(), self.partition, from)
            .entries_to(to)
            .await
    }
}

/// True when SmartModules may have removed records unseen: any but the packer, which counts
/// what it is given. A lone step under a name of the user's is a packer if it makes envelopes.
fn may_remove(transforms: &[Transform], entries: &[Entry]) -> bool {
    let is_packed = || {
        let mut entries = entries.iter();
        entries.any(|entry| matches!(entry, Entry::Envelope(_)))
    };
    match transforms {
        [] => false,
        [step] => !is_packer(step) && !is_packed(),
        _ => true,
    }
}

/// True for what a second read of the same records may mend.
fn is_hole(error: &SinkError) -> bool {
    matches!(
        error,
        SinkError::Contiguity { .. }
            | SinkError::Dedup {
                source: DedupError::Gap { .. } | DedupError::Inside { .. },
                ..
            }
    )
}
