//! Progress for people: a bar on a terminal, a line now and then elsewhere. Always on stderr.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::commands::say;

/// Shows how far something is.
#[derive(Debug)]
pub struct Progress {
    title: &'static str,
    bar: Option<ProgressBar>,
    every: Duration,
    next_line: Instant,
}

impl Progress {
    /// Starts to show progress towards `total`, if that is known; without a terminal one line
    /// appears `every` so often.
    #[must_use]
    pub fn start(title: &'static str, total: Option<u64>, every: Duration) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(5));
            let template = if total.is_some() {
                "{prefix:<9} [{bar:30}] {percent:>3}%  {wide_msg}"
            } else {
                "{prefix:<9} {spinner} {elapsed:>4}  {wide_msg}"
            };
            let style = ProgressStyle::with_template(template);
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
                .with_prefix(title)
        });
        Self {
            title,
            bar,
            every,
            next_line: Instant::now() + every,
        }
    }

    /// Shows `position` and what there is to say about it.
    pub fn update(&mut self, position: u64, message: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
            bar.set_message(message());
        } else if Instant::now() >= self.next_line {
            say(&format!("{}: {}", self.title, message()));
            self.next_line = Instant::now() + self.every;
        }
    }

    /// Ends it with a last line.
    pub fn finish(self, message: &str) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
        say(&format!("{}: {message}", self.title));
    }
}
