//! Columns of events in a Parquet file.
//!
//! | column | type | is |
//! |---|---|---|
//! | `event_time` | timestamp, ms, UTC | event time |
//! | `group` | string | group |
//! | `stream`, `shard` | string, null without an origin | where the event comes from |
//! | `epoch`, `ordinal` | 64-bit integer, null without an origin | its number among its shard's events of this topic partition |
//! | `sequence` | string, null for packed events | Kinesis sequence number |
//! | `sub_sequence` | 64-bit integer, null for packed events | index within an aggregated record |
//! | `topic_partition` | 32-bit integer | topic partition |
//! | `topic_offset` | 64-bit integer | its topic offset; of a packed event, the first offset of its batch |
//! | `event` | bytes | the event as it was produced |

use std::io::Write;
use std::sync::{Arc, LazyLock};

use parquet::basic::{Compression, ZstdLevel};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::properties::{WriterProperties, WriterPropertiesPtr};
use parquet::file::reader::ChunkReader;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{ColumnPath, TypePtr};

use super::{Constants, EncodeError};
use crate::events::Event;
use crate::limits::{ROW_GROUP_BYTES, ROW_GROUP_ROWS};

const SCHEMA: &str = "
message event {
    REQUIRED INT64 event_time (TIMESTAMP(MILLIS,true));
    REQUIRED BYTE_ARRAY group (STRING);
    OPTIONAL BYTE_ARRAY stream (STRING);
    OPTIONAL BYTE_ARRAY shard (STRING);
    OPTIONAL INT64 epoch;
    OPTIONAL INT64 ordinal;
    OPTIONAL BYTE_ARRAY sequence (STRING);
    OPTIONAL INT64 sub_sequence;
    REQUIRED INT32 topic_partition;
    REQUIRED INT64 topic_offset;
    REQUIRED BYTE_ARRAY event;
}";

static TYPE: LazyLock<Result<TypePtr, EncodeError>> =
    LazyLock::new(|| Ok(Arc::new(parse_message_type(SCHEMA)?)));

/// Columns whose values hardly repeat: a dictionary of them would be thrown away again.
const WITHOUT_DICTIONARY: [&str; 4] = ["event_time", "ordinal", "sequence", "event"];

/// Names the layout, not the version of this program: an upgrade between a crash and the replay
/// must not change the bytes.
const CREATED_BY: &str = "millpond version 1.0.0 (build s3-sink)";

impl From<ParquetError> for EncodeError {
    fn from(error: ParquetError) -> Self {
        Self(error.to_string())
    }
}

/// Values of a column that may be null.
#[derive(Debug)]
struct Nullable<T> {
    values: Vec<T>,
    levels: Vec<i16>,
}

impl<T> Default for Nullable<T> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            levels: Vec::new(),
        }
    }
}

impl<T> Nullable<T> {
    fn push(&mut self, value: Option<T>) {
        self.levels.push(i16::from(value.is_some()));
        self.values.extend(value);
    }
}

/// Rows that are not written yet.
#[derive(Default)]
struct Rows {
    event_time: Vec<i64>,
    group: Vec<ByteArray>,
    stream: Nullable<ByteArray>,
    shard: Nullable<ByteArray>,
    epoch: Nullable<i64>,
    ordinal: Nullable<i64>,
    sequence: Nullable<ByteArray>,
    sub_sequence: Nullable<i64>,
    topic_partition: Vec<i32>,
    topic_offset: Vec<i64>,
    event: Vec<ByteArray>,
    bytes: usize,
}

/// A file.
pub struct Table<W: Write + Send = Vec<u8>> {
    file: SerializedFileWriter<W>,
    rows: Rows,
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn text(text: &str) -> ByteArray {
    ByteArray::from(text)
}

fn properties(level: i32) -> Result<WriterPropertiesPtr, EncodeError> {
    let mut builder = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(level)?));
    for name in WITHOUT_DICTIONARY {
        builder = builder.set_column_dictionary_enabled(ColumnPath::from(name), false);
    }
    Ok(Arc::new(builder.build()))
}

impl<W: Write + Send> Table<W> {
    /// A file of no rows yet; `level` is that of zstd.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub fn new(out: W, level: i32) -> Result<Self, EncodeError> {
        Ok(Self {
            file: writer(out, level)?,
            rows: Rows::default(),
        })
    }

    /// Appends an event. Holds at most a row group.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub fn push(&mut self, event: &Event<'_>, of: Constants<'_>) -> Result<(), EncodeError> {
        let source = &event.source;
        let known = !source.stream.is_empty();
        let rows = &mut self.rows;
        rows.event_time.push(event.time_ms);
        rows.group.push(text(of.group));
        rows.stream.push(known.then(|| text(source.stream)));
        rows.shard.push(known.then(|| text(source.shard)));
        rows.epoch.push(known.then(|| signed(source.epoch)));
        rows.ordinal.push(known.then(|| signed(source.ordinal)));
        rows.sequence
            .push(source.sequence.map(|(one, _)| text(one)));
        rows.sub_sequence
            .push(source.sequence.map(|(_, sub)| i64::from(sub)));
        rows.topic_partition
            .push(i32::try_from(of.partition).unwrap_or(i32::MAX));
        rows.topic_offset.push(signed(event.place.offset));
        rows.event.push(ByteArray::from(event.value.to_vec()));
        rows.bytes += event.value.len();
        if rows.bytes >= ROW_GROUP_BYTES || rows.event.len() >= ROW_GROUP_ROWS {
            self.write_rows()?;
        }
        Ok(())
    }

    fn write_rows(&mut self) -> Result<(), EncodeError> {
        let rows = std::mem::take(&mut self.rows);
        if rows.event.is_empty() {
            return Ok(());
        }
        let mut group = self.file.next_row_group()?;
        let out = &mut group;
        column::<Int64Type, W>(out, &rows.event_time, None)?;
        column::<ByteArrayType, W>(out, &rows.group, None)?;
        nullable::<ByteArrayType, W>(out, &rows.stream)?;
        nullable::<ByteArrayType, W>(out, &rows.shard)?;
        nullable::<Int64Type, W>(out, &rows.epoch)?;
        nullable::<Int64Type, W>(out, &rows.ordinal)?;
        nullable::<ByteArrayType, W>(out, &rows.sequence)?;
        nullable::<Int64Type, W>(out, &rows.sub_sequence)?;
        column::<Int32Type, W>(out, &rows.topic_partition, None)?;
        column::<Int64Type, W>(out, &rows.topic_offset, None)?;
        column::<ByteArrayType, W>(out, &rows.event, None)?;
        group.close()?;
        Ok(())
    }

    /// Writes what is held and the footer.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub fn finish(mut self) -> Result<W, EncodeError> {
        self.write_rows()?;
        Ok(self.file.into_inner()?)
    }
}

/// Makes one file of several that [`Table`] wrote, in their order, without decoding a column.
///
/// # Errors
/// When a part is not a whole file of these columns, or `out` cannot be written to.
pub fn splice<R: ChunkReader + 'static, W: Write + Send>(
    parts: impl IntoIterator<Item = Result<R, EncodeError>>,
    out: W,
    level: i32,
) -> Result<W, EncodeError> {
    let mut file = writer(out, level)?;
    for part in parts {
        let part = part?;
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&part)?;
        if metadata.file_metadata().schema() != file.schema_descr().root_schema() {
            return Err(EncodeError("a part has other columns".into()));
        }
        for rows in metadata.row_groups() {
            let mut group = file.next_row_group()?;
            for column in rows.columns() {
                let chunk = ColumnCloseResult {
                    bytes_written: u64::try_from(column.compressed_size()).unwrap_or(0),
                    rows_written: u64::try_from(rows.num_rows()).unwrap_or(0),
                    metadata: column.clone(),
                    bloom_filter: None,
                    column_index: None,
                    offset_index: None,
                };
                group.append_column(&part, chunk)?;
            }
            group.close()?;
        }
    }
    Ok(file.into_inner()?)
}

fn writer<W: Write + Send>(out: W, level: i32) -> Result<SerializedFileWriter<W>, EncodeError> {
    let properties = properties(level)?;
    Ok(SerializedFileWriter::new(out, TYPE.clone()?, properties)?)
}

fn nullable<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    column_values: &Nullable<T::T>,
) -> Result<(), EncodeError> {
    column::<T, W>(group, &column_values.values, Some(&column_values.levels))
}

/// Writes the next column of a row group.
fn column<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> Result<(), EncodeError> {
    let Some(mut column) = group.next_column()? else {
        return Err(EncodeError("more columns than the schema has".into()));
    };
    column.typed::<T>().write_batch(values, levels, None)?;
    Ok(column.close()?)
}
