//! When a topic partition's plan is written, committed, or waited for: a function of the clock and of
//! what is there. Only *when*: what a plan holds follows from its offsets.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits::{FIRST_PLAN_AGE, IDLE_COMMIT, PLAN_RECORDS};

/// What to do when no plan is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Flush,
    Commit,
    End,
    Wait(Option<Instant>),
}

/// What the choice of the next step depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation {
    pub now: Instant,
    /// Arrival of the oldest data that is not planned.
    pub oldest: Option<Instant>,
    pub bytes: usize,
    pub records: usize,
    /// What was read since belongs to the next plan.
    pub is_cut: bool,
    pub max_age: Duration,
    /// Nothing was planned since this process has the partition.
    pub is_first: bool,
    pub plan_bytes: usize,
    /// A written plan is not committed, and since when.
    pub open_since: Option<Instant>,
    /// Draining, and all of it is read.
    pub at_end: bool,
    /// Somebody else is to go on: what is read and not planned is theirs.
    pub is_leaving: bool,
}

pub(crate) fn next(at: Situation) -> Next {
    if at.is_leaving {
        return match at.open_since {
            Some(_) => Next::Commit,
            None => Next::End,
        };
    }
    if let Some(oldest) = at.oldest {
        // How long that has waited in stream and topic while nobody wrote is not known here.
        let age = match at.is_first {
            true => at.max_age.min(FIRST_PLAN_AGE),
            false => at.max_age,
        };
        let due = oldest + age;
        let full = at.bytes >= at.plan_bytes || at.records >= PLAN_RECORDS || at.is_cut;
        return if at.at_end || full || due <= at.now {
            Next::Flush
        } else {
            Next::Wait(Some(due))
        };
    }
    match at.open_since {
        Some(since) if at.at_end || since + IDLE_COMMIT <= at.now => Next::Commit,
        Some(since) => Next::Wait(Some(since + IDLE_COMMIT)),
        None if at.at_end => Next::End,
        None => Next::Wait(None),
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_next_step_follows_from_the_situation() {
        let start = Instant::now();
        let now = start + Duration::from_secs(100);
        let ago = |ms| Some(now - Duration::from_millis(ms));
        let base = Situation {
            now,
            oldest: None,
            bytes: 0,
            records: 0,
            is_cut: false,
            max_age: Duration::from_secs(5),
            is_first: false,
            plan_bytes: 8 << 20,
            open_since: None,
            at_end: false,
            is_leaving: false,
        };
        let cases = [
            (base, Next::Wait(None)),
            (
                Situation {
                    at_end: true,
                    ..base
                },
                Next::End,
            ),
            (
                Situation {
                    oldest: ago(1_000),
                    ..base
                },
                Next::Wait(Some(now + Duration::from_secs(4))),
            ),
            (
                Situation {
                    oldest: ago(5_000),
                    ..base
                },
                Next::Flush,
            ),
            // After a take-over the first plan waits for little, and never longer than any other.
            (
                Situation {
                    oldest: ago(100),
                    is_first: true,
                    ..base
                },
                Next::Wait(Some(now - Duration::from_millis(100) + FIRST_PLAN_AGE)),
            ),
            (
                Situation {
                    oldest: Some(now - FIRST_PLAN_AGE),
                    is_first: true,
                    ..base
                },
                Next::Flush,
            ),
            (
                Situation {
                    oldest: ago(50),
                    max_age: Duration::from_millis(50),
                    is_first: true,
                    ..base
                },
                Next::Flush,
            ),
            (
                Situation {
                    oldest: ago(0),
                    bytes: 8 << 20,
                    ..base
                },
                Next::Flush,
            ),
            (
                Situation {
                    oldest: ago(0),
                    records: PLAN_RECORDS,
                    ..base
                },
                Next::Flush,
            ),
            (
                Situation {
                    oldest: ago(0),
                    is_cut: true,
                    ..base
                },
                Next::Flush,
            ),
            (
                Situation {
                    oldest: ago(0),
                    at_end: true,
                    ..base
                },
                Next::Flush,
            ),
            (
                Situation {
                    open_since: ago(500),
                    ..base
                },
                Next::Commit,
            ),
            (
                Situation {
                    open_since: ago(0),
                    at_end: true,
                    ..base
                },
                Next::Commit,
            ),
            (
                Situation {
                    open_since: ago(100),
                    ..base
                },
                Next::Wait(Some(now + Duration::from_millis(400))),
            ),
            // What was read goes to the next owner, what was written is committed.
            (
                Situation {
                    oldest: ago(5_000),
                    open_since: ago(0),
                    is_leaving: true,
                    ..base
                },
                Next::Commit,
            ),
            (
                Situation {
                    oldest: ago(5_000),
                    is_leaving: true,
                    ..base
                },
                Next::End,
            ),
        ];
        for (situation, expected) in cases {
            assert_eq!(next(situation), expected, "{situation:?}");
        }
    }
}
