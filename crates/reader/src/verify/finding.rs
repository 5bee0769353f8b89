//! What is wrong with a table, in words and as JSON.

use millpond_format::gap::Gap;
use millpond_format::stream_gap::StreamGap;
use serde_json::{Value, json};

use crate::damage::Check;
use crate::event::ItemKey;

/// Where events of a shard are counted: one numbering in one topic partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardKey {
    /// Topic partition.
    pub topic_partition: u32,
    /// Stream name.
    pub stream: Box<str>,
    /// Shard id.
    pub shard: Box<str>,
    /// Numbering of the ordinals.
    pub epoch: u64,
}

impl std::fmt::Display for ShardKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "shard `{}` of stream `{}`, numbering {}, topic partition {}",
            self.shard, self.stream, self.epoch, self.topic_partition
        )
    }
}

/// Something that contradicts completeness.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// An item, or a frame of one, fails its checks.
    #[error("damaged item: partition key `{}`, sort key `{}`: {check}", item.pk, item.sk)]
    DamagedItem {
        /// Its key.
        item: ItemKey,
        /// The failed check.
        check: Check,
    },
    /// The totals of a chain say that items are missing.
    #[error(
        "items are missing: {items} with {events} events before partition key `{}`, sort key `{}`{}",
        item.pk, item.sk, after.as_ref().map(|sk| format!(", after sort key `{sk}`")).unwrap_or_default()
    )]
    MissingItems {
        /// The item whose totals are ahead.
        item: ItemKey,
        /// Sort key of the item before it.
        after: Option<String>,
        /// Items missing.
        items: u64,
        /// Events missing.
        events: u64,
    },
    /// The totals of a chain do not continue those before.
    #[error(
        "an item is there twice, or was changed: partition key `{}`, sort key `{}`: its totals are \
         {found_items} items and {found_events} events, by the items before it they must be \
         {items} and {events}", item.pk, item.sk
    )]
    RepeatedItem {
        /// The item.
        item: ItemKey,
        /// Items by its totals.
        found_items: u64,
        /// Events by its totals.
        found_events: u64,
        /// Items by those before it.
        items: u64,
        /// Events by those before it.
        events: u64,
    },
    /// An item begins in the topic before the one that it follows in its chain.
    #[error("items overlap: partition key `{}`, sort key `{}` begins at topic offset {offset}, which is before the item that precedes it", item.pk, item.sk)]
    Overlap {
        /// The item.
        item: ItemKey,
        /// Its first topic offset.
        offset: u64,
    },
    /// A slice by time could miss the item.
    #[error("the directory's bound is too low: partition key `{}`, sort key `{}` lies {late_ms} ms after its first event, the bound is {bound_ms}", item.pk, item.sk)]
    Late {
        /// The item.
        item: ItemKey,
        /// How late it is.
        late_ms: i64,
        /// What the directory says.
        bound_ms: i64,
    },
    /// Ordinals are in neither the table nor the dead letters nor a recorded gap.
    #[error(
        "events are missing: {missing} of ordinals {first} to {last} of {key}{}",
        hint.map(|hint| format!("; {hint}")).unwrap_or_default()
    )]
    MissingEvents {
        /// Where.
        key: ShardKey,
        /// First ordinal that must be there.
        first: u64,
        /// Last ordinal that must be there.
        last: u64,
        /// How many are missing.
        missing: u64,
        /// What else it could be.
        hint: Option<&'static str>,
    },
    /// More events than ordinals.
    #[error(
        "events are there twice: {key} has ordinals {first} to {last} and {repeated} events more than that"
    )]
    RepeatedEvents {
        /// Where.
        key: ShardKey,
        /// First ordinal.
        first: u64,
        /// Last ordinal.
        last: u64,
        /// Events too many.
        repeated: u64,
    },
    /// The count is right and the ordinals are not.
    #[error(
        "events are missing and others are there twice: {key} has as many events as ordinals {first} to {last}, but not each of them once"
    )]
    OtherOrdinals {
        /// Where.
        key: ShardKey,
        /// First ordinal.
        first: u64,
        /// Last ordinal.
        last: u64,
    },
    /// The ledger does not know of events that it has committed.
    #[error("the ledger's mark is too low: {key} is marked up to {}, but ordinals up to {last} are in the table before the committed offset", marked.map_or("nothing".to_owned(), |ordinal| format!("ordinal {ordinal}")))]
    MarkBehind {
        /// Where.
        key: ShardKey,
        /// Ordinal of the mark; `None` without one of this numbering or a later one.
        marked: Option<u64>,
        /// Last ordinal in the table.
        last: u64,
    },
    /// Items of a topic partition without a ledger row.
    #[error(
        "the ledger row of topic partition {topic_partition} is missing, and {items} items came through it"
    )]
    LedgerMissing {
        /// Topic partition.
        topic_partition: u32,
        /// Items.
        items: u64,
    },
    /// A ledger row that cannot be read.
    #[error("the ledger row of topic partition `{sk}` cannot be read: {what}")]
    LedgerRow {
        /// Its sort key.
        sk: String,
        /// Why.
        what: String,
    },
    /// A row of gaps that cannot be read.
    #[error("the gap `{sk}` cannot be read")]
    GapRow {
        /// Its sort key.
        sk: String,
    },
    /// An item that no plan accounts for.
    #[error("an item that the ledger knows nothing of: partition key `{}`, sort key `{}` begins at topic offset {offset}, committed is {committed}, and no plan is open", item.pk, item.sk)]
    Orphan {
        /// The item.
        item: ItemKey,
        /// Its first topic offset.
        offset: u64,
        /// First offset that is not committed.
        committed: u64,
    },
    /// Events that were lost, as the sink recorded it.
    #[error("a gap was recorded in topic partition {topic_partition}: {gap}")]
    Gap {
        /// Topic partition.
        topic_partition: u32,
        /// The gap.
        gap: Gap,
    },
    /// Events that the stream removed before they were read, as the source recorded it.
    #[error("the source recorded a gap, in topic partition {topic_partition}: {gap}")]
    StreamGap {
        /// Topic partition that the record of it is in.
        topic_partition: u32,
        /// The gap.
        gap: StreamGap,
    },
    /// A dead letter that cannot be read.
    #[error("a dead letter cannot be read: {which}")]
    DeadLetter {
        /// Which.
        which: String,
    },
    /// The stream holds another number of events than the table.
    #[error(
        "the stream holds {stream} events of {key} up to the ledger's mark, {table} are accounted for"
    )]
    StreamCount {
        /// Where.
        key: ShardKey,
        /// Events in the stream.
        stream: u64,
        /// Events in the table, the dead letters and recorded gaps.
        table: u64,
    },
    /// The stream holds other bytes than the table.
    #[error("events differ from those in the stream: the last {events} of {key}")]
    StreamDiffers {
        /// Where.
        key: ShardKey,
        /// Events compared.
        events: u64,
    },
}

impl Finding {
    /// Stable name of the kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::DamagedItem { .. } => "damaged-item",
            Self::MissingItems { .. } => "missing-items",
            Self::RepeatedItem { .. } => "repeated-item",
            Self::Overlap { .. } => "overlap",
            Self::Late { .. } => "late",
            Self::MissingEvents { .. } => "missing-events",
            Self::RepeatedEvents { .. } => "repeated-events",
            Self::OtherOrdinals { .. } => "other-ordinals",
            Self::MarkBehind { .. } => "mark-behind",
            Self::LedgerMissing { .. } => "ledger-missing",
            Self::LedgerRow { .. } => "ledger-row",
            Self::GapRow { .. } => "gap-row",
            Self::Orphan { .. } => "orphan",
            Self::Gap { .. } => "gap",
            Self::StreamGap { .. } => "stream-gap",
            Self::DeadLetter { .. } => "dead-letter",
            Self::StreamCount { .. } => "stream-count",
            Self::StreamDiffers { .. } => "stream-differs",
        }
    }

    /// Kind, words and what it is about.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut value = json!({"finding": self.kind(), "message": self.to_string()});
        let about = match self {
            Self::DamagedItem { item, .. }
            | Self::MissingItems { item, .. }
            | Self::RepeatedItem { item, .. }
            | Self::Overlap { item, .. }
            | Self::Late { item, .. }
            | Self::Orphan { item, .. } => json!({"pk": &*item.pk, "sk": &*item.sk}),
            Self::MissingEvents { key, .. }
            | Self::RepeatedEvents { key, .. }
            | Self::OtherOrdinals { key, .. }
            | Self::MarkBehind { key, .. }
            | Self::StreamCount { key, .. }
            | Self::StreamDiffers { key, .. } => json!({
                "topic_partition": key.topic_partition,
                "stream": &*key.stream,
                "shard": &*key.shard,
                "epoch": key.epoch,
            }),
            Self::LedgerMissing {
                topic_partition, ..
            }
            | Self::Gap {
                topic_partition, ..
            } => {
                json!({"topic_partition": topic_partition})
            }
            Self::StreamGap {
                topic_partition,
                gap,
            } => json!({
                "topic_partition": topic_partition,
                "stream": gap.stream,
                "shard": gap.shard,
                "kind": gap.kind.name(),
                "after": gap.after,
                "before": gap.before,
                "from_ms": gap.from_ms,
                "to_ms": gap.to_ms,
            }),
            Self::LedgerRow { .. } | Self::GapRow { .. } | Self::DeadLetter { .. } => json!({}),
        };
        if let (Value::Object(all), Value::Object(more)) = (&mut value, about) {
            all.extend(more);
        }
        value
    }
}
