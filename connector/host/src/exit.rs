//! How the process ends; the codes are those of the command line tool.

use std::process::ExitCode;

/// Why the process ends as it does. A second signal ends it elsewhere, with 130.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Drained.
    Success,
    /// It failed while running.
    Failure,
    /// The command line is wrong.
    Usage,
    /// The configuration is wrong.
    Configuration,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::Configuration => 3,
        })
    }
}
