//! Names of shards and what a listing says about them.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Id of a shard, unique in its stream; cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct ShardId(Arc<str>);

impl ShardId {
    /// The id as Kinesis writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ShardId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl From<String> for ShardId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

impl From<ShardId> for String {
    fn from(id: ShardId) -> Self {
        id.0.as_ref().into()
    }
}

impl Borrow<str> for ShardId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A shard and the shards it was made from, as `ListShards` or a parent's last answer names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardInfo {
    /// The shard.
    pub id: ShardId,
    /// The shards it was split or merged from: none, one or two.
    pub parents: Vec<ShardId>,
    /// The hash keys whose records it takes; `None` where that was not said.
    pub hash_keys: Option<HashKeyRange>,
}

/// Hash keys of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKeyRange {
    /// The first one.
    pub first: u128,
    /// The last one, inclusive.
    pub last: u128,
}

impl HashKeyRange {
    /// Reads the decimal numbers of the service.
    #[must_use]
    pub fn parse(first: &str, last: &str) -> Option<Self> {
        Some(Self {
            first: first.parse().ok()?,
            last: last.parse().ok()?,
        })
    }

    /// True for a hash key whose records the shard takes.
    #[must_use]
    pub fn contains(&self, hash_key: u128) -> bool {
        (self.first..=self.last).contains(&hash_key)
    }
}
