//! The ledger of one topic partition: what is in the table, what is being written, and by whom.
//!
//! A pure state machine. Every step replaces the row that was seen by another, and only that one:
//! epoch and plan number tell rows apart, so every step changes one of them, and a process that lost
//! its partition can change nothing
//! (I11). Recording the intent of plan n commits plan n-1 in the same write.

use millpond_connector::mutation::{self, Mutation};
use millpond_connector::topic::{Offset, OffsetBounds};

use crate::marks::Marks;

/// A plan that was begun: everything in these offsets is being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// First offset.
    pub from: Offset,
    /// End, exclusive.
    pub to: Offset,
    /// Fingerprint of the configuration that decides the bytes.
    pub fingerprint: String,
}

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
}

/// Why the ledger does not allow to go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Another process took the partition.
    #[error(
        "fenced: `{owner}` took this partition with epoch {theirs}, ours is {ours}; \
         this process stops, run one sink per pipeline"
    )]
    Fenced {
        /// Our epoch.
        ours: u64,
        /// The epoch found.
        theirs: u64,
        /// Who holds it now.
        owner: String,
    },
    /// The row was changed by something that is no sink.
    #[error("the ledger row was changed or removed while this process held it")]
    Changed,
    /// The configuration changed while a plan was open.
    #[error(
        "offsets {from} to {to} were being written with configuration `{recorded}` when the sink \
         stopped, and the configuration is `{ours}` now: writing them anew would give other items. \
         Start once with the SmartModule, its parameters, `max-item-bytes`, key names and pipeline \
         as they were, let it drain, then change them"
    )]
    Fingerprint {
        /// First offset of the open plan.
        from: Offset,
        /// Its end.
        to: Offset,
        /// Fingerprint in the ledger.
        recorded: String,
        /// Fingerprint now.
        ours: String,
    },
    /// The topic lost records that were not committed.
    #[error(
        "the ledger stands at offset {committed}, but the topic begins at {earliest}: \
         offsets {committed} to {earliest} are gone. Restore the topic's data, or use another \
         `pipeline` to start from what is left"
    )]
    Gone {
        /// First offset that is not committed.
        committed: Offset,
        /// First offset that is stored.
        earliest: Offset,
    },
    /// The topic ends before the ledger.
    #[error(
        "the ledger stands at offset {committed}, but the topic ends at {end}: it was created anew. \
         Restore the topic's data, or use another `pipeline` for the new topic"
    )]
    Ahead {
        /// First offset that is not committed, or the end of the open plan.
        committed: Offset,
        /// One past the last stored offset.
        end: Offset,
    },
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
}

impl LedgerRow {
    /// The step by which `owner` takes the partition.
    #[must_use]
    pub fn claim(found: Option<&Self>, owner: &str, earliest: Offset) -> Step {
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
                },
                seen: None,
            },
            Some(found) => Step {
                row: Self {
                    epoch: found.epoch + u64::from(!mutation::is(Mutation::EpochNotRaised)),
                    owner: owner.to_owned(),
                    ..found.clone()
                },
                seen: Some(found.clone()),
            },
        }
    }

    /// Where to go on.
    ///
    /// # Errors
    /// [`LedgerError`] when the topic does not hold what is needed, or the configuration
    /// changed while a plan was open.
    pub fn resume(&self, fingerprint: &str, bounds: OffsetBounds) -> Result<Resume, LedgerError> {
        if self.committed < bounds.earliest {
            return Err(LedgerError::Gone {
                committed: self.committed,
                earliest: bounds.earliest,
            });
        }
        let needed = self
            .intent
            .as_ref()
            .map_or(self.committed, |intent| intent.to);
        if needed > bounds.end {
            return Err(LedgerError::Ahead {
                committed: needed,
                end: bounds.end,
            });
        }
        match &self.intent {
            None => Ok(Resume::Read {
                from: self.committed,
            }),
            Some(_) if mutation::is(Mutation::ReplaySkipped) => Ok(Resume::Read {
                from: self.committed,
            }),
            Some(intent) if intent.fingerprint != fingerprint => Err(LedgerError::Fingerprint {
                from: intent.from,
                to: intent.to,
                recorded: intent.fingerprint.clone(),
                ours: fingerprint.to_owned(),
            }),
            Some(intent) => Ok(Resume::Replay {
                from: intent.from,
                to: intent.to,
            }),
        }
    }

    /// Commits `done`, if there is a finished plan, and records the plan up to `to`.
    #[must_use]
    pub fn begin(&self, done: Option<&Done>, to: Offset, fingerprint: &str) -> Step {
        let mut step = self.commit(done);
        step.row.plan = self.plan + 1;
        step.row.intent = Some(Intent {
            from: step.row.committed,
            to,
            fingerprint: fingerprint.to_owned(),
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

impl Intent {
    /// `<from>/<to>/<fingerprint>`.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}/{}/{}", self.from, self.to, self.fingerprint)
    }

    /// Reads what [`Self::text`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (from, rest) = text.split_once('/')?;
        let (to, fingerprint) = rest.split_once('/')?;
        Some(Self {
            from: from.parse().ok()?,
            to: to.parse().ok()?,
            fingerprint: fingerprint.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: OffsetBounds = OffsetBounds {
        earliest: 10,
        end: 100,
    };

    fn row() -> LedgerRow {
        LedgerRow::claim(None, "a", 10).row
    }

    fn done(to: Offset) -> Done {
        Done {
            to,
            marks: Marks::default(),
        }
    }

    #[test]
    fn a_plan_commits_the_one_before() {
        let first = row().begin(None, 20, "f");
        assert_eq!((first.row.plan, first.row.committed), (1, 10));
        let second = first.row.begin(Some(&done(20)), 35, "f");
        assert_eq!((second.row.plan, second.row.committed), (2, 20));
        let intent = second.row.intent.clone().expect("open");
        assert_eq!((intent.from, intent.to), (20, 35));
        assert_eq!(second.seen, Some(first.row));
        let last = second.row.commit(Some(&done(35)));
        assert_eq!(
            (last.row.plan, last.row.committed, last.row.intent),
            (3, 35, None)
        );
    }

    #[test]
    fn no_two_rows_of_a_history_look_alike_to_a_condition() {
        let claimed = row();
        let first = claimed.begin(None, 20, "f").row;
        let second = first.begin(Some(&done(20)), 35, "f").row;
        let committed = second.commit(Some(&done(35))).row;
        let third = committed.begin(None, 40, "f").row;
        let taken = LedgerRow::claim(Some(&third), "b", 10).row;
        let history = [claimed, first, second, committed, third, taken];
        let seen: std::collections::BTreeSet<_> =
            history.iter().map(|row| (row.epoch, row.plan)).collect();
        assert_eq!(seen.len(), history.len());
    }

    #[test]
    fn an_intent_survives_its_text_and_follows_what_is_committed() {
        let mut open = row().begin(None, 20, "f/with/slashes").row;
        let intent = open.intent.clone().expect("open");
        assert_eq!(Intent::parse(&intent.text()), Some(intent));
        for text in ["", "1", "1/2", "a/2/f", "1/b/f"] {
            assert_eq!(Intent::parse(text), None, "{text}");
        }
        assert_eq!((row().problem(), open.problem()), (None, None));
        open.committed += 1;
        assert!(open.problem().is_some());
    }

    #[test]
    fn an_open_plan_is_replayed_and_only_with_the_same_configuration() {
        let open = row().begin(None, 20, "f").row;
        let taken = LedgerRow::claim(Some(&open), "b", 0).row;
        assert_eq!(taken.epoch, 2);
        assert_eq!(
            taken.resume("f", BOUNDS),
            Ok(Resume::Replay { from: 10, to: 20 })
        );
        let refused = taken.resume("g", BOUNDS);
        assert!(matches!(
            refused,
            Err(LedgerError::Fingerprint {
                from: 10,
                to: 20,
                ..
            })
        ));
        let idle = open.commit(Some(&done(20))).row;
        assert_eq!(idle.resume("g", BOUNDS), Ok(Resume::Read { from: 20 }));
    }

    #[test]
    fn a_topic_that_lost_or_never_had_the_offsets_is_refused() {
        let at = |earliest, end| OffsetBounds { earliest, end };
        let gone = row().resume("f", at(11, 100));
        assert_eq!(
            gone,
            Err(LedgerError::Gone {
                committed: 10,
                earliest: 11
            })
        );
        let ahead = row().resume("f", at(0, 9));
        assert_eq!(
            ahead,
            Err(LedgerError::Ahead {
                committed: 10,
                end: 9
            })
        );
        let open = row().begin(None, 20, "f").row;
        let ahead = open.resume("f", at(0, 19));
        assert_eq!(
            ahead,
            Err(LedgerError::Ahead {
                committed: 20,
                end: 19
            })
        );
    }

    #[test]
    fn a_failed_condition_is_our_own_lost_answer_or_somebody_else() {
        let step = row().begin(None, 20, "f");
        assert_eq!(step.judge(Some(&step.row)), Ok(()));
        let other = LedgerRow::claim(Some(&row()), "b", 0).row;
        assert_eq!(
            step.judge(Some(&other)),
            Err(LedgerError::Fenced {
                ours: 1,
                theirs: 2,
                owner: "b".into()
            })
        );
        assert_eq!(step.judge(None), Err(LedgerError::Changed));
    }
}
