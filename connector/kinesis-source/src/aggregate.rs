//! Records of the Kinesis Producer Library that hold many events: taken apart, or found broken.
//!
//! Layout (awslabs/amazon-kinesis-producer, `aggregation-format.md`, read 2026-11-23): four magic
//! bytes, a protobuf message, the MD5 digest of that message. The message has a table of partition
//! keys, one of explicit hash keys, and the events, which name keys by their index.
//!
//! The library aggregates events for the shard that it expects them to reach. After a reshard some
//! land in a shard whose hash range does not cover them; it notices and sends those again, and
//! consumers drop the stray ones. The Kinesis Client Library drops the whole rest of a record with a stray event, and
//! those before it (`AggregatorUtil.deaggregate` of awslabs/amazon-kinesis-client, read 2026-11-26). We drop the stray
//! ones alone: where the producer library finds that a record reached the shard that it expected, it sends only the
//! stray ones again (`retrier.cc`, `succeed_if_correct_shard`), and the rest would be lost (I1). Where it expected another
//! shard it sends all of them again: then those of this shard come twice, as two records of the stream.

use std::collections::HashMap;

use bytes::Bytes;
use md5::{Digest, Md5};
use prost::Message as _;

use crate::shard::HashKeyRange;

/// First bytes of an aggregated record.
pub const MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];

const DIGEST_BYTES: usize = 16;

/// Longest partition key (Kinesis API reference, `PutRecord`, read 2026-11-23), in characters.
const MAX_PARTITION_KEY_CHARS: usize = 256;

/// The message, its events still encoded: each costs 32 bytes here, however small it is.
#[derive(Clone, PartialEq, prost::Message)]
struct AggregatedRecord {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    partition_keys: Vec<Bytes>,
    #[prost(string, repeated, tag = "2")]
    explicit_hash_keys: Vec<String>,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    events: Vec<Bytes>,
}

/// An event of the message.
#[derive(Clone, PartialEq, prost::Message)]
struct AggregatedEvent {
    #[prost(uint64, optional, tag = "1")]
    partition_key_index: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    explicit_hash_key_index: Option<u64>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    data: Option<Bytes>,
}

/// Why a record that begins like an aggregated one is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokenAggregate {
    /// There is no room for a digest.
    #[error("it has {0} bytes, too few for a digest")]
    Truncated(usize),
    /// It holds nothing: as an event it would be gone without a word.
    #[error("it holds no event")]
    Empty,
    /// The digest is another.
    #[error("its MD5 digest does not match")]
    Digest,
    /// The message is no such message.
    #[error("its message cannot be read: {0}")]
    Message(#[from] prost::DecodeError),
    /// A partition key is none.
    #[error("partition key {0} is not 1 to {MAX_PARTITION_KEY_CHARS} characters of UTF-8")]
    PartitionKey(usize),
    /// An explicit hash key is none.
    #[error("explicit hash key {0} is no number below 2^128")]
    HashKey(usize),
    /// An event names a key that is not there, or has no data.
    #[error("event {event} has no {what}")]
    Event {
        /// Index of the event.
        event: usize,
        /// What it lacks.
        what: &'static str,
    },
}

/// An aggregated record whose every event was checked.
#[derive(Debug)]
pub struct Aggregate {
    partition_keys: Vec<Box<str>>,
    /// The explicit ones, and behind them those of partition keys, each computed once.
    hash_keys: Vec<u128>,
    /// Where each event's keys are.
    keys: Vec<KeysAt>,
    /// What each event is.
    data: Vec<Bytes>,
}

#[derive(Debug, Clone, Copy)]
struct KeysAt {
    partition_key: u32,
    hash_key: u32,
}

/// One event of an aggregated record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRecord<'a> {
    /// Index within the record.
    pub sub_sequence: u32,
    /// Its own partition key.
    pub partition_key: &'a str,
    /// The hash key that decides its shard: the explicit one, else the MD5 of the partition key.
    pub hash_key: u128,
    /// The event.
    pub data: &'a [u8],
}

/// True for a record that begins as an aggregated one does.
#[must_use]
pub fn is_aggregated(data: &[u8]) -> bool {
    data.starts_with(&MAGIC)
}

impl Aggregate {
    /// Reads a record for which [`is_aggregated`] holds, and checks all of it.
    ///
    /// # Errors
    /// [`BrokenAggregate`]; the record is then to be taken as it is.
    pub fn parse(data: &[u8]) -> Result<Self, BrokenAggregate> {
        let body = data.get(MAGIC.len()..).unwrap_or_default();
        let Some(length) = body.len().checked_sub(DIGEST_BYTES) else {
            return Err(BrokenAggregate::Truncated(data.len()));
        };
        let (message, digest) = body.split_at(length);
        if Md5::digest(message).as_slice() != digest {
            return Err(BrokenAggregate::Digest);
        }
        let message = AggregatedRecord::decode(Bytes::copy_from_slice(message))?;
        if message.events.is_empty() {
            return Err(BrokenAggregate::Empty);
        }
        let texts = message.partition_keys.iter().enumerate();
        let texts = texts.map(|(index, key)| {
            let text = partition_key(key).ok_or(BrokenAggregate::PartitionKey(index));
            text.map(Box::from)
        });
        let hash_keys = message.explicit_hash_keys.iter().enumerate();
        let hash_keys =
            hash_keys.map(|(index, key)| key.parse().map_err(|_| BrokenAggregate::HashKey(index)));
        let mut aggregate = Self {
            partition_keys: texts.collect::<Result<_, _>>()?,
            hash_keys: hash_keys.collect::<Result<_, _>>()?,
            keys: Vec::with_capacity(message.events.len()),
            data: message.events,
        };
        let explicit = aggregate.hash_keys.len();
        let mut computed = vec![None; aggregate.partition_keys.len()];
        for index in 0..aggregate.data.len() {
            aggregate.check(index, explicit, &mut computed)?;
        }
        Ok(aggregate)
    }

    /// Reads an event, whose keys are noted and whose encoded form is replaced by its data. `computed` has the
    /// place of each partition key's hash key, if it has one by now.
    fn check(
        &mut self,
        index: usize,
        explicit: usize,
        computed: &mut [Option<u32>],
    ) -> Result<(), BrokenAggregate> {
        let lacks = |what| BrokenAggregate::Event { event: index, what };
        let too_many = |_| lacks("place: there are too many");
        u32::try_from(index).map_err(too_many)?;
        let event = AggregatedEvent::decode(std::mem::take(&mut self.data[index]))?;
        let below = |at: Option<u64>, end: usize| {
            let at = at.and_then(|at| usize::try_from(at).ok());
            at.filter(|at| *at < end)
        };
        let key = below(event.partition_key_index, self.partition_keys.len());
        let key = key.ok_or_else(|| lacks("partition key"))?;
        let hash_key = match (event.explicit_hash_key_index, computed[key]) {
            (None, Some(known)) => known,
            (None, None) => {
                let place = u32::try_from(self.hash_keys.len()).map_err(too_many)?;
                self.hash_keys.push(hash_key(&self.partition_keys[key]));
                computed[key] = Some(place);
                place
            }
            (some, _) => {
                let at = below(some, explicit);
                let at = at.ok_or_else(|| lacks("explicit hash key of that index"))?;
                u32::try_from(at).map_err(too_many)?
            }
        };
        self.keys.push(KeysAt {
            partition_key: u32::try_from(key).map_err(too_many)?,
            hash_key,
        });
        self.data[index] = event.data.ok_or_else(|| lacks("data"))?;
        Ok(())
    }

    /// Number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// True without an event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The events in order.
    pub fn events(&self) -> impl Iterator<Item = UserRecord<'_>> {
        // As many as fit in 32 bits, which was checked with the record.
        let events = (0..).zip(self.keys.iter().zip(&self.data));
        events.map(|(sub_sequence, (keys, data))| UserRecord {
            sub_sequence,
            partition_key: &self.partition_keys[keys.partition_key as usize],
            hash_key: self.hash_keys[keys.hash_key as usize],
            data,
        })
    }
}

/// The text of a partition key; `None` for what cannot be one.
fn partition_key(key: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(key).ok()?;
    let is_short = text.chars().nth(MAX_PARTITION_KEY_CHARS).is_none();
    (is_short && !text.is_empty()).then_some(text)
}

impl UserRecord<'_> {
    /// False for a stray event: its producer has sent it to its own shard as well.
    #[must_use]
    pub fn belongs_to(&self, shard: Option<HashKeyRange>) -> bool {
        shard.is_none_or(|range| range.contains(self.hash_key))
    }
}

/// The hash key of a partition key (Kinesis API reference, `PutRecord`): its MD5 as a number.
#[must_use]
pub fn hash_key(partition_key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(partition_key.as_bytes()).into())
}

/// Puts events into one record, as the Kinesis Producer Library does.
#[derive(Debug, Default)]
pub struct AggregateBuilder {
    message: AggregatedRecord,
    keys: HashMap<String, u64>,
    bytes: usize,
}

impl AggregateBuilder {
    /// Adds an event.
    pub fn push(&mut self, partition_key: &str, explicit_hash_key: Option<u128>, data: Bytes) {
        let AggregatedRecord {
            partition_keys,
            explicit_hash_keys,
            events,
        } = &mut self.message;
        let key = match self.keys.get(partition_key) {
            Some(index) => *index,
            None => {
                let index = partition_keys.len() as u64;
                partition_keys.push(Bytes::copy_from_slice(partition_key.as_bytes()));
                self.keys.insert(partition_key.to_owned(), index);
                self.bytes += partition_key.len() + 4;
                index
            }
        };
        let explicit_hash_key_index = explicit_hash_key.map(|hash_key| {
            explicit_hash_keys.push(hash_key.to_string());
            self.bytes += 44;
            explicit_hash_keys.len() as u64 - 1
        });
        let event = AggregatedEvent {
            partition_key_index: Some(key),
            explicit_hash_key_index,
            data: Some(data),
        };
        let event = event.encode_to_vec();
        self.bytes += event.len() + 6;
        events.push(event.into());
    }

    /// Number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.message.events.len()
    }

    /// True without an event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.message.events.is_empty()
    }

    /// Bytes of the record, at most.
    #[must_use]
    pub fn max_bytes(&self) -> usize {
        self.bytes + MAGIC.len() + DIGEST_BYTES
    }

    /// The record.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        let message = self.message.encode_to_vec();
        let digest = Md5::digest(&message);
        [MAGIC.as_slice(), message.as_slice(), digest.as_slice()].concat()
    }
}

#[cfg(test)]
#[path = "aggregate_tests.rs"]
mod tests;
