//! The ledger of one topic partition: what is in the table, what is being written, and by whom.
//!
//! A pure state machine. Every step replaces the row that was seen by another, and only that one:
//! epoch and plan number tell rows apart, so every step changes one of them, and a process that lost
//! its partition can change nothing
//! (I11). Recording the intent of plan n commits plan n-1 in the same write.

use millpond_connector::mutation::{self, Mutation};
use millpond_connector::topic::{Offset, OffsetBounds};
use millpond_format::gap::{ChainGap, Gap, list_text, parse_list};

use crate::gaps::OnGap;
use crate::marks::{Mark, Marks};

/// A plan that was begun: everything in these offsets is being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// First offset.
    pub from: Offset,
    /// End, exclusive.
    pub to: Offset,
    /// Fingerprint of the configuration that decides the bytes; without `/`.
    pub fingerprint: String,
    /// What the store's writer said of the plan, to make it again; without `/`.
    pub note: String,
    /// What is lost and was passed over: a replay passes over the same.
    pub gaps: Vec<Gap>,
    /// The marks that the plan moves, as they are after it: what is given up with it is known by them, and
    /// nobody writes it any more. `None` where the source sends it again, since the topic was lost with it.
    pub moved: Option<Marks>,
}

/// The log that a ledger counts in.
///
/// Offsets of a ledger, and all that follows from them (sort keys, ids of dead letters), only rise. Those of a topic
/// that was made anew begin at 0 again, so they are shifted, and nothing is ever named twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// [`Topic::identity`](millpond_connector::topic::Topic::identity) of the topic; empty where nothing was known.
    pub identity: String,
    /// An offset of the ledger minus the same one of the topic.
    pub shift: u64,
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
    /// What the offsets count in.
    pub log: Log,
}

/// Why the ledger does not allow to go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Another process took the partition.
    #[error(
        "fenced: `{owner}` took this partition with epoch {theirs}, ours is {ours}; \
         it goes on there, and this process has stopped writing it"
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
         stopped; it is `{ours}` now, and the old one cannot be used to finish them: {why}. \
         Start once with the SmartModule, its parameters, and the sink's `pipeline`, names, sizes and \
         format as they were, let it drain, then change them"
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
        /// Why the recorded configuration is of no use here.
        why: &'static str,
    },
    /// The topic lost records that were not committed.
    #[error(
        "the ledger stands at offset {committed}, but the topic begins at {earliest}: \
         offsets {committed} to {earliest} are gone. Restore the topic's data, or set \
         `on-gap: record` to record the loss and go on with what is left"
    )]
    Gone {
        /// First offset that is not committed.
        committed: Offset,
        /// First offset that is stored.
        earliest: Offset,
    },
    /// A plan made anew misses other data than when it was begun.
    #[error(
        "offsets {from} to {to} were being written when the sink stopped, and the topic gives \
         something else for them now ({found}; then: {recorded}): restore the topic's data"
    )]
    OtherGaps {
        /// First offset of the open plan.
        from: Offset,
        /// Its end.
        to: Offset,
        /// What is missing now.
        found: String,
        /// What was missing when the plan was begun.
        recorded: String,
    },
    /// More is missing than a ledger row can record.
    #[error("offsets {from} to {to}: {gaps} gaps are more than one plan can record")]
    TooManyGaps {
        /// First offset of the plan.
        from: Offset,
        /// Its end.
        to: Offset,
        /// Gaps found.
        gaps: usize,
    },
    /// The topic ends before the ledger, though it was just looked at.
    #[error(
        "the ledger stands at offset {committed}, but the topic ends at {end}: it became shorter while the \
         partition was taken; start again"
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

    /// Gives the open plan up: it becomes a gap.
    #[must_use]
    pub fn give_up(&self) -> Step {
        let mut row = self.clone();
        if let Some(intent) = &mut row.intent {
            let Intent { from, to, .. } = *intent;
            intent.gaps = vec![Gap::Plan { from, to }];
            row.plan += 1;
        }
        Step {
            row,
            seen: Some(self.clone()),
        }
    }

    /// What is lost with a plan that was given up: the plan, and the ordinals that it moved. Some of them may be in
    /// the store.
    #[must_use]
    pub fn given_up_gaps(&self) -> Vec<Gap> {
        let Some(intent) = &self.intent else {
            return Vec::new();
        };
        let chain = |mark: &Mark| {
            let known = self.marks.get(&mark.stream, &mark.shard);
            let before = known.filter(|known| known.epoch == mark.epoch);
            let first = match before {
                Some(before) => before.ordinal + 1,
                None if known.is_some() || self.start == 0 => 0,
                // Where this numbering began is not known here; the plan has no more than its records of it.
                None => (mark.ordinal + 1).saturating_sub(intent.to - intent.from),
            };
            let gap = ChainGap {
                stream: mark.stream.to_string(),
                shard: mark.shard.to_string(),
                epoch: mark.epoch,
                first,
                last: mark.ordinal,
                missing: (mark.ordinal + 1).saturating_sub(first),
                before: before.map(|before| before.last.clone()),
                after: mark.last.clone(),
                offset: intent.from,
            };
            (gap.missing > 0).then(|| Gap::Chain(Box::new(gap)))
        };
        let moved = intent.moved.iter().flat_map(Marks::iter);
        intent
            .gaps
            .iter()
            .cloned()
            .chain(moved.filter_map(chain))
            .collect()
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

impl Log {
    /// Bounds of the topic as offsets of the ledger.
    #[must_use]
    pub fn shifted(&self, bounds: OffsetBounds) -> OffsetBounds {
        OffsetBounds {
            earliest: bounds.earliest.saturating_add(self.shift),
            end: bounds.end.saturating_add(self.shift),
        }
    }

    /// `<shift>/<identity>`.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}/{}", self.shift, self.identity)
    }

    /// Reads what [`Self::text`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (shift, identity) = text.split_once('/')?;
        Some(Self {
            identity: identity.to_owned(),
            shift: shift.parse().ok()?,
        })
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

impl Intent {
    /// True when nothing of the plan is written any more.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        matches!(self.gaps.as_slice(), [Gap::Plan { .. }])
    }

    /// First offset that a replay reads.
    fn first_needed(&self) -> Offset {
        match self.gaps.first() {
            Some(Gap::Offsets { from, to }) if *from == self.from => *to,
            _ => self.from,
        }
    }

    /// Offsets that the plan passes over.
    #[must_use]
    pub fn holes(&self) -> Vec<std::ops::Range<Offset>> {
        let hole = |gap: &Gap| match gap {
            Gap::Offsets { from, to } => Some(*from..*to),
            Gap::Plan { .. } | Gap::Chain(_) => None,
        };
        self.gaps.iter().filter_map(hole).collect()
    }

    /// `<from>/<to>/<fingerprint>`, with a note `*` and its text, with gaps `/` and theirs.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}/{}/{}", self.from, self.to, self.fingerprint);
        if !self.note.is_empty() {
            text.push('*');
            text.push_str(&self.note);
        }
        if !self.gaps.is_empty() {
            text.push('/');
            text.push_str(&list_text(&self.gaps));
        }
        text
    }

    /// Reads what [`Self::text`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (from, rest) = text.split_once('/')?;
        let (to, rest) = rest.split_once('/')?;
        let (fingerprint, gaps) = match rest.split_once('/') {
            None => (rest, Vec::new()),
            Some((fingerprint, gaps)) => (fingerprint, parse_list(gaps)?),
        };
        let (fingerprint, note) = fingerprint.split_once('*').unwrap_or((fingerprint, ""));
        Some(Self {
            from: from.parse().ok()?,
            to: to.parse().ok()?,
            fingerprint: fingerprint.to_owned(),
            note: note.to_owned(),
            gaps,
            moved: None,
        })
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
