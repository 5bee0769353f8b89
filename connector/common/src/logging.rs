//! Logs go to stderr, filtered by `RUST_LOG`, and secrets are blacked out on the way.

use std::io::{self, IsTerminal, Write};
use std::str::FromStr;

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::secret::Redactor;

/// Filter in the absence of `RUST_LOG`, and what a bare `info` in it means: `cdk` sets that for every
/// connector, and Fluvio's own crates tell of each connection at that level.
pub const DEFAULT_FILTER: &str = "info,fluvio=warn";

/// Format of the log, unless the command line gives one.
pub const FORMAT_VARIABLE: &str = "MILLPOND_LOG_FORMAT";

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// The format that [`FORMAT_VARIABLE`] gives, text without it.
    ///
    /// # Errors
    /// Its value is no format.
    pub fn from_process() -> Result<Self, LoggingError> {
        match std::env::var(FORMAT_VARIABLE) {
            Ok(given) if !given.is_empty() => given.parse(),
            _ => Ok(Self::Text),
        }
    }
}

impl FromStr for LogFormat {
    type Err = LoggingError;

    fn from_str(given: &str) -> Result<Self, LoggingError> {
        match given {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(LoggingError::Format {
                given: given.to_owned(),
            }),
        }
    }
}

/// Something beside the log that takes spans and events, whatever the log's filter says.
pub type ExtraLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// `RUST_LOG` is no filter.
    #[error(
        "`RUST_LOG` is `{given}`: {reason}; expected for example `info` or `millpond=debug,warn`"
    )]
    Filter {
        /// Its value.
        given: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The log's format is none.
    #[error("the log format is `{given}`: expected `text` or `json`")]
    Format {
        /// What was given.
        given: String,
    },
    /// Something else in this process logs already.
    #[error("logging is set up already")]
    Twice,
}

/// Sets up logging for the whole process, and `extra` beside it.
///
/// # Errors
/// `RUST_LOG` cannot be understood, or logging is set up already.
pub fn init(
    format: LogFormat,
    redactor: Redactor,
    extra: Option<ExtraLayer>,
) -> Result<(), LoggingError> {
    let given = std::env::var("RUST_LOG").unwrap_or_default();
    let filter = filter(&given)?;
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(format == LogFormat::Text && io::stderr().is_terminal())
        .with_writer(RedactedStderr(redactor));
    let lines = match format {
        LogFormat::Text => lines.with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(extra).with(lines);
    subscriber.try_init().map_err(|_| LoggingError::Twice)
}

fn filter(given: &str) -> Result<EnvFilter, LoggingError> {
    let text = match given.trim() {
        "" | "info" => DEFAULT_FILTER,
        text => text,
    };
    EnvFilter::try_new(text).map_err(|error| LoggingError::Filter {
        given: given.to_owned(),
        reason: error.to_string(),
    })
}

/// Makes writers that black out secrets.
#[derive(Debug, Clone)]
struct RedactedStderr(Redactor);

impl<'a> MakeWriter<'a> for RedactedStderr {
    type Writer = Redacted<'a, io::Stderr>;

    fn make_writer(&'a self) -> Self::Writer {
        Redacted {
            redactor: &self.0,
            inner: io::stderr(),
        }
    }
}

/// A writer of whole events: the subscriber writes each in one piece.
struct Redacted<'a, W> {
    redactor: &'a Redactor,
    inner: W,
}

impl<W: Write> Write for Redacted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        self.inner
            .write_all(self.redactor.redact(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn secrets_are_blacked_out_as_they_are_and_as_json() {
        let redactor = Redactor::default();
        redactor.hide(&Secret::new("hunter2\"quoted"));
        redactor.hide(&Secret::new("abc"));
        let mut out = Vec::new();
        let mut writer = Redacted {
            redactor: &redactor,
            inner: &mut out,
        };
        let line = b"text hunter2\"quoted json hunter2\\\"quoted short abc\n";
        assert_eq!(writer.write(line).expect("a write"), line.len());
        assert_eq!(
            String::from_utf8_lossy(&out),
            "text [secret] json [secret] short abc\n"
        );
    }

    #[test]
    fn the_filter_defaults_to_info_and_refuses_nonsense() {
        for plain in ["", "info", " info "] {
            let text = filter(plain).expect("a filter").to_string();
            assert_eq!(text, "fluvio=warn,info", "`{plain}`");
        }
        let given = filter("fluvio=info,info").expect("a filter").to_string();
        assert_eq!(given, "fluvio=info,info");
        assert!(filter("millpond=debug,warn").is_ok());
        let error = filter("millpond=loud=er").expect_err("no filter");
        assert!(error.to_string().contains("`millpond=loud=er`"), "{error}");
    }
}
