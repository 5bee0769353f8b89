//! A failing run made shorter: fewer kinds of faults, fewer faults, fewer events, the same rule
//! broken; and the words in which it is told.

use std::fmt::Write as _;

use crate::run::{Outcome, run};
use crate::scenario::{Cuts, Fault, Scenario};

/// Most runs that shortening takes.
const MAX_RUNS: usize = 400;

/// Most faults that are tried one by one.
const MAX_SKIPPED: u64 = 120;

/// Lines of the trace that are told besides the faults.
const LAST_LINES: usize = 40;

/// The shortest run that was found.
#[derive(Debug, Clone)]
pub struct Shrunk {
    /// What is left out.
    pub cuts: Cuts,
    /// What happens then.
    pub outcome: Outcome,
    /// Runs that it took.
    pub runs: usize,
}

/// Shortens a failing run.
#[must_use]
pub fn shrink(outcome: &Outcome, cuts: &Cuts) -> Shrunk {
    let mut best = Shrunk {
        cuts: cuts.clone(),
        outcome: outcome.clone(),
        runs: 0,
    };
    // Kinds of faults, until none can go; then how many; then events, and the kinds once more.
    for _ in 0..2 {
        for fault in Fault::ALL {
            if Scenario::of(outcome.seed, &best.cuts).rate(*fault) > 0 {
                let mut cuts = best.cuts.clone();
                cuts.without.insert(*fault);
                best.try_with(cuts);
            }
        }
        best.fewer(
            |cuts, most| cuts.max_faults = Some(most),
            |outcome| outcome.decided,
        );
        best.fewer(
            |cuts, most| cuts.events = usize::try_from(most).ok(),
            |outcome| outcome.events as u64,
        );
        // The last one is what breaks the rule; most of those before it have nothing to do with it.
        for number in (0..best.outcome.decided.min(MAX_SKIPPED)).rev() {
            let mut cuts = best.cuts.clone();
            if cuts.skip.insert(number) {
                best.try_with(cuts);
            }
        }
    }
    best
}

impl Shrunk {
    /// True when the same rule is broken with these cuts, too.
    fn try_with(&mut self, cuts: Cuts) -> bool {
        if self.runs >= MAX_RUNS {
            return false;
        }
        self.runs += 1;
        let outcome = run(self.outcome.seed, &cuts);
        let rule = |outcome: &Outcome| outcome.violation.as_ref().map(|violation| violation.rule);
        let same = rule(&outcome) == rule(&self.outcome);
        if same {
            self.cuts = cuts;
            self.outcome = outcome;
        }
        same
    }

    /// Looks for the least of something with which the rule is still broken.
    fn fewer(&mut self, set: impl Fn(&mut Cuts, u64), count: impl Fn(&Outcome) -> u64) {
        let (mut low, mut high) = (0, count(&self.outcome));
        while low < high {
            let middle = low + (high - low) / 2;
            let mut cuts = self.cuts.clone();
            set(&mut cuts, middle);
            match self.try_with(cuts) {
                true => high = middle.min(count(&self.outcome).max(low)),
                false => low = middle + 1,
            }
        }
    }

    /// The command that runs it again.
    #[must_use]
    pub fn command(&self) -> String {
        let mut command = format!("just sim-seed {}", self.outcome.seed);
        let Cuts {
            events,
            without,
            max_faults,
            skip,
            mutation,
        } = &self.cuts;
        // Writing to a String cannot fail.
        if let Some(events) = events {
            let _ = write!(command, " --events {events}");
        }
        if let Some(faults) = max_faults {
            let _ = write!(command, " --max-faults {faults}");
        }
        let skip: Vec<_> = skip
            .iter()
            .filter(|number| **number < self.outcome.decided)
            .map(u64::to_string)
            .collect();
        if !skip.is_empty() {
            let _ = write!(command, " --skip {}", skip.join(","));
        }
        if !without.is_empty() {
            let names: Vec<_> = without.iter().map(|fault| fault.name()).collect();
            let _ = write!(command, " --without {}", names.join(","));
        }
        if let Some(mutation) = mutation {
            let _ = write!(command, " --mutation {mutation:?}");
        }
        command
    }

    /// What happened, shortened: the faults, and the last lines before the rule was broken.
    #[must_use]
    pub fn story(&self) -> String {
        let Outcome {
            seed,
            trace,
            violation,
            faults,
            events,
            ..
        } = &self.outcome;
        let mut story = format!("seed {seed}, {events} events, {faults} faults: ");
        match violation {
            Some(violation) => {
                let _ = writeln!(story, "{} is broken: {}", violation.rule, violation.what);
            }
            None => story.push_str("no rule is broken\n"),
        }
        let first = trace.len().saturating_sub(LAST_LINES);
        let told = |line: &str| {
            [
                " !", " starts", " dies", " ends", " drains", " split", " merged",
            ]
            .iter()
            .any(|word| line.contains(word))
        };
        let mut left_out = 0;
        for (number, line) in trace.iter().enumerate() {
            if number == 0 || number >= first || told(line) {
                if left_out > 0 {
                    let _ = writeln!(story, "        ({left_out} lines)");
                }
                left_out = 0;
                let _ = writeln!(story, "{line}");
            } else {
                left_out += 1;
            }
        }
        let _ = write!(story, "again: {}", self.command());
        story
    }
}
