//! What is written, in either format.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write as _};

use anyhow::{Context as _, Result, anyhow, ensure};
use millpond_format::keys::SortKey;
use millpond_reader::Event;
use millpond_s3_sink::encode::parquet::{Table, splice};
use millpond_s3_sink::encode::{Constants, EncodeError, Format};
use millpond_s3_sink::{events, names};

use super::{State, Work};
use crate::cli::ExportFormat;

/// Zstd level of columns: that of the S3 sink.
const LEVEL: i32 = 3;

/// An event and its group.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// Group.
    pub group: &'a str,
    /// Event.
    pub event: &'a Event,
}

/// An output that takes events; what it took is durable after [`Output::sync`].
pub enum Output {
    /// One event a line.
    Lines {
        /// Behind the lines that are there.
        file: BufWriter<File>,
        /// Length of the file.
        bytes: u64,
    },
    /// Columns.
    Columns {
        /// The file that takes events.
        table: Option<Box<Table<File>>>,
        /// Whole files before it.
        parts: u64,
    },
}

impl Output {
    /// Goes on where the state says, and cuts off what was written behind it.
    ///
    /// # Errors
    /// When the files are not as the state says.
    pub fn open(format: ExportFormat, work: &Work, state: &State) -> Result<Self> {
        match format {
            ExportFormat::Ndjson => {
                let path = work.path("data");
                let context = || format!("cannot open `{}`", path.display());
                let file = OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(&path)
                    .with_context(context)?;
                let found = file.metadata().with_context(context)?.len();
                ensure!(
                    found >= state.bytes,
                    "`{}` has {found} bytes, {} were written; remove its folder to begin anew",
                    path.display(),
                    state.bytes
                );
                file.set_len(state.bytes).with_context(context)?;
                Ok(Self::Lines {
                    file: BufWriter::with_capacity(1 << 20, file),
                    bytes: state.bytes,
                })
            }
            ExportFormat::Parquet => Ok(Self::Columns {
                table: None,
                parts: state.parts,
            }),
        }
    }

    /// Name in the folder of what becomes the file.
    #[must_use]
    pub fn name(format: ExportFormat) -> &'static str {
        match format {
            ExportFormat::Ndjson => "data",
            ExportFormat::Parquet => "whole",
        }
    }

    /// Appends an event.
    ///
    /// # Errors
    /// When it does not fit the format, or cannot be written.
    pub fn push(&mut self, work: &Work, row: Row<'_>) -> Result<()> {
        match self {
            Self::Lines { file, bytes } => {
                let value = &row.event.value;
                if let Some((_, problem)) = (Format::Ndjson { level: 0 }).refuses(value) {
                    let item = &row.event.item;
                    return Err(anyhow!(
                        "an event of item `{}`, `{}` is no line: {problem}",
                        item.pk,
                        item.sk
                    ));
                }
                file.write_all(value)
                    .and_then(|()| file.write_all(b"\n"))
                    .context("cannot write the lines")?;
                *bytes += value.len() as u64 + 1;
            }
            Self::Columns { table, parts } => {
                let table = match table {
                    Some(table) => table,
                    None => {
                        // One that a death left there is written anew.
                        let path = work.path(&part_name(*parts));
                        let file = File::create(&path)
                            .with_context(|| format!("cannot make `{}`", path.display()))?;
                        table.insert(Box::new(Table::new(file, LEVEL)?))
                    }
                };
                push(table, row)?;
            }
        }
        Ok(())
    }

    /// Makes what was written durable, and counts it.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn sync(&mut self, state: &mut State) -> Result<()> {
        match self {
            Self::Lines { file, bytes } => {
                file.flush()
                    .and_then(|()| file.get_ref().sync_all())
                    .context("cannot write the lines")?;
                state.bytes = *bytes;
            }
            Self::Columns { table, parts } => {
                if let Some(table) = table.take() {
                    let file = table.finish()?;
                    file.sync_all().context("cannot write the columns")?;
                    *parts += 1;
                }
                state.parts = *parts;
            }
        }
        Ok(())
    }

    /// Makes the one file out of what is there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn assemble(format: ExportFormat, work: &Work, state: &State) -> Result<()> {
        if format == ExportFormat::Ndjson {
            return Ok(());
        }
        let parts = (0..state.parts).map(|number| {
            File::open(work.path(&part_name(number)))
                .map_err(|error| EncodeError(format!("part {number}: {error}")))
        });
        let whole = File::create(work.path("whole")).context("cannot make the file")?;
        let whole = splice(parts, whole, LEVEL).context("cannot put the parts together")?;
        whole.sync_all().context("cannot write the columns")
    }
}

fn part_name(number: u64) -> String {
    format!("{number}.parquet")
}

/// The columns of an event: those of the S3 sink. The offset is that of its item, since items of a table
/// are joined from envelopes.
fn push(table: &mut Table<File>, row: Row<'_>) -> Result<(), EncodeError> {
    let Row { group, event } = row;
    let offset = SortKey::parse(&event.item.sk).map_or(0, |sort_key| sort_key.base_offset);
    let of = Constants {
        group,
        partition: event.topic_partition,
    };
    let event = events::Event {
        place: names::EventPlace {
            offset,
            envelope: 0,
            event: 0,
        },
        time_ms: event.time_ms,
        source: events::Source {
            stream: &event.origin.stream,
            shard: &event.origin.shard,
            epoch: event.origin.epoch,
            ordinal: event.origin.ordinal,
            sequence: None,
        },
        value: &event.value,
    };
    table.push(&event, of)
}
