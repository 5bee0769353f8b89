//! Objects: what their bytes are. The same events in the same order give the same bytes.

mod ndjson;
pub mod parquet;

use schemars::JsonSchema;
use serde::Deserialize;

use self::ndjson::Lines;
use self::parquet::Table;
use crate::events::Event;

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Lines as they were produced, compressed.
    Ndjson {
        /// Zstd level.
        level: i32,
    },
    /// Columns, with where each event comes from.
    Parquet {
        /// Zstd level.
        level: i32,
    },
}

/// Choice of a format in a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FormatName {
    /// One event a line, as it was produced, compressed with zstd.
    Ndjson,
    /// Columns, with where each event comes from, compressed with zstd.
    Parquet,
}

/// An encoder failed, which only a lack of memory explains.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EncodeError(pub String);

/// What does not change within an object.
#[derive(Debug, Clone, Copy)]
pub struct Constants<'a> {
    /// Group.
    pub group: &'a str,
    /// Topic partition.
    pub partition: u32,
}

/// An object that still takes events.
pub enum Encoder {
    /// Lines.
    Lines(Lines),
    /// Columns.
    Table(Box<Table>),
}

impl Format {
    /// File name extension of objects.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Ndjson { .. } => "ndjson.zst",
            Self::Parquet { .. } => "parquet",
        }
    }

    /// Why an event cannot be in an object of this format: a stable name, and what is wrong.
    #[must_use]
    pub fn refuses(self, value: &[u8]) -> Option<(&'static str, String)> {
        match self {
            Self::Ndjson { .. } => ndjson::problem(value).map(|what| ("not-ndjson", what)),
            Self::Parquet { .. } => None,
        }
    }

    /// An empty object.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn encoder(self) -> Result<Encoder, EncodeError> {
        Ok(match self {
            Self::Ndjson { level } => Encoder::Lines(Lines::new(level)?),
            Self::Parquet { level } => Encoder::Table(Box::new(Table::new(Vec::new(), level)?)),
        })
    }
}

impl Encoder {
    /// Appends an event.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn push(&mut self, event: &Event<'_>, of: Constants<'_>) -> Result<(), EncodeError> {
        match self {
            Self::Lines(lines) => lines.push(event.value),
            Self::Table(table) => table.push(event, of),
        }
    }

    /// The bytes of the object.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn finish(self) -> Result<Vec<u8>, EncodeError> {
        match self {
            Self::Lines(lines) => lines.finish(),
            Self::Table(table) => table.finish(),
        }
    }
}
