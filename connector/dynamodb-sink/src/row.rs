//! A row of the table as the sink sees it, and its exact size.

use std::collections::BTreeMap;

use bytes::Bytes;
use millpond_format::sizing::ItemSize;

use crate::typed::Typed;

/// Attribute names of the table's keys; both are strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyNames {
    /// Partition key (hash).
    pub partition: String,
    /// Sort key (range).
    pub sort: String,
}

impl Default for KeyNames {
    fn default() -> Self {
        Self {
            partition: "pk".into(),
            sort: "sk".into(),
        }
    }
}

/// Key of a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Partition key value.
    pub pk: String,
    /// Sort key value.
    pub sk: String,
}

/// Binary data in pieces that lie elsewhere, put together only when it is sent.
#[derive(Debug, Clone, Default)]
pub struct Pieces(pub Vec<Bytes>);

impl Pieces {
    /// Bytes of all pieces.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// True without a byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One piece of memory.
    #[must_use]
    pub fn concat(&self) -> Vec<u8> {
        self.0.concat()
    }
}

impl PartialEq for Pieces {
    fn eq(&self, other: &Self) -> bool {
        let mut left = self.0.iter().flatten();
        let mut right = other.0.iter().flatten();
        self.len() == other.len() && left.by_ref().eq(right.by_ref())
    }
}

impl Eq for Pieces {}

impl From<Vec<u8>> for Pieces {
    fn from(bytes: Vec<u8>) -> Self {
        Self(vec![bytes.into()])
    }
}

impl From<Bytes> for Pieces {
    fn from(bytes: Bytes) -> Self {
        Self(vec![bytes])
    }
}

/// Value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// String.
    S(String),
    /// Integer.
    N(i64),
    /// Binary.
    B(Pieces),
    /// Of any type, in an item that a mapping made.
    Typed(Typed),
}

/// A row: its key and the other attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Key.
    pub key: Key,
    /// Attributes other than the key, by name.
    pub attributes: BTreeMap<String, Value>,
}

impl Row {
    /// A row without attributes.
    #[must_use]
    pub fn new(key: Key) -> Self {
        Self {
            key,
            attributes: BTreeMap::new(),
        }
    }

    /// Sets an attribute.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.attributes.insert(name.to_owned(), value);
        self
    }

    /// A string attribute.
    #[must_use]
    pub fn string(&self, name: &str) -> Option<&str> {
        match self.attributes.get(name) {
            Some(Value::S(text)) => Some(text),
            _ => None,
        }
    }

    /// An integer attribute.
    #[must_use]
    pub fn integer(&self, name: &str) -> Option<i64> {
        match self.attributes.get(name) {
            Some(Value::N(number)) => Some(*number),
            _ => None,
        }
    }

    /// A binary attribute.
    #[must_use]
    pub fn binary(&self, name: &str) -> Option<&Pieces> {
        match self.attributes.get(name) {
            Some(Value::B(pieces)) => Some(pieces),
            _ => None,
        }
    }

    /// Size by DynamoDB's rules.
    #[must_use]
    pub fn size(&self, names: &KeyNames) -> ItemSize {
        let keys = ItemSize::new()
            .string(&names.partition, &self.key.pk)
            .string(&names.sort, &self.key.sk);
        self.attributes
            .iter()
            .fold(keys, |size, (name, value)| match value {
                Value::S(text) => size.string(name, text),
                Value::N(number) => size.integer(name, *number),
                Value::B(pieces) => size.binary(name, pieces.len()),
                Value::Typed(typed) => size.binary(name, typed.bytes()),
            })
    }
}

/// Attribute names that Millpond's rows use; a key must not take one of them.
pub mod names {
    /// Header section of an item (B).
    pub const HEADER: &str = "h";
    /// Frames of an item (B).
    pub const FRAMES: &str = "d";
    /// Events in an item (N).
    pub const EVENTS: &str = "n";
    /// First event time in ms (N).
    pub const FIRST_TIME: &str = "t0";
    /// Last event time in ms (N).
    pub const LAST_TIME: &str = "t1";
    /// Event of a plain item (B).
    pub const VALUE: &str = "v";
    /// Origin key of a plain item (S).
    pub const ORIGIN: &str = "o";
    /// Lateness bound of a chain in ms (N).
    pub const LATE: &str = "late";
    /// Version of a row's layout (N).
    pub const VERSION: &str = "version";
    /// Topic of a pipeline (S).
    pub const TOPIC: &str = "topic";
    /// Topic partitions of a pipeline (N).
    pub const PARTITIONS: &str = "partitions";
    /// Table of a pipeline's ledger, where that is another one (S).
    pub const LEDGER: &str = "ledger";
    /// Table of a pipeline's items, in the table of its ledger (S).
    pub const ITEMS: &str = "items";
    /// Fingerprint of the configuration (S).
    pub const FINGERPRINT: &str = "fingerprint";
    /// Fencing epoch of a ledger row (N).
    pub const EPOCH: &str = "epoch";
    /// Owner of a ledger row (S).
    pub const OWNER: &str = "owner";
    /// Number of the last step that began or committed a plan (N).
    pub const PLAN: &str = "plan";
    /// What the offsets count in (S).
    pub const LOG: &str = "log";
    /// First offset that is not committed (N).
    pub const COMMITTED: &str = "committed";
    /// First offset that this pipeline read (N).
    pub const START: &str = "start";
    /// Open intent (S).
    pub const INTENT: &str = "intent";
    /// The marks that an open intent moves (B).
    pub const MOVED: &str = "moved";
    /// Per-shard marks (B).
    pub const MARKS: &str = "marks";
    /// Snapshot that holds the other marks (S).
    pub const RESTING: &str = "resting";
    /// Reason of a dead letter (S).
    pub const REASON: &str = "reason";
    /// Detail of a dead letter (S).
    pub const DETAIL: &str = "detail";
    /// Group of a dead letter (S).
    pub const GROUP: &str = "group";
    /// Text of a gap (S).
    pub const GAP: &str = "gap";
    /// A configuration as JSON (S).
    pub const CONFIGURATION: &str = "configuration";
    /// Only of a pipeline whose items a mapping makes: 1 (N).
    pub const MAPPED: &str = "mapped";
    /// What a pipeline's items call their attributes, where that is not as here (S).
    pub const NAMES: &str = "names";
    /// With what the partition keys of a pipeline's items begin (S).
    pub const PREFIX: &str = "prefix";

    /// A dictionary of small items (B).
    pub const DICTIONARY: &str = "dictionary";
    /// CRC-32C of a dictionary (N).
    pub const CRC: &str = "crc";

    /// All of them.
    pub const ALL: [&str; 33] = [
        HEADER,
        FRAMES,
        EVENTS,
        FIRST_TIME,
        LAST_TIME,
        VALUE,
        ORIGIN,
        LATE,
        VERSION,
        TOPIC,
        PARTITIONS,
        LEDGER,
        ITEMS,
        FINGERPRINT,
        EPOCH,
        OWNER,
        PLAN,
        COMMITTED,
        START,
        INTENT,
        MOVED,
        MARKS,
        RESTING,
        REASON,
        DETAIL,
        GROUP,
        GAP,
        CONFIGURATION,
        MAPPED,
        DICTIONARY,
        CRC,
        NAMES,
        PREFIX,
    ];
}
