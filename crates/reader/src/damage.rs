//! What is wrong with an item.

use millpond_format::error::DecodeError;
use millpond_format::origin::OriginError;

use crate::event::ItemKey;

/// An item that does not pass its checks: not written by Millpond, truncated or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "damaged item in table `{table}`: partition key `{}`, sort key `{}`: {check}",
    item.pk, item.sk
)]
pub struct Damage {
    /// Table.
    pub table: String,
    /// Key of the item.
    pub item: ItemKey,
    /// The check that failed.
    pub check: Check,
}

/// A check that an item did not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Check {
    /// The sort key has another form than the sink writes.
    #[error("the sort key is not `<time>/<offset>/<index>`: not written by Millpond")]
    SortKey,
    /// An attribute is missing.
    #[error("attribute `{name}` is missing")]
    MissingAttribute {
        /// Its name.
        name: &'static str,
    },
    /// An attribute has another type.
    #[error("attribute `{name}` is not of type {expected}")]
    AttributeType {
        /// Its name.
        name: &'static str,
        /// DynamoDB's letter for the type that it must have.
        expected: char,
    },
    /// An attribute says something else than the header.
    #[error("attribute `{name}` is {stored}, by the header it is {header}")]
    AttributeMismatch {
        /// Its name.
        name: &'static str,
        /// Its value.
        stored: i64,
        /// Value by the header.
        header: i64,
    },
    /// The header section cannot be read.
    #[error("header: {0}")]
    Header(DecodeError),
    /// The header section belongs to another group.
    #[error("header: it is of group `{found}`")]
    Group {
        /// Group that the header names.
        found: String,
    },
    /// The header section is not that of an item in a chain.
    #[error("header: it is not of an item of events but of {found}")]
    NotAnItem {
        /// What it is.
        found: &'static str,
    },
    /// The sort key's time is before the item's last event.
    #[error("the sort key's time is before the last event's, {last_time_ms}")]
    SortTime {
        /// Last event time by the header.
        last_time_ms: i64,
    },
    /// The payload is not as long as the frame index says.
    #[error("payload has {found} bytes, by the header {expected}")]
    PayloadLength {
        /// Bytes found.
        found: usize,
        /// Bytes of all frames by the header.
        expected: usize,
    },
    /// A frame cannot be read.
    #[error("frame {index}: {error}")]
    Frame {
        /// Index of the frame in the item.
        index: usize,
        /// What is wrong.
        error: DecodeError,
    },
    /// The dictionary that its frames need cannot be had.
    #[error(
        "dictionary {id}, which its frames need, {what}: row `{pk}` / `{sk}` of the table; restore it from a backup"
    )]
    Dictionary {
        /// Its id.
        id: u64,
        /// Partition key of its row.
        pk: String,
        /// Sort key of its row.
        sk: String,
        /// What is wrong with it.
        what: String,
    },
    /// A part of an event is not the one that must come now.
    #[error(
        "part {found} of {count} of an event, where part {expected} must be: a part is missing"
    )]
    PartOrder {
        /// Index found, from 0.
        found: u32,
        /// Index that must be here.
        expected: u32,
        /// Parts of the event.
        count: u32,
    },
    /// The chain goes on, or ends, before an event's last part.
    #[error("parts {missing} and on, of {count} of an event, do not follow this item")]
    PartsMissing {
        /// Index of the first missing part.
        missing: u32,
        /// Parts of the event.
        count: u32,
    },
    /// The parts are there, but do not make up the event.
    #[error(
        "the {count} parts of an event have {found} bytes with checksum {computed:08x}, must have {expected} with {stored:08x}"
    )]
    PartsChanged {
        /// Parts of the event.
        count: u32,
        /// Bytes of the parts.
        found: u64,
        /// Bytes of the event.
        expected: u64,
        /// CRC-32C of the parts' bytes.
        computed: u32,
        /// CRC-32C of the event.
        stored: u32,
    },
    /// The sources of the header count other events than its frames.
    #[error("header: its sources count {sources} events, its frames {frames}")]
    SourceCount {
        /// Events by the sources.
        sources: u64,
        /// Events by the frames.
        frames: u64,
    },
    /// An event has an ordinal that its source does not span.
    #[error("an event has ordinal {ordinal}, which is not one of its source")]
    Ordinal {
        /// The ordinal.
        ordinal: u64,
    },
    /// The origin of a plain item cannot be read.
    #[error("attribute `o`: {0}")]
    Origin(OriginError),
    /// A directory row is not of the form that the sink writes.
    #[error("not a row of the directory of groups")]
    DirectoryRow,
}
