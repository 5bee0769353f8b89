//! One topic partition's place in the ledger, and the steps that move it: plan, intent, write.

mod decide;
mod late;
mod lost_topic;
mod timed;

use std::sync::Arc;

use millpond_connector::metrics::Metrics;
use millpond_connector::mutation::{self, Mutation};
use millpond_connector::topic::{Offset, OffsetBounds, PartitionId, Topic, Transform};
use millpond_format::gap::Gap;
use tracing::{error, info, warn};

use crate::claim::{Claim, Moment};
use crate::configuration;
use crate::error::SinkError;
use crate::gaps::{GIVEN_UP_INDEX, OnGap, PlanGaps};
use crate::ledger::{Done, Intent, LedgerError, LedgerRow, Resume, Step};
use crate::letter_queue::DeadLetters;
use crate::reading::{Input, Reading};
use crate::recorded::RecordedGaps;
use crate::store::{PlanWriter, Store, StoreError};
use decide::may_remove;
use timed::Timed;

/// What the topic partitions of a sink share.
#[derive(Clone)]
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
    /// What to do about data that is gone for good.
    pub on_gap: OnGap,
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
    /// By the last step of the ledger.
    claim: Arc<Claim>,
    /// Gaps of all plans before the one that is open or comes next.
    recorded: RecordedGaps,
    writer: Box<dyn PlanWriter>,
}

impl Core {
    /// Takes the partition, and finishes the plan that its last owner left open. Where the topic is lost that may
    /// take [`Store::stale_writes`]; it may be dropped at any time.
    ///
    /// # Errors
    /// [`SinkError`] when the ledger, the topic or the store does not allow it.
    pub async fn claim(shared: Arc<Shared>, partition: PartitionId) -> Result<Self, SinkError> {
        let bounds = Reading::new(shared.clone(), partition, 0, 0)
            .bounds()
            .await?;
        let ledger_error = |source| SinkError::Ledger { partition, source };
        let topic = shared.topic.clone();
        let identity = topic.identity();
        let ledger = LedgerRow::claim(None, &shared.owner, bounds.earliest, identity).row;
        let mut core = Self {
            partition,
            claim: Claim::new(shared.store.clone(), partition, &ledger, Moment::now()),
            ledger,
            writer: shared.store.writer(partition),
            shared,
            done: None,
            recorded: RecordedGaps::default(),
        };
        // The owner before may be writing still: then the row moves between our read and our
        // write, and the claim is made again. The last one to claim has the partition.
        loop {
            let found = core.ledger_row().await?;
            let owner = &core.shared.owner;
            let step = LedgerRow::claim(found.as_ref(), owner, bounds.earliest, identity);
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
        let bounds = core.reading(0).bounds().await?;
        if core.ledger.is_of_another_log(identity, bounds) {
            core.follow(identity, bounds).await?;
        }
        core.recall_gaps().await?;
        let Shared {
            fingerprint,
            on_gap,
            ..
        } = &*core.shared;
        let resume = match core.ledger.resume(fingerprint, bounds, *on_gap) {
            Err(LedgerError::Fingerprint { recorded, .. }) => {
                core.release().await;
                core.finish_as(&recorded, bounds).await?;
                return Ok(core);
            }
            other => other.map_err(ledger_error)?,
        };
        core.release().await;
        core.go_on(resume).await?;
        Ok(core)
    }

    async fn go_on(&mut self, resume: Resume) -> Result<(), SinkError> {
        let (partition, epoch) = (self.partition, self.ledger.epoch);
        match resume {
            Resume::Read { from } => {
                info!(partition, offset = from, epoch, "goes on");
                Ok(())
            }
            Resume::Replay { from, to } => {
                info!(partition, from, to, epoch, "writes an open plan again");
                let input = self.replayed(from, to).await?;
                if self.is_of_another_topic(&input) {
                    let bounds = self.reading(0).bounds().await?;
                    return self.follow(None, bounds).await;
                }
                self.flush(input, true).await
            }
            Resume::GiveUp { .. } => {
                let step = self.ledger.give_up();
                self.step(step).await?;
                self.given_up().await
            }
            Resume::GivenUp { .. } => self.given_up().await,
        }
    }

    /// Finishes the open plan with the configuration that it was begun with, so that it comes
    /// out the same; what comes next is written with the present one.
    async fn finish_as(&mut self, recorded: &str, bounds: OffsetBounds) -> Result<(), SinkError> {
        let partition = self.partition;
        let ledger_error = |source| SinkError::Ledger { partition, source };
        let found = configuration::recorded(&self.shared, partition, recorded).await?;
        let (shared, writer) = found.map_err(|why| {
            let (from, to) = self
                .ledger
                .intent
                .as_ref()
                .map_or((0, 0), |i| (i.from, i.to));
            ledger_error(LedgerError::Fingerprint {
                from,
                to,
                recorded: recorded.to_owned(),
                ours: self.shared.fingerprint.clone(),
                why,
            })
        })?;
        let resume = self.ledger.resume(recorded, bounds, shared.on_gap);
        let resume = resume.map_err(ledger_error)?;
        info!(
            partition,
            recorded, "an open plan was begun with another configuration"
        );
        let present = (
            std::mem::replace(&mut self.shared, Arc::new(shared)),
            std::mem::replace(&mut self.writer, writer),
        );
        let finished = self.go_on(resume).await;
        (self.shared, self.writer) = present;
        finished
    }

    /// Reads from an offset of the ledger on.
    #[must_use]
    pub fn reading(&self, next: Offset) -> Reading {
        let shift = self.ledger.log.shift;
        Reading::new(self.shared.clone(), self.partition, shift, next)
    }

    /// First offset that no plan covers, by the topic's own count.
    #[must_use]
    pub fn next_in_topic(&self) -> Offset {
        self.next_offset().saturating_sub(self.ledger.log.shift)
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
        let _timed = Timed::new(&self.shared.metrics, |metrics| &metrics.flush_micros);
        self.commit_done().await
    }

    /// The same when the topic is lost: what it would release is no offset of the topic that is there now.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub async fn commit_of_a_lost_topic(&mut self) -> Result<(), SinkError> {
        if self.done.is_some() {
            let step = self.ledger.commit(self.done.as_ref());
            self.step(step).await?;
            self.done = None;
            self.shared.metrics.commits.add(1);
        }
        Ok(())
    }

    async fn commit_done(&mut self) -> Result<(), SinkError> {
        if self.done.is_some() {
            let step = self.ledger.commit(self.done.as_ref());
            self.plan_step(step).await?;
            self.committed().await;
        }
        Ok(())
    }

    /// Plans and writes `input`, and commits the plan before. With `replay` the intent is
    /// recorded already, and what it passes over is passed over again.
    ///
    /// # Errors
    /// [`SinkError`]; the ledger then says what to do again.
    pub async fn flush(&mut self, input: Input, replay: bool) -> Result<(), SinkError> {
        let _timed = Timed::new(&self.shared.metrics, |metrics| &metrics.flush_micros);
        let (from, to) = (input.from, input.to);
        let decided = match replay.then_some(self.ledger.intent.as_ref()).flatten() {
            Some(intent) => {
                let intent = intent.clone();
                self.decide_again(&input, &intent).await?
            }
            None => self.decide_after_rereads(input).await?,
        };
        if !replay && !mutation::is(Mutation::NoIntent) {
            let Shared { fingerprint, .. } = &*self.shared;
            let done = self.done.as_ref();
            let gaps = decided.gaps.clone();
            let step = self.ledger.begin(done, to, fingerprint, gaps);
            let step = step.moving(&decided.marks).made_of(decided.digest);
            let step = match mutation::is(Mutation::WriteShardsNotRecorded) {
                true => step,
                false => step.noted(self.writer.note()),
            };
            let commits = self.done.is_some();
            self.plan_step(step).await?;
            if commits {
                self.committed().await;
            }
        }
        if mutation::is(Mutation::CommitBeforeWrite) {
            let marks = decided.marks.clone();
            self.done = Some(Done { to, marks });
            self.commit_done().await?;
        }
        self.keep_gaps(from, &decided.gaps, 0).await?;
        let written = self.writer.write(&self.claim).await;
        let letters = written.map_err(|error| self.not_written(error))?;
        let count = letters.len() as u64;
        let queue = &self.shared.dead_letters;
        queue.put_away(letters, replay).await?;
        let late = self.put_late_away(&decided.late).await?;
        let metrics = &self.shared.metrics;
        metrics.dead_letters.add(count + late);
        let duplicates = decided.duplicates.saturating_sub(late);
        metrics.duplicates_dropped.add(duplicates);
        let marks = decided.marks;
        self.done = Some(Done { to, marks });
        Ok(())
    }

    /// Learns the gaps of the plans before the one that is open: those of that one come with it. So whoever finishes
    /// a plan knows what was known when it was begun: each gap is kept before the ledger passes its plan.
    async fn recall_gaps(&mut self) -> Result<(), SinkError> {
        if self.ledger.plan == 0 || mutation::is(Mutation::GapsForgotten) {
            return Ok(());
        }
        let partition = self.partition;
        let kept = self.shared.store.gaps(partition).await;
        let mut kept = kept.map_err(|error| SinkError::of_store(partition, error))?;
        let open = self.ledger.intent.as_ref().map(|intent| intent.from);
        kept.retain(|(from, _)| open.is_none_or(|open| *from < open));
        for plan in kept.chunk_by(|(one, _), (other, _)| one == other) {
            let gaps: Vec<Gap> = plan.iter().map(|(_, gap)| gap.clone()).collect();
            self.recorded.add(&gaps);
        }
        Ok(())
    }

    /// Counts and shows gaps, and makes them durable for good. They are in the intent already.
    async fn keep_gaps(
        &mut self,
        from: Offset,
        gaps: &[Gap],
        first_index: usize,
    ) -> Result<(), SinkError> {
        if gaps.is_empty() || mutation::is(Mutation::GapNotRecorded) {
            return Ok(());
        }
        let partition = self.partition;
        for gap in gaps {
            error!(partition, %gap, "events are lost: recorded as a gap, goes on after it");
            self.shared.metrics.gaps.add(1);
            self.shared.metrics.gap_records.add(gap.records());
        }
        let kept = self.shared.store.put_gaps(PlanGaps {
            pipeline: &self.shared.pipeline,
            topic: self.shared.topic.name(),
            partition,
            from,
            first_index,
            gaps,
        });
        kept.await
            .map_err(|error| SinkError::of_store(partition, error))?;
        if !mutation::is(Mutation::GapsForgotten) {
            self.recorded.add(gaps);
        }
        Ok(())
    }

    /// Goes past an open plan that was given up; its gap is in the ledger already.
    async fn given_up(&mut self) -> Result<(), SinkError> {
        let Some(intent) = &self.ledger.intent else {
            return Ok(());
        };
        let (from, to) = (intent.from, intent.to);
        let moved = intent.moved.clone();
        // Where SmartModules remove records, how many of the plan's ordinals it had cannot be told: see `decide`.
        let is_filtered = may_remove(&self.shared.transforms, &[]);
        let mut gaps = self.ledger.given_up_gaps();
        for gap in &mut gaps {
            match gap {
                Gap::Chain(chain) if is_filtered => chain.missing = 0,
                _ => {}
            }
        }
        self.keep_gaps(from, &gaps, GIVEN_UP_INDEX).await?;
        let mut marks = self.ledger.marks.clone();
        match &moved {
            // What of it comes again is not written: nobody knows whether it is in the store (I2). It becomes a
            // dead letter (I1).
            Some(moved) => {
                marks = marks.with(moved);
                if is_filtered {
                    marks.removed_ever += to - from;
                }
            }
            None if is_filtered => marks.remove(to - from),
            None => {}
        }
        self.done = Some(Done { to, marks });
        Ok(())
    }

    /// Why a plan was not written: a writer that found the partition lost says no more than that it stopped.
    fn not_written(&self, error: StoreError) -> SinkError {
        let partition = self.partition;
        match self.claim.lost() {
            Some(source) => SinkError::Ledger { partition, source },
            None => SinkError::of_store(partition, error),
        }
    }

    /// A step of a plan: what it takes is part of what the plan takes.
    async fn plan_step(&mut self, step: Step) -> Result<(), SinkError> {
        let _timed = Timed::new(&self.shared.metrics, |metrics| &metrics.ledger_micros);
        self.step(step).await
    }

    async fn step(&mut self, step: Step) -> Result<(), SinkError> {
        let partition = self.partition;
        let at = Moment::now();
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
        let store = self.shared.store.clone();
        self.claim = Claim::new(store, partition, &self.ledger, at);
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
        let offset = offset.saturating_sub(self.ledger.log.shift);
        let released = topic.release(self.partition, pipeline, offset);
        if let Err(error) = released.await {
            warn!(partition = self.partition, %error, "offsets cannot be released");
        }
    }

    async fn read_again(&self, from: Offset, to: Offset) -> Result<Input, SinkError> {
        let mut reading = self.reading(from);
        reading.on_gap = self.shared.on_gap;
        reading.all_to(to).await
    }

    /// What an open plan is made of: the records of its offsets but for those that it passed over,
    /// though they be back.
    async fn replayed(&self, from: Offset, to: Offset) -> Result<Input, SinkError> {
        let holes = self.ledger.intent.as_ref().map(Intent::holes);
        let holes = holes.unwrap_or_default();
        let mut input = Input {
            from,
            to,
            ..Input::default()
        };
        let mut next = from;
        for hole in holes.iter().cloned().chain(std::iter::once(to..to)) {
            if next < hole.start {
                let read = self.reading(next).all_to(hole.start).await?;
                input.entries.extend(read.entries);
            }
            next = hole.end;
        }
        input.holes = holes;
        Ok(input)
    }
}
