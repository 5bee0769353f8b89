//! The ledger of one topic partition: what is in the table, what is being written, and by whom.
//!
//! A pure state machine. Every step replaces the row that was seen by another, and only that one:
//! epoch and plan number tell rows apart, so every step changes one of them, and a process that lost
//! its partition can change nothing
//! (I11). Recording the intent of plan n commits plan n-1 in the same write.

mod error;
mod given_up;
mod intent;
mod log;

use millpond_connector::mutation::{self, Mutation};
use millpond_connector::topic::{Offset, OffsetBounds};
use millpond_format::gap::Gap;

use crate::gaps::OnGap;
use crate::marks::Marks;

pub use error::LedgerError;
pub use intent::Intent;
pub use log::Log;

/// The ledger row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRow {
    /// Fencing epoch: raised by every process that takes the partition.
    pub epoch: u64,
    /// The process that raised it.
    pub owner: String,
    /// Number of the last step that began or committed a plan; 0 before the first.
    pub plan: u64,
    /// First offset that is not committed.
    pub committed: Offset,
    /// First offset that this pipeline read.
    pub start: Offset,
    /// The plan begun and not committed.
    pub intent: Option<Intent>,
    /// Marks as of `committed`.
    pub marks: Marks,
    /// What the offsets count in.
    pub log: Log,
}

/// A change of the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The row as it will be.
    pub row: LedgerRow,
    /// The row that it replaces; `None` when there is none.
    pub seen: Option<LedgerRow>,
}

/// What a finished plan leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// End of the plan, exclusive.
    pub to: Offset,
    /// Marks after it.
    pub marks: Marks,
}

/// Where to go on after taking a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// No plan is open: read from here.
    Read {
        /// Next offset.
        from: Offset,
    },
    /// A plan is open: read exactly these offsets and write them anew.
    Replay {
        /// First offset.
        from: Offset,
        /// End, exclusive.
        to: Offset,
    },
    /// A plan is open whose records are gone in part: give it up.
    GiveUp {
        /// First offset.
        from: Offset,
        /// End, exclusive.
        to: Offset,
    },
    /// A plan is open that was given up: go on after it.
    GivenUp {
        /// First offset.
        from: Offset,
        /// End, exclusive.
        to: Offset,
    },
}

impl LedgerRow {
    /// The step by which `owner` takes the partition of a topic that begins at `earliest`.
    #[must_use]
    pub fn claim(
        found: Option<&Self>,
        owner: &str,
        earliest: Offset,
        identity: Option<&str>,
    ) -> Step {
        let identity = identity.unwrap_or_default();
        match found {
            None => Step {
                row: Self {
                    epoch: 1,
                    owner: owner.to_owned(),
                    plan: 0,
                    committed: earliest,
                    start: earliest,
                    intent: None,
                    marks: Marks::default(),
                    log: Log {
                        identity: identity.to_owned(),
                        shift: 0,
                    },
                },
                seen: None,
            },
            Some(found) => Step {
                row: Self {
                    epoch: found.epoch + u64::from(!mutation::is(Mutation::EpochNotRaised)),
                    owner: owner.to_owned(),
                    log: match found.log.identity.is_empty() {
                        true => Log {
                            identity: identity.to_owned(),
                            ..found.log
                        },
                        false => found.log.clone(),
                    },
                    ..found.clone()
                },
                seen: Some(found.clone()),
            },
        }
    }

    /// True when the topic is another one than the ledger was kept for, or has lost its end: nothing of what it
    /// holds can be where the ledger stands. `bounds` are those of the topic.
    #[must_use]
    pub fn is_of_another_log(&self, identity: Option<&str>, bounds: OffsetBounds) -> bool {
        let known = &self.log.identity;
        let is_other = identity.is_some_and(|identity| !known.is_empty() && identity != known);
        is_other || self.end() > self.log.shifted(bounds).end
    }

    /// The step by which the ledger goes on with such a topic, from its first record on. Nothing is passed over:
    /// what is in the store already is recognised by the marks, and what the topic lost is missing in the ordinals.
    ///
    /// An open plan can never be finished. It ends here without a trace where what was written of it `is_undone`,
    /// else it becomes a gap.
    #[must_use]
    pub fn follow(&self, identity: Option<&str>, bounds: OffsetBounds, is_undone: bool) -> Step {
        let mut row = self.clone();
        row.plan += 1;
        row.log = Log {
            identity: identity.unwrap_or_default().to_owned(),
            shift: self.end().saturating_sub(bounds.earliest),
        };
        match &mut row.intent {
            Some(_) if is_undone => {
                row.committed = self.end();
                row.intent = None;
            }
            Some(intent) if !intent.is_given_up() => {
                let Intent { from, to, .. } = *intent;
                intent.gaps = vec![Gap::Plan { from, to }];
                // The source sends again what the lost topic had: it is not to be dropped.
                intent.moved = None;
            }
            _ => {}
        }
        Step {
            row,
            seen: Some(self.clone()),
        }
    }

    /// First offset that no plan covers.
    fn end(&self) -> Offset {
        let intent = self.intent.as_ref();
        intent.map_or(self.committed, |intent| intent.to)
    }

    /// Where to go on in a topic with these `bounds`.
    ///
    /// # Errors
    /// [`LedgerError`] when the topic does not hold what is needed, or the configuration
    /// changed while a plan was open.
    pub fn resume(
        &self,
        fingerprint: &str,
        bounds: OffsetBounds,
        on_gap: OnGap,
    ) -> Result<Resume, LedgerError> {
        let bounds = self.log.shifted(bounds);
        let intent = self.intent.as_ref();
        let needed = self.end();
        if needed > bounds.end {
            return Err(LedgerError::Ahead {
                committed: needed,
                end: bounds.end,
            });
        }
        if let Some(intent) = intent
            && intent.is_given_up()
        {
            let Intent { from, to, .. } = *intent;
            return Ok(Resume::GivenUp { from, to });
        }
        // What an open plan passes over is not needed.
        let first = intent.map_or(self.committed, Intent::first_needed);
        if first < bounds.earliest {
            return match (intent, on_gap) {
                (_, OnGap::Halt) => Err(LedgerError::Gone {
                    committed: first,
                    earliest: bounds.earliest,
                }),
                (None, OnGap::Record) => Ok(Resume::Read { from: first }),
                (Some(&Intent { from, to, .. }), OnGap::Record) => Ok(Resume::GiveUp { from, to }),
            };
        }
        match intent {
            None => Ok(Resume::Read { from: first }),
            Some(_) if mutation::is(Mutation::ReplaySkipped) => Ok(Resume::Read {
                from: self.committed,
            }),
            Some(intent)
                if intent.fingerprint != fingerprint
                    && !mutation::is(Mutation::OldConfigurationIgnored) =>
            {
                Err(LedgerError::Fingerprint {
                    from: intent.from,
                    to: intent.to,
                    recorded: intent.fingerprint.clone(),
                    ours: fingerprint.to_owned(),
                    why: "it was not recorded",
                })
            }
            Some(&Intent { from, to, .. }) => Ok(Resume::Replay { from, to }),
        }
    }

    /// Commits `done`, if there is a finished plan, and records the plan up to `to`.
    #[must_use]
    pub fn begin(
        &self,
        done: Option<&Done>,
        to: Offset,
        fingerprint: &str,
        gaps: Vec<Gap>,
    ) -> Step {
        let mut step = self.commit(done);
        step.row.plan = self.plan + 1;
        step.row.intent = Some(Intent {
            from: step.row.committed,
            to,
            fingerprint: fingerprint.to_owned(),
            note: String::new(),
            gaps,
            moved: None,
            digest: None,
        });
        step
    }

    /// Commits `done` and begins nothing.
    #[must_use]
    pub fn commit(&self, done: Option<&Done>) -> Step {
        let mut row = self.clone();
        if let Some(done) = done {
            row.committed = done.to;
            // A claim that has read the row before this commit must not undo it.
            if !mutation::is(Mutation::CommitNotNumbered) {
                row.plan = self.plan + 1;
            }
            if !mutation::is(Mutation::MarksNotCommitted) {
                row.marks = done.marks.clone();
            }
            row.intent = None;
        }
        Step {
            row,
            seen: Some(self.clone()),
        }
    }

    /// What makes no sense in a row, to be asked by whoever reads one from a store.
    #[must_use]
    pub fn problem(&self) -> Option<&'static str> {
        let consistent = |intent: &Intent| intent.from == self.committed && intent.to > intent.from;
        let is_sound = self.intent.as_ref().is_none_or(consistent);
        (!is_sound).then_some("`intent` does not follow `committed`")
    }
}

impl Step {
    /// The same, with the marks as they are after the plan that is begun.
    #[must_use]
    pub fn moving(mut self, marks: &Marks) -> Self {
        if let Some(intent) = &mut self.row.intent {
            intent.moved = Some(marks.changed_since(&self.row.marks));
        }
        self
    }

    /// The same, with the digest of what the plan that is begun is made of.
    #[must_use]
    pub fn made_of(mut self, digest: u64) -> Self {
        if let Some(intent) = &mut self.row.intent {
            intent.digest = Some(digest);
        }
        self
    }

    /// The same, with what the store's writer said of the plan that is begun.
    #[must_use]
    pub fn noted(mut self, note: String) -> Self {
        if let Some(intent) = &mut self.row.intent {
            intent.note = note;
        }
        self
    }

    /// Judges a failed condition by the row that is there now.
    ///
    /// An earlier try of the same step may have taken effect with its answer lost: then the row
    /// is the one that was to be written, and the step is done.
    ///
    /// # Errors
    /// [`LedgerError::Fenced`] or [`LedgerError::Changed`].
    pub fn judge(&self, found: Option<&LedgerRow>) -> Result<(), LedgerError> {
        match found {
            _ if mutation::is(Mutation::FencedGoesOn) => Ok(()),
            Some(found) if *found == self.row => Ok(()),
            Some(found) if found.owner != self.row.owner => Err(LedgerError::Fenced {
                ours: self.row.epoch,
                theirs: found.epoch,
                owner: found.owner.clone(),
            }),
            _ => Err(LedgerError::Changed),
        }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
