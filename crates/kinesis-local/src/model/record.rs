//! Records on their way in and in a shard.

use bytes::Bytes;

use super::{HashKey, KinesisError, SequenceNumber, limits::MAX_PARTITION_KEY_CHARS};

/// A record to be put.
///
/// The payload `P` is whatever the caller wants back from a read: the model looks
/// only at the hash key and the sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord<P> {
    /// Where the record goes.
    pub hash_key: HashKey,
    /// Bytes of data and partition key together, as AWS counts them.
    pub size_bytes: usize,
    /// What a read returns.
    pub payload: P,
}

impl<P> NewRecord<P> {
    /// A record whose sizes and route are computed as AWS does.
    ///
    /// # Errors
    /// `ValidationException` for a partition key that is empty or over 256 characters,
    /// `InvalidArgumentException` for an explicit hash key that is no number in the hash space.
    pub fn with_payload(
        partition_key: &str,
        explicit_hash_key: Option<&str>,
        data_bytes: usize,
        payload: P,
    ) -> Result<Self, KinesisError> {
        // A byte is never more than a character: most keys need no counting.
        let too_long = partition_key.len() > MAX_PARTITION_KEY_CHARS
            && partition_key.chars().count() > MAX_PARTITION_KEY_CHARS;
        if partition_key.is_empty() || too_long {
            return Err(KinesisError::validation(format!(
                "a partition key has 1 to {MAX_PARTITION_KEY_CHARS} characters, this one has {}",
                partition_key.chars().count()
            )));
        }
        let hash_key = match explicit_hash_key {
            None => HashKey::of_partition_key(partition_key),
            Some(text) => text.parse().map_err(|error| {
                KinesisError::invalid(format!("`ExplicitHashKey` `{}`: {error}", Clip(text)))
            })?,
        };
        Ok(Self {
            hash_key,
            size_bytes: data_bytes + partition_key.len(),
            payload,
        })
    }
}

impl NewRecord<Event> {
    /// A record of the plain payload.
    ///
    /// # Errors
    /// As [`NewRecord::with_payload`].
    pub fn new(
        partition_key: &str,
        explicit_hash_key: Option<&str>,
        data: impl Into<Bytes>,
    ) -> Result<Self, KinesisError> {
        let data = data.into();
        let payload = Event {
            partition_key: partition_key.to_owned(),
            data,
        };
        Self::with_payload(
            partition_key,
            explicit_hash_key,
            payload.data.len(),
            payload,
        )
    }
}

/// The plain payload: what a producer put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The partition key it was put under.
    pub partition_key: String,
    /// The data.
    pub data: Bytes,
}

/// A record in a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<P> {
    /// Its position in the shard.
    pub sequence_number: SequenceNumber,
    /// Approximate arrival time, in milliseconds since the Unix epoch; never
    /// smaller than that of the record before.
    pub arrival_ms: u64,
    /// Bytes of data and partition key together.
    pub size_bytes: usize,
    /// What was put.
    pub payload: P,
}

/// The start of a text that came from outside, for a message of bounded length.
pub(crate) struct Clip<'a>(pub(crate) &'a str);

impl std::fmt::Display for Clip<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 80;
        match self.0.char_indices().nth(SHOWN) {
            Some((end, _)) => write!(f, "{}...", &self.0[..end]),
            None => f.write_str(self.0),
        }
    }
}
