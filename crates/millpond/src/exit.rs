//! How the process ends: documented exit codes, shown by `--help`.

use std::process::ExitCode;

use millpond_connector::manifest::is_unreadable_file;

/// Why the process ends as it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// What was asked for was done.
    Success,
    /// It failed while running; the message says what to do.
    Failure,
    /// The command line is wrong (the number is clap's own).
    Usage,
    /// The configuration is wrong, or cannot be read.
    Configuration,
    /// `demo` read back something else than was emitted.
    Mismatch,
    /// A command that reads a table went past damaged items.
    Damaged,
    /// `verify` found something.
    Findings,
    /// A signal ended `demo`, or a second one a drain.
    Interrupted,
}

/// The exit codes, as `--help` shows them.
pub const HELP: &str = "\
Exit codes:
  0    done; also after a drain on SIGTERM or Ctrl-C
  1    failed while running
  2    wrong command line
  3    wrong or unreadable file of configuration or secrets
  4    demo: what was read back is not what was emitted
  5    read, tail, export, groups, inspect: damaged items were skipped (--skip-damaged)
  6    verify: events are missing, repeated or damaged, or gaps were recorded
  130  a second SIGTERM or Ctrl-C ended the process before it had drained; demo: the first one";

impl Exit {
    /// How a process ends that failed with this.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Self {
        match is_unreadable_file(error) {
            true => Self::Configuration,
            false => Self::Failure,
        }
    }

    /// The number that the shell sees.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Configuration => 3,
            Self::Mismatch => 4,
            Self::Damaged => 5,
            Self::Findings => 6,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_every_code() {
        for exit in [
            Exit::Success,
            Exit::Failure,
            Exit::Usage,
            Exit::Configuration,
            Exit::Mismatch,
            Exit::Damaged,
            Exit::Findings,
            Exit::Interrupted,
        ] {
            let listed = format!("\n  {:<3}  ", exit.code());
            assert!(HELP.contains(&listed), "{exit:?}");
        }
    }
}
